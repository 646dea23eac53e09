/* What several members of one coordination know of each other's entries and objects. */
#include "tests/fakes/engine_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/news.h"
#include "tests/fakes/fake_hub.h"

static struct fixture a, b; /* two members over one folder */

static void get_with(struct fixture *fixture, int i, uint32_t flags) {
  char url[64];
  assert_int_equal(try_get(fixture, small_url(url, i), flags, NULL), MC_OK);
}

static bool on_disk(int i) {
  char path[256];
  return access(object_file(&a, path, small_files[i]), F_OK) == 0;
}

static bool counts(struct fixture *fixture, int i) {
  return tier_has(fixture->cache->home, &small_files[i]->digest);
}

/* What jobs do has no event: it is looked at again and again. */
#define AWAIT(condition)                                                                                               \
  for (int64_t until = clock_ns() + 60 * NS_PER_S; !(condition); sched_yield()) assert_true(clock_ns() < until)

static bool is_settled(struct fixture *fixture) {
  return !news_in_doubt(fixture->cache->news) && tier_knows(fixture->cache->home);
}

/* Without waiting for what a member does first. */
static void join(struct fixture *member, struct fixture *fixture, uint64_t capacity) {
  *member = *fixture;
  member->options.coordination = "hub";
  member->options.coordination_backends = fake_hubs;
  member->options.storage_capacity = capacity;
  member->options.high_watermark = 100;
  member->options.low_watermark = 100;
  member->options.history_ms = 0; /* what is not needed any more goes after ten minutes */
  open_cache(member);
}

static void join_both(struct fixture *fixture, uint64_t capacity) {
  join(&a, fixture, capacity);
  join(&b, fixture, capacity);
  AWAIT(is_settled(&a) && is_settled(&b) && fake_hub_is_filled());
}

static int setup(void **state) {
  a = b = (struct fixture){.cache = NULL};
  return fixture_setup(state);
}

static int teardown(void **state) {
  fake_storage_hold(FAKE_RECORD_SCAN, false);
  close_cache(&a);
  close_cache(&b);
  fake_hub_reset();
  return fixture_teardown(state);
}

static mc_entry *known(struct fixture *fixture, int i) {
  char url[64], key[KEY_SIZE];
  mc_entry *entry = NULL;
  mc_coordination *hub = fixture->cache->coordination;
  key_of(key, small_url(url, i));
  if (hub->ops->lookup(hub, key, &entry, NULL)) return NULL;
  return entry;
}

static bool is_known_as_now(struct fixture *fixture, int i) {
  mc_entry *entry = known(fixture, i);
  bool is = entry && entry->has_digest && mc_digest_equal(&entry->digest, &small_files[i]->digest);
  free(entry);
  return is;
}

static void regress(int i, const mc_entry *entry) {
  char url[64], key[KEY_SIZE];
  key_of(key, small_url(url, i));
  fake_hub_regress(key, entry);
}

/* Another version, which `fixture` gets. Returns the entry of before. */
static mc_entry *replace(struct fixture *fixture, int i, uint32_t seed) {
  mc_entry *before = known(fixture, i);
  assert_non_null(before);
  fake_change(small_files[i], MIB, seed);
  get_with(fixture, i, MC_GET_REVALIDATE);
  return before;
}

/* ---- what others need ---- */

static void what_another_pins_stays(void **state) {
  add_small_files(10);
  join_both(*state, 4 * MIB);
  get_with(&b, 0, MC_GET_PIN);
  AWAIT(counts(&a, 0));
  for (int i = 1; i < 8; i++) get_small_file(&a, i);
  assert_true(on_disk(0));
  get_with(&b, 0, MC_GET_UNPIN);
  for (int i = 1; i < 8; i++) get_small_file(&a, i);
  assert_false(on_disk(0));
}

static void what_another_does_not_need_any_more_goes(void **state) {
  char old[256];
  add_small_files(2);
  join_both(*state, 0);
  get_small_file(&a, 0);
  get_small_file(&a, 1);
  object_file(&a, old, small_files[0]);
  free(replace(&b, 0, 77));
  AWAIT(counts(&a, 0));
  time_passes(11 * 60 * 1000);
  tier_sweep(a.cache->home);
  assert_int_equal(access(old, F_OK), -1);
  assert_true(on_disk(0));
  assert_true(on_disk(1));
}

