/* The engine's inside: what its files share.
 *
 * Locks, in the order in which they may be taken (a later one while an earlier one is held, never the other way round):
 *
 *   cache->tree_lock  the switch of a tree to another version
 *   cache->lock       the flights, their waiters, every request's state
 *   flight->lock      what one flight tells its waiters
 *   download->lock    one download: its chunks and its followers
 *   news->lock        what other members did, and the jobs that see to it
 *   ledger->lock      what each entry needs
 *   tier->lock        one tier's index of objects
 *   work->lock        one pool's queue
 *   refresher->lock   which URLs are looked after
 *
 * No lock is held over a backend's op or a callback; but watchers are called with cache->watch_lock held, a leaf, so
 * that none is called once it has been taken away.
 *
 * Threads: the workers of four pools (`flights`: each runs one flight; `jobs`: copies into callers' paths, sweeps and
 * the like; `looks`: look-ups that may block; `claims`: one, that renews them), the lanes of downloads, which their
 * flight starts and joins, a member's heartbeat, those that publish what a reconciling finds, one for each watcher of a
 * client's, and one clock thread: deadlines, progress, claims. It calls no backend: what might block is a job. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/record.h"
#include <modelcache/backend/coordination.h>
#include <modelcache/backend/storage.h>
#include <modelcache/backend/transport.h>
#include <modelcache/backend/upstream.h>
#include <modelcache/cache.h>

#include "engine/tier.h"
#include "engine/work.h"

#define ORIGIN "engine" /* of messages */

enum stat_id {
#define STAT(id, name, unit, gauge, help) STAT_##id,
#include "engine/stats.def"
#undef STAT
  STAT_COUNT
};

#define WATCH_MS       50  /* how often a caller's own cancellation is looked at */
#define REASON_SIZE    128 /* of the text that tells why a caller waits */
#define MAX_UPSTREAMS  16
#define MAX_TRANSPORTS 4

struct mc_cache {
  mc_options options; /* strings are copies, see strings */
  char *strings[8];
  struct origins *origins; /* what options.origins and options.credentials point into; src/api's */
  mc_logger *logger;       /* &options.logger */

  struct tier *tiers[2]; /* fastest first; the last is where downloads go; none: nothing is kept */
  size_t tier_count;
  struct tier *home;     /* the last tier, or NULL */
  const char *folder;    /* of the home tier, or NULL */
  struct ledger *ledger; /* which of its objects are needed; NULL: there is no home tier */
  mc_coordination *coordination;
  struct news *news;                     /* what its other members do; NULL: there are none */
  mc_upstream *upstreams[MAX_UPSTREAMS]; /* in the order in which they are asked */
  size_t upstream_count;
  mc_transport *transports[MAX_TRANSPORTS];
  size_t transport_count;
  bool client; /* the first upstream is a cache */

  char endpoint[MC_ENDPOINT_SIZE], control[MC_ENDPOINT_SIZE]; /* of mc_advertise; under lock; "": none */

  struct work *flight_pool, *job_pool;
  struct work *claim_pool; /* one thread, which a coordination may keep, and which no copy may keep from claims */
  struct work_job renewal;
  bool renewing, renew_again;  /* under lock */
  atomic_bool told_outage;     /* that the coordination can't be reached */
  struct member *member;       /* NULL: the coordination is not shared */
  char id[OWNER_SIZE];         /* of this member */
  int64_t started_at;          /* milliseconds since 1970 */
  struct work *look_pool;      /* what needs no flight if it's at hand */
  struct promoter *promoter;   /* NULL: there is one tier, or none */
  struct refresher *refresher; /* NULL: the option `refresh` is never */

  pthread_mutex_t lock;
  struct flight *flights;       /* by key: those that can be joined */
  struct flight *flights_by_id; /* those that can be followed */
  struct flight *flight_list;   /* all that live, also those that have ended but are still followed */
  uint32_t waiting;             /* requests that wait */
  uint32_t refreshing;          /* flights of the refresher's */
  bool closing;

