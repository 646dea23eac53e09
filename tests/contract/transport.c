/* The contract of mc_transport_ops, as suites that are run against every transport: what is read, and of what.
 *
 * Every test checks that descriptors, threads, exports and watches are given back. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "transport_world.h"

extern const mc_transport_ops tcp_transport_ops;

/* ---- contents ---- */

static void test_whole_object(void **state) {
  struct world *world = *state;
  serve(world);
  mc_connection *connection = dial(world);
  assert_reads(world, connection, world->object, 0, SIZE, SIZE_MAX);
  assert_int_equal(world->ops->listener_connections(world->listener), 1);
  hang_up(world, connection);
  stop(world, 0);
  assert_int_equal(world->fake.sent, SIZE);
  assert_int_equal(world->object->opens, 1);
}

static void test_ranges(void **state) {
  struct world *world = *state;
  static const struct {
    uint64_t begin, end;
    size_t most;
  } ranges[] = {
      {0, 1, SIZE_MAX},
      {SIZE - 1, SIZE, SIZE_MAX},
      {1, SIZE - 1, 65536},
      {MC_CHUNK_SIZE - 1, MC_CHUNK_SIZE + 1, 1},
      {MC_CHUNK_SIZE, 2 * MC_CHUNK_SIZE, SIZE_MAX},
      {777, 3 * MC_CHUNK_SIZE + 1, 777777},
      {2 * MC_CHUNK_SIZE + 4095, 2 * MC_CHUNK_SIZE + 4097, SIZE_MAX},
      {5, 5, SIZE_MAX},
      {12345, MC_SIZE_UNKNOWN, SIZE_MAX},
      {SIZE, MC_SIZE_UNKNOWN, SIZE_MAX},
  };
  serve(world);
  mc_connection *connection = dial(world);
  for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
    assert_reads(world, connection, world->object, ranges[i].begin, ranges[i].end, ranges[i].most);
  }
  hang_up(world, connection);
}

static void test_small_contents(void **state) {
  struct world *world = *state;
  struct fake_content *empty = fake_add(&world->fake, MC_CONTENT_OBJECT, 0);
  struct fake_content *byte = fake_add(&world->fake, MC_CONTENT_OBJECT, 1);
  struct fake_content *chunk = fake_add(&world->fake, MC_CONTENT_OBJECT, MC_CHUNK_SIZE);
  serve(world);
  mc_connection *connection = dial(world);
  for (int round = 0; round < 3; round++) {
    assert_reads(world, connection, empty, 0, 0, SIZE_MAX);
    assert_reads(world, connection, empty, 0, MC_SIZE_UNKNOWN, SIZE_MAX);
    assert_reads(world, connection, byte, 0, 1, SIZE_MAX);
    assert_reads(world, connection, byte, 0, MC_SIZE_UNKNOWN, SIZE_MAX);
    assert_reads(world, connection, chunk, 0, MC_CHUNK_SIZE, SIZE_MAX);
    assert_reads(world, connection, chunk, 0, MC_SIZE_UNKNOWN, SIZE_MAX);
  }
  hang_up(world, connection);
}

static void test_not_found(void **state) {
  struct world *world = *state;
  serve(world);
  struct fake_content other = *world->object;
  other.content.id[31] ^= 1;
  assert_fails(world, &other, 0, SIZE, MC_NOT_FOUND);
  other = *world->object;
  other.content.kind = MC_CONTENT_FLIGHT;
  assert_fails(world, &other, 0, SIZE, MC_NOT_FOUND);
}

static void test_beyond_the_end(void **state) {
  struct world *world = *state;
  serve(world);
  assert_fails(world, world->object, 0, SIZE + 1, MC_INVALID_ARGUMENT);
  assert_fails(world, world->object, SIZE, SIZE + 1, MC_INVALID_ARGUMENT);
  assert_fails(world, world->object, SIZE - 1, MC_SIZE_UNKNOWN - 1, MC_INVALID_ARGUMENT);
}

