/* The listener: the one thread that knows whether Redis is there.
 *
 * Its connection is subscribed to the members' news, and to the channel of each claim that somebody waits for. What was
 * told while it had none is lost: that is an event, and those who wait look again. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "messages.h"
#include "redis.h"

#define BACKOFF_LEAST_MS 50
#define BACKOFF_MOST_MS  2000
#define STEADY_MS        5000 /* a connection that lasted so long was a good one */
#define QUIET_LEAST_MS   1000 /* nothing heard for so long, or a third of a lease: is it there? */
#define QUIET_MOST_MS    10000
#define BATCH            64 /* of subscriptions in one command */

/* What belongs to the thread alone. */
struct listener {
  struct redis *self;
  redisContext *link;
  int64_t since, quiet_from, pong_by; /* connected; last heard; a PING is to be answered, or INT64_MAX */
  bool was_up, missed;                /* it had a connection before; has not had one at once */
  bool doubted;                       /* the PING is for one who asked for it */
  size_t tries;                       /* to connect; each begins with another Sentinel */
};

static void signal_fd(int fd) {
  uint64_t one = 1;
  while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR) continue;
}

void subscriber_wake(struct redis *self) {
  signal_fd(self->wake);
}

void news_wake_waiter(const struct waiter *waiter) {
  signal_fd(waiter->event);
}

static void wake_all(const struct channel *channel) {
  const struct waiter *waiter;
  DL_FOREACH(channel->waiters, waiter) {
    news_wake_waiter(waiter);
  }
}

/* ---- channels; all with the lock held ---- */

static void changed(struct redis *self) {
  self->due = true;
  subscriber_wake(self);
}

static void drop(struct redis *self, struct channel *channel) {
  HASH_DEL(self->channels, channel);
  free(channel->news);
  free(channel);
}

struct channel *subscriber_join(struct redis *self, const char *key, struct waiter *waiter) {
  struct channel *channel;
  HASH_FIND_STR(self->channels, key, channel);
  if (!channel) {
    channel = calloc(1, sizeof(*channel));
    if (!channel) return NULL;
    memcpy(channel->key, key, KEY_SIZE);
    unsigned before = HASH_COUNT(self->channels);
    HASH_ADD_STR(self->channels, key, channel);
    if (HASH_COUNT(self->channels) == before) {
      free(channel);
      return NULL;
    }
    changed(self);
  }
  DL_APPEND(channel->waiters, waiter);
  return channel;
}

void subscriber_leave(struct redis *self, struct channel *channel, struct waiter *waiter) {
  DL_DELETE(channel->waiters, waiter);
  if (channel->waiters) return;
  if (channel->state == CHANNEL_WANTED) {
    drop(self, channel);
  } else if (channel->state == CHANNEL_HEARD) {
    changed(self);
  }
}

/* The next channels to be asked for, or left. */
static size_t collect(struct redis *self, bool leave, char keys[BATCH][KEY_SIZE]) {
  size_t count = 0;
  struct channel *channel, *next;
  HASH_ITER(hh, self->channels, channel, next) {
    bool due = leave ? channel->state == CHANNEL_HEARD && !channel->waiters : channel->state == CHANNEL_WANTED;
    if (!due || count == BATCH) continue;
    memcpy(keys[count++], channel->key, KEY_SIZE);
    channel->state = leave ? CHANNEL_LEAVING : CHANNEL_ASKED;
  }
  return count;
}

static void forget_subscriptions(struct redis *self) {
  struct channel *channel, *next;
  HASH_ITER(hh, self->channels, channel, next) {
    channel->state = CHANNEL_WANTED;
    if (!channel->waiters) drop(self, channel);
  }
  self->due = true;
}

static void subscribed(struct redis *self, struct channel *channel) {
  if (channel->state != CHANNEL_ASKED) return;
  channel->state = CHANNEL_HEARD;
  channel->times++;
  wake_all(channel);
  if (!channel->waiters) changed(self);
}

static void unsubscribed(struct redis *self, struct channel *channel) {
  if (channel->state != CHANNEL_LEAVING) return;
  channel->state = CHANNEL_WANTED;
  if (channel->waiters) {
    changed(self);
  } else {
    drop(self, channel);
  }
}

static void told(struct channel *channel, const struct flight_message *message) {
  struct waiter *waiter;
  if (message->has_news) {
    if (!channel->news) channel->news = malloc(sizeof(*channel->news));
    if (channel->news) *channel->news = message->news;
    channel->token = message->token;
    channel->told++;
  }
  DL_FOREACH(channel->waiters, waiter) {
    if (waiter->token > message->token) continue; /* of a claim before */
    if (waiter->token < message->token || message->ms == 0) {
      waiter->ended = true;
    } else {
      waiter->lease_end = deadline_in_ms(message->ms);
    }
    waiter->heard++;
    news_wake_waiter(waiter);
  }
}

