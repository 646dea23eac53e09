/* The contract of mc_transport_ops, as one suite that is run against every transport.
 *
 * Nothing here knows a wire format: peers that fail are made of a proxy that cuts, sockets that say nothing, and
 * sockets that say nonsense. Every test checks that descriptors, threads, exports and watches are given back. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/net.h"
#include "fake_exporter.h"

extern const mc_transport_ops tcp_transport_ops;

#define SIZE        (3 * MC_CHUNK_SIZE + 12345)
#define STALL_MS    150 /* of the tests in which somebody stalls */
#define PATIENCE_MS 20000

static const mc_call no_limits = {.deadline = INT64_MAX};

struct world {
  const mc_transport_ops *ops;
  mc_transport_config config;
  mc_transport *transport;
  mc_listener *listener;
  struct fake_exporter fake;
  struct fake_content *object; /* SIZE bytes */
  unsigned files, threads;     /* that were there before */
};

static unsigned count_entries(const char *path) {
  unsigned count = 0;
  DIR *folder = opendir(path);
  assert_non_null(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static int set_up(void **state) {
  struct world *world = *state;
  world->files = count_entries("/proc/self/fd");
  world->threads = count_entries("/proc/self/task");
  world->config = (mc_transport_config){.struct_size = sizeof(world->config),
                                        .connect_timeout_ms = PATIENCE_MS,
                                        .stall_timeout_ms = PATIENCE_MS,
                                        .threads = 2,
                                        .max_connections = 64};
  fake_init(&world->fake);
  world->object = fake_add(&world->fake, MC_CONTENT_OBJECT, SIZE);
  return 0;
}

/* Begin to serve, once a test has set the configuration as it wants it. */
static void serve(struct world *world) {
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(world->ops->open(&world->transport, &world->config, &err), MC_OK);
  mc_status status = world->ops->listen(world->transport, "127.0.0.1:0", &world->fake.exporter, &world->listener, &err);
  if (status) fail_msg("can't listen: %s", err.message);
}

static void stop(struct world *world, int64_t drain_ms) {
  if (world->listener) world->ops->listener_close(world->listener, drain_ms);
  world->listener = NULL;
}

static int tear_down(void **state) {
  struct world *world = *state;
  stop(world, 0);
  if (world->transport) world->ops->close(world->transport);
  world->transport = NULL;
  fake_free(&world->fake);
  assert_int_equal(count_entries("/proc/self/fd"), world->files);
  /* A thread that was joined may be listed a moment longer. */
  for (int tries = 0; count_entries("/proc/self/task") > world->threads && tries < 100; tries++) {
    nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
  }
  assert_true(count_entries("/proc/self/task") <= world->threads);
  return 0;
}

static mc_connection *dial_to(struct world *world, const char *endpoint) {
  mc_error err = MC_ERROR_INIT;
  mc_connection *connection = NULL;
  mc_status status = world->ops->connect(world->transport, endpoint, &connection, &no_limits, &err);
  if (status) fail_msg("can't connect: %s", err.message);
  return connection;
}

static mc_connection *dial(struct world *world) {
  return dial_to(world, world->ops->listener_endpoint(world->listener));
}

static void hang_up(struct world *world, mc_connection *connection) {
  world->ops->disconnect(connection);
}

/* ---- reads ---- */

/* A read and the sink it fills. */
struct get {
  mc_sink sink; /* first */
  struct world *world;
  mc_connection *connection;
  mc_content content;
  mc_call call;
  uint64_t begin;
  uint8_t *buffer; /* `room` bytes, where `begin` goes; beyond them bytes are counted and lost */
  uint64_t room;
  size_t most;      /* that `space` gives at once */
  uint64_t hook_at; /* when the offset reaches it, `hook` is called, once */
  void (*hook)(void *arg);
  void *hook_arg;
  uint64_t fail_at; /* `advance` fails from there on */
  uint8_t scrap[4096];
  pthread_t thread;
  mc_status status;
  mc_error err;
};

static void *get_space(mc_sink *sink, size_t *size) {
  struct get *get = (struct get *)sink;
  uint64_t at = sink->offset - get->begin;
  bool lost = at >= get->room;
  uint64_t left = lost ? sizeof(get->scrap) : get->room - at;
  if (left > sink->end - sink->offset) left = sink->end - sink->offset;
  if (left > get->most) left = get->most;
  if (*size > left) *size = (size_t)left;
  return lost ? get->scrap : get->buffer + at;
}

static mc_status get_advance(mc_sink *sink, size_t size, mc_error *err) {
  struct get *get = (struct get *)sink;
  sink->offset += size;
  if (get->hook && sink->offset >= get->hook_at) {
    void (*hook)(void *arg) = get->hook;
    get->hook = NULL;
    hook(get->hook_arg);
  }
  if (sink->offset >= get->fail_at) return mc_error_set(err, MC_NO_SPACE, "test", "the sink is full");
  return mc_call_check(&get->call, err);
}

static mc_status get_write(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  mc_status status = MC_OK;
  while (size && !status) {
    size_t piece = size;
    void *to = get_space(sink, &piece);
    memcpy(to, data, piece);
    status = get_advance(sink, piece, err);
    data = (const uint8_t *)data + piece;
    size -= piece;
  }
  return status;
}

static struct get *get_new(struct world *world, mc_connection *connection, const struct fake_content *content,
                           uint64_t begin, uint64_t end) {
  struct get *get = calloc(1, sizeof(*get));
  assert_non_null(get);
  *get = (struct get){
      .sink = {.offset = begin, .end = end, .write = get_write, .space = get_space, .advance = get_advance},
      .world = world,
      .connection = connection,
      .content = content->content,
      .call = no_limits,
      .begin = begin,
      .most = SIZE_MAX,
      .fail_at = UINT64_MAX};
  get->room = (end < content->room ? end : content->room) - begin;
  get->buffer = malloc(get->room ? get->room : 1);
  assert_non_null(get->buffer);
  memset(get->buffer, 0x5a, get->room);
  return get;
}

static void get_free(struct get *get) {
  free(get->buffer);
  free(get);
}

static mc_status get_run(struct get *get) {
  get->status = get->world->ops->read(get->connection, &get->content, &get->sink, &get->call, &get->err);
  return get->status;
}

static void *get_thread(void *arg) {
  get_run(arg);
  return NULL;
}

static void get_start(struct get *get) {
  assert_int_equal(pthread_create(&get->thread, NULL, get_thread, get), 0);
}

/* Whether the read ends within so many milliseconds. */
static bool get_ends(struct get *get, int64_t ms) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  int64_t ns = until.tv_nsec + ms * NS_PER_MS;
  until.tv_sec += ns / NS_PER_S;
  until.tv_nsec = ns % NS_PER_S;
  return pthread_timedjoin_np(get->thread, NULL, &until) == 0;
}

static mc_status get_join(struct get *get) {
  if (!get_ends(get, PATIENCE_MS)) fail_msg("a read hangs");
  return get->status;
}

static void assert_bytes(const struct get *get, const struct fake_content *content) {
  uint64_t got = get->sink.offset - get->begin;
  assert_true(got <= get->room);
  assert_memory_equal(get->buffer, content->data + get->begin, got);
}

/* Read a range and check it. */
static void assert_reads(struct world *world, mc_connection *connection, const struct fake_content *content,
                         uint64_t begin, uint64_t end, size_t most) {
  struct get *get = get_new(world, connection, content, begin, end);
  get->most = most;
  if (get_run(get)) fail_msg("[%llu, %llu): %s", (unsigned long long)begin, (unsigned long long)end, get->err.message);
  assert_int_equal(get->sink.offset, end == MC_SIZE_UNKNOWN ? content->room : end);
  assert_bytes(get, content);
  get_free(get);
}

static void assert_fails(struct world *world, const struct fake_content *content, uint64_t begin, uint64_t end,
                         mc_status status) {
  mc_connection *connection = dial(world);
  struct get *get = get_new(world, connection, content, begin, end);
  assert_int_equal(get_run(get), status);
  assert_int_equal(get->err.status, status);
  assert_true(strlen(get->err.message) > 10);
  assert_bytes(get, content);
  get_free(get);
  hang_up(world, connection);
}

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

/* ---- peers that fail ---- */

static int dial_raw(struct world *world) {
  char host[HOST_SIZE];
  uint16_t port;
  int fd;
  const char *address = strstr(world->ops->listener_endpoint(world->listener), "://") + 3;
  assert_int_equal(net_split(address, host, &port, "endpoint", NULL), MC_OK);
  assert_int_equal(net_connect(&fd, host, port, PATIENCE_MS, &no_limits, NULL), MC_OK);
  return fd;
}

/* Forwards one connection, and hangs up on both sides when `cut_at` bytes have gone to the client. */
struct proxy {
  int listener, server;
  uint64_t cut_at;
  char endpoint[64];
  pthread_t thread;
};

/* Move what there is; false at the end. */
static bool forward(int from, int to, uint64_t most, uint64_t *moved) {
  char block[65536];
  ssize_t count = recv(from, block, most < sizeof(block) ? (size_t)most : sizeof(block), MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN;
  for (ssize_t at = 0; at < count;) {
    ssize_t sent = send(to, block + at, (size_t)(count - at), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) return false;
    if (sent < 0) poll(&(struct pollfd){.fd = to, .events = POLLOUT}, 1, PATIENCE_MS);
    if (sent > 0) at += sent;
  }
  *moved += (uint64_t)count;
  return count > 0;
}

static void *proxy_thread(void *arg) {
  struct proxy *proxy = arg;
  poll(&(struct pollfd){.fd = proxy->listener, .events = POLLIN}, 1, PATIENCE_MS);
  int client = accept(proxy->listener, NULL, NULL);
  uint64_t up = 0, down = 0;
  bool going = client >= 0;
  while (going && down < proxy->cut_at) {
    struct pollfd fds[2] = {{.fd = client, .events = POLLIN}, {.fd = proxy->server, .events = POLLIN}};
    going = poll(fds, 2, PATIENCE_MS) > 0;
    if (going && fds[0].revents) going = forward(client, proxy->server, UINT64_MAX, &up);
    if (going && fds[1].revents) going = forward(proxy->server, client, proxy->cut_at - down, &down);
  }
  close(client);
  close(proxy->server);
  return NULL;
}

static void proxy_start(struct proxy *proxy, struct world *world, uint64_t cut_at) {
  char address[48];
  proxy->cut_at = cut_at;
  proxy->server = dial_raw(world);
  assert_int_equal(net_listen(&proxy->listener, "127.0.0.1:0", 4, "proxy", NULL), MC_OK);
  assert_int_equal(net_local_address(proxy->listener, address, sizeof(address), NULL), MC_OK);
  snprintf(proxy->endpoint, sizeof(proxy->endpoint), "%s://%s", world->ops->name, address);
  assert_int_equal(pthread_create(&proxy->thread, NULL, proxy_thread, proxy), 0);
}

static void proxy_stop(struct proxy *proxy) {
  pthread_join(proxy->thread, NULL);
  close(proxy->listener);
}

static void test_cut(void **state) {
  struct world *world = *state;
  static const uint64_t cuts[] = {1, 40, 64, 100, 65536, MC_CHUNK_SIZE, MC_CHUNK_SIZE + 70, SIZE - 1};
  serve(world);
  for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
    struct proxy proxy;
    proxy_start(&proxy, world, cuts[i]);
    struct get *get = get_new(world, dial_to(world, proxy.endpoint), world->object, 0, SIZE);
    assert_int_equal(get_run(get), MC_UNAVAILABLE);
    assert_true(get->sink.offset <= cuts[i]);
    assert_bytes(get, world->object);
    /* What is missing can be had from another peer. */
    mc_connection *other = dial(world);
    assert_reads(world, other, world->object, get->sink.offset, SIZE, SIZE_MAX);
    hang_up(world, other);
    hang_up(world, get->connection);
    get_free(get);
    proxy_stop(&proxy);
  }
}

static void stop_now(void *arg) {
  stop(arg, 0);
}

static void test_listener_closes_in_mid_transfer(void **state) {
  struct world *world = *state;
  uint64_t size = 64 * MC_CHUNK_SIZE;
  struct fake_content *large = fake_add(&world->fake, MC_CONTENT_OBJECT, size);
  serve(world);
  struct get *get = get_new(world, dial(world), large, 0, size);
  get->hook = stop_now;
  get->hook_arg = world;
  get->hook_at = MC_CHUNK_SIZE;
  assert_int_equal(get_run(get), MC_UNAVAILABLE);
  assert_true(get->sink.offset < size);
  assert_bytes(get, large);
  hang_up(world, get->connection);
  get_free(get);
}

/* The other side of a socket that is accepted by the kernel and by nobody else. */
static void test_silent_peer(void **state) {
  struct world *world = *state;
  world->config.stall_timeout_ms = STALL_MS;
  serve(world);
  int silent;
  char address[48], endpoint[64];
  assert_int_equal(net_listen(&silent, "127.0.0.1:0", 16, "nobody", NULL), MC_OK);
  assert_int_equal(net_local_address(silent, address, sizeof(address), NULL), MC_OK);
  snprintf(endpoint, sizeof(endpoint), "%s://%s", world->ops->name, address);

  struct get *get = get_new(world, dial_to(world, endpoint), world->object, 0, SIZE);
  int64_t begin = clock_ns();
  assert_int_equal(get_run(get), MC_UNAVAILABLE);
  assert_true(clock_ns() - begin >= (STALL_MS - 10) * NS_PER_MS);
  hang_up(world, get->connection);
  get_free(get);

  get = get_new(world, dial_to(world, endpoint), world->object, 0, SIZE);
  get->call.deadline = deadline_in_ms(STALL_MS / 5);
  assert_int_equal(get_run(get), MC_DEADLINE_EXCEEDED);
  hang_up(world, get->connection);
  get_free(get);
  close(silent);
}

static void test_cancel(void **state) {
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  mc_cancel *cancel;
  assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
  serve(world);
  struct get *get = get_new(world, dial(world), flight, 0, SIZE);
  get->call.cancel = cancel;
  get_start(get);
  fake_await_watched(flight, 1);
  mc_cancel_trigger(cancel);
  assert_int_equal(get_join(get), MC_CANCELLED);
  hang_up(world, get->connection);
  get_free(get);

  /* Before it began. */
  mc_connection *connection = dial(world);
  get = get_new(world, connection, world->object, 0, SIZE);
  get->call.cancel = cancel;
  assert_int_equal(get_run(get), MC_CANCELLED);
  get_free(get);
  hang_up(world, connection);
  const mc_call call = {INT64_MAX, cancel};
  const char *endpoint = world->ops->listener_endpoint(world->listener);
  assert_int_equal(world->ops->connect(world->transport, endpoint, &connection, &call, NULL), MC_CANCELLED);
  mc_cancel_free(cancel);
}

static void test_deadline(void **state) {
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  serve(world);
  struct get *get = get_new(world, dial(world), flight, 0, SIZE);
  get->call.deadline = deadline_in_ms(30);
  assert_int_equal(get_run(get), MC_DEADLINE_EXCEEDED);
  hang_up(world, get->connection);
  get_free(get);
}

static void test_nobody_listens(void **state) {
  struct world *world = *state;
  mc_error err = MC_ERROR_INIT;
  mc_connection *connection;
  serve(world);
  char endpoint[128];
  snprintf(endpoint, sizeof(endpoint), "%s", world->ops->listener_endpoint(world->listener));
  stop(world, 0);
  assert_int_equal(world->ops->connect(world->transport, endpoint, &connection, &no_limits, &err), MC_UNAVAILABLE);
  assert_int_equal(world->ops->connect(world->transport, "nonsense://x:1", &connection, &no_limits, &err),
                   MC_INVALID_ARGUMENT);
  snprintf(endpoint, sizeof(endpoint), "%s://noport", world->ops->name);
  assert_int_equal(world->ops->connect(world->transport, endpoint, &connection, &no_limits, &err), MC_INVALID_ARGUMENT);
}

static void test_address_in_use(void **state) {
  struct world *world = *state;
  mc_error err = MC_ERROR_INIT;
  mc_listener *second;
  serve(world);
  const char *address = strstr(world->ops->listener_endpoint(world->listener), "://") + 3;
  assert_int_not_equal(world->ops->listen(world->transport, address, &world->fake.exporter, &second, &err), MC_OK);
  assert_non_null(strstr(err.message, address));
  assert_int_equal(world->ops->listen(world->transport, "nonsense", &world->fake.exporter, &second, &err),
                   MC_INVALID_ARGUMENT);
}

/* ---- strangers on the port ---- */

/* Read until the other side closes; false if it does not. */
static bool is_hung_up(int fd) {
  char block[4096];
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  while (clock_ns() < deadline) {
    ssize_t count = recv(fd, block, sizeof(block), MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) return true;
    if (count < 0) poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, deadline_poll_ms(deadline));
  }
  return false;
}

