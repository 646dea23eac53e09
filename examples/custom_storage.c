/* A storage backend of one's own: objects are unnamed files in a folder.   custom_storage URL [FOLDER]
 *
 * "scratch" suits a fast disk that is to be clean whenever nobody runs: its files never have a name (O_TMPFILE), so
 * that the kernel removes them with the process, however that ends. It is not persistent, hence needs neither records
 * nor resumable stages, and is all here: modelcache/backend/storage.h says what each op must do.
 *
 *   a file is …   means                                       becomes
 *   staged        written by the engine, its stage's alone    an object, or closed
 *   an object     in the list, opened again for each reader   closed by remove_object
 *   removed       open by its readers alone                   gone with the last of them */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <modelcache/backend/storage.h>
#include <modelcache/modelcache.h>

struct object {
  mc_digest digest;
  int fd;
  uint64_t size;
  int64_t used_at; /* milliseconds since 1970 */
  void *meta;
  size_t meta_size;
  struct object *next;
};

struct scratch {
  mc_storage base; /* first: the engine sees no more */
  char *folder;
  pthread_mutex_t lock;
  struct object *objects;
};

static struct scratch *scratch_of(mc_storage *storage) {
  return (struct scratch *)storage;
}

/* ---- objects ---- */

/* With the lock held: where the object's pointer is, which holds NULL if there is none. */
static struct object **find(struct scratch *self, const mc_digest *digest) {
  struct object **at = &self->objects;
  while (*at && !mc_digest_equal(&(*at)->digest, digest)) at = &(*at)->next;
  return at;
}

static void object_free(struct object *object) {
  if (!object) return;
  close(object->fd);
  free(object->meta);
  free(object);
}

static mc_status not_found(mc_error *err) {
  return mc_error_set(err, MC_NOT_FOUND, "scratch", "there is no such object");
}

static mc_status scratch_open_object(mc_storage *storage, const mc_digest *digest, int *fd, uint64_t *size,
                                     mc_error *err) {
  struct scratch *self = scratch_of(storage);
  char path[40];
  pthread_mutex_lock(&self->lock);
  struct object *object = *find(self, digest);
  if (object) {
    snprintf(path, sizeof(path), "/proc/self/fd/%d", object->fd);
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    *size = object->size;
  }
  int error = object && *fd < 0 ? errno : 0;
  pthread_mutex_unlock(&self->lock);
  if (!object) return not_found(err);
  return error ? mc_error_errno(err, error, "scratch", "can't open an object") : MC_OK;
}

static mc_status scratch_read_meta(mc_storage *storage, const mc_digest *digest, void **meta, size_t *size, size_t max,
                                   mc_error *err) {
  struct scratch *self = scratch_of(storage);
  mc_status status = MC_OK;
  pthread_mutex_lock(&self->lock);
  struct object *object = *find(self, digest);
  if (!object) {
    status = not_found(err);
  } else if (object->meta_size > max) {
    status = mc_error_set(err, MC_RESOURCE_EXHAUSTED, "scratch", "the object's meta has %zu bytes", object->meta_size);
  } else if (!(*meta = malloc(object->meta_size + 1))) {
    status = mc_error_set(err, MC_NO_MEMORY, "scratch", "no memory for an object's meta");
  } else {
    memcpy(*meta, object->meta, object->meta_size);
    *size = object->meta_size;
  }
  pthread_mutex_unlock(&self->lock);
  return status;
}

static mc_status scratch_remove_object(mc_storage *storage, const mc_digest *digest, mc_error *err) {
  struct scratch *self = scratch_of(storage);
  (void)err;
  pthread_mutex_lock(&self->lock);
  struct object **at = find(self, digest), *object = *at;
  if (object) *at = object->next;
  pthread_mutex_unlock(&self->lock);
  object_free(object);
  return MC_OK;
}

/* `visit` belongs to the engine: it is called with no lock held, so the list is copied first. */
static mc_status scratch_scan(mc_storage *storage, bool (*visit)(void *user, const mc_stored *stored), void *user,
                              mc_error *err) {
  struct scratch *self = scratch_of(storage);
  size_t count = 0, i = 0;
  pthread_mutex_lock(&self->lock);
  for (struct object *object = self->objects; object; object = object->next) count++;
  mc_stored *list = calloc(count + 1, sizeof(*list));
  for (struct object *object = self->objects; list && object; object = object->next) {
    list[i++] = (mc_stored){object->digest, object->size, object->used_at};
  }
  pthread_mutex_unlock(&self->lock);
  if (!list) return mc_error_set(err, MC_NO_MEMORY, "scratch", "no memory for a list");
  for (i = 0; i < count && visit(user, &list[i]); i++) continue;
  free(list);
  return MC_OK;
}

static mc_status scratch_free_bytes(mc_storage *storage, uint64_t *bytes, mc_error *err) {
  struct statvfs room;
  if (statvfs(scratch_of(storage)->folder, &room)) {
    return mc_error_errno(err, errno, "scratch", "can't see how much room there is");
  }
  *bytes = (uint64_t)room.f_bavail * room.f_frsize;
  return MC_OK;
}

/* ---- stages ---- */

/* -1 and errno. */
static int unnamed_file(const char *folder) {
  char path[4200];
  snprintf(path, sizeof(path), "%s/scratch-XXXXXX", folder);
  int fd = mkostemp(path, O_CLOEXEC);
  if (fd >= 0) unlink(path);
  return fd;
}

static mc_status scratch_stage_resize(mc_stage *stage, uint64_t size, mc_error *err) {
  int error = size > INT64_MAX ? EFBIG : ftruncate(stage->fd, (off_t)size) ? errno : 0;
  if (!error && size) error = posix_fallocate(stage->fd, 0, (off_t)size); /* a full disk shows now */
  if (error) return mc_error_errno(err, error, "scratch", "no room for %llu bytes", (unsigned long long)size);
  stage->size = size;
  return MC_OK;
}