  pthread_t clock;
  pthread_cond_t clock_wake;
  bool clock_runs, clock_kicked;
  int64_t clock_next; /* when it will look again */
  struct work_job sweep;
  atomic_bool sweeping;       /* it is queued, or runs */
  atomic_bool told_unchecked; /* that some checksums can't be made here */

  pthread_mutex_t tree_lock;
  pthread_mutex_t watch_lock; /* held while watchers are called, so that one can be taken away; a leaf */
  struct mc_watcher *watchers;

  _Atomic uint64_t stats[STAT_COUNT];
};

static inline bool coordination_is_shared(const struct mc_cache *cache) {
  return cache->coordination->ops->flags & MC_COORDINATION_SHARED;
}

static inline void stat_add(struct mc_cache *cache, enum stat_id id, uint64_t count) {
  atomic_fetch_add_explicit(&cache->stats[id], count, memory_order_relaxed);
}

/* ---- engine.c: making and ending the whole ---- */

/* Start the pools and the clock of a cache whose parts are in place; and stop them. */
mc_status engine_start(struct mc_cache *cache, mc_error *err);
void engine_stop(struct mc_cache *cache);
/* Have the clock look at the requests now. With cache->lock held. */
void engine_kick_clock(struct mc_cache *cache);

/* ---- entry.c: what is known of a URL ---- */

#define RECORD_MAX ((size_t)64 << 10)

/* Where the records are; NULL: nowhere. */
mc_storage *record_storage(const struct mc_cache *cache);
/* Look in the coordination, then in the home tier's records, which then go into the coordination; in both, where that
 * may have forgotten something: see news.c. */
mc_status entry_load(mc_entry **out, struct mc_cache *cache, const char *key, mc_error *err);
/* The newest that either of them knows, always. */
mc_status entry_newest(mc_entry **out, struct mc_cache *cache, const char *key, mc_error *err);
/* Whether there is a newer record than this entry's would be, in a storage that others write to as well. */
bool entry_is_outrun(struct mc_cache *cache, const char *key, const mc_entry *entry);
/* Write the record into the home tier, if it is persistent; with its next commit, if there is a stage that can. An
 * entry that says no more than that a URL is missing has none: remove it. */
mc_status entry_record(struct mc_cache *cache, const char *key, const mc_entry *entry, mc_stage *stage, mc_error *err);
/* This is the URL's entry from now on: the home tier keeps its object. Whether it has another one than before. */
bool entry_refer(struct mc_cache *cache, const char *key, const mc_entry *entry);
/* Bring every record of the home tier into the coordination: of one that is not shared, and forgets with the process.
 */
mc_status entry_load_all(struct mc_cache *cache, mc_error *err);
bool entry_is_fresh(const struct mc_cache *cache, const mc_entry *entry);
bool validators_same(const mc_validators *a, uint64_t a_size, const mc_validators *b, uint64_t b_size);

/* ---- history.c: what a URL was before ---- */

/* Open this version of a URL. MC_NOT_FOUND: it is not, and was not within what is remembered, a version of it (a client
 * takes the caller's word), or is not stored. */
mc_status version_open(mc_file **out, struct mc_cache *cache, const char *url, const mc_digest *digest,
                       const mc_call *call, mc_error *err);
/* The flight of such a version. A client's goes to the service for it. */
void version_job(struct work_job *job);
/* Whether some tier has it; no use of it. */
bool version_is_stored(struct mc_cache *cache, const mc_digest *digest);
/* Its key: it is no entry's. */
void version_key(char key[KEY_SIZE], const char *url, const mc_digest *digest);

/* ---- watch.c: who is told of changes ---- */

/* Tell those who watch its URL; NULL: tell all that something may have been missed. */
void entry_announce(struct mc_cache *cache, const mc_entry *entry);
bool entry_is_watched(struct mc_cache *cache, const char *url);
/* The next prefix that was not looked through yet, or NULL: strdup'ed. */
char *watch_next_prefix(struct mc_cache *cache);

/* ---- file.c: the handle that callers get ---- */

