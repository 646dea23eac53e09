/* The HTTP client that upstreams on this ground share: one request at a time on a pooled libcurl handle, with the
 * call's deadline and cancellation, a stall timeout, and connections that are used again.
 *
 * What a request may cost is bounded whatever the origin does: the bytes and the time of a head, the redirects, the
 * bytes and the time of a body that nobody wants. Cookies, netrc, Referer and the like are never sent; user information
 * in a redirect is dropped. */
#ifndef UPSTREAM_HTTP_CLIENT_H
#define UPSTREAM_HTTP_CLIENT_H

#include <modelcache/backend/upstream.h>

struct http_client;

mc_status http_client_new(struct http_client **out, const mc_upstream_config *config, mc_error *err);
void http_client_free(struct http_client *client);

/* What a response's head says; of the last one, after redirects. */
struct http_head {
  long status;     /* 0: there was none */
  uint64_t length; /* Content-Length; MC_SIZE_UNKNOWN: not given, or overruled by chunks */
  bool chunked;
  bool has_range;              /* a Content-Range that could be read: */
  uint64_t first, last, total; /* total MC_SIZE_UNKNOWN for '*'; a 416 has it without a range */
  bool takes_ranges;           /* Accept-Ranges: bytes */
  char etag[256];              /* "" for one that's too long */
  int64_t last_modified;
  int64_t retry_after_ms; /* -1: not given */
  bool has_digest;        /* SHA-256 of the whole, from Repr-Digest, Digest or x-amz-checksum-sha256 */
  mc_digest digest;
};

void http_head_init(struct http_head *head);
/* Take one line of a head into account ("name: value"); for tests and fuzzing, too. */
void http_head_line(struct http_head *head, const char *line, size_t size);

struct http_request {
  const char *method; /* "GET" or "HEAD" */
  const char *url;
  uint64_t first, end; /* the range that is asked for; end 0: no range, MC_SIZE_UNKNOWN: as far as it goes */
  /* Called with the head before the body, also that of an error; what it returns ends the request. May be NULL. */
  mc_status (*on_head)(void *user, const struct http_head *head, mc_error *err);
  /* Called with pieces of the body of a 200 or 206. NULL: the body is not wanted. */
  mc_status (*on_body)(void *user, const void *data, size_t size, mc_error *err);
  void *user;
};

/* One attempt. MC_OK whenever there was a whole response, of whatever HTTP status: see http_status. A failure below
 * HTTP, a body cut short, a stall: MC_UNAVAILABLE. `head` is always set. */
mc_status http_perform(struct http_client *client, const struct http_request *request, struct http_head *head,
                       const mc_call *call, mc_error *err);
/* What a response stands for: MC_OK for 200 and 206 alone. Fills err with a message that names the URL. */
mc_status http_status(const struct http_head *head, const char *url, mc_error *err);
/* After an attempt that failed with `status`: MC_OK when it's time for another, for which this has waited (what
 * Retry-After said, else growing with jitter); else the status to give up with. `failures` counts those in a row. */
mc_status http_again(struct http_client *client, uint32_t *failures, mc_status status, const struct http_head *head,
                     const mc_call *call, mc_error *err);
/* Attempts until there is a 200 or 206, or a reason to give up. */
mc_status http_fetch(struct http_client *client, const struct http_request *request, struct http_head *head,
                     const mc_call *call, mc_error *err);

#endif
