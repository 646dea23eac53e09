#include "engine/sink.h"

#include <stdlib.h>
#include <string.h>

/* What is lent, hashed and written at once: while it is still in the core's own cache, where it was received to. Larger
 * writes to a file cost as much, smaller ones more, each with its turn at the file's lock, for which lanes contend. */
#define BLOCK_SIZE ((size_t)256 << 10)
#define PAGE_SIZE  4096

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

/* Put what is held in place: it lies within one chunk, and ends at the lane's offset. */
static mc_status put(struct lane *lane, const void *data, mc_error *err) {
  uint64_t at = lane->sink.offset - lane->held;
  mc_status status = download_store(lane->download, data, lane->held, at, err);
  xxh128_update(lane->hash, data, lane->held);
  lane->held = 0;
  return status;
}

/* Whether the next bytes go straight to where they stay in memory. */
static bool in_place(const struct lane *lane) {
  const struct download *d = lane->download;
  return d->memory && !lane->held && lane->sink.offset + chunk_left(lane) <= d->memory_size;
}

static void *lane_space(mc_sink *sink, size_t *size) {
  struct lane *lane = (struct lane *)sink;
  bool memory = in_place(lane);
  size_t most = BLOCK_SIZE - lane->held;
  uint64_t left = chunk_left(lane);
  *size = left < most ? (size_t)left : most;
  return memory ? lane->download->memory + sink->offset : lane->block + lane->held;
}

static mc_status lane_advance(mc_sink *sink, size_t size, mc_error *err) {
  struct lane *lane = (struct lane *)sink;
  struct download *d = lane->download;
  mc_status status = mc_call_check(d->call, err);
  if (status || !size) return status;
  if (!lane->began) lane->began = clock_ns();
  const void *data = in_place(lane) ? d->memory + sink->offset : lane->block;
  lane->held += size;
  sink->offset += size;
  atomic_fetch_add_explicit(&d->bytes, size, memory_order_relaxed);
  stat_add(d->cache, STAT_DOWNLOAD_BYTES, size);
  bool full = sink->offset % MC_CHUNK_SIZE == 0 || sink->offset == sink->end;
  if (data != lane->block || full || lane->held == BLOCK_SIZE) status = put(lane, data, err);
  return full && !status ? end_chunk(lane, err) : status;
}

static mc_status lane_write(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  const uint8_t *at = data;
  mc_status status = MC_OK;
  while (size && !status) {
    size_t piece;
    void *to = lane_space(sink, &piece);
    if (piece == 0) return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the upstream sent more bytes than were asked for");
    if (piece > size) piece = size;
    memcpy(to, at, piece);
    status = lane_advance(sink, piece, err);
    at += piece;
    size -= piece;
  }
  return status;
}

mc_status lane_init(struct lane *lane, struct download *download, mc_error *err) {
  *lane = (struct lane){.sink = {.write = lane_write, .space = lane_space, .advance = lane_advance},
                        .download = download,
                        .hash = xxh128_new(),
                        .block = aligned_alloc(PAGE_SIZE, BLOCK_SIZE)};
  if (!lane->hash || !lane->block) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a download's lane");
  return MC_OK;
}

void lane_free(struct lane *lane) {
  xxh128_free(lane->hash);
  free(lane->block);
}

void lane_seek(struct lane *lane, uint64_t offset, uint64_t end) {
  lane->sink.offset = offset;
  lane->sink.end = end;
  lane->sink.suspect = false;
  lane->held = 0;
  lane->sought = clock_ns();
  lane->began = 0;
  xxh128_reset(lane->hash);
}

mc_status lane_end(struct lane *lane, mc_error *err) {
  struct download *d = lane->download;
  mc_status status = lane->held ? put(lane, lane->block, err) : MC_OK;
  if (status) return status;
  pthread_mutex_lock(&d->lock);
  d->size = lane->sink.offset;
  pthread_mutex_unlock(&d->lock);
  return lane->sink.offset % MC_CHUNK_SIZE ? end_chunk(lane, err) : MC_OK;
}
