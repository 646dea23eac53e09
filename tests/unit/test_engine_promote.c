/* Promotion: what is got again and again comes from memory; what a scan touches does not. */
#include "tests/fakes/engine_fixture.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"

static void open_with_memory(struct fixture *fixture, uint64_t capacity) {
  fixture->options.memory_capacity = capacity;
  fixture->options.memory_ttl_ms = 1000;
  open_cache(fixture);
}

static bool in_memory(struct fixture *fixture, const struct fake_content *content) {
  return tier_has(fixture->cache->tiers[0], &content->digest);
}

static bool is_from_memory(mc_file *file) {
  char link[64], target[256] = "";
  snprintf(link, sizeof(link), "/proc/self/fd/%d", mc_file_fd(file));
  assert_true(readlink(link, target, sizeof(target) - 1) > 0);
  return strstr(target, "memfd:") != NULL;
}

static void the_second_get_promotes(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK + 3, 1);
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  assert_false(in_memory(fixture, content));
  get_once(fixture, URL, content);
  await_stat(fixture, "promotions_total", 1);
  mc_file *file = get(fixture, URL, content);
  assert_true(is_from_memory(file));
  assert_true(mc_file_was_cached(file));
  assert_int_equal(stat_of(fixture, "memory_objects"), 1);
  assert_int_equal(stat_of(fixture, "memory_bytes"), content->size);
  assert_int_equal(stat_of(fixture, "memory_reserved_bytes"), 0);
  mc_file_release(file);
  assert_int_equal(content->opens, 1);
}

static void a_path_is_the_storages_still(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  char path[256];
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  get_once(fixture, URL, content);
  await_stat(fixture, "promotions_total", 1);
  mc_file *file = get(fixture, URL, content), *other = get(fixture, URL, content);
  assert_true(is_from_memory(file));
  const char *at = mc_file_path(file);
  assert_non_null(at);
  assert_string_equal(at, object_file(fixture, path, content));
  assert_ptr_equal(mc_file_path(file), at); /* the same for the file's whole life */
  /* The path is promised while the file is held: evicting waits. */
  assert_int_equal(mc_evict(NULL, fixture->cache, URL, NULL), MC_OK);
  assert_file_is(at, content);
  mc_file_release(other);
  close_cache(fixture);
  assert_file_is(at, content); /* also when the cache is closed */
  mc_file_release(file);
  assert_int_equal(access(path, F_OK), -1);
}

static void a_path_whose_file_was_written_to_is_none(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  char path[256];
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  get_once(fixture, URL, content);
  await_stat(fixture, "promotions_total", 1);
  write_byte(object_file(fixture, path, content), 7, 1);
  mc_file *file = get(fixture, URL, content); /* from memory: true still */
  assert_true(is_from_memory(file));
  assert_null(mc_file_path(file));
  mc_file_release(file);
}

static void a_scan_promotes_nothing(void **state) {
  struct fixture *fixture = *state;
  char url[64], name[64];
  struct fake_content *contents[16];
  open_with_memory(fixture, 64 * MIB);
  for (int pass = 0; pass < 2; pass++) {
    for (int i = 0; i < 16; i++) {
      snprintf(name, sizeof(name), "host/%d", i);
      snprintf(url, sizeof(url), "fake://host/%d", i);
      if (pass == 0) contents[i] = fake_add(0, name, 1000, (uint32_t)i + 1);
      get_once(fixture, url, contents[i]);
    }
    time_passes(2000); /* the next pass comes after the memory's time */
  }
  struct fake_content *hot = fake_add(0, "host/hot", 1000, 99);
  get_once(fixture, "fake://host/hot", hot);
  get_once(fixture, "fake://host/hot", hot);
  await_stat(fixture, "promotions_total", 1);
  assert_true(in_memory(fixture, hot));
  for (int i = 0; i < 16; i++) assert_false(in_memory(fixture, contents[i]));
}

