#include "engine/tier.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"

#define ORIGIN            "tier"
#define META_MAX          ((size_t)256 << 20)
#define UNREFERRED_TTL_MS (10 * 60 * 1000)

/* What tells that a file is the one that was verified: whoever writes to it changes its mtime. */
struct stamp {
  dev_t device;
  ino_t inode;
  off_t size;
  struct timespec modified;
};

struct slot {
  struct object object; /* fd and table only while open */
  struct stamp verified;
  bool is_verified, damaged, doomed;
  bool gone; /* out of the index; freed by the last reader */
  uint32_t readers, uses;
  int references, pins;     /* of entries */
  int64_t used_at;          /* wall-clock milliseconds */
  struct slot *prev, *next; /* least recently used first */
  UT_hash_handle hh;
};

/* References of entries to objects that are not in the index (yet, or on this machine). */
struct tier {
  mc_storage *storage;
  struct tier_config config;
  pthread_mutex_t lock;
  struct slot *slots; /* by digest */
  struct slot *order;
  uint64_t bytes, reserved, open;
  uint32_t users; /* the owner, and every open slot */
};

static struct slot *slot_of(struct object *object) {
  return (struct slot *)object; /* its first member */
}

static struct slot *find(struct tier *tier, const mc_digest *digest) {
  struct slot *slot;
  HASH_FIND(hh, tier->slots, digest, sizeof(*digest), slot);
  return slot;
}

static struct slot *insert(struct tier *tier, const mc_digest *digest, uint64_t size, int64_t used_at) {
  struct slot *slot = calloc(1, sizeof(*slot));
  if (!slot) return NULL;
  slot->object = (struct object){.digest = *digest, .size = size, .fd = -1, .tier = tier};
  slot->used_at = used_at;
  unsigned before = HASH_COUNT(tier->slots);
  HASH_ADD(hh, tier->slots, object.digest, sizeof(*digest), slot);
  if (HASH_COUNT(tier->slots) == before) {
    free(slot);
    return NULL;
  }
  DL_APPEND(tier->order, slot);
  tier->bytes += size;
  return slot;
}

/* Out of the index; frees it unless it has readers. */
static void drop(struct tier *tier, struct slot *slot) {
  HASH_DEL(tier->slots, slot);
  DL_DELETE(tier->order, slot);
  tier->bytes -= slot->object.size;
  slot->gone = true;
  if (slot->readers == 0) free(slot);
}

static bool load_slot(void *user, const mc_stored *stored) {
  struct tier *tier = user;
  if (!find(tier, &stored->digest)) insert(tier, &stored->digest, stored->size, stored->used_at);
  return true;
}

static int by_use(const struct slot *a, const struct slot *b) {
  return (a->used_at > b->used_at) - (a->used_at < b->used_at);
}

static void unuse(struct tier *tier) {
  pthread_mutex_lock(&tier->lock);
  bool last = --tier->users == 0;
  pthread_mutex_unlock(&tier->lock);
  if (!last) return;
  struct slot *slot, *next;
  HASH_ITER(hh, tier->slots, slot, next) {
    HASH_DEL(tier->slots, slot);
    free(slot);
  }
  if (tier->storage) tier->storage->ops->close(tier->storage);
  pthread_mutex_destroy(&tier->lock);
  free(tier);
}

mc_status tier_new(struct tier **out, mc_storage *storage, const struct tier_config *config, mc_error *err) {
  struct tier *tier = calloc(1, sizeof(*tier));
  if (!tier) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a tier");
  tier->config = *config;
  tier->users = 1;
  pthread_mutex_init(&tier->lock, NULL);
  mc_status status = storage->ops->scan(storage, load_slot, tier, err);
  if (status) {
    unuse(tier);
    return status;
  }
  DL_SORT(tier->order, by_use);
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
  unuse(tier);
}

mc_storage *tier_storage(struct tier *tier) {
  return tier->storage;
}

