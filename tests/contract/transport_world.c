#include "transport_world.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

const mc_call no_limits = {.deadline = INT64_MAX};

static unsigned count_entries(const char *path) {
  unsigned count = 0;
  DIR *folder = opendir(path);
  assert_non_null(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

int world_set_up(void **state) {
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

void serve(struct world *world) {
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(world->ops->open(&world->transport, &world->config, &err), MC_OK);
  mc_status status = world->ops->listen(world->transport, "127.0.0.1:0", &world->fake.exporter, &world->listener, &err);
  if (status) fail_msg("can't listen: %s", err.message);
}

void stop(struct world *world, int64_t drain_ms) {
  if (world->listener) world->ops->listener_close(world->listener, drain_ms);
  world->listener = NULL;
}

int world_tear_down(void **state) {
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

mc_connection *dial_to(struct world *world, const char *endpoint) {
  mc_error err = MC_ERROR_INIT;
  mc_connection *connection = NULL;
  mc_status status = world->ops->connect(world->transport, endpoint, &connection, &no_limits, &err);
  if (status) fail_msg("can't connect: %s", err.message);
  return connection;
}

mc_connection *dial(struct world *world) {
  return dial_to(world, world->ops->listener_endpoint(world->listener));
}

void hang_up(struct world *world, mc_connection *connection) {
  world->ops->disconnect(connection);
}

/* ---- reads ---- */

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

struct get *get_new(struct world *world, mc_connection *connection, const struct fake_content *content, uint64_t begin,
                    uint64_t end) {
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

void get_free(struct get *get) {
  free(get->buffer);
  free(get);
}

mc_status get_run(struct get *get) {
  get->status = get->world->ops->read(get->connection, &get->content, &get->sink, &get->call, &get->err);
  return get->status;
}

static void *get_thread(void *arg) {
  get_run(arg);
  return NULL;
}

void get_start(struct get *get) {
  assert_int_equal(pthread_create(&get->thread, NULL, get_thread, get), 0);
}

bool get_ends(struct get *get, int64_t ms) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  int64_t ns = until.tv_nsec + ms * NS_PER_MS;
  until.tv_sec += ns / NS_PER_S;
  until.tv_nsec = ns % NS_PER_S;
  return pthread_timedjoin_np(get->thread, NULL, &until) == 0;
}

mc_status get_join(struct get *get) {
  if (!get_ends(get, PATIENCE_MS)) fail_msg("a read hangs");
  return get->status;
}

void assert_bytes(const struct get *get, const struct fake_content *content) {
  uint64_t got = get->sink.offset - get->begin;
  assert_true(got <= get->room);
  assert_memory_equal(get->buffer, content->data + get->begin, got);
}

void assert_reads(struct world *world, mc_connection *connection, const struct fake_content *content, uint64_t begin,
                  uint64_t end, size_t most) {
  struct get *get = get_new(world, connection, content, begin, end);
  get->most = most;
  if (get_run(get)) fail_msg("[%llu, %llu): %s", (unsigned long long)begin, (unsigned long long)end, get->err.message);
  assert_int_equal(get->sink.offset, end == MC_SIZE_UNKNOWN ? content->room : end);
  assert_bytes(get, content);
  get_free(get);
}

void assert_fails(struct world *world, const struct fake_content *content, uint64_t begin, uint64_t end,
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
