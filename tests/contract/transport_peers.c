/* The contract of mc_transport_ops where something goes wrong outside: peers that fail, strangers, the end of a
 * listener.
 *
 * Nothing here knows a wire format: peers that fail are made of a proxy that cuts, sockets that say nothing, and
 * sockets that say nonsense. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/net.h"
#include "transport_world.h"

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

int transport_peers(struct world *world) {
  const struct CMUnitTest tests[] = {
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
  return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}
