#include "engine/tier.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "engine/tier_index.h"

#define META_MAX ((size_t)256 << 20)

static struct slot *slot_of(struct object *object) {
  return (struct slot *)object; /* its first member */
}

static bool load_slot(void *user, const mc_stored *stored) {
  struct tier *tier = user;
  if (!index_find(tier, &stored->digest)) index_insert(tier, &stored->digest, stored->size, stored->used_at);
  return true;
}

static int by_use(const struct slot *a, const struct slot *b) {
  return (a->used_at > b->used_at) - (a->used_at < b->used_at);
}

struct tier *tier_acquire(struct tier *tier) {
  pthread_mutex_lock(&tier->lock);
  tier->users++;
  pthread_mutex_unlock(&tier->lock);
  return tier;
}

void tier_release(struct tier *tier) {
  if (!tier) return;
  pthread_mutex_lock(&tier->lock);
  bool last = --tier->users == 0;
  pthread_mutex_unlock(&tier->lock);
  if (!last) return;
  struct slot *slot, *next;
  HASH_ITER(hh, tier->slots, slot, next) {
    HASH_DEL(tier->slots, slot);
    free(slot);
  }
  struct reference *reference, *other;
  HASH_ITER(hh, tier->references, reference, other) {
    HASH_DEL(tier->references, reference);
    free(reference);
  }
  if (tier->storage) tier->storage->ops->close(tier->storage);
  pthread_mutex_destroy(&tier->lock);
  pthread_cond_destroy(&tier->changed);
  free(tier);
}

mc_status tier_new(struct tier **out, mc_storage *storage, const struct tier_config *config, mc_error *err) {
  struct tier *tier = calloc(1, sizeof(*tier));
  if (!tier) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a tier");
  tier->config = *config;
  tier->users = 1;
  pthread_mutex_init(&tier->lock, NULL);
  cond_init(&tier->changed);
  mc_status status = storage->ops->scan(storage, load_slot, tier, err);
  if (status) {
    tier_release(tier);
    return status;
  }
  DL_SORT(tier->idle, by_use);
  tier->storage = storage;
  *out = tier;
  return MC_OK;
}

void tier_close(struct tier *tier) {
  if (!tier) return;
  pthread_mutex_lock(&tier->lock);
  tier->config.evicted = NULL; /* who counted, and who logged, may be gone before the last reader is */
  tier->config.logger = NULL;
  pthread_mutex_unlock(&tier->lock);
  tier_release(tier);
}

mc_storage *tier_storage(struct tier *tier) {
  return tier->storage;
}

uint64_t tier_capacity(const struct tier *tier) {
  return tier->config.capacity;
}

/* ---- opening ---- */

/* What is found of an object in the storage. */
struct found {
  int fd;
  uint64_t size;
  mc_chunk_table *table;
};

static void found_free(struct found *found) {
  if (found->fd >= 0) close(found->fd);
  free(found->table);
}

/* Open what the storage has of a digest, with its table: I/O, without the lock. */
static mc_status open_stored(struct found *found, struct tier *tier, const mc_digest *digest, mc_error *err) {
  void *meta = NULL;
  size_t meta_size = 0;
  *found = (struct found){.fd = -1};
  mc_status status = tier->storage->ops->open_object(tier->storage, digest, &found->fd, &found->size, err);
  if (status) {
    found->fd = -1;
    return status;
  }
  status = tier->storage->ops->read_meta(tier->storage, digest, &meta, &meta_size, META_MAX, err);
  if (!status) status = chunk_table_decode(&found->table, digest, meta, meta_size, err);
  free(meta);
  if (!status && found->table->size != found->size) {
    status = mc_error_set(err, MC_CORRUPT, ORIGIN, "a stored object has another size than its chunk table");
  }
  if (status) {
    found_free(found);
    *found = (struct found){.fd = -1};
  }
  return status;
}

/* With the lock held: one more reader. The first one brings what was found, which is the slot's then. */
static void use(struct tier *tier, struct slot *slot, struct found *found) {
  if (slot->readers++ == 0) {
    slot->object.fd = found->fd;
    slot->object.table = found->table;
    *found = (struct found){.fd = -1};
    tier->open++;
    tier->users++;
  }
  slot->used_at = clock_wall_ms();
  index_settle(tier, slot);
}

/* With the lock held, which is let go of meanwhile: open what the storage has, and make it the slot's. NULL *out and
 * MC_OK: it was removed meanwhile, look again. */
