/* What a URL was before, who looks after what is to be current, and who is told. */
#include "tests/fakes/engine_fixture.h"

#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "engine/engine.h"
#include "tests/fakes/fake_hub.h"

#define SIZE    ((uint64_t)100000)
#define HOUR_MS ((int64_t)60 * 60 * 1000)

struct history {
  mc_former formers[MC_HISTORY_MOST + 1];
  size_t count;
};

static bool add_former(void *user, const mc_former *former) {
  struct history *history = user;
  history->formers[history->count++] = *former;
  return true;
}

static struct history history_of(struct fixture *fixture) {
  struct history history = {.count = 0};
  assert_int_equal(mc_history(fixture->cache, URL, add_former, &history, 0, NULL), MC_OK);
  return history;
}

static mc_status get_version(struct fixture *fixture, const char *url, const mc_digest *digest, uint32_t flags) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  mc_error error = MC_ERROR_INIT;
  mc_file *file = NULL;
  options.digest = digest;
  options.flags = flags;
  mc_status status = mc_get(&file, fixture->cache, url, &options, &error);
  if (!status) assert_true(mc_digest_equal(mc_file_digest(file), digest));
  if (!status) assert_true(mc_file_was_cached(file));
  mc_file_release(file);
  return status;
}

static void assert_current(struct fixture *fixture, const struct fake_content *content) {
  mc_entry *entry;
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_true(entry->has_digest && mc_digest_equal(&entry->digest, &content->digest));
  mc_entry_free(entry);
}

/* ---- history ---- */

static void a_version_of_before_can_be_had(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_digest first = content->digest;
  fixture->options.revalidate_after_ms = 0;
  open_cache(fixture);
  get_once(fixture, URL, content);
  get_once(fixture, URL, content);
  assert_int_equal(history_of(fixture).count, 0);
  fake_change(content, SIZE + 1, 2);
  get_once(fixture, URL, content);
  for (int i = 0; i < 2; i++) {
    struct history history = history_of(fixture);
    assert_int_equal(history.count, 1);
    assert_true(mc_digest_equal(&history.formers[0].digest, &first));
    assert_int_equal(history.formers[0].size, SIZE);
    assert_true(history.formers[0].stored);
    assert_true(history.formers[0].replaced_at >= history.formers[0].fetched_at);
    unsigned opens = fake_count(&content->opens);
    assert_int_equal(get_version(fixture, URL, &first, 0), MC_OK);
    assert_int_equal(get_version(fixture, URL, &first, MC_GET_CACHED), MC_OK);
    assert_int_equal(get_version(fixture, URL, &content->digest, 0), MC_OK);
    assert_int_equal(fake_count(&content->opens), opens);
    assert_current(fixture, content);
    close_cache(fixture); /* and again from the record */
    open_cache(fixture);
  }
}

static void a_digest_of_another_url_is_none_of_this(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1), *other = fake_add(0, "host/other.bin", SIZE, 2);
  mc_digest unknown = {{1}};
  open_cache(fixture);
  get_once(fixture, URL, content);
  get_once(fixture, "fake://host/other.bin", other);
  assert_int_equal(get_version(fixture, URL, &other->digest, 0), MC_NOT_FOUND);
  assert_int_equal(get_version(fixture, URL, &unknown, 0), MC_NOT_FOUND);
  assert_int_equal(get_version(fixture, "fake://host/never.bin", &content->digest, 0), MC_NOT_FOUND);
  assert_int_equal(get_version(fixture, URL, &content->digest, MC_GET_PIN), MC_INVALID_ARGUMENT);
  assert_int_equal(get_version(fixture, URL, &content->digest, MC_GET_REVALIDATE), MC_INVALID_ARGUMENT);
}

