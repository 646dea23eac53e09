/* A tier's budget and time: what may stay, and what goes first. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/tier_index.h"

#define UNREFERRED_TTL_MS ((int64_t)10 * 60 * 1000) /* at least */
#define SWEEP_MOST        4096                      /* objects evicted by one sweep for their age */

static uint64_t share(uint64_t capacity, uint32_t percent) {
  return capacity / 100 * percent + capacity % 100 * percent / 100;
}

/* With the lock held: the next object that may go, or NULL. */
static struct slot *victim(struct tier *tier) {
  struct slot *slot;
  if (tier->ignorant) return NULL; /* any may be pinned */
  DL_FOREACH(tier->idle, slot) {
    if (!change_runs(tier, &slot->object.digest)) return slot;
  }
  return NULL;
}

enum fate { FATE_GOES, FATE_STAYS, FATE_GONE };

/* What becomes of a victim in a storage that others use, too: one of them may have used it since, or have removed it.
 * With the lock held, which is let go of meanwhile. */
static enum fate judge(struct tier *tier, struct slot *slot) {
  struct change change;
  mc_stored stored;
  if (!tier->shared) return FATE_GOES;
  change_begin(tier, &change, &slot->object.digest); /* nobody opens or removes it meanwhile */
  pthread_mutex_unlock(&tier->lock);
  mc_status status = storage_look(tier->storage, &change.digest, &stored, NULL);
  pthread_mutex_lock(&tier->lock);
  change_end(tier, &change);
  if (status == MC_NOT_FOUND) {
    index_drop(tier, slot);
    return FATE_GONE;
  }
  if (!slot->idle) return FATE_STAYS; /* pinned meanwhile */
  if (status || stored.used_at <= slot->used_at) return FATE_GOES;
  slot->used_at = stored.used_at;
  index_place(tier, slot);
  return FATE_STAYS;
}

/* Remove a victim that goes. With the lock held, which is let go of meanwhile. */
static void evict(struct tier *tier, struct slot *slot) {
  uint64_t size = slot->object.size;
  mc_error err = MC_ERROR_INIT;
  if (index_remove(tier, slot, &err)) log_warn(tier->config.logger, ORIGIN, "can't evict an object: %s", err.message);
  if (!tier->config.evicted) return;
  pthread_mutex_unlock(&tier->lock);
  tier->config.evicted(tier->config.user, 1, size);
  pthread_mutex_lock(&tier->lock);
}

/* The same for one that may yet stay. Returns the bytes that are free now. What was found to be used later than it was
 * thought gets its place in the order now that it shows. */
static uint64_t evict_or_spare(struct tier *tier, struct slot *slot) {
  uint64_t size = slot->object.size;
  if (tier->shared && slot->next && slot->used_at > slot->next->used_at) {
    index_place(tier, slot);
    return 0;
  }
  enum fate fate = judge(tier, slot);
  if (fate == FATE_GOES) evict(tier, slot);
  return fate == FATE_STAYS ? 0 : size;
}

/* With the lock held: evict until `bytes` more fit below `percent` of the capacity. */
static bool make_room(struct tier *tier, uint64_t bytes, uint32_t percent) {
  uint64_t limit = share(tier->config.capacity, percent);
  while (tier->bytes + tier->reserved + bytes > limit) {
    struct slot *slot = victim(tier);
    if (!slot) return false;
    evict_or_spare(tier, slot);
  }
  return true;
}

mc_status tier_reserve(struct tier *tier, uint64_t bytes, mc_error *err) {
  mc_status status = MC_OK;
  uint64_t capacity = tier->config.capacity;
  pthread_mutex_lock(&tier->lock);
  if (capacity) {
    /* Nothing is evicted for what can't fit even so. */
    bool fits = bytes <= capacity && tier->bytes - tier->idle_bytes + tier->reserved <= capacity - bytes;
    if (fits && tier->bytes + tier->reserved + bytes > share(capacity, tier->config.high)) {
      make_room(tier, bytes, tier->config.low); /* as far as it goes */
    }
    fits = fits && make_room(tier, bytes, 100);
    if (!fits) {
      status = mc_error_set(err, MC_NO_SPACE, ORIGIN,
                            "%llu bytes do not fit: the capacity is %llu, of which %llu are in use, pinned or being "
                            "downloaded; %s",
                            (unsigned long long)bytes, (unsigned long long)capacity,
                            (unsigned long long)(tier->bytes - tier->idle_bytes + tier->reserved),
                            tier->ignorant ? "what may be evicted is not known yet: try again in a while"
                                           : "raise storage_capacity, or evict something");
    }
  }
  if (!status) tier->reserved += bytes;
  pthread_mutex_unlock(&tier->lock);
  return status;
}