static void a_herd_counts_as_one_get(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  struct pending herd[8];
  content->stalls = true;
  open_with_memory(fixture, 64 * MIB);
  for (int i = 0; i < 8; i++) start_get(&herd[i], fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  fake_release(content);
  for (int i = 0; i < 8; i++) {
    assert_int_equal(finish_get(&herd[i]), MC_OK);
    mc_file_release(herd[i].file);
  }
  close_cache(fixture); /* after which a promotion would have been counted */
  open_cache(fixture);
  assert_int_equal(stat_of(fixture, "promotions_total"), 0);
}

static void what_takes_too_large_a_share_stays_out(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *large = fake_add(0, FILE_NAME, 5 * MIB, 1), *small = fake_add(0, "host/small", MIB, 2);
  open_with_memory(fixture, 8 * MIB);
  for (int i = 0; i < 3; i++) get_once(fixture, URL, large);
  for (int i = 0; i < 2; i++) get_once(fixture, "fake://host/small", small);
  await_stat(fixture, "promotions_total", 1);
  assert_false(in_memory(fixture, large));
  assert_true(in_memory(fixture, small));
}

static void memory_makes_room_by_its_own_budget(void **state) {
  struct fixture *fixture = *state;
  char url[64], name[64];
  struct fake_content *contents[6];
  open_with_memory(fixture, 4 * MIB);
  for (int i = 0; i < 6; i++) {
    snprintf(name, sizeof(name), "host/%d", i);
    snprintf(url, sizeof(url), "fake://host/%d", i);
    contents[i] = fake_add(0, name, MIB, (uint32_t)i + 1);
    for (int k = 0; k < 2 + i; k++) get_once(fixture, url, contents[i]); /* more often than those before */
    await_stat(fixture, "promotions_total", (uint64_t)i + 1);
    assert_true(stat_of(fixture, "memory_bytes") <= 4 * MIB);
  }
  assert_true(in_memory(fixture, contents[5]));
  assert_false(in_memory(fixture, contents[0]));
  assert_int_equal(stat_of(fixture, "storage_objects"), 6); /* which is another budget */
  time_passes(2000);
  tier_sweep(fixture->cache->tiers[0]);
  assert_int_equal(stat_of(fixture, "memory_objects"), 0);
  assert_int_equal(stat_of(fixture, "storage_objects"), 6);
}

/* Get the object of this number so many times; those that are new have 1 MiB. */
static struct fake_content *get_number(struct fixture *fixture, struct fake_content *content, int number, int times) {
  char url[64], name[64];
  snprintf(name, sizeof(name), "host/n%d", number);
  snprintf(url, sizeof(url), "fake://host/n%d", number);
  if (!content) content = fake_add(0, name, MIB, (uint32_t)number + 1);
  for (int i = 0; i < times; i++) get_once(fixture, url, content);
  return content;
}

/* Four objects fill the memory, each got five times. */
static void fill_memory(struct fixture *fixture, struct fake_content *hot[4]) {
  fixture->options.memory_capacity = 4 * MIB + MIB / 2;
  fixture->options.memory_ttl_ms = 3600 * 1000; /* however slow the machine is */
  open_cache(fixture);
  for (int i = 0; i < 4; i++) {
    hot[i] = get_number(fixture, NULL, i, 5);
    await_stat(fixture, "promotions_total", (uint64_t)i + 1);
  }
}

static void a_scan_does_not_flush_what_is_hot(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *hot[4];
  fill_memory(fixture, hot);
  for (int i = 4; i < 44; i++) get_number(fixture, NULL, i, 2); /* ten times the memory, each twice */
  assert_int_equal(stat_of(fixture, "promotions_refused_total"), 40);
  assert_int_equal(stat_of(fixture, "promotions_total"), 4);
  for (int i = 0; i < 4; i++) assert_true(in_memory(fixture, hot[i]));
}

static void what_becomes_hot_gets_in(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *hot[4];
  fill_memory(fixture, hot);
  get_number(fixture, hot[0], 0, 1); /* the last one that would go */
  struct fake_content *next = get_number(fixture, NULL, 4, 5);
  assert_int_equal(stat_of(fixture, "promotions_total"), 4);
  get_number(fixture, next, 4, 1);
  await_stat(fixture, "promotions_total", 5);
  assert_true(in_memory(fixture, next));
  assert_true(in_memory(fixture, hot[0]));
  assert_false(in_memory(fixture, hot[1]));
}

static void huge_pages_change_nothing_else(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK + 3, 1);
  fixture->options.memory_huge_pages = true;
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  get_once(fixture, URL, content);
  await_stat(fixture, "promotions_total", 1);
  mc_file *file = get(fixture, URL, content);
  assert_true(is_from_memory(file));
  assert_int_equal(mc_file_size(file), content->size);
  mc_file_release(file);
}

static void what_was_hot_once_is_forgotten(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *hot[4];
  fill_memory(fixture, hot);
  for (int i = 0; i < 2; i++) time_passes(fixture->options.memory_ttl_ms + 1);
  struct fake_content *next = get_number(fixture, NULL, 4, 2); /* which is more than a quarter of five */
  await_stat(fixture, "promotions_total", 5);
  assert_true(in_memory(fixture, next));
}

static void only_time_takes_copies_out_of_memory(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, MIB, 1);
  open_with_memory(fixture, 8 * MIB);
  close_cache(fixture);
  fixture->options.memory_ttl_ms = 3600 * 1000;
  open_cache(fixture);
  get_once(fixture, URL, content);
  get_once(fixture, URL, content);
  await_stat(fixture, "promotions_total", 1);
  time_passes(11 * 60 * 1000); /* no entry refers to a copy: that is no reason to drop it */
  tier_sweep(fixture->cache->tiers[0]);
  assert_true(in_memory(fixture, content));
}

