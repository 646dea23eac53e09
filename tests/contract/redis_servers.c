#include "redis_servers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include <hiredis/hiredis.h>

#include "base/clock.h"
#include "base/io.h"

#define PATIENCE_MS 20000
#define DB          3
#define TLS_DB      1
#define PASSWORD    "p@ss/w:rd"
/* The one in docs/redis.md. */
#define ACL                                                                                                            \
  "user pod on >" PASSWORD " ~modelcache:* &modelcache:* -@all +eval +evalsha +script|load +subscribe +unsubscribe "   \
  "+publish +ping +select +role +time +exists +get +set +del +mget +pexpire +pttl +hget +hmget +hset +zadd +zrem "     \
  "+zrange +zrangebylex +zrangebyscore +zremrangebyscore"

static struct server {
  pid_t pid;
  unsigned port;
  char config[200];
} plain, watched, sentinel;
static char folder[64], urls[REDIS_PLACES][400];
static redisContext *monitor;

static unsigned free_port(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(address);
  assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

static void run_child(const char *config, bool is_sentinel) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test die */
  dup2(null, 0);
  dup2(null, 1);
  dup2(null, 2);
  execlp("redis-server", "redis-server", config, is_sentinel ? "--sentinel" : NULL, (char *)NULL);
  _exit(127);
}

static redisContext *talk_to(const struct server *server) {
  struct timeval patience = {5, 0};
  redisContext *link = redisConnectWithTimeout("127.0.0.1", (int)server->port, patience);
  if (link && !link->err && redisSetTimeout(link, patience) == REDIS_OK) return link;
  if (link) redisFree(link);
  return NULL;
}

/* There, once it answers. */
static void start(struct server *server) {
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  fflush(NULL);
  server->pid = fork();
  assert_true(server->pid >= 0);
  if (server->pid == 0) run_child(server->config, server == &sentinel);
  for (bool there = false; !there; usleep(there ? 0 : 10000)) {
    assert_true(clock_ns() < deadline && waitpid(server->pid, NULL, WNOHANG) == 0);
    redisContext *link = talk_to(server);
    redisReply *reply = link ? redisCommand(link, "PING") : NULL;
    there = reply && reply->type == REDIS_REPLY_STATUS;
    freeReplyObject(reply);
    if (link) redisFree(link);
  }
}

static void end(struct server *server) {
  if (server->pid <= 0) return;
  kill(server->pid, SIGKILL);
  waitpid(server->pid, NULL, 0);
  server->pid = 0;
}

static void configure(struct server *server, const char *name, const char *more) {
  server->port = free_port();
  snprintf(server->config, sizeof(server->config), "%s/%s.conf", folder, name);
  char *text = format_str("port %u\nbind 127.0.0.1\ndir %s\n%s", server->port, folder, more);
  assert_int_equal(file_replace(server->config, text, strlen(text), 0600, false), 0);
  free(text);
}

#ifdef HAVE_REDIS_TLS
/* A certificate that is its own authority, for 127.0.0.1; what the server is told of it. */
static void certify(char *more, size_t size, unsigned port) {
  char *command = format_str("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
                             "-subj /CN=redis -addext subjectAltName=IP:127.0.0.1 "
                             "-keyout %s/key.pem -out %s/cert.pem 2>/dev/null",
                             folder, folder);
  assert_int_equal(system(command), 0);
  free(command);
  snprintf(more, size,
           "tls-port %u\ntls-cert-file %s/cert.pem\ntls-key-file %s/key.pem\ntls-ca-cert-file %s/cert.pem\n", port,
           folder, folder, folder);
  snprintf(urls[REDIS_TLS], sizeof(urls[0]),
           "rediss://127.0.0.1:%u/%d?ca_file=%s/cert.pem&cert_file=%s/cert.pem&key_file=%s/key.pem", port, TLS_DB,
           folder, folder, folder);
}
#else
static void certify(char *more, size_t size, unsigned port) {
  (void)size, (void)port;
  *more = 0;
}
#endif

