#include "engine/download.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "engine/content.h"
#include "engine/journal.h"
#include "engine/sink.h"

#define MAX_CORRUPT 16  /* chunks that do not verify, before the download is given up */
#define MIN_PART    2u  /* chunks that a lane takes at once: 8 MiB */
#define MAX_PART    16u /* 64 MiB */

mc_status download_new(struct download **out, struct mc_cache *cache, const char *url, const mc_call *call,
                       mc_error *err) {
  struct download *d = calloc(1, sizeof(*d));
  if (!d) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a download");
  d->cache = cache;
  d->call = call;
  d->parallelism = route_rule(cache, url).parallelism;
  d->fd = d->view = -1;
  d->size = MC_SIZE_UNKNOWN;
  pthread_mutex_init(&d->lock, NULL);
  pthread_mutex_init(&d->journal_lock, NULL);
  cond_init(&d->changed);
  cond_init(&d->caught_up);
  *out = d;
  return MC_OK;
}

/* ---- chunks ---- */

/* With the lock held: room for chunks up to `count`. */
static bool grow(struct download *d, uint32_t count) {
  if (count <= d->capacity) return true;
  if (count > UINT32_MAX / 16 + 1) return false;
  uint32_t capacity = d->capacity ? d->capacity : 16;
  while (capacity < count) capacity *= 2;
  mc_hash128 *hashes = realloc(d->hashes, capacity * sizeof(*hashes));
  if (hashes) d->hashes = hashes;
  uint8_t *states = realloc(d->states, capacity);
  if (states) d->states = states;
  if (!hashes || !states) return false;
  memset(d->states + d->capacity, CHUNK_MISSING, capacity - d->capacity);
  d->capacity = capacity;
  return true;
}

static mc_status no_table(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a chunk table");
}

static mc_status set_size(struct download *d, uint64_t size, mc_error *err) {
  uint32_t count = 0;
  if (size != MC_SIZE_UNKNOWN && !chunk_count(size, &count)) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "a file of %llu bytes is larger than can be handled",
                        (unsigned long long)size);
  }
  pthread_mutex_lock(&d->lock);
  d->size = size;
  d->count = count;
  pthread_mutex_unlock(&d->lock);
  return MC_OK;
}

/* With the lock held. */
static void forget_chunks(struct download *d) {
  if (d->capacity) memset(d->states, CHUNK_MISSING, d->capacity);
  d->landed = d->first = 0;
  d->bytes = 0;
  if (d->size == MC_SIZE_UNKNOWN) d->count = 0;
}

void download_restart(struct download *d) {
  pthread_mutex_lock(&d->lock);
  forget_chunks(d);
  pthread_mutex_unlock(&d->lock);
  content_forget(d);
}

mc_status download_landed(struct download *d, uint32_t index, const mc_hash128 *hash, mc_error *err) {
  if (d->stage && !d->fleeting && d->size != MC_SIZE_UNKNOWN) {
    pthread_mutex_lock(&d->journal_lock);
    mc_status status = journal_chunk(d->stage, index, hash, err);
    pthread_mutex_unlock(&d->journal_lock);
    if (status) return status;
  }
  pthread_mutex_lock(&d->lock);
  bool grown = grow(d, index + 1);
  struct follower *taken = NULL;
  if (grown) {
    d->hashes[index] = *hash;
    d->states[index] = CHUNK_LANDED;
    d->landed++;
    if (index >= d->count) d->count = index + 1;
    taken = followers_take(d, index);
    pthread_cond_broadcast(&d->changed);
  }
  pthread_mutex_unlock(&d->lock);
  followers_wake(d, taken);
  return grown ? MC_OK : no_table(err);
}

