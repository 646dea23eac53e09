/* Downloads whose upstream gives a checksum instead of a digest. */
#include "tests/fakes/engine_fixture.h"

#include <stdio.h>

static const mc_checksum_kind KINDS[] = {MC_CHECKSUM_CRC32C, MC_CHECKSUM_MD5, MC_CHECKSUM_GIT};
static const uint64_t SIZES[] = {0, 1, 20000, CHUNK, CHUNK + 1, 3 * CHUNK - 5};
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/* What happens to contents of each size and kind, which `change` makes special. */
static void each(struct fixture *fixture, void (*change)(struct fake_content *content), mc_status expected) {
  char name[64], url[80];
  open_cache(fixture);
  for (uint32_t i = 0; i < COUNT(KINDS) * COUNT(SIZES); i++) {
    snprintf(name, sizeof(name), "host/%u", i);
    snprintf(url, sizeof(url), "fake://%s", name);
    struct fake_content *content = fake_add(0, name, SIZES[i / COUNT(KINDS)], i + 1);
    content->tells_checksum = KINDS[i % COUNT(KINDS)];
    change(content);
    if (expected) {
      assert_int_equal(try_get(fixture, url, 0, NULL), expected);
    } else {
      get_once(fixture, url, content);
    }
    assert_int_equal(content->bytes, content->size); /* and it isn't read twice */
  }
}

static void tell_early(struct fake_content *content) {
  (void)content;
}

static void tell_late(struct fake_content *content) {
  content->tells_late = true;
}

static void tell_no_size(struct fake_content *content) {
  content->unknown_size = content->no_ranges = true;
}

static void tell_no_size_late(struct fake_content *content) {
  tell_no_size(content);
  tell_late(content);
}

static void lie(struct fake_content *content) {
  content->tells_wrong_checksum = true;
}

static void lie_late(struct fake_content *content) {
  lie(content);
  tell_late(content);
}

static void lie_without_size(struct fake_content *content) {
  lie(content);
  tell_no_size(content);
}

static void lie_beside_a_digest(struct fake_content *content) {
  lie(content);
  content->tells_digest = true;
}

static void the_right_one_is_fine(void **state) {
  each(*state, tell_early, MC_OK);
}

static void one_that_comes_last_is_fine(void **state) {
  each(*state, tell_late, MC_OK);
}

static void of_a_stream_without_size_it_is_checked(void **state) {
  each(*state, tell_no_size, MC_OK);
}

static void of_a_stream_without_size_it_may_come_last(void **state) {
  each(*state, tell_no_size_late, MC_OK);
}

static void a_digest_is_better(void **state) {
  each(*state, lie_beside_a_digest, MC_OK);
}

/* Nothing of it is kept, not even to be resumed: that would be as wrong. */
static void assert_nothing_is_kept(struct fixture *fixture) {
  char folder[256];
  assert_int_equal(stat_of(fixture, "storage_objects"), 0);
  assert_int_equal(names_in(path_in(fixture, folder, "storage/stage")), 0);
}

static void a_wrong_one_is_never_published(void **state) {
  each(*state, lie, MC_CORRUPT);
  assert_nothing_is_kept(*state);
}

static void a_wrong_one_that_comes_last_is_neither(void **state) {
  each(*state, lie_late, MC_CORRUPT);
  assert_nothing_is_kept(*state);
}

static void a_wrong_one_of_a_stream_is_neither(void **state) {
  each(*state, lie_without_size, MC_CORRUPT);
  assert_nothing_is_kept(*state);
}

/* Damage that nothing but the checksum tells. */
static void it_finds_a_flipped_byte(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK, 1);
  mc_error error = MC_ERROR_INIT;
  content->tells_checksum = MC_CHECKSUM_CRC32C;
  content->flips = 1;
  content->flips_chunk = 1;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, &error), MC_CORRUPT);
  assert_string_equal(error.message, "the content does not match the CRC32C that the upstream gave");
  assert_nothing_is_kept(fixture);
  get_once(fixture, URL, content);
}

static void what_is_resumed_counts(void **state) {
  struct fixture *fixture = *state;
  for (unsigned lies = 0; lies < 2; lies++) {
    struct fake_content *content = fake_add(0, lies ? "host/lie" : FILE_NAME, 5 * CHUNK, 1 + lies);
    const char *url = lies ? "fake://host/lie" : URL;
    content->tells_checksum = MC_CHECKSUM_MD5;
    content->tells_wrong_checksum = lies;
    content->fails = 100;
    content->fails_at = 3 * CHUNK;
    content->fails_with = MC_UNAVAILABLE;
    fixture->options.parallelism = 1;
    open_cache(fixture);
    assert_int_equal(try_get(fixture, url, 0, NULL), MC_UNAVAILABLE);
    close_cache(fixture);
    content->fails = 0;
    fake_reset_counts(content);
    open_cache(fixture);
    assert_int_equal(try_get(fixture, url, 0, NULL), lies ? MC_CORRUPT : MC_OK);
    assert_int_equal(content->bytes, 2 * CHUNK);
    close_cache(fixture);
  }
}

static void straight_to_the_caller_it_is_checked(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  static uint8_t buffer[2 * MC_CHUNK_SIZE];
  mc_get_options options = MC_GET_OPTIONS_INIT;
  content->tells_checksum = MC_CHECKSUM_GIT;
  content->tells_wrong_checksum = true;
  options.flags = MC_GET_DIRECT;
  options.buffer = buffer;
  options.buffer_size = sizeof(buffer);
  open_cache(fixture);
  assert_int_equal(mc_get(NULL, fixture->cache, URL, &options, NULL), MC_CORRUPT);
  content->tells_wrong_checksum = false;
  assert_int_equal(mc_get(NULL, fixture->cache, URL, &options, NULL), MC_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(the_right_one_is_fine),
      TEST(one_that_comes_last_is_fine),
      TEST(of_a_stream_without_size_it_is_checked),
      TEST(of_a_stream_without_size_it_may_come_last),
      TEST(a_digest_is_better),
      TEST(a_wrong_one_is_never_published),
      TEST(a_wrong_one_that_comes_last_is_neither),
      TEST(a_wrong_one_of_a_stream_is_neither),
      TEST(it_finds_a_flipped_byte),
      TEST(what_is_resumed_counts),
      TEST(straight_to_the_caller_it_is_checked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
