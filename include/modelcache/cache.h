/* A cache: open it, get files and trees from it, look into it, serve it to others.
 *
 * Threads: every function may be called from any thread, several at once on one handle, unless it says otherwise;
 * freeing or closing a handle while another thread uses it is the caller's mistake. After fork() only the parent may
 * use its caches. Ownership: what a function gives in an out parameter is the caller's and is given back by the
 * function named beside it. Blocking: functions that can wait for a disk or a network say so. */
#ifndef MODELCACHE_CACHE_H
#define MODELCACHE_CACHE_H

#include <modelcache/options.h>
#include <modelcache/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mc_cache mc_cache;
typedef struct mc_file mc_file;
typedef struct mc_request mc_request;

/* Open a cache. `endpoint` NULL: a cache in this process, in a folder under the user's cache directory
 * ($XDG_CACHE_HOME/modelcache, else ~/.cache/modelcache). "modelcache://HOST:PORT": a client of a service. Does disk
 * I/O, no network I/O: a service that is down shows in the first call. */
MC_API mc_status mc_open(mc_cache **out, const char *endpoint, mc_error *err);
MC_API mc_status mc_open_options(mc_cache **out, const mc_options *options, mc_error *err);
/* Cancel what is under way, wait until its threads have ended, free everything. Files that were got stay valid until
 * their release. NULL is fine. Blocks. Never call it from a callback. */
MC_API void mc_close(mc_cache *cache);

/* ---- get ---- */

enum {
  MC_GET_REVALIDATE = 1 << 0, /* ask the upstream whether the copy is current, however young it is */
  MC_GET_CACHED = 1 << 1,     /* only what is here: MC_NOT_FOUND rather than a download */
  MC_GET_DIRECT = 1 << 2,     /* with `path` or `buffer`: straight into it, nothing is kept. A copy at hand is used */
  MC_GET_PIN = 1 << 3,        /* pin it: never evicted until mc_evict or a get with MC_GET_UNPIN */
  MC_GET_UNPIN = 1 << 4,
};

typedef enum mc_phase {
  MC_PHASE_QUEUED,  /* the limit of downloads at once is reached */
  MC_PHASE_ASKING,  /* the upstream is asked what is there */
  MC_PHASE_WAITING, /* another process downloads it */
  MC_PHASE_DOWNLOADING,
  MC_PHASE_VERIFYING, /* stored bytes, or the last ones that arrived, are being hashed */
} mc_phase;

typedef struct mc_progress {
  mc_phase phase;
  uint64_t bytes, total; /* landed so far; total MC_SIZE_UNKNOWN where unknown */
  uint64_t rate;         /* bytes per second, over the last seconds; 0 unknown */
  int64_t eta_ms;        /* -1 unknown */
  const char *reason;    /* a short text for people: why it waits, or what it does. Valid during the callback */
  /* Once the size is known: the download's own name, under which its bytes can be read while they land (a transport's
   * MC_CONTENT_FLIGHT). All zero before. */
  uint8_t flight[32];
  const char *endpoint; /* where: the data endpoint of the member that downloads it; "": this cache does */
  mc_validators validators;
} mc_progress;

typedef struct mc_get_options {
  size_t struct_size;
  uint32_t flags;
  int64_t timeout_ms; /* for the whole call; 0: none */
  mc_cancel *cancel;  /* may be NULL; must live until the call is done */
  /* At most one of them: also put the content at a path (written beside it under another name, then renamed), or
   * into a buffer (MC_RESOURCE_EXHAUSTED if it is smaller than the file). */
  const char *path;
  void *buffer;
  size_t buffer_size;
  /* Called a few times a second while the call waits, from one of the library's threads; quick, and it must not call
   * into the library. The last one comes before the call's end. */
  void (*progress)(void *user, const mc_progress *progress);
  void *user;
  /* NULL, or what mc_list_upstream said of it: a copy of that version will do, however long ago it was checked, and one
   * of another version will not. Copied; its path is not looked at. */
  const mc_listed *listed;
  /* NULL, or the version to get: the current one, or one of before that is still stored (see mc_history), which the
   * upstream isn't asked for: MC_NOT_FOUND. It does not become the current one, and can't be pinned or revalidated.
   * Copied. */
  const mc_digest *digest;
} mc_get_options;

