/* Contents of every size around the chunk's, told or not told, with and without ranges. */
#include "tests/fakes/engine_fixture.h"

#include <stdio.h>

static const uint64_t sizes[] = {0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 1};
#define SIZES (sizeof(sizes) / sizeof(*sizes))

enum { UNKNOWN = 1, NO_RANGES = 2, CHUNKS = 4, LATE = 8, DIGEST = 16, PRETENDS = 32 };

/* Every size, also by a cache that was opened again. */
static void check_sizes(struct fixture *fixture, unsigned how) {
  struct fake_content *contents[SIZES];
  char name[64], url[64];
  open_cache(fixture);
  for (size_t i = 0; i < SIZES; i++) {
    snprintf(name, sizeof(name), "host/%zu", i);
    snprintf(url, sizeof(url), "fake://host/%zu", i);
    struct fake_content *content = contents[i] = fake_add(0, name, sizes[i], (uint32_t)i + 1);
    content->unknown_size = how & UNKNOWN;
    content->no_ranges = how & NO_RANGES;
    content->tells_chunks = how & CHUNKS;
    content->tells_late = how & LATE;
    content->tells_digest = how & DIGEST;
    content->pretends_ranges = how & PRETENDS;
    mc_file *file = get(fixture, url, content);
    const mc_chunk_table *table = mc_file_chunks(file);
    assert_int_equal(table->size, sizes[i]);
    for (uint32_t k = 0; k < table->count; k++) assert_true(hash128_equal(&table->hashes[k], &content->hashes[k]));
    assert_true(content->bytes == sizes[i] || how & PRETENDS);
    mc_file_release(file);
  }
  assert_int_equal(stat_of(fixture, "storage_reserved_bytes"), 0);
  close_cache(fixture);
  open_cache(fixture);
  for (size_t i = 0; i < SIZES; i++) {
    snprintf(url, sizeof(url), "fake://host/%zu", i);
    assert_true(get_once(fixture, url, contents[i]));
  }
}

static void known(void **state) {
  check_sizes(*state, 0);
}

static void known_without_ranges(void **state) {
  check_sizes(*state, NO_RANGES);
}

static void known_with_ranges_that_do_not_work(void **state) {
  check_sizes(*state, PRETENDS);
}

static void unknown(void **state) {
  check_sizes(*state, UNKNOWN);
}

static void unknown_without_ranges(void **state) {
  check_sizes(*state, UNKNOWN | NO_RANGES);
}

static void with_chunks_and_digest(void **state) {
  check_sizes(*state, CHUNKS | DIGEST);
}

static void with_chunks_and_digest_at_the_end(void **state) {
  check_sizes(*state, CHUNKS | DIGEST | LATE | UNKNOWN);
}

static void in_memory_alone(void **state) {
  struct fixture *fixture = *state;
  fixture->options.storage = "none";
  fixture->options.memory_capacity = 64 * MIB;
  open_cache(fixture);
  for (unsigned how = 0; how < 2; how++) {
    for (size_t i = 0; i < SIZES; i++) {
      char name[64], url[64];
      snprintf(name, sizeof(name), "host/%u-%zu", how, i);
      snprintf(url, sizeof(url), "fake://host/%u-%zu", how, i);
      struct fake_content *content = fake_add(0, name, sizes[i], (uint32_t)i + 10 * how + 1);
      content->unknown_size = how & UNKNOWN;
      get_once(fixture, url, content);
      assert_true(get_once(fixture, url, content));
    }
  }
}

static void an_unknown_size_keeps_to_the_capacity(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *small = fake_add(0, "host/small", MIB, 1), *large = fake_add(0, FILE_NAME, 5 * MIB, 2);
  small->unknown_size = large->unknown_size = true;
  fixture->options.storage_capacity = 4 * MIB;
  open_cache(fixture);
  get_once(fixture, "fake://host/small", small);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_NO_SPACE);
  assert_true(large->bytes <= 5 * MIB);
  assert_int_equal(stat_of(fixture, "storage_reserved_bytes"), 0);
  get_once(fixture, "fake://host/small", small);
}

static void a_size_that_is_claimed_allocates_nothing(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 1, 1);
  uint8_t buffer[64];
  char path[256];
  mc_get_options options = MC_GET_OPTIONS_INIT;
  content->claims_size = (uint64_t)1 << 49; /* its table would have 2 GiB */
  open_cache(fixture);
  options.flags = MC_GET_DIRECT;
  options.path = path_in(fixture, path, "out");
  content->fails = 1000;
  content->fails_with = MC_UNAVAILABLE;
  assert_int_equal(mc_get(NULL, fixture->cache, URL, &options, NULL), MC_UNAVAILABLE);
  assert_int_equal(mc_get(NULL, fixture->cache, URL, NULL, NULL), MC_NO_SPACE); /* posix: no disk is so large */
  content->claims_size = UINT64_MAX - 1;
  assert_int_equal(mc_get(NULL, fixture->cache, URL, &options, NULL), MC_RESOURCE_EXHAUSTED);
  options.path = NULL;
  options.buffer = buffer;
  options.buffer_size = sizeof(buffer);
  assert_int_equal(mc_get(NULL, fixture->cache, URL, &options, NULL), MC_RESOURCE_EXHAUSTED);
  content->claims_size = 10ULL << 30; /* and one byte of body */
  content->fails = 0;
  assert_int_equal(try_get(fixture, URL, 0, NULL) == MC_OK, false);
  assert_int_equal(stat_of(fixture, "storage_reserved_bytes"), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(known),
      TEST(known_without_ranges),
      TEST(known_with_ranges_that_do_not_work),
      TEST(unknown),
      TEST(unknown_without_ranges),
      TEST(with_chunks_and_digest),
      TEST(with_chunks_and_digest_at_the_end),
      TEST(in_memory_alone),
      TEST(an_unknown_size_keeps_to_the_capacity),
      TEST(a_size_that_is_claimed_allocates_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