/* The older one's date and generation are no reason to keep the newer one. */
static void a_rollback_is_a_change(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_digest digests[3];
  fixture->options.revalidate_after_ms = 0;
  open_cache(fixture);
  for (uint32_t i = 0; i < 3; i++) {
    fake_change(content, SIZE, i == 1 ? 2 : 1);
    fake_lock();
    content->validators = (mc_validators){.last_modified = i == 1 ? 2000 : 1000};
    fake_unlock();
    digests[i] = content->digest;
    get_once(fixture, URL, content);
    assert_current(fixture, content);
  }
  struct history history = history_of(fixture);
  assert_int_equal(history.count, 2);
  assert_true(mc_digest_equal(&history.formers[0].digest, &digests[1]));
  assert_true(mc_digest_equal(&history.formers[1].digest, &digests[0]));
  assert_int_equal(stat_of(fixture, "changes_total"), 2);
}

static void set_missing(struct fake_content *content, bool missing) {
  fake_lock();
  content->missing = missing;
  fake_unlock();
}

static void what_went_is_remembered_until_it_comes_again(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_digest first = content->digest;
  mc_entry *entry;
  fixture->options.revalidate_after_ms = fixture->options.negative_ttl_ms = 0;
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(try_get(fixture, URL, MC_GET_PIN, NULL), MC_OK);
  set_missing(content, true);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_NOT_FOUND);
  for (int i = 0; i < 2; i++) {
    struct history history = history_of(fixture);
    assert_int_equal(history.count, 1);
    assert_true(history.formers[0].stored);
    assert_int_equal(try_get(fixture, URL, 0, NULL), MC_NOT_FOUND);
    assert_int_equal(try_get(fixture, URL, MC_GET_CACHED, NULL), MC_NOT_FOUND);
    assert_int_equal(get_version(fixture, URL, &first, 0), MC_OK);
    assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
    assert_true(entry->missing && !entry->has_digest && entry->pinned);
    mc_entry_free(entry);
    close_cache(fixture);
    open_cache(fixture);
  }
  set_missing(content, false);
  get_once(fixture, URL, content);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_true(!entry->missing && entry->pinned);
  mc_entry_free(entry);
  assert_int_equal(history_of(fixture).count, 1);
}

static void a_history_ends(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_digest first = content->digest;
  char old[256];
  object_file(fixture, old, content);
  fixture->options.revalidate_after_ms = 0;
  fixture->options.history_ms = 2 * HOUR_MS;
  open_cache(fixture);
  get_once(fixture, URL, content);
  time_passes(3 * HOUR_MS); /* that it was not used before it was replaced is no reason to drop it then */
  fake_change(content, SIZE, 2);
  get_once(fixture, URL, content);
  time_passes(HOUR_MS);
  tier_sweep(fixture->cache->home);
  assert_int_equal(access(old, F_OK), 0);
  assert_int_equal(history_of(fixture).count, 1);
  time_passes(HOUR_MS + 1000);
  tier_sweep(fixture->cache->home);
  assert_int_equal(access(old, F_OK), -1);
  assert_int_equal(history_of(fixture).count, 0);
  assert_int_equal(get_version(fixture, URL, &first, 0), MC_NOT_FOUND);
  assert_int_equal(get_version(fixture, URL, &content->digest, 0), MC_OK);
}

static void a_history_has_an_end_in_number_too(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 0);
  fixture->options.revalidate_after_ms = 0;
  open_cache(fixture);
  get_once(fixture, URL, content);
  mc_digest last = content->digest;
  for (uint32_t i = 1; i < MC_HISTORY_MOST + 4; i++) {
    last = content->digest;
    fake_change(content, 10, i);
    get_once(fixture, URL, content);
  }
  struct history history = history_of(fixture);
  assert_int_equal(history.count, MC_HISTORY_MOST);
  assert_true(mc_digest_equal(&history.formers[0].digest, &last));
}

static void no_history_if_none_is_wanted(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  fixture->options.revalidate_after_ms = fixture->options.history_ms = 0;
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_change(content, 10, 2);
  get_once(fixture, URL, content);
  assert_int_equal(history_of(fixture).count, 0);
}