/* ---- opening ---- */

static bool stamp_of(struct stamp *stamp, int fd) {
  struct stat st;
  if (fstat(fd, &st)) return false;
  *stamp = (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
  return true;
}

static bool stamp_same(const struct stamp *a, const struct stamp *b) {
  return a->device == b->device && a->inode == b->inode && a->size == b->size &&
         a->modified.tv_sec == b->modified.tv_sec && a->modified.tv_nsec == b->modified.tv_nsec;
}

/* Open what the storage has of a digest, with its table: I/O, without the lock. */
static mc_status open_stored(struct tier *tier, const mc_digest *digest, int *fd, uint64_t *size,
                             mc_chunk_table **table, mc_error *err) {
  void *meta = NULL;
  size_t meta_size = 0;
  mc_status status = tier->storage->ops->open_object(tier->storage, digest, fd, size, err);
  if (status) return status;
  status = tier->storage->ops->read_meta(tier->storage, digest, &meta, &meta_size, META_MAX, err);
  if (!status) status = chunk_table_decode(table, digest, meta, meta_size, err);
  free(meta);
  if (!status && (*table)->size != *size) {
    status = mc_error_set(err, MC_CORRUPT, ORIGIN, "a stored object has another size than its chunk table");
    free(*table);
    *table = NULL;
  }
  if (status) {
    close(*fd);
    *fd = -1;
  }
  return status;
}

/* Whether all chunks of an open file match. Reads the whole file. */
static mc_status verify_chunks(int fd, const mc_chunk_table *table, uint32_t first, uint32_t count, mc_error *err) {
  size_t block = 256 << 10;
  struct xxh128 *hash = xxh128_new();
  char *buffer = malloc(block);
  mc_status status = hash && buffer ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to verify");
  for (uint32_t i = first; i < first + count && !status; i++) {
    uint64_t left = chunk_length(table->size, i), at = i * MC_CHUNK_SIZE;
    mc_hash128 got;
    xxh128_reset(hash);
    while (left && !status) {
      size_t piece = left < block ? (size_t)left : block;
      int error = pread_all(fd, buffer, piece, at);
      if (error == ENODATA) {
        status = mc_error_set(err, MC_CORRUPT, ORIGIN, "a stored object is shorter than it was");
      } else if (error) {
        status = mc_error_errno(err, error, ORIGIN, "can't read a stored object");
      } else {
        xxh128_update(hash, buffer, piece);
        at += piece;
        left -= piece;
      }
    }
    if (status) break;
    xxh128_final(hash, &got);
    if (!hash128_equal(&got, &table->hashes[i])) {
      status = mc_error_set(err, MC_CORRUPT, ORIGIN, "chunk %u of a stored object does not match its hash", i);
    }
  }
  xxh128_free(hash);
  free(buffer);
  return status;
}

/* With the lock held: one more reader of an open slot. */
static void use(struct tier *tier, struct slot *slot) {
  slot->readers++;
  slot->uses++;
  slot->used_at = clock_wall_ms();
  DL_DELETE(tier->order, slot);
  DL_APPEND(tier->order, slot);
}

/* With the lock held: make the open file the slot's. */
static void adopt(struct tier *tier, struct slot *slot, int fd, mc_chunk_table *table) {
  slot->object.fd = fd;
  slot->object.table = table;
  tier->open++;
  tier->users++;
}

/* The slot of a digest, open and with one more reader. NULL *out and MC_OK: another thread has to be waited for. */
static mc_status open_slot(struct slot **out, struct tier *tier, const mc_digest *digest, mc_error *err) {
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = find(tier, digest);
  if (slot && slot->readers && !slot->doomed) {
    use(tier, slot);
    pthread_mutex_unlock(&tier->lock);
    *out = slot;
    return MC_OK;
  }
  pthread_mutex_unlock(&tier->lock);

  int fd = -1;
  uint64_t size = 0;
  mc_chunk_table *table = NULL;
  mc_status status = open_stored(tier, digest, &fd, &size, &table, err);
  pthread_mutex_lock(&tier->lock);
  slot = find(tier, digest);
  if (status) {
    if (slot && !slot->readers) drop(tier, slot); /* it has gone, or lost its table: nothing that can be used */
    pthread_mutex_unlock(&tier->lock);
    return status == MC_CORRUPT ? mc_error_set(err, MC_NOT_FOUND, ORIGIN, "a stored object lost its chunk table")
                                : status;
  }
  if (!slot) slot = insert(tier, digest, size, clock_wall_ms()); /* another process put it there */
  if (slot && slot->readers == 0) {
    adopt(tier, slot, fd, table);
    fd = -1;
    table = NULL;
  }
  if (slot) use(tier, slot);
  pthread_mutex_unlock(&tier->lock);
  if (fd >= 0) close(fd);
  free(table);
  *out = slot;
  return slot ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an object");
}

mc_status tier_open(struct object **out, struct tier *tier, const mc_digest *digest, bool verify, bool may_block,
                    mc_error *err) {
  struct slot *slot = NULL;
  mc_status status = open_slot(&slot, tier, digest, err);
  if (status) return status;
  struct stamp now;
  bool stamped = stamp_of(&now, slot->object.fd);
  pthread_mutex_lock(&tier->lock);
  bool wanted = slot->damaged || (verify && !(slot->is_verified && stamped && stamp_same(&now, &slot->verified)));
  pthread_mutex_unlock(&tier->lock);
  if (wanted && !may_block) status = mc_error_set(err, MC_BUSY, ORIGIN, "the object must be verified first");
  if (wanted && !status) {
    status = verify_chunks(slot->object.fd, slot->object.table, 0, slot->object.table->count, err);
    pthread_mutex_lock(&tier->lock);
    if (!status) {
      slot->verified = now;
      slot->is_verified = stamped;
      slot->damaged = false;
    } else if (status == MC_CORRUPT && !slot->gone) {
      drop(tier, slot); /* it has a reader: us */
    }
    pthread_mutex_unlock(&tier->lock);
  }
  if (status) {
    object_release(&slot->object);
    return status;
  }
  if (tier->storage->ops->touch) tier->storage->ops->touch(tier->storage, digest);
  *out = &slot->object;
  return MC_OK;
}

struct object *object_acquire(struct object *object) {
  pthread_mutex_lock(&object->tier->lock);
  slot_of(object)->readers++;
  pthread_mutex_unlock(&object->tier->lock);
  return object;
}

void object_release(struct object *object) {
  struct slot *slot = slot_of(object);
  struct tier *tier = object->tier;
  pthread_mutex_lock(&tier->lock);
  if (--slot->readers > 0) {
    pthread_mutex_unlock(&tier->lock);
    return;
  }
  int fd = object->fd;
  mc_chunk_table *table = object->table;
  mc_digest digest = object->digest;
  bool remove = slot->doomed && !slot->gone;
  object->fd = -1;
  object->table = NULL;
  tier->open--;
  if (slot->gone) {
    free(slot);
  } else if (remove) {
    drop(tier, slot);
  }
  pthread_mutex_unlock(&tier->lock);
  close(fd);
  free(table);
  if (remove) tier->storage->ops->remove_object(tier->storage, &digest, NULL);
  unuse(tier);
}

bool object_path(struct object *object, char *path, size_t size) {
  mc_storage *storage = object->tier->storage;
  return storage->ops->object_path && storage->ops->object_path(storage, &object->digest, path, size);
}

mc_status object_check(struct object *object, uint64_t offset, mc_error *err) {
  if (offset >= object->size) return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "no chunk at that offset");
  mc_status status = verify_chunks(object->fd, object->table, (uint32_t)(offset / MC_CHUNK_SIZE), 1, err);
  if (status == MC_CORRUPT) {
    pthread_mutex_lock(&object->tier->lock);
    slot_of(object)->damaged = true;
    pthread_mutex_unlock(&object->tier->lock);
  }
  return status;
}

