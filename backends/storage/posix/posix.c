/* posix: a tier in a folder of any mounted file system, also one that other machines mount.
 *
 *   format                               "modelcache posix 1": the layout and its version
 *   objects/ab/<digest>                  an object's bytes, mode 0444
 *   objects/ab/<digest>.meta             what stage_commit was given to lie beside it; its mtime is the last use
 *   objects/ab/<…>.<key>.<random>        either of them on its way there
 *   records/ab/<key>                     one record
 *   stage/<key>.<owner>.<random>/        a download in the making: data and journal
 *   trees/                               the engine's
 *
 *   an object is …                       means                                    becomes
 *   staged        data in stage/         seen by its owner alone                  whole by two renames: meta, then data
 *   meta alone                           a commit or a removal under way          whole, or rubbish after an hour
 *   whole         data and meta          visible                                  data unlinked first, then meta
 *   data alone                           a removal crossed a commit: missing      whole by the next commit of it
 *
 * Nothing here locks: shared volumes ignore or break flock, O_EXCL and hard links. What makes it safe is that each
 * visible name appears whole, by a rename, and that a name says what is in it: two processes that commit the same
 * object, or remove it, only repeat each other. docs/storage-layout.md says more. */
#include "posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"

#define FORMAT    "modelcache posix 1\n"
#define LONGEST   256  /* below the root: stage/<name>/journal */
#define TOUCH_MS  1000 /* how exact the time of the last use has to be */
#define ORPHAN_MS (60 * 1000)
#define META      ".meta"
/* Not in the kernel's header. */
#define ZFS_MAGIC            0x2fc12fc1
#define BCACHEFS_SUPER_MAGIC 0xca451a4e
#define DIGEST_SIZE          (MC_DIGEST_HEX_SIZE - 1)

/* ---- what the files share ---- */

char *posix_path(char path[PATH_SIZE], const struct posix *self, const char *format, ...) {
  va_list args;
  int length = snprintf(path, PATH_SIZE, "%s/", self->root);
  va_start(args, format);
  vsnprintf(path + length, PATH_SIZE - (size_t)length, format, args);
  va_end(args);
  return path;
}

char *posix_object_file(char path[PATH_SIZE], const struct posix *self, const mc_digest *digest, const char *suffix) {
  char hex[MC_DIGEST_HEX_SIZE];
  mc_digest_hex(hex, digest);
  return posix_path(path, self, "objects/%.2s/%s%s", hex, hex, suffix);
}

mc_status posix_error(mc_error *err, int errnum, const char *format, ...) {
  char text[MC_ERROR_MESSAGE_SIZE];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  mc_status status = mc_error_errno(err, errnum, ORIGIN, "%s", text);
  if (status != MC_NOT_FOUND) return status;
  if (err) err->status = MC_IO;
  return MC_IO;
}

bool posix_is_missing(int errnum) {
  return errnum == ENOENT || errnum == ESTALE;
}

/* NFS promises that what is opened is as it was when another machine last closed it, of folders too; that a name is
 * missing it remembers for as long as it thinks that the folder is as it was. */
bool posix_look_again(const struct posix *self, const char *kind, const char *hex) {
  char path[PATH_SIZE];
  if (!self->shared) return false;
  for (int i = 0; i < 2; i++) {
    int fd = open(posix_path(path, self, i ? "%s/%.2s" : "%s", kind, hex), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    close(fd);
  }
  return true;
}

mc_status posix_missing(mc_error *err, int errnum, const char *path) {
  if (posix_is_missing(errnum)) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "there is no %s", path);
  return posix_error(err, errnum, "can't open %s", path);
}

mc_status posix_read_file(const char *path, void **data, size_t *size, size_t max, mc_error *err) {
  int error = file_read(path, data, size, max);
  if (posix_is_missing(error)) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "there is no %s", path);
  if (error == EFBIG) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "%s is larger than the %zu bytes it may have", path, max);
  }
  return error ? posix_error(err, error, "can't read %s", path) : MC_OK;
}

int posix_make_folder_of(const char *path) {
  char folder[PATH_SIZE];
  snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
  return mkdir_all(folder, 0777);
}

int posix_move(const char *from, const char *to) {
  if (rename(from, to) == 0) return 0;
  if (errno != ENOENT) return errno;
  if (access(from, F_OK)) { /* NFS: done, but the answer was lost and it was asked again? */
    return access(to, F_OK) ? ENOENT : 0;
  }
  int error = posix_make_folder_of(to);
  if (!error && rename(from, to)) error = errno;
  return error;
}

int posix_flush(const struct posix *self, int fd, bool *unsound) {
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return errno;
  int error = self->durable && fsync(copy) ? errno : 0;
  if (close(copy) && !error) error = errno;
  *unsound = error != 0;
  return error;
}

