/* posix: a tier in a folder of any mounted file system.
 *
 *   format                       "modelcache 1": the layout's version
 *   objects/ab/<digest>          an object's bytes, mode 0444
 *   objects/ab/<digest>.meta     what stage_commit was given to lie beside it
 *   records/ab/<key>             one record
 *   stage/<key>.<owner>.<random>/{data,journal}
 *                                a download in the making; owner "free": its owner closed it to be resumed
 *   trees/                       the engine's
 *
 * Nothing here locks: shared volumes ignore or break flock, O_EXCL and hard links. What makes it safe is that every
 * visible name appears by rename, whole, and that names say what is in them. An object is visible once its data has its
 * name; the meta is in place before. Of two processes that adopt a stage, one's rename finds it gone. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include <modelcache/backend/storage.h>

#define ORIGIN     "posix"
#define FORMAT     "modelcache 1\n"
#define FREE       "free"               /* the owner of a stage that may be adopted at once */
#define FOREIGN_MS (60 * 1000)          /* another host's stage is abandoned when it was not written for so long */
#define STAGE_TTL  (24 * 3600 * 1000LL) /* an abandoned stage is rubbish after this */
#define ORPHAN_TTL (3600 * 1000LL)      /* a meta without its object, likewise */
#define TOUCH_MS   (60 * 1000)          /* how exact the time of the last use has to be */

struct posix {
  mc_storage base;
  char *root;
  bool durable;
  const mc_logger *logger;
};

struct stage {
  mc_stage base;
  char *path; /* of its folder */
  int journal;
};

static struct posix *posix_of(mc_storage *storage) {
  return (struct posix *)storage;
}

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
}

/* "<root>/<kind>/ab/abcdef…<suffix>", malloced. */
static char *sharded(const struct posix *self, const char *kind, const char *name, const char *suffix) {
  return format_str("%s/%s/%.2s/%s%s", self->root, kind, name, name, suffix);
}

static char *object_path(const struct posix *self, const mc_digest *digest, const char *suffix) {
  char hex[MC_DIGEST_HEX_SIZE];
  return sharded(self, "objects", mc_digest_hex(hex, digest), suffix);
}

/* Make the folder that `path` is in. 0 or an errno. */
static int make_parent(const char *path) {
  char *parent = strdup(path);
  if (!parent) return ENOMEM;
  *strrchr(parent, '/') = 0;
  int error = mkdir(parent, 0755) && errno != EEXIST ? errno : 0;
  free(parent);
  return error;
}

static int sync_parent(const char *path) {
  char *parent = strdup(path);
  if (!parent) return ENOMEM;
  *strrchr(parent, '/') = 0;
  int error = fsync_folder(parent);
  free(parent);
  return error;
}

static int64_t mtime_ms(const struct stat *st) {
  return st->st_mtim.tv_sec * 1000LL + st->st_mtim.tv_nsec / NS_PER_MS;
}

/* ---- walking ---- */

/* Call `visit` with each name in a folder, until it returns false. Hidden names are left out. */
static bool each_name(const char *path, bool (*visit)(void *arg, const char *path, const char *name), void *arg) {
  DIR *dir = opendir(path);
  bool go_on = true;
  struct dirent *entry;
  while (dir && go_on && (entry = readdir(dir))) {
    if (entry->d_name[0] != '.') go_on = visit(arg, path, entry->d_name);
  }
  if (dir) closedir(dir);
  return go_on;
}

struct walk {
  struct posix *self;
  void *user;
  bool (*stored)(void *user, const mc_stored *stored);
  bool (*record)(void *user, const char *key, const void *data, size_t size);
  size_t max;
  bool (*inner)(void *arg, const char *path, const char *name);
};

static bool walk_shard(void *arg, const char *path, const char *name) {
  struct walk *walk = arg;
  char *shard = format_str("%s/%s", path, name);
  bool go_on = shard && each_name(shard, walk->inner, walk);
  free(shard);
  return go_on;
}

static void walk_shards(struct walk *walk, const char *kind) {
  char *path = format_str("%s/%s", walk->self->root, kind);
  if (path) each_name(path, walk_shard, walk);
  free(path);
}

/* ---- opening ---- */

