/* gRPC over libcurl: frames and header texts by themselves, then calls of a peer that says right and wrong things. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/upstream/cluster/grpc.h"
#include "backends/upstream/cluster/wire.h"
#include "base/clock.h"
#include "grpc_peer.h"

#define CONNECT_MS 500
#define STALL_MS   700

static const mc_call forever = {INT64_MAX, NULL};

static struct rpc_channel *channel_to(const char *address) {
  struct rpc_channel_config config = {
      .address = address, .connect_timeout_ms = CONNECT_MS, .stall_timeout_ms = STALL_MS, .user_agent = "test"};
  struct rpc_channel *channel = NULL;
  assert_int_equal(rpc_channel_open(&channel, &config, NULL), MC_OK);
  return channel;
}

/* One call from begin to end: its status, the bytes of its messages one behind the other. */
static mc_status call_once(struct rpc_channel *channel, const void *message, size_t size, struct buf *got,
                           const mc_call *call, mc_error *err) {
  struct rpc_stream *stream;
  mc_status status = rpc_stream_open(&stream, channel, "/test.Test/Call", message, size, call, err);
  if (status) return status;
  const void *data;
  while (!(status = rpc_stream_next(stream, &data, &size, call, err)) && data) {
    if (got) assert_true(buf_append(got, data, size));
  }
  rpc_stream_close(stream, false);
  return status;
}

/* ---- frames ---- */

static void frames_come_whole_however_they_are_cut(void **state) {
  (void)state;
  static const uint8_t bytes[] = {0, 0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'd', 0, 0};
  for (size_t piece = 1; piece <= sizeof(bytes); piece++) {
    struct wire_frames frames;
    wire_frames_init(&frames, 16);
    char got[16] = "";
    int count = 0;
    for (size_t at = 0; at < sizeof(bytes); at += piece) {
      size_t size = sizeof(bytes) - at < piece ? sizeof(bytes) - at : piece;
      assert_int_equal(wire_frames_feed(&frames, bytes + at, size, NULL), MC_OK);
      const void *message;
      while (wire_frames_next(&frames, &message, &size)) {
        strncat(got, message, size);
        count++;
      }
    }
    assert_string_equal(got, "abcd");
    assert_int_equal(count, 3);
    assert_true(wire_frames_torn(&frames));
    wire_frames_free(&frames);
  }
}

static void a_compressed_or_too_long_message_is_refused(void **state) {
  (void)state;
  struct wire_frames frames;
  wire_frames_init(&frames, 16);
  assert_int_equal(wire_frames_feed(&frames, "\1\0\0\0\1", 5, NULL), MC_PROTOCOL);
  wire_frames_free(&frames);
  wire_frames_init(&frames, 16);
  assert_int_equal(wire_frames_feed(&frames, "\0\0\0\0\1x\0\0\0\0\21", 11, NULL), MC_RESOURCE_EXHAUSTED);
  const void *message;
  size_t size;
  assert_true(wire_frames_next(&frames, &message, &size)); /* what came before it counts */
  assert_false(wire_frames_next(&frames, &message, &size));
  wire_frames_free(&frames);
}

static void header_texts_are_read_as_grpc_defines_them(void **state) {
  (void)state;
  char text[8];
  wire_decode_message(text, sizeof(text), "a%20%4b%", 8);
  assert_string_equal(text, "a K%");
  wire_decode_message(text, sizeof(text), "%zz%00%4", 8);
  assert_string_equal(text, "%zz?%4");
  wire_decode_message(text, sizeof(text), "0123456789", 10);
  assert_string_equal(text, "0123456");
  assert_int_equal(wire_parse_code("14", 2), 14);
  assert_int_equal(wire_parse_code("", 0), WIRE_UNKNOWN);
  assert_int_equal(wire_parse_code("1x", 2), WIRE_UNKNOWN);
  assert_int_equal(wire_parse_code("99999999999", 11), WIRE_UNKNOWN);
  assert_int_equal(wire_code_of_http(503), WIRE_UNAVAILABLE);
  assert_int_equal(wire_code_of_http(200), WIRE_UNKNOWN);
  assert_string_equal(wire_code_name(5), "NOT_FOUND");
  assert_string_equal(wire_code_name(-1), "UNKNOWN");
  assert_string_equal(wire_code_name(WIRE_CODES), "UNKNOWN");
}