/* Both find the same record, and both publish it: it is one entry all the same. */
static void an_entry_that_is_told_twice_counts_once(void **state) {
  char url[64], old[256];
  add_small_files(1);
  join_both(*state, 0);
  get_small_file(&a, 0);
  fake_hub_find(true);
  get_small_file(&a, 0);
  get_small_file(&b, 0);
  AWAIT(is_settled(&a) && is_settled(&b));
  object_file(&a, old, small_files[0]);
  free(replace(&b, 0, 78));
  time_passes(11 * 60 * 1000);
  tier_sweep(a.cache->home);
  assert_int_equal(access(old, F_OK), -1);
  assert_int_equal(mc_evict(NULL, a.cache, small_url(url, 0), NULL), MC_OK);
  assert_false(tier_is_referred(b.cache->home, &small_files[0]->digest));
}

static void nothing_goes_before_it_is_known_what_is_needed(void **state) {
  struct fixture *fixture = *state;
  add_small_files(6);
  join_both(fixture, 0);
  get_with(&a, 0, MC_GET_PIN);
  get_small_file(&a, 1);
  close_cache(&a);
  close_cache(&b);
  fake_hub_lose();
  fake_storage_hold(FAKE_RECORD_SCAN, true);
  join(&a, fixture, 3 * MIB);
  fake_storage_await_held(1);
  get_small_file(&a, 2); /* for which there is room */
  mc_error error = MC_ERROR_INIT;
  assert_int_equal(try_get(&a, "fake://host/3", 0, &error), MC_NO_SPACE);
  assert_non_null(strstr(error.message, "not known yet"));
  time_passes(11 * 60 * 1000);
  tier_sweep(a.cache->home);
  for (int i = 0; i < 3; i++) assert_true(on_disk(i));
  fake_storage_hold(FAKE_RECORD_SCAN, false);
  AWAIT(tier_knows(a.cache->home)); /* by the records, without the coordination */
  for (int i = 3; i < 6; i++) get_small_file(&a, i);
  assert_true(on_disk(0));
  assert_false(on_disk(1));
}

/* ---- what was lost ---- */

static void in_doubt_the_newer_record_is_given(void **state) {
  char url[64], key[KEY_SIZE];
  mc_entry *entry;
  add_small_files(2);
  join_both(*state, 0);
  for (int i = 0; i < 2; i++) get_small_file(&a, i);
  for (int i = 0; i < 2; i++) {
    entry = replace(&a, i, 80 + (uint32_t)i);
    regress(i, entry);
    free(entry);
    assert_false(is_known_as_now(&b, i));
  }
  fake_storage_hold(FAKE_RECORD_SCAN, true);
  fake_hub_lose();
  fake_hub_find(false);
  fake_storage_await_held(2);
  key_of(key, small_url(url, 0));
  assert_int_equal(entry_load(&entry, b.cache, key, NULL), MC_OK);
  assert_true(mc_digest_equal(&entry->digest, &small_files[0]->digest));
  free(entry);
  assert_true(is_known_as_now(&a, 0)); /* it has been published */
  assert_false(is_known_as_now(&a, 1));
  fake_storage_hold(FAKE_RECORD_SCAN, false);
  AWAIT(is_settled(&a) && is_settled(&b));
  assert_true(is_known_as_now(&a, 1));
}

static unsigned listed_by(struct fixture *fixture);

static void what_is_lost_comes_back_from_the_records(void **state) {
  add_small_files(5);
  join_both(*state, 0);
  for (int i = 0; i < 5; i++) get_small_file(&a, i);
  fake_hub_lose();
  get_small_file(&b, 3); /* as it's stored */
  fake_storage_hold(FAKE_RECORD_SCAN, true);
  fake_hub_find(true);
  assert_false(fake_hub_is_filled());
  fake_storage_hold(FAKE_RECORD_SCAN, false);
  AWAIT(fake_hub_is_filled() && is_settled(&a) && is_settled(&b));
  assert_int_equal(listed_by(&b), 5);
  time_passes(11 * 60 * 1000);
  tier_sweep(a.cache->home);
  tier_sweep(b.cache->home);
  for (int i = 0; i < 5; i++) {
    assert_true(on_disk(i));
    assert_int_equal(small_files[i]->opens, 1);
  }
}

static void what_is_got_without_the_coordination_is_known_later(void **state) {
  add_small_files(1);
  join_both(*state, 0);
  fake_hub_lose();
  get_small_file(&a, 0);
  time_passes(11 * 60 * 1000);
  tier_sweep(a.cache->home);
  assert_true(on_disk(0));
  fake_hub_find(false);
  AWAIT(is_settled(&a) && is_settled(&b));
  assert_true(is_known_as_now(&b, 0));
}