/* A stage's name, taken apart. */
static bool split_stage(const char *name, char key[KEY_SIZE], char owner[OWNER_SIZE]) {
  size_t length = strlen(name);
  if (length < KEY_SIZE + 1 || name[KEY_SIZE - 1] != '.') return false;
  memcpy(key, name, KEY_SIZE - 1);
  key[KEY_SIZE - 1] = 0;
  const char *from = name + KEY_SIZE, *last = strrchr(from, '.');
  if (!key_is_valid(key) || !last || (size_t)(last - from) >= OWNER_SIZE) return false;
  memcpy(owner, from, (size_t)(last - from));
  owner[last - from] = 0;
  return true;
}

/* When a stage was last written to; its folder's time if there is nothing in it. */
static int64_t stage_time(const char *path, bool *has_journal) {
  static const char *const names[] = {"", "/data", "/journal"};
  int64_t latest = 0;
  *has_journal = false;
  for (size_t i = 0; i < 3; i++) {
    char *file = format_str("%s%s", path, names[i]);
    struct stat st;
    if (file && stat(file, &st) == 0) {
      if (mtime_ms(&st) > latest) latest = mtime_ms(&st);
      if (i == 2) *has_journal = st.st_size > 0;
    }
    free(file);
  }
  return latest;
}

static bool sweep_stage(void *arg, const char *folder, const char *name) {
  struct posix *self = arg;
  char key[KEY_SIZE], owner[OWNER_SIZE], *path = format_str("%s/%s", folder, name);
  bool has_journal = false;
  int64_t written = path ? stage_time(path, &has_journal) : 0;
  bool named = split_stage(name, key, owner);
  bool lives = named && strcmp(owner, FREE) != 0 && owner_may_live(owner, written, FOREIGN_MS);
  bool old = clock_wall_ms() - written > STAGE_TTL;
  if (path && !lives && (!named || !has_journal || old)) {
    int error = remove_all(path);
    if (error) log_warn(self->logger, ORIGIN, "can't remove the abandoned stage %s", path);
  }
  free(path);
  return true;
}

static mc_status check_format(struct posix *self, mc_error *err) {
  char *path = format_str("%s/format", self->root);
  void *data;
  size_t size;
  if (!path) return no_memory(err);
  int error = file_read(path, &data, &size, 256);
  mc_status status = MC_OK;
  if (error == ENOENT) {
    error = file_replace(path, FORMAT, strlen(FORMAT), 0644, self->durable);
    if (error) status = mc_error_errno(err, error, ORIGIN, "can't write to the storage folder %s", self->root);
  } else if (error) {
    status = mc_error_errno(err, error, ORIGIN, "can't read %s", path);
  } else {
    if (strcmp(data, FORMAT) != 0) {
      status = mc_error_set(err, MC_UNSUPPORTED, ORIGIN,
                            "%s is in a layout that this version does not know; name another folder, or empty it",
                            self->root);
    }
    free(data);
  }
  free(path);
  return status;
}

static void posix_close(mc_storage *storage) {
  struct posix *self = posix_of(storage);
  free(self->root);
  free(self);
}

static mc_status make_folders(struct posix *self, mc_error *err) {
  static const char *const kinds[] = {"objects", "records", "stage", "trees"};
  for (size_t i = 0; i < 4; i++) {
    char *path = format_str("%s/%s", self->root, kinds[i]);
    int error = path ? mkdir_all(path, 0755) : ENOMEM;
    free(path);
    if (error) return mc_error_errno(err, error, ORIGIN, "can't make the storage folder %s", self->root);
  }
  return MC_OK;
}

static mc_status posix_open(mc_storage **out, const mc_storage_config *config, mc_error *err);

/* ---- objects ---- */

static mc_status posix_open_object(mc_storage *storage, const mc_digest *digest, int *fd, uint64_t *size,
                                   mc_error *err) {
  char *path = object_path(posix_of(storage), digest, "");
  struct stat st;
  if (!path) return no_memory(err);
  int got = open(path, O_RDONLY | O_CLOEXEC), error = got < 0 ? errno : 0;
  if (!error && fstat(got, &st)) error = errno;
  free(path);
  if (error == ENOENT) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "no such object");
  if (error) {
    if (got >= 0) close(got);
    return mc_error_errno(err, error, ORIGIN, "can't open an object");
  }
  *fd = got;
  *size = (uint64_t)st.st_size;
  return MC_OK;
}

