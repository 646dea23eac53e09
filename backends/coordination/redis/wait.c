/* Waiting for a claim to end: listen, look, and then sleep until something is told or the lease has run out. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "messages.h"
#include "redis.h"

struct wait {
  struct redis *self;
  const char *key;
  struct waiter waiter;
  struct channel *channel;
  unsigned looked, handed; /* at which of the channel's times; up to which of what was told there */
  void (*news)(void *user, const mc_claim_news *news);
  void *user;
};

/* Whether the claim is there, until when, and what was told last; unless something newer is heard meanwhile. */
static mc_status look(struct wait *wait, mc_error *err) {
  struct redis *self = wait->self;
  char token[24];
  mc_claim_news news;
  redisReply *reply;
  pthread_mutex_lock(&self->lock);
  unsigned heard = wait->waiter.heard, told = wait->channel->told;
  pthread_mutex_unlock(&self->lock);
  snprintf(token, sizeof(token), "%llu", (unsigned long long)wait->waiter.token);
  mc_status status = pool_run(&reply, self, SCRIPT_LOOK, (const char *const[]){wait->key, token, NULL}, err);
  if (status) return status;
  bool there = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
               reply->element[0]->type == REDIS_REPLY_INTEGER && reply->element[1]->type == REDIS_REPLY_STRING;
  pthread_mutex_lock(&self->lock);
  bool newest = wait->channel->told == told;
  if (!there) wait->waiter.ended = true;
  if (there && wait->waiter.heard == heard) wait->waiter.lease_end = deadline_in_ms(reply->element[0]->integer);
  pthread_mutex_unlock(&self->lock);
  if (there && newest && wait->news && reply->element[1]->len &&
      claim_news_decode(&news, reply->element[1]->str, (size_t)reply->element[1]->len)) {
    wait->news(wait->user, &news);
  }
  freeReplyObject(reply);
  return MC_OK;
}

/* Hand over what the owner told since; with the lock held, which is let go of meanwhile. */
static void hand_over(struct wait *wait) {
  struct redis *self = wait->self;
  const struct channel *channel = wait->channel;
  bool any = channel->news && channel->token == wait->waiter.token && wait->handed != channel->told;
  wait->handed = channel->told;
  if (!any || !wait->news) return;
  mc_claim_news copy = *channel->news;
  pthread_mutex_unlock(&self->lock);
  wait->news(wait->user, &copy);
  pthread_mutex_lock(&self->lock);
}

/* Until the claim has ended, or the call. */
static mc_status watch(struct wait *wait, const mc_call *call, mc_error *err) {
  struct redis *self = wait->self;
  struct pollfd fds[] = {{.fd = wait->waiter.event, .events = POLLIN},
                         {.fd = mc_cancel_fd(call->cancel), .events = POLLIN}};
  for (mc_status status = MC_OK;;) {
    uint64_t count;
    while (read(wait->waiter.event, &count, sizeof(count)) < 0 && errno == EINTR) continue;
    pthread_mutex_lock(&self->lock);
    hand_over(wait);
    bool ended = wait->waiter.ended, again = wait->channel->times != wait->looked;
    int64_t lease_end = wait->waiter.lease_end;
    wait->looked = wait->channel->times;
    pthread_mutex_unlock(&self->lock);
    if (ended) return MC_OK;
    status = mc_call_check(call, err);
    if (status) return status;
    bool over = clock_ns() >= lease_end;
    if (again || over) {
      status = look(wait, err);
      if (status && (over || status != MC_UNAVAILABLE)) return status;
      if (!status) continue;
    }
    poll(fds, 2, deadline_poll_ms(deadline_earlier(lease_end, call->deadline)));
  }
}

mc_status redis_wait(mc_coordination *coordination, const char *key, uint64_t token,
                     void (*news)(void *user, const mc_claim_news *news), void *user, const mc_call *call,
                     mc_error *err) {
  struct redis *self = redis_of(coordination);
  struct wait wait = {.self = self, .key = key, .news = news, .user = user};
  if (!key_is_valid(key)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, REDIS_ORIGIN, "a key is 64 lower-case hex digits");
  }
  wait.waiter = (struct waiter){
      .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .token = token, .lease_end = deadline_in_ms(self->lease_ms)};
  if (wait.waiter.event < 0) {
    return mc_error_errno(err, errno, REDIS_ORIGIN, "can't wait for a claim: no eventfd");
  }
  pthread_mutex_lock(&self->lock);
  wait.channel = subscriber_join(self, key, &wait.waiter);
  if (wait.channel) {
    wait.looked = wait.channel->times - (wait.channel->state == CHANNEL_HEARD); /* else it is yet to be */
    wait.handed = wait.channel->told;
  }
  pthread_mutex_unlock(&self->lock);
  mc_status status = MC_OK;
  if (wait.channel) {
    status = watch(&wait, call, err);
    pthread_mutex_lock(&self->lock);
    subscriber_leave(self, wait.channel, &wait.waiter);
    pthread_mutex_unlock(&self->lock);
  } else {
    status = mc_error_set(err, MC_NO_MEMORY, REDIS_ORIGIN, "no memory to wait for a claim");
  }
  close(wait.waiter.event);
  return status;
}