/* The size is not known: what the tier sets aside grows with what arrives, so that its limit holds all the same. */
static mc_status reserve_up_to(struct download *d, uint64_t end, mc_error *err) {
  if (!d->stage || d->size != MC_SIZE_UNKNOWN || end <= d->reserved) return MC_OK;
  mc_status status = tier_reserve(d->tier, end - d->reserved, err);
  if (!status) d->reserved = end;
  return status;
}

mc_status download_store(struct download *d, const void *data, size_t size, uint64_t offset, mc_error *err) {
  if (d->memory) {
    if (offset + size > d->memory_size) {
      return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "the buffer of %llu bytes is smaller than the file",
                          (unsigned long long)d->memory_size);
    }
    if ((const uint8_t *)data != d->memory + offset) memcpy(d->memory + offset, data, size);
    return MC_OK;
  }
  mc_status status = reserve_up_to(d, offset + size, err);
  if (status) return status;
  int error = pwrite_all(d->fd, data, size, offset);
  /* For a small file no room was set aside when its stage was made: it is made here. */
  bool full = error == ENOSPC || error == EDQUOT;
  if (full && d->fleeting && tier_evict(d->tier, size)) error = pwrite_all(d->fd, data, size, offset);
  return error ? mc_error_errno(err, error, ORIGIN, "can't write the download") : MC_OK;
}

mc_status download_load(struct download *d, void *data, size_t size, uint64_t offset, mc_error *err) {
  if (d->memory) {
    memcpy(data, d->memory + offset, size);
    return MC_OK;
  }
  int error = pread_all(d->fd, data, size, offset);
  return error ? mc_error_errno(err, error, ORIGIN, "can't read the download back") : MC_OK;
}

/* ---- resuming ---- */

/* Mark the journal's chunks that are still as it says. */
static mc_status resume_chunks(struct download *d, const mc_hash128 *hashes, const bool *landed, mc_error *err) {
  char *block = malloc(READ_BLOCK);
  struct xxh128 *hash = xxh128_new();
  mc_status status = block && hash ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to resume");
  for (uint32_t i = 0; i < d->count && !status; i++) {
    if (landed && !landed[i]) continue;
    uint64_t left = chunk_length(d->size, i), at = i * MC_CHUNK_SIZE;
    status = mc_call_check(d->call, err);
    xxh128_reset(hash);
    bool readable = true;
    while (left && readable && !status) {
      size_t piece = left < READ_BLOCK ? (size_t)left : READ_BLOCK;
      readable = download_load(d, block, piece, at, NULL) == MC_OK;
      if (readable) xxh128_update(hash, block, piece);
      at += piece;
      left -= piece;
    }
    mc_hash128 got;
    xxh128_final(hash, &got);
    if (status || !readable || !hash128_equal(&got, &hashes[i])) continue;
    pthread_mutex_lock(&d->lock);
    bool grown = grow(d, i + 1);
    if (grown) {
      d->hashes[i] = got;
      d->states[i] = CHUNK_LANDED;
      d->landed++;
      d->bytes += chunk_length(d->size, i);
    }
    pthread_mutex_unlock(&d->lock);
    if (!grown) status = no_table(err);
    if (grown) stat_add(d->cache, STAT_RESUMED_BYTES, chunk_length(d->size, i));
  }
  xxh128_free(hash);
  free(block);
  return status;
}

static void take_stage(struct download *d, mc_stage *stage) {
  d->stage = stage;
  d->fd = stage->fd;
  d->memory = stage->memory;
  d->memory_size = stage->memory ? stage->size : 0;
  pthread_mutex_lock(&d->lock);
  int before = d->view;
  d->view = d->fleeting ? -1 : fcntl(stage->fd, F_DUPFD_CLOEXEC, 0); /* without one nobody follows */
  pthread_mutex_unlock(&d->lock);
  if (before >= 0) close(before);
}

static void drop_stage(struct download *d, bool keep) {
  if (!d->stage) return;
  d->stage->storage->ops->stage_close(d->stage, keep);
  d->stage = NULL;
  d->resumed = d->fleeting = false;
  d->fd = -1;
  d->memory = NULL;
}