/* clang-format off */
#define MC_GET_OPTIONS_INIT { sizeof(mc_get_options), 0, 0, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL }
/* clang-format on */
MC_API void mc_get_options_init(mc_get_options *options);

/* Get one file. Blocks until it is whole and verified. `options` may be NULL. `out` may be NULL when a path or buffer
 * is given. Give the file back with mc_file_release. */
MC_API mc_status mc_get(mc_file **out, mc_cache *cache, const char *url, const mc_get_options *options, mc_error *err);

/* Get one file without blocking. `done` is called exactly once if the start succeeded, from one of the library's
 * threads or before this returns; it owns `file` (NULL unless status is MC_OK) and must be quick: it may start other
 * gets and use the mc_file functions that do not block, nothing else. `error` is valid during the call. `options` is
 * copied. A call that waits costs memory, no thread. */
typedef void (*mc_done)(void *user, mc_status status, mc_file *file, const mc_error *error);
MC_API mc_status mc_get_start(mc_request **out, mc_cache *cache, const char *url, const mc_get_options *options,
                              mc_done done, void *user, mc_error *err);
/* End the call with MC_CANCELLED unless it has ended already: `done` is still called once. A download whose last caller
 * has gone stops, and resumes when it is asked for again. Does not block. */
MC_API void mc_request_cancel(mc_request *request);
/* Give the request handle back, at any time; the call goes on. */
MC_API void mc_request_release(mc_request *request);

/* ---- a file that was got; immutable and verified ---- */

/* Take another reference. */
MC_API mc_file *mc_file_acquire(mc_file *file);
/* NULL is fine. */
MC_API void mc_file_release(mc_file *file);
/* A read-only descriptor, owned by the file. */
MC_API int mc_file_fd(const mc_file *file);
MC_API uint64_t mc_file_size(const mc_file *file);
MC_API const mc_digest *mc_file_digest(const mc_file *file);
/* The chunk table; NULL if it is not at hand (a direct get of an object that was not chunked). */
MC_API const mc_chunk_table *mc_file_chunks(const mc_file *file);
/* What the upstream said of this version. */
MC_API const mc_validators *mc_file_validators(const mc_file *file);
/* The path under which other programs can read it while this handle is held, or NULL if it has none: of a file that is
 * kept in memory alone, or whose copy on disk would have to be verified first. */
MC_API const char *mc_file_path(const mc_file *file);
/* Where its bytes can be read over a transport: up to `most` data endpoints, at most 8, of this cache (see
 * mc_advertise) and of other members. Those that have it in memory come first, in an order that is another one with
 * each call, so that readers are spread over them; this cache comes last where it would read it from storage. They live
 * as long as the file. Returns how many. */
MC_API size_t mc_file_endpoints(const mc_file *file, const char **endpoints, size_t most);
/* How many of 8 endpoints have it in memory, the first ones: a reader of several ranges does well to spread these over
 * them, and to leave the others for when they fail. 0: none, as far as is known. */
MC_API size_t mc_file_spread(const mc_file *file);
/* Whether this call was served without going upstream for the content. */
MC_API bool mc_file_was_cached(const mc_file *file);
/* Map the whole file read-only. The mapping belongs to the file and ends with its last release. Safe to call again:
 * the same address. An empty file gives a valid pointer and size 0. */
MC_API mc_status mc_file_map(mc_file *file, const void **address, size_t *size, mc_error *err);
/* Read `size` bytes at `offset`. *got is less only at the end of the file. Blocks on the disk. */
MC_API mc_status mc_file_read(mc_file *file, uint64_t offset, void *buffer, size_t size, size_t *got, mc_error *err);

