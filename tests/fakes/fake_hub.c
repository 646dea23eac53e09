#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "backends/builtin.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/record.h"
#include "fake_await.h"
#include "fake_hub.h"

#define MAX_HOLDS 64
#define MAX_URLS  256

struct member {
  mc_coordination base;
  char id[64];
  void (*event)(void *user, const mc_coordination_event *event);
  void *user;
  char *document;
  int64_t told_at;
  struct member *prev, *next;
};

struct holding {
  mc_digest digest;
  char endpoint[MC_ENDPOINT_SIZE];
  int64_t until;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all below; held while members are told */
static mc_coordination *inner;                           /* local, shared by all; lives until the reset */
static struct member *members;
static struct holding holds[MAX_HOLDS];
static bool filled;
static atomic_bool lost;

static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const char *to_hold;           /* the op whose next call is held back, or NULL */
static unsigned held_calls, released; /* so many ever; a call that is held has the next number */

static const char *const verbs[] = {"lookup", "claim", "renew",   "publish", "abandon", "wait",  "forget",
                                    "list",   "hold",  "present", "members", "filled",  "other", NULL};
static atomic_uint calls[sizeof(verbs) / sizeof(*verbs)];

static size_t verb_of(const char *op) {
  size_t i = 0;
  while (verbs[i + 1] && strcmp(verbs[i], op) != 0) i++;
  return i;
}

unsigned fake_hub_calls(const char *op) {
  return calls[verb_of(op)];
}

static mc_status call(const char *op, mc_error *err) {
  calls[verb_of(op)]++;
  return lost ? mc_error_set(err, MC_UNAVAILABLE, "hub", "the hub is out of reach") : MC_OK;
}

static void pass(const char *op) {
  pthread_mutex_lock(&lock);
  bool is_held = to_hold && strcmp(to_hold, op) == 0;
  unsigned number = is_held ? ++held_calls : 0;
  if (is_held) to_hold = NULL;
  if (is_held) pthread_cond_broadcast(&changed);
  while (is_held && released < number) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

/* ---- what happens to it ---- */

void fake_hub_hold(const char *op) {
  pthread_mutex_lock(&lock);
  to_hold = op;
  pthread_mutex_unlock(&lock);
}

void fake_hub_await_held(void) {
  pthread_mutex_lock(&lock);
  unsigned next = released + 1;
  pthread_mutex_unlock(&lock);
  await_counter(&held_calls, next, &lock, &changed);
}

void fake_hub_release(void) {
  pthread_mutex_lock(&lock);
  released = held_calls;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

void fake_hub_revoke(const char *key) {
  mc_claim claim;
  assert_int_equal(inner->ops->claim(inner, key, &claim, NULL), MC_OK);
  inner->ops->abandon(inner, key, claim.token);
}

/* With the lock held. */
static void tell(const struct member *but, const mc_coordination_event *event) {
  struct member *member;
  DL_FOREACH(members, member) {
    if (member != but && member->event) member->event(member->user, event);
  }
}

void fake_hub_lose(void) {
  lost = true;
}

static bool note_url(void *user, const mc_entry *entry) {
  char **urls = user;
  size_t i = 0;
  while (urls[i]) i++;
  assert_true(i < MAX_URLS - 1);
  urls[i] = strdup(entry->url);
  return true;
}

void fake_hub_find(bool empty) {
  pthread_mutex_lock(&lock);
  lost = false;
  if (empty && inner) {
    char *urls[MAX_URLS] = {0}, key[KEY_SIZE];
    inner->ops->list(inner, "", NULL, note_url, urls, NULL);
    for (size_t i = 0; urls[i]; i++) {
      key_of_url(key, urls[i]);
      inner->ops->forget(inner, key, NULL);
      free(urls[i]);
    }
    filled = false;
    memset(holds, 0, sizeof(holds));
  }
  mc_coordination_event event = {filled ? MC_EVENT_GAP : MC_EVENT_EMPTY, NULL, NULL};
  tell(NULL, &event);
  pthread_mutex_unlock(&lock);
}

void fake_hub_regress(const char *key, const mc_entry *entry) {
  pthread_mutex_lock(&lock);
  assert_int_equal(inner->ops->forget(inner, key, NULL), MC_OK);
  assert_int_equal(inner->ops->publish(inner, key, 0, entry, NULL), MC_OK);
  pthread_mutex_unlock(&lock);
}

bool fake_hub_is_filled(void) {
  pthread_mutex_lock(&lock);
  bool is = filled;
  pthread_mutex_unlock(&lock);
  return is;
}

void fake_hub_reset(void) {
  assert_null(members);
  if (inner) inner->ops->close(inner);
  inner = NULL;
  filled = false;
  lost = false;
  memset(holds, 0, sizeof(holds));
  for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) calls[i] = 0;
}

/* ---- ops ---- */

static mc_status hub_lookup(mc_coordination *self, const char *key, mc_entry **out, mc_error *err) {
  (void)self;
  mc_entry *entry;
  mc_status status = call("lookup", err);
  if (!status) status = inner->ops->lookup(inner, key, &entry, err);
  pass("lookup");
  if (status) return status;
  char list[MAX_HOLDS * MC_ENDPOINT_SIZE] = "";
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < MAX_HOLDS && entry->has_digest; i++) {
    if (holds[i].until < clock_ns() || !mc_digest_equal(&holds[i].digest, &entry->digest)) continue;
    if (*list) strcat(list, " ");
    strcat(list, holds[i].endpoint);
  }
  pthread_mutex_unlock(&lock);
  mc_entry *held = entry_held(entry, list);
  assert_non_null(held);
  free(entry);
  *out = held;
  return MC_OK;
}

static mc_status hub_claim(mc_coordination *self, const char *key, mc_claim *claim, mc_error *err) {
  mc_status status = call("claim", err);
  if (!status) status = inner->ops->claim(inner, key, claim, err);
  if (!status) strcpy(claim->owner, claim->granted ? ((struct member *)self)->id : "another");
  return status;
}

static mc_status hub_renew(mc_coordination *self, const char *key, uint64_t token, const mc_claim_news *news,
                           mc_error *err) {
  (void)self;
  mc_status status = call("renew", err);
  pass("renew");
  return status ? status : inner->ops->renew(inner, key, token, news, err);
}

static bool same_state(const mc_entry *a, const mc_entry *b) {
  if (!a || !b) return a == b;
  return a->missing == b->missing && a->pinned == b->pinned && a->has_digest == b->has_digest &&
         (!a->has_digest || mc_digest_equal(&a->digest, &b->digest));
}

/* Change an entry, and tell the others; `entry` NULL: forget it. */
static mc_status change(mc_coordination *self, const char *key, uint64_t token, const mc_entry *entry, mc_error *err) {
  mc_entry *before = NULL;
  pthread_mutex_lock(&lock);
  if (inner->ops->lookup(inner, key, &before, NULL)) before = NULL;
  mc_status status = entry ? inner->ops->publish(inner, key, token, entry, err) : inner->ops->forget(inner, key, err);
  if (!status && !same_state(before, entry)) {
    mc_coordination_event event = {MC_EVENT_ENTRY, before, entry};
    tell((struct member *)self, &event);
  }
  pthread_mutex_unlock(&lock);
  free(before);
  return status;
}

static mc_status hub_publish(mc_coordination *self, const char *key, uint64_t token, const mc_entry *entry,
                             mc_error *err) {
  mc_status status = call("publish", err);
  return status ? status : change(self, key, token, entry, err);
}

static void hub_abandon(mc_coordination *self, const char *key, uint64_t token) {
  (void)self;
  if (!call("abandon", NULL)) inner->ops->abandon(inner, key, token);
}

static mc_status hub_wait(mc_coordination *self, const char *key, uint64_t token,
                          void (*news)(void *user, const mc_claim_news *news), void *user, const mc_call *mc_call_of,
                          mc_error *err) {
  (void)self;
  mc_status status = call("wait", err);
  if (!status) status = inner->ops->wait(inner, key, token, news, user, mc_call_of, err);
  return !status && lost ? mc_error_set(err, MC_UNAVAILABLE, "hub", "the hub is out of reach") : status;
}

static mc_status hub_forget(mc_coordination *self, const char *key, mc_error *err) {
  mc_status status = call("forget", err);
  return status ? status : change(self, key, 0, NULL, err);
}

static mc_status hub_list(mc_coordination *self, const char *prefix, const char *after,
                          bool (*visit)(void *user, const mc_entry *entry), void *user, mc_error *err) {
  (void)self;
  mc_status status = call("list", err);
  return status ? status : inner->ops->list(inner, prefix, after, visit, user, err);
}

static mc_status hub_present(mc_coordination *self, const char *document, mc_error *err) {
  struct member *member = (struct member *)self;
  mc_status status = call("present", err);
  if (status) return status;
  pthread_mutex_lock(&lock);
  free(member->document);
  member->document = document ? strdup(document) : NULL;
  member->told_at = clock_wall_ms();
  pthread_mutex_unlock(&lock);
  return MC_OK;
}

static mc_status hub_members(mc_coordination *self,
                             bool (*visit)(void *user, const char *member_id, const char *document, int64_t age_ms),
                             void *user, mc_error *err) {
  (void)self;
  struct member *member;
  mc_status status = call("members", err);
  if (status) return status;
  pthread_mutex_lock(&lock);
  DL_FOREACH(members, member) {
    if (member->document && !visit(user, member->id, member->document, clock_wall_ms() - member->told_at)) break;
  }
  pthread_mutex_unlock(&lock);
  return MC_OK;
}

static mc_status hub_hold(mc_coordination *self, const mc_digest *digests, size_t count, const char *endpoint,
                          int64_t ms, mc_error *err) {
  (void)self;
  mc_status status = call("hold", err);
  if (status) return status;
  pthread_mutex_lock(&lock);
  for (size_t k = 0; k < count; k++) {
    struct holding *place = NULL;
    for (size_t i = MAX_HOLDS; i-- > 0;) {
      bool same = mc_digest_equal(&holds[i].digest, &digests[k]) && strcmp(holds[i].endpoint, endpoint) == 0;
      if (same || (!place && holds[i].until < clock_ns())) place = &holds[i];
      if (same) break;
    }
    assert_non_null(place);
    place->digest = digests[k];
    strcpy(place->endpoint, endpoint);
    place->until = ms ? deadline_in_ms(ms) : 0;
  }
  pthread_mutex_unlock(&lock);
  return MC_OK;
}

static mc_status hub_filled(mc_coordination *self, mc_error *err) {
  (void)self;
  mc_status status = call("filled", err);
  if (status) return status;
  pthread_mutex_lock(&lock);
  filled = true;
  pthread_mutex_unlock(&lock);
  return MC_OK;
}

static void hub_close(mc_coordination *self) {
  struct member *member = (struct member *)self;
  pthread_mutex_lock(&lock);
  DL_DELETE(members, member);
  pthread_mutex_unlock(&lock);
  free(member->document);
  free(member);
}

static mc_status hub_open(mc_coordination **out, const mc_coordination_config *config, mc_error *err);

static const mc_coordination_ops ops = {
    .abi = MC_COORDINATION_ABI,
    .name = "hub",
    .flags = MC_COORDINATION_SHARED,
    .open = hub_open,
    .close = hub_close,
    .lookup = hub_lookup,
    .claim = hub_claim,
    .renew = hub_renew,
    .publish = hub_publish,
    .abandon = hub_abandon,
    .wait = hub_wait,
    .forget = hub_forget,
    .list = hub_list,
    .present = hub_present,
    .members = hub_members,
    .hold = hub_hold,
    .filled = hub_filled,
};

const mc_coordination_ops *const fake_hubs[] = {&ops, NULL};

static mc_status hub_open(mc_coordination **out, const mc_coordination_config *config, mc_error *err) {
  static unsigned serial; /* two caches of one process have the same owner's name */
  mc_status status = MC_OK;
  struct member *member = calloc(1, sizeof(*member));
  assert_non_null(member);
  member->base.ops = &ops;
  member->event = config->event;
  member->user = config->user;
  pthread_mutex_lock(&lock);
  snprintf(member->id, sizeof(member->id), "member-%u", ++serial);
  if (!inner) status = builtin_coordinations[0]->open(&inner, config, err);
  if (!status) DL_APPEND(members, member);
  mc_coordination_event event = {MC_EVENT_EMPTY, NULL, NULL};
  if (!status && !filled && member->event) member->event(member->user, &event);
  pthread_mutex_unlock(&lock);
  if (status) {
    free(member);
    return status;
  }
  *out = &member->base;
  return MC_OK;
}