void download_reset(struct download *d) {
  pthread_mutex_lock(&d->lock);
  d->size = MC_SIZE_UNKNOWN;
  forget_chunks(d);
  d->version++;
  struct follower *taken = followers_take(d, UINT32_MAX);
  pthread_mutex_unlock(&d->lock);
  followers_wake(d, taken);
  content_forget(d);
  memset(&d->validators, 0, sizeof(d->validators));
  drop_stage(d, false);
}

void download_adopt(struct download *d, mc_stage *stage, const mc_entry *entry, const mc_chunk_table *table) {
  take_stage(d, stage);
  d->tier = d->cache->home;
  d->validators = entry->validators;
  mc_status status = set_size(d, table->size, NULL);
  if (!status) status = resume_chunks(d, table->hashes, NULL, NULL);
  if (!status) status = journal_begin(stage, table->size, &entry->validators, NULL);
  for (uint32_t i = 0; i < d->count && !status; i++) {
    if (download_state(d, i) == CHUNK_LANDED) status = journal_chunk(stage, i, &d->hashes[i], NULL);
  }
  if (!status) status = tier_reserve(d->tier, d->size, NULL);
  if (status) {
    download_reset(d);
  } else {
    d->reserved = d->size;
  }
}

/* Look for a stage of the same version. MC_OK also if there is none. */
static mc_status resume_stage(struct download *d, const char *key, const mc_info *info, mc_error *err) {
  mc_storage *storage = tier_storage(d->tier);
  if (!storage->ops->stage_resume || info->size == MC_SIZE_UNKNOWN || !info->ranges) return MC_OK;
  mc_stage *stage;
  while (!d->stage && storage->ops->stage_resume(storage, key, &stage, NULL) == MC_OK) {
    struct journal journal;
    if (journal_read(&journal, stage, NULL) ||
        !validators_same(&journal.validators, journal.size, &info->validators, info->size)) {
      journal_free(&journal);
      storage->ops->stage_close(stage, false);
      continue;
    }
    take_stage(d, stage);
    d->resumed = true;
    mc_status status = set_size(d, info->size, err);
    if (!status) status = resume_chunks(d, journal.hashes, journal.landed, err);
    journal_free(&journal);
    return status;
  }
  return MC_OK;
}

/* Make a stage. That of one chunk has nothing that could be resumed before it is whole. */
static mc_status begin_stage(struct download *d, const char *key, const mc_info *info, mc_error *err) {
  mc_stage *stage;
  mc_storage *storage = tier_storage(d->tier);
  bool fleeting = storage->ops->flags & MC_STORAGE_PERSISTENT && info->size <= MC_CHUNK_SIZE;
  mc_status status = fleeting ? MC_OK : resume_stage(d, key, info, err);
  if (status || d->stage) return status;
  status = storage->ops->stage_create(storage, fleeting ? NULL : key, info->size, &stage, err);
  if (status == MC_NO_SPACE && tier_evict(d->tier, info->size == MC_SIZE_UNKNOWN ? 0 : info->size)) {
    status = storage->ops->stage_create(storage, fleeting ? NULL : key, info->size, &stage, err);
  }
  if (status) return status;
  d->fleeting = fleeting;
  take_stage(d, stage);
  return fleeting ? MC_OK : journal_begin(stage, info->size, &info->validators, err);
}