/* Takes over the reference on `object`. NULL: no memory (then the reference is given back). */
mc_file *file_of_object(struct object *object, struct mc_cache *cache, const mc_entry *entry, bool cached);
/* For direct gets: takes over `fd` (or -1), `table`. `memory`: the caller's buffer, or NULL. */
mc_file *file_of_destination(int fd, const void *memory, const mc_entry *entry, mc_chunk_table *table,
                             const char *path);
/* So many callers were given it without a download: count them, and where its bytes come from. */
void file_count_hits(const mc_file *file, struct mc_cache *cache, uint64_t count);
/* NULL: it is of a direct get. */
struct object *file_object(const mc_file *file);
/* Open the entry's object in the fastest tier that has it, verified. MC_NOT_FOUND; MC_BUSY: it is there, but has to be
 * verified first, for which there is no `call`; MC_CORRUPT: it is damaged (*damaged names the tier). */
mc_status file_open(mc_file **out, struct mc_cache *cache, const mc_entry *entry, bool cached, struct tier **damaged,
                    const mc_call *call, mc_error *err);

/* ---- hint.c: what a listing said of a URL ---- */

struct hint {
  mc_listed listed;  /* its path is "" */
  mc_upstream *from; /* whose listing it was; NULL: the caller's word, which is good for his call and tells no other */
  int64_t at;        /* milliseconds since 1970: the listing is not older */
};

enum hint_says {
  HINT_SILENT, /* nothing, of this copy */
  HINT_SAME,   /* it is of the version that was listed */
  HINT_OTHER,  /* it is not */
  HINT_DOUBT,  /* it may not be: whoever has it should ask */
};

struct hint *hint_new(const mc_listed *listed, mc_upstream *from, int64_t at); /* free() it. NULL: no memory */
bool hint_same(const struct hint *a, const struct hint *b);
enum hint_says hint_judge(const struct hint *hint, const mc_entry *entry); /* `hint` may be NULL */

/* ---- get.c: one call ---- */

enum request_state { REQUEST_WAITING, REQUEST_DONE };

/* One call of mc_get_start. References: the caller's handle and the engine's own, which ends with `done`. */
struct mc_request {
  atomic_uint references;
  struct mc_cache *cache;
  char *url;
  char key[KEY_SIZE];
  char *path; /* copy of options.path */
  mc_get_options options;
  struct hint *hint; /* or NULL */
  mc_digest digest;  /* what options.digest points to */
  int64_t deadline;
  mc_done done;
  void *user;
  /* under cache->lock: */
  enum request_state state;
  struct flight *flight;
  bool direct;      /* the flight puts it where the caller wants it */
  bool cancelled;   /* by mc_request_cancel */
  bool told;        /* of progress, at least once */
  uint64_t round;   /* the clock's, in which it was looked at last */
  bool in_callback; /* the clock is in options.progress */
  bool completed;   /* ended while it was: the clock calls `done` then */
  mc_status status;
  mc_file *file;
  mc_error error;
  struct work_job job;            /* what is done for it alone */
  struct mc_request *prev, *next; /* the flight's waiters */
};

/* mc_get_start for who has listed it: takes over `hint`, or NULL. */
mc_status request_start(mc_request **out, struct mc_cache *cache, const char *url, const mc_get_options *options,
                        struct hint *hint, mc_done done, void *user, mc_error *err);
/* End a request: calls `done` (with no lock held) and gives up the engine's reference. Takes over `file`. */
void request_end(struct mc_request *request, mc_status status, mc_file *file, const mc_error *error);
/* The same for a file that is at hand: first puts it where the caller wants it, by a job where that can block. */
void request_deliver(struct mc_request *request, mc_file *file);
/* The same for a request whose flight has ended. If only the room to keep it was missing, and the caller named a place
 * for it, it is got straight there. */
void request_finish(struct mc_request *request, mc_status status, mc_file *file, const mc_error *error);
/* The clock's work for one flight: progress, deadlines, cancellation. Returns when it is due next. */
int64_t requests_tick(struct mc_cache *cache, struct flight *flight, int64_t now);
/* ---- flight.c ---- */