void posix_begin_flush(const struct posix *self, int fd) {
  if (self->durable && fd >= 0) sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

int posix_flush_names(struct posix *self, const char *kind, const char *hex) {
  char path[PATH_SIZE], ab[] = {hex[0], hex[1], 0};
  if (!self->durable) return 0;
  atomic_bool *settled = *kind == 'o' ? self->objects_settled : self->records_settled;
  settled += strtoul(ab, NULL, 16);
  int error = fsync_folder(posix_path(path, self, "%s/%s", kind, ab));
  if (error || atomic_load(settled)) return error;
  error = fsync_folder(posix_path(path, self, "%s", kind)); /* the folder may be new, or another process's */
  if (!error) atomic_store(settled, true);
  return error;
}

static int64_t mtime_of(const struct stat *st) {
  return st->st_mtim.tv_sec * 1000LL + st->st_mtim.tv_nsec / NS_PER_MS;
}

int64_t posix_mtime(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 ? mtime_of(&st) : 0;
}

int64_t posix_mtime_now(const struct posix *self, const char *path) {
  struct stat st;
  if (!self->shared) return posix_mtime(path);
  int fd = open(path, O_RDONLY | O_CLOEXEC); /* which asks the server */
  bool known = fd >= 0 && fstat(fd, &st) == 0;
  if (fd >= 0) close(fd);
  return known ? mtime_of(&st) : posix_mtime(path); /* it may not be ours to read */
}

int posix_each(const char *path, bool (*visit)(void *user, const char *name), void *user, bool *stopped) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return posix_is_missing(errno) ? 0 : errno;
  DIR *dir = fdopendir(fd);
  if (!dir) {
    int error = errno;
    close(fd);
    return error;
  }
  bool go_on = true;
  struct dirent *entry;
  do {
    errno = 0;
    entry = readdir(dir);
    if (entry && entry->d_name[0] != '.') go_on = visit(user, entry->d_name);
  } while (entry && go_on);
  int error = entry || posix_is_missing(errno) ? 0 : errno;
  closedir(dir);
  if (stopped) *stopped = !go_on;
  return error;
}

int posix_each_of(struct posix *self, const char *kind, bool (*visit)(void *user, const char *name), void *user) {
  char path[PATH_SIZE];
  bool stopped = false;
  int error = 0;
  for (unsigned i = 0; i < 256 && !error && !stopped; i++) {
    error = posix_each(posix_path(path, self, "%s/%02x", kind, i), visit, user, &stopped);
  }
  return error;
}

/* ---- objects ---- */

/* Open an object's data. 0 or an errno. */
static int open_whole(const struct posix *self, const mc_digest *digest, int *fd, struct stat *st) {
  char path[PATH_SIZE];
  /* Data alone is no object, for scan and read_meta neither. */
  if (access(posix_object_file(path, self, digest, META), F_OK)) return errno;
  *fd = open(posix_object_file(path, self, digest, ""), O_RDONLY | O_CLOEXEC);
  if (*fd < 0) return errno;
  if (fstat(*fd, st) == 0) return 0;
  int error = errno;
  close(*fd);
  return error;
}

static bool object_look_again(const struct posix *self, const mc_digest *digest) {
  char hex[MC_DIGEST_HEX_SIZE];
  mc_digest_hex(hex, digest);
  return posix_look_again(self, "objects", hex);
}

static mc_status posix_open_object(mc_storage *storage, const mc_digest *digest, int *fd, uint64_t *size,
                                   mc_error *err) {
  const struct posix *self = posix_of(storage);
  char path[PATH_SIZE];
  struct stat st;
  int error = open_whole(self, digest, fd, &st);
  if (posix_is_missing(error) && object_look_again(self, digest)) error = open_whole(self, digest, fd, &st);
  if (error) return posix_missing(err, error, posix_object_file(path, self, digest, ""));
  *size = (uint64_t)st.st_size;
  return MC_OK;
}

static mc_status read_meta(const struct posix *self, const mc_digest *digest, void **meta, size_t *size, size_t max,
                           mc_error *err) {
  char path[PATH_SIZE];
  posix_object_file(path, self, digest, "");
  if (access(path, F_OK)) return posix_missing(err, errno, path);
  return posix_read_file(posix_object_file(path, self, digest, META), meta, size, max, err);
}

static mc_status posix_read_meta(mc_storage *storage, const mc_digest *digest, void **meta, size_t *size, size_t max,
                                 mc_error *err) {
  const struct posix *self = posix_of(storage);
  mc_status status = read_meta(self, digest, meta, size, max, err);
  bool again = status == MC_NOT_FOUND && object_look_again(self, digest);
  return again ? read_meta(self, digest, meta, size, max, err) : status;
}

