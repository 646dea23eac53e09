/* A lane: the sink through which one thread's bytes reach a download, hashed on their way. */
#ifndef ENGINE_SINK_H
#define ENGINE_SINK_H

#include "engine/download.h"

struct lane {
  mc_sink sink; /* first: the upstream sees no more */
  struct download *download;
  struct xxh128 *hash;
  uint8_t *block;        /* where bytes gather that do not go straight to memory */
  int64_t sought, began; /* when it was sent where it is, and when its first byte came */
  size_t held;           /* so many, which end at the sink's offset */
};

mc_status lane_init(struct lane *lane, struct download *download, mc_error *err);
void lane_free(struct lane *lane);
/* Go to the start of a chunk. */
void lane_seek(struct lane *lane, uint64_t offset, uint64_t end);
/* A stream of unknown size ended where the lane is. */
mc_status lane_end(struct lane *lane, mc_error *err);

/* download.c: put bytes in place; a chunk is complete. */
mc_status download_store(struct download *download, const void *data, size_t size, uint64_t offset, mc_error *err);
mc_status download_landed(struct download *download, uint32_t index, const mc_hash128 *hash, mc_error *err);

#endif