static void scratch_stage_close(mc_stage *stage, bool keep) {
  (void)keep; /* nothing survives here */
  close(stage->fd);
  free(stage);
}

static mc_status scratch_stage_create(mc_storage *storage, const char *key, uint64_t size, mc_stage **out,
                                      mc_error *err) {
  (void)key; /* names a stage that could be resumed */
  mc_stage *stage = calloc(1, sizeof(*stage));
  if (!stage) return mc_error_set(err, MC_NO_MEMORY, "scratch", "no memory for a download");
  stage->storage = storage;
  stage->size = MC_SIZE_UNKNOWN;
  stage->fd = unnamed_file(scratch_of(storage)->folder);
  mc_status status = stage->fd < 0 ? mc_error_errno(err, errno, "scratch", "can't make a file") : MC_OK;
  if (!status && size != MC_SIZE_UNKNOWN) status = scratch_stage_resize(stage, size, err);
  if (!status) {
    *out = stage;
    return MC_OK;
  }
  if (stage->fd >= 0) close(stage->fd);
  free(stage);
  return status;
}

/* On success the stage is gone and its file is the object's; on failure nothing has changed. */
static mc_status scratch_stage_commit(mc_stage *stage, const mc_digest *digest, const void *meta, size_t meta_size,
                                      mc_error *err) {
  struct scratch *self = scratch_of(stage->storage);
  struct object *object = calloc(1, sizeof(*object));
  void *copy = malloc(meta_size + 1);
  struct stat st;
  if (!object || !copy || fstat(stage->fd, &st)) {
    free(object);
    free(copy);
    return mc_error_set(err, MC_NO_MEMORY, "scratch", "no memory for an object");
  }
  memcpy(copy, meta, meta_size);
  *object = (struct object){*digest, stage->fd, (uint64_t)st.st_size, time(NULL) * 1000LL, copy, meta_size, NULL};
  pthread_mutex_lock(&self->lock);
  struct object **at = find(self, digest), *before = *at;
  if (before) *at = before->next;
  object->next = self->objects;
  self->objects = object;
  pthread_mutex_unlock(&self->lock);
  object_free(before);
  free(stage);
  return MC_OK;
}

/* ---- the backend ---- */

static mc_status scratch_open(mc_storage **out, const mc_storage_config *config, mc_error *err);

static void scratch_close(mc_storage *storage) {
  struct scratch *self = scratch_of(storage);
  while (self->objects) {
    struct object *object = self->objects;
    self->objects = object->next;
    object_free(object);
  }
  pthread_mutex_destroy(&self->lock);
  free(self->folder);
  free(self);
}

static const mc_storage_ops scratch_ops = {
    .abi = MC_STORAGE_ABI,
    .name = "scratch",
    .open = scratch_open,
    .close = scratch_close,
    .open_object = scratch_open_object,
    .read_meta = scratch_read_meta,
    .remove_object = scratch_remove_object,
    .scan = scratch_scan,
    .free_bytes = scratch_free_bytes,
    .stage_create = scratch_stage_create,
    .stage_resize = scratch_stage_resize,
    .stage_commit = scratch_stage_commit,
    .stage_close = scratch_stage_close,
};

static mc_status scratch_open(mc_storage **out, const mc_storage_config *config, mc_error *err) {
  int probe = unnamed_file(config->location);
  if (probe < 0) return mc_error_errno(err, errno, "scratch", "can't make files in %s", config->location);
  close(probe);
  struct scratch *self = calloc(1, sizeof(*self));
  if (self) self->folder = strdup(config->location);
  if (!self || !self->folder) {
    free(self);
    return mc_error_set(err, MC_NO_MEMORY, "scratch", "no memory for a storage");
  }
  self->base.ops = &scratch_ops;
  pthread_mutex_init(&self->lock, NULL);
  *out = &self->base;
  return MC_OK;
}

/* ---- using it ---- */

/* Get the URL twice: the second time it comes out of the storage above. */
static mc_status get_twice(mc_cache *cache, const char *url, mc_error *err) {
  for (int turn = 0; turn < 2; turn++) {
    mc_file *file;
    char hex[MC_DIGEST_HEX_SIZE];
    mc_status status = mc_get(&file, cache, url, NULL, err);
    if (status) return status;
    bool cached = mc_file_was_cached(file);
    printf("%s: %llu bytes, sha256 %s\n", cached ? "from scratch" : "downloaded",
           (unsigned long long)mc_file_size(file), mc_digest_hex(hex, mc_file_digest(file)));
    mc_file_release(file);
    if (cached != (turn == 1)) return mc_error_set(err, MC_IO, "example", "get %d was not what it should be", turn + 1);
  }
  return MC_OK;
}

int main(int argc, char **argv) {
  static const mc_storage_ops *const backends[] = {&scratch_ops, NULL};
  char storage[4096];
  mc_cache *cache = NULL;
  mc_error error = MC_ERROR_INIT;
  mc_options options = MC_OPTIONS_INIT;
  if (argc < 2) return 2;
  snprintf(storage, sizeof(storage), "scratch:%s", argc > 2 ? argv[2] : "/tmp");
  options.storage = storage;
  options.storage_backends = backends;
  mc_status status = mc_open_options(&cache, &options, &error);
  if (!status) status = get_twice(cache, argv[1], &error);
  if (status) fprintf(stderr, "%s: %s\n", mc_status_name(status), error.message);
  mc_close(cache);
  return status ? 1 : 0;
}