static mc_status open_slot_stored(struct slot **out, struct tier *tier, const mc_digest *digest, mc_error *err) {
  struct found found;
  uint64_t removals = tier->removals;
  pthread_mutex_unlock(&tier->lock);
  mc_status status = open_stored(&found, tier, digest, err);
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = index_find(tier, digest);
  if (status) {
    /* It has gone, or lost its table: nothing that can be used. Anything else, such as a want of descriptors, passes,
     * and what is still stored must still be counted. */
    bool lost = status == MC_NOT_FOUND || status == MC_CORRUPT;
    if (lost && slot && !slot->readers && !change_runs(tier, digest)) index_drop(tier, slot);
    return status == MC_CORRUPT ? mc_error_set(err, MC_NOT_FOUND, ORIGIN, "a stored object lost its chunk table")
                                : status;
  }
  if (!slot && tier->removals == removals) { /* another process put it there, and has an entry that refers to it */
    slot = index_insert(tier, digest, found.size, clock_wall_ms());
    if (slot && slot->references <= 0 && !tier->shared) slot->references = 1; /* else its entry is told of */
    if (!slot) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an object");
  }
  if (slot) use(tier, slot, &found);
  *out = slot;
  pthread_mutex_unlock(&tier->lock);
  found_free(&found);
  pthread_mutex_lock(&tier->lock);
  return status;
}

/* The slot of a digest, open and with one more reader. */
static mc_status open_slot(struct slot **out, struct tier *tier, const mc_digest *digest, bool may_block,
                           mc_error *err) {
  mc_status status = MC_OK;
  struct found none = {.fd = -1};
  *out = NULL;
  pthread_mutex_lock(&tier->lock);
  while (!*out && !status) {
    struct slot *slot = index_find(tier, digest);
    if (slot && slot->readers && !slot->doomed) {
      use(tier, slot, &none);
      *out = slot;
    } else if (!change_runs(tier, digest)) {
      status = open_slot_stored(out, tier, digest, err);
    } else if (may_block) {
      pthread_cond_wait(&tier->changed, &tier->lock);
    } else {
      status = mc_error_set(err, MC_BUSY, ORIGIN, "the object is being put in place or removed");
    }
  }
  pthread_mutex_unlock(&tier->lock);
  return status;
}

/* Check an open object against its table. */
static mc_status verify_slot(struct tier *tier, struct slot *slot, const struct stamp *stamp, const mc_call *call,
                             mc_error *err) {
  mc_status status = verify_chunks(slot->object.fd, slot->object.table, 0, slot->object.table->count, call, err);
  pthread_mutex_lock(&tier->lock);
  if (!status) {
    slot->is_verified = stamp != NULL;
    if (stamp) slot->verified = *stamp;
    slot->damaged = false;
  } else if ((status == MC_CORRUPT || status == MC_NOT_FOUND) && !slot->gone) {
    index_drop(tier, slot); /* it has a reader: us */
  }
  pthread_mutex_unlock(&tier->lock);
  return status;
}

mc_status tier_open(struct object **out, struct tier *tier, const mc_digest *digest, bool verify, const mc_call *call,
                    mc_error *err) {
  struct slot *slot = NULL;
  mc_status status = open_slot(&slot, tier, digest, call != NULL, err);
  if (status) return status;
  struct stamp now;
  bool stamped = stamp_of(&now, slot->object.fd); /* before it's verified: a later write makes another one */
  pthread_mutex_lock(&tier->lock);
  bool wanted = slot->damaged || (verify && !(slot->is_verified && stamped && stamp_same(&now, &slot->verified)));
  pthread_mutex_unlock(&tier->lock);
  if (wanted && !call) status = mc_error_set(err, MC_BUSY, ORIGIN, "the object must be verified first");
  if (wanted && !status) status = verify_slot(tier, slot, stamped ? &now : NULL, call, err);
  if (status) {
    object_release(&slot->object);
    return status;
  }
  if (tier->storage->ops->touch) tier->storage->ops->touch(tier->storage, digest);
  *out = &slot->object;
  return MC_OK;
}

void tier_vouch(struct tier *tier, const mc_digest *digest) {
  struct object *object;
  struct stamp now;
  if (tier_open(&object, tier, digest, false, NULL, NULL)) return;
  bool stamped = stamp_of(&now, object->fd);
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = slot_of(object);
  if (stamped && !slot->is_verified && !slot->damaged) {
    slot->is_verified = true;
    slot->verified = now;
  }
  pthread_mutex_unlock(&tier->lock);
  object_release(object);
}