/* One URL being looked up, revalidated, downloaded: by one thread for all who wait.
 *
 *   phase        who holds it                    ends by
 *   queued       flights table, pool's queue     a worker takes it, or the last waiter leaves
 *   running      flights table, worker           flight_end: leaves the table, waiters are told
 *   ended        followers that still read       the last reference
 *
 * A direct one is in no table: it has one waiter, whose destination it writes to, and who can't leave while it runs.
 */
struct flight {
  atomic_uint references;
  struct mc_cache *cache;
  char *url;
  char key[KEY_SIZE];
  mc_cancel *cancel;
  mc_call call;
  struct hint *hint; /* of whom it was started for, or NULL; does not change */
  mc_digest digest;  /* of version_job's */
  /* under cache->lock: */
  bool watched;   /* somebody wants to be told how it goes */
  bool unlisted;  /* somebody joined who knows of no listing, or of another: the hint is not good for him */
  bool dated;     /* what it brings is of when the hint was listed */
  bool joinable;  /* in cache->flights */
  bool joined;    /* somebody has, since it looked up what is known */
  bool detached;  /* goes on without waiters: a prefetch, a background revalidation */
  bool direct;    /* see above; does not change */
  bool writes;    /* a direct one runs: it may write to its caller's memory until it ends */
  bool refreshes; /* the refresher started it, or joined */
  bool bare;      /* it has looked, and there is no copy at hand: nobody else need look */
  bool revalidate, pin, unpin;
  bool ended;                 /* everybody was told */
  bool settled;               /* what those three say is not looked at any more */
  struct mc_request *request; /* of a direct one; with a reference */
  struct mc_request *waiters; /* those that the clock has looked at in its round come last */
  int64_t due;                /* when a waiter's deadline or cancellation is to be looked at */
  uint64_t round;
  mc_progress told; /* what waiters were told last, and when; the clock's */
  char told_reason[REASON_SIZE];
  int64_t told_at;
  struct flight *prev, *next; /* cache->flight_list */
  UT_hash_handle hh, hh_id;
  struct work_job job;
  bool listed; /* in cache->flights_by_id; also under lock, as id */
  uint8_t id[32];
  /* under lock: */
  pthread_mutex_t lock;
  struct download *download; /* freed with the flight */
  mc_phase phase;
  const char *reason;
  uint64_t upstream_bytes, upstream_total; /* of the peer's download that it waits for */
  char upstream_reason[REASON_SIZE];       /* what the peer waits for, while it's asked; or empty */
  bool shown;                              /* it downloads; the next three are the download's */
  uint32_t version;
  uint64_t size;
  mc_validators validators;
  uint64_t rate, rate_bytes;
  int64_t rate_at;
  bool elsewhere; /* another member downloads it, who tells the news */
  mc_claim_news news;
  uint64_t claim;   /* the token of the claim that is kept alive; 0: none */
  int64_t renew_at; /* when it is renewed next */
  bool claim_lost;  /* as a renewal was told */
};

#define FLIGHT_REFRESH (1u << 31) /* beside MC_GET_…: it is the refresher's */

/* Join the flight of the request's URL, or start it. With a NULL request: a detached one. */
mc_status flight_join(struct mc_cache *cache, const char *url, const char *key, struct mc_request *request,
                      uint32_t flags, mc_error *err);
/* Start a flight for this request alone, straight into its path or buffer. */
mc_status flight_start_direct(struct mc_request *request, mc_error *err);
/* Whether a flight of that key is under way that knows that no copy is at hand. */
bool flight_is_bare(struct mc_cache *cache, const char *key);
/* For the flight's own thread: it is. */
void flight_set_bare(struct flight *flight);
void flight_release(struct flight *flight);
struct flight *flight_acquire(struct flight *flight);
/* The flight whose bytes have this name, with a reference; NULL: there is none (any more). */
struct flight *flight_find(struct mc_cache *cache, const uint8_t id[32]);
/* Every flight that lives, each with a reference; with cache->lock held. free() the list. NULL: none, or no memory. */
struct flight **flights_living(struct mc_cache *cache, size_t *count);

