/* memory: a tier of sealed memfds.
 *
 *   a memfd is …    means                                         becomes
 *   staged          writable and mapped, its stage's alone        an object, or closed
 *   an object       sealed: nobody can write or resize it         closed by remove_object
 *   removed         open or mapped by its readers alone           gone with the last of them
 *
 * Huge pages are those of the system's shared memory, by advice on the mapping through which a stage is written: where
 * it has none, or does not give them out, the pages are small, and nothing else is different. Not MFD_HUGETLB's: they
 * have to be set aside beforehand, and an object would have to be a whole number of them.
 *
 * Removing closes our descriptor and never truncates, as a mapped reader would get SIGBUS. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include <modelcache/backend/storage.h>

#define ORIGIN "memory"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3; some systems demand it */
#endif

struct object {
  mc_digest digest;
  int fd;
  uint64_t size;
  int64_t used_at;
  void *meta;
  size_t meta_size;
  UT_hash_handle hh;
};

struct memory {
  mc_storage base; /* first: callers see no more */
  bool huge_pages;
  pthread_mutex_t lock;
  struct object *objects; /* by digest */
};

static struct memory *memory_of(mc_storage *storage) {
  return (struct memory *)storage;
}

static mc_status not_found(mc_error *err) {
  return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "there is no such object in memory");
}

static mc_status no_memory(mc_error *err, const char *what) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for %s", what);
}

/* ---- objects ---- */

/* With the lock held. */
static struct object *find(struct memory *self, const mc_digest *digest) {
  struct object *object;
  HASH_FIND(hh, self->objects, digest, sizeof(*digest), object);
  return object;
}

static void object_free(struct object *object) {
  if (!object) return;
  if (object->fd >= 0) close(object->fd);
  free(object->meta);
  free(object);
}

/* An object that isn't in the table yet, with a copy of `meta`. */
static struct object *object_new(const mc_digest *digest, const void *meta, size_t meta_size) {
  struct object *object = calloc(1, sizeof(*object));
  void *copy = malloc(meta_size + 1);
  if (!object || !copy) {
    free(object);
    free(copy);
    return NULL;
  }
  if (meta_size) memcpy(copy, meta, meta_size);
  *object = (struct object){.digest = *digest, .fd = -1, .meta = copy, .meta_size = meta_size};
  object->used_at = clock_wall_ms();
  return object;
}

/* A descriptor that can only read and has an offset of its own. Without /proc, a duplicate of the sealed one has to do.
 * -1 and errno. */
static int reopen(int fd) {
  char path[32];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  int reader = open(path, O_RDONLY | O_CLOEXEC);
  return reader < 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : reader;
}

static mc_status memory_open_object(mc_storage *storage, const mc_digest *digest, int *fd, uint64_t *size,
                                    mc_error *err) {
  struct memory *self = memory_of(storage);
  int reader = -1, error = 0;
  pthread_mutex_lock(&self->lock);
  struct object *object = find(self, digest);
  if (object) {
    reader = reopen(object->fd);
    error = reader < 0 ? errno : 0;
    *size = object->size;
  }
  pthread_mutex_unlock(&self->lock);
  if (!object) return not_found(err);
  if (error) return mc_error_errno(err, error, ORIGIN, "can't open an object in memory");
  *fd = reader;
  return MC_OK;
}

static mc_status memory_read_meta(mc_storage *storage, const mc_digest *digest, void **meta, size_t *size, size_t max,
                                  mc_error *err) {
  struct memory *self = memory_of(storage);
  mc_status status = MC_OK;
  pthread_mutex_lock(&self->lock);
  struct object *object = find(self, digest);
  if (!object) {
    status = not_found(err);
  } else if (object->meta_size > max) {
    status = mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "what lies beside an object has %zu bytes, not %zu",
                          object->meta_size, max);
  } else if (!(*meta = malloc(object->meta_size + 1))) {
    status = no_memory(err, "what lies beside an object");
  } else {
    memcpy(*meta, object->meta, object->meta_size);
    *size = object->meta_size;
  }
  pthread_mutex_unlock(&self->lock);
  return status;
}

static mc_status memory_remove_object(mc_storage *storage, const mc_digest *digest, mc_error *err) {
  (void)err;
  struct memory *self = memory_of(storage);
  pthread_mutex_lock(&self->lock);
  struct object *object = find(self, digest);
  if (object) HASH_DEL(self->objects, object);
  pthread_mutex_unlock(&self->lock);
  object_free(object);
  return MC_OK;
}

static mc_status memory_scan(mc_storage *storage, bool (*visit)(void *user, const mc_stored *stored), void *user,
                             mc_error *err) {
  struct memory *self = memory_of(storage);
  size_t count = 0;
  pthread_mutex_lock(&self->lock);
  mc_stored *list = calloc(HASH_COUNT(self->objects) + 1, sizeof(*list));
  for (struct object *object = self->objects; list && object; object = object->hh.next) {
    list[count++] = (mc_stored){object->digest, object->size, object->used_at};
  }
  pthread_mutex_unlock(&self->lock);
  if (!list) return no_memory(err, "a list of the objects");
  for (size_t i = 0; i < count && visit(user, &list[i]); i++) continue;
  free(list);
  return MC_OK;
}

/* ---- stages ---- */

static void unmap(mc_stage *stage) {
  if (stage->memory) munmap(stage->memory, (size_t)stage->size);
  stage->memory = NULL;
}