struct object *object_acquire(struct object *object) {
  pthread_mutex_lock(&object->tier->lock);
  slot_of(object)->readers++;
  pthread_mutex_unlock(&object->tier->lock);
  return object;
}

/* With the lock held: the last reader has gone. */
static void retire(struct tier *tier, struct slot *slot) {
  tier->open--;
  slot->used_at = clock_wall_ms();
  if (slot->gone) {
    free(slot);
  } else if (slot->doomed && change_runs(tier, &slot->object.digest)) {
    slot->doomed = false; /* it is being committed again */
    index_settle(tier, slot);
  } else if (slot->doomed) {
    index_remove(tier, slot, NULL);
  } else {
    index_settle(tier, slot);
  }
}

void object_release(struct object *object) {
  struct slot *slot = slot_of(object);
  struct tier *tier = object->tier;
  struct found held = {.fd = -1};
  pthread_mutex_lock(&tier->lock);
  bool last = --slot->readers == 0;
  if (last) {
    held = (struct found){.fd = object->fd, .table = object->table};
    object->fd = -1;
    object->table = NULL;
    retire(tier, slot);
  }
  pthread_mutex_unlock(&tier->lock);
  if (!last) return;
  found_free(&held);
  tier_release(tier);
}

bool object_is_doomed(struct object *object) {
  pthread_mutex_lock(&object->tier->lock);
  bool doomed = slot_of(object)->doomed || slot_of(object)->gone;
  pthread_mutex_unlock(&object->tier->lock);
  return doomed;
}

bool object_path(struct object *object, char *path, size_t size) {
  mc_storage *storage = object->tier->storage;
  return storage->ops->object_path && storage->ops->object_path(storage, &object->digest, path, size);
}

mc_status object_check(struct object *object, uint64_t offset, mc_error *err) {
  if (offset >= object->size) return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "no chunk at that offset");
  mc_status status = verify_chunks(object->fd, object->table, (uint32_t)(offset / MC_CHUNK_SIZE), 1, NULL, err);
  struct slot *slot = slot_of(object);
  pthread_mutex_lock(&object->tier->lock);
  if (status == MC_CORRUPT) slot->damaged = true;
  if (status == MC_NOT_FOUND && !slot->gone)
    index_drop(object->tier, slot); /* who comes next opens what is there now */
  pthread_mutex_unlock(&object->tier->lock);
  return status;
}

bool object_got_again(struct object *object, int64_t within_ms) {
  struct slot *slot = slot_of(object);
  int64_t now = clock_wall_ms();
  pthread_mutex_lock(&object->tier->lock);
  bool again = slot->got_at && (within_ms <= 0 || now - slot->got_at <= within_ms);
  slot->got_at = now;
  pthread_mutex_unlock(&object->tier->lock);
  return again;
}

/* ---- changing what the storage has ---- */

/* A stage has become the object, and was opened again. With the lock held. */
static struct slot *arrive(struct tier *tier, const mc_digest *digest, struct found *found, const struct stamp *stamp) {
  struct slot *slot = index_find(tier, digest);
  if (slot &&
      slot->readers) { /* they keep their file: whether it is still as good, or was ever verified, is not known */
    index_drop(tier, slot);
    slot = NULL;
  }
  if (!slot) slot = index_insert(tier, digest, found->size, clock_wall_ms());
  if (!slot) return NULL;
  slot->doomed = slot->damaged = false;
  slot->is_verified = stamp != NULL;
  if (stamp) slot->verified = *stamp;
  use(tier, slot, found);
  return slot;
}

static mc_status commit_stage(struct tier *tier, mc_stage *stage, const mc_chunk_table *table, const mc_digest *digest,
                              mc_error *err) {
  size_t size = chunk_table_encoded_size(table);
  void *meta = malloc(size);
  if (!meta) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a chunk table");
  chunk_table_encode(table, digest, meta);
  mc_status status = tier->storage->ops->stage_commit(stage, digest, meta, size, err);
  free(meta);
  return status;
}

