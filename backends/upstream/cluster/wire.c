#include "wire.h"

#include <stdio.h>
#include <string.h>

#define ORIGIN "cluster"

/* One read of the socket may bring some more behind a message of the greatest size. */
#define SLACK ((size_t)8 << 20)

void wire_frames_init(struct wire_frames *frames, size_t max) {
  *frames = (struct wire_frames){.max = max};
  buf_init(&frames->buf, max + WIRE_HEAD_SIZE + SLACK);
}

void wire_frames_free(struct wire_frames *frames) {
  buf_free(&frames->buf);
}

static size_t message_size(const char *head) {
  const uint8_t *bytes = (const uint8_t *)head;
  return (size_t)bytes[1] << 24 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 8 | bytes[4];
}

mc_status wire_frames_feed(struct wire_frames *frames, const void *data, size_t size, mc_error *err) {
  struct buf *buf = &frames->buf;
  if (frames->taken) {
    buf_consume(buf, frames->taken);
    frames->whole -= frames->taken;
    frames->taken = 0;
  }
  if (!buf_append(buf, data, size)) {
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a message from the service");
  }
  while (buf->size - frames->whole >= WIRE_HEAD_SIZE) {
    const char *head = buf->data + frames->whole;
    size_t length = message_size(head);
    if (*head) {
      return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service sent a compressed message, which nobody asked for");
    }
    if (length > frames->max) {
      return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN,
                          "the service began a message of %zu bytes; the limit is %zu", length, frames->max);
    }
    if (buf->size - frames->whole - WIRE_HEAD_SIZE < length) break;
    frames->whole += WIRE_HEAD_SIZE + length;
  }
  return MC_OK;
}

bool wire_frames_next(struct wire_frames *frames, const void **message, size_t *size) {
  if (!wire_frames_pending(frames)) return false;
  const char *head = frames->buf.data + frames->taken;
  *message = head + WIRE_HEAD_SIZE;
  *size = message_size(head);
  frames->taken += WIRE_HEAD_SIZE + *size;
  return true;
}

bool wire_frames_pending(const struct wire_frames *frames) {
  return frames->taken < frames->whole;
}

bool wire_frames_torn(const struct wire_frames *frames) {
  return frames->whole < frames->buf.size;
}

bool wire_append_head(struct buf *buf, size_t size) {
  const uint8_t head[WIRE_HEAD_SIZE] = {0, (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8),
                                        (uint8_t)size};
  return size <= WIRE_MESSAGE_MAX && buf_append(buf, head, sizeof(head));
}

static const struct {
  const char *name;
  mc_status status;
} codes[WIRE_CODES] = {
    {"OK", MC_OK},
    {"CANCELLED", MC_UNAVAILABLE}, /* not by us, or nobody would read it: the server is stopping */
    {"UNKNOWN", MC_IO},
    {"INVALID_ARGUMENT", MC_INVALID_ARGUMENT},
    {"DEADLINE_EXCEEDED", MC_DEADLINE_EXCEEDED},
    {"NOT_FOUND", MC_NOT_FOUND},
    {"ALREADY_EXISTS", MC_BUSY},
    {"PERMISSION_DENIED", MC_PERMISSION_DENIED},
    {"RESOURCE_EXHAUSTED", MC_RESOURCE_EXHAUSTED},
    {"FAILED_PRECONDITION", MC_UNAVAILABLE},
    {"ABORTED", MC_CHANGED},
    {"OUT_OF_RANGE", MC_INVALID_ARGUMENT},
    {"UNIMPLEMENTED", MC_UNSUPPORTED},
    {"INTERNAL", MC_IO},
    {"UNAVAILABLE", MC_UNAVAILABLE},
    {"DATA_LOSS", MC_CORRUPT},
    {"UNAUTHENTICATED", MC_PERMISSION_DENIED},
};

mc_status wire_status(int code) {
  return codes[code >= 0 && code < WIRE_CODES ? code : WIRE_UNKNOWN].status;
}

mc_status wire_status_named(int code, const char *name, size_t size) {
  /* Those that share a code with others: by their names alone are they told apart. */
  static const struct {
    int code;
    mc_status status;
  } finer[] = {
      {WIRE_RESOURCE_EXHAUSTED, MC_NO_SPACE},
      {WIRE_RESOURCE_EXHAUSTED, MC_NO_MEMORY},
      {WIRE_ABORTED, MC_BUSY},
      {WIRE_INTERNAL, MC_PROTOCOL},
  };
  for (size_t i = 0; i < sizeof(finer) / sizeof(*finer); i++) {
    const char *known = mc_status_name(finer[i].status);
    if (finer[i].code == code && strlen(known) == size && memcmp(known, name, size) == 0) return finer[i].status;
  }
  return wire_status(code);
}

const char *wire_code_name(int code) {
  return codes[code >= 0 && code < WIRE_CODES ? code : WIRE_UNKNOWN].name;
}

int wire_code_of_http(int http_status) {
  switch (http_status) {
  case 400:
    return WIRE_INTERNAL;
  case 401:
    return WIRE_UNAUTHENTICATED;
  case 403:
    return 7; /* PERMISSION_DENIED */
  case 404:
    return 12; /* UNIMPLEMENTED */
  case 429:
  case 502:
  case 503:
  case 504:
    return WIRE_UNAVAILABLE;
  default:
    return WIRE_UNKNOWN;
  }
}

int wire_parse_code(const char *value, size_t size) {
  int code = 0;
  if (size == 0 || size > 3) return WIRE_UNKNOWN;
  for (size_t i = 0; i < size; i++) {
    if (value[i] < '0' || value[i] > '9') return WIRE_UNKNOWN;
    code = code * 10 + (value[i] - '0');
  }
  return code;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void wire_decode_message(char *text, size_t text_size, const char *value, size_t size) {
  size_t out = 0;
  for (size_t i = 0; i < size && out + 1 < text_size; i++) {
    bool escape = value[i] == '%' && size - i > 2 && hex_digit(value[i + 1]) >= 0 && hex_digit(value[i + 2]) >= 0;
    char c = escape ? (char)(hex_digit(value[i + 1]) << 4 | hex_digit(value[i + 2])) : value[i];
    if (escape) i += 2;
    text[out++] = c ? c : '?';
  }
  text[out] = 0;
}

const char *wire_timeout(char text[WIRE_TIMEOUT_SIZE], int64_t ns) {
  static const struct {
    int64_t ns;
    char name;
  } units[] = {{1, 'n'}, {1000, 'u'}, {1000000, 'm'}, {1000000000, 'S'}, {60000000000, 'M'}, {3600000000000, 'H'}};
  const int64_t most = 99999999;
  size_t unit = 0;
  if (ns < 1) ns = 1;
  while (ns / units[unit].ns >= most) unit++; /* INT64_MAX is some 2.5 million hours */
  int64_t count = ns / units[unit].ns + (ns % units[unit].ns != 0);
  snprintf(text, WIRE_TIMEOUT_SIZE, "%u%c", (unsigned)count, units[unit].name);
  return text;
}
