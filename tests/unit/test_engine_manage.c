/* Looking into a cache and managing it: prefetch, stat, list, counters, status, watching; and callers that are older.
 */
#include "tests/fakes/engine_fixture.h"

#include <stddef.h>
#include <string.h>

static void a_prefetch_brings_it_in(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  mc_entry *entry;
  open_cache(fixture);
  assert_int_equal(mc_prefetch(fixture->cache, URL, true, NULL), MC_OK);
  await_stat(fixture, "downloads_total", 1);
  assert_true(get_once(fixture, URL, content) || content->opens == 1); /* or it joins the end of it */
  assert_int_equal(content->opens, 1);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_true(entry->pinned);
  mc_entry_free(entry);
  assert_int_equal(mc_prefetch(fixture->cache, "gopher://x/", false, NULL), MC_UNSUPPORTED);
}

static void stat_asks_the_upstream_or_the_cache(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  mc_entry *entry;
  open_cache(fixture);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_NOT_FOUND);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, 0, 0, NULL), MC_OK);
  assert_int_equal(entry->size, CHUNK);
  assert_string_equal(entry->url, URL);
  assert_false(entry->has_digest);
  assert_int_equal(entry->fetched_at, 0);
  mc_entry_free(entry);
  get_once(fixture, URL, content);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, 0, 0, NULL), MC_OK);
  assert_true(entry->has_digest && mc_digest_equal(&entry->digest, &content->digest)); /* it is the version we have */
  mc_entry_free(entry);
  fake_change(content, CHUNK, 2);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, 0, 0, NULL), MC_OK);
  assert_false(entry->has_digest);
  mc_entry_free(entry);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_true(entry->has_digest);
  mc_entry_free(entry);
  assert_int_equal(mc_stat(&entry, fixture->cache, "fake://host/none", 0, 0, NULL), MC_NOT_FOUND);
}

struct listing {
  char urls[8][64];
  unsigned count, most;
};

static bool note(void *user, const mc_entry *entry) {
  struct listing *listing = user;
  assert_true(listing->count < 8);
  strcpy(listing->urls[listing->count++], entry->url);
  return listing->count < listing->most;
}

static void lists_are_sorted_and_leave_out_what_is_missing(void **state) {
  struct fixture *fixture = *state;
  struct listing listing = {.most = 8};
  open_cache(fixture);
  get_once(fixture, "fake://host/b", fake_add(0, "host/b", 1, 1));
  get_once(fixture, "fake://host/a", fake_add(0, "host/a", 1, 2));
  get_once(fixture, "fake://other/a", fake_add(0, "other/a", 1, 3));
  assert_int_equal(try_get(fixture, "fake://host/missing", 0, NULL), MC_NOT_FOUND);
  assert_int_equal(mc_list(fixture->cache, "", NULL, note, &listing, 0, NULL), MC_OK);
  assert_int_equal(listing.count, 3);
  assert_string_equal(listing.urls[0], "fake://host/a");
  assert_string_equal(listing.urls[1], "fake://host/b");
  assert_string_equal(listing.urls[2], "fake://other/a");
  listing = (struct listing){.most = 1};
  assert_int_equal(mc_list(fixture->cache, "fake://host/", NULL, note, &listing, 0, NULL), MC_OK);
  assert_int_equal(listing.count, 1); /* the visitor stopped it */
  listing = (struct listing){.most = 8};
  assert_int_equal(mc_list(fixture->cache, "fake://host/", "fake://host/a", note, &listing, 0, NULL), MC_OK);
  assert_int_equal(listing.count, 1);
  assert_string_equal(listing.urls[0], "fake://host/b");
  close_cache(fixture);
  open_cache(fixture);
  listing = (struct listing){.most = 8};
  assert_int_equal(mc_list(fixture->cache, "", NULL, note, &listing, 0, NULL), MC_OK);
  assert_int_equal(listing.count, 3);
}

