/* Sockets with deadlines, addresses, and which of them are link-local. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/net.h"

static const mc_call no_limits = {.deadline = INT64_MAX};
static unsigned files;

static unsigned open_files(void) {
  unsigned count = 0;
  DIR *folder = opendir("/proc/self/fd");
  assert_non_null(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static int set_up(void **state) {
  (void)state;
  files = open_files();
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  assert_int_equal(open_files(), files);
  return 0;
}

/* ---- addresses ---- */

static void addresses_are_split(void **state) {
  (void)state;
  static char longest[300], too_long[300];
  static const struct {
    const char *address, *host; /* NULL: refused */
    int port;
  } cases[] = {
      {"host:80", "host", 80},
      {"1.2.3.4:65535", "1.2.3.4", 65535},
      {"[::1]:80", "::1", 80},
      {"[fe80::1%eth0]:1", "fe80::1%eth0", 1},
      {":80", "", 80},
      {":0", "", 0},
      {"h:00080", "h", 80},
      {longest, longest + 7, 80},
      {"", NULL, 0},
      {":", NULL, 0},
      {"h", NULL, 0},
      {"h:", NULL, 0},
      {"h:x", NULL, 0},
      {"h:8x", NULL, 0},
      {"h: 8", NULL, 0},
      {"h:-1", NULL, 0},
      {"h:+1", NULL, 0},
      {"h:65536", NULL, 0},
      {"h:4294967376", NULL, 0}, /* 2^32 + 80 */
      {"h:99999999999999999999", NULL, 0},
      {"::1:80", NULL, 0},
      {"a:b:80", NULL, 0},
      {"[::1]", NULL, 0},
      {"[::1]80", NULL, 0},
      {"[::1:80", NULL, 0},
      {"[]:80", NULL, 0},
      {"[:80", NULL, 0},
      {"::1]:80", NULL, 0},
      {too_long, NULL, 0},
  };
  memset(longest, 'h', 255);
  strcpy(longest + 255, ":80");
  memset(too_long, 'h', 256);
  strcpy(too_long + 256, ":80");
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    char host[HOST_SIZE] = "before";
    uint16_t port = 7;
    mc_error err = MC_ERROR_INIT;
    mc_status status = net_split(cases[i].address, host, &port, "the option", &err);
    if (!cases[i].host) {
      if (!status) fail_msg("'%s' is taken", cases[i].address);
      assert_int_equal(status, MC_INVALID_ARGUMENT);
      assert_non_null(strstr(err.message, "the option"));
      assert_string_equal(host, "before");
      assert_int_equal(port, 7);
      continue;
    }
    if (status) fail_msg("'%s' is refused: %s", cases[i].address, err.message);
    if (cases[i].address == longest) {
      assert_int_equal(strlen(host), 255);
    } else {
      assert_string_equal(host, cases[i].host);
    }
    assert_int_equal(port, cases[i].port);
  }
}

static bool is_link_local(const char *text) {
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) return net_is_link_local((struct sockaddr *)&v4);
  assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
  return net_is_link_local((struct sockaddr *)&v6);
}

static void metadata_services_are_link_local(void **state) {
  (void)state;
  static const char *const inside[] = {"169.254.0.0",
                                       "169.254.169.254",
                                       "169.254.255.255",
                                       "100.100.100.200",
                                       "168.63.129.16",
                                       "192.0.0.192",
                                       "fe80::",
                                       "fe80::1",
                                       "febf:ffff::1",
                                       "fd00:ec2::254",
                                       "fd00:ec2::",
                                       "fd00:ec2:ffff::1",
                                       "fd20:ce::254",
                                       "::ffff:169.254.169.254",
                                       "::ffff:100.100.100.200",
                                       "::ffff:168.63.129.16",
                                       "::169.254.169.254",
                                       "64:ff9b::169.254.169.254",
                                       "64:ff9b::a9fe:a9fe"};
  static const char *const outside[] = {"169.253.255.255",
                                        "169.255.0.0",
                                        "127.0.0.1",
                                        "0.0.0.0",
                                        "10.0.0.1",
                                        "192.168.1.1",
                                        "100.100.100.201",
                                        "168.63.129.17",
                                        "192.0.0.193",
                                        "254.169.254.169",
                                        "::",
                                        "::1",
                                        "fe7f:ffff::1",
                                        "fec0::1",
                                        "fd00:ec3::254",
                                        "fd00:ec1::254",
                                        "fd20:ce::255",
                                        "fd20:cf::254",
                                        "2001:db8::1",
                                        "::ffff:127.0.0.1",
                                        "::ffff:8.8.8.8",
                                        "::fffe:169.254.169.254",
                                        "64:ff9b::8.8.8.8",
                                        "64:ff9b:1::169.254.169.254"};
  for (size_t i = 0; i < sizeof(inside) / sizeof(*inside); i++) {
    if (!is_link_local(inside[i])) fail_msg("%s is not link-local", inside[i]);
  }
  for (size_t i = 0; i < sizeof(outside) / sizeof(*outside); i++) {
    if (is_link_local(outside[i])) fail_msg("%s is link-local", outside[i]);
  }
  struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/x"};
  assert_false(net_is_link_local((struct sockaddr *)&local));
}

