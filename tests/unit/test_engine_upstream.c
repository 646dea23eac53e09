/* What upstreams do to a download: fail, change, send others; and who follows it meanwhile. */
#include "tests/fakes/engine_fixture.h"

#include <string.h>
#include <unistd.h>

#include "engine/download.h"
#include "engine/engine.h"

static void the_first_upstream_is_asked_first(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *first = fake_add(0, FILE_NAME, 100, 1), *second = fake_add(1, FILE_NAME, 100, 2);
  use_two_upstreams(fixture);
  open_cache(fixture);
  get_once(fixture, URL, first);
  assert_int_equal(second->opens, 0);
}

static void the_next_one_takes_over(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *first = fake_add(0, FILE_NAME, 100, 1), *second = fake_add(1, FILE_NAME, 100, 2);
  first->open_fails = MC_UNAVAILABLE;
  use_two_upstreams(fixture);
  open_cache(fixture);
  get_once(fixture, URL, second);
  assert_int_equal(stat_of(fixture, "fallbacks_total"), 1);
}

static void it_goes_on_with_what_the_first_one_sent(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *first = fake_add(0, FILE_NAME, 4 * CHUNK, 1), *second = fake_add(1, FILE_NAME, 4 * CHUNK, 1);
  first->fails = 1000;
  first->fails_at = 2 * CHUNK;
  first->fails_with = MC_UNAVAILABLE;
  fixture->options.parallelism = 1;
  use_two_upstreams(fixture);
  open_cache(fixture);
  get_once(fixture, URL, second);
  assert_int_equal(second->bytes, 2 * CHUNK);
}

static void of_another_version_it_takes_nothing(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *first = fake_add(0, FILE_NAME, 4 * CHUNK, 1), *second = fake_add(1, FILE_NAME, 4 * CHUNK, 2);
  first->fails = 1000;
  first->fails_at = 2 * CHUNK;
  first->fails_with = MC_UNAVAILABLE;
  fixture->options.parallelism = 1;
  use_two_upstreams(fixture);
  open_cache(fixture);
  get_once(fixture, URL, second);
  assert_int_equal(second->bytes, second->size);
}

static void an_answer_is_not_asked_of_another(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *first = fake_add(0, FILE_NAME, 100, 1), *second = fake_add(1, FILE_NAME, 100, 2);
  use_two_upstreams(fixture);
  open_cache(fixture);
  first->missing = true;
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_NOT_FOUND);
  first->missing = false;
  first->open_fails = MC_PERMISSION_DENIED;
  assert_int_equal(try_get(fixture, URL, MC_GET_REVALIDATE, NULL), MC_PERMISSION_DENIED);
  assert_int_equal(second->opens, 0);
}

static void schemes_are_what_they_were_set_to(void **state) {
  struct fixture *fixture = *state;
  mc_error error = MC_ERROR_INIT;
  fixture->options.schemes = "http, https";
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, &error), MC_PERMISSION_DENIED);
  assert_non_null(strstr(error.message, "schemes"));
  assert_int_equal(try_get(fixture, "gopher://host/x", 0, NULL), MC_UNSUPPORTED);
  assert_int_equal(try_get(fixture, "no url at all", 0, NULL), MC_INVALID_ARGUMENT);
}

static void content_that_changes_is_begun_anew(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  content->changes = 2;
  fixture->options.parallelism = 1; /* so that one read sees one change */
  open_cache(fixture);
  get_once(fixture, URL, content); /* all of the last version, nothing of those before */
  assert_int_equal(stat_of(fixture, "restarts_total"), 2);
}

static void content_that_never_stands_still_is_given_up(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  char folder[256];
  content->changes = 1000;
  fixture->options.parallelism = 1;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_CHANGED);
  assert_int_equal(content->opens, 4);
  assert_int_equal(stat_of(fixture, "storage_objects"), 0);
  close_cache(fixture);
  assert_true(names_in(path_in(fixture, folder, "storage/stage")) <= 1);
}

static void a_failing_lane_ends_them_all(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 40 * CHUNK, 1);
  content->fails = 1;
  content->fails_at = 0;
  content->fails_with = MC_PERMISSION_DENIED;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_PERMISSION_DENIED);
  assert_int_equal(content->opens, content->closes);
  get_once(fixture, URL, content);
}

/* ---- following ---- */

struct follow {
  struct flight *flight;
  uint32_t version;
  int fd;
  pthread_mutex_t lock;
  pthread_cond_t woken;
  unsigned wakes;
};

static void wake(void *arg) {
  struct follow *follow = arg;
  pthread_mutex_lock(&follow->lock);
  follow->wakes++;
  pthread_cond_signal(&follow->woken);
  pthread_mutex_unlock(&follow->lock);
}