static mc_status read_small(const char *path, void **data, size_t *size, size_t max, mc_error *err) {
  int error = file_read(path, data, size, max);
  if (error == ENOENT) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "no such document");
  if (error == EFBIG) return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "%s is larger than it may be", path);
  return error ? mc_error_errno(err, error, ORIGIN, "can't read %s", path) : MC_OK;
}

static mc_status posix_read_meta(mc_storage *storage, const mc_digest *digest, void **meta, size_t *size, size_t max,
                                 mc_error *err) {
  char *path = object_path(posix_of(storage), digest, ".meta");
  if (!path) return no_memory(err);
  mc_status status = read_small(path, meta, size, max, err);
  free(path);
  return status;
}

static mc_status posix_remove_object(mc_storage *storage, const mc_digest *digest, mc_error *err) {
  char *data = object_path(posix_of(storage), digest, ""), *meta = object_path(posix_of(storage), digest, ".meta");
  mc_status status = data && meta ? MC_OK : no_memory(err);
  if (!status && unlink(data) && errno != ENOENT) status = mc_error_errno(err, errno, ORIGIN, "can't remove %s", data);
  if (!status && unlink(meta) && errno != ENOENT) status = mc_error_errno(err, errno, ORIGIN, "can't remove %s", meta);
  free(data);
  free(meta);
  return status;
}

static void posix_touch(mc_storage *storage, const mc_digest *digest) {
  char *path = object_path(posix_of(storage), digest, ".meta");
  struct stat st;
  if (path && stat(path, &st) == 0 && clock_wall_ms() - mtime_ms(&st) > TOUCH_MS) utimensat(AT_FDCWD, path, NULL, 0);
  free(path);
}

static bool posix_object_path(mc_storage *storage, const mc_digest *digest, char *path, size_t size) {
  char hex[MC_DIGEST_HEX_SIZE];
  mc_digest_hex(hex, digest);
  int length = snprintf(path, size, "%s/objects/%.2s/%s", posix_of(storage)->root, hex, hex);
  return length > 0 && (size_t)length < size;
}

static bool scan_object(void *arg, const char *folder, const char *name) {
  struct walk *walk = arg;
  mc_stored stored;
  struct stat data, meta;
  char *path = format_str("%s/%s", folder, name), *beside = format_str("%s/%s.meta", folder, name);
  bool go_on = path && beside;
  size_t length = strlen(name);
  if (go_on && length == 69 && strcmp(name + 64, ".meta") == 0) { /* a meta without its object is rubbish in time */
    path[strlen(path) - 5] = 0;
    bool alone = stat(path, &data) && errno == ENOENT;
    path[strlen(path)] = '.';
    if (alone && stat(path, &meta) == 0 && clock_wall_ms() - mtime_ms(&meta) > ORPHAN_TTL) unlink(path);
  } else if (go_on && mc_digest_parse(&stored.digest, name, NULL) == MC_OK && stat(path, &data) == 0 &&
             stat(beside, &meta) == 0) {
    stored.size = (uint64_t)data.st_size;
    stored.used_at = mtime_ms(&meta);
    go_on = walk->stored(walk->user, &stored);
  }
  free(path);
  free(beside);
  return go_on;
}

static mc_status posix_scan(mc_storage *storage, bool (*visit)(void *user, const mc_stored *stored), void *user,
                            mc_error *err) {
  (void)err;
  struct walk walk = {.self = posix_of(storage), .user = user, .stored = visit, .inner = scan_object};
  walk_shards(&walk, "objects");
  return MC_OK;
}

static mc_status posix_free_bytes(mc_storage *storage, uint64_t *bytes, mc_error *err) {
  struct statfs fs;
  if (statfs(posix_of(storage)->root, &fs)) return mc_error_errno(err, errno, ORIGIN, "can't tell the free space");
  *bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
  return MC_OK;
}

/* ---- stages ---- */

static struct stage *stage_of(mc_stage *stage) {
  return (struct stage *)stage;
}