/* ---- space ---- */

/* With the lock held: the next object that may go, or NULL. */
static struct slot *victim(struct tier *tier) {
  struct slot *slot;
  DL_FOREACH(tier->order, slot) {
    if (slot->readers == 0 && slot->pins <= 0) return slot;
  }
  return NULL;
}

/* Remove a slot that has no readers, its bytes too. With the lock held, which is let go of meanwhile. */
static void evict(struct tier *tier, struct slot *slot) {
  mc_digest digest = slot->object.digest;
  uint64_t size = slot->object.size;
  drop(tier, slot);
  pthread_mutex_unlock(&tier->lock);
  mc_error err = MC_ERROR_INIT;
  if (tier->storage->ops->remove_object(tier->storage, &digest, &err)) {
    log_warn(tier->config.logger, ORIGIN, "can't evict an object: %s", err.message);
  }
  if (tier->config.evicted) tier->config.evicted(tier->config.user, 1, size);
  pthread_mutex_lock(&tier->lock);
}

/* With the lock held: evict until `bytes` more fit below `percent` of the capacity. */
static bool make_room(struct tier *tier, uint64_t bytes, uint32_t percent) {
  uint64_t limit = tier->config.capacity / 100 * percent + tier->config.capacity % 100 * percent / 100;
  while (tier->bytes + tier->reserved + bytes > limit) {
    struct slot *slot = victim(tier);
    if (!slot) return false;
    evict(tier, slot);
  }
  return true;
}