static void every_code_has_its_status(void **state) {
  (void)state;
  static const struct {
    int code;
    mc_status status;
  } rows[] = {{0, MC_OK},
              {3, MC_INVALID_ARGUMENT},
              {4, MC_DEADLINE_EXCEEDED},
              {5, MC_NOT_FOUND},
              {7, MC_PERMISSION_DENIED},
              {8, MC_RESOURCE_EXHAUSTED},
              {10, MC_CHANGED},
              {12, MC_UNSUPPORTED},
              {14, MC_UNAVAILABLE},
              {15, MC_CORRUPT},
              {77, MC_IO}};
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    assert_int_equal(wire_status(rows[i].code), rows[i].status);
  }
}

static mc_status named(int code, const char *name) {
  return wire_status_named(code, name, strlen(name));
}

static void a_servers_own_status_is_believed_where_it_fits_its_code(void **state) {
  (void)state;
  assert_int_equal(named(8, "no_space"), MC_NO_SPACE);
  assert_int_equal(named(8, "no_memory"), MC_NO_MEMORY);
  assert_int_equal(named(8, "resource_exhausted"), MC_RESOURCE_EXHAUSTED);
  assert_int_equal(named(10, "busy"), MC_BUSY);
  assert_int_equal(named(10, "changed"), MC_CHANGED);
  assert_int_equal(named(13, "protocol"), MC_PROTOCOL);
  static const char *const odd[] = {"", "no_spac", "no_spacex", "ok", "cancelled", "NO_SPACE", "not_found", "\xff"};
  for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
    assert_int_equal(named(8, odd[i]), MC_RESOURCE_EXHAUSTED);
    assert_int_equal(named(0, odd[i]), MC_OK);
    assert_int_equal(named(5, odd[i]), MC_NOT_FOUND);
    assert_int_equal(named(-1, odd[i]), MC_IO);
  }
  assert_int_equal(named(0, "no_space"), MC_OK);
  assert_int_equal(named(14, "no_space"), MC_UNAVAILABLE);
}

static void timeouts_fit_eight_digits(void **state) {
  (void)state;
  char text[WIRE_TIMEOUT_SIZE];
  assert_string_equal(wire_timeout(text, 1), "1n");
  assert_string_equal(wire_timeout(text, -5), "1n");
  assert_string_equal(wire_timeout(text, 1500000001), "1500001u"); /* rounded up: ours ends first */
  assert_string_equal(wire_timeout(text, 60 * NS_PER_S), "60000000u");
  assert_string_equal(wire_timeout(text, INT64_MAX), "2562048H");
}

/* ---- calls that go well ---- */

static void echo(struct peer_call *call, void *user) {
  (void)user;
  size_t size;
  const uint8_t *message = peer_message(call, &size);
  peer_send(call, message, size);
  peer_finish(call, 0, NULL);
}

static void calls_share_a_connection_one_after_the_other(void **state) {
  (void)state;
  struct peer *peer = peer_start(0, echo, NULL);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  struct buf got;
  buf_init(&got, 1 << 20);
  for (int i = 0; i < 50; i++) {
    assert_int_equal(call_once(channel, "hello", 5, &got, &forever, NULL), MC_OK);
    assert_string_equal(got.data, "hello");
    buf_clear(&got);
  }
  assert_int_equal(peer_connections(peer), 1);
  assert_int_equal(peer_calls(peer), 50);
  buf_free(&got);
  rpc_channel_close(channel);
  peer_stop(peer);
}

static void a_kept_connection_that_was_cut_is_made_anew(void **state) {
  (void)state;
  struct peer *peer = peer_start(0, echo, NULL);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  for (int i = 0; i < 5; i++) {
    assert_int_equal(call_once(channel, "x", 1, NULL, &forever, NULL), MC_OK);
    assert_int_equal(call_once(channel, "x", 1, NULL, &forever, NULL), MC_OK);
    peer_cut(peer);
  }
  assert_int_equal(peer_connections(peer), 5);
  assert_int_equal(peer_calls(peer), 10);
  rpc_channel_close(channel);
  peer_stop(peer);
}

#define MANY 5000