static bool note_listed(void *user, const mc_listed *listed) {
  unsigned *count = user;
  assert_true(*listed->path != 0);
  return ++*count < 2;
}

static void an_upstream_can_be_listed(void **state) {
  struct fixture *fixture = *state;
  unsigned count = 0;
  fake_add(0, "host/x/1", 1, 1);
  fake_add(0, "host/x/2", 1, 2);
  fake_add(0, "host/x/3", 1, 3);
  open_cache(fixture);
  assert_int_equal(mc_list_upstream(fixture->cache, "fake://host/x", note_listed, &count, 0, NULL), MC_OK);
  assert_int_equal(count, 2);
}

static void a_list_that_began_is_not_begun_by_another(void **state) {
  struct fixture *fixture = *state;
  unsigned count = 0;
  fake_add(0, "host/x/1", 1, 1);
  fake_add(0, "host/x/2", 1, 2)->open_fails = MC_UNAVAILABLE;
  fake_add(1, "host/x/1", 1, 1);
  use_two_upstreams(fixture);
  open_cache(fixture);
  assert_int_equal(mc_list_upstream(fixture->cache, "fake://host/x", note_listed, &count, 0, NULL), MC_UNAVAILABLE);
  assert_int_equal(count, 1);
}

static void counters_fit_the_room_they_get(void **state) {
  struct fixture *fixture = *state;
  mc_stat_row rows[64], few[3];
  fixture->options.memory_capacity = MIB;
  open_cache(fixture);
  size_t count = mc_stats(fixture->cache, rows, 64);
  assert_true(count > 20 && count <= 64);
  assert_null(rows[count - 1].name);
  for (size_t i = 0; i + 1 < count; i++) {
    assert_true(rows[i].name && rows[i].unit && rows[i].help);
    for (size_t k = 0; k < i; k++) assert_string_not_equal(rows[i].name, rows[k].name);
  }
  assert_int_equal(mc_stats(fixture->cache, few, 3), count);
  assert_non_null(few[1].name);
  assert_null(few[2].name);
  assert_int_equal(mc_stats(fixture->cache, NULL, 0), count);
}

static void the_status_is_a_document(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME "?secret=1", CHUNK, 1);
  struct pending pending;
  char *json;
  content->stalls = true;
  open_cache(fixture);
  start_get(&pending, fixture, URL "?secret=1", NULL);
  fake_await(&content->stalled, 1);
  assert_int_equal(mc_status_json(&json, fixture->cache, NULL), MC_OK);
  assert_non_null(strstr(json, "\"phase\": \"downloading\""));
  assert_non_null(strstr(json, "\"waiters\": 1"));
  assert_null(strstr(json, "secret=1"));
  mc_free(json);
  fake_release(content);
  assert_int_equal(finish_get(&pending), MC_OK);
  mc_file_release(pending.file);
}

struct watched {
  unsigned calls, missing;
};

static void watch(void *user, const mc_entry *entry) {
  struct watched *watched = user;
  watched->calls++;
  watched->missing += entry->missing;
}

static void who_watches_sees_changes_alone(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  struct watched watched = {0};
  fixture->options.revalidate_after_ms = 0;
  open_cache(fixture);
  mc_watcher *watcher;
  assert_int_equal(mc_watch(&watcher, fixture->cache, "", watch, &watched, NULL), MC_OK);
  get_once(fixture, URL, content);
  get_once(fixture, URL, content); /* confirmed: no news */
  assert_int_equal(watched.calls, 1);
  fake_change(content, 10, 2);
  get_once(fixture, URL, content);
  assert_int_equal(watched.calls, 2);
  assert_int_equal(mc_evict(NULL, fixture->cache, URL, NULL), MC_OK);
  assert_int_equal(watched.calls, 3);
  assert_int_equal(watched.missing, 1);
  mc_watch_end(watcher);
  get_once(fixture, URL, content);
  assert_int_equal(watched.calls, 3);
}

