/* The handle of a file that was got. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "engine/engine.h"

struct mc_file {
  atomic_uint references;
  struct object *object; /* or NULL: a direct get */
  int fd;                /* of a direct get */
  mc_chunk_table *table; /* of a direct get */
  const void *buffer;    /* of a direct get into memory */
  uint64_t size;
  mc_digest digest;
  mc_validators validators;
  struct tier *home; /* of an object from a faster tier: where it may have a path; held, or NULL */
  bool verify;       /* what is opened there */
  bool cached;
  pthread_mutex_t lock;
  void *map;
  char *path;
  struct object *at_path; /* the home tier's copy, open as long as its path is promised */
  bool in_memory;         /* of this cache */
  char *endpoint;         /* this cache's own; "" or NULL: it has none */
  char *holders;          /* those that have it in memory, each ended by a zero, all in so many bytes; NULL: none */
  size_t holders_size;
};

static mc_file *file_new(const mc_entry *entry) {
  mc_file *file = calloc(1, sizeof(*file));
  if (!file) return NULL;
  atomic_init(&file->references, 1);
  pthread_mutex_init(&file->lock, NULL);
  file->fd = -1;
  file->size = entry->size;
  file->digest = entry->digest;
  file->validators = entry->validators;
  return file;
}

/* ---- where it can be read ---- */

#define MOST_ENDPOINTS 8  /* told to a client */
#define MOST_HOLDERS   64 /* looked at */

static void note_endpoints(mc_file *file, struct mc_cache *cache, const mc_entry *entry) {
  pthread_mutex_lock(&cache->lock);
  file->endpoint = strdup(cache->endpoint);
  pthread_mutex_unlock(&cache->lock);
  if (!entry->holders || !*entry->holders) return;
  file->holders = strdup(entry->holders);
  if (!file->holders) return;
  file->holders_size = strlen(file->holders);
  for (size_t i = 0; i < file->holders_size; i++) {
    if (file->holders[i] == ' ') file->holders[i] = 0;
  }
}

/* The endpoints that have it in memory; this cache's first, if it is one. */
static size_t list_holders(const mc_file *file, const char *holders[MOST_HOLDERS]) {
  size_t count = 0;
  bool told = file->endpoint && *file->endpoint;
  if (told && file->in_memory) holders[count++] = file->endpoint;
  for (size_t i = 0; i < file->holders_size; i += strlen(file->holders + i) + 1) {
    const char *at = file->holders + i;
    bool own = told && strcmp(at, file->endpoint) == 0;
    if (*at && !own && count < MOST_HOLDERS) holders[count++] = at;
  }
  return count;
}

/* Whether this cache is named behind those that have it in memory. */
static bool is_spare(const mc_file *file) {
  return file->endpoint && *file->endpoint && !file->in_memory;
}

size_t mc_file_endpoints(const mc_file *file, const char **endpoints, size_t most) {
  const char *holders[MOST_HOLDERS];
  size_t count = list_holders(file, holders), told = 0;
  uint32_t random[MOST_ENDPOINTS];
  bool spare = is_spare(file);
  if (most > MOST_ENDPOINTS) most = MOST_ENDPOINTS;
  random_bytes(random, sizeof(random));
  for (; told < count && told + spare < most; told++) { /* a shuffle, as far as it is told */
    size_t at = told + random[told] % (count - told);
    endpoints[told] = holders[at];
    holders[at] = holders[told];
  }
  if (spare && told < most) endpoints[told++] = file->endpoint;
  return told;
}

size_t mc_file_spread(const mc_file *file) {
  const char *holders[MOST_HOLDERS];
  size_t count = list_holders(file, holders), most = MOST_ENDPOINTS - is_spare(file);
  return count < most ? count : most;
}

void file_count_hits(const mc_file *file, struct mc_cache *cache, uint64_t count) {
  const char *holders[MOST_HOLDERS];
  stat_add(cache, STAT_HITS, count);
  if (!file->object) return;
  enum stat_id from = file->in_memory                   ? STAT_HITS_MEMORY
                      : list_holders(file, holders) > 0 ? STAT_HITS_MEMBERS
                                                        : STAT_HITS_STORAGE;
  stat_add(cache, from, count);
}

/* ---- getting one ---- */

mc_file *file_of_object(struct object *object, struct mc_cache *cache, const mc_entry *entry, bool cached) {
  char path[4096];
  mc_file *file = file_new(entry);
  if (!file) {
    object_release(object);
    return NULL;
  }
  file->object = object;
  file->size = object->size;
  file->cached = cached;
  file->in_memory = !(tier_storage(object->tier)->ops->flags & MC_STORAGE_PERSISTENT);
  note_endpoints(file, cache, entry);
  if (object_path(object, path, sizeof(path))) file->path = strdup(path);
  if (object->tier != cache->home) {
    file->home = tier_acquire(cache->home);
    file->verify = cache->options.verify == MC_VERIFY_STORED;
  }
  return file;
}

struct object *file_object(const mc_file *file) {
  return file->object;
}

mc_file *file_of_destination(int fd, const void *memory, const mc_entry *entry, mc_chunk_table *table,
                             const char *path) {
  mc_file *file = file_new(entry);
  if (!file) {
    if (fd >= 0) close(fd);
    free(table);
    return NULL;
  }
  file->fd = fd;
  file->buffer = memory;
  file->table = table;
  file->path = path ? strdup(path) : NULL;
  return file;
}