mc_status tier_reserve(struct tier *tier, uint64_t bytes, mc_error *err) {
  mc_status status = MC_OK;
  uint64_t capacity = tier->config.capacity;
  pthread_mutex_lock(&tier->lock);
  if (capacity) {
    bool fits = bytes <= capacity;
    if (fits && tier->bytes + tier->reserved + bytes > capacity / 100 * tier->config.high) {
      make_room(tier, bytes, tier->config.low); /* as far as it goes */
    }
    fits = fits && make_room(tier, bytes, 100);
    if (!fits) {
      status = mc_error_set(err, MC_NO_SPACE, ORIGIN,
                            "%llu bytes do not fit: the capacity is %llu, of which %llu are in use, pinned or being "
                            "downloaded; raise storage_capacity, or evict something",
                            (unsigned long long)bytes, (unsigned long long)capacity,
                            (unsigned long long)(tier->bytes + tier->reserved));
    }
  }
  if (!status) tier->reserved += bytes;
  pthread_mutex_unlock(&tier->lock);
  return status;
}

bool tier_evict(struct tier *tier, uint64_t bytes) {
  bool any = false;
  struct slot *slot;
  uint64_t free_now = 0;
  const mc_storage_ops *ops = tier->storage->ops;
  if (!ops->free_bytes || ops->free_bytes(tier->storage, &free_now, NULL)) return false;
  pthread_mutex_lock(&tier->lock);
  bool fits = free_now + tier->bytes >= bytes; /* else all would go for nothing */
  bytes -= fits && free_now < bytes ? free_now : 0;
  while (fits && bytes && (slot = victim(tier))) {
    bytes -= slot->object.size < bytes ? slot->object.size : bytes;
    evict(tier, slot);
    any = true;
  }
  pthread_mutex_unlock(&tier->lock);
  return any;
}

void tier_unreserve(struct tier *tier, uint64_t bytes) {
  pthread_mutex_lock(&tier->lock);
  tier->reserved -= bytes;
  pthread_mutex_unlock(&tier->lock);
}