static void send_many(struct peer_call *call, void *user) {
  (void)user;
  for (uint32_t i = 0; i < MANY; i++) peer_send(call, &i, i % 7 ? sizeof(i) : 0);
  char *large = calloc(1, 8 << 20);
  peer_send(call, large, 8 << 20);
  free(large);
  peer_finish(call, 0, NULL);
}

static void a_stream_brings_its_messages_in_order(void **state) {
  (void)state;
  struct peer *peer = peer_start(0, send_many, NULL);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  for (int round = 0; round < 3; round++) { /* the later ones on the connection of the first */
    struct rpc_stream *stream;
    const void *data;
    size_t size;
    assert_int_equal(rpc_stream_open(&stream, channel, "/t/M", "", 0, &forever, NULL), MC_OK);
    for (uint32_t i = 0; i < MANY; i++) {
      assert_int_equal(rpc_stream_next(stream, &data, &size, &forever, NULL), MC_OK);
      assert_non_null(data);
      assert_int_equal(size, i % 7 ? sizeof(i) : 0);
      if (size) assert_memory_equal(data, &i, sizeof(i));
    }
    assert_int_equal(rpc_stream_next(stream, &data, &size, &forever, NULL), MC_OK);
    assert_int_equal(size, 8 << 20);
    assert_int_equal(rpc_stream_next(stream, &data, &size, &forever, NULL), MC_OK);
    assert_null(data);
    assert_int_equal(rpc_stream_next(stream, &data, &size, &forever, NULL), MC_OK); /* and it stays so */
    assert_null(data);
    rpc_stream_close(stream, false);
  }
  assert_int_equal(peer_connections(peer), 1);
  rpc_channel_close(channel);
  peer_stop(peer);
}

struct caller {
  struct rpc_channel *channel;
  pthread_t thread;
  int failures;
};

static void *caller_main(void *arg) {
  struct caller *caller = arg;
  for (int i = 0; i < 25; i++) {
    struct buf got;
    buf_init(&got, 64);
    bool good = call_once(caller->channel, "abc", 3, &got, &forever, NULL) == MC_OK && strcmp(got.data, "abc") == 0;
    caller->failures += !good;
    buf_free(&got);
  }
  return NULL;
}

static void threads_call_at_once(void **state) {
  (void)state;
  struct peer *peer = peer_start(0, echo, NULL);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  struct caller callers[12];
  for (int i = 0; i < 12; i++) {
    callers[i] = (struct caller){.channel = channel};
    assert_int_equal(pthread_create(&callers[i].thread, NULL, caller_main, &callers[i]), 0);
  }
  for (int i = 0; i < 12; i++) {
    pthread_join(callers[i].thread, NULL);
    assert_int_equal(callers[i].failures, 0);
  }
  assert_int_equal(peer_calls(peer), 12 * 25);
  rpc_channel_close(channel);
  peer_stop(peer);
}

/* ---- calls that end badly ---- */

static mc_status one_call_of(peer_handler handler, mc_error *err) {
  struct peer *peer = peer_start(0, handler, NULL);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  mc_status status = call_once(channel, "x", 1, NULL, &forever, err);
  assert_string_equal(err->origin, "cluster");
  assert_int_equal(err->status, status);
  rpc_channel_close(channel);
  peer_stop(peer);
  return status;
}

static void say_not_found(struct peer_call *call, void *user) {
  (void)user;
  peer_finish(call, 5, "no such file: caf%C3%A9%0Ax");
}

static void say_no_space(struct peer_call *call, void *user) {
  (void)user;
  peer_finish_named(call, 8, "the disk is full", "no_space");
}

static void say_no_space_behind_a_message(struct peer_call *call, void *user) {
  (void)user;
  peer_send(call, "a", 1);
  peer_finish_named(call, 8, NULL, "no_space");
}

static void say_exhausted(struct peer_call *call, void *user) {
  (void)user;
  char name[300];
  memset(name, 'n', sizeof(name) - 1);
  name[sizeof(name) - 1] = 0;
  peer_finish_named(call, 8, NULL, name);
}

static void say_well_named_badly(struct peer_call *call, void *user) {
  (void)user;
  peer_finish_named(call, 0, NULL, "no_space");
}

static void say_data_loss(struct peer_call *call, void *user) {
  (void)user;
  peer_send(call, "a", 1);
  peer_finish(call, 15, NULL);
}

static void say_deadline(struct peer_call *call, void *user) {
  (void)user;
  peer_finish(call, 4, NULL);
}