mc_status file_open(mc_file **out, struct mc_cache *cache, const mc_entry *entry, bool cached, struct tier **damaged,
                    const mc_call *call, mc_error *err) {
  bool verify = cache->options.verify == MC_VERIFY_STORED;
  mc_status status = mc_error_set(err, MC_NOT_FOUND, ORIGIN, "it is not in this cache");
  for (size_t i = 0; i < cache->tier_count && entry->has_digest; i++) {
    struct object *object;
    status = tier_open(&object, cache->tiers[i], &entry->digest, verify, call, err);
    if (status == MC_OK) {
      *out = file_of_object(object, cache, entry, cached);
      return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a file");
    }
    if (status == MC_CORRUPT) {
      stat_add(cache, STAT_CORRUPT_OBJECTS, 1);
      stat_add(cache, STAT_CORRUPT_CHUNKS, 1);
      log_warn(cache->logger, ORIGIN, "a stored object is damaged: %s", err ? err->message : "");
      *damaged = cache->tiers[i];
      if (cache->tiers[i] != cache->home) { /* the next tier's copy is as good */
        uint64_t bytes;
        tier_remove(cache->tiers[i], &entry->digest, &bytes, NULL);
        continue;
      }
    }
    if (status != MC_NOT_FOUND) return status;
  }
  return status;
}

mc_file *mc_file_acquire(mc_file *file) {
  atomic_fetch_add_explicit(&file->references, 1, memory_order_relaxed);
  return file;
}

void mc_file_release(mc_file *file) {
  if (!file || atomic_fetch_sub_explicit(&file->references, 1, memory_order_acq_rel) != 1) return;
  if (file->map) munmap(file->map, (size_t)file->size);
  if (file->object) object_release(file->object);
  if (file->at_path) object_release(file->at_path);
  tier_release(file->home);
  if (file->fd >= 0) close(file->fd);
  pthread_mutex_destroy(&file->lock);
  free(file->table);
  free(file->path);
  free(file->endpoint);
  free(file->holders);
  free(file);
}

int mc_file_fd(const mc_file *file) {
  return file->object ? file->object->fd : file->fd;
}

uint64_t mc_file_size(const mc_file *file) {
  return file->size;
}

const mc_digest *mc_file_digest(const mc_file *file) {
  return &file->digest;
}

const mc_chunk_table *mc_file_chunks(const mc_file *file) {
  return file->object ? file->object->table : file->table;
}

const mc_validators *mc_file_validators(const mc_file *file) {
  return &file->validators;
}

/* A file from memory has a path where the home tier has a copy too, which is opened only for who asks. One that would
 * have to be verified first is as good as none: this does not block. */
static void find_path(mc_file *file) {
  char path[4096];
  struct object *object;
  if (tier_open(&object, file->home, &file->digest, file->verify, NULL, NULL)) return;
  char *copy = object_path(object, path, sizeof(path)) ? strdup(path) : NULL;
  pthread_mutex_lock(&file->lock);
  if (copy && !file->path) {
    file->path = copy;
    file->at_path = object;
    copy = NULL;
    object = NULL;
  }
  pthread_mutex_unlock(&file->lock);
  free(copy);
  if (object) object_release(object);
}

static const char *known_path(mc_file *file) {
  pthread_mutex_lock(&file->lock);
  const char *path = file->path;
  pthread_mutex_unlock(&file->lock);
  return path;
}

const char *mc_file_path(const mc_file *file) {
  mc_file *self = (mc_file *)file; /* what its caller sees does not change */
  if (self->home && !known_path(self)) find_path(self);
  return known_path(self);
}

bool mc_file_was_cached(const mc_file *file) {
  return file->cached;
}

mc_status mc_file_map(mc_file *file, const void **address, size_t *size, mc_error *err) {
  static const char nothing[1] = "";
  *size = (size_t)file->size;
  if (file->size == 0 || file->buffer) {
    *address = file->size ? file->buffer : nothing;
    return MC_OK;
  }
  mc_status status = MC_OK;
  pthread_mutex_lock(&file->lock);
  if (!file->map) {
    void *map = mmap(NULL, (size_t)file->size, PROT_READ, MAP_SHARED, mc_file_fd(file), 0);
    if (map == MAP_FAILED) {
      status = mc_error_errno(err, errno, ORIGIN, "can't map a file");
    } else {
      file->map = map;
    }
  }
  *address = file->map;
  pthread_mutex_unlock(&file->lock);
  return status;
}

mc_status mc_file_read(mc_file *file, uint64_t offset, void *buffer, size_t size, size_t *got, mc_error *err) {
  *got = 0;
  if (offset >= file->size) return MC_OK;
  if (size > file->size - offset) size = (size_t)(file->size - offset);
  if (file->buffer) {
    memcpy(buffer, (const char *)file->buffer + offset, size);
  } else {
    int error = pread_all(mc_file_fd(file), buffer, size, offset);
    if (error) return mc_error_errno(err, error, ORIGIN, "can't read a file");
  }
  *got = size;
  return MC_OK;
}
