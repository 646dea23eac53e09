/* Promotion into the memory tier.
 *
 *   an object is …   means                                            becomes
 *   cold             in the home tier; not got twice in memory_ttl,   queued, by its next get in that time
 *                    or not as often as what would have to go for it
 *   queued           a job waits for a thread                         copied; cold, when the cache closes
 *   copied           a job reads, verifies and writes it              in memory; cold: no room, or damaged
 *   in memory        the memory tier has a copy, which is opened      cold, when that tier drops it
 *
 * What is got only once, as by a scan, is never copied, and no object may take more than a share of the memory. Where
 * something would have to go for it, it must have been got more often lately than each of those. So nothing can push
 * out what is got again and again but what is got more often still.
 *
 * How often is counted by object, whatever its size: memory saves reading an object's bytes once for each get, so that
 * by the byte of memory it saves as much as there are gets. */
#include "engine/promote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "engine/member.h"
#include "engine/sketch.h"

#define SHARE_PERCENT 50 /* of the memory tier's capacity, for one object */
#define MOST_AT_ONCE  2  /* the pool has other jobs */
#define PIECE         ((size_t)256 << 10)
#define MOST_VICTIMS  64 /* looked at: of more that would have to go, these are the first */
#define MOST_AGING    4  /* halvings, after which nothing is left */

struct promotion {
  struct work_job job; /* first */
  struct promoter *promoter;
  struct object *object; /* of the home tier, open */
  struct promotion *prev, *next;
};

struct promoter {
  struct mc_cache *cache;
  struct tier *from, *to;
  atomic_bool stopping;
  pthread_mutex_t lock; /* a leaf */
  struct promotion *promotions;
  uint32_t count;
  struct sketch *sketch; /* the gets */
  int64_t aged_at;
};

mc_status promoter_new(struct promoter **out, struct mc_cache *cache, mc_error *err) {
  struct promoter *promoter = calloc(1, sizeof(*promoter));
  if (promoter) promoter->sketch = sketch_new();
  if (!promoter || !promoter->sketch) {
    free(promoter);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for promotions");
  }
  promoter->aged_at = clock_wall_ms();
  promoter->cache = cache;
  promoter->to = cache->tiers[0];
  promoter->from = cache->home;
  pthread_mutex_init(&promoter->lock, NULL);
  *out = promoter;
  return MC_OK;
}

void promoter_stop(struct promoter *promoter) {
  if (promoter) atomic_store(&promoter->stopping, true);
}

void promoter_free(struct promoter *promoter) {
  if (!promoter) return;
  pthread_mutex_destroy(&promoter->lock);
  sketch_free(promoter->sketch);
  free(promoter);
}

/* ---- how often ---- */

/* Count a get. What was got a memory_ttl ago counts half. */
static void count_get(struct promoter *promoter, const mc_digest *digest) {
  int64_t now = clock_wall_ms(), ttl = promoter->cache->options.memory_ttl_ms;
  pthread_mutex_lock(&promoter->lock);
  int64_t periods = ttl > 0 ? (now - promoter->aged_at) / ttl : 0;
  for (int64_t i = 0; i < periods && i < MOST_AGING; i++) sketch_age(promoter->sketch);
  if (periods) promoter->aged_at = now;
  sketch_add(promoter->sketch, digest);
  pthread_mutex_unlock(&promoter->lock);
}

/* Whether there is room, or it is got more often than what would have to go. */
static bool earns_its_place(struct promoter *promoter, const struct object *object) {
  mc_digest victims[MOST_VICTIMS];
  size_t count = tier_victims(promoter->to, object->size, victims, MOST_VICTIMS);
  bool earns = true;
  pthread_mutex_lock(&promoter->lock);
  unsigned own = sketch_count(promoter->sketch, &object->digest);
  for (size_t i = 0; i < count && earns; i++) earns = own > sketch_count(promoter->sketch, &victims[i]);
  pthread_mutex_unlock(&promoter->lock);
  return earns;
}

/* ---- the copy ---- */

static mc_status check(const struct promoter *promoter, mc_error *err) {
  if (!atomic_load_explicit(&promoter->stopping, memory_order_relaxed)) return MC_OK;
  return mc_error_set(err, MC_CANCELLED, ORIGIN, "the cache is closing");
}

/* Copy and hash one chunk. `buffer` is used where the stage has no memory. */
static mc_status copy_chunk(struct promotion *self, mc_stage *stage, uint32_t index, struct xxh128 *hash,
                            uint8_t *buffer, mc_error *err) {
  struct object *object = self->object;
  uint64_t at = index * MC_CHUNK_SIZE, end = at + chunk_length(object->size, index);
  mc_hash128 got;
  xxh128_reset(hash);
  while (at < end) {
    size_t piece = end - at < PIECE ? (size_t)(end - at) : PIECE;
    uint8_t *to = stage->memory ? (uint8_t *)stage->memory + at : buffer;
    mc_status status = check(self->promoter, err);
    if (status) return status;
    int error = pread_all(object->fd, to, piece, at);
    if (!error && !stage->memory) error = pwrite_all(stage->fd, to, piece, at);
    if (error) return mc_error_errno(err, error, ORIGIN, "can't copy a stored object");
    xxh128_update(hash, to, piece);
    at += piece;
  }
  xxh128_final(hash, &got);
  if (hash128_equal(&got, &object->table->hashes[index])) return MC_OK;
  object_check(object, index * MC_CHUNK_SIZE, NULL); /* so that it's mended */
  stat_add(self->promoter->cache, STAT_CORRUPT_CHUNKS, 1);
  return mc_error_set(err, MC_CORRUPT, ORIGIN, "chunk %u of a stored object does not match its hash", index);
}

