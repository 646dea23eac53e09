#include "link.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/text.h"
#include "tls.h"

#define ORIGIN    "redis"
#define MAX_REPLY ((size_t)64 << 20)
#define MAX_FILE  4096 /* a file with a password in it */

/* ---- a broken pipe ---- */

/* hiredis writes without MSG_NOSIGNAL, and the process is not ours: SIGPIPE is held back from this thread meanwhile,
 * and taken away again if it came. */
static void quiet_begin(sigset_t *before, bool *pending) {
  sigset_t pipes, now;
  sigemptyset(&pipes);
  sigaddset(&pipes, SIGPIPE);
  sigpending(&now);
  *pending = sigismember(&now, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipes, before);
}

static void quiet_end(const sigset_t *before, bool pending) {
  int saved = errno;
  sigset_t pipes;
  sigemptyset(&pipes);
  sigaddset(&pipes, SIGPIPE);
  while (!pending && sigtimedwait(&pipes, NULL, &(struct timespec){0}) < 0 && errno == EINTR) continue;
  pthread_sigmask(SIG_SETMASK, before, NULL);
  errno = saved;
}

static bool flush(redisContext *link) {
  sigset_t before;
  bool pending;
  int done = 0, result;
  quiet_begin(&before, &pending);
  do result = redisBufferWrite(link, &done);
  while (result == REDIS_OK && !done);
  quiet_end(&before, pending);
  return result == REDIS_OK;
}

/* ---- what goes wrong ---- */

static mc_status broken(const redisContext *link, mc_error *err) {
  char text[160];
  snprintf(text, sizeof(text), "%s", link->errstr);
  text_clean(text);
  return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the connection failed: %s", text);
}

static mc_status give_up(redisContext *link, int code, const char *why, mc_error *err) {
  link->err = code;
  snprintf(link->errstr, sizeof(link->errstr), "%s", why);
  return broken(link, err);
}

static bool begins(const char *text, const char *word) {
  return strncmp(text, word, strlen(word)) == 0;
}

/* Another server is to be found, and every connection to be made anew. */
static bool is_moved(const char *error) {
  static const char *const words[] = {"READONLY",    "LOADING",  "MASTERDOWN", "CLUSTERDOWN",
                                      "NOREPLICAS",  "TRYAGAIN", "UNBLOCKED",  "ERR max number of clients",
                                      "NOMASTERLINK"};
  for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
    if (begins(error, words[i])) return true;
  }
  return false;
}

/* Also for what a script asked. */
static bool lacks_rights(const char *error) {
  return begins(error, "NOPERM") || begins(error, "ERR The user executing the script can't ");
}

static bool is_denied(const char *error) {
  return lacks_rights(error) || begins(error, "NOAUTH") || begins(error, "WRONGPASS") ||
         begins(error, "ERR invalid password") || begins(error, "ERR Client sent AUTH") ||
         begins(error, "ERR AUTH <password> called without");
}

/* Redis before 7 says what stopped a script behind where that was. */
static const char *cause_of(const char *error) {
  if (!error) return "an error without a word";
  const char *cause = begins(error, "ERR Error running script") ? strstr(error, ": -") : NULL;
  return cause ? cause + 3 : error;
}

static mc_status refused(const char *error, mc_error *err) {
  char text[200];
  if (begins(error, "NOSCRIPT")) return MC_NOT_FOUND;
  snprintf(text, sizeof(text), "%s", error);
  text_clean(text);
  char *quoted = strstr(text, ", with args beginning with"); /* a secret may be among them */
  if (quoted) *quoted = 0;
  if (is_denied(error)) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN,
                        lacks_rights(error)
                            ? "the user may not do what is needed (NOPERM): give it the rights in docs/redis.md"
                            : "it wants a user or password, or others than it was given: see the option "
                              "'coordination' (redis://USER:PASSWORD@HOST, ?password_file=)");
  }
  if (is_moved(error)) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "Redis can't serve now: %s", text);
  }
  if (begins(error, "MOVED") || begins(error, "CROSSSLOT") || begins(error, "ASK ")) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "this is a Redis Cluster: a single Redis, or Sentinel, is needed");
  }
  if (begins(error, "OOM")) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "Redis has no memory left: raise its maxmemory");
  }
  if (begins(error, "MISCONF") || begins(error, "BUSY")) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "Redis can't serve now: %s", text);
  }
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "Redis refuses a command: %s", text);
}

/* ---- commands ---- */

mc_status link_send(redisContext *link, size_t count, const char *const *args, const size_t *sizes, mc_error *err) {
  if (redisAppendCommandArgv(link, (int)count, (const char **)args, sizes) != REDIS_OK || !flush(link)) {
    return broken(link, err);
  }
  return MC_OK;
}

