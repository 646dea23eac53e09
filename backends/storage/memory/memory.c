/* memory: a tier of sealed memfds. An object is a memfd that nobody can change any more; removing it closes our
 * descriptor and never truncates, as a reader's mapping would get SIGBUS. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/clock.h"
#include <modelcache/backend/storage.h>

#define ORIGIN "memory"

struct item {
  mc_digest digest;
  int fd;
  uint64_t size;
  void *meta;
  size_t meta_size;
  int64_t used_at;
  UT_hash_handle hh;
};

struct memory {
  mc_storage base;
  bool huge_pages;
  pthread_mutex_t lock;
  struct item *items;
};

static struct memory *memory_of(mc_storage *storage) {
  return (struct memory *)storage;
}

/* With the lock held. */
static struct item *find(struct memory *self, const mc_digest *digest) {
  struct item *item;
  HASH_FIND(hh, self->items, digest, sizeof(*digest), item);
  return item;
}

static void item_free(struct item *item) {
  if (item->fd >= 0) close(item->fd);
  free(item->meta);
  free(item);
}

static void memory_close(mc_storage *storage) {
  struct memory *self = memory_of(storage);
  struct item *item, *next;
  HASH_ITER(hh, self->items, item, next) {
    HASH_DEL(self->items, item);
    item_free(item);
  }
  pthread_mutex_destroy(&self->lock);
  free(self);
}

static mc_status not_found(mc_error *err) {
  return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "no such object");
}

static mc_status memory_open_object(mc_storage *storage, const mc_digest *digest, int *fd, uint64_t *size,
                                    mc_error *err) {
  struct memory *self = memory_of(storage);
  char path[64];
  int ours = -1, error = 0;
  pthread_mutex_lock(&self->lock);
  struct item *item = find(self, digest);
  if (item) {
    item->used_at = clock_wall_ms();
    *size = item->size;
    ours = fcntl(item->fd, F_DUPFD_CLOEXEC, 0);
    error = ours < 0 ? errno : 0;
  }
  pthread_mutex_unlock(&self->lock);
  if (!item) return not_found(err);
  if (!error) { /* a description of its own, that can only be read */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", ours);
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) error = errno;
    close(ours);
  }
  return error ? mc_error_errno(err, error, ORIGIN, "can't open an object in memory") : MC_OK;
}

static mc_status memory_read_meta(mc_storage *storage, const mc_digest *digest, void **meta, size_t *size, size_t max,
                                  mc_error *err) {
  struct memory *self = memory_of(storage);
  mc_status status = MC_OK;
  pthread_mutex_lock(&self->lock);
  struct item *item = find(self, digest);
  if (!item) {
    status = not_found(err);
  } else if (item->meta_size > max) {
    status = mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "an object's meta is larger than it may be");
  } else if (!(*meta = malloc(item->meta_size + 1))) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  } else {
    memcpy(*meta, item->meta, item->meta_size);
    *size = item->meta_size;
  }
  pthread_mutex_unlock(&self->lock);
  return status;
}

static mc_status memory_remove_object(mc_storage *storage, const mc_digest *digest, mc_error *err) {
  (void)err;
  struct memory *self = memory_of(storage);
  pthread_mutex_lock(&self->lock);
  struct item *item = find(self, digest);
  if (item) HASH_DEL(self->items, item);
  pthread_mutex_unlock(&self->lock);
  if (item) item_free(item);
  return MC_OK;
}

static mc_status memory_scan(mc_storage *storage, bool (*visit)(void *user, const mc_stored *stored), void *user,
                             mc_error *err) {
  struct memory *self = memory_of(storage);
  struct item *item;
  size_t count = 0;
  pthread_mutex_lock(&self->lock);
  mc_stored *list = malloc((HASH_COUNT(self->items) + 1) * sizeof(*list));
  for (item = self->items; list && item; item = item->hh.next) {
    list[count++] = (mc_stored){item->digest, item->size, item->used_at};
  }
  pthread_mutex_unlock(&self->lock);
  if (!list) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  for (size_t i = 0; i < count && visit(user, &list[i]); i++) continue;
  free(list);
  return MC_OK;
}