static mc_status copy_chunks(struct promotion *self, mc_stage *stage, mc_error *err) {
  struct xxh128 *hash = xxh128_new();
  uint8_t *buffer = stage->memory ? NULL : malloc(PIECE);
  mc_status status = MC_OK;
  if (!hash || (!buffer && !stage->memory)) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to copy");
  for (uint32_t i = 0; i < self->object->table->count && !status; i++) {
    status = copy_chunk(self, stage, i, hash, buffer, err);
  }
  xxh128_free(hash);
  free(buffer);
  return status;
}

static mc_status copy(struct promotion *self, mc_error *err) {
  struct tier *to = self->promoter->to;
  struct object *object = self->object, *copied;
  mc_storage *storage = tier_storage(to);
  char key[MC_DIGEST_HEX_SIZE];
  mc_stage *stage = NULL;
  mc_status status = check(self->promoter, err);
  if (!status && !earns_its_place(self->promoter, object)) { /* another one has taken the room */
    status = mc_error_set(err, MC_NO_SPACE, ORIGIN, "what is in memory is got as often");
  }
  if (!status) status = tier_reserve(to, object->size, err);
  if (status) return status;
  status = storage->ops->stage_create(storage, mc_digest_hex(key, &object->digest), object->size, &stage, err);
  if (status) stage = NULL;
  if (!status) status = copy_chunks(self, stage, err);
  if (!status) status = tier_commit(&copied, to, &stage, object->table, &object->digest, err);
  if (stage) storage->ops->stage_close(stage, false);
  tier_unreserve(to, object->size);
  if (status) return status;
  object_release(copied);
  if (!object_is_doomed(object)) return MC_OK;
  uint64_t bytes; /* it was evicted by hand meanwhile: everywhere */
  tier_remove(to, &object->digest, &bytes, NULL);
  return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "it has been evicted");
}

static void promotion_end(struct promotion *self) {
  struct promoter *promoter = self->promoter;
  pthread_mutex_lock(&promoter->lock);
  DL_DELETE(promoter->promotions, self);
  promoter->count--;
  pthread_mutex_unlock(&promoter->lock);
  object_release(self->object);
  free(self);
}

static void promotion_job(struct work_job *job) {
  struct promotion *self = (struct promotion *)job;
  struct mc_cache *cache = self->promoter->cache;
  mc_error error = MC_ERROR_INIT;
  mc_status status = copy(self, &error);
  if (!status) stat_add(cache, STAT_PROMOTIONS, 1);
  if (!status) member_kick(cache->member);
  if (status == MC_CORRUPT) {
    log_warn(cache->logger, ORIGIN, "%s; it will be mended", error.message);
  } else if (status) {
    log_debug(cache->logger, ORIGIN, "not promoted: %s", error.message);
  }
  promotion_end(self);
}

/* ---- admission ---- */

/* With the lock held. */
static bool is_under_way(const struct promoter *promoter, const mc_digest *digest) {
  const struct promotion *promotion;
  DL_FOREACH(promoter->promotions, promotion) {
    if (mc_digest_equal(&promotion->object->digest, digest)) return true;
  }
  return false;
}

static bool is_worth_it(struct promoter *promoter, struct object *object) {
  uint64_t most = tier_capacity(promoter->to) / 100 * SHARE_PERCENT;
  if (object->tier != promoter->from || !object_got_again(object, promoter->cache->options.memory_ttl_ms)) return false;
  pthread_mutex_lock(&promoter->lock);
  bool under_way = is_under_way(promoter, &object->digest);
  pthread_mutex_unlock(&promoter->lock);
  if (object->size > most || under_way || tier_has(promoter->to, &object->digest)) return false;
  bool earns = earns_its_place(promoter, object);
  if (!earns) stat_add(promoter->cache, STAT_REFUSALS, 1);
  return earns;
}

/* Take a place among the promotions; false: there is none, or its digest has one. */
static bool enlist(struct promoter *promoter, struct promotion *promotion) {
  pthread_mutex_lock(&promoter->lock);
  bool free_place = !atomic_load(&promoter->stopping) && promoter->count < MOST_AT_ONCE &&
                    !is_under_way(promoter, &promotion->object->digest);
  if (free_place) {
    DL_APPEND(promoter->promotions, promotion);
    promoter->count++;
  }
  pthread_mutex_unlock(&promoter->lock);
  return free_place;
}

void promote_consider(struct mc_cache *cache, mc_file *file) {
  struct promoter *promoter = cache->promoter;
  struct object *object = file_object(file);
  if (!promoter || !object) return;
  count_get(promoter, &object->digest);
  if (!is_worth_it(promoter, object)) return;
  struct promotion *promotion = malloc(sizeof(*promotion));
  if (!promotion) return;
  *promotion = (struct promotion){.job = {.run = promotion_job}, .promoter = promoter, .object = object};
  if (!enlist(promoter, promotion)) {
    free(promotion);
    return;
  }
  object_acquire(object);
  if (work_submit(cache->job_pool, &promotion->job, NULL)) promotion_end(promotion);
}