/* ---- listening and connecting ---- */

static int listen_on(const char *address, uint16_t *port) {
  int fd = -1;
  char text[HOST_SIZE], host[HOST_SIZE];
  mc_error err = MC_ERROR_INIT;
  if (net_listen(&fd, address, 8, "a test", &err)) fail_msg("%s", err.message);
  assert_int_equal(net_local_address(fd, text, sizeof(text), NULL), MC_OK);
  assert_int_equal(net_split(text, host, port, "a test", NULL), MC_OK);
  assert_true(*port != 0);
  return fd;
}

static int connect_to(const char *host, uint16_t port) {
  int fd = -1;
  mc_error err = MC_ERROR_INIT;
  if (net_connect(&fd, host, port, 20000, &no_limits, &err)) fail_msg("%s", err.message);
  return fd;
}

static void both_ends_meet(void **state) {
  (void)state;
  uint16_t port;
  int listener = listen_on("127.0.0.1:0", &port), client = connect_to("127.0.0.1", port), on = 0;
  socklen_t length = sizeof(on);
  char text[HOST_SIZE], byte;
  assert_int_equal(net_local_address(listener, text, sizeof(text), NULL), MC_OK);
  assert_memory_equal(text, "127.0.0.1:", 10);
  assert_true(fcntl(client, F_GETFL) & O_NONBLOCK && fcntl(listener, F_GETFL) & O_NONBLOCK);
  assert_true(fcntl(client, F_GETFD) & FD_CLOEXEC && fcntl(listener, F_GETFD) & FD_CLOEXEC);
  assert_int_equal(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
  assert_true(on);
  assert_int_equal(net_wait(listener, POLLIN, 20000, &no_limits, "test", NULL), MC_OK);
  int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  assert_true(server >= 0);
  assert_int_equal(write(server, "x", 1), 1);
  assert_int_equal(net_wait(client, POLLIN, 20000, &no_limits, "test", NULL), MC_OK);
  assert_int_equal(read(client, &byte, 1), 1);
  close(server);
  assert_int_equal(net_wait(client, POLLIN, 20000, &no_limits, "test", NULL), MC_OK); /* its end */
  assert_int_equal(read(client, &byte, 1), 0);
  close(client);
  close(listener);
}

static void without_a_host_all_addresses_are_listened_on(void **state) {
  (void)state;
  uint16_t port;
  int listener = listen_on(":0", &port);
  close(connect_to("127.0.0.1", port));
  close(connect_to("localhost", port));
  close(listener);
  int fd = -1, probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  bool v6 = probe >= 0 && bind(probe, (struct sockaddr *)&loopback, sizeof(loopback)) == 0;
  if (probe >= 0) close(probe);
  if (!v6) return;
  listener = listen_on("[::1]:0", &port);
  char text[HOST_SIZE];
  assert_int_equal(net_local_address(listener, text, sizeof(text), NULL), MC_OK);
  assert_memory_equal(text, "[::1]:", 6);
  fd = connect_to("::1", port);
  close(fd);
  close(listener);
}

static void what_cannot_be_listened_on_is_refused(void **state) {
  (void)state;
  uint16_t port;
  char address[64];
  int fd = -1, listener = listen_on("127.0.0.1:0", &port);
  mc_error err = MC_ERROR_INIT;
  snprintf(address, sizeof(address), "127.0.0.1:%u", port);
  assert_int_equal(net_listen(&fd, address, 8, "a test", &err), MC_BUSY);
  assert_true(err.status == MC_BUSY && strstr(err.message, address));
  assert_int_equal(net_listen(&fd, "nothing", 8, "a test", &err), MC_INVALID_ARGUMENT);
  assert_int_equal(net_listen(&fd, "host.invalid:0", 8, "a test", &err), MC_UNAVAILABLE);
  assert_true(net_listen(&fd, "192.0.2.1:0", 8, "a test", &err) != MC_OK); /* not ours */
  assert_int_equal(fd, -1);
  close(listener);
}

static void what_cannot_be_reached_is_unavailable(void **state) {
  (void)state;
  uint16_t port;
  int fd = -1, listener = listen_on("127.0.0.1:0", &port);
  mc_error err = MC_ERROR_INIT;
  close(listener);
  assert_int_equal(net_connect(&fd, "127.0.0.1", port, 20000, &no_limits, &err), MC_UNAVAILABLE);
  assert_true(err.status == MC_UNAVAILABLE && err.message[0]);
  assert_int_equal(net_connect(&fd, "host.invalid", 1, 20000, &no_limits, &err), MC_UNAVAILABLE);
  assert_int_equal(err.status, MC_UNAVAILABLE);
  mc_cancel *cancel;
  assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
  mc_cancel_trigger(cancel);
  mc_call cancelled = {INT64_MAX, cancel}, past = {0, NULL};
  assert_int_equal(net_connect(&fd, "127.0.0.1", port, 20000, &cancelled, &err), MC_CANCELLED);
  assert_int_equal(net_connect(&fd, "127.0.0.1", port, 20000, &past, &err), MC_DEADLINE_EXCEEDED);
  assert_int_equal(fd, -1);
  mc_cancel_free(cancel);
}

/* A listener whose queue is full answers nobody. */
static void a_silent_peer_has_a_time_limit(void **state) {
  (void)state;
  uint16_t port;
  char address[] = "127.0.0.1:0";
  int listener = -1, fds[64], count = 0;
  mc_status status = MC_OK;
  mc_error err = MC_ERROR_INIT;
  char text[HOST_SIZE], host[HOST_SIZE];
  assert_int_equal(net_listen(&listener, address, 0, "a test", NULL), MC_OK);
  assert_int_equal(net_local_address(listener, text, sizeof(text), NULL), MC_OK);
  assert_int_equal(net_split(text, host, &port, "a test", NULL), MC_OK);
  while (!status && count < 64) {
    status = net_connect(&fds[count], "127.0.0.1", port, 100, &no_limits, &err);
    count += !status;
  }
  assert_true(count < 64);
  assert_int_equal(status, MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "within 100 ms"));
  mc_call soon = {.deadline = deadline_in_ms(20)};
  int none = -1;
  assert_int_equal(net_connect(&none, "127.0.0.1", port, 20000, &soon, &err), MC_DEADLINE_EXCEEDED);
  assert_int_equal(none, -1);
  while (count) close(fds[--count]);
  close(listener);
}

