/* Gets into a path or a buffer: from what is kept, straight from the upstream, and where there is no room to keep it.
 */
#include "tests/fakes/engine_fixture.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static mc_status get_into(struct fixture *fixture, mc_file **out, const char *path, void *buffer, size_t size,
                          uint32_t flags, mc_error *err) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  options.flags = flags;
  options.path = path;
  options.buffer = buffer;
  options.buffer_size = size;
  return mc_get(out, fixture->cache, URL, &options, err);
}

static void a_path_gets_a_copy(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK + 1, 1);
  char folder[256], path[256];
  mc_file *file;
  open_cache(fixture);
  assert_int_equal(mkdir(path_in(fixture, folder, "out"), 0755), 0);
  path_in(fixture, path, "out/model");
  assert_int_equal(get_into(fixture, &file, path, NULL, 0, 0, NULL), MC_OK);
  assert_file_is(path, content);
  assert_is(file, content);
  mc_file_release(file);
  assert_int_equal(get_into(fixture, NULL, path, NULL, 0, 0, NULL), MC_OK); /* over what is there */
  assert_int_equal(names_in(folder), 1);
  assert_int_equal(content->opens, 1);
}

static void a_path_that_can_not_be_written_leaves_nothing(void **state) {
  struct fixture *fixture = *state;
  char folder[256], path[256];
  fake_add(0, FILE_NAME, CHUNK, 1);
  open_cache(fixture);
  assert_int_equal(mkdir(path_in(fixture, folder, "out"), 0755), 0);
  assert_int_equal(mkdir(path_in(fixture, path, "out/model"), 0755), 0); /* a folder is in the way */
  assert_int_not_equal(get_into(fixture, NULL, path, NULL, 0, 0, NULL), MC_OK);
  assert_int_not_equal(get_into(fixture, NULL, path, NULL, 0, MC_GET_DIRECT, NULL), MC_OK);
  assert_int_not_equal(get_into(fixture, NULL, path_in(fixture, path, "nowhere/x"), NULL, 0, 0, NULL), MC_OK);
  assert_int_not_equal(get_into(fixture, NULL, path, NULL, 0, MC_GET_DIRECT, NULL), MC_OK);
  assert_int_equal(names_in(folder), 1);
}

static void a_buffer_gets_the_bytes(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK + 1, 1);
  uint8_t *buffer = malloc(content->size);
  mc_error error = MC_ERROR_INIT;
  open_cache(fixture);
  assert_int_equal(get_into(fixture, NULL, NULL, buffer, content->size, 0, NULL), MC_OK);
  assert_memory_equal(buffer, content->data, content->size);
  assert_int_equal(get_into(fixture, NULL, NULL, buffer, content->size - 1, 0, &error), MC_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(error.message, "buffer"));
  free(buffer);
}

/* A copy of what is at hand waits for nobody, but takes its time, and may queue. */
static void a_copy_ends_with_its_call(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK + 1, 1);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct pending pending;
  char folder[256], path[256];
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(mkdir(path_in(fixture, folder, "out"), 0755), 0);
  assert_int_equal(mc_cancel_new(&options.cancel, NULL), MC_OK);
  mc_cancel_trigger(options.cancel);
  for (int how = 0; how < 3; how++) {
    options.flags = how == 2 ? MC_GET_CACHED : 0;
    options.path = how == 0 ? path_in(fixture, path, "out/model") : NULL;
    options.buffer = how == 1 ? malloc(content->size) : NULL;
    options.buffer_size = content->size;
    start_get(&pending, fixture, URL, &options);
    assert_int_equal(finish_get(&pending), MC_CANCELLED);
    assert_null(pending.file);
    free(options.buffer);
  }
  assert_int_equal(names_in(folder), 0);
  mc_cancel_free(options.cancel);
}

static void a_direct_get_keeps_nothing(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK + 5, 1);
  uint8_t *buffer = malloc(content->size);
  char path[256];
  mc_file *file;
  open_cache(fixture);
  assert_int_equal(get_into(fixture, &file, path_in(fixture, path, "out"), NULL, 0, MC_GET_DIRECT, NULL), MC_OK);
  assert_file_is(path, content);
  assert_is(file, content);
  assert_string_equal(mc_file_path(file), path);
  assert_int_equal(mc_file_chunks(file)->count, 4);
  mc_file_release(file);
  assert_int_equal(get_into(fixture, &file, NULL, buffer, content->size, MC_GET_DIRECT, NULL), MC_OK);
  assert_memory_equal(buffer, content->data, content->size);
  assert_is(file, content);
  mc_file_release(file);
  assert_int_equal(get_into(fixture, NULL, NULL, buffer, 10, MC_GET_DIRECT, NULL), MC_RESOURCE_EXHAUSTED);
  content->unknown_size = true;
  assert_int_equal(get_into(fixture, NULL, NULL, buffer, 10, MC_GET_DIRECT, NULL), MC_RESOURCE_EXHAUSTED);
  assert_int_equal(get_into(fixture, NULL, NULL, buffer, content->size, MC_GET_DIRECT, NULL), MC_OK);
  assert_int_equal(stat_of(fixture, "storage_objects"), 0);
  free(buffer);
}