static void a_gap_in_the_middle_begins_anew(void **state) {
  add_small_files(4);
  join_both(*state, 0);
  for (int i = 0; i < 4; i++) get_small_file(&a, i);
  fake_storage_hold(FAKE_RECORD_SCAN, true);
  fake_hub_find(false);
  fake_storage_await_held(2);
  fake_hub_find(true); /* what has been listed is not true any more */
  assert_true(news_in_doubt(a.cache->news));
  fake_storage_hold(FAKE_RECORD_SCAN, false);
  AWAIT(fake_hub_is_filled() && is_settled(&a) && is_settled(&b));
  assert_int_equal(listed_by(&a), 4);
}

/* Nothing that is told while entries are listed is lost, or taken back by what was listed before. */
static void what_is_told_meanwhile_holds(void **state) {
  char url[64], old[256];
  add_small_files(3);
  join_both(*state, 0);
  for (int i = 0; i < 3; i++) get_small_file(&a, i);
  object_file(&a, old, small_files[1]);
  fake_storage_hold(FAKE_RECORD_SCAN, true);
  fake_hub_find(false);
  fake_storage_await_held(2);
  assert_int_equal(mc_evict(NULL, b.cache, small_url(url, 0), NULL), MC_OK);
  free(replace(&b, 1, 90));
  get_with(&b, 2, MC_GET_PIN);
  fake_storage_hold(FAKE_RECORD_SCAN, false);
  AWAIT(is_settled(&a) && is_settled(&b));
  assert_null(known(&a, 0));
  assert_false(tier_is_referred(a.cache->home, &small_files[0]->digest));
  assert_true(tier_is_referred(a.cache->home, &small_files[1]->digest));
  time_passes(11 * 60 * 1000);
  tier_sweep(a.cache->home);
  assert_int_equal(access(old, F_OK), -1);
  assert_true(on_disk(2));
}

static void count_change(void *user, const mc_entry *entry) {
  atomic_uint *heard = user;
  if (!entry) atomic_fetch_add(&heard[1], 1);
  if (entry && entry->has_digest) atomic_fetch_add(&heard[0], 1);
}

static void watchers_hear_of_others_and_of_what_they_missed(void **state) {
  mc_watcher *watcher;
  char url[64];
  atomic_uint heard[2] = {0}; /* new versions; that something may have been missed */
  add_small_files(3);
  join_both(*state, 0);
  get_small_file(&a, 0);
  assert_int_equal(mc_watch(&watcher, b.cache, "", count_change, heard, NULL), MC_OK);
  get_small_file(&a, 1);
  assert_int_equal(atomic_load(&heard[0]), 1);
  fake_hub_lose();
  get_small_file(&a, 2);
  fake_hub_find(false);
  AWAIT(is_settled(&a) && is_settled(&b));
  AWAIT(atomic_load(&heard[0]) == 2 && atomic_load(&heard[1]) == 1);
  assert_int_equal(mc_evict(NULL, a.cache, small_url(url, 0), NULL), MC_OK);
  mc_watch_end(watcher);
}

static void a_failure_is_tried_again(void **state) {
  add_small_files(2);
  join_both(*state, 0);
  for (int i = 0; i < 2; i++) get_small_file(&a, i);
  fake_storage_fail(FAKE_RECORD_SCAN, 1, 2, MC_IO);
  fake_hub_find(true);
  AWAIT(fake_hub_is_filled() && is_settled(&a) && is_settled(&b));
  assert_int_equal(listed_by(&a), 2);
}

/* Neither by who does not ask for anything, and so does not see that he hears nothing. */
static void what_is_got_in_an_outage_is_not_taken_for_unneeded(void **state) {
  add_small_files(1);
  join_both(*state, 0);
  fake_hub_lose();
  AWAIT(news_in_doubt(a.cache->news));
  get_small_file(&b, 0);
  tier_look(a.cache->home, &small_files[0]->digest);
  assert_true(counts(&a, 0));
  time_passes((int64_t)11 * 60 * 1000);
  tier_sweep(a.cache->home);
  assert_true(on_disk(0));
  fake_hub_find(false);
  AWAIT(is_settled(&a) && is_known_as_now(&a, 0));
  tier_sweep(a.cache->home);
  assert_true(on_disk(0));
}

/* ---- evicting ---- */

static void what_another_evicts_leaves_the_memory_too(void **state) {
  struct fixture *fixture = *state;
  char url[64];
  add_small_files(1);
  fixture->options.memory_capacity = 16 * MIB;
  join_both(fixture, 0);
  for (int i = 0; i < 3; i++) get_small_file(&a, 0);
  AWAIT(tier_has(a.cache->tiers[0], &small_files[0]->digest));
  assert_int_equal(mc_evict(NULL, b.cache, small_url(url, 0), NULL), MC_OK);
  AWAIT(!tier_has(a.cache->tiers[0], &small_files[0]->digest));
  assert_false(on_disk(0));
  assert_int_equal(try_get(&a, small_url(url, 0), MC_GET_CACHED, NULL), MC_NOT_FOUND);
}

