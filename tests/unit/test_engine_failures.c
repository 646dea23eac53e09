/* Storage and coordination that fail at each of their ops: a clear error, nothing left behind, and the next call works.
 */
#include "tests/fakes/engine_fixture.h"

#include <string.h>

#include "engine/engine.h"

/* A get while one op fails once; then one that works. */
static void check_failure(struct fixture *fixture, enum fake_op op, unsigned nth, mc_status with, mc_status expected) {
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK + 1, 1);
  open_cache(fixture);
  fake_storage_fail(op, nth, 1, with);
  assert_int_equal(try_get(fixture, URL, 0, NULL), expected);
  assert_int_equal(stat_of(fixture, "storage_reserved_bytes"), 0);
  assert_int_equal(content->opens, content->closes);
  get_once(fixture, URL, content);
  assert_true(content->opens <= 2 && content->bytes <= 2 * content->size);
  assert_true(get_once(fixture, URL, content));
}

static void a_stage_can_not_be_made(void **state) {
  check_failure(*state, FAKE_STAGE_CREATE, 1, MC_IO, MC_IO);
}

static void the_disk_is_full(void **state) {
  check_failure(*state, FAKE_STAGE_CREATE, 1, MC_NO_SPACE, MC_NO_SPACE);
}

static void the_journals_head_can_not_be_written(void **state) {
  check_failure(*state, FAKE_STAGE_APPEND, 1, MC_NO_SPACE, MC_NO_SPACE);
}

static void the_journal_can_not_be_written(void **state) {
  check_failure(*state, FAKE_STAGE_APPEND, 3, MC_IO, MC_IO);
}

static void the_record_can_not_be_written(void **state) {
  check_failure(*state, FAKE_RECORD_PUT, 1, MC_NO_SPACE, MC_NO_SPACE);
}

static void a_confirmed_copy_is_current_though_that_can_not_be_written(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  fixture->options.revalidate_after_ms = 1000;
  fixture->options.stale_if_error_ms = 0;
  open_cache(fixture);
  get_once(fixture, URL, content);
  time_passes(1001);
  fake_storage_fail(FAKE_RECORD_PUT, 1, 1, MC_NO_SPACE);
  assert_true(get_once(fixture, URL, content));
  assert_true(get_once(fixture, URL, content));
  assert_int_equal(content->opens, 2);
}

static void it_can_not_be_committed(void **state) {
  check_failure(*state, FAKE_STAGE_COMMIT, 1, MC_BUSY, MC_BUSY);
}

static void what_was_committed_can_not_be_opened(void **state) {
  check_failure(*state, FAKE_OPEN_OBJECT, 1, MC_RESOURCE_EXHAUSTED, MC_RESOURCE_EXHAUSTED);
}

static void what_was_committed_has_gone(void **state) {
  /* Which is not the upstream's word that it does not exist. */
  check_failure(*state, FAKE_OPEN_OBJECT, 1, MC_NOT_FOUND, MC_UNAVAILABLE);
}

static void a_missing_folder_is_not_a_missing_file(void **state) {
  check_failure(*state, FAKE_STAGE_CREATE, 1, MC_NOT_FOUND, MC_UNAVAILABLE);
}

static void a_stage_can_not_be_resized(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  content->unknown_size = true;
  open_cache(fixture);
  fake_storage_fail(FAKE_STAGE_RESIZE, 1, 1, MC_NO_SPACE);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_NO_SPACE);
  get_once(fixture, URL, content);
}

static void a_stage_can_not_be_resumed(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_cache(fixture);
  fake_storage_fail(FAKE_STAGE_RESUME, 1, 1, MC_IO); /* then it begins anew */
  get_once(fixture, URL, content);
}

static void a_damaged_object_can_not_be_staged_again(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  char path[256];
  open_cache(fixture);
  get_once(fixture, URL, content);
  write_byte(object_file(fixture, path, content), 1, 1);
  fake_storage_fail(FAKE_RESTAGE, 1, 1, MC_IO);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, 2 * content->size);
  write_byte(path, 1, 1);
  fake_storage_fail(FAKE_STAGE_APPEND, 2, 1, MC_IO); /* or its journal not be begun */
  get_once(fixture, URL, content);
  assert_int_equal(stat_of(fixture, "storage_reserved_bytes"), 0);
}

static void an_object_that_another_process_removed_is_got_again(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_cache(fixture);
  get_once(fixture, URL, content);
  mc_storage *storage = tier_storage(fixture->cache->home);
  assert_int_equal(storage->ops->remove_object(storage, &content->digest, NULL), MC_OK);
  assert_false(get_once(fixture, URL, content));
}

/* ---- coordination ---- */

static void what_is_stored_is_served_without_coordination(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_coordination_fail(FAKE_LOOKUP, MC_UNAVAILABLE);
  fake_coordination_fail(FAKE_CLAIM, MC_UNAVAILABLE);
  fake_coordination_fail(FAKE_PUBLISH, MC_UNAVAILABLE);
  assert_true(get_once(fixture, URL, content));
  assert_int_equal(try_get(fixture, URL, MC_GET_REVALIDATE, NULL), MC_OK); /* stale, if need be */
  assert_int_equal(try_get(fixture, "fake://host/new", 0, NULL), MC_UNAVAILABLE);
}