mc_status download_begin(struct download *d, const char *key, const mc_info *info, mc_error *err) {
  bool kept = d->tier && d->tier == d->cache->home;
  if (kept && !d->stage && d->landed) {
    download_reset(d); /* its stage was committed: the next one has nothing of it */
  } else if (d->size != MC_SIZE_UNKNOWN &&
             !(info->ranges && validators_same(&d->validators, d->size, &info->validators, info->size))) {
    download_reset(d);
  } else if (d->size == MC_SIZE_UNKNOWN && d->count) {
    download_reset(d); /* a stream of unknown size begins at its beginning */
  }
  mc_status status = MC_OK;
  if (kept && !d->stage) {
    uint64_t bytes = info->size == MC_SIZE_UNKNOWN ? 0 : info->size;
    if (d->reserved) tier_unreserve(d->tier, d->reserved);
    d->reserved = 0;
    status = tier_reserve(d->tier, bytes, err);
    if (status) return status;
    d->reserved = bytes;
    status = begin_stage(d, key, info, err);
  }
  if (!status && d->size == MC_SIZE_UNKNOWN) status = set_size(d, info->size, err);
  d->validators = info->validators;
  return status;
}

/* ---- lanes ---- */

/* With the lock held: whether the SHA-256 is what takes longest: it has had no pause for as long as the parts of all
 * lanes last it, which come out of order, and has more before it than two. */
static bool lags(const struct download *d, uint32_t part) {
  uint32_t at = d->hashed, most = 2 * part;
  if (d->failed || d->busy <= part * d->lanes) return false;
  while (at - d->hashed <= most && at < d->count && download_state(d, at) == CHUNK_LANDED) at++;
  return at - d->hashed > most;
}

/* With the lock held: how many chunks the next part of a lane has that would take `most`; fewer towards the end, so
 * that all lanes end together. */
static uint32_t part_size(struct download *d, uint32_t most) {
  while (d->first < d->count && download_state(d, d->first) != CHUNK_MISSING) d->first++;
  uint32_t left = d->count - d->first;
  if (left > d->count - d->landed) left = d->count - d->landed; /* what was resumed may lie behind `first` too */
  uint32_t share = left / (2 * (d->lanes ? d->lanes : 1));
  return share > most ? most : share ? share : 1;
}

/* Take the next missing chunks, about `wish` of them. false: there is none, or no more are to be taken.
 *
 * All is there when the SHA-256 is, which is one thread's work. A lane that has outrun it waits: where there are few
 * cores, it needs the lane's share of them, or most would be left to be hashed when all has come. */
static bool take_part(struct download *d, uint32_t *first, uint32_t *count, uint32_t wish, bool whole) {
  pthread_mutex_lock(&d->lock);
  while (!whole && lags(d, part_size(d, wish))) pthread_cond_wait(&d->caught_up, &d->lock);
  uint32_t most = part_size(d, wish), at = d->first;
  *first = at;
  *count = 0;
  if (whole && !d->failed) { /* by one lane, from the beginning: nobody else takes any */
    *count = d->count - at;
    at = d->count;
  }
  while (!whole && !d->failed && *count < most && at < d->count && download_state(d, at) == CHUNK_MISSING) {
    if (grow(d, at + 1)) d->states[at] = CHUNK_TAKEN; /* else it fails when it lands */
    at++;
    ++*count;
  }
  d->first = at;
  pthread_mutex_unlock(&d->lock);
  return *count > 0;
}

static void give_part_back(struct download *d, uint32_t first, uint32_t count) {
  pthread_mutex_lock(&d->lock);
  for (uint32_t i = first; i < first + count && i < d->capacity; i++) {
    if (d->states[i] == CHUNK_TAKEN) d->states[i] = CHUNK_MISSING;
  }
  if (first < d->first) d->first = first;
  pthread_mutex_unlock(&d->lock);
}