/* ---- the switch ---- */

static void use_hub(struct fixture *fixture) {
  fake_hub_reset();
  fixture->options.coordination = "hub";
  fixture->options.coordination_backends = fake_hubs;
}

/* Somebody wants it asked, and there is a new version to download: whose copy is young has it at once. */
static void the_old_one_is_given_meanwhile(struct fixture *fixture) {
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  struct pending asks, waits;
  mc_digest first = content->digest;
  mc_get_options options = MC_GET_OPTIONS_INIT;
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_change(content, SIZE, 2);
  fake_lock();
  content->stalls = true;
  fake_unlock();
  options.flags = MC_GET_REVALIDATE;
  start_get(&asks, fixture, URL, &options);
  fake_await(&content->stalled, 1);
  for (int i = 0; i < 3; i++) {
    mc_file *file;
    assert_int_equal(mc_get(&file, fixture->cache, URL, NULL, NULL), MC_OK);
    assert_true(mc_digest_equal(mc_file_digest(file), &first));
    mc_file_release(file);
  }
  time_passes(2 * HOUR_MS); /* it is no longer: this one waits */
  start_get_watched(&waits, fixture, URL, NULL);
  await_phase(&waits, MC_PHASE_DOWNLOADING);
  fake_release(content);
  struct pending *both[] = {&asks, &waits};
  for (int i = 0; i < 2; i++) {
    assert_int_equal(finish_get(both[i]), MC_OK);
    assert_true(mc_digest_equal(mc_file_digest(both[i]->file), &content->digest));
    mc_file_release(both[i]->file);
  }
  assert_int_equal(fake_count(&content->opens), 2);
}

static void a_download_makes_no_young_copy_wait(void **state) {
  struct fixture *fixture = *state;
  fixture->options.revalidate_after_ms = HOUR_MS;
  the_old_one_is_given_meanwhile(fixture);
}

static void a_download_makes_no_young_copy_wait_where_it_is_shared(void **state) {
  struct fixture *fixture = *state;
  fixture->options.revalidate_after_ms = HOUR_MS;
  use_hub(fixture);
  the_old_one_is_given_meanwhile(fixture);
}

static void stale_while_revalidate(struct fixture *fixture) {
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_digest first = content->digest;
  mc_file *file;
  fixture->options.revalidate_after_ms = 0;
  fixture->options.stale_while_revalidate = true;
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_change(content, SIZE, 2);
  fake_lock();
  content->stalls = true;
  fake_unlock();
  for (int i = 0; i < 3; i++) {
    assert_int_equal(mc_get(&file, fixture->cache, URL, NULL, NULL), MC_OK);
    assert_true(mc_digest_equal(mc_file_digest(file), &first));
    mc_file_release(file);
    fake_await(&content->stalled, 1);
  }
  fake_release(content);
  await_stat(fixture, "changes_total", 1);
  get_once(fixture, URL, content);
}

static void stale_while_it_is_asked(void **state) {
  stale_while_revalidate(*state);
}

static void stale_while_it_is_asked_where_it_is_shared(void **state) {
  use_hub(*state);
  stale_while_revalidate(*state);
}

