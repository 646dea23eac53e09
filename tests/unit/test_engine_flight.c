/* Flights: one download for all who ask, and every way in which those who wait can leave. */
#include "tests/fakes/engine_fixture.h"

#include <stdlib.h>
#include <string.h>

#define HERD 64

static void a_herd_costs_one_download(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK + 5, 1);
  struct pending herd[HERD];
  content->stalls = true;
  open_cache(fixture);
  for (int i = 0; i < HERD; i++) start_get(&herd[i], fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  assert_int_equal(stat_of(fixture, "waiting_requests"), HERD);
  fake_release(content);
  for (int i = 0; i < HERD; i++) {
    assert_int_equal(finish_get(&herd[i]), MC_OK);
    assert_is(herd[i].file, content);
    mc_file_release(herd[i].file);
  }
  assert_int_equal(content->opens, 1);
  assert_int_equal(content->bytes, content->size);
  for (uint32_t i = 0; i < 4; i++) assert_int_equal(content->chunk_bytes[i], chunk_length(content->size, i));
  assert_int_equal(stat_of(fixture, "downloads_total"), 1);
  assert_int_equal(stat_of(fixture, "misses_total"), HERD);
  assert_int_equal(stat_of(fixture, "waiting_requests"), 0);
  assert_true(get_once(fixture, URL, content)); /* and the next one none */
  assert_int_equal(content->opens, 1);
}

static void a_waiter_leaves_and_the_others_go_on(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  struct pending one, other;
  content->stalls = true;
  open_cache(fixture);
  start_get(&one, fixture, URL, NULL);
  start_get(&other, fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  mc_request_cancel(one.request);
  mc_request_cancel(one.request); /* twice is fine */
  assert_int_equal(finish_get(&one), MC_CANCELLED);
  assert_false(is_done(&other));
  fake_release(content);
  assert_int_equal(finish_get(&other), MC_OK);
  mc_file_release(other.file);
  assert_int_equal(content->opens, 1);
}

static void the_last_waiter_stops_the_flight(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 4 * CHUNK, 1);
  struct pending pending;
  content->stalls = true;
  content->stalls_at = 2 * CHUNK;
  fixture->options.parallelism = 1;
  open_cache(fixture);
  start_get(&pending, fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  mc_request_cancel(pending.request);
  assert_int_equal(finish_get(&pending), MC_CANCELLED);
  fake_await(&content->closes, 1); /* nothing was released: it was the cancellation */
  /* Whoever comes next goes on with what has landed, also while the first is still winding up. */
  fake_release(content);
  get_once(fixture, URL, content);
  assert_int_equal(content->bytes, content->size);
  assert_int_equal(stat_of(fixture, "resumed_bytes_total"), 2 * CHUNK);
}

static void a_cancel_of_the_callers_own_ends_the_call(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct pending pending;
  content->stalls = true;
  open_cache(fixture);
  assert_int_equal(mc_cancel_new(&options.cancel, NULL), MC_OK);
  start_get(&pending, fixture, URL, &options);
  fake_await(&content->stalled, 1);
  mc_cancel_trigger(options.cancel);
  assert_int_equal(finish_get(&pending), MC_CANCELLED);
  assert_null(pending.file);
  assert_int_equal(mc_get(NULL, fixture->cache, URL, &options, NULL), MC_CANCELLED); /* triggered from the start */
  fake_release(content);
  mc_cancel_free(options.cancel);
}

static void a_deadline_ends_the_call_alone(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct pending late, patient;
  mc_error error = MC_ERROR_INIT;
  content->stalls = true;
  open_cache(fixture);
  start_get(&patient, fixture, URL, NULL);
  options.timeout_ms = 20;
  start_get(&late, fixture, URL, &options);
  assert_int_equal(finish_get(&late), MC_DEADLINE_EXCEEDED);
  assert_int_equal(late.error.status, MC_DEADLINE_EXCEEDED);
  assert_int_equal(mc_get(NULL, fixture->cache, URL, &options, &error), MC_DEADLINE_EXCEEDED);
  assert_false(is_done(&patient));
  fake_release(content);
  assert_int_equal(finish_get(&patient), MC_OK);
  mc_file_release(patient.file);
}

static void progress_tells_phase_reason_and_bytes(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 2 * CHUNK, 1), *other = fake_add(0, "host/other", 1, 2);
  struct pending pending, queued;
  char reason[128];
  static const uint8_t none[32];
  content->stalls = true;
  content->stalls_at = CHUNK;
  fixture->options.flights = 1;
  open_cache(fixture);
  start_get_watched(&pending, fixture, URL, NULL);
  await_phase(&pending, MC_PHASE_DOWNLOADING);
  fake_await(&content->stalled, 1);
  start_get_watched(&queued, fixture, "fake://host/other", NULL);
  await_phase(&queued, MC_PHASE_QUEUED);
  last_progress(&queued, reason);
  assert_non_null(strstr(reason, "waiting for a free place"));
  fake_release(content);
  assert_int_equal(finish_get(&pending), MC_OK);
  assert_int_equal(finish_get(&queued), MC_OK);
  assert_int_equal(pending.last.total, content->size);
  assert_true(pending.last.bytes <= content->size);
  assert_memory_not_equal(pending.last.flight, none, 32); /* can be followed */
  assert_string_equal(pending.last.validators.etag, content->validators.etag);
  assert_int_equal(other->opens, 1);
  mc_file_release(pending.file);
  mc_file_release(queued.file);
}