/* Read [offset, end), again from a chunk that did not verify. */
static mc_status read_range(struct download *d, struct lane *lane, uint64_t offset, uint64_t end, mc_error *err) {
  lane_seek(lane, offset, end);
  for (;;) {
    mc_status status = d->source->upstream->ops->source_read(d->source, &lane->sink, d->call, err);
    if (status == MC_CORRUPT) {
      stat_add(d->cache, STAT_CORRUPT_CHUNKS, 1);
      pthread_mutex_lock(&d->lock);
      bool again = ++d->corrupt <= MAX_CORRUPT;
      pthread_mutex_unlock(&d->lock);
      if (!again) return status;
      lane_seek(lane, lane->sink.offset / MC_CHUNK_SIZE * MC_CHUNK_SIZE, end);
      lane->sink.suspect = true;
      continue;
    }
    if (status) return status;
    if (end == MC_SIZE_UNKNOWN) return lane_end(lane, err);
    if (lane->sink.offset < end) {
      return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the upstream ended a range early without saying so");
    }
    return MC_OK;
  }
}

void download_fail(struct download *d, mc_status status, const mc_error *error) {
  if (!status || d->failed) return;
  d->failed = status;
  if (error) d->error = *error;
}

/* How many chunks to ask for next. A part is so large that the wait for its first byte costs little, and no larger: the
 * SHA-256 can't pass the first one that is under way. */
static uint32_t next_part(const struct lane *lane, uint32_t part) {
  int64_t waited = lane->began - lane->sought, took = clock_ns() - lane->sought;
  if (!lane->download->followed) return MAX_PART;
  if (16 * waited > took && part < MAX_PART) return part * 2;
  if (64 * waited < took && part > MIN_PART) return part / 2;
  return part;
}

static mc_status run_parts(struct download *d, struct lane *lane, bool ranges, mc_error *err) {
  if (d->size == MC_SIZE_UNKNOWN) return read_range(d, lane, 0, MC_SIZE_UNKNOWN, err);
  uint32_t first, count, part = d->followed ? MIN_PART : MAX_PART;
  mc_status status = MC_OK;
  while (!status && take_part(d, &first, &count, part, !ranges)) {
    uint64_t end = (uint64_t)(first + count) * MC_CHUNK_SIZE;
    status = read_range(d, lane, first * MC_CHUNK_SIZE, end < d->size ? end : d->size, err);
    if (status) give_part_back(d, first, count);
    part = next_part(lane, part);
  }
  return status;
}

struct lane_thread {
  struct download *download;
  bool ranges;
  pthread_t thread;
};

static void *lane_main(void *arg) {
  struct lane_thread *self = arg;
  struct download *d = self->download;
  struct lane lane;
  mc_error error = MC_ERROR_INIT;
  mc_status status = lane_init(&lane, d, &error);
  if (!status) status = run_parts(d, &lane, self->ranges, &error);
  lane_free(&lane);
  pthread_mutex_lock(&d->lock);
  download_fail(d, status, &error);
  d->lanes--;
  pthread_cond_broadcast(&d->changed);
  pthread_mutex_unlock(&d->lock);
  return NULL;
}

/* ---- running ---- */

mc_status download_run(struct download *d, mc_source *source, const mc_info *info, mc_error *err) {
  bool trusted = source->upstream->ops->flags & MC_UPSTREAM_CACHE;
  d->followed = !trusted;
  content_expect(d, info);
  d->source = source;
  d->expected = info->chunks.hashes && info->chunks.size == d->size ? &info->chunks : NULL;
  d->failed = MC_OK;
  if (d->expected) download_check(d, d->expected); /* what is there already may be of another source */
  uint32_t missing = d->count - d->landed;
  uint32_t wanted = !info->ranges || d->size == MC_SIZE_UNKNOWN ? 1 : d->parallelism;
  if (d->size != MC_SIZE_UNKNOWN && wanted > missing) wanted = missing;
  struct lane_thread lanes[64];
  if (wanted > 64) wanted = 64;
  uint32_t started = 0;
  d->lanes = wanted;
  for (; started < wanted && wanted > 0; started++) {
    lanes[started] = (struct lane_thread){.download = d, .ranges = info->ranges};
    if (wanted == 1 && d->size <= MC_CHUNK_SIZE) break; /* a small file needs no thread of its own */
    if (pthread_create(&lanes[started].thread, NULL, lane_main, &lanes[started])) break;
  }
  pthread_mutex_lock(&d->lock);
  d->lanes -= wanted - started;
  pthread_mutex_unlock(&d->lock);
  if (wanted && !started) {
    pthread_mutex_lock(&d->lock);
    d->lanes = 1;
    pthread_mutex_unlock(&d->lock);
    lane_main(&lanes[0]);
  }
  /* A trusted digest needs no following, which would wake this thread for every chunk; and of a small file the upstream
   * may tell a checksum at the end, which is then made in the same pass. */
  mc_status status = trusted || !started ? MC_OK : content_follow(d, err);
  for (uint32_t i = 0; i < started; i++) pthread_join(lanes[i].thread, NULL);
  if (!status && d->failed) {
    if (err) *err = d->error;
    status = d->failed;
  }
  if (!status && d->stage && d->stage->size != d->size) {
    status = d->stage->storage->ops->stage_resize(d->stage, d->size, err);
  }
  return status;
}