/* Leaves the stage as it was when it fails. */
static mc_status memory_stage_resize(mc_stage *stage, uint64_t size, mc_error *err) {
  void *memory = NULL;
  int error = size > INT64_MAX ? EFBIG : 0;
  if (!error && size) { /* before the file changes, as a shorter one has lost its end */
    memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, stage->fd, 0);
    if (memory == MAP_FAILED) error = errno;
  }
  if (!error && ftruncate(stage->fd, (off_t)size)) {
    error = errno;
    if (memory) munmap(memory, (size_t)size);
  }
  if (error == EFBIG || error == ENOSPC || error == ENOMEM || error == EINVAL) {
    return mc_error_set(err, MC_NO_SPACE, ORIGIN, "no room for %llu bytes in memory", (unsigned long long)size);
  }
  if (error) return mc_error_errno(err, error, ORIGIN, "can't set the size of a download");
  if (memory && memory_of(stage->storage)->huge_pages) madvise(memory, (size_t)size, MADV_HUGEPAGE);
  unmap(stage);
  stage->size = size;
  stage->memory = memory;
  return MC_OK;
}

static void memory_stage_close(mc_stage *stage, bool keep) {
  (void)keep;
  unmap(stage);
  close(stage->fd);
  free(stage);
}

static int new_memfd(void) {
  int fd = memfd_create("modelcache", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  return fd < 0 && errno == EINVAL ? memfd_create("modelcache", MFD_CLOEXEC | MFD_ALLOW_SEALING) : fd;
}

static mc_status memory_stage_create(mc_storage *storage, const char *key, uint64_t size, mc_stage **out,
                                     mc_error *err) {
  if (!key_is_valid(key)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a key is 64 lower-case hex digits");
  }
  mc_stage *stage = calloc(1, sizeof(*stage));
  if (!stage) return no_memory(err, "a download");
  *stage = (mc_stage){.storage = storage, .fd = new_memfd(), .size = MC_SIZE_UNKNOWN};
  mc_status status = MC_OK;
  if (stage->fd < 0) {
    status = mc_error_errno(err, errno, ORIGIN, "can't make a file in memory");
    free(stage);
    return status;
  }
  if (size != MC_SIZE_UNKNOWN) status = memory_stage_resize(stage, size, err);
  if (status) {
    memory_stage_close(stage, false);
    return status;
  }
  *out = stage;
  return MC_OK;
}

/* Fine if it is sealed already: a commit that failed later may be tried again.
 * F_SEAL_FUTURE_WRITE rather than F_SEAL_WRITE: those who follow the download have it mapped or in a pipe now, which
 * would forbid the latter. The one writable mapping is ours, and ends here. */
static int seal(mc_stage *stage) {
  int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, now = fcntl(stage->fd, F_GET_SEALS);
  if (now >= 0 && now & F_SEAL_SEAL) return 0;
  if (fcntl(stage->fd, F_ADD_SEALS, seals | F_SEAL_FUTURE_WRITE) &&
      (errno != EINVAL || fcntl(stage->fd, F_ADD_SEALS, seals))) { /* before Linux 5.1 */
    return errno;
  }
  unmap(stage);
  return 0;
}

static mc_status memory_stage_commit(mc_stage *stage, const mc_digest *digest, const void *meta, size_t meta_size,
                                     mc_error *err) {
  struct memory *self = memory_of(stage->storage);
  struct object *object = object_new(digest, meta, meta_size);
  struct stat st;
  if (!object) return no_memory(err, "an object");
  int error = seal(stage);
  if (!error && fstat(stage->fd, &st)) error = errno;
  if (error) {
    object_free(object);
    return mc_error_errno(err, error, ORIGIN, "can't seal an object");
  }
  object->size = (uint64_t)st.st_size;
  pthread_mutex_lock(&self->lock);
  struct object *there = find(self, digest);
  bool added = false;
  if (there) { /* it stays: its readers have it open, and ours would need the same bytes again */
    there->used_at = object->used_at;
  } else {
    unsigned count = HASH_COUNT(self->objects);
    HASH_ADD(hh, self->objects, digest, sizeof(object->digest), object);
    added = HASH_COUNT(self->objects) > count;
  }
  if (added) object->fd = stage->fd;
  pthread_mutex_unlock(&self->lock);
  if (!added) object_free(object);
  if (!added && !there) return no_memory(err, "an object");
  if (there) close(stage->fd);
  free(stage);
  return MC_OK;
}

/* ---- opening ---- */

static mc_status memory_open(mc_storage **out, const mc_storage_config *config, mc_error *err);

static void memory_close(mc_storage *storage) {
  struct memory *self = memory_of(storage);
  struct object *object, *next;
  HASH_ITER(hh, self->objects, object, next) {
    HASH_DEL(self->objects, object);
    object_free(object);
  }
  pthread_mutex_destroy(&self->lock);
  free(self);
}

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

/* Say it where the advice can't help: nothing else would show. */
static void check_huge_pages(const mc_storage_config *config) {
  static const char setting[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
  char *text;
  size_t size;
  if (file_read(setting, (void **)&text, &size, 4096)) return;
  if (memmem(text, size, "[never]", 7) || memmem(text, size, "[deny]", 6)) {
    log_warn(config->logger, ORIGIN, "no huge pages for memory: write 'advise' to %s", setting);
  }
  free(text);
}

static mc_status memory_open(mc_storage **out, const mc_storage_config *config, mc_error *err) {
  struct memory *self = calloc(1, sizeof(*self));
  if (!self) return no_memory(err, "a storage");
  self->base.ops = &memory_storage_ops;
  self->huge_pages = config->huge_pages;
  if (self->huge_pages) check_huge_pages(config);
  pthread_mutex_init(&self->lock, NULL);
  *out = &self->base;
  return MC_OK;
}