static inline struct flight *flight_of_job(struct work_job *job) {
  return (struct flight *)((char *)job - offsetof(struct flight, job));
}

/* For the flight's own thread. Set what waiters are told; wakes the clock so that they are. */
void flight_set_phase(struct flight *flight, mc_phase phase, const char *reason);
/* For mc_open_args.progress. */
void flight_peer_progress(void *user, const mc_upstream_progress *peer);
void flight_set_download(struct flight *flight, struct download *download);
/* A direct one runs from now on: MC_CANCELLED if its caller has gone. */
mc_status flight_begin_direct(struct flight *flight, mc_error *err);
/* Let the download under way be seen and, once its size is known, followed; and no more. */
void flight_show(struct flight *flight);
void flight_hide(struct flight *flight);
/* Nobody joins any more: who comes now gets a flight of his own. With cache->lock held. */
void flight_seal(struct flight *flight);
/* The result is known: nobody can join any more; everybody is told. Takes over `file`. */
void flight_end(struct flight *flight, mc_status status, mc_file *file, const mc_error *error);

/* What a flight's waiters are told now. progress->reason is `reason` then, and progress->endpoint `endpoint`. */
void flight_progress(struct flight *flight, mc_progress *progress, char reason[REASON_SIZE],
                     char endpoint[MC_ENDPOINT_SIZE]);

/* ---- claim.c: claims while they are held, and the coordination when it can't be reached ---- */

/* The claim that is kept alive from now on; 0: none. */
void claim_keep(struct flight *flight, uint64_t token);
/* Whether a renewal was told that another has it. */
bool claim_is_lost(struct flight *flight);
/* Its news are told as soon as they can be. */
void claim_tell_soon(struct flight *flight);
/* For mc_coordination_ops.wait; `user` is the flight that waits. */
void claim_hear(void *user, const mc_claim_news *news);
/* When the flight's claim is to be renewed; INT64_MAX: it has none. */
int64_t claim_due(struct flight *flight);
/* Have those renewed that are due. With cache->lock held. */
void claims_renew(struct mc_cache *cache);
/* Whether an op of the coordination failed as it does when others could go on without it. */
bool coordination_is_out(const struct mc_cache *cache, mc_status status);
/* Say so, once for each outage; and that it is over. */
void coordination_lost(struct mc_cache *cache, const mc_error *why);
void coordination_found(struct mc_cache *cache);

/* ---- fly.c, direct.c: what flights do ---- */

void fly_job(struct work_job *job);
void direct_job(struct work_job *job);

/* ---- route.c ---- */

/* What holds for a normalised URL: its rule, and what that leaves open as the options have it. prefix "": none. */
mc_origin_rule route_rule(const struct mc_cache *cache, const char *url);
/* Write the schemes that there are; false: `scheme` is none of them. */
bool route_schemes(char *text, size_t size, const struct mc_cache *cache, const char *scheme);
/* The upstreams for a URL, in order. At least one, or an error: a scheme that is unknown or refused, a rule's refusal.
 */
mc_status route(mc_upstream *upstreams[MAX_UPSTREAMS], size_t *count, struct mc_cache *cache, const char *url,
                mc_error *err);
/* Whether, after this error of `upstream`, the next one may be asked. */
bool route_goes_on(const mc_upstream *upstream, mc_status status);
/* Ask them in turn, until one has given what is current now; the same one again if its content changed meanwhile. */
mc_status route_ask(struct flight *flight, struct download *download,
                    mc_status (*ask)(void *user, mc_upstream *upstream, mc_error *err), void *user, mc_error *err);
/* The normal form of a folder's URL, however it was written: it ends in '/'. malloced. */
mc_status url_of_folder(char **out, const char *url, mc_error *err);
/* Report the files below a folder's URL, as mc_upstream_ops.list. *from, if not NULL, is set to who reports before he
 * does. */
mc_status route_list(mc_upstream **from, struct mc_cache *cache, const char *url,
                     bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                     mc_error *err);

#endif