static void test_garbage(void **state) {
  struct world *world = *state;
  static const char http[] = "GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: a stranger with a long name\r\n\r\n";
  static char noise[1 << 16];
  unsigned seed = 1;
  for (size_t i = 0; i < sizeof(noise); i++) noise[i] = (char)rand_r(&seed);
  serve(world);
  mc_connection *connection = dial(world);
  for (int i = 0; i < 10; i++) {
    int fd = dial_raw(world);
    assert_true(send(fd, i % 2 ? noise : http, i % 2 ? sizeof(noise) : sizeof(http) - 1, MSG_NOSIGNAL) > 0);
    assert_true(is_hung_up(fd));
    close(fd);
    assert_reads(world, connection, world->object, 0, SIZE, SIZE_MAX);
  }
  hang_up(world, connection);
}

static void test_half_a_request(void **state) {
  struct world *world = *state;
  world->config.stall_timeout_ms = STALL_MS;
  serve(world);
  int fd = dial_raw(world), other = dial_raw(world);
  assert_int_equal(send(fd, "M", 1, MSG_NOSIGNAL), 1);
  close(other); /* without a word */
  assert_true(is_hung_up(fd));
  close(fd);
}

/* Connections that say nothing are let alone, and in nobody's way. */
static void test_idle_connections(void **state) {
  enum { IDLE = 40 };
  struct world *world = *state;
  mc_connection *connections[IDLE];
  serve(world);
  for (int i = 0; i < IDLE; i++) connections[i] = dial(world);
  for (int i = 0; i < IDLE; i += 13) assert_reads(world, connections[i], world->object, 0, SIZE, SIZE_MAX);
  assert_int_equal(world->ops->listener_connections(world->listener), IDLE);
  for (int i = 0; i < IDLE; i++) hang_up(world, connections[i]);
}

