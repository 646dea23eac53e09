/* A connection to Redis, beside a server that says what the test wants. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/coordination/redis/link.h"

#define IS_MASTER "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"

/* Gives one client these replies, one for each command, until a NULL. */
struct server {
  int fd;
  unsigned port;
  const char *const *replies;
  pthread_t thread;
};

static void *server_main(void *arg) {
  struct server *server = arg;
  char command[4096];
  int client = accept(server->fd, NULL, NULL);
  for (size_t i = 0; client >= 0 && read(client, command, sizeof(command)) > 0 && server->replies[i]; i++) {
    if (send(client, server->replies[i], strlen(server->replies[i]), MSG_NOSIGNAL) < 0) break;
  }
  if (client >= 0) close(client);
  return NULL;
}

static void server_start(struct server *server, const char *const *replies) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(address);
  server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  server->replies = replies;
  assert_int_equal(bind(server->fd, (struct sockaddr *)&address, size), 0);
  assert_int_equal(listen(server->fd, 8), 0);
  assert_int_equal(getsockname(server->fd, (struct sockaddr *)&address, &size), 0);
  server->port = ntohs(address.sin_port);
  assert_int_equal(pthread_create(&server->thread, NULL, server_main, server), 0);
}

static void server_end(struct server *server) {
  shutdown(server->fd, SHUT_RDWR);
  pthread_join(server->thread, NULL);
  close(server->fd);
}

static mc_status open_to(redisContext **out, const struct server *server, const char *user, mc_error *err) {
  char url[200];
  struct redis_address address;
  struct link_target target;
  snprintf(url, sizeof(url), "redis://%s127.0.0.1:%u", user, server->port);
  assert_int_equal(redis_address_parse(&address, url, NULL), MC_OK);
  assert_int_equal(link_find(&target, &address, 0, err), MC_OK);
  return link_open(out, &address, &target, err);
}

static void an_error_that_quotes_the_password_is_not_shown(void **state) {
  static const char *const quotes[] = {
      "-ERR unknown command `AUTH`, with args beginning with: `hunter2`, \r\n", /* Redis, where it was renamed */
      "-ERR proxy: hunter2 is no password\r\n",
  };
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    struct server server;
    redisContext *link;
    mc_error err = MC_ERROR_INIT;
    server_start(&server, (const char *const[]){quotes[i], NULL});
    assert_int_equal(open_to(&link, &server, ":hunter2@", &err), MC_UNAVAILABLE);
    assert_null(strstr(err.message, "hunter2"));
    server_end(&server);
  }
}

/* What a command is answered with, as a status. */
static mc_status ask(const char *reply, int *link_err, mc_error *err) {
  struct server server;
  redisContext *link;
  redisReply *none;
  server_start(&server, (const char *const[]){IS_MASTER, reply, NULL});
  assert_int_equal(open_to(&link, &server, "", err), MC_OK);
  mc_status status = link_ask(&none, link, (const char *const[]){"EVALSHA", "a?token=hunter2", NULL}, err);
  assert_null(none);
  *link_err = link->err;
  link_close(link);
  server_end(&server);
  return status;
}

static void what_stops_a_script_is_known_from_old_servers_too(void **state) {
#define OLD "-ERR Error running script (call to f_6b1b): @user_script:9: @user_script: 9: "
  int code;
  mc_error err = MC_ERROR_INIT;
  (void)state;
  assert_int_equal(ask("-READONLY You can't write against a read only replica.\r\n", &code, &err), MC_UNAVAILABLE);
  assert_int_equal(code, LINK_MOVED);
  assert_int_equal(ask(OLD "-READONLY You can't write against a read only replica. \r\n", &code, &err), MC_UNAVAILABLE);
  assert_int_equal(code, LINK_MOVED);
  assert_int_equal(ask(OLD "-OOM command not allowed when used memory > 'maxmemory'. \r\n", &code, &err),
                   MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "maxmemory"));
  assert_int_equal(code, 0);
  assert_int_equal(ask(OLD "WRONGTYPE it is no hash\r\n", &code, &err), MC_PROTOCOL);
  assert_int_equal(ask("-ERR unknown command 'EVALSHA', with args beginning with: 'a?token=hunter2' \r\n", &code, &err),
                   MC_PROTOCOL);
  assert_null(strstr(err.message, "hunter2"));