mc_status tier_commit(struct object **out, struct tier *tier, mc_stage **stage, const mc_chunk_table *table,
                      const mc_digest *digest, mc_error *err) {
  struct change change;
  struct found found = {.fd = -1};
  struct stamp stamp;
  bool stamped = false;
  struct slot *slot = NULL;
  pthread_mutex_lock(&tier->lock);
  change_begin(tier, &change, digest);
  pthread_mutex_unlock(&tier->lock);
  mc_status status = commit_stage(tier, *stage, table, digest, err);
  if (!status) {
    *stage = NULL;
    found.table = chunk_table_copy(table); /* the one that has just been stored */
    if (!found.table) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a chunk table");
    if (!status) status = tier->storage->ops->open_object(tier->storage, digest, &found.fd, &found.size, err);
    if (!status && found.size != table->size) {
      status = mc_error_set(err, MC_CORRUPT, ORIGIN, "a stored object has another size than its chunk table");
    }
    if (status == MC_NOT_FOUND) { /* which our caller would take for the upstream's word */
      status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "an object was removed as soon as it was there");
    }
    stamped = !status && stamp_of(&stamp, found.fd);
  }
  pthread_mutex_lock(&tier->lock);
  if (!status) slot = arrive(tier, digest, &found, stamped ? &stamp : NULL);
  change_end(tier, &change);
  pthread_mutex_unlock(&tier->lock);
  found_free(&found);
  if (status) return status;
  if (!slot) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an object");
  *out = &slot->object;
  return MC_OK;
}

mc_status tier_remove(struct tier *tier, const mc_digest *digest, uint64_t *bytes, mc_error *err) {
  struct change change;
  *bytes = 0;
  pthread_mutex_lock(&tier->lock);
  change_begin(tier, &change, digest);
  struct slot *slot = index_find(tier, digest);
  bool in_use = slot && slot->readers;
  if (slot) *bytes = slot->object.size;
  if (in_use) { /* its last reader must not take this for a commit */
    slot->doomed = true;
    change_end(tier, &change);
    pthread_mutex_unlock(&tier->lock);
    return MC_OK;
  }
  if (slot) index_drop(tier, slot);
  tier->removals++;
  pthread_mutex_unlock(&tier->lock);
  mc_status status = tier->storage->ops->remove_object(tier->storage, digest, err);
  pthread_mutex_lock(&tier->lock);
  change_end(tier, &change);
  pthread_mutex_unlock(&tier->lock);
  return status;
}

mc_status tier_restage(struct tier *tier, const mc_digest *digest, const char *key, mc_stage **stage, mc_error *err) {
  struct change change;
  const mc_storage_ops *ops = tier->storage->ops;
  pthread_mutex_lock(&tier->lock);
  change_begin(tier, &change, digest);
  struct slot *slot = index_find(tier, digest);
  if (slot) index_drop(tier, slot);
  tier->removals++;
  pthread_mutex_unlock(&tier->lock);
  mc_status status;
  if (ops->restage) {
    status = ops->restage(tier->storage, digest, key, stage, err);
  } else {
    ops->remove_object(tier->storage, digest, NULL);
    status = mc_error_set(err, MC_NOT_FOUND, ORIGIN, "the storage keeps no stages");
  }
  pthread_mutex_lock(&tier->lock);
  change_end(tier, &change);
  pthread_mutex_unlock(&tier->lock);
  return status;
}

/* ---- references ---- */

void tier_refer(struct tier *tier, const mc_digest *digest, int references, int pins) {
  pthread_mutex_lock(&tier->lock);
  index_refer(tier, digest, references, pins);
  struct slot *slot = index_find(tier, digest);
  bool given_up = slot && references < 0 && slot->references <= 0;
  if (given_up) slot->used_at = clock_wall_ms();
  if (given_up && slot->idle) index_place(tier, slot);
  pthread_mutex_unlock(&tier->lock);
}

void tier_touch(struct tier *tier, const mc_digest *digest) {
  if (tier->storage->ops->touch) tier->storage->ops->touch(tier->storage, digest);
}

bool tier_has(struct tier *tier, const mc_digest *digest) {
  pthread_mutex_lock(&tier->lock);
  bool has = index_find(tier, digest) != NULL;
  pthread_mutex_unlock(&tier->lock);
  return has;
}

mc_digest *tier_digests(struct tier *tier, size_t *count) {
  struct slot *slot;
  *count = 0;
  pthread_mutex_lock(&tier->lock);
  size_t all = HASH_COUNT(tier->slots);
  mc_digest *digests = all ? malloc(all * sizeof(*digests)) : NULL;
  for (slot = digests ? tier->slots : NULL; slot; slot = slot->hh.next) {
    if (!slot->doomed) digests[(*count)++] = slot->object.digest;
  }
  pthread_mutex_unlock(&tier->lock);
  return digests;
}

bool tier_is_referred(struct tier *tier, const mc_digest *digest) {
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = index_find(tier, digest);
  struct reference *known = index_reference(tier, digest);
  bool referred = tier->ignorant || (slot ? slot->references > 0 : known && known->references > 0);
  pthread_mutex_unlock(&tier->lock);
  return referred;
}
