#include <string.h>

#include "base/clock.h"
#include "redis.h"

#define MAX_ARGS 300

static mc_status unavailable(const struct redis *self, mc_error *err) {
  if (err) *err = self->why;
  return self->why.status;
}

/* With the lock held: wait for the first try, and for one of the connections. */
static mc_status gate(struct redis *self, mc_error *err) {
  int64_t deadline = deadline_in_ms(2 * LINK_TIMEOUT_MS);
  bool in_time = true;
  while (in_time && (self->state == REDIS_TRYING ||
                     (self->state == REDIS_UP && self->links == POOL_SIZE && self->idle_count == 0))) {
    in_time = cond_wait_until(&self->changed, &self->lock, deadline);
  }
  if (self->state == REDIS_UP && in_time) return MC_OK;
  if (self->state == REDIS_DOUBTED || self->state == REDIS_DOWN) return unavailable(self, err);
  return mc_error_set(err, MC_UNAVAILABLE, REDIS_ORIGIN, "Redis has not answered yet");
}

/* An idle one, or none: then the caller makes one, and it is counted already. */
static mc_status take(struct redis *self, struct pooled *out, struct link_target *target, mc_error *err) {
  pthread_mutex_lock(&self->lock);
  mc_status status = gate(self, err);
  while (!status) {
    *out = (struct pooled){NULL, self->generation};
    *target = self->target;
    if (self->idle_count == 0) {
      self->links++;
      break;
    }
    *out = self->idle[--self->idle_count];
    if (link_is_quiet(out->link)) break;
    link_close(out->link);
    self->links--;
  }
  pthread_mutex_unlock(&self->lock);
  return status;
}

/* What a connection's end says of Redis; with the lock held. */
static void suspect(struct redis *self, int code, const char *where) {
  if (self->state != REDIS_UP) return;
  self->check = true;
  if (code == LINK_TIMED_OUT) {
    self->state = REDIS_DOUBTED;
    mc_error_set(&self->why, MC_UNAVAILABLE, REDIS_ORIGIN, "Redis at %s can't be reached: no answer in time", where);
  } else if (code == LINK_MOVED) {
    self->state = REDIS_DOUBTED;
    self->reconnect = true;
    mc_error_set(&self->why, MC_UNAVAILABLE, REDIS_ORIGIN, "Redis at %s can't serve now", where);
  }
  pthread_cond_broadcast(&self->changed);
  subscriber_wake(self);
}

static void give(struct redis *self, struct pooled *pooled) {
  pthread_mutex_lock(&self->lock);
  bool current = pooled->generation == self->generation;
  if (!pooled->link || pooled->link->err || !current) {
    self->links--;
    if (current) suspect(self, pooled->link ? pooled->link->err : LINK_TIMED_OUT, self->target.where);
  } else {
    self->idle[self->idle_count++] = *pooled;
    pooled->link = NULL;
  }
  pthread_cond_signal(&self->changed);
  pthread_mutex_unlock(&self->lock);
  link_close(pooled->link);
}

static mc_status ask(redisReply **out, struct redis *self, struct pooled *pooled, const struct link_target *target,
                     const char *const *args, mc_error *err) {
  mc_status status = MC_OK;
  if (!pooled->link) status = link_open(&pooled->link, &self->address, target, err);
  return status ? status : link_name(link_ask(out, pooled->link, args, err), target->where, err);
}

mc_status pool_ask(redisReply **out, struct redis *self, const char *const *args, mc_error *err) {
  struct pooled pooled;
  struct link_target target;
  *out = NULL;
  mc_status status = take(self, &pooled, &target, err);
  if (status) return status;
  status = ask(out, self, &pooled, &target, args, err);
  give(self, &pooled);
  return status;
}

mc_status pool_run(redisReply **out, struct redis *self, enum redis_script script, const char *const *args,
                   mc_error *err) {
  const char *list[MAX_ARGS] = {"EVALSHA", NULL, "0", self->address.prefix};
  struct pooled pooled;
  struct link_target target;
  size_t count = 4;
  *out = NULL;
  for (size_t i = 0; args[i]; i++) {
    if (count + 1 == MAX_ARGS) return mc_error_set(err, MC_INVALID_ARGUMENT, REDIS_ORIGIN, "too much at once");
    list[count++] = args[i];
  }
  mc_status status = take(self, &pooled, &target, err);
  if (status) return status;
  list[1] = self->shas[script]; /* doesn't change any more */
  status = ask(out, self, &pooled, &target, list, err);
  if (status == MC_NOT_FOUND) { /* Redis has started anew, or was told to flush them */
    list[0] = "EVAL";
    list[1] = redis_scripts[script];
    status = link_name(link_ask(out, pooled.link, list, err), target.where, err);
  }
  give(self, &pooled);
  return status;
}

static void close_idle(struct redis *self) {
  while (self->idle_count) {
    link_close(self->idle[--self->idle_count].link);
    self->links--;
  }
}

void pool_set(struct redis *self, const mc_error *why) {
  pthread_mutex_lock(&self->lock);
  if (why) {
    self->why = *why;
    self->state = REDIS_DOWN;
  } else {
    self->state = REDIS_UP;
  }
  self->generation++;
  close_idle(self);
  pthread_cond_broadcast(&self->changed);
  pthread_mutex_unlock(&self->lock);
}

void pool_close(struct redis *self) {
  close_idle(self);
}
