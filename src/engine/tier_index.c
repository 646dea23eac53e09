#include "engine/tier_index.h"

#include <stdlib.h>

#include "base/clock.h"

struct slot *index_find(struct tier *tier, const mc_digest *digest) {
  struct slot *slot;
  HASH_FIND(hh, tier->slots, digest, sizeof(*digest), slot);
  return slot;
}

void index_settle(struct tier *tier, struct slot *slot) {
  bool idle = !slot->gone && slot->readers == 0 && slot->pins <= 0;
  if (idle == slot->idle) return;
  slot->idle = idle;
  if (idle) {
    DL_APPEND(tier->idle, slot);
    tier->idle_bytes += slot->object.size;
  } else {
    DL_DELETE(tier->idle, slot);
    tier->idle_bytes -= slot->object.size;
  }
}

void index_place(struct tier *tier, struct slot *slot) {
  DL_DELETE(tier->idle, slot);
  struct slot *at = tier->idle ? tier->idle->prev : NULL; /* the last one */
  while (at && at->used_at > slot->used_at) at = at == tier->idle ? NULL : at->prev;
  if (at) {
    DL_APPEND_ELEM(tier->idle, at, slot);
  } else {
    DL_PREPEND(tier->idle, slot);
  }
}

struct reference *index_reference(struct tier *tier, const mc_digest *digest) {
  struct reference *reference;
  HASH_FIND(hh, tier->references, digest, sizeof(*digest), reference);
  return reference;
}

/* NULL: no memory. */
static struct reference *add_reference(struct tier *tier, const mc_digest *digest) {
  struct reference *reference = calloc(1, sizeof(*reference));
  if (!reference) return NULL;
  reference->digest = *digest;
  unsigned before = HASH_COUNT(tier->references);
  HASH_ADD(hh, tier->references, digest, sizeof(*digest), reference);
  if (HASH_COUNT(tier->references) > before) return reference;
  free(reference);
  return NULL;
}

void index_refer(struct tier *tier, const mc_digest *digest, int references, int pins) {
  struct slot *slot = index_find(tier, digest);
  struct reference *known = index_reference(tier, digest);
  if (!known) known = add_reference(tier, digest);
  if (known) {
    known->references += references;
    known->pins += pins;
    if (!known->references && !known->pins) {
      HASH_DEL(tier->references, known);
      free(known);
    }
  }
  if (!slot) return;
  if (references > 0) slot->doomed = false; /* it was removed while it had readers, and is needed again */
  slot->references += references;
  slot->pins += pins;
  index_settle(tier, slot);
}

struct slot *index_insert(struct tier *tier, const mc_digest *digest, uint64_t size, int64_t used_at) {
  struct slot *slot = calloc(1, sizeof(*slot));
  if (!slot) return NULL;
  slot->object = (struct object){.digest = *digest, .size = size, .fd = -1, .tier = tier};
  slot->used_at = used_at;
  slot->seen = tier->rescans;
  const struct reference *known = index_reference(tier, digest);
  if (known) {
    slot->references = known->references;
    slot->pins = known->pins;
  }
  unsigned before = HASH_COUNT(tier->slots);
  HASH_ADD(hh, tier->slots, object.digest, sizeof(*digest), slot);
  if (HASH_COUNT(tier->slots) == before) {
    free(slot);
    return NULL;
  }
  tier->bytes += size;
  index_settle(tier, slot);
  return slot;
}

void index_drop(struct tier *tier, struct slot *slot) {
  HASH_DEL(tier->slots, slot);
  tier->bytes -= slot->object.size;
  slot->gone = true;
  index_settle(tier, slot);
  if (slot->readers == 0) free(slot);
}

bool change_runs(const struct tier *tier, const mc_digest *digest) {
  const struct change *change;
  LL_FOREACH(tier->changes, change) {
    if (mc_digest_equal(&change->digest, digest)) return true;
  }
  return false;
}

void change_begin(struct tier *tier, struct change *change, const mc_digest *digest) {
  while (change_runs(tier, digest)) pthread_cond_wait(&tier->changed, &tier->lock);
  *change = (struct change){.digest = *digest};
  LL_PREPEND(tier->changes, change);
}

void change_end(struct tier *tier, struct change *change) {
  LL_DELETE(tier->changes, change);
  pthread_cond_broadcast(&tier->changed);
}

mc_status index_remove(struct tier *tier, struct slot *slot, mc_error *err) {
  struct change change;
  change_begin(tier, &change, &slot->object.digest);
  index_drop(tier, slot);
  tier->removals++;
  pthread_mutex_unlock(&tier->lock);
  mc_status status = tier->storage->ops->remove_object(tier->storage, &change.digest, err);
  pthread_mutex_lock(&tier->lock);
  change_end(tier, &change);
  return status;
}