struct gate {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool reached, open;
};

static void gate_wait(void *arg) {
  struct gate *gate = arg;
  pthread_mutex_lock(&gate->lock);
  gate->reached = true;
  pthread_cond_broadcast(&gate->changed);
  while (!gate->open) pthread_cond_wait(&gate->changed, &gate->lock);
  pthread_mutex_unlock(&gate->lock);
}

static void gate_await(struct gate *gate) {
  pthread_mutex_lock(&gate->lock);
  while (!gate->reached) pthread_cond_wait(&gate->changed, &gate->lock);
  pthread_mutex_unlock(&gate->lock);
}

static void gate_open(struct gate *gate) {
  pthread_mutex_lock(&gate->lock);
  gate->open = true;
  pthread_cond_broadcast(&gate->changed);
  pthread_mutex_unlock(&gate->lock);
}

/* A reader that stops reading holds up nobody, and is given up. */
static void test_slow_reader(void **state) {
  struct world *world = *state;
  struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false};
  uint64_t size = 64 * MC_CHUNK_SIZE;
  world->config.stall_timeout_ms = STALL_MS;
  world->config.threads = 1;
  struct fake_content *large = fake_add(&world->fake, MC_CONTENT_OBJECT, size);
  serve(world);
  struct get *get = get_new(world, dial(world), large, 0, size);
  get->hook = gate_wait;
  get->hook_arg = &gate;
  get->hook_at = 1;
  get_start(get);
  gate_await(&gate);
  mc_connection *connection = dial(world);
  for (int i = 0; i < 5; i++) assert_reads(world, connection, world->object, 0, SIZE, SIZE_MAX);
  hang_up(world, connection);
  fake_await_closes(large, 1);
  gate_open(&gate);
  assert_int_equal(get_join(get), MC_UNAVAILABLE);
  assert_bytes(get, large);
  hang_up(world, get->connection);
  get_free(get);
}

