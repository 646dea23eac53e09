/* Chunk tables from a wire and from a file: whatever is taken for one is whole, and its encoding is the input. */
#include <string.h>

#include "base/hash.h"
#include "fuzz.h"

static void take_wire(const uint8_t *data, size_t size) {
  uint64_t object;
  mc_chunk_table *table = NULL;
  uint32_t count;
  if (size < sizeof(object)) return;
  memcpy(&object, data, sizeof(object));
  data += sizeof(object);
  size -= sizeof(object);
  mc_status status = chunk_table_from_bytes(&table, object, MC_CHUNK_SIZE, data, size, NULL);
  CHECK(chunk_table_from_bytes(&table, object, MC_CHUNK_SIZE / 2, data, size, NULL) == MC_PROTOCOL);
  if (status) {
    CHECK(status == MC_PROTOCOL && !table);
    return;
  }
  CHECK(chunk_count(object, &count) && table->count == count && table->size == object);
  CHECK(size == (size_t)count * sizeof(mc_hash128) && (!size || memcmp(table->hashes, data, size) == 0));
  uint64_t total = 0;
  for (uint32_t i = 0; i < count; i++) total += chunk_length(object, i);
  CHECK(total == object);
  free(table);
}

static void take_file(const mc_digest *digest, const uint8_t *data, size_t size) {
  mc_chunk_table *table = NULL;
  mc_status status = chunk_table_decode(&table, digest, data, size, NULL);
  if (status) {
    CHECK(status == MC_CORRUPT && !table);
    return;
  }
  CHECK(chunk_table_encoded_size(table) == size);
  uint8_t *encoded = malloc(size);
  chunk_table_encode(table, digest, encoded);
  CHECK(memcmp(encoded, data, size) == 0);
  free(encoded);
  free(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const mc_digest digest = {"the digest of an object: 32 byte"};
  take_wire(data, size);
  take_file(&digest, data, size);
  if (size < 56) return 0;
  /* A fuzzer does not find the seal, nor the digest: put them in. */
  uint8_t *sealed = malloc(size);
  mc_hash128 check;
  memcpy(sealed, data, size);
  memcpy(sealed + 8, digest.bytes, sizeof(digest.bytes));
  xxh128_of(&check, sealed, size - sizeof(check));
  memcpy(sealed + size - sizeof(check), check.bytes, sizeof(check));
  take_file(&digest, sealed, size);
  free(sealed);
  return 0;
}