static void a_lost_claim_costs_nothing_that_is_true(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_cache(fixture);
  fake_coordination_fail(FAKE_PUBLISH, MC_BUSY);
  get_once(fixture, URL, content);
  fake_coordination_fail(FAKE_PUBLISH, MC_OK);
  get_once(fixture, URL, content);
}

static void who_lost_the_claim_writes_no_record(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  mc_digest recorded = content->digest;
  mc_entry *entry;
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_change(content, CHUNK, 2);
  fake_coordination_fail(FAKE_RENEW, MC_BUSY);
  fake_coordination_fail(FAKE_PUBLISH, MC_BUSY);
  assert_int_equal(try_get(fixture, URL, MC_GET_REVALIDATE, NULL), MC_OK);
  close_cache(fixture);
  fake_coordination_fail(FAKE_RENEW, MC_OK);
  fake_coordination_fail(FAKE_PUBLISH, MC_OK);
  open_cache(fixture);
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_memory_equal(&entry->digest, &recorded, sizeof(recorded)); /* and not what it had got */
  mc_entry_free(entry);
}

static void a_claim_is_given_back_however_it_ends(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  mc_claim claim;
  char key[KEY_SIZE];
  key_of(key, URL);
  open_cache(fixture);
  mc_coordination *others = fake_coordination_inner();
  const mc_status ways[] = {MC_UNAVAILABLE, MC_PERMISSION_DENIED, MC_PROTOCOL};
  for (size_t i = 0; i < 3; i++) {
    content->open_fails = ways[i];
    assert_int_equal(try_get(fixture, URL, 0, NULL), ways[i]);
    assert_int_equal(others->ops->claim(others, key, &claim, NULL), MC_OK);
    assert_true(claim.granted);
    others->ops->abandon(others, key, claim.token);
  }
  content->open_fails = MC_OK;
  fake_coordination_fail(FAKE_PUBLISH, MC_NO_MEMORY);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_NO_MEMORY);
  fake_coordination_fail(FAKE_PUBLISH, MC_OK);
  assert_int_equal(others->ops->claim(others, key, &claim, NULL), MC_OK);
  assert_true(claim.granted);
  others->ops->abandon(others, key, claim.token);
  get_once(fixture, URL, content);
}

/* Another process publishes the same URL between our look and our claim. */
static void publish_elsewhere(void *user) {
  struct fixture *other = user;
  mc_entry *entry;
  char key[KEY_SIZE];
  key_of(key, URL);
  assert_int_equal(try_get(other, URL, 0, NULL), MC_OK);
  assert_int_equal(mc_stat(&entry, other->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  mc_coordination *shared = fake_coordination_inner();
  assert_int_equal(shared->ops->publish(shared, key, 0, entry, NULL), MC_OK);
  mc_entry_free(entry);
}

static void what_was_published_meanwhile_is_not_downloaded_again(void **state) {
  struct fixture *fixture = *state;
  struct fixture other = *fixture;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  other.options.coordination = "local";
  open_cache(&other);
  open_cache(fixture);
  fake_coordination_before_claim(publish_elsewhere, &other);
  assert_true(get_once(fixture, URL, content));
  assert_int_equal(content->opens, 1); /* the other's */
  close_cache(&other);
}

static void a_long_download_keeps_its_claim(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  struct pending pending;
  content->stalls = true;
  fixture->options.lease_ms = 150;
  open_cache(fixture);
  start_get(&pending, fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  fake_coordination_await(FAKE_RENEW, 2);
  fake_release(content);
  assert_int_equal(finish_get(&pending), MC_OK);
  mc_file_release(pending.file);
}

/* What has landed went with the stage: the next upstream's stage has nothing of it. */
static void the_next_one_begins_anew_after_a_commit(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK + 1, 1);
  fake_add(1, FILE_NAME, 2 * CHUNK + 1, 1);
  use_two_upstreams(fixture);
  open_cache(fixture);
  fake_storage_fail(FAKE_OPEN_OBJECT, 1, 1, MC_NOT_FOUND);
  get_once(fixture, URL, content);
  assert_int_equal(stat_of(fixture, "fallbacks_total"), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(a_stage_can_not_be_made),
      TEST(the_disk_is_full),
      TEST(the_journals_head_can_not_be_written),
      TEST(the_journal_can_not_be_written),
      TEST(the_record_can_not_be_written),
      TEST(a_confirmed_copy_is_current_though_that_can_not_be_written),
      TEST(it_can_not_be_committed),
      TEST(what_was_committed_can_not_be_opened),
      TEST(what_was_committed_has_gone),
      TEST(the_next_one_begins_anew_after_a_commit),
      TEST(a_missing_folder_is_not_a_missing_file),
      TEST(a_stage_can_not_be_resized),
      TEST(a_stage_can_not_be_resumed),
      TEST(a_damaged_object_can_not_be_staged_again),
      TEST(an_object_that_another_process_removed_is_got_again),
      TEST(what_is_stored_is_served_without_coordination),
      TEST(a_lost_claim_costs_nothing_that_is_true),
      TEST(who_lost_the_claim_writes_no_record),
      TEST(a_claim_is_given_back_however_it_ends),
      TEST(what_was_published_meanwhile_is_not_downloaded_again),
      TEST(a_long_download_keeps_its_claim),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
