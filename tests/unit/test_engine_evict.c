/* Eviction as a caller sees it: by bytes, by time, by hand; never what is pinned or in use. */
#include "tests/fakes/engine_fixture.h"

#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine.h"

static bool is_here(struct fixture *fixture, int i) {
  char path[256];
  bool on_disk = access(object_file(fixture, path, small_files[i]), F_OK) == 0;
  assert_int_equal(tier_has(fixture->cache->home, &small_files[i]->digest), on_disk);
  return on_disk;
}

static void open_with(struct fixture *fixture, uint64_t capacity) {
  fixture->options.storage_capacity = capacity;
  fixture->options.high_watermark = 90;
  fixture->options.low_watermark = 50;
  open_cache(fixture);
}

static void the_least_recently_used_goes_first(void **state) {
  struct fixture *fixture = *state;
  add_small_files(10);
  open_with(fixture, 10 * MIB);
  for (int i = 0; i < 9; i++) get_small_file(fixture, i);
  get_small_file(fixture, 0); /* used again */
  assert_int_equal(stat_of(fixture, "evicted_objects_total"), 0);
  get_small_file(fixture, 9); /* above 90 %: down to 50 % */
  assert_int_equal(stat_of(fixture, "storage_bytes"), 5 * MIB);
  assert_int_equal(stat_of(fixture, "evicted_bytes_total"), 5 * MIB);
  const bool stays[] = {true, false, false, false, false, false, true, true, true, true};
  for (int i = 0; i < 10; i++) assert_int_equal(is_here(fixture, i), stays[i]);
}

static void the_order_of_use_outlives_the_process(void **state) {
  struct fixture *fixture = *state;
  add_small_files(4);
  open_with(fixture, 100 * MIB);
  for (int i = 0; i < 3; i++) get_small_file(fixture, i);
  close_cache(fixture);
  fixture->options.storage_capacity = 3 * MIB;
  open_cache(fixture);
  get_small_file(fixture, 3);
  assert_true(is_here(fixture, 3));
  assert_true(stat_of(fixture, "storage_bytes") <= 3 * MIB);
}

static void what_is_pinned_stays(void **state) {
  struct fixture *fixture = *state;
  char url[64];
  add_small_files(8);
  open_with(fixture, 4 * MIB);
  get_small_file(fixture, 0);
  assert_int_equal(try_get(fixture, small_url(url, 0), MC_GET_PIN, NULL), MC_OK);
  for (int i = 1; i < 8; i++) get_small_file(fixture, i);
  assert_true(is_here(fixture, 0));
  close_cache(fixture);
  open_cache(fixture); /* a pin is remembered */
  for (int i = 1; i < 8; i++) get_small_file(fixture, i);
  assert_true(is_here(fixture, 0));
  assert_int_equal(try_get(fixture, small_url(url, 0), MC_GET_UNPIN, NULL), MC_OK);
  for (int i = 1; i < 8; i++) get_small_file(fixture, i);
  assert_false(is_here(fixture, 0));
}

static void what_is_in_use_stays(void **state) {
  struct fixture *fixture = *state;
  char url[64];
  add_small_files(8);
  open_with(fixture, 4 * MIB);
  mc_file *file = get(fixture, small_url(url, 0), small_files[0]);
  for (int i = 1; i < 8; i++) get_small_file(fixture, i);
  assert_true(is_here(fixture, 0));
  assert_is(file, small_files[0]);
  mc_file_release(file);
  for (int i = 1; i < 8; i++) get_small_file(fixture, i);
  assert_false(is_here(fixture, 0));
}

static void what_can_never_fit_evicts_nothing(void **state) {
  struct fixture *fixture = *state;
  char url[64];
  add_small_files(4);
  struct fake_content *large = fake_add(0, "host/large", 3 * MIB, 99);
  open_with(fixture, 4 * MIB);
  mc_file *one = get(fixture, small_url(url, 0), small_files[0]),
          *two = get(fixture, small_url(url, 1), small_files[1]);
  get_small_file(fixture, 2);
  assert_int_equal(try_get(fixture, "fake://host/large", 0, NULL), MC_NO_SPACE);
  assert_true(is_here(fixture, 2)); /* it would have gone for nothing */
  assert_int_equal(large->bytes, 0);
  mc_file_release(one);
  mc_file_release(two);
  get_once(fixture, "fake://host/large", large);
}

/* Its room is not set aside before it is written. */
static void a_small_file_on_a_full_disk_evicts_others(void **state) {
  struct fixture *fixture = *state;
  char disk[256], storage[300];
  add_small_files(4);
  assert_int_equal(mkdir(path_in(fixture, disk, "disk"), 0755), 0);
  if (mount("modelcache", disk, "tmpfs", 0, "size=2500k")) skip(); /* takes root */
  snprintf(storage, sizeof(storage), "faulty:%s/storage", disk);
  fixture->options.storage = storage;
  open_with(fixture, 0);
  for (int i = 0; i < 4; i++) get_small_file(fixture, i);
  assert_int_equal(stat_of(fixture, "storage_bytes"), 2 * MIB);
  close_cache(fixture);
}

static int unmount_and_teardown(void **state) {
  struct fixture *fixture = *state;
  char disk[256];
  close_cache(fixture);
  umount2(path_in(fixture, disk, "disk"), MNT_DETACH);
  return fixture_teardown(state);
}

