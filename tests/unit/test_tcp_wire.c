/* The TCP transport's wire, from both ends: a client made of raw frames against the listener, and a server that says
 * what a script wants against the client. What does not need frames is in tests/contract/transport.c. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/transport/tcp/conn.h"
#include "backends/transport/tcp/frame.h"
#include "backends/transport/tcp/tcp.h"
#include "base/clock.h"
#include "base/net.h"
#include "tests/contract/fake_exporter.h"

#define SIZE        (2 * MC_CHUNK_SIZE + 1000)
#define PATIENCE_MS 20000

static const mc_call no_limits = {.deadline = INT64_MAX};

static mc_transport *open_transport(int64_t stall_ms) {
  const mc_transport_config config = {.struct_size = sizeof(config),
                                      .connect_timeout_ms = PATIENCE_MS,
                                      .stall_timeout_ms = stall_ms,
                                      .threads = 1,
                                      .max_connections = 8};
  mc_transport *transport;
  assert_int_equal(tcp_transport_ops.open(&transport, &config, NULL), MC_OK);
  return transport;
}

static void send_all(int fd, const void *data, size_t size) {
  assert_int_equal(send(fd, data, size, MSG_NOSIGNAL), size);
}

/* Receive exactly so much; false at the connection's end. */
static bool receive_all(int fd, void *data, size_t size) {
  for (size_t have = 0; have < size;) {
    assert_int_equal(net_wait(fd, POLLIN, PATIENCE_MS, &no_limits, "test", NULL), MC_OK);
    ssize_t count = recv(fd, (char *)data + have, size - have, MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN)) return false;
    if (count > 0) have += (size_t)count;
  }
  return true;
}

/* ---- the listener ---- */

struct server {
  struct fake_exporter fake;
  struct fake_content *object, *flight;
  mc_transport *transport;
  mc_listener *listener;
  int fd; /* a raw client's */
};

static int serve(void **state, int64_t stall_ms) {
  struct server *server = calloc(1, sizeof(*server));
  assert_non_null(server);
  fake_init(&server->fake);
  server->object = fake_add(&server->fake, MC_CONTENT_OBJECT, SIZE);
  server->flight = fake_add_flight(&server->fake, SIZE, true);
  server->transport = open_transport(stall_ms);
  mc_status status = tcp_listen(server->transport, "127.0.0.1:0", &server->fake.exporter, &server->listener, NULL);
  assert_int_equal(status, MC_OK);
  char host[HOST_SIZE];
  uint16_t port;
  assert_int_equal(net_split(tcp_listener_endpoint(server->listener) + strlen("tcp://"), host, &port, "", NULL), MC_OK);
  assert_int_equal(net_connect(&server->fd, host, port, PATIENCE_MS, &no_limits, NULL), MC_OK);
  *state = server;
  return 0;
}

static int set_up(void **state) {
  return serve(state, PATIENCE_MS);
}

static int tear_down(void **state) {
  struct server *server = *state;
  close(server->fd);
  tcp_listener_close(server->listener, 0);
  tcp_transport_ops.close(server->transport);
  fake_free(&server->fake);
  free(server);
  return 0;
}

static struct tcp_frame ask(const struct fake_content *content, uint32_t request, uint64_t offset, uint64_t length) {
  struct tcp_frame frame = {.type = TCP_FRAME_REQUEST,
                            .kind = (uint8_t)content->content.kind,
                            .request = request,
                            .offset = offset,
                            .length = length};
  memcpy(frame.id, content->content.id, sizeof(frame.id));
  return frame;
}

static void send_frame(int fd, struct tcp_frame frame) {
  uint8_t bytes[TCP_FRAME_SIZE];
  tcp_frame_encode(bytes, &frame);
  send_all(fd, bytes, sizeof(bytes));
}

static struct tcp_frame receive_frame(int fd) {
  uint8_t bytes[TCP_FRAME_SIZE];
  struct tcp_frame frame;
  assert_true(receive_all(fd, bytes, sizeof(bytes)));
  assert_int_equal(tcp_frame_decode(&frame, bytes, NULL), MC_OK);
  return frame;
}

