/* gRPC's wire format without HTTP/2: message frames, status codes, the text of headers.
 *
 * The bytes come from a peer: everything is checked against a bound before it is believed. */
#ifndef CLUSTER_WIRE_H
#define CLUSTER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include <modelcache/error.h>

/* A message is preceded by a flag, 1 for a compressed one, and its length as 4 bytes, big-endian. */
#define WIRE_HEAD_SIZE   5
#define WIRE_MESSAGE_MAX ((size_t)64 << 20)

/* gRPC's codes of those that are spoken of by name. */
enum wire_code {
  WIRE_OK = 0,
  WIRE_CANCELLED = 1,
  WIRE_UNKNOWN = 2,
  WIRE_RESOURCE_EXHAUSTED = 8,
  WIRE_ABORTED = 10,
  WIRE_INTERNAL = 13,
  WIRE_UNAVAILABLE = 14,
  WIRE_UNAUTHENTICATED = 16,
  WIRE_CODES, /* how many there are */
};

/* Takes a stream of frames apart, however it was cut into pieces. */
struct wire_frames {
  struct buf buf; /* [0, taken): messages that were handed out; [taken, whole): complete ones; then a part of one */
  size_t taken, whole, max;
};

void wire_frames_init(struct wire_frames *frames, size_t max);
void wire_frames_free(struct wire_frames *frames);
/* Add the next bytes. MC_PROTOCOL: a compressed message (we never ask for them) or a bad flag; MC_RESOURCE_EXHAUSTED: a
 * message longer than `max`, found before its bytes are stored; MC_NO_MEMORY. */
mc_status wire_frames_feed(struct wire_frames *frames, const void *data, size_t size, mc_error *err);
/* The next complete message, or false. `message` is valid until the next feed. */
bool wire_frames_next(struct wire_frames *frames, const void **message, size_t *size);
bool wire_frames_pending(const struct wire_frames *frames);
/* Whether the bytes so far end in the middle of a message. */
bool wire_frames_torn(const struct wire_frames *frames);

/* Append a message's head to a request. */
bool wire_append_head(struct buf *buf, size_t message_size);

/* The status that stands for a gRPC code: the reverse of what a modelcache server does, see modelcache.proto. */
mc_status wire_status(int code);
/* The same where the server has also sent the name of its own status (the trailer WIRE_STATUS_KEY): believed where it
 * says more exactly what the code says, and ignored where it says something else. */
#define WIRE_STATUS_KEY "modelcache-status"
mc_status wire_status_named(int code, const char *name, size_t size);
/* "NOT_FOUND"; "UNKNOWN" for a code that gRPC does not have. */
const char *wire_code_name(int code);
/* The code of an answer that has none of its own: from its HTTP status. */
int wire_code_of_http(int http_status);
/* Read a grpc-status header's value of `size` bytes: a decimal number, else WIRE_UNKNOWN. */
int wire_parse_code(const char *value, size_t size);
/* Decode a grpc-message header's value: percent-escapes become bytes, a broken escape stays as it is. Cut to fit. */
void wire_decode_message(char *text, size_t text_size, const char *value, size_t size);
/* The value of a grpc-timeout header for so many nanoseconds: at most 8 digits and a unit. */
#define WIRE_TIMEOUT_SIZE 16
const char *wire_timeout(char text[WIRE_TIMEOUT_SIZE], int64_t ns);

#endif
