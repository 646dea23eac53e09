/* Downloads that were interrupted, by a failure, a cancellation or a kill, and go on. */
#include "tests/fakes/engine_fixture.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Let a download fail after three of five chunks, and close the cache. */
static struct fake_content *interrupt(struct fixture *fixture) {
  struct fake_content *content = fake_add(0, FILE_NAME, 5 * CHUNK, 1);
  content->fails = 100;
  content->fails_at = 3 * CHUNK;
  content->fails_with = MC_UNAVAILABLE;
  fixture->options.parallelism = 1;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_UNAVAILABLE);
  close_cache(fixture);
  content->fails = 0;
  fake_reset_counts(content);
  return content;
}

/* The data of the one stage that was left. */
static const char *stage_data(struct fixture *fixture, char path[256]) {
  char folder[256];
  path_in(fixture, folder, "storage/stage");
  DIR *dir = opendir(folder);
  assert_non_null(dir);
  unsigned found = 0;
  for (struct dirent *entry; (entry = readdir(dir));) {
    if (entry->d_name[0] == '.') continue;
    found++;
    assert_true(snprintf(path, 256, "%.80s/%.160s/data", folder, entry->d_name) < 256);
  }
  closedir(dir);
  assert_int_equal(found, 1);
  return path;
}

static void assert_no_stage_is_left(struct fixture *fixture) {
  char folder[256];
  assert_int_equal(names_in(path_in(fixture, folder, "storage/stage")), 0);
}

static void it_goes_on_where_it_was(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = interrupt(fixture);
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, 2 * CHUNK);
  assert_int_equal(content->lowest_read, 3 * CHUNK);
  assert_int_equal(stat_of(fixture, "resumed_bytes_total"), 3 * CHUNK);
  assert_no_stage_is_left(fixture);
}

static void another_version_begins_anew(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = interrupt(fixture);
  fake_change(content, 5 * CHUNK, 2);
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, content->size);
  assert_int_equal(stat_of(fixture, "resumed_bytes_total"), 0);
  assert_no_stage_is_left(fixture);
}

static void without_validators_nothing_is_trusted(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = interrupt(fixture);
  memset(&content->validators, 0, sizeof(content->validators));
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, content->size);
}

static void a_damaged_chunk_of_the_stage_comes_again(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = interrupt(fixture);
  char path[256];
  write_byte(stage_data(fixture, path), CHUNK + 100, 0x80);
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, 3 * CHUNK);
  assert_int_equal(content->chunk_bytes[1], CHUNK);
  assert_int_equal(content->chunk_bytes[0], 0);
}

static const mc_upstream_cache_ops no_cache_ops;
static mc_upstream_ops trusted;

static mc_status open_trusted(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  mc_status status = fake_upstream.open(out, config, err);
  if (!status) (*out)->ops = &trusted;
  return status;
}

/* What was kept has the validators of the version that is there now, and is of another: as with an origin whose times
 * are of one second. A cache, whose digest is taken for true, tells the chunks. */
static void chunks_of_another_content_come_again(void **state) {
  static const mc_upstream_ops *const upstreams[] = {&trusted, NULL};
  struct fixture *fixture = *state;
  for (int is_trusted = 0; is_trusted < 2; is_trusted++) {
    struct fake_content *content = interrupt(fixture);
    mc_validators validators = content->validators;
    fake_change(content, 5 * CHUNK, 2);
    content->validators = validators;
    content->tells_digest = content->tells_chunks = true;
    trusted = fake_upstream;
    trusted.flags |= MC_UPSTREAM_CACHE;
    trusted.cache = &no_cache_ops;
    trusted.open = open_trusted;
    const mc_upstream_ops *const *before = fixture->options.upstream_backends;
    if (is_trusted) fixture->options.upstream_backends = upstreams;
    open_cache(fixture);
    get_once(fixture, URL, content);
    uint64_t bytes;
    assert_int_equal(mc_evict(&bytes, fixture->cache, URL, NULL), MC_OK);
    close_cache(fixture);
    fixture->options.upstream_backends = before;
    fake_clear();
  }
}

static void a_stage_that_was_cut_is_used_as_far_as_it_goes(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = interrupt(fixture);
  char path[256];
  assert_int_equal(truncate(stage_data(fixture, path), 2 * CHUNK - 1), 0);
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, 4 * CHUNK);
}

static void leaving_while_it_looks_at_the_stage_does_not_lose_it(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = interrupt(fixture);
  open_cache(fixture);
  fake_storage_fail(FAKE_RECORD_GET, 1, 100, MC_NOT_FOUND); /* nothing is known, so that the stage is looked for */
  fake_storage_hold(FAKE_STAGE_RESUME, true);
  struct pending pending;
  start_get(&pending, fixture, URL, NULL);
  fake_storage_await_held(1);
  mc_request_cancel(pending.request);
  assert_int_equal(finish_get(&pending), MC_CANCELLED);
  fake_storage_hold(FAKE_STAGE_RESUME, false);
  fake_await(&content->closes, 1);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, 2 * CHUNK);
}

static void an_origin_without_ranges_begins_anew(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = interrupt(fixture);
  content->no_ranges = true;
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, content->size);
}

static void a_killed_process_leaves_what_it_had(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 6 * CHUNK, 1);
  int pipes[2];
  char ready;
  content->stalls = true;
  content->stalls_at = 4 * CHUNK;
  fixture->options.parallelism = 1;
  assert_int_equal(pipe(pipes), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct pending pending;
    open_cache(fixture);
    start_get(&pending, fixture, URL, NULL);
    fake_await(&content->stalled, 1);
    if (write(pipes[1], "r", 1) != 1) _exit(1);
    for (;;) pause();
  }
  assert_int_equal(read(pipes[0], &ready, 1), 1);
  assert_int_equal(kill(child, SIGKILL), 0);
  assert_int_equal(waitpid(child, NULL, 0), child);
  close(pipes[0]);
  close(pipes[1]);
  content->stalls = false;
  open_cache(fixture);
  assert_int_equal(try_get(fixture, URL, MC_GET_CACHED, NULL), MC_NOT_FOUND); /* half a file is none */
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, 2 * CHUNK); /* of this process: the child's copy of the counters died with it */
  assert_no_stage_is_left(fixture);
}

static void what_was_finished_is_not_downloaded_again(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1);
  open_cache(fixture);
  get_once(fixture, URL, content);
  for (int i = 0; i < 3; i++) {
    close_cache(fixture);
    open_cache(fixture);
    assert_true(get_once(fixture, URL, content));
  }
  assert_int_equal(content->opens, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(a_killed_process_leaves_what_it_had), /* first: it forks while there are no threads */
      TEST(it_goes_on_where_it_was),
      TEST(another_version_begins_anew),
      TEST(without_validators_nothing_is_trusted),
      TEST(a_damaged_chunk_of_the_stage_comes_again),
      TEST(chunks_of_another_content_come_again),
      TEST(a_stage_that_was_cut_is_used_as_far_as_it_goes),
      TEST(leaving_while_it_looks_at_the_stage_does_not_lose_it),
      TEST(an_origin_without_ranges_begins_anew),
      TEST(what_was_finished_is_not_downloaded_again),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
