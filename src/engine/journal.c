/* Little-endian. Head: "MCJRNL1\n", u64 size, i64 last_modified, version[128], etag[256], u64 check. Then for each
 * chunk: u32 index, u32 zero, hash[16], u64 check. A check is the first half of the XXH3-128 of what is before it. */
#include "engine/journal.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define MAGIC       "MCJRNL1\n"
#define HEAD_SIZE   (8 + 8 + 8 + 128 + 256 + 8)
#define RECORD_SIZE (4 + 4 + 16 + 8)
#define JOURNAL_MAX ((size_t)512 << 20)

static void seal(uint8_t *record, size_t size) {
  mc_hash128 hash;
  xxh128_of(&hash, record, size - 8);
  memcpy(record + size - 8, hash.bytes, 8);
}

static bool sealed(const uint8_t *record, size_t size) {
  mc_hash128 hash;
  xxh128_of(&hash, record, size - 8);
  return memcmp(record + size - 8, hash.bytes, 8) == 0;
}

mc_status journal_begin(mc_stage *stage, uint64_t size, const mc_validators *validators, mc_error *err) {
  if (!stage->storage->ops->stage_append) return MC_OK;
  uint8_t head[HEAD_SIZE] = MAGIC;
  uint64_t size_le = htole64(size), modified_le = htole64((uint64_t)validators->last_modified);
  memcpy(head + 8, &size_le, 8);
  memcpy(head + 16, &modified_le, 8);
  memcpy(head + 24, validators->version, 128);
  memcpy(head + 152, validators->etag, 256);
  seal(head, sizeof(head));
  return stage->storage->ops->stage_append(stage, head, sizeof(head), err);
}

mc_status journal_chunk(mc_stage *stage, uint32_t index, const mc_hash128 *hash, mc_error *err) {
  if (!stage->storage->ops->stage_append) return MC_OK;
  uint8_t record[RECORD_SIZE] = {0};
  uint32_t index_le = htole32(index);
  memcpy(record, &index_le, 4);
  memcpy(record + 8, hash->bytes, 16);
  seal(record, sizeof(record));
  return stage->storage->ops->stage_append(stage, record, sizeof(record), err);
}

mc_status journal_parse(struct journal *journal, const void *data, size_t size, mc_error *err) {
  const uint8_t *at = data, *end = at + size;
  uint64_t size_le, modified_le;
  memset(journal, 0, sizeof(*journal));
  if (size < HEAD_SIZE || memcmp(at, MAGIC, 8) != 0 || !sealed(at, HEAD_SIZE)) {
    return mc_error_set(err, MC_NOT_FOUND, "journal", "no journal that can be resumed");
  }
  memcpy(&size_le, at + 8, 8);
  memcpy(&modified_le, at + 16, 8);
  journal->size = le64toh(size_le);
  journal->validators.last_modified = (int64_t)le64toh(modified_le);
  memcpy(journal->validators.version, at + 24, 127);
  memcpy(journal->validators.etag, at + 152, 255);
  if (journal->size == MC_SIZE_UNKNOWN || !chunk_count(journal->size, &journal->count)) {
    return mc_error_set(err, MC_NOT_FOUND, "journal", "a download of unknown size can't be resumed");
  }
  journal->hashes = calloc((size_t)journal->count + 1, sizeof(*journal->hashes));
  journal->landed = calloc((size_t)journal->count + 1, sizeof(*journal->landed));
  if (!journal->hashes || !journal->landed) {
    journal_free(journal);
    return mc_error_set(err, MC_NO_MEMORY, "journal", "no memory to resume a download");
  }
  for (at += HEAD_SIZE; end - at >= RECORD_SIZE && sealed(at, RECORD_SIZE); at += RECORD_SIZE) {
    uint32_t index_le;
    memcpy(&index_le, at, 4);
    uint32_t index = le32toh(index_le);
    if (index >= journal->count) break;
    memcpy(journal->hashes[index].bytes, at + 8, 16);
    journal->landed[index] = true;
  }
  return MC_OK;
}

mc_status journal_read(struct journal *journal, mc_stage *stage, mc_error *err) {
  void *data;
  size_t size;
  mc_status status = stage->storage->ops->stage_journal(stage, &data, &size, JOURNAL_MAX, err);
  if (status) return status;
  status = journal_parse(journal, data, size, err);
  free(data);
  return status;
}

void journal_free(struct journal *journal) {
  free(journal->hashes);
  free(journal->landed);
  journal->hashes = NULL;
  journal->landed = NULL;
}