static void say_service_unavailable(struct peer_call *call, void *user) {
  (void)user;
  peer_headers(call, 503, "text/html", false);
  peer_send_raw(call, "<html>", 6);
  peer_end(call);
}

static void say_http_not_found(struct peer_call *call, void *user) {
  (void)user;
  peer_headers(call, 404, "text/html", true);
}

static void say_html(struct peer_call *call, void *user) {
  (void)user;
  peer_headers(call, 200, "text/html", false);
  peer_send_raw(call, "<html>", 6);
  peer_end(call);
}

static void say_compressed(struct peer_call *call, void *user) {
  (void)user;
  peer_send_raw(call, "\1\0\0\0\1x", 6);
  peer_finish(call, 0, NULL);
}

static void say_gigabyte(struct peer_call *call, void *user) {
  (void)user;
  peer_send_raw(call, "\0\x40\0\0\0", 5);
  peer_wait_cancelled(call);
}

static void say_half(struct peer_call *call, void *user) {
  (void)user;
  peer_send_raw(call, "\0\0\0\0\5xy", 7);
  peer_finish(call, 0, NULL);
}

static void say_nothing_at_the_end(struct peer_call *call, void *user) {
  (void)user;
  peer_send(call, "x", 1);
  peer_end(call);
}

static void break_off(struct peer_call *call, void *user) {
  (void)user;
  peer_send(call, "x", 1);
  peer_hang_up(call);
}

static void bad_ends_have_their_status(void **state) {
  (void)state;
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(one_call_of(say_not_found, &err), MC_NOT_FOUND);
  assert_non_null(strstr(err.message, "no such file: caf\xC3\xA9?x"));
  assert_int_equal(one_call_of(say_no_space, &err), MC_NO_SPACE);
  assert_non_null(strstr(err.message, "the disk is full"));
  assert_int_equal(one_call_of(say_no_space_behind_a_message, &err), MC_NO_SPACE);
  assert_int_equal(one_call_of(say_exhausted, &err), MC_RESOURCE_EXHAUSTED);
  err = (mc_error)MC_ERROR_INIT;
  assert_int_equal(one_call_of(say_data_loss, &err), MC_CORRUPT);
  assert_non_null(strstr(err.message, "DATA_LOSS"));
  assert_int_equal(one_call_of(say_deadline, &err), MC_UNAVAILABLE); /* the call had no deadline */
  assert_int_equal(one_call_of(say_service_unavailable, &err), MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "HTTP 503"));
  assert_int_equal(one_call_of(say_http_not_found, &err), MC_UNSUPPORTED);
  assert_int_equal(one_call_of(say_html, &err), MC_IO);
  assert_int_equal(one_call_of(say_compressed, &err), MC_PROTOCOL);
  assert_int_equal(one_call_of(say_gigabyte, &err), MC_RESOURCE_EXHAUSTED);
  assert_int_equal(one_call_of(say_half, &err), MC_PROTOCOL);
  assert_int_equal(one_call_of(say_nothing_at_the_end, &err), MC_PROTOCOL);
  assert_int_equal(one_call_of(break_off, &err), MC_UNAVAILABLE);
}

static void a_name_does_not_make_a_failure_of_success(void **state) {
  (void)state;
  struct peer *peer = peer_start(0, say_well_named_badly, NULL);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  assert_int_equal(call_once(channel, "x", 1, NULL, &forever, NULL), MC_OK);
  rpc_channel_close(channel);
  peer_stop(peer);
}

static void a_port_without_a_server_is_told_at_once(void **state) {
  (void)state;
  struct peer *peer = peer_start(0, echo, NULL);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  peer_stop(peer);
  mc_error err = MC_ERROR_INIT;
  int64_t began = clock_ns();
  assert_int_equal(call_once(channel, "x", 1, NULL, &forever, &err), MC_UNAVAILABLE);
  assert_true(clock_ns() - began < CONNECT_MS * NS_PER_MS);
  assert_non_null(strstr(err.message, "can't reach the service at 127.0.0.1:"));
  assert_int_equal(rpc_channel_probe(channel, 0, &forever, NULL), MC_UNAVAILABLE);
  rpc_channel_close(channel);
}

static sem_t answers; /* of the resolver, about slow.test */

