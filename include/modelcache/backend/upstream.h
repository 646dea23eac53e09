/* The upstream backend: where content comes from.
 *
 * The engine opens a source for one version of a URL, reads ranges of it (several threads at once, one range each),
 * asks for the facts that are known only at the end, and closes it.
 *
 * Every op that takes a call may be made from any thread, and ends with MC_CANCELLED or MC_DEADLINE_EXCEEDED as soon as
 * it can, within a fraction of a second, once the call was cancelled or its deadline has passed; if it is so from the
 * start, without asking anybody. What an op reports is an upstream's own to have checked: tests/contract/upstream.c
 * holds every upstream to what is said here. */
#ifndef MODELCACHE_BACKEND_UPSTREAM_H
#define MODELCACHE_BACKEND_UPSTREAM_H

#include <modelcache/options.h>
#include <modelcache/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MC_UPSTREAM_ABI 2

enum {
  MC_UPSTREAM_CACHE = 1 << 0, /* is itself a cache: the ops of `cache` are there, and it takes URLs of any scheme */
};

typedef struct mc_upstream mc_upstream;
typedef struct mc_source mc_source;

typedef struct mc_upstream_config {
  size_t struct_size;
  const char *endpoint;       /* cluster: HOST:PORT of the control plane */
  int64_t connect_timeout_ms; /* for one connection */
  int64_t stall_timeout_ms;   /* no byte for this long: the attempt has failed */
  uint32_t retries;           /* further attempts after a retryable failure */
  bool allow_link_local;      /* may talk to link-local and cloud metadata addresses */
  const char *user_agent;
  const mc_logger *logger;
  /* cluster: pulls bytes from pods over this; see transport.h. */
  struct mc_transport *const *transports;
  size_t transport_count;
  const char *schemes; /* comma-separated: where redirects may lead; NULL: to each that the upstream takes */
  /* What the operator says of origins: see options.h. They outlive the upstream, and their prefixes are normalised. */
  const mc_origin_rule *origins;
  size_t origin_count;
  const mc_credentials *credentials;
  size_t credentials_count;
} mc_upstream_config;

/* What is known of a source. Unknown: size MC_SIZE_UNKNOWN, has_digest false, chunks.hashes NULL. */
typedef struct mc_info {
  uint64_t size;
  mc_validators validators;
  bool has_digest;
  mc_digest digest;
  mc_checksum checksum;  /* where it has no digest; of kind MC_CHECKSUM_NONE: unknown */
  mc_chunk_table chunks; /* hashes belong to the source and live as long as it */
  bool ranges;           /* ranges can be read; false: only the whole, from 0, by one reader */
  bool unchanged;        /* it is the version that `known` described; nothing but the validators is set besides */
} mc_info;

/* Why a caller waits, as an upstream reports it while `open` or `finish` blocks. */
typedef struct mc_upstream_progress {
  uint64_t bytes, total; /* of the peer's own download; total MC_SIZE_UNKNOWN where unknown */
  const char *reason;    /* a short text, valid during the call */
} mc_upstream_progress;

typedef struct mc_open_args {
  const char *url;
  const mc_validators *known; /* NULL, or the version that is at hand: say `unchanged` instead of opening it again */
  uint64_t known_size;
  const mc_digest *known_digest; /* NULL, or its digest, for an upstream that knows digests */
  /* NULL (always where something is `known`), or what this upstream's listing said of it just now, which need not be
   * asked again: open it without a request where that can be done; a version that is no longer there shows when it is
   * read (MC_CHANGED). It is not of an empty file, and its path is not of use. What else a read then learns of the
   * version, source_finish tells. */
  const mc_listed *listed;
  const mc_digest *digest; /* NULL, or, for an upstream that is a cache: the version that is wanted, from its storage */
  bool revalidate; /* for an upstream that is a cache: it has to ask its own upstream, however young its copy is */
  void (*progress)(void *user, const mc_upstream_progress *progress); /* may be NULL; from the calling thread */
  void *progress_user;
} mc_open_args;

/* Where a range goes: implemented by the engine, one for each thread that reads. The bytes are delivered in order,
 * from `offset`, which the sink moves; `end` is one past the last that is wanted, MC_SIZE_UNKNOWN for as far as it
 * goes.
 *
 * Deliver either with `write`, or by filling what `space` returns and then calling `advance`; both fail when the call
 * was cancelled or passed its deadline, or the bytes can't be stored or do not verify: end the read then and return
 * that very status. On MC_CORRUPT `offset` has been set back to the start of the bad chunk. */
typedef struct mc_sink mc_sink;
struct mc_sink {
  uint64_t offset, end;
  mc_status (*write)(mc_sink *self, const void *data, size_t size, mc_error *err);
  /* Memory for the next bytes: at least 1, at most *size (set to what is there). Never NULL unless offset == end. */
  void *(*space)(mc_sink *self, size_t *size);
  mc_status (*advance)(mc_sink *self, size_t size, mc_error *err);
  bool suspect; /* these bytes arrived damaged before: a peer should check its own copy before it sends them again */
};