static void a_direct_get_uses_the_copy_at_hand(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  char path[256];
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(get_into(fixture, NULL, path_in(fixture, path, "out"), NULL, 0, MC_GET_DIRECT, NULL), MC_OK);
  assert_file_is(path, content);
  assert_int_equal(content->opens, 1);
}

static void a_direct_get_tells_its_progress(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct pending pending;
  char path[256];
  static const uint8_t none[32];
  content->stalls = true;
  content->stalls_at = 2 * CHUNK;
  open_cache(fixture);
  options.flags = MC_GET_DIRECT;
  options.path = path_in(fixture, path, "out");
  start_get_watched(&pending, fixture, URL, &options);
  await_phase(&pending, MC_PHASE_DOWNLOADING);
  fake_await(&content->stalled, 1);
  assert_int_equal(access(path, F_OK), -1); /* there when it is whole */
  fake_release(content);
  assert_int_equal(finish_get(&pending), MC_OK);
  assert_int_equal(pending.last.total, content->size);
  assert_memory_equal(pending.last.flight, none, 32); /* nobody can follow it */
  assert_file_is(path, content);
  mc_file_release(pending.file);
}

static void a_direct_get_ends_only_when_nobody_writes_any_more(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct pending pending;
  content->stalls = true;
  content->stalls_at = CHUNK;
  open_cache(fixture);
  for (int how = 0; how < 3; how++) {
    uint8_t *buffer = malloc(content->size);
    options.flags = MC_GET_DIRECT;
    options.buffer = buffer;
    options.buffer_size = content->size;
    options.timeout_ms = how == 2 ? 30 : 0;
    options.cancel = NULL;
    if (how == 1) assert_int_equal(mc_cancel_new(&options.cancel, NULL), MC_OK);
    start_get(&pending, fixture, URL, &options);
    if (how < 2) fake_await(&content->stalled, 1);
    if (how == 0) mc_request_cancel(pending.request);
    if (how == 1) mc_cancel_trigger(options.cancel);
    assert_int_equal(finish_get(&pending), how == 2 ? MC_DEADLINE_EXCEEDED : MC_CANCELLED);
    free(buffer); /* a sanitizer would tell if anybody still wrote there */
    assert_int_equal(fake_count(&content->opens), fake_count(&content->closes));
    mc_cancel_free(options.cancel);
  }
}

static void direct_gets_queue_with_the_others(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1), *other = fake_add(0, "host/other", 10, 2);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct pending first, second;
  uint8_t buffer[10];
  content->stalls = true;
  fixture->options.flights = 1;
  open_cache(fixture);
  start_get(&first, fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  options.flags = MC_GET_DIRECT;
  options.buffer = buffer;
  options.buffer_size = sizeof(buffer);
  start_get_watched(&second, fixture, "fake://host/other", &options);
  await_phase(&second, MC_PHASE_QUEUED);
  assert_int_equal(other->opens, 0);
  fake_release(content);
  assert_int_equal(finish_get(&first), MC_OK);
  assert_int_equal(finish_get(&second), MC_OK);
  assert_memory_equal(buffer, other->data, 10);
  mc_file_release(first.file);
  mc_file_release(second.file);
}

static void without_room_to_keep_it_goes_straight(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  char path[256];
  mc_error error = MC_ERROR_INIT;
  fixture->options.storage_capacity = CHUNK;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, &error), MC_NO_SPACE);
  assert_non_null(strstr(error.message, "storage_capacity"));
  assert_int_equal(get_into(fixture, NULL, path_in(fixture, path, "out"), NULL, 0, 0, NULL), MC_OK);
  assert_file_is(path, content);
}

struct slow_watcher {
  atomic_bool hold;
  atomic_uint reports;
};

static void slow_progress(void *user, const mc_progress *progress) {
  struct slow_watcher *watcher = user;
  (void)progress;
  atomic_fetch_add(&watcher->reports, 1);
  while (atomic_load(&watcher->hold)) usleep(1000);
}

static void await_slow(struct slow_watcher *watcher, unsigned reports) {
  for (int i = 0; i < 60000 && atomic_load(&watcher->reports) < reports; i++) usleep(1000);
  assert_true(atomic_load(&watcher->reports) >= reports);
}

