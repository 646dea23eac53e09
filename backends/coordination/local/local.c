/* local: coordination among the threads of one process.
 *
 *   a key's claim is …   means                                          becomes
 *   free                 nobody has it                                  held, by claim
 *   held                 a token, and a lease that has not run out      free by publish, abandon; or overdue
 *   overdue              the lease has run out: those who wait go on    held again by renew, or by another's claim
 *
 * A key has a slot while there is an entry, a claim or somebody who waits. Entries never change: a new one takes an old
 * one's place, and the last who uses the old one frees it, so that no lock is held over a caller's function. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/record.h"
#include <modelcache/backend/coordination.h>

#define ORIGIN "local"

/* An entry and how many use it: its slot, and lists under way. */
struct known {
  uint32_t users; /* under the lock */
  mc_entry *entry;
};

/* One who waits for a claim to end; on its thread's stack. */
struct waiter {
  int event;
  struct waiter *prev, *next;
};

struct slot {
  char key[KEY_SIZE];
  struct known *known; /* or NULL */
  uint64_t token;      /* of the claim; 0: free */
  int64_t expires;     /* the lease's end */
  mc_claim_news *news; /* what the claim's owner told last, or NULL */
  unsigned told;       /* counts what owners told */
  struct waiter *waiters;
  struct slot *prev, *next; /* least recently used first */
  UT_hash_handle hh;
};

struct local {
  mc_coordination base; /* first: callers see no more */
  char member[sizeof(((mc_claim *)0)->owner)];
  int64_t lease_ms;
  uint64_t max_entries;
  pthread_mutex_t lock;
  struct slot *slots, *order;
  uint64_t last_token;
};

static struct local *local_of(mc_coordination *coordination) {
  return (struct local *)coordination;
}

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an entry");
}

static mc_status lost(mc_error *err) {
  return mc_error_set(err, MC_BUSY, ORIGIN, "the claim is not held any more: its lease has run out");
}

/* ---- slots; all with the lock held ---- */

static struct slot *find(struct local *self, const char *key) {
  struct slot *slot;
  HASH_FIND_STR(self->slots, key, slot);
  return slot;
}

static void used(struct local *self, struct slot *slot) {
  DL_DELETE(self->order, slot);
  DL_APPEND(self->order, slot);
}

static bool is_held(const struct slot *slot) {
  return slot && slot->token && clock_ns() < slot->expires;
}

static bool holds(const struct slot *slot, uint64_t token) {
  return slot && token && slot->token == token;
}

static uint64_t revision_of(const struct slot *slot) {
  return slot && slot->known ? slot->known->entry->revision : 0;
}

static void unuse(struct known *known) {
  if (!known || --known->users) return;
  free(known->entry);
  free(known);
}

static void drop(struct local *self, struct slot *slot) {
  HASH_DEL(self->slots, slot);
  DL_DELETE(self->order, slot);
  unuse(slot->known);
  free(slot->news);
  free(slot);
}

static void drop_if_idle(struct local *self, struct slot *slot) {
  if (!slot->known && !slot->token && !slot->waiters) drop(self, slot);
}

/* Those who wait take themselves off the list. */
static void wake(struct slot *slot) {
  struct waiter *waiter;
  uint64_t one = 1;
  DL_FOREACH(slot->waiters, waiter) {
    while (write(waiter->event, &one, sizeof(one)) < 0 && errno == EINTR) continue;
  }
}

static void end_claim(struct slot *slot) {
  slot->token = 0;
  free(slot->news);
  slot->news = NULL;
  wake(slot);
}

static void make_room(struct local *self) {
  struct slot *slot, *next;
  DL_FOREACH_SAFE(self->order, slot, next) {
    if (HASH_COUNT(self->slots) < self->max_entries) return;
    if (!slot->token && !slot->waiters) drop(self, slot); /* an overdue claim is its owner's yet */
  }
}

static struct slot *find_or_add(struct local *self, const char *key) {
  struct slot *slot = find(self, key);
  if (slot) {
    used(self, slot);
    return slot;
  }
  if (self->max_entries) make_room(self);
  slot = calloc(1, sizeof(*slot));
  if (!slot) return NULL;
  memcpy(slot->key, key, KEY_SIZE);
  unsigned before = HASH_COUNT(self->slots);
  HASH_ADD_STR(self->slots, key, slot);
  if (HASH_COUNT(self->slots) == before) {
    free(slot);
    return NULL;
  }
  DL_APPEND(self->order, slot);
  return slot;
}

static mc_status check_key(const char *key, mc_error *err) {
  if (key_is_valid(key)) return MC_OK;
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a key is 64 lower-case hex digits");
}

/* ---- entries ---- */

