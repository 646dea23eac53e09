/* local: coordination within one process. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/hash.h"
#include <modelcache/backend/coordination.h>

#define ORIGIN "local"

/* One who waits for a claim to end; on the stack of its thread. */
struct waiter {
  int event;
  struct waiter *prev, *next;
};

/* A place for a key: its entry, its claim, or both. */
struct place {
  char key[KEY_SIZE];
  mc_entry *entry;
  uint64_t token;  /* of the claim; 0: free */
  int64_t expires; /* of the lease */
  struct waiter *waiters;
  struct place *prev, *next; /* least recently used first */
  UT_hash_handle hh;
};

struct local {
  mc_coordination base;
  char member[64];
  int64_t lease_ms;
  uint64_t most;
  pthread_mutex_t lock;
  struct place *places, *order;
  uint64_t last_token;
};

static struct local *local_of(mc_coordination *coordination) {
  return (struct local *)coordination;
}

static mc_entry *copy_entry(const mc_entry *entry) {
  size_t length = strlen(entry->url) + 1;
  mc_entry *copy = malloc(sizeof(*copy) + length);
  if (!copy) return NULL;
  *copy = *entry;
  copy->url = memcpy((char *)(copy + 1), entry->url, length);
  return copy;
}

/* ---- places; with the lock held ---- */

static struct place *find(struct local *self, const char *key) {
  struct place *place;
  HASH_FIND_STR(self->places, key, place);
  return place;
}

static void drop(struct local *self, struct place *place) {
  HASH_DEL(self->places, place);
  DL_DELETE(self->order, place);
  free(place->entry);
  free(place);
}

static void wake(struct place *place) {
  struct waiter *waiter;
  uint64_t one = 1;
  DL_FOREACH(place->waiters, waiter) {
    while (write(waiter->event, &one, sizeof(one)) < 0 && errno == EINTR) continue;
  }
}

static void end_claim(struct local *self, struct place *place) {
  place->token = 0;
  wake(place);
  if (!place->entry && !place->waiters) drop(self, place);
}

/* Whether the claim stands: a lease that has run out is as good as given back. */
static bool claimed(struct place *place) {
  return place && place->token && clock_ns() < place->expires;
}

static void make_room(struct local *self) {
  struct place *place, *next;
  DL_FOREACH_SAFE(self->order, place, next) {
    if (HASH_COUNT(self->places) < self->most) return;
    if (!place->token && !place->waiters) drop(self, place);
  }
}

static struct place *find_or_add(struct local *self, const char *key) {
  struct place *place = find(self, key);
  if (place) {
    DL_DELETE(self->order, place);
    DL_APPEND(self->order, place);
    return place;
  }
  if (self->most && HASH_COUNT(self->places) >= self->most) make_room(self);
  place = calloc(1, sizeof(*place));
  if (!place) return NULL;
  snprintf(place->key, sizeof(place->key), "%s", key);
  unsigned before = HASH_COUNT(self->places);
  HASH_ADD_STR(self->places, key, place);
  if (HASH_COUNT(self->places) == before) {
    free(place);
    return NULL;
  }
  DL_APPEND(self->order, place);
  return place;
}

/* ---- ops ---- */

static void local_close(mc_coordination *coordination) {
  struct local *self = local_of(coordination);
  struct place *place, *next;
  HASH_ITER(hh, self->places, place, next) {
    drop(self, place);
  }
  pthread_mutex_destroy(&self->lock);
  free(self);
}

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
}

static mc_status local_lookup(mc_coordination *coordination, const char *key, mc_entry **out, mc_error *err) {
  struct local *self = local_of(coordination);
  pthread_mutex_lock(&self->lock);
  struct place *place = find(self, key);
  bool known = place && place->entry;
  mc_entry *copy = known ? copy_entry(place->entry) : NULL;
  if (known) {
    DL_DELETE(self->order, place);
    DL_APPEND(self->order, place);
  }
  pthread_mutex_unlock(&self->lock);
  if (!known) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "nothing is known of this URL");
  if (!copy) return no_memory(err);
  *out = copy;
  return MC_OK;
}

static mc_status local_claim(mc_coordination *coordination, const char *key, mc_claim *claim, mc_error *err) {
  struct local *self = local_of(coordination);
  pthread_mutex_lock(&self->lock);
  struct place *place = find_or_add(self, key);
  if (place) {
    claim->granted = !claimed(place);
    if (claim->granted) {
      place->token = ++self->last_token;
      place->expires = deadline_in_ms(self->lease_ms);
    }
    claim->token = place->token;
    memcpy(claim->owner, self->member, sizeof(claim->owner));
  }
  pthread_mutex_unlock(&self->lock);
  return place ? MC_OK : no_memory(err);
}