/* ---- a tree ---- */

typedef struct mc_tree_options {
  size_t struct_size;
  uint32_t flags; /* MC_GET_REVALIDATE, MC_GET_PIN */
  int64_t timeout_ms;
  mc_cancel *cancel;
  /* Called as files complete, from the calling thread. */
  void (*progress)(void *user, uint64_t files, uint64_t total_files, uint64_t bytes, uint64_t total_bytes);
  void *user;
  /* Which files: those that any pattern of `allow` matches (all, if it is NULL or empty), but none that a pattern of
   * `ignore` matches. Both end with NULL. A pattern is compared with the whole path below the URL: '*' is any text, '/'
   * in it as well, '?' any character, [a-c] one of those, [!a-c] another one; one that ends in '/' means all that is
   * below. So "*.json" is every such file of the tree. At most 1000 patterns in each, of 1 to 1024 bytes. */
  const char *const *allow;
  const char *const *ignore;
} mc_tree_options;

MC_API void mc_tree_options_init(mc_tree_options *options);

typedef struct mc_tree_result {
  size_t struct_size;
  uint64_t files, bytes;
  bool changed;    /* another version than the one that was there before */
  char path[4096]; /* where the tree is: the same path on every call with the same arguments */
} mc_tree_result;

/* Get every file below the URL prefix `url` and publish them together: `path` becomes a symbolic link to a folder
 * that holds exactly one version of the tree, switched atomically; readers that have opened the former version keep
 * it until the next switch. When the upstream can't be asked for its list, what `path` leads to stays, if it is of this
 * URL and these patterns, for as long as stale_if_error says. `path` NULL: a place inside the cache's storage, another
 * one for other patterns. MC_NOT_FOUND: there is no file, or the patterns let none through. A folder that is not such a
 * link is left alone: MC_INVALID_ARGUMENT. Blocks. */
MC_API mc_status mc_get_tree(mc_tree_result *out, mc_cache *cache, const char *url, const char *path,
                             const mc_tree_options *options, mc_error *err);

/* ---- looking and managing ---- */

/* What is known of a URL: from the cache if `flags` has MC_GET_CACHED, else the upstream is asked. *out is freed with
 * mc_entry_free. MC_NOT_FOUND. Blocks. */
MC_API mc_status mc_stat(mc_entry **out, mc_cache *cache, const char *url, uint32_t flags, int64_t timeout_ms,
                         mc_error *err);
MC_API void mc_entry_free(mc_entry *entry);

/* Report what a URL was before, the latest first, as far back as the option `history` goes; for a client: on the
 * service. `visit` returns false to stop; the version is valid during the call. MC_NOT_FOUND: nothing is known of it.
 * Blocks. */
MC_API mc_status mc_history(mc_cache *cache, const char *url, bool (*visit)(void *user, const mc_former *former),
                            void *user, int64_t timeout_ms, mc_error *err);

/* Report what is cached under a URL prefix ("" for all), sorted by URL, and of it only what comes after the URL `after`
 * (NULL or "": all): who stopped goes on from the last one that he saw. For a client: what the service has. `visit`
 * returns false to stop; the entry is valid during the call. Blocks. */
MC_API mc_status mc_list(mc_cache *cache, const char *prefix, const char *after,
                         bool (*visit)(void *user, const mc_entry *entry), void *user, int64_t timeout_ms,
                         mc_error *err);
/* Report the files that the upstream has below a URL prefix. Blocks. */
MC_API mc_status mc_list_upstream(mc_cache *cache, const char *url, bool (*visit)(void *user, const mc_listed *listed),
                                  void *user, int64_t timeout_ms, mc_error *err);
/* Tell how a URL's origin is asked: by which rule, with which credentials, and whether it answers; for a client: by the
 * service. MC_OK also where the origin refuses, or has no such file: out->error tells. Blocks. */
MC_API mc_status mc_check_origin(mc_origin_check *out, mc_cache *cache, const char *url, int64_t timeout_ms,
                                 mc_error *err);
