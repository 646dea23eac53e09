/* How current copies are: revalidation, what is served when that fails, and what does not exist. */
#include "tests/fakes/engine_fixture.h"

#include <string.h>

static void a_young_copy_is_not_asked_about(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  fixture->options.revalidate_after_ms = 1000;
  open_cache(fixture);
  get_once(fixture, URL, content);
  time_passes(900);
  assert_true(get_once(fixture, URL, content));
  assert_int_equal(content->opens, 1);
  assert_int_equal(try_get(fixture, URL, MC_GET_REVALIDATE, NULL), MC_OK); /* but when the caller wants to */
  assert_int_equal(content->opens_unchanged, 1);
}

static void assert_revalidates(struct fixture *fixture, struct fake_content *content) {
  fixture->options.revalidate_after_ms = 1000;
  open_cache(fixture);
  get_once(fixture, URL, content);
  time_passes(1001);
  assert_true(get_once(fixture, URL, content));
  assert_int_equal(content->opens_unchanged, 1);
  assert_int_equal(content->bytes, content->size);
  assert_int_equal(stat_of(fixture, "revalidations_total"), 1);
  assert_true(get_once(fixture, URL, content)); /* and is young again */
  assert_int_equal(content->opens, 2);
}

static void an_old_copy_is_confirmed_by_its_etag(void **state) {
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  content->validators.last_modified = 5;
  assert_revalidates(*state, content);
}

static void an_old_copy_is_confirmed_by_its_date(void **state) {
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  memset(&content->validators, 0, sizeof(content->validators));
  content->validators.last_modified = 1234567;
  assert_revalidates(*state, content);
}

static void an_old_copy_is_confirmed_by_its_version(void **state) {
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  strcpy(content->validators.version, "generation-7");
  assert_revalidates(*state, content);
}

static void a_changed_content_replaces_the_copy(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  fixture->options.revalidate_after_ms = 0; /* every time */
  open_cache(fixture);
  mc_file *before = get(fixture, URL, content);
  uint8_t first = content->data[0];
  fake_change(content, 200, 2);
  assert_false(get_once(fixture, URL, content));
  assert_int_equal(stat_of(fixture, "changes_total"), 1);
  uint8_t byte;
  size_t got;
  assert_int_equal(mc_file_read(before, 0, &byte, 1, &got, NULL), MC_OK); /* whoever has the old one keeps it */
  assert_int_equal(byte, first);
  mc_file_release(before);
}

static void what_has_gone_is_gone(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  fixture->options.revalidate_after_ms = 0;
  fixture->options.negative_ttl_ms = 1000;
  open_cache(fixture);
  get_once(fixture, URL, content);
  content->missing = true;
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_NOT_FOUND); /* a 404 is an answer: nothing stale instead */
  assert_int_equal(try_get(fixture, URL, MC_GET_CACHED, NULL), MC_NOT_FOUND);
  close_cache(fixture);
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, MC_GET_CACHED, NULL), MC_NOT_FOUND); /* for a new process, too */
}

static void a_stale_copy_is_better_than_an_error(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  fixture->options.revalidate_after_ms = 1000;
  fixture->options.stale_if_error_ms = 10000;
  open_cache(fixture);
  get_once(fixture, URL, content);
  content->open_fails = MC_UNAVAILABLE;
  time_passes(5000);
  assert_true(get_once(fixture, URL, content));
  assert_int_equal(stat_of(fixture, "stale_total"), 1);
  time_passes(5000); /* since it was confirmed, not since it was served */
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_UNAVAILABLE);
  content->open_fails = MC_OK;
  assert_true(get_once(fixture, URL, content));
}

static void a_refusal_is_no_reason_for_a_stale_copy(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  fixture->options.revalidate_after_ms = 0;
  open_cache(fixture);
  get_once(fixture, URL, content);
  content->open_fails = MC_PERMISSION_DENIED;
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_PERMISSION_DENIED);
}

static void a_stale_copy_can_be_served_while_it_is_revalidated(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1), *before = fake_add(0, "host/before", 100, 1);
  fixture->options.revalidate_after_ms = 1000;
  fixture->options.stale_while_revalidate = true;
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_change(content, 100, 2);
  content->stalls = true;
  time_passes(1001);
  for (int i = 0; i < 3; i++) {
    mc_file *file = NULL; /* at once, though the origin stalls */
    assert_int_equal(mc_get(&file, fixture->cache, URL, NULL, NULL), MC_OK);
    assert_is(file, before);
    mc_file_release(file);
  }
  fake_await(&content->stalled, 1);
  fake_release(content);
  await_stat(fixture, "changes_total", 1);
  get_once(fixture, URL, content);
  assert_int_equal(content->opens, 2);
}