/* An idle connection keeps no content open: it could not be evicted. */
static void test_idle_lets_go(void **state) {
  struct world *world = *state;
  serve(world);
  mc_connection *connection = dial(world);
  assert_reads(world, connection, world->object, 0, 100, SIZE_MAX);
  fake_await_closes(world->object, 1);
  assert_reads(world, connection, world->object, 100, 200, SIZE_MAX);
  hang_up(world, connection);
}

/* ---- many at once ---- */

struct crowd {
  struct world *world;
  unsigned seed;
  bool right;
};

static void *crowd_member(void *arg) {
  struct crowd *crowd = arg;
  struct world *world = crowd->world;
  mc_connection *connection = NULL;
  crowd->right = world->ops->connect(world->transport, world->ops->listener_endpoint(world->listener), &connection,
                                     &no_limits, NULL) == MC_OK;
  for (int i = 0; i < 12 && crowd->right; i++) {
    uint64_t begin = (uint64_t)rand_r(&crowd->seed) % SIZE;
    uint64_t end = begin + 1 + (uint64_t)rand_r(&crowd->seed) % (SIZE - begin);
    struct get *get = get_new(world, connection, world->object, begin, end);
    get->most = 1 + (size_t)rand_r(&crowd->seed) % 500000;
    crowd->right = get_run(get) == MC_OK && get->sink.offset == end &&
                   memcmp(get->buffer, world->object->data + begin, (size_t)(end - begin)) == 0;
    get_free(get);
  }
  if (connection) world->ops->disconnect(connection);
  return NULL;
}

static void test_crowd(void **state) {
  enum { MEMBERS = 16 };
  struct world *world = *state;
  struct crowd crowd[MEMBERS];
  pthread_t threads[MEMBERS];
  serve(world);
  for (unsigned i = 0; i < MEMBERS; i++) {
    crowd[i] = (struct crowd){.world = world, .seed = i};
    assert_int_equal(pthread_create(&threads[i], NULL, crowd_member, &crowd[i]), 0);
  }
  for (unsigned i = 0; i < MEMBERS; i++) pthread_join(threads[i], NULL);
  for (unsigned i = 0; i < MEMBERS; i++) assert_true(crowd[i].right);
}

static void test_too_many(void **state) {
  struct world *world = *state;
  world->config.max_connections = 2;
  serve(world);
  mc_connection *first = dial(world), *second = dial(world);
  assert_reads(world, first, world->object, 0, 10, SIZE_MAX);
  assert_reads(world, second, world->object, 0, 10, SIZE_MAX);
  for (int i = 0; i < 5; i++) assert_fails(world, world->object, 0, 10, MC_RESOURCE_EXHAUSTED);
  assert_int_equal(world->ops->listener_connections(world->listener), 2);
  assert_reads(world, first, world->object, 10, SIZE, SIZE_MAX);
  hang_up(world, second);
  /* The listener hears of it in its own time. */
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  for (mc_status status = MC_RESOURCE_EXHAUSTED; status;) {
    second = dial(world);
    struct get *get = get_new(world, second, world->object, 0, SIZE);
    status = get_run(get);
    assert_true(status == MC_OK || status == MC_RESOURCE_EXHAUSTED);
    assert_true(clock_ns() < deadline);
    get_free(get);
    hang_up(world, second);
  }
  hang_up(world, first);
}

struct rush {
  struct world *world;
  pthread_barrier_t *start;
  mc_connection *connection;
  mc_status status;
  pthread_t thread;
};

static void *rush_member(void *arg) {
  struct rush *rush = arg;
  pthread_barrier_wait(rush->start);
  rush->connection = dial(rush->world);
  struct get *get = get_new(rush->world, rush->connection, rush->world->object, 0, 10);
  rush->status = get_run(get);
  get_free(get);
  return NULL;
}