static mc_status local_lookup(mc_coordination *coordination, const char *key, mc_entry **out, mc_error *err) {
  struct local *self = local_of(coordination);
  mc_entry *copy = NULL;
  mc_status status = check_key(key, err);
  if (status) return status;
  pthread_mutex_lock(&self->lock);
  struct slot *slot = find(self, key);
  bool found = slot && slot->known;
  if (found) {
    copy = entry_copy(slot->known->entry);
    used(self, slot);
  }
  pthread_mutex_unlock(&self->lock);
  if (!found) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "nothing is known of this URL");
  if (!copy) return no_memory(err);
  *out = copy;
  return MC_OK;
}

static mc_status local_publish(mc_coordination *coordination, const char *key, uint64_t token, const mc_entry *entry,
                               mc_error *err) {
  struct local *self = local_of(coordination);
  mc_status status = check_key(key, err);
  if (status) return status;
  struct known *known = malloc(sizeof(*known));
  mc_entry *copy = entry_copy(entry);
  if (!known || !copy) {
    free(known);
    free(copy);
    return no_memory(err);
  }
  *known = (struct known){1, copy};
  pthread_mutex_lock(&self->lock);
  struct slot *slot = find(self, key);
  if (token ? !holds(slot, token) : is_held(slot)) {
    status = token ? lost(err) : mc_error_set(err, MC_BUSY, ORIGIN, "the URL is claimed");
  } else if (!token && revision_of(slot) > entry->revision) {
    status = mc_error_set(err, MC_BUSY, ORIGIN, "a newer entry is known of the URL");
  } else if (!(slot = find_or_add(self, key))) {
    status = no_memory(err);
  } else {
    struct known *before = slot->known;
    slot->known = known;
    known = before;
    end_claim(slot);
  }
  unuse(known);
  pthread_mutex_unlock(&self->lock);
  return status;
}

static mc_status local_forget(mc_coordination *coordination, const char *key, mc_error *err) {
  struct local *self = local_of(coordination);
  mc_status status = check_key(key, err);
  if (status) return status;
  pthread_mutex_lock(&self->lock);
  struct slot *slot = find(self, key);
  bool busy = is_held(slot);
  if (slot && !busy) {
    unuse(slot->known);
    slot->known = NULL;
    end_claim(slot);
    drop_if_idle(self, slot);
  }
  pthread_mutex_unlock(&self->lock);
  return busy ? mc_error_set(err, MC_BUSY, ORIGIN, "the URL is claimed") : MC_OK;
}

static int by_url(const void *a, const void *b) {
  return strcmp((*(struct known *const *)a)->entry->url, (*(struct known *const *)b)->entry->url);
}

static mc_status local_list(mc_coordination *coordination, const char *prefix, const char *after,
                            bool (*visit)(void *user, const mc_entry *entry), void *user, mc_error *err) {
  struct local *self = local_of(coordination);
  size_t length = strlen(prefix), count = 0;
  pthread_mutex_lock(&self->lock);
  struct known **list = calloc(HASH_COUNT(self->slots) + 1, sizeof(*list));
  for (struct slot *slot = self->slots; list && slot; slot = slot->hh.next) {
    if (!slot->known || strncmp(slot->known->entry->url, prefix, length) != 0) continue;
    if (after && strcmp(slot->known->entry->url, after) <= 0) continue;
    slot->known->users++;
    list[count++] = slot->known;
  }
  pthread_mutex_unlock(&self->lock);
  if (!list) return no_memory(err);
  qsort(list, count, sizeof(*list), by_url);
  for (size_t i = 0; i < count && visit(user, list[i]->entry); i++) continue;
  pthread_mutex_lock(&self->lock);
  for (size_t i = 0; i < count; i++) unuse(list[i]);
  pthread_mutex_unlock(&self->lock);
  free(list);
  return MC_OK;
}

/* ---- claims ---- */

static uint64_t next_token(const struct local *self, const struct slot *slot) {
  uint64_t now = (uint64_t)clock_wall_ms() * 1000;
  uint64_t before = self->last_token > revision_of(slot) ? self->last_token : revision_of(slot);
  return now > before ? now : before + 1;
}

static mc_status local_claim(mc_coordination *coordination, const char *key, mc_claim *claim, mc_error *err) {
  struct local *self = local_of(coordination);
  mc_status status = check_key(key, err);
  if (status) return status;
  pthread_mutex_lock(&self->lock);
  struct slot *slot = find_or_add(self, key);
  if (slot) {
    claim->granted = !is_held(slot);
    if (claim->granted) {
      end_claim(slot); /* one that is overdue */
      slot->token = self->last_token = next_token(self, slot);
      slot->expires = deadline_in_ms(self->lease_ms);
    }
    claim->token = slot->token;
    memcpy(claim->owner, self->member, sizeof(claim->owner));
  }
  pthread_mutex_unlock(&self->lock);
  return slot ? MC_OK : no_memory(err);
}

/* Waiters are woken to see it. Without memory they see the next one. */
static void tell(struct slot *slot, const mc_claim_news *news) {
  if (!slot->news) slot->news = malloc(sizeof(*news));
  if (!slot->news) return;
  *slot->news = *news;
  slot->told++;
  wake(slot);
}