#undef OLD
}

/* One that was cut off from the others names a master that is none any more. */
static void a_sentinel_that_lags_is_not_all_that_is_asked(void **state) {
  static const char *const old[] = {"*2\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n", NULL},
                           *const new[] = {"*2\r\n$9\r\n127.0.0.1\r\n$1\r\n2\r\n", NULL};
  struct server lags, knows;
  struct redis_address address;
  struct link_target target;
  char url[200];
  (void)state;
  server_start(&lags, old);
  server_start(&knows, new);
  snprintf(url, sizeof(url), "redis+sentinel://127.0.0.1:%u,127.0.0.1:%u/main", lags.port, knows.port);
  assert_int_equal(redis_address_parse(&address, url, NULL), MC_OK);
  assert_int_equal(link_find(&target, &address, 0, NULL), MC_OK);
  assert_int_equal(target.host.port, 1);
  assert_int_equal(link_find(&target, &address, 1, NULL), MC_OK);
  assert_int_equal(target.host.port, 2);
  server_end(&lags);
  server_end(&knows);
}

/* Ops speak to the server that is listened to, whatever its name stands for by then. */
static void a_name_is_looked_up_once(void **state) {
  struct server first, second;
  struct redis_address address;
  struct link_target target;
  redisContext *link;
  char url[200];
  (void)state;
  server_start(&first, (const char *const[]){IS_MASTER, NULL});
  snprintf(url, sizeof(url), "redis://localhost:%u", first.port);
  assert_int_equal(redis_address_parse(&address, url, NULL), MC_OK);
  assert_int_equal(link_find(&target, &address, 0, NULL), MC_OK);
  assert_int_equal(link_open(&link, &address, &target, NULL), MC_OK);
  link_pin(&target, link);
  link_close(link);
  server_end(&first);
  assert_string_equal(target.address, "127.0.0.1");
  server_start(&second, (const char *const[]){IS_MASTER, NULL});
  strcpy(target.host.host, "gone.invalid");
  target.host.port = (uint16_t)second.port;
  assert_int_equal(link_open(&link, &address, &target, NULL), MC_OK);
  link_close(link);
  server_end(&second);
}

/* The listener takes what is there, and comes again: a reply has a limit all the same. */
static void a_reply_without_an_end_is_given_up(void **state) {
  enum { PIECE = 1 << 20, MOST = 64 };
  static char piece[PIECE + 1] = "$500000000\r\n";
  int fds[2];
  (void)state;
  memset(piece + strlen(piece), 'x', PIECE - strlen(piece));
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  redisContext *link = redisConnectFd(fds[0]);
  assert_non_null(link);
  mc_status status = MC_OK;
  size_t sent = 0;
  while (!status && sent < (size_t)(MOST + 4) * PIECE) {
    redisReply *none;
    ssize_t put = write(fds[1], piece + sent % PIECE, PIECE - sent % PIECE);
    sent += put > 0 ? (size_t)put : 0;
    if (sent >= PIECE) memset(piece, 'x', 16);
    status = link_receive(&none, link, 0, NULL);
  }
  assert_int_equal(status, MC_UNAVAILABLE);
  link_close(link);
  close(fds[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_error_that_quotes_the_password_is_not_shown),
      cmocka_unit_test(what_stops_a_script_is_known_from_old_servers_too),
      cmocka_unit_test(a_sentinel_that_lags_is_not_all_that_is_asked),
      cmocka_unit_test(a_name_is_looked_up_once),
      cmocka_unit_test(a_reply_without_an_end_is_given_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