/* Receive DATA frames for [offset, end) and check them. */
static void assert_data(struct server *server, const struct fake_content *content, uint32_t request, uint64_t offset,
                        uint64_t end) {
  uint8_t *payload = malloc(MC_CHUNK_SIZE);
  assert_non_null(payload);
  while (offset < end) {
    struct tcp_frame frame = receive_frame(server->fd);
    assert_int_equal(frame.type, TCP_FRAME_DATA);
    assert_int_equal(frame.request, request);
    assert_int_equal(frame.offset, offset);
    assert_true(frame.length <= end - offset);
    assert_true(receive_all(server->fd, payload, frame.length));
    assert_memory_equal(payload, content->data + offset, frame.length);
    offset += frame.length;
  }
  free(payload);
}

static void assert_error(struct server *server, uint32_t request, mc_status status) {
  char text[TCP_FRAME_TEXT_MAX];
  struct tcp_frame frame = receive_frame(server->fd);
  assert_int_equal(frame.type, TCP_FRAME_ERROR);
  assert_int_equal(frame.request, request);
  assert_int_equal(frame.status, status);
  assert_true(frame.length > 10);
  assert_true(receive_all(server->fd, text, frame.length));
}

static void assert_closed(struct server *server) {
  char byte;
  assert_false(receive_all(server->fd, &byte, 1));
}

/* Many more requests at once than the server reads ahead; answered in order. */
static void test_pipelined(void **state) {
  enum { REQUESTS = 100 };
  struct server *server = *state;
  uint8_t bytes[REQUESTS * TCP_FRAME_SIZE];
  for (uint32_t i = 0; i < REQUESTS; i++) {
    struct tcp_frame frame = ask(server->object, i + 1, i * 1000, 5000 + i);
    tcp_frame_encode(bytes + i * TCP_FRAME_SIZE, &frame);
  }
  send_all(server->fd, bytes, sizeof(bytes));
  for (uint32_t i = 0; i < REQUESTS; i++) {
    assert_data(server, server->object, i + 1, i * 1000, i * 1000 + 5000 + i);
  }
  assert_int_equal(server->object->opens, 1);
}

/* A frame never spans two chunks, whatever was asked for. */
static void test_frames_end_with_chunks(void **state) {
  struct server *server = *state;
  send_frame(server->fd, ask(server->object, 1, MC_CHUNK_SIZE - 10, 20));
  assert_int_equal(receive_frame(server->fd).length, 10);
  char payload[10];
  assert_true(receive_all(server->fd, payload, 10));
  assert_data(server, server->object, 1, MC_CHUNK_SIZE, MC_CHUNK_SIZE + 10);
}

static void test_errors_leave_it_usable(void **state) {
  struct server *server = *state;
  struct tcp_frame unknown = ask(server->object, 2, 0, 10);
  unknown.id[0] ^= 0xff;
  struct tcp_frame suspect = ask(server->object, 4, 0, 10);
  suspect.flags = TCP_FRAME_SUSPECT;
  server->object->suspect_status = MC_CORRUPT;
  send_frame(server->fd, ask(server->object, 1, 0, 10));
  send_frame(server->fd, unknown);
  send_frame(server->fd, ask(server->object, 3, SIZE, 1));
  send_frame(server->fd, suspect);
  send_frame(server->fd, ask(server->object, 5, SIZE - 10, 10));
  assert_data(server, server->object, 1, 0, 10);
  assert_error(server, 2, MC_NOT_FOUND);
  assert_error(server, 3, MC_INVALID_ARGUMENT);
  assert_error(server, 4, MC_CORRUPT);
  assert_data(server, server->object, 5, SIZE - 10, SIZE);
}

static void test_open_end(void **state) {
  struct server *server = *state;
  send_frame(server->fd, ask(server->object, 1, SIZE - 5, MC_SIZE_UNKNOWN));
  assert_data(server, server->object, 1, SIZE - 5, SIZE);
  struct tcp_frame end = receive_frame(server->fd);
  assert_int_equal(end.type, TCP_FRAME_END);
  assert_int_equal(end.request, 1);
  assert_int_equal(end.offset, SIZE);
}

