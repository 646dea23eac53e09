#include "engine/content.h"

#include <fcntl.h>
#include <stdlib.h>

#include "base/checksum.h"

void content_forget(struct download *d) {
  sha256_free(d->sha);
  checksum_free(d->sum);
  d->sha = NULL;
  d->sum = NULL;
  d->hashed = 0;
}

void content_expect(struct download *d, const mc_info *info) {
  mc_checksum_kind kind = info->has_digest ? MC_CHECKSUM_NONE : info->checksum.kind;
  if (kind == d->sum_kind) return;
  if (kind != MC_CHECKSUM_NONE) content_forget(d);
  d->sum_kind = kind;
}

/* Without one of OpenSSL's hashes a download is no worse than one whose upstream gives no checksum. */
static mc_status begin_checksum(struct download *d, uint64_t size, mc_error *err) {
  mc_error error = MC_ERROR_INIT;
  mc_status status = checksum_new(&d->sum, d->sum_kind, size, &error);
  if (status != MC_UNSUPPORTED) {
    if (status && err) *err = error;
    return status;
  }
  if (!atomic_exchange(&d->cache->told_unchecked, true)) {
    log_warn(d->cache->logger, ORIGIN, "downloads are not checked against their %s: %s", checksum_name(d->sum_kind),
             error.message);
  }
  return MC_OK;
}

static void hash(struct download *d, const void *data, size_t size) {
  sha256_update(d->sha, data, size);
  if (d->sum) checksum_update(d->sum, data, size);
}

static mc_status hash_chunk(struct download *d, uint32_t index, uint64_t size, char *block, mc_error *err) {
  uint64_t at = index * MC_CHUNK_SIZE, end = at + chunk_length(size, index);
  while (at < end) {
    size_t piece = end - at < READ_BLOCK ? (size_t)(end - at) : READ_BLOCK;
    const void *data = d->memory ? (const void *)(d->memory + at) : block;
    mc_status status = d->memory ? MC_OK : download_load(d, block, piece, at, err);
    if (status) return status;
    hash(d, data, piece);
    at += piece;
  }
  return MC_OK;
}

/* Have the disk begin with a chunk: everybody waits for the fsync at the end, which then has little left to do. */
static void begin_writing(struct download *d, uint32_t index, uint64_t size) {
  if (!d->stage || d->memory || d->cache->options.durable == MC_DURABLE_OFF) return;
  sync_file_range(d->fd, (off_t)(index * MC_CHUNK_SIZE), (off_t)chunk_length(size, index), SYNC_FILE_RANGE_WRITE);
}

/* With the lock held: whether the next chunk can be hashed. Git's checksum begins with the size. */
static bool is_next(struct download *d) {
  if (d->sum_kind == MC_CHECKSUM_GIT && d->size == MC_SIZE_UNKNOWN) return false;
  return d->hashed < d->count && download_state(d, d->hashed) == CHUNK_LANDED;
}

/* With the lock held: nothing is left to be hashed, or nothing more will be. */
static void catch_up(struct download *d) {
  d->busy = 0;
  pthread_cond_broadcast(&d->caught_up);
}

mc_status content_follow(struct download *d, mc_error *err) {
  mc_status status = MC_OK;
  char *block = malloc(READ_BLOCK);
  if (!d->sha) d->sha = sha256_new();
  if (!block || !d->sha) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to hash");
  pthread_mutex_lock(&d->lock);
  for (;;) {
    download_fail(d, status, err);
    bool next = !status && is_next(d);
    if (!next && !d->lanes) break;
    if (!next) {
      catch_up(d);
      pthread_cond_wait(&d->changed, &d->lock);
      continue;
    }
    /* While the size isn't known every landed chunk but the last one is a whole one, and the last lands at the end. */
    uint64_t size = d->size;
    pthread_mutex_unlock(&d->lock);
    if (d->hashed == 0 && d->sum_kind != MC_CHECKSUM_NONE && !d->sum) status = begin_checksum(d, size, err);
    if (!status) status = hash_chunk(d, d->hashed, size, block, err);
    begin_writing(d, d->hashed, size);
    pthread_mutex_lock(&d->lock);
    d->hashed++;
    d->busy++;
    pthread_cond_signal(&d->caught_up);
  }
  catch_up(d);
  pthread_mutex_unlock(&d->lock);
  free(block);
  return status;
}

/* An empty file has no chunk with which its checksum would have begun. */
static mc_status end_checksum(struct download *d, mc_checksum *out, mc_error *err) {
  mc_status status = MC_OK;
  *out = (mc_checksum){.kind = MC_CHECKSUM_NONE};
  if (d->count == 0 && d->sum_kind != MC_CHECKSUM_NONE && !d->sum) status = begin_checksum(d, 0, err);
  if (!status && d->sum) checksum_final(d->sum, out);
  return status;
}

mc_status content_digest(struct download *d, mc_digest *digest, const mc_info *info, mc_error *err) {
  mc_checksum sum;
  content_expect(d, info);
  mc_status status = content_follow(d, err); /* what is left, or all if nobody followed */
  if (status) return status;
  if (d->hashed != d->count) return mc_error_set(err, MC_IO, ORIGIN, "a download ended with chunks missing");
  sha256_final(d->sha, digest);
  status = end_checksum(d, &sum, err);
  content_forget(d);
  if (status) return status;
  const char *wrong = NULL;
  if (info->has_digest) {
    if (!mc_digest_equal(digest, &info->digest)) wrong = "SHA-256";
  } else if (sum.kind != MC_CHECKSUM_NONE && !checksum_equal(&sum, &info->checksum)) {
    wrong = checksum_name(sum.kind);
  }
  if (!wrong) return MC_OK;
  download_reset(d); /* every chunk is as it arrived: to resume it would not mend it */
  return mc_error_set(err, MC_CORRUPT, ORIGIN, "the content does not match the %s that the upstream gave", wrong);
}
