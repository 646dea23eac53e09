#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/builtin.h"
#include "fake_await.h"
#include "fake_coordination.h"

struct wrapper {
  mc_coordination base;
  mc_coordination *inner;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static mc_coordination *latest;
static unsigned calls[FAKE_VERBS];
static mc_status failures[FAKE_VERBS];
static bool publish_holds;
static unsigned held;
static void (*before_claim)(void *user);
static void *before_claim_user;

mc_coordination *fake_coordination_inner(void) {
  return latest;
}

void fake_coordination_fail(enum fake_verb verb, mc_status status) {
  pthread_mutex_lock(&lock);
  failures[verb] = status;
  pthread_mutex_unlock(&lock);
}

unsigned fake_coordination_calls(enum fake_verb verb) {
  pthread_mutex_lock(&lock);
  unsigned count = calls[verb];
  pthread_mutex_unlock(&lock);
  return count;
}

static void await(const unsigned *counter, unsigned least) {
  await_counter(counter, least, &lock, &changed);
}

void fake_coordination_await(enum fake_verb verb, unsigned count) {
  await(&calls[verb], count);
}

void fake_coordination_hold_publish(bool hold) {
  pthread_mutex_lock(&lock);
  publish_holds = hold;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

void fake_coordination_await_held(void) {
  await(&held, 1);
}

void fake_coordination_before_claim(void (*act)(void *user), void *user) {
  pthread_mutex_lock(&lock);
  before_claim = act;
  before_claim_user = user;
  pthread_mutex_unlock(&lock);
}

void fake_coordination_reset(void) {
  pthread_mutex_lock(&lock);
  memset(calls, 0, sizeof(calls));
  memset(failures, 0, sizeof(failures));
  before_claim = NULL;
  pthread_mutex_unlock(&lock);
}

static mc_coordination *inner_of(mc_coordination *self) {
  return ((struct wrapper *)self)->inner;
}

static mc_status call(enum fake_verb verb, mc_error *err) {
  pthread_mutex_lock(&lock);
  calls[verb]++;
  mc_status status = failures[verb];
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return status ? mc_error_set(err, status, "fake", "told to fail") : MC_OK;
}

static void wrap_close(mc_coordination *self) {
  inner_of(self)->ops->close(inner_of(self));
  free(self);
}

static mc_status wrap_lookup(mc_coordination *self, const char *key, mc_entry **out, mc_error *err) {
  mc_status status = call(FAKE_LOOKUP, err);
  return status ? status : inner_of(self)->ops->lookup(inner_of(self), key, out, err);
}

static mc_status wrap_claim(mc_coordination *self, const char *key, mc_claim *claim, mc_error *err) {
  pthread_mutex_lock(&lock);
  void (*act)(void *user) = before_claim;
  before_claim = NULL;
  pthread_mutex_unlock(&lock);
  if (act) act(before_claim_user);
  mc_status status = call(FAKE_CLAIM, err);
  return status ? status : inner_of(self)->ops->claim(inner_of(self), key, claim, err);
}

static mc_status wrap_renew(mc_coordination *self, const char *key, uint64_t token, const mc_claim_news *news,
                            mc_error *err) {
  mc_status status = call(FAKE_RENEW, err);
  return status ? status : inner_of(self)->ops->renew(inner_of(self), key, token, news, err);
}

static mc_status wrap_publish(mc_coordination *self, const char *key, uint64_t token, const mc_entry *entry,
                              mc_error *err) {
  pthread_mutex_lock(&lock);
  if (publish_holds) held++;
  pthread_cond_broadcast(&changed);
  bool was_held = publish_holds;
  while (publish_holds) pthread_cond_wait(&changed, &lock);
  if (was_held) held--;
  pthread_mutex_unlock(&lock);
  mc_status status = call(FAKE_PUBLISH, err);
  return status ? status : inner_of(self)->ops->publish(inner_of(self), key, token, entry, err);
}

static void wrap_abandon(mc_coordination *self, const char *key, uint64_t token) {
  call(FAKE_ABANDON, NULL);
  inner_of(self)->ops->abandon(inner_of(self), key, token);
}

static mc_status wrap_wait(mc_coordination *self, const char *key, uint64_t token,
                           void (*news)(void *user, const mc_claim_news *news), void *user, const mc_call *mc_call_of,
                           mc_error *err) {
  mc_status status = call(FAKE_WAIT, err);
  return status ? status : inner_of(self)->ops->wait(inner_of(self), key, token, news, user, mc_call_of, err);
}

static mc_status wrap_forget(mc_coordination *self, const char *key, mc_error *err) {
  return inner_of(self)->ops->forget(inner_of(self), key, err);
}

static mc_status wrap_list(mc_coordination *self, const char *prefix, const char *after,
                           bool (*visit)(void *user, const mc_entry *entry), void *user, mc_error *err) {
  return inner_of(self)->ops->list(inner_of(self), prefix, after, visit, user, err);
}

static mc_status wrap_open(mc_coordination **out, const mc_coordination_config *config, mc_error *err);

static const mc_coordination_ops ops = {
    .abi = MC_COORDINATION_ABI,
    .name = "fake",
    .open = wrap_open,
    .close = wrap_close,
    .lookup = wrap_lookup,
    .claim = wrap_claim,
    .renew = wrap_renew,
    .publish = wrap_publish,
    .abandon = wrap_abandon,
    .wait = wrap_wait,
    .forget = wrap_forget,
    .list = wrap_list,
};

const mc_coordination_ops *const fake_coordinations[] = {&ops, NULL};

static mc_status wrap_open(mc_coordination **out, const mc_coordination_config *config, mc_error *err) {
  struct wrapper *self = calloc(1, sizeof(*self));
  assert_non_null(self);
  self->base.ops = &ops;
  mc_status status = builtin_coordinations[0]->open(&self->inner, config, err);
  if (status) {
    free(self);
    return status;
  }
  latest = self->inner;
  *out = &self->base;
  return MC_OK;
}