/* ---- what comes ---- */

static void tell(const struct redis *self, mc_coordination_event_kind kind, const mc_entry *before,
                 const mc_entry *now) {
  mc_coordination_event event = {.kind = kind, .before = before, .now = now};
  if (self->event) self->event(self->user, &event);
}

static void heard_change(struct redis *self, const redisReply *payload) {
  struct change_message change;
  if (!change_message_decode(&change, payload->str, (size_t)payload->len)) {
    log_warn(self->logger, REDIS_ORIGIN, "what came on the channel of news can't be read");
    return;
  }
  if (strcmp(change.by, self->member) != 0) tell(self, MC_EVENT_ENTRY, change.before, change.now);
  free(change.before);
  free(change.now);
}

/* The key of a flight's channel, or NULL. */
static const char *flight_of(const struct redis *self, const char *name) {
  size_t prefix = strlen(self->address.prefix);
  if (strncmp(name, self->address.prefix, prefix) != 0 || strncmp(name + prefix, "flight:", 7) != 0) return NULL;
  return key_is_valid(name + prefix + 7) ? name + prefix + 7 : NULL;
}

static void heard_flight(struct redis *self, const char *kind, const char *key, const redisReply *payload) {
  struct flight_message message;
  struct channel *channel;
  bool is_message = strcmp(kind, "message") == 0;
  if (is_message &&
      (payload->type != REDIS_REPLY_STRING || !flight_message_decode(&message, payload->str, (size_t)payload->len))) {
    log_warn(self->logger, REDIS_ORIGIN, "what came on the channel of a download can't be read");
    return;
  }
  pthread_mutex_lock(&self->lock);
  HASH_FIND_STR(self->channels, key, channel);
  if (channel && is_message) {
    told(channel, &message);
  } else if (channel && strcmp(kind, "subscribe") == 0) {
    subscribed(self, channel);
  } else if (channel && strcmp(kind, "unsubscribe") == 0) {
    unsubscribed(self, channel);
  }
  pthread_mutex_unlock(&self->lock);
}

/* It is there, whoever had doubts: an op has failed, which may have been a waiter's look. */
static void heard_pong(struct listener *listener) {
  struct redis *self = listener->self;
  struct channel *channel, *next;
  listener->pong_by = INT64_MAX;
  pthread_mutex_lock(&self->lock);
  if (self->state == REDIS_DOUBTED && !self->reconnect) self->state = REDIS_UP;
  HASH_ITER(hh, self->channels, channel, next) {
    if (listener->doubted && channel->state == CHANNEL_HEARD) channel->times++, wake_all(channel);
  }
  listener->doubted = false;
  pthread_cond_broadcast(&self->changed);
  pthread_mutex_unlock(&self->lock);
}

static void heard(struct listener *listener, const redisReply *reply) {
  struct redis *self = listener->self;
  listener->quiet_from = clock_ns();
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
      reply->element[1]->type != REDIS_REPLY_STRING) {
    return;
  }
  const char *kind = reply->element[0]->str, *name = reply->element[1]->str;
  if (strcmp(kind, "pong") == 0) {
    heard_pong(listener);
  } else if (reply->elements == 3) {
    const char *key = flight_of(self, name);
    if (key) {
      heard_flight(self, kind, key, reply->element[2]);
    } else if (strcmp(kind, "message") == 0 && reply->element[2]->type == REDIS_REPLY_STRING) {
      heard_change(self, reply->element[2]);
    }
  }
}

static mc_status hear_all(struct listener *listener, mc_error *err) {
  redisReply *reply;
  for (mc_status status;;) {
    status = link_receive(&reply, listener->link, 0, err);
    if (status || !reply) return status;
    heard(listener, reply);
    freeReplyObject(reply);
  }
}

/* ---- a connection's beginning ---- */

static mc_status load_scripts(struct listener *listener, char shas[SCRIPT_COUNT][41], mc_error *err) {
  mc_status status = MC_OK;
  for (int i = 0; i < SCRIPT_COUNT && !status; i++) {
    redisReply *reply;
    status = link_ask(&reply, listener->link, (const char *const[]){"SCRIPT", "LOAD", redis_scripts[i], NULL}, err);
    if (status) break;
    if (reply->type == REDIS_REPLY_STRING && reply->len == 40) {
      memcpy(shas[i], reply->str, 41);
    } else {
      status = mc_error_set(err, MC_PROTOCOL, REDIS_ORIGIN, "Redis took a script, and gave it no name");
    }
    freeReplyObject(reply);
  }
  return status;
}

