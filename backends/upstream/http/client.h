/* The HTTP client that upstreams on this ground share: one request at a time on a pooled libcurl handle, with the
 * call's deadline and cancellation, a stall timeout, and connections that are used again. */
#ifndef UPSTREAM_HTTP_CLIENT_H
#define UPSTREAM_HTTP_CLIENT_H

#include <modelcache/backend/upstream.h>

struct http_client;

mc_status http_client_new(struct http_client **out, const mc_upstream_config *config, mc_error *err);
void http_client_free(struct http_client *client);

/* What a response's head says; of the last one, after redirects. */
struct http_head {
  long status;
  uint64_t length;             /* Content-Length; MC_SIZE_UNKNOWN: not given */
  bool has_range;              /* a Content-Range that could be read: */
  uint64_t first, last, total; /* total MC_SIZE_UNKNOWN for '*' */
  bool accepts_ranges;
  char etag[256]; /* "" for one that's too long */
  int64_t last_modified;
  int64_t retry_after_ms; /* -1: not given */
  bool has_digest;        /* SHA-256 of the whole, from Repr-Digest, Digest or x-amz-checksum-sha256 */
  mc_digest digest;
};

struct http_request {
  const char *method; /* "GET" or "HEAD" */
  const char *url;
  uint64_t first, last; /* a Range of bytes, both inclusive; first MC_SIZE_UNKNOWN: none; last MC_SIZE_UNKNOWN: open */
  const char *if_match; /* or NULL */
  /* Called with the head before the body; an error ends the request with it. May be NULL. */
  mc_status (*on_head)(void *user, const struct http_head *head, mc_error *err);
  /* Called with pieces of the body. NULL: the body is not wanted; the request ends with its head. */
  mc_status (*on_body)(void *user, const void *data, size_t size, mc_error *err);
  void *user;
};

/* One attempt. MC_OK whenever there was a whole response, of whatever HTTP status: see head->status. A failure below
 * HTTP, a body cut short, a stall: MC_UNAVAILABLE. */
mc_status http_perform(struct http_client *client, const struct http_request *request, struct http_head *head,
                       const mc_call *call, mc_error *err);
/* The status that an HTTP status stands for; MC_OK for 2xx. Fills err with a message that names the URL. */
mc_status http_status(long status, const char *url, mc_error *err);
/* Wait before attempt number `attempt` (from 1): what Retry-After said, else growing with jitter, at most 10 s. */
mc_status http_backoff(uint32_t attempt, int64_t retry_after_ms, const mc_call *call, mc_error *err);
uint32_t http_retries(const struct http_client *client);

/* Take one line of a head into account ("name: value"); for tests and fuzzing, too. */
void http_head_line(struct http_head *head, const char *line, size_t size);
void http_head_init(struct http_head *head);

#endif