static mc_status local_renew(mc_coordination *coordination, const char *key, uint64_t token, const mc_claim_news *news,
                             mc_error *err) {
  struct local *self = local_of(coordination);
  mc_status status = check_key(key, err);
  if (status) return status;
  pthread_mutex_lock(&self->lock);
  struct slot *slot = find(self, key);
  bool held = holds(slot, token);
  if (held) slot->expires = deadline_in_ms(self->lease_ms);
  if (held && news) tell(slot, news);
  pthread_mutex_unlock(&self->lock);
  return held ? MC_OK : lost(err);
}

static void local_abandon(mc_coordination *coordination, const char *key, uint64_t token) {
  struct local *self = local_of(coordination);
  pthread_mutex_lock(&self->lock);
  struct slot *slot = find(self, key);
  if (holds(slot, token)) {
    end_claim(slot);
    drop_if_idle(self, slot);
  }
  pthread_mutex_unlock(&self->lock);
}

/* Hand over what the owner told since `told`; with the lock held, which is let go of meanwhile. */
static void hear(struct local *self, const struct slot *slot, unsigned *told,
                 void (*news)(void *user, const mc_claim_news *news), void *user) {
  if (!slot->news || *told == slot->told) return;
  mc_claim_news copy = *slot->news;
  *told = slot->told;
  pthread_mutex_unlock(&self->lock);
  if (news) news(user, &copy);
  pthread_mutex_lock(&self->lock);
}

static mc_status local_wait(mc_coordination *coordination, const char *key, uint64_t token,
                            void (*news)(void *user, const mc_claim_news *news), void *user, const mc_call *call,
                            mc_error *err) {
  struct local *self = local_of(coordination);
  mc_status status = check_key(key, err);
  if (status) return status;
  struct waiter waiter = {.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (waiter.event < 0) return mc_error_errno(err, errno, ORIGIN, "can't wait for a claim: no eventfd");
  struct pollfd fds[] = {{.fd = waiter.event, .events = POLLIN}, {.fd = mc_cancel_fd(call->cancel), .events = POLLIN}};
  pthread_mutex_lock(&self->lock);
  struct slot *slot = find(self, key);
  unsigned told = slot ? slot->told - 1 : 0;
  if (slot) DL_APPEND(slot->waiters, &waiter); /* from now on the slot stays */
  while (holds(slot, token) && is_held(slot)) {
    uint64_t count;
    while (read(waiter.event, &count, sizeof(count)) < 0 && errno == EINTR)
      continue; /* what it says is looked at now */
    hear(self, slot, &told, news, user);
    if (!holds(slot, token)) break;
    int64_t until = deadline_earlier(slot->expires, call->deadline);
    pthread_mutex_unlock(&self->lock);
    status = mc_call_check(call, err);
    if (!status) poll(fds, 2, deadline_poll_ms(until));
    pthread_mutex_lock(&self->lock);
    if (status) break;
  }
  if (slot) {
    DL_DELETE(slot->waiters, &waiter);
    drop_if_idle(self, slot);
  }
  pthread_mutex_unlock(&self->lock);
  close(waiter.event);
  return status;
}

/* ---- opening ---- */

static mc_status local_open(mc_coordination **out, const mc_coordination_config *config, mc_error *err);

static void local_close(mc_coordination *coordination) {
  struct local *self = local_of(coordination);
  struct slot *slot, *next;
  DL_FOREACH_SAFE(self->order, slot, next) {
    drop(self, slot);
  }
  pthread_mutex_destroy(&self->lock);
  free(self);
}

extern const mc_coordination_ops local_coordination_ops;
const mc_coordination_ops local_coordination_ops = {
    .abi = MC_COORDINATION_ABI,
    .name = "local",
    .open = local_open,
    .close = local_close,
    .lookup = local_lookup,
    .claim = local_claim,
    .renew = local_renew,
    .publish = local_publish,
    .abandon = local_abandon,
    .wait = local_wait,
    .forget = local_forget,
    .list = local_list,
};

static mc_status local_open(mc_coordination **out, const mc_coordination_config *config, mc_error *err) {
  struct local *self = calloc(1, sizeof(*self));
  if (!self) return no_memory(err);
  if (!config->member_id || !*config->member_id || strlen(config->member_id) >= sizeof(self->member) ||
      config->lease_ms <= 0) {
    free(self);
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a member's id has 1 to %zu bytes, and a lease a length",
                        sizeof(self->member) - 1);
  }
  self->base.ops = &local_coordination_ops;
  strcpy(self->member, config->member_id);
  self->lease_ms = config->lease_ms;
  self->max_entries = config->max_entries;
  pthread_mutex_init(&self->lock, NULL);
  *out = &self->base;
  return MC_OK;
}