/* For the upstreams that are caches (MC_UPSTREAM_CACHE): the operations on what they keep. */
typedef struct mc_upstream_cache_ops {
  /* Report the entries whose URL begins with `prefix` and comes after `after` (NULL or "": all), sorted by URL. */
  mc_status (*entries)(mc_upstream *self, const char *prefix, const char *after,
                       bool (*visit)(void *user, const mc_entry *entry), void *user, const mc_call *call,
                       mc_error *err);
  mc_status (*prefetch)(mc_upstream *self, const char *url, bool pin, const mc_call *call, mc_error *err);
  mc_status (*evict)(mc_upstream *self, const char *url, uint64_t *evicted, const mc_call *call, mc_error *err);
  /* The service's state as a JSON document; *json is malloced, the caller frees it. */
  mc_status (*status)(mc_upstream *self, char **json, const mc_call *call, mc_error *err);
  /* Optional. Have the service check how it asks an origin: see mc_check_origin. */
  mc_status (*check)(mc_upstream *self, const char *url, mc_origin_check *out, const mc_call *call, mc_error *err);
  /* Optional. Report what a URL was before: see mc_history. */
  mc_status (*history)(mc_upstream *self, const char *url, bool (*visit)(void *user, const mc_former *former),
                       void *user, const mc_call *call, mc_error *err);
  /* Optional. Report what changes under a prefix: see mc_watch. A call of `changed` with NULL says that all
   * that changes from then on is told. Blocks until the call ends, or the connection does: never MC_OK. */
  mc_status (*watch)(mc_upstream *self, const char *prefix, void (*changed)(void *user, const mc_entry *entry),
                     void *user, const mc_call *call, mc_error *err);
  /* Optional. Have the service compare its coordination with its storage: see mc_repair. */
  mc_status (*repair)(mc_upstream *self, bool dry_run, mc_repair_result *out, const mc_call *call, mc_error *err);
} mc_upstream_cache_ops;

typedef struct mc_upstream_ops {
  uint32_t abi; /* MC_UPSTREAM_ABI */
  const char *name;
  uint32_t flags;
  const char *const *schemes; /* NULL-terminated, lower case; "*" alone: any */

  /* Required. Does no network I/O. */
  mc_status (*open)(mc_upstream **out, const mc_upstream_config *config, mc_error *err);
  /* Required. No source is open, no op is running. */
  void (*close)(mc_upstream *self);

  /* Required. What is at `url`, without getting it (has_digest only where the upstream tells it). Blocks. The info's
   * chunks are not set. MC_NOT_FOUND, MC_PERMISSION_DENIED, MC_UNAVAILABLE … */
  mc_status (*stat)(mc_upstream *self, const char *url, mc_info *info, const mc_call *call, mc_error *err);
  /* Required. Open the version of `args->url` that is current now. Blocks. With info->unchanged set *out is NULL. */
  mc_status (*source_open)(mc_upstream *self, const mc_open_args *args, mc_source **out, mc_info *info,
                           const mc_call *call, mc_error *err);
  /* Required. Read [sink->offset, sink->end) of that version into the sink; retries by itself from where it was, within
   * the configured number, after failures that are retryable and not the sink's. Several threads at once, each with a
   * sink of its own. MC_CHANGED if the upstream has another version by now and that one can't be had any more;
   * MC_UNSUPPORTED if ranges turn out not to work, or MC_CHANGED if a source that is opened now would say so. Bytes
   * past the end of what info->size promised, or fewer: MC_CHANGED or MC_PROTOCOL, or another failure where nothing
   * tells why, never silently. */
  mc_status (*source_read)(mc_source *source, mc_sink *sink, const mc_call *call, mc_error *err);
  /* Optional. Called once after all was read, if size, digest or chunks were unknown at open: fill in what is known
   * now, a checksum and more validators, too. May block until the peer knows it. */
  mc_status (*source_finish)(mc_source *source, mc_info *info, const mc_open_args *args, const mc_call *call,
                             mc_error *err);
  /* Required. */
  void (*source_close)(mc_source *source);

  /* Optional. Report the files below the URL prefix `url` (which ends in '/'), recursively, each once, in no particular
   * order, until `visit` returns false, which is no failure; at most `max` of them: MC_RESOURCE_EXHAUSTED beyond, after
   * up to `max` were reported. Paths are decoded and checked: a path that would leave the tree, or that can't be used
   * as one, is MC_PROTOCOL. MC_NOT_FOUND if there is no such folder, where the upstream knows folders. Validators are
   * told in the form in which source_open tells them, or not at all: they are compared. */
  mc_status (*list)(mc_upstream *self, const char *url, size_t max, bool (*visit)(void *user, const mc_listed *listed),
                    void *user, const mc_call *call, mc_error *err);

  /* Optional. Tell how `url` would be asked for: find its credentials, which may take requests to who gives them, but
   * ask nothing of the origin. Blocks. */
  mc_status (*explain)(mc_upstream *self, const char *url, mc_access *access, const mc_call *call, mc_error *err);

  const mc_upstream_cache_ops *cache; /* with MC_UPSTREAM_CACHE, else NULL */
} mc_upstream_ops;

struct mc_upstream {
  const mc_upstream_ops *ops;
};

/* A backend's source begins with this. */
struct mc_source {
  mc_upstream *upstream;
};

#ifdef __cplusplus
}
#endif
#endif
