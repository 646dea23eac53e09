/* Journals of stages: whatever a crash, or a disk, made of one, what is taken from it is within its own bounds. */
#include <endian.h>
#include <string.h>

#include "base/hash.h"
#include "engine/journal.h"
#include "fuzz.h"

#define HEAD_SIZE   408
#define RECORD_SIZE 32
#define MOST_CHUNKS 100000 /* a table of more takes long to look through */

static void take(const uint8_t *data, size_t size) {
  struct journal journal;
  mc_status status = journal_parse(&journal, data, size, NULL);
  if (status) {
    CHECK(status == MC_NOT_FOUND && !journal.hashes && !journal.landed);
    return;
  }
  uint32_t count, landed = 0;
  CHECK(size >= HEAD_SIZE && chunk_count(journal.size, &count) && count == journal.count);
  CHECK(strlen(journal.validators.etag) < sizeof(journal.validators.etag));
  CHECK(strlen(journal.validators.version) < sizeof(journal.validators.version));
  for (uint32_t i = 0; i < count && i < MOST_CHUNKS; i++) landed += journal.landed[i];
  CHECK(landed <= (size - HEAD_SIZE) / RECORD_SIZE);
  journal_free(&journal);
}

static void seal(uint8_t *data, size_t size) {
  mc_hash128 hash;
  xxh128_of(&hash, data, size - 8);
  memcpy(data + size - 8, hash.bytes, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t bytes;
  take(data, size);
  if (size < HEAD_SIZE) return 0;
  /* A fuzzer does not find the seals: put them in; and keep the table within a fuzzer's memory. */
  uint8_t *sealed = malloc(size);
  memcpy(sealed, data, size);
  memcpy(sealed, "MCJRNL1\n", 8);
  memcpy(&bytes, sealed + 8, 8);
  if (le64toh(bytes) != MC_SIZE_UNKNOWN) bytes = htole64(le64toh(bytes) >> 24);
  memcpy(sealed + 8, &bytes, 8);
  seal(sealed, HEAD_SIZE);
  for (size_t at = HEAD_SIZE; size - at >= RECORD_SIZE; at += RECORD_SIZE) {
    if (sealed[at + 4] < 250) seal(sealed + at, RECORD_SIZE); /* some are torn */
  }
  take(sealed, size);
  free(sealed);
  return 0;
}
