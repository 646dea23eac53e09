/* A small HTTP/1.1 origin for the tests of upstreams: pages in memory, behaviour on demand, and everything is counted.
 *
 * Each connection has a thread. What is set for a page counts from the next request on. */
#ifndef TESTS_HTTP_ORIGIN_H
#define TESTS_HTTP_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_origin;

/* How a page is answered; all zero: as it should be. */
struct http_behaviour {
  int status;       /* an error page with this status, `times` times (0: always) */
  bool stall_head;  /* answer nothing at all, until the client has gone */
  bool stalls;      /* send `at` bytes of each body, then nothing, until the client has gone */
  bool cuts;        /* close the connection after `at` bytes of each body, `times` times (0: always) */
  uint64_t at;      /* counted from the start of the content, not of the range */
  unsigned times;   /* of `status` and `cuts`: afterwards the page is answered as it should be */
  bool no_ranges;   /* ignore Range */
  bool chunked;     /* say no length, nor take ranges */
  bool wrong_range; /* answer a range with one that begins a byte later */
  bool head_lies;   /* HEAD says that the length is `length` */
  uint64_t length;
  const char *leads_to; /* a redirect to there; "": to the very same page */
};

struct http_counts {
  unsigned connections, requests;
  uint64_t body_bytes; /* sent, of GETs */
};

struct http_origin *http_origin_start(void);
/* Cuts every connection. */
void http_origin_stop(struct http_origin *origin);
uint16_t http_origin_port(const struct http_origin *origin);

/* What a request asks for, where services have more than pages at paths. */
struct http_asked {
  char path[256];   /* of the page */
  unsigned version; /* that is wanted: another is not there; 0: any */
  bool or_before;   /* so is one before it */
  bool about;       /* it tells of others: its bytes are not counted */
};

/* How a service is spoken to. */
struct http_face {
  /* What the target of a request ("/a/b?c") asks for. false: nothing that is there. From any thread. */
  bool (*read)(struct http_asked *out, const char *target);
  const char *version_field; /* a field of heads that has the version's number, */
  int version_digits;        /* with so many digits at least */
  const char *missing;       /* or NULL: a field of heads that say that nothing is there */
};

/* Before anything is asked. The face lives as long as the origin. */
void http_origin_speak(struct http_origin *origin, const struct http_face *face);

/* Put a page at `path` ("/a/b", as it stands in the request), or another in its place with another ETag and date. The
 * data is not copied; it lives as long as the origin. Pages are few: MAX_PAGES. The number of its version. */
unsigned http_origin_put(struct http_origin *origin, const char *path, const void *data, size_t size);
/* Another ETag of a page than its version's, until another is put there. */
void http_origin_tag(struct http_origin *origin, const char *path, const char *etag);
void http_origin_remove(struct http_origin *origin, const char *path);
void http_origin_behave(struct http_origin *origin, const char *path, const struct http_behaviour *behaviour);

struct http_counts http_origin_counts(struct http_origin *origin);

#endif