static mc_status posix_remove_object(mc_storage *storage, const mc_digest *digest, mc_error *err) {
  static const char *const suffixes[] = {"", META};
  char path[PATH_SIZE];
  for (size_t i = 0; i < 2; i++) {
    posix_object_file(path, posix_of(storage), digest, suffixes[i]);
    if (unlink(path) && !posix_is_missing(errno)) return posix_error(err, errno, "can't remove %s", path);
  }
  return MC_OK;
}

static void posix_touch(mc_storage *storage, const mc_digest *digest) {
  char path[PATH_SIZE];
  int64_t used_at = posix_mtime(posix_object_file(path, posix_of(storage), digest, META));
  if (used_at && clock_wall_ms() - used_at > TOUCH_MS) utimensat(AT_FDCWD, path, NULL, 0);
}

static bool posix_object_path(mc_storage *storage, const mc_digest *digest, char *path, size_t size) {
  char full[PATH_SIZE];
  size_t length = strlen(posix_object_file(full, posix_of(storage), digest, ""));
  if (length < size) memcpy(path, full, length + 1);
  return length < size;
}

static mc_status posix_look(mc_storage *storage, const mc_digest *digest, mc_stored *out, mc_error *err) {
  char path[PATH_SIZE];
  struct stat data, meta;
  if (stat(posix_object_file(path, posix_of(storage), digest, ""), &data)) return posix_missing(err, errno, path);
  if (stat(posix_object_file(path, posix_of(storage), digest, META), &meta)) return posix_missing(err, errno, path);
  if (!S_ISREG(data.st_mode)) return posix_missing(err, ENOENT, path);
  *out = (mc_stored){*digest, (uint64_t)data.st_size, mtime_of(&meta)};
  return MC_OK;
}

struct scan {
  struct posix *self;
  bool (*visit)(void *user, const mc_stored *stored);
  void *user;
};

static bool scan_object(void *user, const char *name) {
  struct scan *scan = user;
  mc_digest digest;
  mc_stored stored;
  if (!key_is_valid(name) || mc_digest_parse(&digest, name, NULL)) return true;
  if (posix_look(&scan->self->base, &digest, &stored, NULL)) return true;
  return scan->visit(scan->user, &stored);
}

static mc_status posix_scan(mc_storage *storage, bool (*visit)(void *user, const mc_stored *stored), void *user,
                            mc_error *err) {
  struct scan scan = {posix_of(storage), visit, user};
  int error = posix_each_of(scan.self, "objects", scan_object, &scan);
  return error ? posix_error(err, error, "can't read the folders of %s/objects", scan.self->root) : MC_OK;
}

static mc_status posix_free_bytes(mc_storage *storage, uint64_t *bytes, mc_error *err) {
  struct statvfs fs;
  const char *root = posix_of(storage)->root;
  if (statvfs(root, &fs)) return posix_error(err, errno, "can't tell the free space of %s", root);
  *bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
  return MC_OK;
}

/* Remove half an object, or what a commit that was cut off left. Others may be in the middle of committing or removing
 * it, so only an old half is rubbish: a meta after an hour; data, which no commit leaves alone even for an instant, and
 * drafts after a day. */
static bool clean_object(void *user, const char *name) {
  struct posix *self = user;
  char hex[MC_DIGEST_HEX_SIZE], path[PATH_SIZE], other[PATH_SIZE];
  const char *suffix = name + strnlen(name, DIGEST_SIZE);
  bool is_meta = strcmp(suffix, META) == 0, is_draft = posix_is_draft(name);
  snprintf(hex, sizeof(hex), "%s", name);
  if (!key_is_valid(hex) || (*suffix && !is_meta && !is_draft)) return true;
  posix_path(path, self, "objects/%.2s/%s", hex, name);
  posix_path(other, self, "objects/%.2s/%s%s", hex, hex, is_meta ? "" : META);
  if (!is_draft && (access(other, F_OK) == 0 || errno != ENOENT)) return true;
  if (clock_wall_ms() - posix_mtime(path) < (is_meta ? HOUR_MS : DAY_MS)) return true;
  log_info(&self->logger, ORIGIN, "removing %s, %s", path,
           is_draft ? "of a commit that was cut off" : "half an object");
  unlink(path);
  return true;
}

/* ---- opening ---- */

static void posix_close(mc_storage *storage) {
  struct posix *self = posix_of(storage);
  free(self->root);
  free(self);
}