static mc_status lost(mc_error *err) {
  return mc_error_set(err, MC_BUSY, ORIGIN, "the claim has been lost to another");
}

static mc_status local_renew(mc_coordination *coordination, const char *key, uint64_t token, mc_error *err) {
  struct local *self = local_of(coordination);
  pthread_mutex_lock(&self->lock);
  struct place *place = find(self, key);
  bool ours = place && token && place->token == token;
  if (ours) place->expires = deadline_in_ms(self->lease_ms);
  pthread_mutex_unlock(&self->lock);
  return ours ? MC_OK : lost(err);
}

static mc_status local_publish(mc_coordination *coordination, const char *key, uint64_t token, const mc_entry *entry,
                               mc_error *err) {
  struct local *self = local_of(coordination);
  mc_entry *copy = copy_entry(entry);
  if (!copy) return no_memory(err);
  mc_status status = MC_OK;
  pthread_mutex_lock(&self->lock);
  struct place *place = token ? find(self, key) : find_or_add(self, key);
  if (!place && !token) {
    status = no_memory(err);
  } else if (token ? !place || place->token != token : claimed(place)) {
    status = lost(err);
  } else {
    free(place->entry);
    place->entry = copy;
    copy = NULL;
    if (token) end_claim(self, place);
  }
  pthread_mutex_unlock(&self->lock);
  free(copy);
  return status;
}

static void local_abandon(mc_coordination *coordination, const char *key, uint64_t token) {
  struct local *self = local_of(coordination);
  pthread_mutex_lock(&self->lock);
  struct place *place = find(self, key);
  if (place && token && place->token == token) end_claim(self, place);
  pthread_mutex_unlock(&self->lock);
}

static mc_status local_wait(mc_coordination *coordination, const char *key, uint64_t token, const mc_call *call,
                            mc_error *err) {
  struct local *self = local_of(coordination);
  struct waiter waiter = {.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (waiter.event < 0) return mc_error_errno(err, errno, ORIGIN, "can't make an eventfd");
  mc_status status = MC_OK;
  pthread_mutex_lock(&self->lock);
  struct place *place = find(self, key);
  bool waits = claimed(place) && place->token == token;
  if (waits) DL_APPEND(place->waiters, &waiter);
  while (waits) {
    int64_t until = deadline_earlier(place->expires, call->deadline);
    pthread_mutex_unlock(&self->lock);
    struct pollfd fds[2] = {{.fd = waiter.event, .events = POLLIN},
                            {.fd = mc_cancel_fd(call->cancel), .events = POLLIN}};
    poll(fds, 2, deadline_poll_ms(until));
    status = mc_call_check(call, err);
    pthread_mutex_lock(&self->lock);
    waits = !status && claimed(place) && place->token == token; /* a place with waiters is not dropped */
  }
  if (place && waiter.prev) {
    DL_DELETE(place->waiters, &waiter);
    if (!place->entry && !place->token && !place->waiters) drop(self, place);
  }
  pthread_mutex_unlock(&self->lock);
  close(waiter.event);
  return status;
}

static mc_status local_forget(mc_coordination *coordination, const char *key, mc_error *err) {
  struct local *self = local_of(coordination);
  pthread_mutex_lock(&self->lock);
  struct place *place = find(self, key);
  bool busy = claimed(place);
  if (place && !busy) {
    free(place->entry);
    place->entry = NULL;
    if (!place->waiters) drop(self, place);
  }
  pthread_mutex_unlock(&self->lock);
  return busy ? mc_error_set(err, MC_BUSY, ORIGIN, "the URL is claimed") : MC_OK;
}

static mc_status local_list(mc_coordination *coordination, const char *prefix,
                            bool (*visit)(void *user, const mc_entry *entry), void *user, mc_error *err) {
  struct local *self = local_of(coordination);
  (void)err;
  size_t length = strlen(prefix);
  pthread_mutex_lock(&self->lock);
  for (struct place *place = self->places; place; place = place->hh.next) {
    if (place->entry && strncmp(place->entry->url, prefix, length) == 0 && !visit(user, place->entry)) break;
  }
  pthread_mutex_unlock(&self->lock);
  return MC_OK;
}

static mc_status local_open(mc_coordination **out, const mc_coordination_config *config, mc_error *err);

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
  self->base.ops = &local_coordination_ops;
  self->lease_ms = config->lease_ms;
  self->most = config->max_entries;
  snprintf(self->member, sizeof(self->member), "%s", config->member_id ? config->member_id : "");
  pthread_mutex_init(&self->lock, NULL);
  *out = &self->base;
  return MC_OK;
}
