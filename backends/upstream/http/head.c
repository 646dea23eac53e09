/* Heads of responses: the few fields that matter here, read with bounds. */
#include <string.h>

#include <curl/curl.h>
#include <openssl/evp.h>

#include "base/clock.h"
#include "client.h"

#define LINE_MAX_SIZE    4096 /* no field that is looked at is longer */
#define RETRY_AFTER_MOST 86400

void http_head_init(struct http_head *head) {
  memset(head, 0, sizeof(*head));
  head->length = head->total = MC_SIZE_UNKNOWN;
  head->retry_after_ms = -1;
}

static bool parse_u64(const char **at, uint64_t *out) {
  uint64_t value = 0;
  const char *from = *at;
  for (; **at >= '0' && **at <= '9'; ++*at) {
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(**at - '0'), &value)) {
      return false;
    }
  }
  *out = value;
  return *at > from;
}

static void take_length(struct http_head *head, const char *at) {
  uint64_t length;
  if (!head->chunked && parse_u64(&at, &length) && !*at) head->length = length;
}

static void take_transfer_encoding(struct http_head *head, const char *value) {
  size_t size = strlen(value);
  if (size < 7 || !curl_strequal(value + size - 7, "chunked")) return;
  head->chunked = true;
  head->length = MC_SIZE_UNKNOWN;
}

/* "bytes 0-99/200", "bytes 0-99/\*"; of a 416, "bytes \*\/200" */
static void take_range(struct http_head *head, const char *at) {
  if (!curl_strnequal(at, "bytes ", 6)) return;
  at += 6;
  uint64_t first = 0, last = 0, total = MC_SIZE_UNKNOWN;
  bool none = *at == '*';
  if (none) {
    at++;
  } else if (!parse_u64(&at, &first) || *at++ != '-' || !parse_u64(&at, &last)) {
    return;
  }
  if (*at++ != '/') return;
  if (*at == '*') {
    at++;
  } else if (!parse_u64(&at, &total)) {
    return;
  }
  if (*at || last < first || last == MC_SIZE_UNKNOWN || (!none && last >= total)) return;
  head->has_range = !none;
  head->first = first;
  head->last = last;
  head->total = total;
}

static void take_accept_ranges(struct http_head *head, const char *value) {
  head->takes_ranges = curl_strequal(value, "bytes");
}

static void take_etag(struct http_head *head, const char *value) {
  bool good = strlen(value) < sizeof(head->etag);
  for (const char *c = value; *c && good; c++) good = (unsigned char)*c >= 0x20 && *c != 0x7f;
  strcpy(head->etag, good ? value : "");
}

static void take_last_modified(struct http_head *head, const char *value) {
  time_t when = curl_getdate(value, NULL);
  head->last_modified = when > 0 ? when : 0;
}

/* Seconds, or a date. */
static void take_retry_after(struct http_head *head, const char *value) {
  const char *at = value;
  uint64_t seconds;
  if (parse_u64(&at, &seconds) && !*at) {
    head->retry_after_ms = (int64_t)(seconds < RETRY_AFTER_MOST ? seconds : RETRY_AFTER_MOST) * 1000;
    return;
  }
  time_t when = curl_getdate(value, NULL);
  if (when < 0) return;
  int64_t now = clock_wall_ms(), most = RETRY_AFTER_MOST * 1000LL;
  int64_t wait =
      when < (now + most) / 1000 ? when * 1000LL - now : most; /* there are dates that milliseconds can't have */
  head->retry_after_ms = wait < 0 ? 0 : wait;
}

/* RateLimit: "resolvers";r=0;t=172 - where nothing remains it says what Retry-After would, which is believed first. */
static void take_rate_limit(struct http_head *head, const char *value) {
  const char *remaining = strstr(value, ";r=0;"), *time = strstr(value, ";t=");
  uint64_t seconds;
  if (!remaining || !time || head->retry_after_ms >= 0) return;
  time += 3;
  if (!parse_u64(&time, &seconds)) return;
  head->retry_after_ms = (int64_t)(seconds < RETRY_AFTER_MOST ? seconds : RETRY_AFTER_MOST) * 1000;
}

/* Exactly `size` characters that are the base64 of 32 bytes. S3 writes "…-3" for a digest of the digests of 3 parts,
 * which says nothing of the content's own. */
static void take_base64(struct http_head *head, const char *at, size_t size) {
  unsigned char bytes[36];
  if (size != 44 || at[43] != '=' || at[42] == '=') return;
  if (EVP_DecodeBlock(bytes, (const unsigned char *)at, 44) != 33) return;
  memcpy(head->digest.bytes, bytes, sizeof(head->digest.bytes));
  head->has_digest = true;
}

static void take_checksum(struct http_head *head, const char *value) {
  take_base64(head, value, strlen(value));
}

/* Repr-Digest: "sha-512=:…:, sha-256=:…:". Digest, its elder: "SHA-512=…,SHA-256=…". */
static void take_digest(struct http_head *head, const char *value) {
  for (const char *at = value; *at;) {
    at += strspn(at, ", \t");
    size_t size = strcspn(at, ", \t;");
    if (size > 8 && curl_strnequal(at, "sha-256=", 8)) {
      bool colons = size > 10 && at[8] == ':' && at[size - 1] == ':';
      take_base64(head, at + 8 + colons, size - 8 - 2 * (size_t)colons);
    }
    at += strcspn(at, ",");
  }
}

void http_head_line(struct http_head *head, const struct http_dialect *dialect, const char *line, size_t size) {
  static const struct {
    const char *name;
    void (*take)(struct http_head *head, const char *value);
  } fields[] = {
      {"accept-ranges", take_accept_ranges},
      {"content-length", take_length},
      {"content-range", take_range},
      {"digest", take_digest},
      {"etag", take_etag},
      {"last-modified", take_last_modified},
      {"ratelimit", take_rate_limit},
      {"repr-digest", take_digest},
      {"retry-after", take_retry_after},
      {"transfer-encoding", take_transfer_encoding},
      {"x-amz-checksum-sha256", take_checksum},
  };
  char text[LINE_MAX_SIZE];
  if (memchr(line, 0, size)) return;
  while (size && strchr("\r\n \t", line[size - 1])) size--;
  bool cut = size >= sizeof(text);
  if (cut) size = sizeof(text) - 1;
  memcpy(text, line, size);
  text[size] = 0;
  char *value = strchr(text, ':');
  if (!value) return;
  *value++ = 0;
  value += strspn(value, " \t");
  for (size_t i = 0; i < sizeof(fields) / sizeof(*fields) && !cut; i++) {
    if (curl_strequal(text, fields[i].name)) fields[i].take(head, value);
  }
  for (size_t i = 0; dialect && i < HTTP_FIELDS && dialect->fields[i]; i++) {
    if (!curl_strequal(text, dialect->fields[i])) continue;
    size_t length = strlen(value);
    bool fits = !cut && length < HTTP_FIELD_SIZE;
    memcpy(head->fields[i], value, fits ? length : 0);
    head->fields[i][fits ? length : 0] = 0;
    if (!fits) head->cut |= 1U << i;
  }
}
