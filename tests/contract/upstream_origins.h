/* What stands behind each upstream in its contract's tests: one small world for each, behind one face. */
#ifndef TESTS_UPSTREAM_ORIGINS_H
#define TESTS_UPSTREAM_ORIGINS_H

#include <modelcache/backend/upstream.h>

/* What a test puts there. It outlives the origin. */
struct thing {
  const uint8_t *data;
  size_t size;
  mc_digest digest;
  mc_chunk_table *chunks;
};

enum how {
  HOW_RIGHT,
  HOW_SILENT,    /* no answer to any question about it */
  HOW_STALLED,   /* its first `at` bytes can be had, the others don't come */
  HOW_CUT,       /* `times` times the connection breaks at `at` */
  HOW_FAILING,   /* `times` times the answer is that it can't be had just now */
  HOW_UNRANGED,  /* as a whole only */
  HOW_SIZELESS,  /* the same, and its size isn't told either */
  HOW_LATE,      /* digest and chunks become known only with `news` */
  HOW_SAID_MORE, /* it is said to have 1000 bytes more than it has */
  HOW_SAID_LESS,
  HOW_WRONG_RANGE, /* a part is another one than was asked for */
  HOW_LOOPING,     /* it redirects to itself */
  HOW_MISLED,      /* it redirects to the metadata service of a machine */
  HOWS,
};

/* To a cache, where the request alone does not say what it is. */
enum request {
  REQUEST_ANY,
  REQUEST_ENTRIES,
  REQUEST_PREFETCH,
  REQUEST_EVICT,
  REQUEST_STATUS,
  REQUEST_CHECK,
  REQUEST_REPAIR
};
#define EVICTED_BYTES 4711 /* what it answers */

struct counts {
  unsigned connections, requests;
  uint64_t bytes;
};

struct origin;

/* NULL: it can't be made to do that. */
struct origin_ops {
  const mc_upstream_ops *upstream;
  unsigned can;      /* 1 << HOW_…, for `behave` */
  bool tells_digest; /* with stat and open */
  /* Also sets what the upstream needs in its configuration. */
  struct origin *(*start)(mc_upstream_config *config);
  void (*stop)(struct origin *origin);              /* after the upstream was closed */
  const char *(*root)(const struct origin *origin); /* a URL that ends in '/' */
  /* Paths are relative to the root, as they are: not percent-encoded. */
  void (*put)(struct origin *origin, const char *path, const struct thing *thing); /* or put another in its place */
  void (*remove)(struct origin *origin, const char *path);
  void (*forbid)(struct origin *origin, const char *path);
  void (*behave)(struct origin *origin, const char *path, enum how how, uint64_t at, unsigned times);
  void (*news)(struct origin *origin);
  void (*mislead)(struct origin *origin, const char *folder);  /* its listing has a path that leaves it */
  void (*expect)(struct origin *origin, enum request request); /* from now on */
  struct counts (*counts)(struct origin *origin);
};

struct http_behaviour;
/* For those on HTTP, most of which can do all of HTTP_CAN. `size`: of the thing. */
#define HTTP_CAN                                                                                                       \
  (1 << HOW_SILENT | 1 << HOW_STALLED | 1 << HOW_CUT | 1 << HOW_FAILING | 1 << HOW_SAID_MORE | 1 << HOW_SAID_LESS |    \
   1 << HOW_WRONG_RANGE | 1 << HOW_LOOPING | 1 << HOW_MISLED)
struct http_behaviour http_behaviour_of(enum how how, uint64_t at, unsigned times, uint64_t size);

extern const struct origin_ops file_origin, http_origin, s3_origin, gcs_origin, azure_origin, hf_origin, hf_lfs_origin,
    cluster_origin;

#endif