static const char *root_of(const struct stage *stage) {
  return posix_of(stage->base.storage)->root;
}

static char *stage_name(const struct posix *self, const char *key, const char *owner) {
  uint64_t number;
  random_bytes(&number, sizeof(number));
  return format_str("%s/stage/%s.%s.%016llx", self->root, key, owner, (unsigned long long)number);
}

static char *own_stage_name(const struct posix *self, const char *key) {
  char owner[OWNER_SIZE];
  owner_name(owner);
  return stage_name(self, key, owner);
}

static void stage_free(struct stage *stage) {
  if (stage->base.fd >= 0) close(stage->base.fd);
  if (stage->journal >= 0) close(stage->journal);
  free(stage->path);
  free(stage);
}

/* Open what lies in the stage's folder, making it with O_CREAT in `flags`. Takes over `path`. */
static int stage_open(struct stage **out, struct posix *self, char *path, int flags) {
  struct stage *stage = calloc(1, sizeof(*stage));
  char *data = format_str("%s/data", path), *journal = format_str("%s/journal", path);
  struct stat st;
  int error = stage && data && journal ? 0 : ENOMEM;
  if (stage) *stage = (struct stage){.base = {.storage = &self->base, .fd = -1}, .path = path, .journal = -1};
  if (!error && (stage->base.fd = open(data, O_RDWR | O_CLOEXEC | flags, 0644)) < 0) error = errno;
  if (!error && (stage->journal = open(journal, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) < 0) error = errno;
  if (!error && fstat(stage->base.fd, &st)) error = errno;
  if (!error) stage->base.size = (uint64_t)st.st_size;
  free(data);
  free(journal);
  if (error && stage) {
    stage_free(stage);
  } else if (error) {
    free(path);
  }
  *out = error ? NULL : stage;
  return error;
}

static int set_size(int fd, uint64_t size) {
  if (ftruncate(fd, (off_t)size)) return errno;
  if (size == 0 || fallocate(fd, 0, 0, (off_t)size) == 0) return 0;
  return errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL ? 0 : errno;
}

static mc_status posix_stage_create(mc_storage *storage, const char *key, uint64_t size, mc_stage **out,
                                    mc_error *err) {
  struct posix *self = posix_of(storage);
  struct stage *stage = NULL;
  char *path = own_stage_name(self, key);
  if (!path) return no_memory(err);
  int error = mkdir(path, 0755) ? errno : 0;
  char *folder = strdup(path);
  if (!error) {
    error = stage_open(&stage, self, path, O_CREAT);
  } else {
    free(path);
  }
  if (!error && size != MC_SIZE_UNKNOWN) error = set_size(stage->base.fd, size);
  if (error) {
    if (stage) stage_free(stage);
    if (folder) remove_all(folder);
    free(folder);
    if (error == ENOSPC || error == EDQUOT) {
      return mc_error_set(err, MC_NO_SPACE, ORIGIN, "the disk of %s has no room for %llu bytes; free some, or evict",
                          self->root, (unsigned long long)(size == MC_SIZE_UNKNOWN ? 0 : size));
    }
    return mc_error_errno(err, error, ORIGIN, "can't begin a download in %s", self->root);
  }
  free(folder);
  stage->base.size = size;
  *out = &stage->base;
  return MC_OK;
}

struct adoption {
  struct posix *self;
  const char *key;
  struct stage *stage;
};

static bool adopt(void *arg, const char *folder, const char *name) {
  struct adoption *adoption = arg;
  char key[KEY_SIZE], owner[OWNER_SIZE];
  if (!split_stage(name, key, owner) || strcmp(key, adoption->key) != 0) return true;
  char *path = format_str("%s/%s", folder, name), *ours = own_stage_name(adoption->self, key);
  bool has_journal, mine = path && ours;
  int64_t written = mine ? stage_time(path, &has_journal) : 0;
  mine = mine && (strcmp(owner, FREE) == 0 || !owner_may_live(owner, written, FOREIGN_MS));
  mine = mine && rename(path, ours) == 0;
  free(path);
  if (!mine) {
    free(ours);
    return true;
  }
  return stage_open(&adoption->stage, adoption->self, ours, 0) != 0;
}

static mc_status posix_stage_resume(mc_storage *storage, const char *key, mc_stage **out, mc_error *err) {
  struct adoption adoption = {.self = posix_of(storage), .key = key};
  char *path = format_str("%s/stage", adoption.self->root);
  if (!path) return no_memory(err);
  each_name(path, adopt, &adoption);
  free(path);
  if (!adoption.stage) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "no abandoned download of this URL");
  *out = &adoption.stage->base;
  return MC_OK;
}

