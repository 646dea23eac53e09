/* Damage: at rest, on the wire, at the upstream. Never served; mended by as little as it takes. */
#include "tests/fakes/engine_fixture.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void one_flipped_byte_costs_one_chunk(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK + 9, 1);
  char path[256];
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_reset_counts(content);
  write_byte(object_file(fixture, path, content), 2 * CHUNK + 17, 4);
  assert_false(get_once(fixture, URL, content));
  assert_int_equal(content->bytes, CHUNK);
  assert_int_equal(content->chunk_bytes[2], CHUNK);
  assert_int_equal(stat_of(fixture, "corrupt_objects_total"), 1);
  assert_true(get_once(fixture, URL, content)); /* mended */
  assert_int_equal(stat_of(fixture, "storage_reserved_bytes"), 0);
}

static void damage_is_found_by_a_new_process(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  char path[256];
  open_cache(fixture);
  get_once(fixture, URL, content);
  close_cache(fixture);
  write_byte(object_file(fixture, path, content), 5, 1);
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, MC_GET_CACHED, NULL), MC_NOT_FOUND); /* rather nothing than this */
  get_once(fixture, URL, content);
}

static void a_cut_object_is_mended(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK, 1);
  char path[256];
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(chmod(object_file(fixture, path, content), 0644), 0);
  assert_int_equal(truncate(path, CHUNK + 1), 0);
  get_once(fixture, URL, content);
}

static void a_lost_table_costs_the_object(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  char path[256];
  open_cache(fixture);
  get_once(fixture, URL, content);
  close_cache(fixture);
  strcat((char *)object_file(fixture, path, content), ".meta");
  write_byte(path, 20, 1);
  open_cache(fixture);
  assert_false(get_once(fixture, URL, content));
}

static void damage_while_it_is_read_harms_no_reader_to_come(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  char path[256];
  open_cache(fixture);
  mc_file *reader = get(fixture, URL, content);
  write_byte(object_file(fixture, path, content), 3, 1);
  get_once(fixture, URL, content); /* in place: what the first reader has mapped is right again, too */
  assert_is(reader, content);
  mc_file_release(reader);
}

static void damage_of_content_that_has_changed_since(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  char path[256];
  open_cache(fixture);
  get_once(fixture, URL, content);
  write_byte(object_file(fixture, path, content), 3, 1);
  fake_change(content, 3 * CHUNK, 2);
  get_once(fixture, URL, content);
}

static void damage_while_the_origin_is_away(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  char path[256];
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_reset_counts(content);
  write_byte(object_file(fixture, path, content), 3, 1);
  content->open_fails = MC_UNAVAILABLE;
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_UNAVAILABLE);
  content->open_fails = MC_OK;
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, CHUNK); /* the good half was kept */
}

static void damage_on_the_wire_comes_again(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  content->tells_chunks = true;
  content->flips = 3;
  content->flips_chunk = 1;
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, content->size + 3 * CHUNK);
  assert_int_equal(stat_of(fixture, "corrupt_chunks_total"), 3);
}

static void damage_that_does_not_end_is_given_up(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  content->tells_chunks = true;
  content->flips = 1000000;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_CORRUPT);
  assert_true(content->bytes < 30 * CHUNK);
  assert_int_equal(stat_of(fixture, "storage_objects"), 0);
  fake_lock();
  content->flips = 0;
  fake_unlock();
  get_once(fixture, URL, content);
}

static void damage_that_only_the_end_tells_comes_again(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK, 1);
  content->tells_chunks = content->tells_late = true;
  content->flips = 1;
  content->flips_chunk = 1;
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, content->size + CHUNK);
}

static void a_digest_that_does_not_match_stores_nothing(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  char folder[256];
  content->tells_wrong_digest = true;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_CORRUPT);
  assert_int_equal(stat_of(fixture, "storage_objects"), 0);
  assert_int_equal(names_in(path_in(fixture, folder, "storage/stage")), 0); /* to resume it would be as wrong */
  content->tells_wrong_digest = false;
  content->tells_digest = true;
  fake_reset_counts(content);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, content->size);
}

static void content_that_is_here_already_is_not_downloaded(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1), *same = fake_add(0, "host/same", CHUNK, 1);
  same->tells_digest = true;
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_true(get_once(fixture, "fake://host/same", same));
  assert_int_equal(same->bytes, 0);
  assert_int_equal(stat_of(fixture, "storage_objects"), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(one_flipped_byte_costs_one_chunk),
      TEST(damage_is_found_by_a_new_process),
      TEST(a_cut_object_is_mended),
      TEST(a_lost_table_costs_the_object),
      TEST(damage_while_it_is_read_harms_no_reader_to_come),
      TEST(damage_of_content_that_has_changed_since),
      TEST(damage_while_the_origin_is_away),
      TEST(damage_on_the_wire_comes_again),
      TEST(damage_that_does_not_end_is_given_up),
      TEST(damage_that_only_the_end_tells_comes_again),
      TEST(a_digest_that_does_not_match_stores_nothing),
      TEST(content_that_is_here_already_is_not_downloaded),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