/* To begin anew at once, as after a gap, would be to ask for nothing but that for as long as it lasts. */
static void during_an_outage_it_is_tried_now_and_then(void **state) {
  add_small_files(1);
  join_both(*state, 0);
  fake_hub_lose();
  unsigned listed = fake_hub_calls("list");
  get_small_file(&a, 0);
  AWAIT(fake_hub_calls("list") > listed);
  unsigned beats = fake_hub_calls("present");
  AWAIT(fake_hub_calls("present") > beats + 1);
  assert_true(fake_hub_calls("list") < listed + 100);
  fake_hub_find(false);
  AWAIT(is_settled(&a) && is_known_as_now(&a, 0));
}

static void evicting_needs_the_coordination(void **state) {
  char url[64];
  mc_error error = MC_ERROR_INIT;
  add_small_files(1);
  join_both(*state, 0);
  get_small_file(&a, 0);
  fake_hub_lose();
  assert_int_equal(mc_evict(NULL, a.cache, small_url(url, 0), &error), MC_UNAVAILABLE);
  assert_non_null(strstr(error.message, "nothing can be evicted while"));
  assert_true(on_disk(0));
  fake_hub_find(false);
  assert_int_equal(mc_evict(NULL, a.cache, small_url(url, 0), NULL), MC_OK);
  assert_false(on_disk(0));
}

/* ---- a storage that others use ---- */

static bool always(void *user) {
  (void)user;
  return true;
}

static void a_rescan_counts_what_others_stored(void **state) {
  struct fixture *fixture = *state; /* a member of nothing: it tells nobody */
  add_small_files(4);
  join(&a, fixture, 0);
  AWAIT(is_settled(&a));
  get_small_file(&a, 0);
  get_small_file(&a, 1);
  open_cache(fixture);
  get_small_file(fixture, 2);
  get_small_file(fixture, 3);
  assert_int_equal(stat_of(&a, "storage_bytes"), 2 * MIB);
  assert_int_equal(tier_rescan(a.cache->home, always, NULL, NULL), MC_OK);
  assert_int_equal(stat_of(&a, "storage_bytes"), 4 * MIB);
  assert_int_equal(mc_evict(NULL, fixture->cache, "fake://host/1", NULL), MC_OK);
  assert_int_equal(mc_evict(NULL, fixture->cache, "fake://host/2", NULL), MC_OK);
  assert_int_equal(tier_rescan(a.cache->home, always, NULL, NULL), MC_OK);
  assert_int_equal(stat_of(&a, "storage_bytes"), 2 * MIB);
  assert_true(counts(&a, 0) && counts(&a, 3));
}