/* In the place of libc's, for libcurl. */
__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **out) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
  if (name && strcmp(name, "slow.test") == 0) {
    while (sem_wait(&answers)) continue;
    sem_post(&answers);
    name = "127.0.0.1";
  }
  return real(name, service, hints, out);
}

static void a_name_is_not_waited_for_longer_than_asked(void **state) {
  (void)state;
  mc_error err = MC_ERROR_INIT;
  mc_call hurried = {deadline_in_ms(50), NULL};
  sem_init(&answers, 0, 0);
  struct rpc_channel *channel = channel_to("slow.test:9");
  assert_int_equal(call_once(channel, "", 0, NULL, &hurried, NULL), MC_DEADLINE_EXCEEDED);
  assert_int_equal(call_once(channel, "", 0, NULL, &forever, &err), MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "not found in time"));
  sem_post(&answers);
  assert_int_equal(call_once(channel, "", 0, NULL, &forever, NULL), MC_UNAVAILABLE); /* nobody listens there */
  rpc_channel_close(channel);
  sem_destroy(&answers);
}

static void a_bad_address_is_refused(void **state) {
  (void)state;
  static const char *const bad[] = {"", "host", "host:", ":80", "host:0", "a@b:80", "a/b:80", "host:99999", "::1:80"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    struct rpc_channel_config config = {.address = bad[i]};
    struct rpc_channel *channel;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(rpc_channel_open(&channel, &config, &err), MC_INVALID_ARGUMENT);
    assert_true(*err.message);
  }
  struct rpc_channel *channel = channel_to("[::1]:80");
  assert_string_equal(rpc_channel_address(channel), "[::1]:80");
  rpc_channel_close(channel);
}

/* ---- waiting ---- */

static void wait_for_the_end(struct peer_call *call, void *user) {
  peer_send(call, "x", 1);
  peer_wait_cancelled(call);
  sem_post(user);
}

static void *cancel_main(void *arg) {
  mc_cancel_trigger(arg);
  return NULL;
}

static void a_cancelled_call_ends_and_the_server_sees_it(void **state) {
  (void)state;
  sem_t cancelled;
  sem_init(&cancelled, 0, 0);
  struct peer *peer = peer_start(0, wait_for_the_end, &cancelled);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  mc_call call = {INT64_MAX, NULL};
  assert_int_equal(mc_cancel_new(&call.cancel, NULL), MC_OK);
  struct rpc_stream *stream;
  const void *data;
  size_t size;
  assert_int_equal(rpc_stream_open(&stream, channel, "/t/M", "", 0, &call, NULL), MC_OK);
  assert_int_equal(rpc_stream_next(stream, &data, &size, &call, NULL), MC_OK);
  assert_false(rpc_stream_poll(stream));
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, cancel_main, call.cancel), 0);
  assert_int_equal(rpc_stream_next(stream, &data, &size, &call, NULL), MC_CANCELLED);
  pthread_join(thread, NULL);
  rpc_stream_close(stream, false);
  sem_wait(&cancelled);
  mc_cancel_free(call.cancel);
  rpc_channel_close(channel);
  peer_stop(peer);
  sem_destroy(&cancelled);
}

static void a_deadline_ends_a_call(void **state) {
  (void)state;
  sem_t cancelled;
  sem_init(&cancelled, 0, 0);
  struct peer *peer = peer_start(0, wait_for_the_end, &cancelled);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  mc_call call = {deadline_in_ms(100), NULL};
  int64_t began = clock_ns();
  assert_int_equal(call_once(channel, "x", 1, NULL, &call, NULL), MC_DEADLINE_EXCEEDED);
  assert_true(clock_ns() - began >= 99 * NS_PER_MS);
  sem_wait(&cancelled);
  rpc_channel_close(channel);
  peer_stop(peer);
  sem_destroy(&cancelled);
}

/* A server whose process is stopped: the kernel accepts for it, nobody answers. */
static void a_frozen_server_is_given_up(void **state) {
  (void)state;
  struct sockaddr_in to = {.sin_family = AF_INET};
  socklen_t length = sizeof(to);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&to, sizeof(to)), 0);
  assert_int_equal(listen(fd, 16), 0);
  getsockname(fd, (struct sockaddr *)&to, &length);
  char address[32];
  snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(to.sin_port));
  struct rpc_channel *channel = channel_to(address);
  mc_error err = MC_ERROR_INIT;
  int64_t began = clock_ns();
  assert_int_equal(call_once(channel, "x", 1, NULL, &forever, &err), MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "does not answer"));
  assert_true(clock_ns() - began >= CONNECT_MS * NS_PER_MS);
  rpc_channel_close(channel);
  close(fd);
}