mc_status tier_add(struct tier *tier, const mc_digest *digest, uint64_t size, mc_error *err) {
  int fd = -1;
  uint64_t stored = 0;
  struct stamp now = {0};
  bool stamped = tier->storage->ops->open_object(tier->storage, digest, &fd, &stored, NULL) == MC_OK;
  if (stamped) {
    stamped = stamp_of(&now, fd);
    close(fd);
  }
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = find(tier, digest);
  if (!slot) slot = insert(tier, digest, size, clock_wall_ms());
  if (slot) {
    slot->doomed = slot->damaged = false;
    slot->is_verified = stamped;
    slot->verified = now;
    slot->used_at = clock_wall_ms();
  }
  pthread_mutex_unlock(&tier->lock);
  return slot ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an object");
}

mc_status tier_remove(struct tier *tier, const mc_digest *digest, uint64_t *bytes, mc_error *err) {
  *bytes = 0;
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = find(tier, digest);
  bool in_use = slot && slot->readers;
  if (slot) *bytes = slot->object.size;
  if (in_use) slot->doomed = true;
  if (slot && !in_use) drop(tier, slot);
  pthread_mutex_unlock(&tier->lock);
  return in_use ? MC_OK : tier->storage->ops->remove_object(tier->storage, digest, err);
}

mc_status tier_restage(struct tier *tier, const mc_digest *digest, const char *key, mc_stage **stage, mc_error *err) {
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = find(tier, digest);
  if (slot) drop(tier, slot);
  pthread_mutex_unlock(&tier->lock);
  if (tier->storage->ops->restage) return tier->storage->ops->restage(tier->storage, digest, key, stage, err);
  tier->storage->ops->remove_object(tier->storage, digest, NULL);
  return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "the storage keeps no stages");
}

void tier_refer(struct tier *tier, const mc_digest *digest, int references, int pins) {
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = find(tier, digest);
  if (slot) {
    slot->references += references;
    slot->pins += pins;
  }
  pthread_mutex_unlock(&tier->lock);
}

bool tier_has(struct tier *tier, const mc_digest *digest) {
  pthread_mutex_lock(&tier->lock);
  bool has = find(tier, digest) != NULL;
  pthread_mutex_unlock(&tier->lock);
  return has;
}

bool tier_is_referred(struct tier *tier, const mc_digest *digest) {
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = find(tier, digest);
  bool referred = slot && slot->references > 0;
  pthread_mutex_unlock(&tier->lock);
  return referred;
}

uint32_t tier_uses(struct tier *tier, const mc_digest *digest) {
  pthread_mutex_lock(&tier->lock);
  struct slot *slot = find(tier, digest);
  uint32_t uses = slot ? slot->uses : 0;
  pthread_mutex_unlock(&tier->lock);
  return uses;
}

/* With the lock held: an object whose time is over, or NULL. */
static struct slot *overdue(struct tier *tier, int64_t now) {
  struct slot *slot;
  DL_FOREACH(tier->order, slot) {
    if (slot->readers || slot->pins > 0) continue;
    int64_t age = now - slot->used_at;
    if (tier->config.ttl_ms > 0 && age > tier->config.ttl_ms) return slot;
    if (slot->references <= 0 && age > UNREFERRED_TTL_MS) return slot;
  }
  return NULL;
}

void tier_sweep(struct tier *tier) {
  int64_t now = clock_wall_ms();
  struct slot *slot;
  pthread_mutex_lock(&tier->lock);
  while ((slot = overdue(tier, now))) evict(tier, slot);
  uint64_t capacity = tier->config.capacity;
  if (capacity && tier->bytes + tier->reserved > capacity / 100 * tier->config.high) {
    make_room(tier, 0, tier->config.low);
  }
  pthread_mutex_unlock(&tier->lock);
}

void tier_usage(struct tier *tier, struct tier_usage *usage) {
  pthread_mutex_lock(&tier->lock);
  *usage = (struct tier_usage){HASH_COUNT(tier->slots), tier->bytes, tier->reserved, tier->config.capacity, tier->open};
  pthread_mutex_unlock(&tier->lock);
}