static void many_who_come_at_once_look_and_join(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  struct pending pending[200];
  use_hub(fixture);
  open_cache(fixture);
  content->stalls = true;
  start_get(&pending[0], fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  unsigned looks = fake_hub_calls("lookup");
  for (int i = 1; i < 200; i++) start_get(&pending[i], fixture, URL, NULL);
  await_stat(fixture, "waiting_requests", 200);
  assert_int_equal(fake_hub_calls("lookup"), looks); /* it is known that there is nothing */
  fake_release(content);
  for (int i = 0; i < 200; i++) {
    assert_int_equal(finish_get(&pending[i]), MC_OK);
    mc_file_release(pending[i].file);
  }
  assert_int_equal(fake_count(&content->opens), 1);
}

/* ---- the refresher ---- */

static void what_is_pinned_is_looked_after(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1), *other = fake_add(0, "host/other.bin", SIZE, 3);
  struct fake_content *forever = fake_add(0, "host/forever/x.bin", SIZE, 4);
  const mc_origin_rule rules[] = {{.prefix = "fake://host/forever/", .allowed = true, .revalidate_after_ms = -1}};
  fixture->options.revalidate_after_ms = 1000;
  fixture->options.refresh_ms = HOUR_MS;
  fixture->options.origins = rules;
  fixture->options.origin_count = 1;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, MC_GET_PIN, NULL), MC_OK);
  assert_int_equal(try_get(fixture, "fake://host/forever/x.bin", MC_GET_PIN, NULL), MC_OK);
  get_once(fixture, "fake://host/other.bin", other);
  for (unsigned i = 1; i < 4; i++) {
    time_passes(2 * HOUR_MS);
    fake_await(&content->opens_unchanged, i);
    await_stat(fixture, "revalidations_total", i); /* it is published */
  }
  fake_change(content, SIZE, 2);
  time_passes(2 * HOUR_MS);
  await_stat(fixture, "changes_total", 1);
  assert_current(fixture, content);
  close_cache(fixture);
  open_cache(fixture); /* from the records */
  unsigned asked = fake_count(&content->opens_unchanged);
  time_passes(2 * HOUR_MS);
  fake_await(&content->opens_unchanged, asked + 1);
  assert_int_equal(fake_count(&other->opens), 1);
  assert_int_equal(fake_count(&forever->opens), 1);
}

static void of_two_members_one_looks(void **state) {
  struct fixture *fixture = *state;
  struct fixture second = *fixture;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  use_hub(fixture);
  use_hub(&second);
  fixture->options.revalidate_after_ms = second.options.revalidate_after_ms = 1000;
  fixture->options.refresh_ms = second.options.refresh_ms = HOUR_MS;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, MC_GET_PIN, NULL), MC_OK);
  open_cache(&second);
  for (unsigned i = 1; i < 4; i++) {
    time_passes(2 * HOUR_MS);
    fake_await(&content->opens_unchanged, i);
    assert_int_equal(try_get(&second, URL, 0, NULL), MC_OK); /* after its end: it is young again */
    assert_int_equal(try_get(fixture, URL, 0, NULL), MC_OK);
    assert_int_equal(fake_count(&content->opens_unchanged), i);
  }
  close_cache(&second);
}

/* ---- watchers ---- */

struct told {
  unsigned changes, gaps;
  char url[64];
};

static void tell(void *user, const mc_entry *entry) {
  struct told *told = user;
  told->changes += entry != NULL;
  told->gaps += entry == NULL;
  if (entry) strncpy(told->url, entry->url, sizeof(told->url) - 1);
}

static void watchers_have_prefixes(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = fake_add(0, "host/a/x.bin", 10, 1), *b = fake_add(0, "host/b/x.bin", 10, 2);
  struct fake_content *ab = fake_add(0, "host/a/x.bin2", 10, 3);
  const char *prefixes[] = {"", "fake://host/a/", "fake://host/b/x.bin", "fake://host/a/x.bin"};
  const unsigned expected[] = {3, 2, 1, 1};
  struct told told[4] = {{0}};
  mc_watcher *watchers[4];
  open_cache(fixture);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(mc_watch(&watchers[i], fixture->cache, prefixes[i], tell, &told[i], NULL), MC_OK);
  }
  get_once(fixture, "fake://host/a/x.bin", a);
  get_once(fixture, "fake://host/b/x.bin", b);
  get_once(fixture, "fake://host/a/x.bin2", ab);
  for (int i = 0; i < 4; i++) assert_int_equal(told[i].changes, expected[i]);
  assert_string_equal(told[2].url, "fake://host/b/x.bin");
  entry_announce(fixture->cache, NULL);
  for (int i = 0; i < 4; i++) {
    mc_watch_end(watchers[i]);
    assert_int_equal(told[i].gaps, 1);
  }
  assert_int_equal(mc_evict(NULL, fixture->cache, "fake://host/a/x.bin", NULL), MC_OK);
  for (int i = 0; i < 4; i++) assert_int_equal(told[i].changes, expected[i]);
}