/* The limit holds also when all come in the same moment. */
static void test_rush(void **state) {
  enum { MEMBERS = 32, LIMIT = 8 };
  struct world *world = *state;
  struct rush members[MEMBERS];
  pthread_barrier_t start;
  unsigned served = 0;
  world->config.max_connections = LIMIT;
  world->config.threads = 4;
  serve(world);
  assert_int_equal(pthread_barrier_init(&start, NULL, MEMBERS), 0);
  for (int i = 0; i < MEMBERS; i++) {
    members[i] = (struct rush){.world = world, .start = &start};
    assert_int_equal(pthread_create(&members[i].thread, NULL, rush_member, &members[i]), 0);
  }
  for (int i = 0; i < MEMBERS; i++) {
    pthread_join(members[i].thread, NULL);
    assert_true(members[i].status == MC_OK || members[i].status == MC_RESOURCE_EXHAUSTED);
    served += members[i].status == MC_OK;
  }
  assert_int_equal(served, LIMIT);
  for (int i = 0; i < MEMBERS; i++) hang_up(world, members[i].connection);
  pthread_barrier_destroy(&start);
}

/* ---- flights ---- */

static void test_flight_lands(void **state) {
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  serve(world);
  struct get *get = get_new(world, dial(world), flight, 0, SIZE);
  get_start(get);
  static const uint64_t steps[] = {1, MC_CHUNK_SIZE - 5, MC_CHUNK_SIZE, 2 * MC_CHUNK_SIZE + 1, SIZE};
  for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
    fake_await_watched(flight, i + 1);
    fake_land(flight, steps[i]);
  }
  assert_int_equal(get_join(get), MC_OK);
  assert_int_equal(get->sink.offset, SIZE);
  assert_bytes(get, flight);
  hang_up(world, get->connection);
  get_free(get);
}

/* Many follow one flight, and each step wakes them all. */
static void test_flight_followers(void **state) {
  enum { FOLLOWERS = 12 };
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  struct get *gets[FOLLOWERS];
  serve(world);
  for (unsigned i = 0; i < FOLLOWERS; i++) {
    gets[i] = get_new(world, dial(world), flight, i * 1000, SIZE - i);
    get_start(gets[i]);
  }
  fake_await_watched(flight, FOLLOWERS);
  for (uint64_t landed = 0; landed < SIZE; landed += 1 << 20) fake_land(flight, landed);
  fake_land(flight, SIZE);
  for (unsigned i = 0; i < FOLLOWERS; i++) {
    assert_int_equal(get_join(gets[i]), MC_OK);
    assert_bytes(gets[i], flight);
    hang_up(world, gets[i]->connection);
    get_free(gets[i]);
  }
}

/* A flight that takes longer than the stall timeout is alive all the same. */
static void test_flight_outlasts_stall_timeout(void **state) {
  struct world *world = *state;
  world->config.stall_timeout_ms = STALL_MS;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  serve(world);
  struct get *get = get_new(world, dial(world), flight, 0, SIZE);
  get_start(get);
  fake_await_watched(flight, 1);
  fake_land(flight, MC_CHUNK_SIZE + 100);
  assert_false(get_ends(get, 4 * STALL_MS));
  fake_land(flight, SIZE);
  assert_int_equal(get_join(get), MC_OK);
  assert_bytes(get, flight);
  hang_up(world, get->connection);
  get_free(get);
}

static void test_flight_of_unknown_size(void **state) {
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, true);
  serve(world);
  struct get *get = get_new(world, dial(world), flight, 0, MC_SIZE_UNKNOWN);
  get_start(get);
  fake_await_watched(flight, 1);
  fake_land(flight, 2 * MC_CHUNK_SIZE);
  fake_await_watched(flight, 2);
  fake_land(flight, SIZE); /* all is there, but nobody knows */
  fake_await_watched(flight, 3);
  fake_finish(flight);
  assert_int_equal(get_join(get), MC_OK);
  assert_int_equal(get->sink.offset, SIZE);
  assert_bytes(get, flight);
  /* Once it is known, the connection may serve further reads of it. */
  assert_reads(world, get->connection, flight, 100, SIZE, SIZE_MAX);
  assert_reads(world, get->connection, flight, SIZE, MC_SIZE_UNKNOWN, SIZE_MAX);
  hang_up(world, get->connection);
  get_free(get);
}