static mc_status check_format(struct posix *self, mc_error *err) {
  char path[PATH_SIZE];
  void *data;
  size_t size;
  int error = file_read(posix_path(path, self, "format"), &data, &size, 4096);
  if (error == ENOENT) {
    error = file_replace(path, FORMAT, strlen(FORMAT), 0644, true);
    return error ? posix_error(err, error, "can't write %s", path) : MC_OK;
  }
  if (error && error != EFBIG) return posix_error(err, error, "can't read %s", path);
  bool known = !error && strcmp(data, FORMAT) == 0;
  int version = 0;
  bool other = !error && sscanf(data, "modelcache posix %d", &version) == 1;
  if (!error) free(data);
  if (known) return MC_OK;
  if (other) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN,
                        "%s has layout version %d, and this program knows only 1; name another folder, or use the "
                        "program that made it",
                        self->root, version);
  }
  return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "%s is not what a modelcache storage has there; name another folder",
                      path);
}

static mc_status make_folders(struct posix *self, mc_error *err) {
  static const char *const kinds[] = {"objects", "records", "stage"};
  char path[PATH_SIZE];
  for (size_t i = 0; i < 3; i++) {
    int error = mkdir_all(posix_path(path, self, "%s", kinds[i]), 0777);
    if (error) return posix_error(err, error, "can't make the folder %s", path);
  }
  int error = self->durable ? fsync_folder(self->root) : 0;
  if (!error && self->durable) fsync_folder(posix_path(path, self, "..")); /* which may not be ours to open */
  return error ? posix_error(err, error, "can't flush %s", self->root) : MC_OK;
}

/* A full disk is fine: what is stored can be served. What is written tells the storage's clock, too: where that is
 * another machine's, it may be off by minutes, and a living owner's stage would look abandoned. */
static mc_status check_writable(struct posix *self, mc_error *err) {
  static const char key[KEY_SIZE] = "0000000000000000000000000000000000000000000000000000000000000000";
  mc_stage *stage;
  mc_status status = posix_stage_create(&self->base, key, 0, &stage, err);
  if (!status) {
    char path[PATH_SIZE];
    self->skew_ms = posix_mtime(posix_path(path, self, "stage")) - clock_wall_ms();
    posix_stage_close(stage, false);
  }
  return status == MC_NO_SPACE ? MC_OK : status;
}

/* Whether a folder is, for all we know, on a file system that other machines have mounted as well. */
static bool is_shared(const char *path) {
  static const unsigned ours[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,  BTRFS_SUPER_MAGIC,
                                  TMPFS_MAGIC,      F2FS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC,
                                  RAMFS_MAGIC,      ZFS_MAGIC,        BCACHEFS_SUPER_MAGIC};
  struct statfs fs;
  if (statfs(path, &fs)) return true;
  for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++) {
    if ((unsigned)fs.f_type == ours[i]) return false;
  }
  return true;
}

static mc_status posix_open(mc_storage **out, const mc_storage_config *config, mc_error *err);

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
    .look = posix_look,
    .free_bytes = posix_free_bytes,
    .stage_create = posix_stage_create,
    .stage_resume = posix_stage_resume,
    .stage_resize = posix_stage_resize,
    .stage_append = posix_stage_append,
    .stage_journal = posix_stage_journal,
    .stage_commit = posix_stage_commit,
    .stage_record = posix_stage_record,
    .stage_close = posix_stage_close,
    .restage = posix_restage,
    .record_put = posix_record_put,
    .record_get = posix_record_get,
    .record_remove = posix_record_remove,
    .record_scan = posix_record_scan,
};

static mc_status set_root(struct posix *self, const char *location, mc_error *err) {
  int error = mkdir_all(location, 0777);
  if (error) return posix_error(err, error, "can't make the storage folder %s", location);
  self->root = realpath(location, NULL);
  if (!self->root) return posix_error(err, errno, "can't find the storage folder %s", location);
  if (strlen(self->root) > PATH_SIZE - LONGEST) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the path of the storage folder is longer than %d bytes",
                        PATH_SIZE - LONGEST);
  }
  return MC_OK;
}

static mc_status posix_open(mc_storage **out, const mc_storage_config *config, mc_error *err) {
  if (!config->location || !*config->location) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "no storage folder was named");
  }
  struct posix *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a storage");
  self->base.ops = &posix_storage_ops;
  self->durable = config->durable;
  self->orphan_ms = config->orphan_ms > 0 ? config->orphan_ms : ORPHAN_MS;
  if (config->logger) self->logger = *config->logger;
  mc_status status = set_root(self, config->location, err);
  if (!status && !owner_name(self->owner)) {
    status = mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "can't tell who this process is: can't open /proc now");
  }
  if (!status) status = check_format(self, err);
  if (!status) status = make_folders(self, err);
  self->shared = is_shared(self->root ? self->root : "");
  self->nameless = !status && posix_can_be_nameless(self);
  if (!status) status = check_writable(self, err);
  if (status) {
    posix_close(&self->base);
    return status;
  }
  posix_clean_stages(self, DAY_MS);
  posix_clean_records(self);
  posix_each_of(self, "objects", clean_object, self);
  *out = &self->base;
  return MC_OK;
}