struct slow {
  sem_t probed;
};

/* The first call is silent until two probes, which have empty messages, have come. */
static void answer_after_probes(struct peer_call *call, void *user) {
  struct slow *slow = user;
  size_t size;
  peer_message(call, &size);
  if (size) {
    peer_headers(call, 200, NULL, false);
    sem_wait(&slow->probed);
    sem_wait(&slow->probed);
    peer_send(call, "x", 1);
    peer_finish(call, 0, NULL);
  } else {
    peer_finish(call, 12, "no health service here"); /* any answer will do */
    sem_post(&slow->probed);
  }
}

static void a_silent_server_that_lives_is_waited_for(void **state) {
  (void)state;
  struct slow slow;
  sem_init(&slow.probed, 0, 0);
  struct peer *peer = peer_start(0, answer_after_probes, &slow);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  struct buf got;
  buf_init(&got, 64);
  assert_int_equal(call_once(channel, "x", 1, &got, &forever, NULL), MC_OK);
  assert_string_equal(got.data, "x");
  assert_int_equal(peer_calls(peer), 3);
  buf_free(&got);
  rpc_channel_close(channel);
  peer_stop(peer);
  sem_destroy(&slow.probed);
}

static void finish_behind_the_message(struct peer_call *call, void *user) {
  peer_send(call, "x", 1);
  sem_wait(user);
  peer_finish(call, 0, NULL);
}

static void lingering_keeps_the_connection(void **state) {
  (void)state;
  sem_t taken;
  sem_init(&taken, 0, 0);
  struct peer *peer = peer_start(0, finish_behind_the_message, &taken);
  struct rpc_channel *channel = channel_to(peer_address(peer));
  for (int i = 0; i < 10; i++) {
    struct rpc_stream *stream;
    assert_int_equal(rpc_stream_open(&stream, channel, "/t/M", "", 0, &forever, NULL), MC_OK);
    assert_int_equal(rpc_stream_wait(stream, &forever, NULL), MC_OK);
    sem_post(&taken);
    rpc_stream_close(stream, true);
  }
  assert_true(peer_connections(peer) < 10); /* the machine may have been slow at times */
  rpc_channel_close(channel);
  sem_post(&taken);
  peer_stop(peer);
  sem_destroy(&taken);
}

static int global_init(void **state) {
  (void)state;
  return curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK;
}

static int global_cleanup(void **state) {
  (void)state;
  curl_global_cleanup();
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(frames_come_whole_however_they_are_cut),
      cmocka_unit_test(a_compressed_or_too_long_message_is_refused),
      cmocka_unit_test(header_texts_are_read_as_grpc_defines_them),
      cmocka_unit_test(every_code_has_its_status),
      cmocka_unit_test(a_servers_own_status_is_believed_where_it_fits_its_code),
      cmocka_unit_test(timeouts_fit_eight_digits),
      cmocka_unit_test(calls_share_a_connection_one_after_the_other),
      cmocka_unit_test(a_kept_connection_that_was_cut_is_made_anew),
      cmocka_unit_test(a_stream_brings_its_messages_in_order),
      cmocka_unit_test(threads_call_at_once),
      cmocka_unit_test(bad_ends_have_their_status),
      cmocka_unit_test(a_name_does_not_make_a_failure_of_success),
      cmocka_unit_test(a_port_without_a_server_is_told_at_once),
      cmocka_unit_test(a_name_is_not_waited_for_longer_than_asked),
      cmocka_unit_test(a_bad_address_is_refused),
      cmocka_unit_test(a_cancelled_call_ends_and_the_server_sees_it),
      cmocka_unit_test(a_deadline_ends_a_call),
      cmocka_unit_test(a_frozen_server_is_given_up),
      cmocka_unit_test(a_silent_server_that_lives_is_waited_for),
      cmocka_unit_test(lingering_keeps_the_connection),
  };
  return cmocka_run_group_tests(tests, global_init, global_cleanup);
}