static void test_flight_ends_too_soon(void **state) {
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, true);
  serve(world);
  struct get *get = get_new(world, dial(world), flight, 0, SIZE + 1);
  get_start(get);
  fake_await_watched(flight, 1);
  fake_finish(flight);
  assert_int_equal(get_join(get), MC_CHANGED);
  assert_int_equal(get->sink.offset, SIZE);
  assert_bytes(get, flight);
  hang_up(world, get->connection);
  get_free(get);
}

static void test_flight_fails(void **state) {
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  serve(world);
  struct get *get = get_new(world, dial(world), flight, 0, SIZE);
  get_start(get);
  fake_await_watched(flight, 1);
  fake_land(flight, MC_CHUNK_SIZE + 1);
  fake_await_watched(flight, 2);
  fake_fail(flight);
  assert_int_equal(get_join(get), MC_UNAVAILABLE);
  assert_int_equal(get->sink.offset, MC_CHUNK_SIZE + 1);
  assert_non_null(strstr(get->err.message, "the flight has failed"));
  assert_bytes(get, flight);
  hang_up(world, get->connection);
  get_free(get);
  assert_fails(world, flight, 0, SIZE, MC_UNAVAILABLE);
}

/* Who waits for a flight and goes is forgotten. */
static void test_follower_leaves(void **state) {
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  serve(world);
  struct get *get = get_new(world, dial(world), flight, 0, SIZE);
  mc_cancel *cancel;
  assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
  get->call.cancel = cancel;
  get_start(get);
  fake_await_watched(flight, 1);
  mc_cancel_trigger(cancel);
  assert_int_equal(get_join(get), MC_CANCELLED);
  hang_up(world, get->connection);
  fake_await_closes(flight, 1);
  fake_land(flight, SIZE);
  mc_cancel_free(cancel);
  get_free(get);
}

struct lander {
  struct fake_content *flight;
  atomic_bool *over;
};

static void *keep_landing(void *arg) {
  struct lander *lander = arg;
  for (uint64_t landed = 0; !atomic_load(lander->over); landed = (landed + 1000) % SIZE) {
    fake_land(lander->flight, landed);
  }
  return NULL;
}

/* Wakes and hang-ups cross in every way. */
static void test_followers_come_and_go(void **state) {
  enum { ROUNDS = 60, FOLLOWERS = 4 };
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  atomic_bool over = false;
  struct lander lander = {flight, &over};
  pthread_t thread;
  serve(world);
  assert_int_equal(pthread_create(&thread, NULL, keep_landing, &lander), 0);
  for (int round = 0; round < ROUNDS; round++) {
    struct get *gets[FOLLOWERS];
    mc_cancel *cancel;
    assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
    for (int i = 0; i < FOLLOWERS; i++) {
      gets[i] = get_new(world, dial(world), flight, SIZE - 1, SIZE); /* never there */
      gets[i]->call.cancel = cancel;
      get_start(gets[i]);
    }
    fake_await_watched(flight, (unsigned)(round + 1));
    mc_cancel_trigger(cancel);
    for (int i = 0; i < FOLLOWERS; i++) {
      assert_int_equal(get_join(gets[i]), MC_CANCELLED);
      hang_up(world, gets[i]->connection);
      get_free(gets[i]);
    }
    mc_cancel_free(cancel);
  }
  stop(world, 0);
  atomic_store(&over, true);
  pthread_join(thread, NULL);
}

/* ---- damage ---- */