static mc_status ask_filled(struct listener *listener, bool *filled, mc_error *err) {
  char name[REDIS_TEXT_SIZE + 8];
  redisReply *reply;
  snprintf(name, sizeof(name), "%sfilled", listener->self->address.prefix);
  mc_status status = link_ask(&reply, listener->link, (const char *const[]){"EXISTS", name, NULL}, err);
  if (status) return status;
  *filled = reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
  freeReplyObject(reply);
  return MC_OK;
}

static mc_status subscribe_to_news(struct listener *listener, mc_error *err) {
  char name[REDIS_TEXT_SIZE + 8];
  redisReply *reply;
  snprintf(name, sizeof(name), "%snews", listener->self->address.prefix);
  mc_status status = link_ask(&reply, listener->link, (const char *const[]){"SUBSCRIBE", name, NULL}, err);
  if (!status) freeReplyObject(reply);
  return status;
}

static mc_status connect_listener(struct listener *listener, bool *filled, mc_error *err) {
  struct redis *self = listener->self;
  struct link_target target;
  char shas[SCRIPT_COUNT][41];
  mc_status status = link_find(&target, &self->address, listener->tries++, err);
  if (!status) status = link_open(&listener->link, &self->address, &target, err);
  if (!status) status = load_scripts(listener, shas, err);
  if (!status) status = ask_filled(listener, filled, err);
  if (!status) status = subscribe_to_news(listener, err);
  if (status) return listener->link ? link_name(status, target.where, err) : status;
  link_pin(&target, listener->link);
  pthread_mutex_lock(&self->lock);
  self->target = target;
  if (!self->shas[0][0]) memcpy(self->shas, shas, sizeof(shas));
  self->check = self->reconnect = self->emptied = false;
  self->filled = *filled;
  self->born = 0;
  pthread_mutex_unlock(&self->lock);
  listener->since = listener->quiet_from = clock_ns();
  listener->pong_by = INT64_MAX;
  return MC_OK;
}

/* ---- a connection's life ---- */

static mc_status send_names(struct listener *listener, const char *command, char keys[BATCH][KEY_SIZE], size_t count,
                            mc_error *err) {
  static const size_t room = REDIS_TEXT_SIZE + 8 + KEY_SIZE;
  const char *args[BATCH + 1] = {command};
  char *names = malloc(BATCH * room);
  if (!names) return mc_error_set(err, MC_NO_MEMORY, REDIS_ORIGIN, "no memory for a channel's name");
  for (size_t i = 0; i < count; i++) {
    snprintf(names + i * room, room, "%sflight:%.*s", listener->self->address.prefix, KEY_SIZE - 1, keys[i]);
    args[i + 1] = names + i * room;
  }
  mc_status status = link_send(listener->link, count + 1, args, NULL, err);
  free(names);
  return status;
}

static mc_status subscribe_all(struct listener *listener, bool leave, mc_error *err) {
  struct redis *self = listener->self;
  char keys[BATCH][KEY_SIZE];
  for (mc_status status;;) {
    pthread_mutex_lock(&self->lock);
    size_t count = collect(self, leave, keys);
    pthread_mutex_unlock(&self->lock);
    if (count == 0) return MC_OK;
    status = send_names(listener, leave ? "UNSUBSCRIBE" : "SUBSCRIBE", keys, count, err);
    if (status) return status;
  }
}

static mc_status ping(struct listener *listener, mc_error *err) {
  if (listener->pong_by != INT64_MAX) return MC_OK;
  listener->pong_by = deadline_in_ms(LINK_TIMEOUT_MS);
  return link_send(listener->link, 1, (const char *const[]){"PING"}, NULL, err);
}

static int64_t quiet_ms(const struct redis *self) {
  int64_t ms = self->lease_ms / 3;
  return ms < QUIET_LEAST_MS ? QUIET_LEAST_MS : ms > QUIET_MOST_MS ? QUIET_MOST_MS : ms;
}

/* What others want of it. false: it is to end, or to connect anew. */
static bool serve(struct listener *listener, mc_error *err) {
  struct redis *self = listener->self;
  pthread_mutex_lock(&self->lock);
  bool stop = self->stop, check = self->check, again = self->reconnect, emptied = self->emptied, due = self->due;
  mc_coordination_event_kind emptiness = self->filled ? MC_EVENT_GAP : MC_EVENT_EMPTY;
  self->check = self->emptied = self->due = false;
  if (again) *err = self->why;
  pthread_mutex_unlock(&self->lock);
  if (stop || again) return false;
  if (emptied) tell(self, emptiness, NULL, NULL);
  listener->doubted |= check;
  mc_status status = check ? ping(listener, err) : MC_OK;
  if (!status && due) status = subscribe_all(listener, false, err);
  if (!status && due) status = subscribe_all(listener, true, err);
  return !link_name(status, self->target.where, err);
}

