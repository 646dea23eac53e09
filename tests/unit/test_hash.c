/* Hashes against known answers; chunk tables, and what is refused as one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

static const char *hex_of(char *hex, const uint8_t *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) {
    hex[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
    hex[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
  }
  hex[2 * size] = 0;
  return hex;
}

static void sha256_gives_the_standards_answers(void **state) {
  (void)state;
  mc_digest digest, piecewise;
  char hex[MC_DIGEST_HEX_SIZE];
  sha256_of(&digest, "", 0);
  assert_string_equal(mc_digest_hex(hex, &digest), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  sha256_of(&digest, "abc", 3);
  assert_string_equal(mc_digest_hex(hex, &digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  struct sha256 *hash = sha256_new();
  assert_non_null(hash);
  sha256_update(hash, "a", 1);
  sha256_update(hash, "", 0);
  sha256_update(hash, "bc", 2);
  sha256_final(hash, &piecewise);
  sha256_free(hash);
  sha256_free(NULL);
  assert_true(mc_digest_equal(&digest, &piecewise));
}

static void xxh128_gives_its_canonical_form(void **state) {
  (void)state;
  mc_hash128 hash, piecewise;
  char hex[33];
  xxh128_of(&hash, "", 0);
  assert_string_equal(hex_of(hex, hash.bytes, 16), "99aa06d3014798d86001c324468d497f");
  xxh128_of(&hash, "abc", 3);
  assert_string_equal(hex_of(hex, hash.bytes, 16), "06b05ab6733a618578af5f94892f3950");
  struct xxh128 *running = xxh128_new();
  assert_non_null(running);
  xxh128_update(running, "something else", 14);
  xxh128_reset(running);
  xxh128_update(running, "ab", 2);
  xxh128_update(running, "c", 1);
  xxh128_final(running, &piecewise);
  assert_true(hash128_equal(&hash, &piecewise));
  xxh128_final(running, &piecewise); /* does not end it */
  assert_true(hash128_equal(&hash, &piecewise));
  piecewise.bytes[15] ^= 1;
  assert_false(hash128_equal(&hash, &piecewise));
  xxh128_free(running);
  xxh128_free(NULL);
}

static void chunks_are_counted(void **state) {
  (void)state;
  uint32_t count = 99;
  assert_true(chunk_count(0, &count));
  assert_int_equal(count, 0);
  assert_true(chunk_count(1, &count));
  assert_int_equal(count, 1);
  assert_true(chunk_count(MC_CHUNK_SIZE, &count));
  assert_int_equal(count, 1);
  assert_true(chunk_count(MC_CHUNK_SIZE + 1, &count));
  assert_int_equal(count, 2);
  uint64_t most = (uint64_t)(UINT32_MAX / 16) * MC_CHUNK_SIZE;
  assert_true(chunk_count(most, &count));
  assert_int_equal(count, UINT32_MAX / 16);
  assert_false(chunk_count(most + 1, &count));
  assert_false(chunk_count(MC_SIZE_UNKNOWN, &count));

  assert_int_equal(chunk_length(MC_CHUNK_SIZE + 5, 0), MC_CHUNK_SIZE);
  assert_int_equal(chunk_length(MC_CHUNK_SIZE + 5, 1), 5);
  assert_int_equal(chunk_length(MC_CHUNK_SIZE + 5, 2), 0);
  assert_int_equal(chunk_length(MC_CHUNK_SIZE + 5, UINT32_MAX), 0);
  assert_int_equal(chunk_length(0, 0), 0);
}

static mc_chunk_table *example(uint64_t size) {
  mc_chunk_table *table = chunk_table_new(size);
  assert_non_null(table);
  for (uint32_t i = 0; i < table->count; i++) xxh128_of(&chunk_table_hashes(table)[i], &i, sizeof(i));
  return table;
}

static void assert_same_table(const mc_chunk_table *a, const mc_chunk_table *b) {
  assert_int_equal(a->size, b->size);
  assert_int_equal(a->count, b->count);
  assert_memory_equal(a->hashes, b->hashes, a->count * sizeof(mc_hash128));
}

static void tables_are_made_and_copied(void **state) {
  (void)state;
  mc_chunk_table *table = chunk_table_new(3 * MC_CHUNK_SIZE);
  static const mc_hash128 zero = {0};
  assert_int_equal(table->count, 3);
  for (int i = 0; i < 3; i++) assert_true(hash128_equal(&table->hashes[i], &zero));
  free(table);
  assert_null(chunk_table_new(MC_SIZE_UNKNOWN));
  table = example(2 * MC_CHUNK_SIZE + 1);
  mc_chunk_table *copy = chunk_table_copy(table);
  assert_same_table(table, copy);
  assert_ptr_not_equal(table->hashes, copy->hashes);
  free(table);
  free(copy);
  table = chunk_table_new(0);
  copy = chunk_table_copy(table);
  assert_int_equal(copy->count, 0);
  free(table);
  free(copy);
}