/* The other's use is in the storage, as the time of its table. */
static void use_as_another(int i) {
  char path[256];
  struct timespec times[2];
  int64_t now = clock_wall_ms();
  times[0] = times[1] = (struct timespec){now / 1000, now % 1000 * 1000000};
  strcat((char *)object_file(&a, path, small_files[i]), ".meta");
  assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void what_another_uses_is_not_evicted(void **state) {
  add_small_files(6);
  join(&a, *state, 3 * MIB);
  AWAIT(is_settled(&a));
  for (int i = 0; i < 3; i++) get_small_file(&a, i);
  time_passes(60 * 1000);
  use_as_another(0);
  get_small_file(&a, 3);
  assert_true(on_disk(0) && on_disk(2) && on_disk(3));
  assert_false(on_disk(1));
  time_passes(60 * 1000);
  use_as_another(2);
  assert_int_equal(tier_rescan(a.cache->home, always, NULL, NULL), MC_OK); /* has seen it, too */
  get_small_file(&a, 4);
  assert_false(on_disk(0));
  assert_true(on_disk(2) && on_disk(3));
  assert_int_equal(stat_of(&a, "evicted_objects_total"), 2);
}

static void what_another_has_evicted_makes_room(void **state) {
  char path[256];
  add_small_files(5);
  join(&a, *state, 3 * MIB);
  AWAIT(is_settled(&a));
  for (int i = 0; i < 3; i++) get_small_file(&a, i);
  assert_int_equal(unlink(object_file(&a, path, small_files[0])), 0);
  get_small_file(&a, 3);
  assert_true(on_disk(1) && on_disk(2));
  assert_int_equal(stat_of(&a, "evicted_objects_total"), 0);
}

/* ---- repair ---- */

static bool count_entry(void *user, const mc_entry *entry) {
  (void)entry;
  ++*(unsigned *)user;
  return true;
}

static unsigned listed_by(struct fixture *fixture) {
  unsigned count = 0;
  assert_int_equal(mc_list(fixture->cache, "", NULL, count_entry, &count, 0, NULL), MC_OK);
  return count;
}

static void repair_tells_and_mends(void **state) {
  char path[256], url[64], key[KEY_SIZE];
  mc_repair_result found;
  add_small_files(4);
  join_both(*state, 0);
  for (int i = 0; i < 4; i++) get_small_file(&a, i);
  mc_entry *before = replace(&a, 0, 95);
  regress(0, before);
  free(before);
  key_of(key, small_url(url, 1));
  mc_coordination *hub = b.cache->coordination;
  assert_int_equal(hub->ops->forget(hub, key, NULL), MC_OK);
  assert_int_equal(unlink(object_file(&a, path, small_files[2])), 0);
  for (int dry = 1; dry >= 0; dry--) {
    assert_int_equal(mc_repair(&found, a.cache, dry, 0, NULL), MC_OK);
    assert_int_equal(found.records, 4);
    assert_int_equal(found.entries, 3);
    assert_int_equal(found.missing, 1);
    assert_int_equal(found.older, 1);
    assert_int_equal(found.objects, 3);
    assert_int_equal(is_known_as_now(&b, 0) && is_known_as_now(&b, 1), !dry);
  }
  assert_int_equal(mc_repair(&found, a.cache, false, 0, NULL), MC_OK);
  assert_int_equal(found.entries, 4);
  assert_int_equal(found.missing + found.older, 0);
  fake_hub_lose();
  assert_int_equal(mc_repair(&found, a.cache, false, 0, NULL), MC_UNAVAILABLE);
}

static void alone_there_is_nothing_to_repair(void **state) {
  struct fixture *fixture = *state;
  mc_repair_result found;
  add_small_files(2);
  open_cache(fixture);
  for (int i = 0; i < 2; i++) get_small_file(fixture, i);
  assert_int_equal(mc_repair(&found, fixture->cache, false, 0, NULL), MC_OK);
  assert_int_equal(found.records, 2);
  assert_int_equal(found.entries, 2);
  assert_int_equal(found.objects, 2);
  assert_int_equal(found.missing + found.older, 0);
}

/* ---- coming and going ---- */

static void *change_files(void *arg) {
  atomic_bool *stop = arg;
  for (int i = 0; !atomic_load(stop); i = (i + 1) % 1000) {
    char url[64];
    if (i % 4 == 3) fake_hub_find(i % 8 == 3);
    try_get(&b, small_url(url, i % 4), 0, NULL);
    mc_evict(NULL, b.cache, url, NULL);
  }
  return NULL;
}

static void opening_and_closing_among_news(void **state) {
  pthread_t thread;
  atomic_bool stop = false;
  add_small_files(4);
  join(&b, *state, 0);
  assert_int_equal(pthread_create(&thread, NULL, change_files, &stop), 0);
  for (int i = 0; i < 20; i++) {
    join(&a, *state, 0);
    close_cache(&a);
  }
  atomic_store(&stop, true);
  assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
      TEST(what_another_pins_stays),
      TEST(what_another_does_not_need_any_more_goes),
      TEST(an_entry_that_is_told_twice_counts_once),
      TEST(nothing_goes_before_it_is_known_what_is_needed),
      TEST(in_doubt_the_newer_record_is_given),
      TEST(what_is_lost_comes_back_from_the_records),
      TEST(what_is_got_without_the_coordination_is_known_later),
      TEST(a_gap_in_the_middle_begins_anew),
      TEST(what_is_told_meanwhile_holds),
      TEST(watchers_hear_of_others_and_of_what_they_missed),
      TEST(a_failure_is_tried_again),
      TEST(what_is_got_in_an_outage_is_not_taken_for_unneeded),
      TEST(what_another_evicts_leaves_the_memory_too),
      TEST(during_an_outage_it_is_tried_now_and_then),
      TEST(evicting_needs_the_coordination),
      TEST(a_rescan_counts_what_others_stored),
      TEST(what_another_uses_is_not_evicted),
      TEST(what_another_has_evicted_makes_room),
      TEST(repair_tells_and_mends),
      TEST(alone_there_is_nothing_to_repair),
      TEST(opening_and_closing_among_news),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