/* The client's patience says how often it must hear from us. */
static void test_wait(void **state) {
  struct server *server = *state;
  struct tcp_frame frame = ask(server->flight, 9, 0, MC_SIZE_UNKNOWN);
  frame.patience_ms = 60;
  send_frame(server->fd, frame);
  int64_t begin = clock_ns();
  for (int i = 0; i < 3; i++) {
    frame = receive_frame(server->fd);
    assert_int_equal(frame.type, TCP_FRAME_WAIT);
    assert_int_equal(frame.request, 9);
    assert_int_equal(frame.offset, 0);
  }
  assert_true(clock_ns() - begin >= 50 * NS_PER_MS);
  fake_finish(server->flight);
  do {
    frame = receive_frame(server->fd);
  } while (frame.type == TCP_FRAME_WAIT);
  assert_int_equal(frame.type, TCP_FRAME_DATA);
  assert_int_equal(frame.length, MC_CHUNK_SIZE);
}

static void test_byte_by_byte(void **state) {
  struct server *server = *state;
  uint8_t bytes[TCP_FRAME_SIZE];
  struct tcp_frame frame = ask(server->object, 1, 3, 7);
  tcp_frame_encode(bytes, &frame);
  for (size_t i = 0; i < sizeof(bytes); i++) send_all(server->fd, bytes + i, 1);
  assert_data(server, server->object, 1, 3, 10);
}

static void test_bad_requests(void **state) {
  struct server *server = *state;
  static const struct tcp_frame data = {.type = TCP_FRAME_DATA, .request = 1, .offset = 0, .length = 10};
  send_frame(server->fd, ask(server->object, 1, 0, 10));
  send_frame(server->fd, data);
  send_frame(server->fd, ask(server->object, 2, 0, 10)); /* too late */
  assert_data(server, server->object, 1, 0, 10);
  assert_error(server, 0, MC_PROTOCOL);
  assert_closed(server);
}

static void test_other_version(void **state) {
  struct server *server = *state;
  uint8_t bytes[TCP_FRAME_SIZE];
  struct tcp_frame frame = ask(server->object, 1, 0, 10);
  tcp_frame_encode(bytes, &frame);
  bytes[4] = 2;
  send_all(server->fd, bytes, sizeof(bytes));
  assert_error(server, 0, MC_UNSUPPORTED);
  assert_closed(server);
}

/* Our last words arrive although the peer goes on talking. */
static void test_last_words(void **state) {
  struct server *server = *state;
  static uint8_t noise[1 << 20];
  send_all(server->fd, noise, sizeof(noise));
  assert_error(server, 0, MC_PROTOCOL);
}

static int set_up_impatient(void **state) {
  return serve(state, 100);
}

static void test_half_a_frame(void **state) {
  struct server *server = *state;
  uint8_t bytes[TCP_FRAME_SIZE];
  struct tcp_frame frame = ask(server->object, 1, 0, 10);
  tcp_frame_encode(bytes, &frame);
  send_all(server->fd, bytes, sizeof(bytes));
  assert_data(server, server->object, 1, 0, 10);
  send_all(server->fd, bytes, sizeof(bytes) - 1);
  assert_error(server, 0, MC_PROTOCOL);
  assert_closed(server);
}

/* ---- the client ---- */

/* What a server says: bytes in pieces, then it waits for the client to go. */
struct script {
  int fd;
  const uint8_t *bytes;
  size_t size, piece;
  bool close; /* hang up at once after the last byte */
  pthread_t thread;
};

static void *play(void *arg) {
  struct script *script = arg;
  uint8_t request[TCP_FRAME_SIZE];
  if (recv(script->fd, request, sizeof(request), MSG_WAITALL) != sizeof(request)) return NULL;
  for (size_t at = 0; at < script->size;) {
    size_t left = script->size - at;
    ssize_t sent = send(script->fd, script->bytes + at, left < script->piece ? left : script->piece, MSG_NOSIGNAL);
    if (sent <= 0) return NULL;
    at += (size_t)sent;
  }
  if (script->close) shutdown(script->fd, SHUT_RDWR);
  while (recv(script->fd, request, sizeof(request), 0) > 0) continue;
  return NULL;
}