static mc_status posix_stage_resize(mc_stage *stage, uint64_t size, mc_error *err) {
  int error = set_size(stage->fd, size);
  if (error) return mc_error_errno(err, error, ORIGIN, "can't set the size of a download");
  stage->size = size;
  return MC_OK;
}

static mc_status posix_stage_append(mc_stage *stage, const void *data, size_t size, mc_error *err) {
  int error = write_all(stage_of(stage)->journal, data, size);
  return error ? mc_error_errno(err, error, ORIGIN, "can't write a download's journal") : MC_OK;
}

static mc_status posix_stage_journal(mc_stage *stage, void **data, size_t *size, size_t max, mc_error *err) {
  char *path = format_str("%s/journal", stage_of(stage)->path);
  if (!path) return no_memory(err);
  mc_status status = read_small(path, data, size, max, err);
  free(path);
  return status;
}

static void posix_stage_close(mc_stage *base, bool keep) {
  struct stage *stage = stage_of(base);
  char key[KEY_SIZE] = "";
  const char *name = strrchr(stage->path, '/') + 1;
  memcpy(key, name, KEY_SIZE - 1);
  char *freed = keep ? stage_name(posix_of(base->storage), key, FREE) : NULL;
  if (!freed || rename(stage->path, freed)) remove_all(stage->path);
  free(freed);
  stage_free(stage);
}

/* The stage's data becomes the object. 0 or an errno. */
static int commit_files(struct stage *stage, const char *object, const char *meta_path, const void *meta,
                        size_t meta_size, bool durable) {
  char *data = format_str("%s/data", stage->path);
  int error = data ? make_parent(object) : ENOMEM;
  if (!error && fchmod(stage->base.fd, 0444)) error = errno;
  if (!error && durable && fdatasync(stage->base.fd)) error = errno;
  if (!error) error = file_replace(meta_path, meta, meta_size, 0444, durable);
  if (!error && rename(data, object)) error = errno;
  if (!error && durable) error = sync_parent(object);
  free(data);
  return error;
}

static mc_status posix_stage_commit(mc_stage *base, const mc_digest *digest, const void *meta, size_t meta_size,
                                    mc_error *err) {
  struct stage *stage = stage_of(base);
  struct posix *self = posix_of(base->storage);
  char *object = object_path(self, digest, ""), *meta_path = object_path(self, digest, ".meta");
  int error = object && meta_path ? 0 : ENOMEM;
  if (!error) error = commit_files(stage, object, meta_path, meta, meta_size, self->durable);
  free(object);
  free(meta_path);
  if (error == ENOENT) return mc_error_set(err, MC_BUSY, ORIGIN, "the download's folder was taken away; try again");
  if (error) return mc_error_errno(err, error, ORIGIN, "can't finish a download in %s", root_of(stage));
  remove_all(stage->path);
  stage_free(stage);
  return MC_OK;
}

static mc_status posix_restage(mc_storage *storage, const mc_digest *digest, const char *key, mc_stage **out,
                               mc_error *err) {
  struct posix *self = posix_of(storage);
  struct stage *stage = NULL;
  char *object = object_path(self, digest, ""), *path = own_stage_name(self, key);
  char *data = path ? format_str("%s/data", path) : NULL;
  int error = object && data ? 0 : ENOMEM;
  if (!error && mkdir(path, 0755)) error = errno;
  if (!error && (chmod(object, 0644) || rename(object, data))) {
    error = errno;
    rmdir(path);
  }
  if (!error) {
    posix_remove_object(storage, digest, NULL); /* its meta */
    error = stage_open(&stage, self, path, 0);
  } else {
    free(path);
  }
  free(object);
  free(data);
  if (error == ENOENT) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "no such object");
  if (error) return mc_error_errno(err, error, ORIGIN, "can't take a damaged object back");
  *out = &stage->base;
  return MC_OK;
}