static void what_was_not_used_for_long_goes(void **state) {
  struct fixture *fixture = *state;
  add_small_files(3);
  fixture->options.storage_ttl_ms = 10000;
  open_with(fixture, 0);
  for (int i = 0; i < 3; i++) get_small_file(fixture, i);
  time_passes(8000);
  get_small_file(fixture, 1);
  time_passes(8000);
  tier_sweep(fixture->cache->home);
  assert_false(is_here(fixture, 0));
  assert_true(is_here(fixture, 1));
  assert_false(is_here(fixture, 2));
  get_small_file(fixture, 0); /* and can be had again */
  assert_int_equal(small_files[0]->opens, 2);
}

static void what_no_url_needs_goes_after_a_while(void **state) {
  struct fixture *fixture = *state;
  char old[256];
  fixture->options.revalidate_after_ms = 0;
  fixture->options.history_ms = 0;
  add_small_files(1);
  open_with(fixture, 0);
  get_small_file(fixture, 0);
  object_file(fixture, old, small_files[0]);
  fake_change(small_files[0], MIB, 77);
  get_small_file(fixture, 0);
  assert_int_equal(access(old, F_OK), 0);
  time_passes(11 * 60 * 1000);
  tier_sweep(fixture->cache->home);
  assert_int_equal(access(old, F_OK), -1);
  assert_true(is_here(fixture, 0));
}

static void what_another_process_put_there_stays(void **state) {
  struct fixture *fixture = *state;
  struct fixture other = *fixture;
  add_small_files(1);
  open_with(fixture, 0);
  open_with(&other, 0);
  get_small_file(&other, 0);
  get_small_file(fixture, 0); /* found there, not downloaded */
  assert_int_equal(small_files[0]->opens, 1);
  time_passes(11 * 60 * 1000);
  tier_sweep(fixture->cache->home); /* the other's record refers to it */
  assert_true(is_here(fixture, 0));
  close_cache(&other);
}

static void evicting_by_hand(void **state) {
  struct fixture *fixture = *state;
  char url[64];
  uint64_t bytes;
  add_small_files(2);
  struct fake_content *same = fake_add(0, "host/same", MIB, 1);
  open_with(fixture, 0);
  get_small_file(fixture, 0);
  get_once(fixture, "fake://host/same", same);
  assert_int_equal(mc_evict(&bytes, fixture->cache, small_url(url, 0), NULL), MC_OK);
  assert_int_equal(bytes, 0); /* another URL needs the object */
  assert_true(is_here(fixture, 0));
  assert_int_equal(mc_evict(&bytes, fixture->cache, "fake://host/same", NULL), MC_OK);
  assert_int_equal(bytes, MIB);
  assert_false(is_here(fixture, 0));
  assert_int_equal(mc_evict(&bytes, fixture->cache, small_url(url, 0), NULL), MC_NOT_FOUND);
  close_cache(fixture);
  open_cache(fixture);
  assert_int_equal(try_get(fixture, small_url(url, 0), MC_GET_CACHED, NULL), MC_NOT_FOUND);
}

static void evicting_what_is_in_use_waits_for_its_readers(void **state) {
  struct fixture *fixture = *state;
  char url[64], path[256];
  uint64_t bytes;
  add_small_files(1);
  open_with(fixture, 0);
  mc_file *file = get(fixture, small_url(url, 0), small_files[0]);
  assert_int_equal(mc_evict(&bytes, fixture->cache, small_url(url, 0), NULL), MC_OK);
  assert_int_equal(bytes, MIB);
  assert_file_is(object_file(fixture, path, small_files[0]), small_files[0]);
  assert_int_equal(try_get(fixture, small_url(url, 0), MC_GET_CACHED, NULL), MC_NOT_FOUND);
  mc_file_release(file);
  assert_int_equal(access(path, F_OK), -1);
}

static void evicting_and_getting_again_at_once(void **state) {
  struct fixture *fixture = *state;
  char url[64];
  add_small_files(1);
  open_with(fixture, 0);
  mc_file *file = get(fixture, small_url(url, 0), small_files[0]);
  assert_int_equal(mc_evict(NULL, fixture->cache, small_url(url, 0), NULL), MC_OK);
  mc_file *again = get(fixture, small_url(url, 0), small_files[0]);
  mc_file_release(file);
  mc_file_release(again);
  assert_true(is_here(fixture, 0)); /* what was doomed has been brought in again */
  get_small_file(fixture, 0);
}

static void evicting_what_is_being_downloaded_is_refused(void **state) {
  struct fixture *fixture = *state;
  struct pending pending;
  char url[64];
  fixture->options.revalidate_after_ms = 0;
  add_small_files(1);
  open_with(fixture, 0);
  get_small_file(fixture, 0);
  fake_change(small_files[0], MIB, 5);
  small_files[0]->stalls = true;
  start_get(&pending, fixture, small_url(url, 0), NULL);
  fake_await(&small_files[0]->stalled, 1);
  assert_int_equal(mc_evict(NULL, fixture->cache, url, NULL), MC_BUSY);
  fake_release(small_files[0]);
  assert_int_equal(finish_get(&pending), MC_OK);
  mc_file_release(pending.file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(the_least_recently_used_goes_first),
      TEST(the_order_of_use_outlives_the_process),
      TEST(what_is_pinned_stays),
      TEST(what_is_in_use_stays),
      TEST(what_can_never_fit_evicts_nothing),
      cmocka_unit_test_setup_teardown(a_small_file_on_a_full_disk_evicts_others, fixture_setup, unmount_and_teardown),
      TEST(what_was_not_used_for_long_goes),
      TEST(what_no_url_needs_goes_after_a_while),
      TEST(what_another_process_put_there_stays),
      TEST(evicting_by_hand),
      TEST(evicting_what_is_in_use_waits_for_its_readers),
      TEST(evicting_and_getting_again_at_once),
      TEST(evicting_what_is_being_downloaded_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