mc_status link_receive(redisReply **out, redisContext *link, int64_t deadline, mc_error *err) {
  size_t size = 0;
  for (*out = NULL;;) {
    void *reply = NULL;
    if (redisGetReplyFromReader(link, &reply) != REDIS_OK) return broken(link, err);
    if (reply) {
      *out = reply;
      break;
    }
    struct pollfd ready = {.fd = link->fd, .events = POLLIN};
    int count = poll(&ready, 1, deadline_poll_ms(deadline));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0 && !deadline) return MC_OK;
    if (count <= 0) return give_up(link, LINK_TIMED_OUT, "no answer in time", err);
    size_t before = link->reader->len;
    if (redisBufferRead(link) != REDIS_OK) return broken(link, err);
    size += link->reader->len - before;
    if (size > MAX_REPLY || link->reader->len > MAX_REPLY)
      return give_up(link, REDIS_ERR_PROTOCOL, "its reply has no end", err);
  }
  if ((*out)->type != REDIS_REPLY_ERROR) return MC_OK;
  const char *cause = cause_of((*out)->str);
  mc_status status = refused(cause, err);
  if (is_moved(cause)) link->err = LINK_MOVED;
  freeReplyObject(*out);
  *out = NULL;
  return status;
}

mc_status link_name(mc_status status, const char *where, mc_error *err) {
  char why[MC_ERROR_MESSAGE_SIZE];
  if (!err || status != MC_UNAVAILABLE) return status;
  snprintf(why, sizeof(why), "%s", err->message);
  return mc_error_set(err, status, ORIGIN, "Redis at %s can't be reached: %s", where, why);
}

/* Whatever keeps us out, such as a password that was changed, is mended elsewhere: until then Redis is out of reach. */
static mc_status keep_out(mc_status status, const char *where, mc_error *err) {
  if (!status || status == MC_UNAVAILABLE || status == MC_NO_MEMORY) return status;
  return link_name(MC_UNAVAILABLE, where, err);
}

mc_status link_ask(redisReply **out, redisContext *link, const char *const *args, mc_error *err) {
  size_t count = 0;
  while (args[count]) count++;
  *out = NULL;
  mc_status status = link_send(link, count, args, NULL, err);
  return status ? status : link_receive(out, link, deadline_in_ms(LINK_TIMEOUT_MS), err);
}

bool link_is_quiet(const redisContext *link) {
  struct pollfd ready = {.fd = link->fd, .events = POLLIN};
  return poll(&ready, 1, 0) == 0;
}

/* ---- connections ---- */

static mc_status unreachable(const char *where, const char *why, mc_error *err) {
  char text[160];
  snprintf(text, sizeof(text), "%s", why);
  text_clean(text);
  return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "Redis at %s can't be reached: %s", where, text);
}

static mc_status connect_to(redisContext **out, const char *host, uint16_t port, const char *path, const char *where,
                            mc_error *err) {
  struct timeval patience = {LINK_TIMEOUT_MS / 1000, LINK_TIMEOUT_MS % 1000 * 1000};
  redisContext *link =
      path && *path ? redisConnectUnixWithTimeout(path, patience) : redisConnectWithTimeout(host, port, patience);
  mc_status status = MC_OK;
  if (!link) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a connection");
  if (link->err) status = unreachable(where, link->errstr, err);
  if (!status && redisSetTimeout(link, patience) != REDIS_OK) status = unreachable(where, link->errstr, err);
  if (status) {
    redisFree(link);
    return status;
  }
  *out = link;
  return MC_OK;
}

/* A file's first line. It is read each time, so that a password can be changed. */
static mc_status read_password(char out[REDIS_TEXT_SIZE], const char *path, mc_error *err) {
  void *data;
  size_t size;
  int errnum = file_read(path, &data, &size, MAX_FILE);
  if (errnum) return mc_error_errno(err, errnum, ORIGIN, "can't read its password from %s", path);
  size_t length = strcspn(data, "\r\n");
  bool fits = length < REDIS_TEXT_SIZE;
  if (fits) snprintf(out, REDIS_TEXT_SIZE, "%.*s", (int)length, (const char *)data);
  explicit_bzero(data, size);
  free(data);
  return fits ? MC_OK : mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "its password in %s is too long", path);
}

static mc_status enter(redisContext *link, const char *user, const char *password, const char *file, mc_error *err) {
  char read[REDIS_TEXT_SIZE] = "";
  mc_status status = *file ? read_password(read, file, err) : MC_OK;
  const char *secret = *file ? read : password;
  redisReply *reply = NULL;
  if (!status && (*secret || *user)) {
    const char *const named[] = {"AUTH", user, secret, NULL}, *const plain[] = {"AUTH", secret, NULL};
    status = link_ask(&reply, link, *user ? named : plain, err);
    if (status == MC_PROTOCOL) { /* in whose message the password might be */
      status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "it was given a password, and refuses AUTH");
    }
  }
  freeReplyObject(reply);
  explicit_bzero(read, sizeof(read));
  return status;
}

static mc_status choose(redisContext *link, uint32_t db, mc_error *err) {
  char number[16];
  redisReply *reply = NULL;
  if (db == 0) return MC_OK;
  snprintf(number, sizeof(number), "%u", db);
  mc_status status = link_ask(&reply, link, (const char *const[]){"SELECT", number, NULL}, err);
  freeReplyObject(reply);
  if (status == MC_PROTOCOL) {
    status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "it has no database %u", db);
  }
  return status;
}