size_t tier_victims(struct tier *tier, uint64_t bytes, mc_digest *victims, size_t most) {
  size_t count = 0;
  struct slot *slot;
  uint64_t capacity = tier->config.capacity;
  pthread_mutex_lock(&tier->lock);
  uint64_t used = tier->bytes + tier->reserved + bytes, limit = share(capacity, tier->config.low);
  if (!capacity || used <= share(capacity, tier->config.high)) limit = used;
  DL_FOREACH(tier->idle, slot) {
    if (count == most || used <= limit) break;
    victims[count++] = slot->object.digest;
    used -= slot->object.size;
  }
  pthread_mutex_unlock(&tier->lock);
  return count;
}

void tier_unreserve(struct tier *tier, uint64_t bytes) {
  pthread_mutex_lock(&tier->lock);
  tier->reserved -= bytes;
  pthread_mutex_unlock(&tier->lock);
}

bool tier_evict(struct tier *tier, uint64_t bytes) {
  bool any = false;
  struct slot *slot;
  uint64_t free_now = 0;
  const mc_storage_ops *ops = tier->storage->ops;
  if (!ops->free_bytes || ops->free_bytes(tier->storage, &free_now, NULL)) return false;
  pthread_mutex_lock(&tier->lock);
  bool fits = free_now + tier->idle_bytes >= bytes; /* else all would go for nothing */
  bytes -= fits && free_now < bytes ? free_now : 0;
  while (fits && bytes && (slot = victim(tier))) {
    uint64_t freed = evict_or_spare(tier, slot);
    bytes -= freed < bytes ? freed : bytes;
    any = any || freed;
  }
  pthread_mutex_unlock(&tier->lock);
  return any;
}

/* ---- time ---- */

static bool overdue(const struct tier *tier, const struct slot *slot, int64_t now) {
  int64_t age = now - slot->used_at;
  if (tier->config.ttl_ms > 0 && age > tier->config.ttl_ms) return true;
  int64_t keep_ms = tier->config.keep_ms > UNREFERRED_TTL_MS ? tier->config.keep_ms : UNREFERRED_TTL_MS;
  return !tier->config.copies && !tier->doubted && slot->references <= 0 && age > keep_ms;
}

/* In one pass over the idle objects, as each eviction lets go of the lock: which are overdue, then one by one. */
static void evict_overdue(struct tier *tier, int64_t now) {
  struct slot *slot;
  size_t count = 0;
  mc_digest *list = NULL;
  if (tier->ignorant) return;
  DL_FOREACH(tier->idle, slot) {
    if (count == SWEEP_MOST) break;
    if (!overdue(tier, slot, now)) continue;
    if (!list) list = malloc(SWEEP_MOST * sizeof(*list));
    if (!list) return;
    list[count++] = slot->object.digest;
  }
  for (size_t i = 0; i < count; i++) {
    slot = index_find(tier, &list[i]);
    if (!slot || !slot->idle || !overdue(tier, slot, now) || change_runs(tier, &list[i])) continue;
    if (judge(tier, slot) == FATE_GOES && overdue(tier, slot, now)) evict(tier, slot);
  }
  free(list);
}

void tier_sweep(struct tier *tier) {
  pthread_mutex_lock(&tier->lock);
  evict_overdue(tier, clock_wall_ms());
  uint64_t capacity = tier->config.capacity;
  if (capacity && tier->bytes + tier->reserved > share(capacity, tier->config.high)) {
    make_room(tier, 0, tier->config.low);
  }
  pthread_mutex_unlock(&tier->lock);
}

void tier_usage(struct tier *tier, struct tier_usage *usage) {
  pthread_mutex_lock(&tier->lock);
  *usage = (struct tier_usage){HASH_COUNT(tier->slots), tier->bytes, tier->reserved, tier->config.capacity, tier->open};
  pthread_mutex_unlock(&tier->lock);
}