static void tables_from_a_wire_must_fit_their_object(void **state) {
  (void)state;
  mc_chunk_table *table = example(2 * MC_CHUNK_SIZE + 1), *got = NULL;
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(chunk_table_from_bytes(&got, table->size, MC_CHUNK_SIZE, table->hashes, 48, &err), MC_OK);
  assert_same_table(table, got);
  free(got);
  got = NULL;
  assert_int_equal(chunk_table_from_bytes(&got, table->size, MC_CHUNK_SIZE, table->hashes, 32, &err), MC_PROTOCOL);
  assert_int_equal(chunk_table_from_bytes(&got, table->size, MC_CHUNK_SIZE, table->hashes, 47, &err), MC_PROTOCOL);
  assert_int_equal(chunk_table_from_bytes(&got, table->size, 1 << 20, table->hashes, 48, &err), MC_PROTOCOL);
  assert_int_equal(chunk_table_from_bytes(&got, table->size, 0, table->hashes, 48, &err), MC_PROTOCOL);
  assert_int_equal(chunk_table_from_bytes(&got, MC_SIZE_UNKNOWN, MC_CHUNK_SIZE, NULL, 0, &err), MC_PROTOCOL);
  assert_null(got);
  assert_int_equal(chunk_table_from_bytes(&got, 0, MC_CHUNK_SIZE, NULL, 0, &err), MC_OK);
  assert_int_equal(got->count, 0);
  free(got);
  free(table);
}

/* Make the seal right again after the bytes before it were changed. */
static void seal(uint8_t *bytes, size_t size) {
  mc_hash128 check;
  xxh128_of(&check, bytes, size - 16);
  memcpy(bytes + size - 16, check.bytes, 16);
}

static void a_stored_table_reads_back_or_is_corrupt(void **state) {
  (void)state;
  mc_digest digest, other;
  sha256_of(&digest, "object", 6);
  sha256_of(&other, "another", 7);
  mc_chunk_table *table = example(2 * MC_CHUNK_SIZE + 1), *got = NULL;
  size_t size = chunk_table_encoded_size(table);
  assert_int_equal(size, 60 + 48 + 16);
  uint8_t *bytes = malloc(size + 16), *good = malloc(size);
  chunk_table_encode(table, &digest, bytes);
  memcpy(good, bytes, size);
  assert_memory_equal(bytes, "MCCHUNK1", 8);
  assert_int_equal(chunk_table_decode(&got, &digest, bytes, size, NULL), MC_OK);
  assert_same_table(table, got);
  free(got);
  got = NULL;
  assert_int_equal(chunk_table_decode(&got, &other, bytes, size, NULL), MC_CORRUPT);
  for (size_t i = 0; i < size; i++) assert_int_equal(chunk_table_decode(&got, &digest, bytes, i, NULL), MC_CORRUPT);
  assert_int_equal(chunk_table_decode(&got, &digest, bytes, size + 16, NULL), MC_CORRUPT);
  for (size_t i = 0; i < size; i++) {
    bytes[i] ^= 0x10;
    assert_int_equal(chunk_table_decode(&got, &digest, bytes, size, NULL), MC_CORRUPT);
    bytes[i] ^= 0x10;
  }
  /* Well sealed, and still not a table. */
  static const struct {
    size_t at;
    uint64_t value;
    size_t size;
  } lies[] = {{40, 1, 8}, {40, UINT64_MAX, 8}, {48, 1 << 20, 8}, {56, 2, 4}, {56, UINT32_MAX, 4}};
  for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
    memcpy(bytes, good, size);
    uint64_t value = htole64(lies[i].value);
    memcpy(bytes + lies[i].at, &value, lies[i].size);
    seal(bytes, size);
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(chunk_table_decode(&got, &digest, bytes, size, &err), MC_CORRUPT);
    assert_int_equal(err.status, MC_CORRUPT);
  }
  assert_null(got);
  free(bytes);
  free(good);
  free(table);
}

static void keys(void **state) {
  (void)state;
  char key[KEY_SIZE], other[KEY_SIZE];
  key_of_url(key, "abc");
  assert_string_equal(key, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  key_of_url(other, "abd");
  assert_string_not_equal(key, other);
  assert_true(key_is_valid(key));
  assert_false(key_is_valid(""));
  assert_false(key_is_valid("ba7816bf"));
  assert_false(key_is_valid("../../../../../../../../../../../../../../../../../../../../../../"));
  key[3] = 'A';
  assert_false(key_is_valid(key));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sha256_gives_the_standards_answers),
      cmocka_unit_test(xxh128_gives_its_canonical_form),
      cmocka_unit_test(chunks_are_counted),
      cmocka_unit_test(tables_are_made_and_copied),
      cmocka_unit_test(tables_from_a_wire_must_fit_their_object),
      cmocka_unit_test(a_stored_table_reads_back_or_is_corrupt),
      cmocka_unit_test(keys),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