struct sink {
  mc_sink sink; /* first */
  uint8_t bytes[4096];
};

static void *sink_space(mc_sink *sink, size_t *size) {
  if (*size > sizeof(((struct sink *)sink)->bytes) - sink->offset)
    *size = sizeof(((struct sink *)sink)->bytes) - sink->offset;
  return ((struct sink *)sink)->bytes + sink->offset;
}

static mc_status sink_advance(mc_sink *sink, size_t size, mc_error *err) {
  (void)err;
  sink->offset += size;
  return MC_OK;
}

struct answer {
  uint8_t bytes[8192];
  size_t size;
};

static void say(struct answer *answer, struct tcp_frame frame, const void *payload) {
  tcp_frame_encode(answer->bytes + answer->size, &frame);
  answer->size += TCP_FRAME_SIZE;
  if (payload) memcpy(answer->bytes + answer->size, payload, frame.length);
  if (payload) answer->size += frame.length;
}

/* Read [0, end) from a server that says this. */
static mc_status hear(const struct answer *answer, uint64_t end, bool hang_up, struct sink *sink, mc_error *err) {
  mc_transport *transport = open_transport(200);
  mc_connection *connection;
  static const mc_content content = {.kind = MC_CONTENT_OBJECT};
  int ends[2];
  *sink = (struct sink){.sink = {.end = end, .space = sink_space, .advance = sink_advance}};
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  struct script script = {.fd = ends[1], .bytes = answer->bytes, .size = answer->size, .piece = 77, .close = hang_up};
  assert_int_equal(pthread_create(&script.thread, NULL, play, &script), 0);
  assert_int_equal(tcp_connection_new(&connection, transport, ends[0], "peer", NULL), MC_OK);
  mc_status status = tcp_read(connection, &content, &sink->sink, &no_limits, err);
  if (status) assert_int_equal(status, err->status);
  tcp_disconnect(connection);
  pthread_join(script.thread, NULL);
  close(ends[1]);
  tcp_transport_ops.close(transport);
  return status;
}

static const char payload[] = "the bytes that were asked for";
#define PAYLOAD (sizeof(payload))

static struct tcp_frame data_at(uint64_t offset, uint64_t length) {
  return (struct tcp_frame){.type = TCP_FRAME_DATA, .request = 1, .offset = offset, .length = length};
}

static void test_client_takes_answers(void **state) {
  (void)state;
  struct sink sink;
  mc_error err = MC_ERROR_INIT;
  struct answer answer = {.size = 0};
  const struct tcp_frame wait = {.type = TCP_FRAME_WAIT, .request = 1};
  say(&answer, wait, NULL);
  say(&answer, data_at(0, 10), payload);
  say(&answer, wait, NULL);
  say(&answer, data_at(10, PAYLOAD - 10), payload + 10);
  assert_int_equal(hear(&answer, PAYLOAD, false, &sink, &err), MC_OK);
  assert_string_equal(sink.bytes, payload);
  say(&answer, (struct tcp_frame){.type = TCP_FRAME_END, .request = 1, .offset = PAYLOAD}, NULL);
  assert_int_equal(hear(&answer, MC_SIZE_UNKNOWN, false, &sink, &err), MC_OK);
  assert_int_equal(sink.sink.offset, PAYLOAD);
}

