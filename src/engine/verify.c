#include "engine/verify.h"

#include <errno.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/io.h"

#define ORIGIN     "tier"
#define READ_BLOCK ((size_t)256 << 10) /* stays in a core's cache */

bool stamp_of(struct stamp *stamp, int fd) {
  struct stat st;
  if (fstat(fd, &st)) return false;
  *stamp = (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
  return true;
}

bool stamp_same(const struct stamp *a, const struct stamp *b) {
  return a->device == b->device && a->inode == b->inode && a->size == b->size &&
         a->modified.tv_sec == b->modified.tv_sec && a->modified.tv_nsec == b->modified.tv_nsec;
}

static mc_status hash_chunk(mc_hash128 *out, int fd, uint64_t at, uint64_t left, struct xxh128 *hash, char *buffer,
                            mc_error *err) {
  xxh128_reset(hash);
  while (left) {
    size_t piece = left < READ_BLOCK ? (size_t)left : READ_BLOCK;
    int error = pread_all(fd, buffer, piece, at);
    if (error == ENODATA) return mc_error_set(err, MC_CORRUPT, ORIGIN, "a stored object is shorter than it was");
    if (error == ESTALE) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "another machine removed a stored object");
    if (error == EIO) return mc_error_set(err, MC_CORRUPT, ORIGIN, "a stored object can't be read any more");
    if (error) return mc_error_errno(err, error, ORIGIN, "can't read a stored object");
    xxh128_update(hash, buffer, piece);
    at += piece;
    left -= piece;
  }
  xxh128_final(hash, out);
  return MC_OK;
}

mc_status verify_chunks(int fd, const mc_chunk_table *table, uint32_t first, uint32_t count, const mc_call *call,
                        mc_error *err) {
  struct xxh128 *hash = xxh128_new();
  char *buffer = malloc(READ_BLOCK);
  mc_status status = hash && buffer ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to verify");
  for (uint32_t i = first; i < first + count && !status; i++) {
    mc_hash128 got;
    if (call) status = mc_call_check(call, err);
    if (!status) status = hash_chunk(&got, fd, i * MC_CHUNK_SIZE, chunk_length(table->size, i), hash, buffer, err);
    if (!status && !hash128_equal(&got, &table->hashes[i])) {
      status = mc_error_set(err, MC_CORRUPT, ORIGIN, "chunk %u of a stored object does not match its hash", i);
    }
  }
  xxh128_free(hash);
  free(buffer);
  return status;
}