static void those_who_wait_for_another_process_are_told_so(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  struct pending pending;
  mc_claim claim;
  char key[KEY_SIZE], reason[128];
  open_cache(fixture);
  key_of(key, URL);
  mc_coordination *others = fake_coordination_inner();
  assert_int_equal(others->ops->claim(others, key, &claim, NULL), MC_OK);
  start_get_watched(&pending, fixture, URL, NULL);
  await_phase(&pending, MC_PHASE_WAITING);
  last_progress(&pending, reason);
  assert_string_equal(reason, "another process downloads it");
  assert_int_equal(content->opens, 0);
  others->ops->abandon(others, key, claim.token); /* it gave up: the claim passes on */
  assert_int_equal(finish_get(&pending), MC_OK);
  assert_is(pending.file, content);
  mc_file_release(pending.file);
}

static void what_a_peer_waits_for_is_passed_on(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  uint8_t buffer[10];
  struct pending pending;
  char reason[128];
  content->opens_say = "queued behind 3 others";
  open_cache(fixture);
  for (int direct = 0; direct < 2; direct++) {
    content->stalls = true;
    options.flags = direct ? MC_GET_DIRECT : MC_GET_REVALIDATE;
    options.buffer = direct ? buffer : NULL;
    options.buffer_size = sizeof(buffer);
    start_get_watched(&pending, fixture, direct ? "fake://host/direct" : URL, &options);
    fake_await(&content->stalled, 1);
    mc_progress progress;
    do {
      await_reports(&pending);
      progress = last_progress(&pending, reason);
    } while (progress.total != 70);
    assert_string_equal(reason, content->opens_say);
    assert_int_equal(progress.phase, MC_PHASE_ASKING);
    assert_int_equal(progress.bytes, 7);
    fake_release(content);
    assert_int_equal(finish_get(&pending), MC_OK);
    mc_file_release(pending.file);
    if (!direct) {
      content = fake_add(0, "host/direct", 10, 2);
      content->opens_say = "the peer looks for it";
    }
  }
}

static void what_waits_is_limited(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  struct pending one, two, three;
  content->stalls = true;
  fixture->options.waiters = 2;
  open_cache(fixture);
  start_get(&one, fixture, URL, NULL);
  start_get(&two, fixture, URL, NULL);
  start_get(&three, fixture, URL, NULL);
  assert_int_equal(finish_get(&three), MC_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(three.error.message, "waiters"));
  mc_request_cancel(two.request); /* a place is free again */
  assert_int_equal(finish_get(&two), MC_CANCELLED);
  start_get(&three, fixture, URL, NULL);
  fake_release(content);
  assert_int_equal(finish_get(&one), MC_OK);
  assert_int_equal(finish_get(&three), MC_OK);
  mc_file_release(one.file);
  mc_file_release(three.file);
}

static void queued_prefetches_are_limited(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  fixture->options.waiters = 2;
  fixture->options.flights = 1;
  content->stalls = true;
  open_cache(fixture);
  assert_int_equal(mc_prefetch(fixture->cache, URL, false, NULL), MC_OK);
  assert_int_equal(mc_prefetch(fixture->cache, "fake://host/b", false, NULL), MC_OK);
  assert_int_equal(mc_prefetch(fixture->cache, URL, false, NULL), MC_OK); /* joins */
  assert_int_equal(mc_prefetch(fixture->cache, "fake://host/c", false, NULL), MC_RESOURCE_EXHAUSTED);
}

static void closing_ends_all_who_wait(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1), *direct = fake_add(0, "host/direct", CHUNK, 2);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  char path[256];
  struct pending herd[8], into;
  content->stalls = direct->stalls = true;
  open_cache(fixture);
  for (int i = 0; i < 8; i++) start_get_watched(&herd[i], fixture, URL, NULL);
  options.flags = MC_GET_DIRECT;
  options.path = path_in(fixture, path, "out");
  start_get(&into, fixture, "fake://host/direct", &options);
  fake_await(&content->stalled, 1);
  fake_await(&direct->stalled, 1);
  close_cache(fixture);
  for (int i = 0; i < 8; i++) assert_int_equal(finish_get(&herd[i]), MC_CANCELLED);
  assert_int_equal(finish_get(&into), MC_CANCELLED);
  assert_int_equal(content->opens, content->closes);
}