static void test_client_refuses(void **state) {
  (void)state;
  const struct tcp_frame bad[] = {
      {.type = TCP_FRAME_DATA, .request = 2, .offset = 10, .length = 5},    /* another request's */
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 9, .length = 5},     /* out of order */
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 11, .length = 5},    /* a hole */
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 10, .length = 4000}, /* too much */
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 10, .length = UINT64_MAX},
      {.type = TCP_FRAME_END, .request = 1, .offset = 10}, /* not asked for */
      {.type = TCP_FRAME_WAIT, .request = 2},
      {.type = TCP_FRAME_ERROR, .request = 2, .status = MC_NOT_FOUND},
      {.type = TCP_FRAME_ERROR, .request = 1, .status = MC_OK},
      {.type = TCP_FRAME_ERROR, .request = 1, .status = MC_NOT_FOUND, .length = 480},
      {.type = TCP_FRAME_REQUEST, .request = 1, .kind = 1, .length = 1},
      {.type = 77, .request = 1},
  };
  struct sink sink;
  mc_error err = MC_ERROR_INIT;
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    struct answer answer = {.size = 0};
    say(&answer, data_at(0, 10), payload);
    say(&answer, bad[i], NULL);
    mc_status status = hear(&answer, PAYLOAD, false, &sink, &err);
    if (status != MC_PROTOCOL) fail_msg("frame %zu: %s", i, mc_status_name(status));
    assert_int_equal(sink.sink.offset, 10);
  }
  /* An open-ended answer that ends before its bytes. */
  struct answer answer = {.size = 0};
  say(&answer, (struct tcp_frame){.type = TCP_FRAME_END, .request = 1, .offset = 5}, NULL);
  assert_int_equal(hear(&answer, MC_SIZE_UNKNOWN, false, &sink, &err), MC_PROTOCOL);
  answer = (struct answer){.size = 100, .bytes = "HTTP/1.1 400 Bad Request\r\n"};
  assert_int_equal(hear(&answer, PAYLOAD, false, &sink, &err), MC_PROTOCOL);
}

/* What the server says of itself is not what befell the client. */
static void test_client_translates_errors(void **state) {
  (void)state;
  static const struct {
    uint32_t said, heard;
  } cases[] = {
      {MC_NOT_FOUND, MC_NOT_FOUND},
      {MC_CORRUPT, MC_CORRUPT},
      {MC_CHANGED, MC_CHANGED},
      {MC_INVALID_ARGUMENT, MC_INVALID_ARGUMENT},
      {MC_RESOURCE_EXHAUSTED, MC_RESOURCE_EXHAUSTED},
      {MC_UNAVAILABLE, MC_UNAVAILABLE},
      {MC_CANCELLED, MC_UNAVAILABLE},
      {MC_DEADLINE_EXCEEDED, MC_UNAVAILABLE},
      {MC_NO_SPACE, MC_UNAVAILABLE},
      {MC_NO_MEMORY, MC_UNAVAILABLE},
      {MC_IO, MC_UNAVAILABLE},
      {1000, MC_UNAVAILABLE},
      {UINT32_MAX, MC_UNAVAILABLE},
  };
  struct sink sink;
  mc_error err = MC_ERROR_INIT;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    for (uint32_t request = 0; request < 2; request++) {
      struct answer answer = {.size = 0};
      struct tcp_frame frame = {
          .type = TCP_FRAME_ERROR, .request = request, .status = cases[i].said, .length = PAYLOAD - 1};
      say(&answer, frame, payload);
      assert_int_equal(hear(&answer, PAYLOAD, request == 0, &sink, &err), cases[i].heard);
      assert_string_equal(err.message, "peer: the bytes that were asked for");
      frame.length = 0;
      answer.size = 0;
      say(&answer, frame, NULL);
      assert_int_equal(hear(&answer, PAYLOAD, false, &sink, &err), cases[i].heard);
    }
  }
}

static void test_client_is_left(void **state) {
  (void)state;
  struct sink sink;
  mc_error err = MC_ERROR_INIT;
  struct answer answer = {.size = 0};
  say(&answer, data_at(0, PAYLOAD), payload);
  size_t whole = answer.size;
  for (answer.size = 0; answer.size < whole; answer.size++) {
    assert_int_equal(hear(&answer, PAYLOAD, true, &sink, &err), MC_UNAVAILABLE);
    uint64_t expected = answer.size < TCP_FRAME_SIZE ? 0 : answer.size - TCP_FRAME_SIZE;
    assert_int_equal(sink.sink.offset, expected);
  }
}