/* A replica can't be written to. Who may not ask is believed to be right. */
static mc_status check_role(redisContext *link, const char *where, mc_error *err) {
  redisReply *reply;
  mc_status status = link_ask(&reply, link, (const char *const[]){"ROLE", NULL}, err);
  if (status) return link->err ? link_name(status, where, err) : MC_OK;
  bool replica = reply->type == REDIS_REPLY_ARRAY && reply->elements && reply->element[0]->type == REDIS_REPLY_STRING &&
                 strcmp(reply->element[0]->str, "slave") == 0;
  freeReplyObject(reply);
  return replica ? mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "Redis at %s is a replica, not the master", where) : MC_OK;
}

static mc_status open_quietly(redisContext **out, const struct redis_address *address, const struct link_target *target,
                              mc_error *err) {
  redisContext *link;
  const char *host = *target->address ? target->address : target->host.host;
  mc_status status = connect_to(&link, host, target->host.port, address->path, target->where, err);
  if (status) return status;
  if (address->tls) status = tls_begin(link, address, target->host.host, target->where, err);
  if (!status) {
    status = link_name(enter(link, address->user, address->password, address->password_file, err), target->where, err);
  }
  if (!status) status = link_name(choose(link, address->db, err), target->where, err);
  if (!status) status = check_role(link, target->where, err);
  if (status) {
    redisFree(link);
    return keep_out(status, target->where, err);
  }
  *out = link;
  return MC_OK;
}

mc_status link_open(redisContext **out, const struct redis_address *address, const struct link_target *target,
                    mc_error *err) {
  sigset_t before;
  bool pending;
  quiet_begin(&before, &pending); /* TLS writes by itself */
  mc_status status = open_quietly(out, address, target, err);
  quiet_end(&before, pending);
  return status;
}

void link_close(redisContext *link) {
  sigset_t before;
  bool pending;
  if (!link) return;
  quiet_begin(&before, &pending); /* TLS says goodbye */
  redisFree(link);
  quiet_end(&before, pending);
}

void link_pin(struct link_target *target, const redisContext *link) {
  struct sockaddr_storage peer;
  socklen_t size = sizeof(peer);
  if (getpeername(link->fd, (struct sockaddr *)&peer, &size) || peer.ss_family == AF_UNIX) return;
  if (getnameinfo((struct sockaddr *)&peer, size, target->address, sizeof(target->address), NULL, 0, NI_NUMERICHOST)) {
    target->address[0] = 0;
  }
}

/* ---- Sentinel ---- */

static mc_status answer_of(struct link_target *out, const redisReply *reply, const char *master, const char *where,
                           mc_error *err) {
  if (reply->type == REDIS_REPLY_NIL) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the Sentinel at %s knows no '%s'", where, master);
  }
  bool pair = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
              reply->element[0]->type == REDIS_REPLY_STRING && reply->element[1]->type == REDIS_REPLY_STRING;
  long port = pair ? strtol(reply->element[1]->str, NULL, 10) : 0;
  if (port < 1 || port > UINT16_MAX || reply->element[0]->len == 0 || reply->element[0]->len >= HOST_SIZE) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the Sentinel at %s gives no address", where);
  }
  snprintf(out->host.host, sizeof(out->host.host), "%s", reply->element[0]->str);
  out->host.port = (uint16_t)port;
  return MC_OK;
}

static void name_host(char *where, size_t size, const struct redis_host *host) {
  snprintf(where, size, strchr(host->host, ':') ? "[%s]:%u" : "%s:%u", host->host, host->port);
  text_clean(where);
}

static mc_status ask_sentinel(struct link_target *out, const struct redis_address *address,
                              const struct redis_host *sentinel, mc_error *err) {
  char where[REDIS_WHERE_SIZE];
  redisContext *link;
  redisReply *reply = NULL;
  name_host(where, sizeof(where), sentinel);
  mc_status status = connect_to(&link, sentinel->host, sentinel->port, NULL, where, err);
  if (status) return status;
  status = enter(link, "", "", address->sentinel_password_file, err);
  if (!status) {
    status = link_ask(&reply, link, (const char *const[]){"SENTINEL", "get-master-addr-by-name", address->master, NULL},
                      err);
  }
  status = link_name(status, where, err);
  if (!status) status = answer_of(out, reply, address->master, where, err);
  freeReplyObject(reply);
  redisFree(link);
  return keep_out(status, where, err);
}

mc_status link_find(struct link_target *out, const struct redis_address *address, size_t first, mc_error *err) {
  mc_status status = MC_OK;
  out->address[0] = 0;
  if (address->path[0]) {
    snprintf(out->where, sizeof(out->where), "%s", address->path);
    text_clean(out->where);
    return MC_OK;
  }
  out->host = address->hosts[0];
  for (size_t i = 0; address->master[0] && i < address->host_count; i++) {
    status = ask_sentinel(out, address, &address->hosts[(first + i) % address->host_count], err);
    if (!status) break;
  }
  if (!status) name_host(out->where, sizeof(out->where), &out->host);
  return status;
}