/* The flight that could not keep it ends while the caller is told of progress: what follows is told of, too, and `done`
 * is called once, after the last byte was written. */
static void without_room_while_progress_is_told(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  struct slow_watcher watcher = {true, 0};
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct pending pending;
  uint64_t count;
  fixture->options.storage_capacity = CHUNK;
  content->stalls = true;
  content->opens_say = "held back";
  open_cache(fixture);
  options.buffer = malloc(content->size);
  options.buffer_size = content->size;
  options.progress = slow_progress;
  options.user = &watcher;
  start_get(&pending, fixture, URL, &options);
  fake_await(&content->stalled, 1);
  await_slow(&watcher, 1);
  fake_release(content);
  while (stat_of(fixture, "waiting_requests")) usleep(1000); /* until the flight has ended without room */
  assert_int_equal(read(content->gate, &count, sizeof(count)), sizeof(count));
  fake_lock();
  content->stalls = true;
  fake_unlock();
  atomic_store(&watcher.hold, false);
  fake_await(&content->opens, 2);
  fake_await(&content->stalled, 1);
  unsigned reports = atomic_load(&watcher.reports);
  await_slow(&watcher, reports + 2);
  assert_false(is_done(&pending));
  fake_release(content);
  assert_int_equal(finish_get(&pending), MC_OK);
  assert_memory_equal(options.buffer, content->data, content->size);
  mc_file_release(pending.file);
  free(options.buffer);
}

static void a_direct_get_that_is_queued_ends_at_once(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1), *other = fake_add(0, "host/other", 10, 2);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct pending first, second;
  content->stalls = true;
  fixture->options.flights = 1;
  open_cache(fixture);
  start_get(&first, fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  options.flags = MC_GET_DIRECT;
  for (int how = 0; how < 3; how++) {
    options.buffer = malloc(10);
    options.buffer_size = 10;
    options.timeout_ms = how == 0 ? 30 : 0;
    options.cancel = NULL;
    if (how == 1) assert_int_equal(mc_cancel_new(&options.cancel, NULL), MC_OK);
    start_get(&second, fixture, "fake://host/other", &options);
    if (how == 1) mc_cancel_trigger(options.cancel);
    if (how == 2) mc_request_cancel(second.request);
    assert_int_equal(finish_get(&second), how == 0 ? MC_DEADLINE_EXCEEDED : MC_CANCELLED);
    free(options.buffer);
    mc_cancel_free(options.cancel);
  }
  fake_release(content);
  assert_int_equal(finish_get(&first), MC_OK);
  mc_file_release(first.file);
  close_cache(fixture);
  assert_int_equal(other->opens, 0);
}

static void a_cache_that_keeps_nothing_still_gets(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  char path[256];
  fixture->options.storage = "none";
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_UNSUPPORTED);
  assert_int_equal(get_into(fixture, NULL, path_in(fixture, path, "out"), NULL, 0, 0, NULL), MC_OK);
  assert_file_is(path, content);
}

static void what_makes_no_sense_is_refused(void **state) {
  struct fixture *fixture = *state;
  uint8_t buffer[1];
  fake_add(0, FILE_NAME, 1, 1);
  open_cache(fixture);
  assert_int_equal(get_into(fixture, NULL, "/tmp/x", buffer, 1, 0, NULL), MC_INVALID_ARGUMENT);
  assert_int_equal(get_into(fixture, NULL, NULL, NULL, 0, MC_GET_DIRECT, NULL), MC_INVALID_ARGUMENT);
}

static void content_that_changes_leaves_no_mixture(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  char path[256];
  content->changes = 1;
  open_cache(fixture);
  assert_int_equal(get_into(fixture, NULL, path_in(fixture, path, "out"), NULL, 0, MC_GET_DIRECT, NULL), MC_OK);
  assert_file_is(path, content);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(a_path_gets_a_copy),
      TEST(a_path_that_can_not_be_written_leaves_nothing),
      TEST(a_buffer_gets_the_bytes),
      TEST(a_copy_ends_with_its_call),
      TEST(a_direct_get_keeps_nothing),
      TEST(a_direct_get_uses_the_copy_at_hand),
      TEST(a_direct_get_tells_its_progress),
      TEST(a_direct_get_ends_only_when_nobody_writes_any_more),
      TEST(direct_gets_queue_with_the_others),
      TEST(without_room_to_keep_it_goes_straight),
      TEST(without_room_while_progress_is_told),
      TEST(a_direct_get_that_is_queued_ends_at_once),
      TEST(a_cache_that_keeps_nothing_still_gets),
      TEST(what_makes_no_sense_is_refused),
      TEST(content_that_changes_leaves_no_mixture),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