/* A peer that is alive but slow is not given up; the bytes below the low-water mark count as well. */
static void test_client_stalls(void **state) {
  (void)state;
  struct sink sink;
  mc_error err = MC_ERROR_INIT;
  struct answer answer = {.size = 0};
  say(&answer, data_at(0, PAYLOAD), payload);
  answer.size--;
  assert_int_equal(hear(&answer, PAYLOAD, false, &sink, &err), MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "not moved a byte"));
  assert_int_equal(sink.sink.offset, PAYLOAD - 1);
}

/* After a broken answer nothing more is read from a connection; after a clean error it goes on. */
static void test_client_reuses(void **state) {
  (void)state;
  mc_transport *transport = open_transport(PATIENCE_MS);
  mc_connection *connection;
  static const mc_content content = {.kind = MC_CONTENT_OBJECT};
  struct sink sink;
  mc_error err = MC_ERROR_INIT;
  struct answer answer = {.size = 0};
  int ends[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  assert_int_equal(tcp_connection_new(&connection, transport, ends[0], "peer", NULL), MC_OK);
  struct tcp_frame second = data_at(0, PAYLOAD), third = data_at(1, PAYLOAD);
  second.request = 2;
  third.request = 3;
  say(&answer, (struct tcp_frame){.type = TCP_FRAME_ERROR, .request = 1, .status = MC_NOT_FOUND}, NULL);
  say(&answer, second, payload);
  say(&answer, third, payload);
  send_all(ends[1], answer.bytes, answer.size);
  static const mc_status expected[] = {MC_NOT_FOUND, MC_OK, MC_PROTOCOL, MC_UNAVAILABLE};
  for (int i = 0; i < 4; i++) {
    sink = (struct sink){.sink = {.end = PAYLOAD, .space = sink_space, .advance = sink_advance}};
    assert_int_equal(tcp_read(connection, &content, &sink.sink, &no_limits, &err), expected[i]);
  }
  tcp_disconnect(connection);
  close(ends[1]);
  tcp_transport_ops.close(transport);
}

/* Also when somebody else, as a child process of the host, has a copy of its descriptor. */
static void test_client_hangs_up(void **state) {
  (void)state;
  mc_transport *transport = open_transport(PATIENCE_MS);
  mc_connection *connection;
  int ends[2];
  char byte;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  int copy = dup(ends[0]);
  assert_true(copy >= 0);
  assert_int_equal(tcp_connection_new(&connection, transport, ends[0], "peer", NULL), MC_OK);
  tcp_disconnect(connection);
  assert_int_equal(recv(ends[1], &byte, 1, MSG_DONTWAIT), 0);
  close(copy);
  close(ends[1]);
  tcp_transport_ops.close(transport);
}

/* By the clock of the test: nobody waits here for so long. */
static void test_idle_connections_end(void **state) {
  (void)state;
  struct tcp_listener *listener = calloc(1, sizeof(*listener) + sizeof(listener->workers[0]));
  assert_non_null(listener);
  listener->workers[0].listener = listener;
  struct tcp_conn conn = {.worker = &listener->workers[0], .state = TCP_CONN_IDLE, .since = NS_PER_S};
  int64_t deadline = tcp_conn_deadline(&conn);
  assert_true(deadline > 61 * NS_PER_S && deadline < INT64_MAX); /* later than clients close theirs */
  assert_int_equal(tcp_conn_expire(&conn, deadline), TCP_TURN_OVER);
  free(listener);
}

int main(void) {
#define SERVER(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      SERVER(test_pipelined),
      SERVER(test_frames_end_with_chunks),
      SERVER(test_errors_leave_it_usable),
      SERVER(test_open_end),
      SERVER(test_wait),
      SERVER(test_byte_by_byte),
      SERVER(test_bad_requests),
      SERVER(test_other_version),
      SERVER(test_last_words),
      cmocka_unit_test_setup_teardown(test_half_a_frame, set_up_impatient, tear_down),
      cmocka_unit_test(test_idle_connections_end),
      cmocka_unit_test(test_client_takes_answers),
      cmocka_unit_test(test_client_refuses),
      cmocka_unit_test(test_client_translates_errors),
      cmocka_unit_test(test_client_is_left),
      cmocka_unit_test(test_client_stalls),
      cmocka_unit_test(test_client_reuses),
      cmocka_unit_test(test_client_hangs_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
