/* The HTTP client that upstreams on this ground share: one request at a time on a pooled libcurl handle, with the
 * call's deadline and cancellation, a stall timeout, and connections that are used again.
 *
 * What a request may cost is bounded whatever the origin does: the bytes and the time of a head, the redirects, the
 * bytes and the time of a body that nobody wants. Cookies, netrc, Referer and the like are never sent; user information
 * in a redirect is dropped. */
#ifndef UPSTREAM_HTTP_CLIENT_H
#define UPSTREAM_HTTP_CLIENT_H

#include <curl/curl.h>

#include <modelcache/backend/upstream.h>

#define URL_SHOWN 300 /* bytes of a URL in a message */

struct http_client;
struct http_dialect;

mc_status http_client_new(struct http_client **out, const mc_upstream_config *config, mc_error *err);
void http_client_free(struct http_client *client);
/* What the operator says of this URL's origin; NULL: nothing. */
const mc_origin_rule *http_client_rule(const struct http_client *client, const char *url);

#define HTTP_FIELDS     8
#define HTTP_FIELD_SIZE 2048

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
  int64_t retry_after_ms; /* from Retry-After, or RateLimit where nothing is left; -1: not given */
  bool has_digest;        /* SHA-256 of the whole, from Repr-Digest, Digest or x-amz-checksum-sha256 */
  mc_digest digest;
  char fields[HTTP_FIELDS]
             [HTTP_FIELD_SIZE]; /* those that the dialect names; "" for one that isn't there or is too long */
  unsigned cut;                 /* 1 << number, of those that are too long */
};

void http_head_init(struct http_head *head);
/* Take one line of a head into account ("name: value"); for tests and fuzzing, too. */
void http_head_line(struct http_head *head, const struct http_dialect *dialect, const char *line, size_t size);

struct keys;

/* Where a request goes, and what it carries. */
struct http_target {
  char *url;                  /* malloced; http or https */
  struct curl_slist *headers; /* sent there, and not to another site that it redirects to */
  struct keys *keys;          /* a reference on those that it shows, for `judge`; NULL: none */
};

/* false: no memory. */
bool http_target_header(struct http_target *target, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum http_follow {
  HTTP_FOLLOW,      /* redirects are followed */
  HTTP_FOLLOW_SITE, /* within one scheme, host and port; one that leads away is the response */
  HTTP_FOLLOW_NONE, /* a redirect is the response */
};

struct http_request {
  const char *method; /* "GET", "HEAD", "POST", "PUT" (of a token) */
  const char
      *url; /* as messages and the operator's rules name it; it is asked there, unless `dialect` aims elsewhere */
  uint64_t first, end; /* the range that is asked for; end 0: no range, MC_SIZE_UNKNOWN: as far as it goes */
  const struct http_dialect *dialect; /* NULL: plain */
  void *self;                         /* the dialect's */
  const struct http_version *version; /* the one that is wanted; NULL: the current one */
  const char *body;                   /* of a POST, or NULL */
  size_t body_size;
  const char *const *headers; /* "name: value", ended by NULL, besides the target's; NULL: none */
  enum http_follow follow;
  bool of_machine; /* to the metadata service of the machine or pod itself: never by a proxy, link-local is right */
  /* Called with the head before the body, also that of an error; what it returns ends the request. May be NULL. */
  mc_status (*on_head)(void *user, const struct http_head *head, mc_error *err);
  /* Called with pieces of the body of a 200 or 206. NULL: the body is not wanted. */
  mc_status (*on_body)(void *user, const void *data, size_t size, mc_error *err);
  void *user;
  const struct http_target *target; /* set for `judge`: where the attempt went */
};

/* A version as an opened source knows it. */
struct http_version {
  mc_validators validators;
  char detail[128]; /* the dialect's own: a commit, say */
  bool pinned;      /* what is asked for with it is of this version or an error, also where the answer doesn't tell */
};

/* How requests to one make of service differ from plain ones. Ops are called from any thread. */
struct http_dialect {
  const char *name;                /* of its messages */
  const char *encoding;            /* Accept-Encoding; NULL: "identity" */
  const char *fields[HTTP_FIELDS]; /* fields of heads that it wants to see: lower-case names, as many as there are */
  /* Optional. Before each attempt, for signatures and tokens grow old: where the request goes, and its headers. The
   * target is freed by the caller, also on failure. May block, for credentials. */
  mc_status (*aim)(const struct http_request *request, struct http_target *target, const mc_call *call, mc_error *err);
  /* Optional. The target led to another site, and this URL there is asked next, without the target's headers. */
  void (*led)(const struct http_request *request, const char *to);
  /* Optional. What a response other than 200 and 206 stands for (`body`: its first 64 KiB; zero-terminated). *again:
   * since something was learnt, a fresh token or another region, to ask once more at once. May return MC_OK. May block.
   */
  mc_status (*judge)(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                     const mc_call *call, mc_error *err);
};

/* One attempt. MC_OK whenever there was a whole response, of whatever HTTP status: see http_status. A failure below
 * HTTP, a body cut short, a stall: MC_UNAVAILABLE. `head` is always set. */
mc_status http_perform(struct http_client *client, const struct http_request *request, struct http_head *head,
                       const mc_call *call, mc_error *err);
/* The same, judged: MC_OK for 200 and 206, and for what the dialect says is fine; otherwise what the response stands
 * for. */
mc_status http_ask(struct http_client *client, const struct http_request *request, struct http_head *head,
                   const mc_call *call, mc_error *err);
/* What a response stands for: MC_OK for 200 and 206 alone. Fills err with a message that names the URL. */
mc_status http_status(const struct http_head *head, const char *url, mc_error *err);
/* After an attempt that failed with `status`: MC_OK when it's time for another, for which this has waited (what
 * Retry-After said, else growing with jitter); else the status to give up with. `failures` counts those in a row. */
mc_status http_again(struct http_client *client, uint32_t *failures, mc_status status, const struct http_head *head,
                     const mc_call *call, mc_error *err);
/* Attempts until http_ask says MC_OK, or there's a reason to give up. */
mc_status http_fetch(struct http_client *client, const struct http_request *request, struct http_head *head,
                     const mc_call *call, mc_error *err);

struct buf;
/* The same for an answer that is read as a whole, which is in `body` then, zero-terminated; MC_PROTOCOL if it's larger
 * than `body` may be. The request's on_head, on_body and user are set here. */
mc_status http_fetch_text(struct http_client *client, const struct http_request *request, struct buf *body,
                          const mc_call *call, mc_error *err);
/* The same by http_ask, for who must know soon. */
mc_status http_ask_text(struct http_client *client, const struct http_request *request, struct buf *body,
                        struct http_head *head, const mc_call *call, mc_error *err);

#endif