/* Begin to get a file and return; for a client: on the service. `pin` as MC_GET_PIN. */
MC_API mc_status mc_prefetch(mc_cache *cache, const char *url, bool pin, mc_error *err);
/* Forget a URL, and remove its object unless another URL needs it or it is in use (then once it is not); for a client:
 * here and on the service. *evicted: bytes that were or will be freed. MC_NOT_FOUND. */
MC_API mc_status mc_evict(uint64_t *evicted, mc_cache *cache, const char *url, mc_error *err);

/* Compare the coordination with the records in storage, and, unless `dry_run`, bring it up to date: what happens by
 * itself after it was out of reach or lost its entries. For a client: on the service. Blocks, for minutes where there
 * are a million records. */
MC_API mc_status mc_repair(mc_repair_result *out, mc_cache *cache, bool dry_run, int64_t timeout_ms, mc_error *err);

/* Counters since mc_open, and gauges. The table in src/engine/stats.def names each; the metrics pages are made of it.
 */
typedef struct mc_stat_row {
  const char *name; /* "gets_total"; NULL ends */
  const char *unit; /* "", "bytes", "seconds" */
  const char *help;
  bool gauge;
  uint64_t value;
} mc_stat_row;
/* Fill `rows` (at most `count`, the ending row included) and return how many rows there are, the ending one included.
 * Never blocks. */
MC_API size_t mc_stats(mc_cache *cache, mc_stat_row *rows, size_t count);
/* The state of this cache (or, for a client, of the service) as a JSON document; *json is freed with mc_free. */
MC_API mc_status mc_status_json(char **json, mc_cache *cache, mc_error *err);
MC_API void mc_free(void *memory);

typedef struct mc_watcher mc_watcher;

/* Watch a URL, or all below a prefix that ends in '/' ("": all): `changed` is called with each new version, and when
 * one goes missing, from the library's threads; it must be quick, and not call into the library. For a client: what
 * changes on the service, which is called again when it is lost. With a NULL entry it says that something may have been
 * missed until now: when a client's watching begins, and after the service, or the coordination, was out of reach. What
 * is watched is checked like what is pinned: see the option `refresh`. Does not block. */
MC_API mc_status mc_watch(mc_watcher **out, mc_cache *cache, const char *prefix,
                          void (*changed)(void *user, const mc_entry *entry), void *user, mc_error *err);
/* `changed` is not called any more once this has returned. Before mc_close. NULL is fine. Blocks for a moment. */
MC_API void mc_watch_end(mc_watcher *watcher);

/* ---- serving ---- */

typedef struct mc_server mc_server;

typedef struct mc_serve_options {
  size_t struct_size;
  const char *transport; /* "tcp" */
  const char *address;   /* HOST:PORT, [V6]:PORT; port 0: any */
  uint32_t threads;      /* 0: by the number of cores */
  uint32_t max_connections;
} mc_serve_options;
MC_API void mc_serve_options_init(mc_serve_options *options);
/* Hand out this cache's objects, and its downloads under way, over a transport. */
MC_API mc_status mc_serve(mc_server **out, mc_cache *cache, const mc_serve_options *options, mc_error *err);
/* "tcp://HOST:PORT". Lives as long as the server. */
MC_API const char *mc_server_endpoint(const mc_server *server);
MC_API uint32_t mc_server_connections(const mc_server *server);
/* Tell the other members where this cache can be reached: its data plane ("tcp://HOST:PORT") and, for people, its
 * control plane; NULL: not at all (any more). Copied; to be told before the first call of a client. */
MC_API mc_status mc_advertise(mc_cache *cache, const char *data, const char *control, mc_error *err);
/* Stop accepting, let the transfers under way end for up to drain_ms, then cut them. Before mc_close. NULL is fine. */
MC_API void mc_server_close(mc_server *server, int64_t drain_ms);

/* "0.1.0" */
MC_API const char *mc_version(void);

#ifdef __cplusplus
}
#endif
#endif
