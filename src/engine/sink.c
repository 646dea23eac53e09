#include "engine/sink.h"

#include <stdlib.h>
#include <string.h>

/* What is lent at once. In memory: what is hashed while it is still in the core's own cache, where it was received to.
 * For a file more, as file systems like large writes. */
#define MEMORY_SIZE  ((size_t)256 << 10)
#define SCRATCH_SIZE ((size_t)1 << 20)

/* How much of the chunk at the lane's offset is still wanted. */
static uint64_t chunk_left(const struct lane *lane) {
  uint64_t end = (lane->sink.offset / MC_CHUNK_SIZE + 1) * MC_CHUNK_SIZE;
  return (end < lane->sink.end ? end : lane->sink.end) - lane->sink.offset;
}

/* The chunk that ends at the lane's offset is complete. */
static mc_status end_chunk(struct lane *lane, mc_error *err) {
  struct download *d = lane->download;
  uint32_t index = (uint32_t)((lane->sink.offset - 1) / MC_CHUNK_SIZE);
  mc_hash128 hash;
  xxh128_final(lane->hash, &hash);
  xxh128_reset(lane->hash);
  if (d->expected && !hash128_equal(&hash, &d->expected->hashes[index])) {
    lane->sink.offset = index * MC_CHUNK_SIZE;
    return mc_error_set(err, MC_CORRUPT, ORIGIN, "chunk %u arrived damaged", index);
  }
  lane->sink.suspect = false;
  return download_landed(d, index, &hash, err);
}

/* `size` bytes within one chunk are in place. */
static mc_status account(struct lane *lane, const void *data, size_t size, mc_error *err) {
  struct download *d = lane->download;
  xxh128_update(lane->hash, data, size);
  lane->sink.offset += size;
  atomic_fetch_add_explicit(&d->bytes, size, memory_order_relaxed);
  stat_add(d->cache, STAT_DOWNLOAD_BYTES, size);
  bool full = lane->sink.offset % MC_CHUNK_SIZE == 0 || lane->sink.offset == lane->sink.end;
  return full ? end_chunk(lane, err) : MC_OK;
}

static mc_status lane_write(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  struct lane *lane = (struct lane *)sink;
  const uint8_t *at = data;
  mc_status status = mc_call_check(lane->download->call, err);
  while (size && !status) {
    uint64_t left = chunk_left(lane);
    if (left == 0) return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the upstream sent more bytes than were asked for");
    size_t piece = left < size ? (size_t)left : size;
    status = download_store(lane->download, at, piece, sink->offset, err);
    if (!status) status = account(lane, at, piece, err);
    at += piece;
    size -= piece;
  }
  return status;
}

static void *lane_space(mc_sink *sink, size_t *size) {
  struct lane *lane = (struct lane *)sink;
  struct download *d = lane->download;
  uint64_t left = chunk_left(lane);
  if (d->memory && sink->offset + left <= d->memory_size) {
    *size = left < MEMORY_SIZE ? (size_t)left : MEMORY_SIZE;
    return d->memory + sink->offset;
  }
  *size = left < SCRATCH_SIZE ? (size_t)left : SCRATCH_SIZE;
  return lane->scratch;
}

static mc_status lane_advance(mc_sink *sink, size_t size, mc_error *err) {
  struct lane *lane = (struct lane *)sink;
  struct download *d = lane->download;
  size_t space;
  const void *data = lane_space(sink, &space);
  mc_status status = mc_call_check(d->call, err);
  if (!status) status = download_store(d, data, size, sink->offset, err);
  return status ? status : account(lane, data, size, err);
}

mc_status lane_init(struct lane *lane, struct download *download, mc_error *err) {
  *lane = (struct lane){.sink = {.write = lane_write, .space = lane_space, .advance = lane_advance},
                        .download = download,
                        .hash = xxh128_new(),
                        .scratch = malloc(SCRATCH_SIZE)};
  if (!lane->hash || !lane->scratch) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a download's lane");
  return MC_OK;
}

void lane_free(struct lane *lane) {
  xxh128_free(lane->hash);
  free(lane->scratch);
}

void lane_seek(struct lane *lane, uint64_t offset, uint64_t end) {
  lane->sink.offset = offset;
  lane->sink.end = end;
  lane->sink.suspect = false;
  xxh128_reset(lane->hash);
}

mc_status lane_end(struct lane *lane, mc_error *err) {
  struct download *d = lane->download;
  pthread_mutex_lock(&d->lock);
  d->size = lane->sink.offset;
  pthread_mutex_unlock(&d->lock);
  return lane->sink.offset % MC_CHUNK_SIZE ? end_chunk(lane, err) : MC_OK;
}