static void what_is_watched_is_looked_after(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *before = fake_add(0, "host/a/before.bin", 10, 1),
                      *since = fake_add(0, "host/a/since.bin", 10, 2);
  struct fake_content *other = fake_add(0, "host/b/other.bin", 10, 3);
  struct told told = {0};
  mc_watcher *watcher;
  fixture->options.revalidate_after_ms = 1000;
  fixture->options.refresh_ms = HOUR_MS;
  open_cache(fixture);
  get_once(fixture, "fake://host/a/before.bin", before);
  assert_int_equal(mc_watch(&watcher, fixture->cache, "fake://host/a/", tell, &told, NULL), MC_OK);
  get_once(fixture, "fake://host/a/since.bin", since);
  get_once(fixture, "fake://host/b/other.bin", other);
  time_passes(2 * HOUR_MS);
  fake_await(&before->opens_unchanged, 1);
  fake_await(&since->opens_unchanged, 1);
  await_stat(fixture, "revalidations_total", 2);
  fake_change(before, 10, 7);
  time_passes(2 * HOUR_MS);
  await_stat(fixture, "changes_total", 1);
  mc_watch_end(watcher);
  assert_int_equal(told.changes, 2);
  assert_int_equal(fake_count(&other->opens), 1);
}

/* What is told to the refresher's job while it runs is seen to once it has ended. */
static void what_is_watched_meanwhile_is_looked_through_too(void **state) {
  struct fixture *fixture = *state;
  struct told told = {0};
  mc_watcher *watcher;
  fake_add(0, FILE_NAME, SIZE, 1);
  use_hub(fixture);
  fixture->options.revalidate_after_ms = 1000;
  fixture->options.refresh_ms = HOUR_MS;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, MC_GET_PIN, NULL), MC_OK);
  assert_int_equal(mc_evict(NULL, fixture->cache, URL, NULL), MC_OK);
  fake_hub_hold("lookup"); /* the job's, which finds it gone */
  time_passes(2 * HOUR_MS);
  fake_hub_await_held();
  unsigned listed = fake_hub_calls("list");
  assert_int_equal(mc_watch(&watcher, fixture->cache, "", tell, &told, NULL), MC_OK);
  fake_hub_release();
  for (int64_t until = clock_ns() + 20 * NS_PER_S; fake_hub_calls("list") == listed; sched_yield()) {
    assert_true(clock_ns() < until);
  }
  mc_watch_end(watcher);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(a_version_of_before_can_be_had),
      TEST(a_digest_of_another_url_is_none_of_this),
      TEST(a_rollback_is_a_change),
      TEST(what_went_is_remembered_until_it_comes_again),
      TEST(a_history_ends),
      TEST(a_history_has_an_end_in_number_too),
      TEST(no_history_if_none_is_wanted),
      TEST(a_download_makes_no_young_copy_wait),
      TEST(a_download_makes_no_young_copy_wait_where_it_is_shared),
      TEST(stale_while_it_is_asked),
      TEST(stale_while_it_is_asked_where_it_is_shared),
      TEST(many_who_come_at_once_look_and_join),
      TEST(what_is_pinned_is_looked_after),
      TEST(of_two_members_one_looks),
      TEST(watchers_have_prefixes),
      TEST(what_is_watched_is_looked_after),
      TEST(what_is_watched_meanwhile_is_looked_through_too),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