static void test_suspect(void **state) {
  struct world *world = *state;
  serve(world);
  mc_connection *connection = dial(world);
  struct get *get = get_new(world, connection, world->object, MC_CHUNK_SIZE, 2 * MC_CHUNK_SIZE);
  get->sink.suspect = true;
  assert_int_equal(get_run(get), MC_OK);
  assert_bytes(get, world->object);
  assert_int_equal(world->object->suspects, 1);
  assert_int_equal(world->object->suspect_offset, MC_CHUNK_SIZE);
  get_free(get);

  world->object->suspect_status = MC_CORRUPT;
  get = get_new(world, connection, world->object, 0, MC_CHUNK_SIZE);
  get->sink.suspect = true;
  assert_int_equal(get_run(get), MC_CORRUPT);
  assert_int_equal(get->sink.offset, 0);
  get_free(get);
  hang_up(world, connection);
  assert_int_equal(world->object->suspects, 2);
}

static void truncate_object(void *arg) {
  struct fake_content *content = arg;
  assert_int_equal(ftruncate(content->fd, 1000), 0);
}

/* A stored file that shrinks under us: the read ends, and the exporter is told to look. */
static void test_truncated_file(void **state) {
  struct world *world = *state;
  uint64_t size = 64 * MC_CHUNK_SIZE;
  struct fake_content *large = fake_add(&world->fake, MC_CONTENT_OBJECT, size);
  serve(world);
  struct get *get = get_new(world, dial(world), large, 0, size);
  get->hook = truncate_object;
  get->hook_arg = large;
  get->hook_at = 1;
  assert_int_equal(get_run(get), MC_UNAVAILABLE);
  assert_true(get->sink.offset < size);
  fake_await_suspects(large, 1);
  hang_up(world, get->connection);
  get_free(get);
}

static void test_sink_fails(void **state) {
  struct world *world = *state;
  serve(world);
  mc_connection *connection = dial(world);
  struct get *get = get_new(world, connection, world->object, 0, SIZE);
  get->fail_at = MC_CHUNK_SIZE + 1;
  assert_int_equal(get_run(get), MC_NO_SPACE);
  assert_string_equal(get->err.origin, "test");
  get_free(get);
  hang_up(world, connection);
  assert_fails(world, world->object, SIZE, SIZE + 1, MC_INVALID_ARGUMENT);
}

static int transport_reads(struct world *world) {
  const struct CMUnitTest tests[] = {
      TEST(test_whole_object),
      TEST(test_ranges),
      TEST(test_small_contents),
      TEST(test_not_found),
      TEST(test_beyond_the_end),
      TEST(test_idle_lets_go),
      TEST(test_crowd),
      TEST(test_too_many),
      TEST(test_rush),
      TEST(test_flight_lands),
      TEST(test_flight_followers),
      TEST(test_flight_outlasts_stall_timeout),
      TEST(test_flight_of_unknown_size),
      TEST(test_flight_ends_too_soon),
      TEST(test_flight_fails),
      TEST(test_follower_leaves),
      TEST(test_followers_come_and_go),
      TEST(test_suspect),
      TEST(test_truncated_file),
      TEST(test_sink_fails),
  };
  return cmocka_run_group_tests_name("reads", tests, NULL, NULL);
}

static int run(const mc_transport_ops *ops) {
  struct world world = {.ops = ops};
  assert_int_equal(ops->abi, MC_TRANSPORT_ABI);
  assert_true(ops->open && ops->close && ops->connect && ops->read && ops->disconnect);
  return transport_reads(&world) + transport_peers(&world);
}

static void *nothing(void *arg) {
  return arg;
}

int main(void) {
  /* A sanitizer's own thread begins with our first one, and must not be counted as one that was left behind. */
  pthread_t thread;
  if (pthread_create(&thread, NULL, nothing, NULL) == 0) pthread_join(thread, NULL);
  const mc_transport_ops *const transports[] = {&tcp_transport_ops};
  int failed = 0;
  for (size_t i = 0; i < sizeof(transports) / sizeof(transports[0]); i++) failed += run(transports[i]);
  return failed ? 1 : 0;
}
