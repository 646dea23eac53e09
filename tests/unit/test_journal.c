/* The journal of a stage: what was written is read, and whatever is not whole ends it. */
#include "tests/fakes/engine_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "engine/journal.h"

#define HEAD   416
#define RECORD 32

/* A journal in memory: what stage_append was given. */
static uint8_t written[4096];
static size_t size;

static mc_status append(mc_stage *stage, const void *data, size_t length, mc_error *err) {
  (void)stage;
  (void)err;
  assert_true(size + length <= sizeof(written));
  memcpy(written + size, data, length);
  size += length;
  return MC_OK;
}

static const mc_storage_ops ops = {.name = "in-memory", .stage_append = append};
static mc_storage storage = {&ops};
static mc_stage stage = {.storage = &storage};
static const mc_validators validators = {.version = "v7", .etag = "W/\"x\"", .last_modified = -5};

static mc_hash128 hash_of(uint8_t seed) {
  mc_hash128 hash;
  memset(hash.bytes, seed, sizeof(hash.bytes));
  return hash;
}

static void write_journal(uint64_t bytes, const uint32_t *chunks, size_t count) {
  size = 0;
  assert_int_equal(journal_begin(&stage, bytes, &validators, NULL), MC_OK);
  for (size_t i = 0; i < count; i++) {
    mc_hash128 hash = hash_of((uint8_t)chunks[i]);
    assert_int_equal(journal_chunk(&stage, chunks[i], &hash, NULL), MC_OK);
  }
}

static unsigned landed(const void *data, size_t length) {
  struct journal journal;
  unsigned count = 0;
  assert_int_equal(journal_parse(&journal, data, length, NULL), MC_OK);
  for (uint32_t i = 0; i < journal.count; i++) count += journal.landed[i];
  journal_free(&journal);
  return count;
}

static void what_was_written_is_read(void **state) {
  (void)state;
  struct journal journal;
  write_journal(5 * CHUNK - 1, (uint32_t[]){4, 0, 2}, 3);
  assert_int_equal(size, HEAD + 3 * RECORD);
  assert_int_equal(journal_parse(&journal, written, size, NULL), MC_OK);
  assert_int_equal(journal.size, 5 * CHUNK - 1);
  assert_int_equal(journal.count, 5);
  assert_string_equal(journal.validators.version, validators.version);
  assert_string_equal(journal.validators.etag, validators.etag);
  assert_int_equal(journal.validators.last_modified, -5);
  const bool expected[] = {true, false, true, false, true};
  for (uint32_t i = 0; i < 5; i++) {
    mc_hash128 hash = hash_of((uint8_t)i);
    assert_int_equal(journal.landed[i], expected[i]);
    if (expected[i]) assert_true(hash128_equal(&journal.hashes[i], &hash));
  }
  journal_free(&journal);
}

static void the_last_word_on_a_chunk_holds(void **state) {
  (void)state;
  struct journal journal;
  mc_hash128 other = hash_of(99);
  write_journal(2 * CHUNK, (uint32_t[]){1}, 1);
  assert_int_equal(journal_chunk(&stage, 1, &other, NULL), MC_OK);
  assert_int_equal(journal_parse(&journal, written, size, NULL), MC_OK);
  assert_true(hash128_equal(&journal.hashes[1], &other));
  journal_free(&journal);
}

static void wherever_it_is_cut_what_is_whole_counts(void **state) {
  (void)state;
  struct journal journal;
  write_journal(5 * CHUNK, (uint32_t[]){0, 1, 2}, 3);
  for (size_t length = 0; length <= size; length++) {
    if (length < HEAD) {
      assert_int_equal(journal_parse(&journal, written, length, NULL), MC_NOT_FOUND);
    } else {
      assert_int_equal(landed(written, length), (length - HEAD) / RECORD);
    }
  }
}

static void whatever_byte_is_flipped_no_wrong_chunk_counts(void **state) {
  (void)state;
  struct journal journal;
  write_journal(5 * CHUNK, (uint32_t[]){0, 1, 2}, 3);
  for (size_t at = 0; at < size; at++) {
    written[at] ^= 0x10;
    if (at < HEAD) {
      assert_int_equal(journal_parse(&journal, written, size, NULL), MC_NOT_FOUND);
    } else {
      assert_int_equal(landed(written, size), (at - HEAD) / RECORD);
    }
    written[at] ^= 0x10;
  }
}

static void a_chunk_that_can_not_be_ends_it(void **state) {
  (void)state;
  write_journal(2 * CHUNK, (uint32_t[]){0, 2, 1}, 3);
  assert_int_equal(landed(written, size), 1);
}

static void sizes_that_can_not_be_resumed(void **state) {
  (void)state;
  struct journal journal;
  const uint64_t sizes[] = {MC_SIZE_UNKNOWN, MC_SIZE_UNKNOWN - 1, (uint64_t)1 << 63};
  for (size_t i = 0; i < 3; i++) {
    write_journal(sizes[i], NULL, 0);
    assert_int_equal(journal_parse(&journal, written, size, NULL), MC_NOT_FOUND);
  }
  write_journal(0, NULL, 0); /* an empty file has no chunk to resume, and is fine */
  assert_int_equal(landed(written, size), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_was_written_is_read),
      cmocka_unit_test(the_last_word_on_a_chunk_holds),
      cmocka_unit_test(wherever_it_is_cut_what_is_whole_counts),
      cmocka_unit_test(whatever_byte_is_flipped_no_wrong_chunk_counts),
      cmocka_unit_test(a_chunk_that_can_not_be_ends_it),
      cmocka_unit_test(sizes_that_can_not_be_resumed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