static void damage_found_while_copying_is_mended(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK, 1);
  char path[256];
  fixture->options.verify = MC_VERIFY_NEVER; /* so that the copy is the first who looks */
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  write_byte(object_file(fixture, path, content), CHUNK + 9, 1);
  mc_file *file = NULL;
  assert_int_equal(mc_get(&file, fixture->cache, URL, NULL, NULL), MC_OK);
  mc_file_release(file);
  await_stat(fixture, "corrupt_chunks_total", 1);
  assert_int_equal(stat_of(fixture, "promotions_total"), 0);
  assert_false(in_memory(fixture, content));
  fake_reset_counts(content);
  get_once(fixture, URL, content); /* one chunk comes again */
  assert_int_equal(content->bytes, CHUNK);
}

static void a_promotion_never_keeps_a_caller_waiting(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  fake_storage_hold(FAKE_STAGE_CREATE, true);
  get_once(fixture, URL, content);
  fake_storage_await_held(1); /* the copy is at its beginning */
  for (int i = 0; i < 5; i++) get_once(fixture, URL, content);
  assert_false(in_memory(fixture, content));
  fake_storage_hold(FAKE_STAGE_CREATE, false);
  await_stat(fixture, "promotions_total", 1);
  assert_int_equal(fake_storage_calls(FAKE_STAGE_CREATE), 2); /* one download, one promotion at a time */
}

static void closing_ends_a_promotion(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  fake_storage_hold(FAKE_STAGE_CREATE, true);
  get_once(fixture, URL, content);
  fake_storage_await_held(1);
  fake_storage_hold(FAKE_STAGE_CREATE, false);
  close_cache(fixture); /* ends, whatever the promotion does */
}

static void no_room_is_no_error(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  fake_storage_fail(FAKE_STAGE_CREATE, 1, 1, MC_NO_SPACE);
  get_once(fixture, URL, content);
  while (fake_storage_calls(FAKE_STAGE_CREATE) < 2) continue;
  close_cache(fixture);
  open_cache(fixture);
  assert_int_equal(stat_of(fixture, "memory_reserved_bytes"), 0);
  get_once(fixture, URL, content);
  get_once(fixture, URL, content);
  await_stat(fixture, "promotions_total", 1);
}

static void evicting_while_it_is_copied_leaves_no_copy(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  fake_storage_hold(FAKE_STAGE_CREATE, true);
  get_once(fixture, URL, content);
  fake_storage_await_held(1);
  assert_int_equal(mc_evict(NULL, fixture->cache, URL, NULL), MC_OK);
  struct tier *memory = tier_acquire(fixture->cache->tiers[0]);
  unsigned removed = fake_storage_calls(FAKE_REMOVE_OBJECT);
  fake_storage_hold(FAKE_STAGE_CREATE, false);
  while (fake_storage_calls(FAKE_REMOVE_OBJECT) < removed + 2) sched_yield(); /* the copy, and what it was made of */
  assert_false(tier_has(memory, &content->digest));
  tier_release(memory);
  assert_int_equal(stat_of(fixture, "promotions_total"), 0);
}

static void evicting_takes_the_copy_too(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_with_memory(fixture, 64 * MIB);
  get_once(fixture, URL, content);
  get_once(fixture, URL, content);
  await_stat(fixture, "promotions_total", 1);
  assert_int_equal(mc_evict(NULL, fixture->cache, URL, NULL), MC_OK);
  assert_false(in_memory(fixture, content));
  assert_false(get_once(fixture, URL, content));
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(the_second_get_promotes),
      TEST(a_path_is_the_storages_still),
      TEST(a_path_whose_file_was_written_to_is_none),
      TEST(a_scan_promotes_nothing),
      TEST(a_herd_counts_as_one_get),
      TEST(what_takes_too_large_a_share_stays_out),
      TEST(memory_makes_room_by_its_own_budget),
      TEST(a_scan_does_not_flush_what_is_hot),
      TEST(what_becomes_hot_gets_in),
      TEST(what_was_hot_once_is_forgotten),
      TEST(huge_pages_change_nothing_else),
      TEST(only_time_takes_copies_out_of_memory),
      TEST(damage_found_while_copying_is_mended),
      TEST(a_promotion_never_keeps_a_caller_waiting),
      TEST(closing_ends_a_promotion),
      TEST(no_room_is_no_error),
      TEST(evicting_while_it_is_copied_leaves_no_copy),
      TEST(evicting_takes_the_copy_too),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