/* ---- callers that were built with older, shorter structs ---- */

static void older_get_options_are_fine(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  mc_get_options options;
  mc_file *file;
  open_cache(fixture);
  memset(&options, 0xee, sizeof(options)); /* what is beyond is not looked at */
  options.struct_size = offsetof(mc_get_options, timeout_ms);
  options.flags = 0;
  assert_int_equal(mc_get(&file, fixture->cache, URL, &options, NULL), MC_OK);
  assert_is(file, content);
  mc_file_release(file);
}

static void older_tree_options_are_fine(void **state) {
  struct fixture *fixture = *state;
  mc_tree_options options;
  fake_add(0, "host/tree/a", 10, 1);
  open_cache(fixture);
  memset(&options, 0xee, sizeof(options));
  options.struct_size = offsetof(mc_tree_options, timeout_ms);
  options.flags = 0;
  assert_int_equal(mc_get_tree(NULL, fixture->cache, "fake://host/tree/", NULL, &options, NULL), MC_OK);
}

static void older_options_are_fine(void **state) {
  struct fixture *fixture = *state;
  mc_options options = fixture->options;
  mc_cache *cache;
  options.struct_size = offsetof(mc_options, storage_capacity);
  memset((char *)&options + options.struct_size, 0xee, sizeof(options) - options.struct_size);
  options.storage = fixture->storage + strlen("faulty:"); /* their backends are beyond */
  options.coordination = "local";
  options.schemes = "file";
  assert_int_equal(mc_open_options(&cache, &options, NULL), MC_OK);
  mc_close(cache);
}

static void nothing_set_means_the_defaults(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  fixture->options.flights = fixture->options.waiters = fixture->options.parallelism = 0;
  fixture->options.high_watermark = fixture->options.low_watermark = 0;
  fixture->options.connect_timeout_ms = fixture->options.stall_timeout_ms = fixture->options.lease_ms = 0;
  fixture->options.tree_files = 0;
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(mc_get_tree(NULL, fixture->cache, "fake://host/", NULL, NULL, NULL), MC_OK);
}

static void options_that_can_not_be_are_refused(void **state) {
  struct fixture *fixture = *state;
  mc_error error = MC_ERROR_INIT;
  mc_options options = fixture->options;
  options.low_watermark = 99;
  options.high_watermark = 98;
  assert_int_equal(mc_open_options(&fixture->cache, &options, &error), MC_INVALID_ARGUMENT);
  options = fixture->options;
  options.high_watermark = 200; /* percent */
  assert_int_equal(mc_open_options(&fixture->cache, &options, &error), MC_INVALID_ARGUMENT);
  options = fixture->options;
  options.storage = "nonsense:/tmp";
  assert_int_equal(mc_open_options(&fixture->cache, &options, &error), MC_UNSUPPORTED);
  options.storage = "a-name-that-is-longer-than-any-storages-name-can-be:/tmp";
  assert_int_equal(mc_open_options(&fixture->cache, &options, &error), MC_UNSUPPORTED);
  options = fixture->options;
  options.coordination = "nonsense";
  assert_int_equal(mc_open_options(&fixture->cache, &options, &error), MC_UNSUPPORTED);
  assert_null(fixture->cache);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(a_prefetch_brings_it_in),
      TEST(stat_asks_the_upstream_or_the_cache),
      TEST(lists_are_sorted_and_leave_out_what_is_missing),
      TEST(an_upstream_can_be_listed),
      TEST(a_list_that_began_is_not_begun_by_another),
      TEST(counters_fit_the_room_they_get),
      TEST(the_status_is_a_document),
      TEST(who_watches_sees_changes_alone),
      TEST(older_get_options_are_fine),
      TEST(older_tree_options_are_fine),
      TEST(older_options_are_fine),
      TEST(nothing_set_means_the_defaults),
      TEST(options_that_can_not_be_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