/* ---- the end ---- */

struct closing {
  struct world *world;
  int64_t drain_ms;
  pthread_t thread;
};

static void *close_thread(void *arg) {
  struct closing *closing = arg;
  stop(closing->world, closing->drain_ms);
  return NULL;
}

/* What is under way may end; what begins then is refused. */
static void test_drain(void **state) {
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  serve(world);
  mc_connection *idle = dial(world);
  assert_reads(world, idle, world->object, 0, 1000, SIZE_MAX);
  struct get *get = get_new(world, dial(world), flight, 0, SIZE);
  get_start(get);
  fake_await_watched(flight, 1);
  struct closing closing = {.world = world, .drain_ms = PATIENCE_MS};
  assert_int_equal(pthread_create(&closing.thread, NULL, close_thread, &closing), 0);
  fake_await_closes(world->object, 1); /* the idle one is gone, so it has begun */
  fake_land(flight, MC_CHUNK_SIZE);
  fake_await_watched(flight, 2);
  struct get *late = get_new(world, idle, world->object, 0, SIZE);
  assert_int_equal(get_run(late), MC_UNAVAILABLE);
  get_free(late);
  fake_land(flight, SIZE);
  assert_int_equal(get_join(get), MC_OK);
  assert_bytes(get, flight);
  pthread_join(closing.thread, NULL);
  hang_up(world, idle);
  hang_up(world, get->connection);
  get_free(get);
}