bool redis_servers_start(void) {
  char more[2048], tls[1024];
  if (system("command -v redis-server >/dev/null") != 0) return false;
  snprintf(folder, sizeof(folder), "/tmp/modelcache-redis.XXXXXX");
  assert_non_null(mkdtemp(folder));
  certify(tls, sizeof(tls), free_port());
  snprintf(more, sizeof(more), "save \"\"\nappendonly no\nunixsocket %s/socket\n%s\n%s", folder, ACL, tls);
  configure(&plain, "plain", more);
  configure(&watched, "watched", "save \"\"\nappendonly no\n");
  snprintf(more, sizeof(more), "sentinel monitor main 127.0.0.1 %u 1\nsentinel down-after-milliseconds main 60000\n",
           watched.port);
  configure(&sentinel, "sentinel", more);
  start(&plain);
  start(&watched);
  start(&sentinel);
  snprintf(urls[REDIS_TCP], sizeof(urls[0]), "redis://127.0.0.1:%u", plain.port);
  snprintf(urls[REDIS_USER], sizeof(urls[0]), "redis://pod:p%%40ss%%2Fw%%3Ard@127.0.0.1:%u/%d", plain.port, DB);
  snprintf(urls[REDIS_SOCKET], sizeof(urls[0]), "redis+unix://%s/socket?prefix=other:", folder);
  snprintf(urls[REDIS_SENTINEL], sizeof(urls[0]), "redis+sentinel://127.0.0.1:1,127.0.0.1:%u/main", sentinel.port);
  return true;
}

void redis_servers_stop(void) {
  if (monitor) redisFree(monitor);
  end(&sentinel);
  end(&watched);
  end(&plain);
  if (folder[0]) remove_all(folder);
}

const char *redis_url(enum redis_place place) {
  return urls[place];
}

static struct server *server_of(enum redis_place place) {
  return place == REDIS_SENTINEL ? &watched : &plain;
}

void redis_kill(enum redis_place place) {
  end(server_of(place));
}

void redis_restart(enum redis_place place) {
  start(server_of(place));
}

void redis_pause(enum redis_place place) {
  assert_int_equal(kill(server_of(place)->pid, SIGSTOP), 0);
}

void redis_resume(enum redis_place place) {
  assert_int_equal(kill(server_of(place)->pid, SIGCONT), 0);
}

void redis_do(enum redis_place place, char *out, unsigned size, const char *const *words) {
  int count = 0;
  while (words[count]) count++;
  redisContext *link = talk_to(server_of(place));
  assert_non_null(link);
  redisReply *reply = redisCommand(link, "SELECT %d", place == REDIS_USER ? DB : place == REDIS_TLS ? TLS_DB : 0);
  assert_non_null(reply);
  freeReplyObject(reply);
  reply = redisCommandArgv(link, count, (const char **)words, NULL);
  assert_non_null(reply);
  if (reply->type == REDIS_REPLY_INTEGER) {
    snprintf(out, size, "%lld", reply->integer);
  } else {
    snprintf(out, size, "%s", reply->str ? reply->str : "");
  }
  freeReplyObject(reply);
  redisFree(link);
}

void redis_monitor_start(enum redis_place place) {
  monitor = talk_to(server_of(place));
  assert_non_null(monitor);
  redisReply *reply = redisCommand(monitor, "MONITOR");
  assert_true(reply && reply->type == REDIS_REPLY_STATUS);
  freeReplyObject(reply);
}

/* Or of the Sentinel, or part of a script. */
static bool is_of_the_tests(const char *line) {
  static const char *const words[] = {"\"SELECT\"", "\"PING\"", " lua] ", "__sentinel__", "\"INFO\"", "\"CLIENT\""};
  for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
    if (strstr(line, words[i])) return true;
  }
  return false;
}

unsigned redis_monitor_count(enum redis_place place, const char *word, unsigned *all) {
  unsigned count = 0;
  char reply[64];
  *all = 0;
  redis_do(place, reply, sizeof(reply), (const char *const[]){"ECHO", "that-was-all", NULL});
  for (bool more = true; more;) {
    void *line;
    assert_int_equal(redisGetReply(monitor, &line), REDIS_OK);
    const char *text = ((redisReply *)line)->str;
    more = !strstr(text, "that-was-all");
    bool own = !more || is_of_the_tests(text);
    count += strstr(text, word) && !own;
    *all += !own;
    freeReplyObject(line);
  }
  redisFree(monitor);
  monitor = NULL;
  return count;
}