static void what_does_not_exist_is_remembered_for_a_while(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  mc_error error = MC_ERROR_INIT;
  content->missing = true;
  fixture->options.negative_ttl_ms = 1000;
  open_cache(fixture);
  for (int i = 0; i < 5; i++) assert_int_equal(try_get(fixture, URL, 0, &error), MC_NOT_FOUND);
  assert_int_equal(content->opens, 1);
  content->missing = false;
  time_passes(1001);
  get_once(fixture, URL, content);
}

static void a_failure_is_not_remembered(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  content->open_fails = MC_UNAVAILABLE;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_UNAVAILABLE);
  content->open_fails = MC_OK;
  get_once(fixture, URL, content);
}

static void a_pin_needs_no_upstream(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  mc_entry *entry;
  open_cache(fixture);
  get_once(fixture, URL, content);
  content->open_fails = MC_UNAVAILABLE;
  assert_int_equal(try_get(fixture, URL, MC_GET_PIN, NULL), MC_OK);
  assert_int_equal(content->opens, 1);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_true(entry->pinned);
  mc_entry_free(entry);
  close_cache(fixture);
  fixture->options.revalidate_after_ms = 0; /* nor when the copy is stale */
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, MC_GET_UNPIN, NULL), MC_OK);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_false(entry->pinned);
  mc_entry_free(entry);
}

static void whoever_joins_late_is_heard(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct pending first, second, third;
  mc_entry *entry;
  open_cache(fixture);
  fake_storage_hold(FAKE_STAGE_COMMIT, true);
  start_get(&first, fixture, URL, NULL);
  fake_storage_await_held(1); /* the record has been written, without a pin */
  options.flags = MC_GET_PIN;
  start_get(&second, fixture, URL, &options);
  fake_storage_hold(FAKE_STAGE_COMMIT, false);
  assert_int_equal(finish_get(&first), MC_OK);
  assert_int_equal(finish_get(&second), MC_OK);
  mc_file_release(first.file);
  mc_file_release(second.file);
  assert_int_equal(content->bytes, content->size);
  close_cache(fixture);
  open_cache(fixture);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_true(entry->pinned);
  mc_entry_free(entry);
  /* When what is known has been published, too: then by a flight of its own. */
  fake_change(content, 100, 2);
  fake_coordination_hold_publish(true);
  options.flags = MC_GET_REVALIDATE;
  start_get(&first, fixture, URL, &options);
  fake_coordination_await_held();
  options.flags = MC_GET_UNPIN;
  start_get(&third, fixture, URL, &options);
  fake_coordination_hold_publish(false);
  assert_int_equal(finish_get(&first), MC_OK);
  assert_int_equal(finish_get(&third), MC_OK);
  mc_file_release(first.file);
  mc_file_release(third.file);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_false(entry->pinned);
  mc_entry_free(entry);
  assert_int_equal(content->opens, 2);
}

static void an_upstream_that_confirms_what_nobody_has_is_refused(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  content->says_unchanged_always = true;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_PROTOCOL);
}

static void an_etag_may_hold_any_bytes(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  strcpy(content->validators.etag, "\"caf\xe9\"");
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(try_get(fixture, URL, MC_GET_REVALIDATE, NULL), MC_OK);
  assert_int_equal(content->opens_unchanged, 1);
  close_cache(fixture);
  open_cache(fixture);
  assert_true(get_once(fixture, URL, content));
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(a_young_copy_is_not_asked_about),
      TEST(an_old_copy_is_confirmed_by_its_etag),
      TEST(an_old_copy_is_confirmed_by_its_date),
      TEST(an_old_copy_is_confirmed_by_its_version),
      TEST(a_changed_content_replaces_the_copy),
      TEST(what_has_gone_is_gone),
      TEST(a_stale_copy_is_better_than_an_error),
      TEST(a_refusal_is_no_reason_for_a_stale_copy),
      TEST(a_stale_copy_can_be_served_while_it_is_revalidated),
      TEST(what_does_not_exist_is_remembered_for_a_while),
      TEST(a_failure_is_not_remembered),
      TEST(a_pin_needs_no_upstream),
      TEST(whoever_joins_late_is_heard),
      TEST(an_etag_may_hold_any_bytes),
      TEST(an_upstream_that_confirms_what_nobody_has_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