static void files_outlive_the_cache(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK + 1, 1);
  open_cache(fixture);
  mc_file *file = get(fixture, URL, content);
  close_cache(fixture);
  assert_is(file, content);
  assert_file_is(mc_file_path(file), content);
  mc_file_release(file);
}

struct chain {
  struct fixture *fixture;
  struct pending next;
  bool started;
};

static void start_another(void *user, mc_status status, mc_file *file, const mc_error *error) {
  struct chain *chain = user;
  (void)error;
  assert_int_equal(status, MC_OK);
  mc_file_release(file);
  start_get(&chain->next, chain->fixture, "fake://host/second", NULL);
  __atomic_store_n(&chain->started, true, __ATOMIC_RELEASE);
}

static void a_callback_may_start_another_get(void **state) {
  struct fixture *fixture = *state;
  struct chain chain = {.fixture = fixture};
  struct fake_content *second = fake_add(0, "host/second", 7, 2);
  fake_add(0, FILE_NAME, 10, 1);
  open_cache(fixture);
  assert_int_equal(mc_get_start(NULL, fixture->cache, URL, NULL, start_another, &chain, NULL), MC_OK);
  fake_await(&second->closes, 1);
  while (!__atomic_load_n(&chain.started, __ATOMIC_ACQUIRE)) continue;
  assert_int_equal(finish_get(&chain.next), MC_OK);
  assert_is(chain.next.file, second);
  mc_file_release(chain.next.file);
}

static void many_who_wait_with_nothing_to_be_told_are_left_alone(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 10, 1);
  enum { MANY = 2000 };
  struct pending *all = calloc(MANY, sizeof(*all));
  assert_non_null(all);
  content->stalls = true;
  open_cache(fixture);
  for (int i = 0; i < MANY; i++) start_get_watched(&all[i], fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  await_phase(&all[MANY - 1], MC_PHASE_DOWNLOADING); /* all were told */
  for (int i = 0; i < MANY / 2; i++) mc_request_cancel(all[i].request);
  fake_release(content);
  for (int i = 0; i < MANY; i++) {
    mc_status status = finish_get(&all[i]);
    assert_true(status == MC_OK || (i < MANY / 2 && status == MC_CANCELLED));
    assert_true(all[i].reports > 0);
    mc_file_release(all[i].file);
  }
  free(all);
}

/* The smaller what is left, the smaller the parts, and what another lane is at is not left: towards the end all lanes
 * have something to do. Here one lane holds 2 of 16 chunks; the other takes 2 or 3 at a time, and
 * the last 6 or 7 one by one: 10 parts either way. */
static void lanes_share_what_is_left(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 16 * CHUNK, 1);
  struct pending pending;
  content->stalls = true;
  content->stalls_to = 1;
  fixture->options.parallelism = 2;
  open_cache(fixture);
  start_get(&pending, fixture, URL, NULL);
  fake_await(&content->reads, 11);
  fake_release(content);
  assert_int_equal(finish_get(&pending), MC_OK);
  assert_is(pending.file, content);
  assert_int_equal(content->reads, 11);
  mc_file_release(pending.file);
}

/* Lanes that outrun the SHA-256 wait for it, and go on. */
static void lanes_do_not_outrun_the_hash(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 40 * CHUNK + 7, 1);
  struct pending pending;
  fixture->options.parallelism = 3;
  open_cache(fixture);
  start_get(&pending, fixture, URL, NULL);
  assert_int_equal(finish_get(&pending), MC_OK);
  assert_is(pending.file, content);
  assert_int_equal(content->bytes, 40 * CHUNK + 7);
  mc_file_release(pending.file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(a_herd_costs_one_download),
      TEST(lanes_share_what_is_left),
      TEST(lanes_do_not_outrun_the_hash),
      TEST(a_waiter_leaves_and_the_others_go_on),
      TEST(the_last_waiter_stops_the_flight),
      TEST(a_cancel_of_the_callers_own_ends_the_call),
      TEST(a_deadline_ends_the_call_alone),
      TEST(progress_tells_phase_reason_and_bytes),
      TEST(those_who_wait_for_another_process_are_told_so),
      TEST(what_a_peer_waits_for_is_passed_on),
      TEST(what_waits_is_limited),
      TEST(queued_prefetches_are_limited),
      TEST(closing_ends_all_who_wait),
      TEST(files_outlive_the_cache),
      TEST(a_callback_may_start_another_get),
      TEST(many_who_wait_with_nothing_to_be_told_are_left_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