static void follow_begin(struct follow *follow, struct fixture *fixture, struct pending *pending) {
  *follow = (struct follow){.lock = PTHREAD_MUTEX_INITIALIZER, .woken = PTHREAD_COND_INITIALIZER};
  await_phase(pending, MC_PHASE_DOWNLOADING);
  mc_progress progress = last_progress(pending, NULL);
  follow->flight = flight_find(fixture->cache, progress.flight);
  assert_non_null(follow->flight);
  follow->fd = download_view(follow->flight->download, &follow->version);
  assert_true(follow->fd >= 0);
}

static mc_status ready(struct follow *follow, uint64_t offset, uint64_t *bytes) {
  *bytes = UINT64_MAX - offset;
  return download_ready(follow->flight->download, follow->version, offset, bytes, wake, follow, NULL);
}

static void await_wake(struct follow *follow) {
  pthread_mutex_lock(&follow->lock);
  while (!follow->wakes) pthread_cond_wait(&follow->woken, &follow->lock);
  follow->wakes = 0;
  pthread_mutex_unlock(&follow->lock);
}

static void follow_end(struct follow *follow) {
  download_unwatch(follow->flight->download, follow);
  close(follow->fd);
  flight_release(follow->flight);
}

static void who_follows_gets_chunks_as_they_land(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK + 7, 1);
  struct pending pending;
  struct follow follow;
  uint64_t bytes;
  uint8_t byte;
  content->stalls = true;
  content->stalls_at = 2 * CHUNK;
  fixture->options.parallelism = 1;
  open_cache(fixture);
  start_get_watched(&pending, fixture, URL, NULL);
  follow_begin(&follow, fixture, &pending);
  fake_await(&content->stalled, 1);
  while (ready(&follow, 0, &bytes) == MC_OK && bytes < 2 * CHUNK) await_wake(&follow);
  assert_int_equal(pread(follow.fd, &byte, 1, CHUNK + 5), 1);
  assert_int_equal(byte, content->data[CHUNK + 5]);
  assert_int_equal(ready(&follow, 2 * CHUNK, &bytes), MC_OK);
  assert_int_equal(bytes, 0);
  fake_release(content);
  await_wake(&follow);
  assert_int_equal(finish_get(&pending), MC_OK);
  assert_int_equal(ready(&follow, 2 * CHUNK, &bytes), MC_OK); /* all of it, also when the flight has ended */
  assert_int_equal(bytes, CHUNK + 7);
  assert_int_equal(pread(follow.fd, &byte, 1, 3 * CHUNK + 6), 1);
  assert_int_equal(byte, content->data[3 * CHUNK + 6]);
  follow_end(&follow);
  mc_file_release(pending.file);
}

static void who_follows_what_changes_must_ask_again(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  struct pending pending;
  struct follow follow;
  uint8_t id[32];
  uint64_t bytes;
  content->stalls = true;
  content->stalls_at = CHUNK;
  fixture->options.parallelism = 1;
  open_cache(fixture);
  start_get_watched(&pending, fixture, URL, NULL);
  follow_begin(&follow, fixture, &pending);
  mc_progress progress = last_progress(&pending, NULL);
  memcpy(id, progress.flight, 32);
  fake_await(&content->stalled, 1);
  while (ready(&follow, CHUNK, &bytes) == MC_OK && bytes) continue;
  fake_change(content, 4 * CHUNK, 2);
  fake_release(content);
  await_wake(&follow);
  assert_int_equal(ready(&follow, CHUNK, &bytes), MC_UNAVAILABLE); /* not a byte of the other content */
  assert_int_equal(finish_get(&pending), MC_OK);
  assert_is(pending.file, content);
  assert_null(flight_find(fixture->cache, id));
  follow_end(&follow);
  mc_file_release(pending.file);
}

static void who_follows_what_fails_is_told(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  struct pending pending;
  struct follow follow;
  uint64_t bytes;
  content->stalls = true;
  open_cache(fixture);
  start_get_watched(&pending, fixture, URL, NULL);
  follow_begin(&follow, fixture, &pending);
  assert_int_equal(ready(&follow, 0, &bytes), MC_OK);
  assert_int_equal(bytes, 0);
  mc_request_cancel(pending.request);
  assert_int_equal(finish_get(&pending), MC_CANCELLED);
  await_wake(&follow);
  assert_int_equal(ready(&follow, 0, &bytes), MC_UNAVAILABLE);
  follow_end(&follow);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(the_first_upstream_is_asked_first),
      TEST(the_next_one_takes_over),
      TEST(it_goes_on_with_what_the_first_one_sent),
      TEST(of_another_version_it_takes_nothing),
      TEST(an_answer_is_not_asked_of_another),
      TEST(schemes_are_what_they_were_set_to),
      TEST(content_that_changes_is_begun_anew),
      TEST(content_that_never_stands_still_is_given_up),
      TEST(a_failing_lane_ends_them_all),
      TEST(who_follows_gets_chunks_as_they_land),
      TEST(who_follows_what_changes_must_ask_again),
      TEST(who_follows_what_fails_is_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