/* ---- the end ---- */

uint32_t download_check(struct download *d, const mc_chunk_table *table) {
  uint32_t bad = 0;
  pthread_mutex_lock(&d->lock);
  for (uint32_t i = 0; i < d->count; i++) {
    if (download_state(d, i) != CHUNK_LANDED) continue;
    if (table->count == d->count && hash128_equal(&d->hashes[i], &table->hashes[i])) continue;
    d->states[i] = CHUNK_MISSING;
    d->landed--;
    bad++;
  }
  if (bad) d->first = 0;
  pthread_mutex_unlock(&d->lock);
  if (bad) content_forget(d);
  if (bad) stat_add(d->cache, STAT_CORRUPT_CHUNKS, bad);
  return bad;
}

mc_status download_digest(struct download *d, mc_digest *digest, const mc_info *info, bool trusted, mc_error *err) {
  if (trusted && info->has_digest && info->chunks.hashes && info->chunks.size == d->size) { /* every chunk is of it */
    *digest = info->digest;
    return MC_OK;
  }
  return content_digest(d, digest, info, err);
}

mc_chunk_table *download_table(struct download *d) {
  mc_chunk_table *table = chunk_table_new(d->size);
  if (table && d->count) memcpy(chunk_table_hashes(table), d->hashes, d->count * sizeof(*d->hashes));
  return table;
}

mc_status download_commit(struct object **out, struct download *d, const mc_digest *digest, mc_error *err) {
  mc_chunk_table *table = download_table(d);
  if (!table) return no_table(err);
  mc_status status = tier_commit(out, d->tier, &d->stage, table, digest, err);
  if (!d->stage) {
    d->fd = -1;
    d->memory = NULL;
    tier_unreserve(d->tier, d->reserved); /* it counts as an object now */
    d->reserved = 0;
  }
  free(table);
  return status;
}

void download_close(struct download *d) {
  if (d->stage) drop_stage(d, (d->landed > 0 || d->resumed) && d->size != MC_SIZE_UNKNOWN && !d->fleeting);
  if (d->tier && d->reserved) tier_unreserve(d->tier, d->reserved);
  d->reserved = 0;
  pthread_mutex_lock(&d->lock);
  d->ended = true;
  d->succeeded = d->size != MC_SIZE_UNKNOWN && d->landed == d->count;
  struct follower *taken = followers_take(d, UINT32_MAX);
  pthread_mutex_unlock(&d->lock);
  followers_wake(d, taken);
}

void download_free(struct download *d) {
  if (!d) return;
  content_forget(d);
  if (d->view >= 0) close(d->view);
  free(d->hashes);
  free(d->states);
  pthread_mutex_destroy(&d->lock);
  pthread_mutex_destroy(&d->journal_lock);
  pthread_cond_destroy(&d->changed);
  pthread_cond_destroy(&d->caught_up);
  free(d);
}
