/* A download: chunks that land out of order in one place, from one source after another, until all are there.
 *
 *   a chunk is …   means                                  becomes
 *   missing        nobody reads it                        taken by a lane
 *   taken          a lane reads it                        landed, or missing again when the lane fails
 *   landed         its bytes are in place and hashed      missing, if a table that came later disagrees
 *
 * The thread that runs the download follows the landed bytes with SHA-256; its lanes read ranges. */
#ifndef ENGINE_DOWNLOAD_H
#define ENGINE_DOWNLOAD_H

#include "engine/engine.h"

enum chunk_state { CHUNK_MISSING, CHUNK_TAKEN, CHUNK_LANDED };

struct checksum;
struct follower;

struct download {
  struct mc_cache *cache;
  const mc_call *call;
  uint32_t parallelism; /* lanes, at most */
  struct tier *tier;    /* of the stage, with `reserved` bytes set aside; NULL for a direct download */
  uint64_t reserved;
  mc_stage *stage;
  bool fleeting;   /* the stage is of a small file, which is not resumed and has no followers */
  bool resumed;    /* the stage was left by another download: kept, whatever happens before a byte is added */
  int fd;          /* the stage's, or the caller's file; -1: memory only */
  uint8_t *memory; /* where the bytes go; NULL: through fd */
  uint64_t memory_size;

  mc_validators validators;       /* of the version that is being downloaded */
  mc_source *source;              /* what the lanes read now */
  const mc_chunk_table *expected; /* the hashes that the source promised, or NULL */
  bool followed;                  /* what lands is hashed meanwhile */

  pthread_mutex_t lock;
  pthread_cond_t changed;
  pthread_cond_t caught_up; /* one more chunk is hashed: one lane that waits for that may look again */
  int view;          /* the stage's bytes for followers: a descriptor of their own, valid as long as this; or -1 */
  uint32_t version;  /* another one when what has landed was forgotten: those who followed it must go */
  uint64_t size;     /* MC_SIZE_UNKNOWN until the end is reached */
  uint32_t count;    /* chunks of the whole, as far as it's known */
  uint32_t capacity; /* chunks that the two have room for: those beyond are missing. A size alone allocates nothing */
  mc_hash128 *hashes;
  uint8_t *states;
  uint32_t landed;
  uint32_t first;         /* no chunk before it is missing */
  _Atomic uint64_t bytes; /* received, for progress; may be more than what stays */
  uint32_t lanes;         /* that run */
  uint32_t hashed;        /* chunks that are in the SHA-256 */
  uint32_t busy;          /* of these, since it last had to wait for one */
  uint32_t corrupt;       /* chunks that did not verify */
  mc_status failed;
  mc_error error;
  bool ended, succeeded;
  struct follower *followers;
  uint32_t waking; /* threads that call wakes now */

  pthread_mutex_t journal_lock; /* one append at a time; a leaf */

  /* of the thread that runs it: */
  struct sha256 *sha;
  mc_checksum_kind sum_kind; /* what is made beside it */
  struct checksum *sum;      /* or NULL: not begun, or not to be had */
};

mc_status download_new(struct download **out, struct mc_cache *cache, const char *url, const mc_call *call,
                       mc_error *err);
/* Ends it for followers, too; a stage that was not committed is kept for a resume when something has landed. */
void download_close(struct download *download);
void download_free(struct download *download);

/* Take a damaged object's stage, all of whose chunks are to be looked at. Before download_begin. */
void download_adopt(struct download *download, mc_stage *stage, const mc_entry *entry, const mc_chunk_table *table);
/* Prepare for the version that `info` describes: resume, or begin. Chunks that have landed stay if it is the version
 * that they are of. */
mc_status download_begin(struct download *download, const char *key, const mc_info *info, mc_error *err);
/* Read what is missing. Blocks. May be called again with another source of the same version after a failure. */
mc_status download_run(struct download *download, mc_source *source, const mc_info *info, mc_error *err);
/* Compare what has landed with a table that was not known before: what differs is missing again. Returns how many
 * chunks are. */
uint32_t download_check(struct download *download, const mc_chunk_table *table);
/* The digest of the whole: from `info` if its upstream is trusted with it and told the chunks, which were compared,
 * else the SHA-256 of what has landed. MC_CORRUPT if it, or the checksum, is not what the upstream gave. */
mc_status download_digest(struct download *download, mc_digest *digest, const mc_info *info, bool trusted,
                          mc_error *err);
/* Make the stage an object, and open it. */
mc_status download_commit(struct object **out, struct download *download, const mc_digest *digest, mc_error *err);
/* Forget what has landed, and its stage: the content is another, or not what it should be. Those who follow are told to
 * ask again. */
void download_reset(struct download *download);
/* The same content once more from its beginning. */
void download_restart(struct download *download);
/* A copy of the chunk table. */
mc_chunk_table *download_table(struct download *download);

/* fetch.c: read all from an open source, facts that come late included, and tell the digest. Blocks. */
mc_status download_fetch(struct download *download, mc_upstream *upstream, mc_source *source, mc_info *info,
                         const mc_open_args *args, mc_digest *digest, mc_error *err);

/* ---- followers.c ---- */

/* A descriptor of the bytes under way, which the caller closes; -1: there is none (any more). */
int download_view(struct download *download, uint32_t *version);
/* How many bytes can be read at `offset`, at most *bytes; see mc_exporter.ready and unwatch. */
mc_status download_ready(struct download *download, uint32_t version, uint64_t offset, uint64_t *bytes,
                         void (*wake)(void *arg), void *arg, mc_error *err);
void download_unwatch(struct download *download, void *arg);
/* With the lock held: take those who wait for `chunk` (any, if UINT32_MAX); and then, without it, wake them. */
struct follower *followers_take(struct download *download, uint32_t chunk);
void followers_wake(struct download *download, struct follower *taken);

/* With the lock held. */
static inline enum chunk_state download_state(const struct download *download, uint32_t index) {
  return index < download->capacity ? (enum chunk_state)download->states[index] : CHUNK_MISSING;
}

#endif