/* ---- stages ---- */

static void unmap(mc_stage *stage) {
  if (stage->memory) munmap(stage->memory, (size_t)stage->size);
  stage->memory = NULL;
}

static mc_status memory_stage_resize(mc_stage *stage, uint64_t size, mc_error *err) {
  unmap(stage);
  stage->size = size;
  if (ftruncate(stage->fd, (off_t)size)) {
    return mc_error_errno(err, errno, ORIGIN, "can't give a download %llu bytes of memory", (unsigned long long)size);
  }
  if (size == 0) return MC_OK;
  void *map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, stage->fd, 0);
  if (map == MAP_FAILED) return mc_error_errno(err, errno, ORIGIN, "can't map a download");
  if (memory_of(stage->storage)->huge_pages) madvise(map, (size_t)size, MADV_HUGEPAGE);
  stage->memory = map;
  return MC_OK;
}

static void memory_stage_close(mc_stage *stage, bool keep) {
  (void)keep;
  unmap(stage);
  close(stage->fd);
  free(stage);
}

static mc_status memory_stage_create(mc_storage *storage, const char *key, uint64_t size, mc_stage **out,
                                     mc_error *err) {
  (void)key;
  mc_stage *stage = calloc(1, sizeof(*stage));
  if (!stage) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  *stage = (mc_stage){.storage = storage, .fd = memfd_create("modelcache", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  if (stage->fd < 0) {
    int error = errno;
    free(stage);
    return mc_error_errno(err, error, ORIGIN, "can't make a file in memory");
  }
  stage->size = MC_SIZE_UNKNOWN;
  mc_status status = size == MC_SIZE_UNKNOWN ? MC_OK : memory_stage_resize(stage, size, err);
  if (status) {
    memory_stage_close(stage, false);
    return status;
  }
  *out = stage;
  return MC_OK;
}

static mc_status memory_stage_commit(mc_stage *stage, const mc_digest *digest, const void *meta, size_t meta_size,
                                     mc_error *err) {
  struct memory *self = memory_of(stage->storage);
  struct item *item = calloc(1, sizeof(*item)), *before;
  void *copy = malloc(meta_size + 1);
  if (!item || !copy) {
    free(item);
    free(copy);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  }
  if (meta_size) memcpy(copy, meta, meta_size);
  uint64_t size = stage->size;
  unmap(stage); /* F_SEAL_WRITE needs that nobody can write any more */
  if (fcntl(stage->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)) {
    int error = errno;
    free(item);
    free(copy);
    return mc_error_errno(err, error, ORIGIN, "can't seal an object");
  }
  *item = (struct item){*digest, stage->fd, size, copy, meta_size, clock_wall_ms(), {0}};
  pthread_mutex_lock(&self->lock);
  before = find(self, digest);
  if (before) HASH_DEL(self->items, before);
  unsigned count = HASH_COUNT(self->items);
  HASH_ADD(hh, self->items, digest, sizeof(item->digest), item);
  bool added = HASH_COUNT(self->items) > count;
  pthread_mutex_unlock(&self->lock);
  if (before) item_free(before);
  if (!added) {
    item->fd = -1;
    item_free(item);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  }
  free(stage);
  return MC_OK;
}

static mc_status memory_open(mc_storage **out, const mc_storage_config *config, mc_error *err);

extern const mc_storage_ops memory_storage_ops;
const mc_storage_ops memory_storage_ops = {
    .abi = MC_STORAGE_ABI,
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .open_object = memory_open_object,
    .read_meta = memory_read_meta,
    .remove_object = memory_remove_object,
    .scan = memory_scan,
    .stage_create = memory_stage_create,
    .stage_resize = memory_stage_resize,
    .stage_commit = memory_stage_commit,
    .stage_close = memory_stage_close,
};

static mc_status memory_open(mc_storage **out, const mc_storage_config *config, mc_error *err) {
  struct memory *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  self->base.ops = &memory_storage_ops;
  self->huge_pages = config->huge_pages;
  pthread_mutex_init(&self->lock, NULL);
  *out = &self->base;
  return MC_OK;
}