/* Until the connection breaks, or is to be made anew: `err` says why. */
static void follow(struct listener *listener, mc_error *err) {
  struct redis *self = listener->self;
  int64_t quiet = quiet_ms(self) * NS_PER_MS;
  struct pollfd fds[] = {{.fd = listener->link->fd, .events = POLLIN}, {.fd = self->wake, .events = POLLIN}};
  for (;;) {
    uint64_t count;
    while (read(self->wake, &count, sizeof(count)) < 0 && errno == EINTR) continue;
    if (!serve(listener, err)) return;
    mc_status status = hear_all(listener, err);
    int64_t now = clock_ns();
    if (!status && now >= listener->pong_by) {
      status = mc_error_set(err, MC_UNAVAILABLE, REDIS_ORIGIN, "no answer in time");
    }
    if (!status && now - listener->quiet_from >= quiet) status = ping(listener, err);
    if (link_name(status, self->target.where, err)) return;
    poll(fds, 2, deadline_poll_ms(listener->pong_by == INT64_MAX ? listener->quiet_from + quiet : listener->pong_by));
  }
}

/* ---- the thread ---- */

static bool is_stopped(struct redis *self) {
  pthread_mutex_lock(&self->lock);
  bool stop = self->stop;
  pthread_mutex_unlock(&self->lock);
  return stop;
}

static void pause_ms(struct redis *self, int64_t ms) {
  uint32_t random;
  random_bytes(&random, sizeof(random));
  int64_t until = deadline_in_ms(ms / 2 + random % (ms / 2) + 1);
  while (!is_stopped(self) && clock_ns() < until) {
    uint64_t count;
    struct pollfd wake = {.fd = self->wake, .events = POLLIN};
    poll(&wake, 1, deadline_poll_ms(until));
    while (read(self->wake, &count, sizeof(count)) < 0 && errno == EINTR) continue;
  }
}

/* What has to be told at a connection's beginning. */
static void tell_beginning(struct listener *listener, bool filled) {
  struct redis *self = listener->self;
  if (!filled) {
    tell(self, MC_EVENT_EMPTY, NULL, NULL);
  } else if (listener->was_up || listener->missed) {
    tell(self, MC_EVENT_GAP, NULL, NULL);
  }
  if (listener->missed) log_info(self->logger, REDIS_ORIGIN, "Redis at %s is back", self->target.where);
  listener->was_up = true;
  listener->missed = false;
}

static void lost(struct listener *listener, mc_error *err) {
  struct redis *self = listener->self;
  if (listener->was_up) err->status = MC_UNAVAILABLE; /* whatever it is that it said: it was right before */
  link_close(listener->link);
  listener->link = NULL;
  if (!listener->missed) log_warn(self->logger, REDIS_ORIGIN, "%s", err->message);
  listener->missed = true;
  pool_set(self, err);
  pthread_mutex_lock(&self->lock);
  forget_subscriptions(self);
  pthread_mutex_unlock(&self->lock);
}

static void *listener_main(void *arg) {
  struct listener listener = {.self = arg};
  struct redis *self = arg;
  int64_t backoff = BACKOFF_LEAST_MS;
  while (!is_stopped(self)) {
    mc_error err = MC_ERROR_INIT;
    bool filled = false;
    if (connect_listener(&listener, &filled, &err) == MC_OK) {
      tell_beginning(&listener, filled); /* before any op sees what is there now */
      pool_set(self, NULL);
      follow(&listener, &err);
      if (clock_ns() - listener.since > STEADY_MS * NS_PER_MS) backoff = BACKOFF_LEAST_MS;
    }
    if (is_stopped(self)) break;
    lost(&listener, &err);
    pause_ms(self, backoff);
    backoff = backoff * 2 > BACKOFF_MOST_MS ? BACKOFF_MOST_MS : backoff * 2;
  }
  link_close(listener.link);
  return NULL;
}

mc_status subscriber_start(struct redis *self, mc_error *err) {
  sigset_t all, before;
  self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (self->wake < 0) return mc_error_errno(err, errno, REDIS_ORIGIN, "can't listen to Redis: no eventfd");
  sigfillset(&all); /* the process's signals are no business of ours */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int errnum = pthread_create(&self->thread, NULL, listener_main, self);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!errnum) return MC_OK;
  close(self->wake);
  return mc_error_errno(err, errnum, REDIS_ORIGIN, "can't listen to Redis: no thread");
}

void subscriber_stop(struct redis *self) {
  struct channel *channel, *next;
  pthread_mutex_lock(&self->lock);
  self->stop = true;
  pthread_mutex_unlock(&self->lock);
  subscriber_wake(self);
  pthread_join(self->thread, NULL);
  close(self->wake);
  HASH_ITER(hh, self->channels, channel, next) {
    drop(self, channel);
  }
}