/* ---- waiting ---- */

static void *cancel_it(void *arg) {
  mc_cancel_trigger(arg);
  return NULL;
}

static void a_wait_ends(void **state) {
  (void)state;
  int fds[2];
  mc_cancel *cancel;
  mc_error err = MC_ERROR_INIT;
  pthread_t thread;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
  int64_t begin = clock_ns();
  assert_int_equal(net_wait(fds[0], POLLIN, 20, &no_limits, "test", &err), MC_UNAVAILABLE); /* stalled */
  assert_true(clock_ns() - begin >= 20 * NS_PER_MS);
  assert_string_equal(err.origin, "test");
  mc_call soon = {.deadline = deadline_in_ms(20)};
  assert_int_equal(net_wait(fds[0], POLLIN, 20000, &soon, "test", &err), MC_DEADLINE_EXCEEDED);
  assert_int_equal(net_wait(fds[0], POLLIN, 0, &soon, "test", &err), MC_DEADLINE_EXCEEDED);
  assert_int_equal(net_wait(fds[0], POLLOUT, 20000, &no_limits, "test", &err), MC_OK);
  mc_call call = {INT64_MAX, cancel};
  assert_int_equal(pthread_create(&thread, NULL, cancel_it, cancel), 0);
  assert_int_equal(net_wait(fds[0], POLLIN, 0, &call, "test", &err), MC_CANCELLED);
  pthread_join(thread, NULL);
  close(fds[1]);
  assert_int_equal(net_wait(fds[0], POLLIN, 20000, &no_limits, "test", &err), MC_OK); /* hung up */
  close(fds[0]);
  mc_cancel_free(cancel);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(addresses_are_split),
      TEST(metadata_services_are_link_local),
      TEST(both_ends_meet),
      TEST(without_a_host_all_addresses_are_listened_on),
      TEST(what_cannot_be_listened_on_is_refused),
      TEST(what_cannot_be_reached_is_unavailable),
      TEST(a_silent_peer_has_a_time_limit),
      TEST(a_wait_ends),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