static void test_drain_is_cut(void **state) {
  struct world *world = *state;
  struct fake_content *flight = fake_add_flight(&world->fake, SIZE, false);
  serve(world);
  struct get *get = get_new(world, dial(world), flight, 0, SIZE);
  get_start(get);
  fake_await_watched(flight, 1);
  stop(world, 50);
  assert_int_equal(flight->closes, 1);
  assert_int_equal(get_join(get), MC_UNAVAILABLE);
  hang_up(world, get->connection);
  get_free(get);
}

static void test_listen_again(void **state) {
  struct world *world = *state;
  for (int i = 0; i < 20; i++) {
    if (i) world->ops->close(world->transport);
    serve(world);
    mc_connection *connection = dial(world);
    if (i % 2) assert_reads(world, connection, world->object, 0, SIZE, SIZE_MAX);
    if (i % 3) {
      stop(world, 0);
      hang_up(world, connection);
    } else {
      hang_up(world, connection);
      stop(world, 1000);
    }
  }
}

static int run(const mc_transport_ops *ops) {
  struct world world = {.ops = ops};
  assert_int_equal(ops->abi, MC_TRANSPORT_ABI);
  assert_true(ops->open && ops->close && ops->connect && ops->read && ops->disconnect);
#define TEST(name) cmocka_unit_test_prestate_setup_teardown(name, set_up, tear_down, &world)
  const struct CMUnitTest tests[] = {
      TEST(test_whole_object),
      TEST(test_ranges),
      TEST(test_small_contents),
      TEST(test_not_found),
      TEST(test_beyond_the_end),
      TEST(test_idle_lets_go),
      TEST(test_crowd),
      TEST(test_too_many),
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
      TEST(test_cut),
      TEST(test_listener_closes_in_mid_transfer),
      TEST(test_silent_peer),
      TEST(test_cancel),
      TEST(test_deadline),
      TEST(test_nobody_listens),
      TEST(test_address_in_use),
      TEST(test_garbage),
      TEST(test_half_a_request),
      TEST(test_idle_connections),
      TEST(test_slow_reader),
      TEST(test_drain),
      TEST(test_drain_is_cut),
      TEST(test_listen_again),
  };
  return cmocka_run_group_tests_name(ops->name, tests, NULL, NULL);
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