/* ---- records ---- */

static mc_status posix_record_put(mc_storage *storage, const char *key, const void *data, size_t size, mc_error *err) {
  struct posix *self = posix_of(storage);
  char *path = sharded(self, "records", key, "");
  int error = path ? make_parent(path) : ENOMEM;
  if (!error) error = file_replace(path, data, size, 0644, self->durable);
  free(path);
  return error ? mc_error_errno(err, error, ORIGIN, "can't write a record in %s", self->root) : MC_OK;
}

static mc_status posix_record_get(mc_storage *storage, const char *key, void **data, size_t *size, size_t max,
                                  mc_error *err) {
  char *path = sharded(posix_of(storage), "records", key, "");
  if (!path) return no_memory(err);
  mc_status status = read_small(path, data, size, max, err);
  free(path);
  return status;
}

static mc_status posix_record_remove(mc_storage *storage, const char *key, mc_error *err) {
  char *path = sharded(posix_of(storage), "records", key, "");
  if (!path) return no_memory(err);
  int error = unlink(path) && errno != ENOENT ? errno : 0;
  free(path);
  return error ? mc_error_errno(err, error, ORIGIN, "can't remove a record") : MC_OK;
}

static bool scan_record(void *arg, const char *folder, const char *name) {
  struct walk *walk = arg;
  void *data;
  size_t size;
  char *path = key_is_valid(name) ? format_str("%s/%s", folder, name) : NULL;
  bool go_on = true;
  if (path && file_read(path, &data, &size, walk->max) == 0) {
    go_on = walk->record(walk->user, name, data, size);
    free(data);
  }
  free(path);
  return go_on;
}

static mc_status posix_record_scan(mc_storage *storage,
                                   bool (*visit)(void *user, const char *key, const void *data, size_t size),
                                   void *user, size_t max, mc_error *err) {
  (void)err;
  struct walk walk = {.self = posix_of(storage), .user = user, .record = visit, .max = max, .inner = scan_record};
  walk_shards(&walk, "records");
  return MC_OK;
}

/* ---- the ops ---- */

extern const mc_storage_ops posix_storage_ops;
const mc_storage_ops posix_storage_ops = {
    .abi = MC_STORAGE_ABI,
    .name = "posix",
    .flags = MC_STORAGE_PERSISTENT,
    .open = posix_open,
    .close = posix_close,
    .open_object = posix_open_object,
    .read_meta = posix_read_meta,
    .remove_object = posix_remove_object,
    .touch = posix_touch,
    .object_path = posix_object_path,
    .scan = posix_scan,
    .free_bytes = posix_free_bytes,
    .stage_create = posix_stage_create,
    .stage_resume = posix_stage_resume,
    .stage_resize = posix_stage_resize,
    .stage_append = posix_stage_append,
    .stage_journal = posix_stage_journal,
    .stage_commit = posix_stage_commit,
    .stage_close = posix_stage_close,
    .restage = posix_restage,
    .record_put = posix_record_put,
    .record_get = posix_record_get,
    .record_remove = posix_record_remove,
    .record_scan = posix_record_scan,
};

static mc_status posix_open(mc_storage **out, const mc_storage_config *config, mc_error *err) {
  if (!config->location || !*config->location) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "no folder was named to keep objects in");
  }
  struct posix *self = calloc(1, sizeof(*self));
  if (!self) return no_memory(err);
  *self = (struct posix){.base = {&posix_storage_ops}, .durable = config->durable, .logger = config->logger};
  int error = mkdir_all(config->location, 0755);
  self->root = error ? NULL : realpath(config->location, NULL);
  if (!error && !self->root) error = errno;
  mc_status status = MC_OK;
  if (error) status = mc_error_errno(err, error, ORIGIN, "can't make the storage folder %s", config->location);
  if (!status) status = check_format(self, err);
  if (!status) status = make_folders(self, err);
  if (status) {
    posix_close(&self->base);
    return status;
  }
  char *stages = format_str("%s/stage", self->root);
  if (stages) each_name(stages, sweep_stage, self);
  free(stages);
  *out = &self->base;
  return MC_OK;
}
