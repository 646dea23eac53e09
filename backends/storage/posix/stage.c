/* Stages of the posix storage: folders "<key>.<owner>.<random>" that hold a download's data and journal.
 *
 *   its owner is …               means                                              becomes
 *   a process that lives         it is written to                                   an object, removed, or nobody's
 *   nobody                       closed to be resumed                               whoever renames it first
 *   a process that is gone       left by a crash                                    whoever renames it first
 *
 * Whether a process of this machine (and its pid namespace) lives is known; another's stage counts as left when nothing
 * was written to it for a minute. The stage of an owner that was slower than that is lost to it: its commit fails with
 * MC_BUSY, as its folder has another name by then.
 *
 * A stage without a key is a file that has no name before it is committed, where the file system can do that: it goes
 * with its process. A network file system can't, and has a folder as for any other.
 *
 * The journal is a row of frames, each a length (u32, little-endian, never 0) and so many bytes: a process that is
 * killed inside of write(2) can leave half of what it wrote, which is cut off when the stage is adopted. */
#include "posix.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"

#define NOBODY     "nobody"
#define FOREIGN_MS (60 * 1000)
#define APPEND_MAX ((size_t)1 << 30) /* what write(2) takes at once */
#define NAME_SIZE  (KEY_SIZE + OWNER_SIZE + 17)

struct stage {
  mc_stage base;          /* first: callers see no more */
  int journal;            /* open to append */
  uint64_t journal_size;  /* of the file */
  uint64_t journal_bytes; /* of what was appended */
  bool torn;              /* half a frame is behind them */
  bool unsound;           /* data could not be flushed: what the file holds is not known any more */
  struct draft record;    /* goes with the next commit */
  char name[NAME_SIZE];   /* of its folder; empty: it has none */
};

static struct stage *stage_of(mc_stage *base) {
  return (struct stage *)base;
}

static struct posix *storage_of(const struct stage *stage) {
  return posix_of(stage->base.storage);
}

static char *stage_file(char path[PATH_SIZE], const struct posix *self, const char *name, const char *file) {
  return posix_path(path, self, "stage/%s/%s", name, file);
}

/* A name that nothing else ever had. */
static void new_name(char name[NAME_SIZE], const char *key, const char *owner) {
  uint64_t number;
  random_bytes(&number, sizeof(number));
  snprintf(name, NAME_SIZE, "%.64s.%.63s.%016" PRIx64, key, owner, number);
}

/* Take a name apart; false if it's not a stage's. */
static bool parse_name(const char *name, char key[KEY_SIZE], char owner[OWNER_SIZE]) {
  snprintf(key, KEY_SIZE, "%.64s", name);
  if (!key_is_valid(key) || name[KEY_SIZE - 1] != '.') return false;
  const char *from = name + KEY_SIZE, *last = strrchr(from, '.');
  if (!last || last - from >= OWNER_SIZE || strlen(name) >= NAME_SIZE) return false;
  snprintf(owner, OWNER_SIZE, "%.*s", (int)(last - from), from);
  return true;
}

static bool is_full(int errnum) {
  return errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG;
}

static mc_status full(struct posix *self, uint64_t size, mc_error *err) {
  uint64_t left = 0;
  self->base.ops->free_bytes(&self->base, &left, NULL);
  if (size == MC_SIZE_UNKNOWN) {
    return mc_error_set(err, MC_NO_SPACE, ORIGIN, "the disk of %s is full; free some space, or name another folder",
                        self->root);
  }
  return mc_error_set(err, MC_NO_SPACE, ORIGIN,
                      "the disk of %s has no room for %" PRIu64 " bytes, %" PRIu64
                      " are free; free some space, or name another folder",
                      self->root, size, left);
}

static mc_status bad_key(mc_error *err) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a key is 64 lower-case hex digits");
}

/* ---- abandoned stages ---- */

/* What can be told of a stage from outside. */
struct found {
  char key[KEY_SIZE];
  bool abandoned, resumable;
  int64_t used_at;
};

static bool look(struct found *found, const struct posix *self, const char *name) {
  char owner[OWNER_SIZE], path[PATH_SIZE];
  if (!parse_name(name, found->key, owner)) return false;
  int64_t data = posix_mtime(stage_file(path, self, name, "data"));
  int64_t journal = posix_mtime(stage_file(path, self, name, "journal"));
  int64_t folder = posix_mtime(stage_file(path, self, name, "")); /* newer than both while it's being made */
  found->used_at = data > journal ? data : journal;
  if (folder > found->used_at) found->used_at = folder;
  struct stat st;
  found->resumable = data && stat(stage_file(path, self, name, "journal"), &st) == 0 && st.st_size > 0;
  found->used_at -= self->skew_ms;
  found->abandoned = strcmp(owner, NOBODY) == 0 || !owner_may_live(owner, found->used_at, FOREIGN_MS);
  return true;
}

/* Make an abandoned stage ours. Of all who try, the rename of one succeeds. */
static bool take(char taken[NAME_SIZE], const struct posix *self, const char *name, const char *key) {
  char from[PATH_SIZE], to[PATH_SIZE];
  utimensat(AT_FDCWD, stage_file(from, self, name, "journal"), NULL, 0); /* so that others see it's in use again */
  new_name(taken, key, self->owner);
  posix_path(from, self, "stage/%s", name);
  posix_path(to, self, "stage/%s", taken);
  if (rename(from, to) == 0) return true;
  return errno == ENOENT && access(to, F_OK) == 0; /* NFS: done, but the answer was lost and it was asked again */
}

struct cleaning {
  struct posix *self;
  int64_t age_ms;
  bool removed;
};

static bool clean_stage(void *user, const char *name) {
  struct cleaning *cleaning = user;
  struct found found;
  char taken[NAME_SIZE], path[PATH_SIZE];
  if (!look(&found, cleaning->self, name) || !found.abandoned) return true;
  if (found.resumable && clock_wall_ms() - found.used_at < cleaning->age_ms) return true;
  if (!take(taken, cleaning->self, name, found.key)) return true;
  int error = remove_all(posix_path(path, cleaning->self, "stage/%s", taken));
  if (error) log_warn(&cleaning->self->logger, ORIGIN, "can't remove the abandoned stage %s", path);
  cleaning->removed |= !error;
  return true;
}

bool posix_clean_stages(struct posix *self, int64_t age_ms) {
  char path[PATH_SIZE];
  struct cleaning cleaning = {.self = self, .age_ms = age_ms};
  posix_each(posix_path(path, self, "stage"), clean_stage, &cleaning, NULL);
  return cleaning.removed;
}

/* ---- making ---- */

static void close_files(struct stage *stage) {
  if (stage->base.fd >= 0) close(stage->base.fd);
  if (stage->journal >= 0) close(stage->journal);
  stage->base.fd = stage->journal = -1;
  posix_record_drop(&stage->record);
}

/* Find the end of the journal's last whole frame, and cut off what is behind it. 0 or an errno. */
static int mend_journal(struct stage *stage, uint64_t size) {
  uint64_t at = 0, bytes = 0;
  uint32_t length;
  while (size - at > sizeof(length)) {
    int error = pread_all(stage->journal, &length, sizeof(length), at);
    if (error) return error;
    length = le32toh(length);
    if (!length || length > size - at - sizeof(length)) break;
    at += sizeof(length) + length;
    bytes += length;
  }
  if (at < size && ftruncate(stage->journal, (off_t)at)) return errno;
  stage->journal_size = at;
  stage->journal_bytes = bytes;
  return 0;
}

/* Open the files of a stage's folder; with O_CREAT they are made. 0 or an errno. */
static int open_files(struct stage **out, struct posix *self, const char *name, int flags) {
  char path[PATH_SIZE];
  struct stat data, journal;
  int error = 0;
  struct stage *stage = calloc(1, sizeof(*stage));
  if (!stage) return ENOMEM;
  *stage = (struct stage){.base = {.storage = &self->base, .fd = -1}, .journal = -1, .record = {.fd = -1}};
  snprintf(stage->name, sizeof(stage->name), "%s", name);
  stage->base.fd = open(stage_file(path, self, name, "data"), O_RDWR | O_CLOEXEC | flags, 0666);
  if (stage->base.fd < 0 || fstat(stage->base.fd, &data)) error = errno;
  if (!error) {
    stage->journal = open(stage_file(path, self, name, "journal"), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (stage->journal < 0 || fstat(stage->journal, &journal)) error = errno;
  }
  if (!error) error = mend_journal(stage, (uint64_t)journal.st_size);
  if (error) {
    close_files(stage);
    free(stage);
    return error;
  }
  stage->base.size = (uint64_t)data.st_size;
  *out = stage;
  return 0;
}

/* Make a stage's folder under a new name. 0 or an errno. */
static int make_folder(char name[NAME_SIZE], struct posix *self, const char *key) {
  char path[PATH_SIZE];
  new_name(name, key, self->owner);
  posix_path(path, self, "stage/%s", name);
  if (mkdir(path, 0777) == 0) return 0;
  return errno == ENOENT ? mkdir_all(path, 0777) : errno;
}

static int create(struct stage **out, struct posix *self, const char *key, uint64_t size) {
  char name[NAME_SIZE], path[PATH_SIZE];
  struct stage *stage = NULL;
  int error = make_folder(name, self, key);
  if (error) return error;
  error = open_files(&stage, self, name, O_CREAT);
  if (!error && size != MC_SIZE_UNKNOWN) error = file_allocate(stage->base.fd, size);
  if (error) {
    if (stage) close_files(stage);
    free(stage);
    remove_all(posix_path(path, self, "stage/%s", name));
    return error;
  }
  stage->base.size = size;
  *out = stage;
  return 0;
}

#define NO_KEY    "0000000000000000000000000000000000000000000000000000000000000000"
#define OWN_FILES "/proc/self/fd"

/* A file without a name. 0 or an errno. */
static int open_nameless(int *fd, const struct posix *self, mode_t mode) {
  char path[PATH_SIZE];
  *fd = open(posix_path(path, self, "stage"), O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
  return *fd < 0 ? errno : 0;
}

/* A name is given by way of /proc. It is written as a whole at once, so that a full disk shows without its blocks being
 * set aside. */
static int create_nameless(struct stage **out, struct posix *self, uint64_t size) {
  if (access(OWN_FILES, X_OK)) return EOPNOTSUPP;
  struct stage *stage = calloc(1, sizeof(*stage));
  if (!stage) return ENOMEM;
  *stage =
      (struct stage){.base = {.storage = &self->base, .fd = -1, .size = size}, .journal = -1, .record = {.fd = -1}};
  int error = open_nameless(&stage->base.fd, self, 0600);
  if (!error && ftruncate(stage->base.fd, (off_t)size)) error = errno;
  if (!error) {
    *out = stage;
    return 0;
  }
  close_files(stage);
  free(stage);
  return error;
}

static int create_any(struct stage **out, struct posix *self, const char *key, uint64_t size) {
  if (key) return create(out, self, key, size);
  int error = create_nameless(out, self, size);
  bool unable = error == EOPNOTSUPP || error == EISDIR || error == EINVAL || error == ENOENT;
  return unable ? create(out, self, NO_KEY, size) : error;
}

mc_status posix_stage_create(mc_storage *storage, const char *key, uint64_t size, mc_stage **out, mc_error *err) {
  struct posix *self = posix_of(storage);
  struct stage *stage;
  if (key && !key_is_valid(key)) return bad_key(err);
  int error = create_any(&stage, self, key, size);
  /* A download that is wanted now is worth more than those that nobody goes on with. */
  if (is_full(error) && posix_clean_stages(self, 0)) error = create_any(&stage, self, key, size);
  if (is_full(error)) return full(self, size, err);
  if (error) return posix_error(err, error, "can't begin a download in %s/stage", self->root);
  *out = &stage->base;
  return MC_OK;
}

struct adoption {
  struct posix *self;
  const char *key;
  struct stage *stage;
  int error; /* why one that was there could not be had */
};

/* Let go of a stage's folder: it is whose who renames it next. 0 or an errno. */
static int give_away(const struct posix *self, const char *name) {
  char from[PATH_SIZE], to[PATH_SIZE], key[KEY_SIZE], free_name[NAME_SIZE];
  snprintf(key, sizeof(key), "%.64s", name);
  new_name(free_name, key, NOBODY);
  posix_path(from, self, "stage/%s", name);
  return rename(from, posix_path(to, self, "stage/%s", free_name)) ? errno : 0;
}

/* Open a stage that was taken. Its data is read-only if its owner died between making it so and its rename. */
static int open_taken(struct stage **out, struct posix *self, const char *name) {
  char path[PATH_SIZE];
  int error = open_files(out, self, name, 0);
  if (error == EACCES && chmod(stage_file(path, self, name, "data"), 0644) == 0) {
    error = open_files(out, self, name, 0);
  }
  return error;
}

static bool adopt(void *user, const char *name) {
  struct adoption *adoption = user;
  struct found found;
  char taken[NAME_SIZE], path[PATH_SIZE];
  if (strncmp(name, adoption->key, KEY_SIZE - 1) != 0 || !look(&found, adoption->self, name)) return true;
  if (!found.abandoned || !take(taken, adoption->self, name, found.key)) return true;
  adoption->error = open_taken(&adoption->stage, adoption->self, taken);
  if (!posix_is_missing(adoption->error)) {
    /* Want of descriptors or memory passes, and what was downloaded should outlast it. */
    if (adoption->error) give_away(adoption->self, taken);
    return false;
  }
  adoption->error = 0; /* it has no data */
  remove_all(posix_path(path, adoption->self, "stage/%s", taken));
  return true;
}

mc_status posix_stage_resume(mc_storage *storage, const char *key, mc_stage **out, mc_error *err) {
  struct adoption adoption = {.self = posix_of(storage), .key = key};
  char path[PATH_SIZE];
  if (!key_is_valid(key)) return bad_key(err);
  int error = posix_each(posix_path(path, adoption.self, "stage"), adopt, &adoption, NULL);
  if (error) return posix_error(err, error, "can't look into %s", path);
  if (adoption.error) return posix_error(err, adoption.error, "can't open a download in %s", path);
  if (!adoption.stage) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "no download of this was left to be resumed");
  *out = &adoption.stage->base;
  return MC_OK;
}

mc_status posix_restage(mc_storage *storage, const mc_digest *digest, const char *key, mc_stage **out, mc_error *err) {
  struct posix *self = posix_of(storage);
  struct stage *stage = NULL;
  char object[PATH_SIZE], path[PATH_SIZE], name[NAME_SIZE];
  if (!key_is_valid(key)) return bad_key(err);
  posix_object_file(object, self, digest, "");
  if (access(object, F_OK)) return posix_missing(err, errno, object);
  int error = make_folder(name, self, key);
  if (error) return posix_error(err, error, "can't make a folder in %s/stage", self->root);
  if (rename(object, stage_file(path, self, name, "data"))) {
    error = errno;
  } else {
    if (chmod(path, 0644)) log_debug(&self->logger, ORIGIN, "can't change the mode of %s", path);
    unlink(posix_object_file(object, self, digest, ".meta"));
    error = open_files(&stage, self, name, 0);
  }
  if (!error) {
    *out = &stage->base;
    return MC_OK;
  }
  remove_all(posix_path(path, self, "stage/%s", name));
  if (posix_is_missing(error)) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s has just been removed", object);
  return posix_error(err, error, "can't take %s back", object);
}

/* ---- writing ---- */

mc_status posix_stage_resize(mc_stage *base, uint64_t size, mc_error *err) {
  struct stage *stage = stage_of(base);
  int error = file_allocate(base->fd, size);
  if (is_full(error)) return full(storage_of(stage), size, err);
  if (error) return posix_error(err, error, "can't set the size of a download in %s/stage", storage_of(stage)->root);
  base->size = size;
  return MC_OK;
}

/* Cut off half a frame, which would hide all that come after it. 0 or an errno. */
static int cut_torn(struct stage *stage) {
  if (stage->torn && ftruncate(stage->journal, (off_t)stage->journal_size)) return errno;
  stage->torn = false;
  return 0;
}

static int append(struct stage *stage, const void *data, size_t size) {
  uint32_t length = htole32((uint32_t)size);
  struct iovec frame[] = {{&length, sizeof(length)}, {(void *)data, size}};
  ssize_t put;
  int error = cut_torn(stage);
  if (error) return error;
  do {
    put = writev(stage->journal, frame, 2);
  } while (put < 0 && errno == EINTR);
  if (put < 0) return errno;
  if ((size_t)put != sizeof(length) + size) {
    stage->torn = true;
    cut_torn(stage); /* else with the next append, or when it is adopted */
    return ENOSPC;
  }
  stage->journal_size += (uint64_t)put;
  stage->journal_bytes += size;
  return 0;
}

mc_status posix_stage_append(mc_stage *base, const void *data, size_t size, mc_error *err) {
  struct stage *stage = stage_of(base);
  if (size > APPEND_MAX) return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "too much at once for a journal");
  int error = size ? append(stage, data, size) : 0;
  if (!error) return MC_OK;
  if (is_full(error)) return full(storage_of(stage), MC_SIZE_UNKNOWN, err);
  return posix_error(err, error, "can't write a journal in %s/stage", storage_of(stage)->root);
}

/* Take the lengths out, in place: what was appended remains. */
static size_t unframe(char *bytes, size_t size) {
  size_t at = 0, used = 0;
  uint32_t length;
  while (size - at > sizeof(length)) {
    memcpy(&length, bytes + at, sizeof(length));
    length = le32toh(length);
    at += sizeof(length);
    if (length > size - at) break; /* somebody else writes to it */
    memmove(bytes + used, bytes + at, length);
    at += length;
    used += length;
  }
  return used;
}

mc_status posix_stage_journal(mc_stage *base, void **data, size_t *size, size_t max, mc_error *err) {
  struct stage *stage = stage_of(base);
  size_t length = (size_t)stage->journal_size;
  if (stage->journal_bytes > max) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "a journal is larger than the %zu bytes it may have", max);
  }
  char *bytes = malloc(length + 1);
  if (!bytes) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a journal of %zu bytes", length);
  int error = pread_all(stage->journal, bytes, length, 0);
  if (error) {
    free(bytes);
    return posix_error(err, error, "can't read a journal in %s/stage", storage_of(stage)->root);
  }
  *size = unframe(bytes, length);
  bytes[*size] = 0;
  *data = bytes;
  return MC_OK;
}

/* ---- ending ---- */

/* Write the meta, which is opened, and lies in the stage's folder, if it has one. 0 or an errno. */
static int write_meta(int *out, const struct stage *stage, const void *meta, size_t size) {
  const struct posix *self = storage_of(stage);
  char path[PATH_SIZE];
  int fd = -1, error = 0;
  if (!*stage->name) {
    error = open_nameless(&fd, self, 0666);
  } else {
    fd = open(stage_file(path, self, stage->name, "meta"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) error = errno;
  }
  if (!error) error = write_all(fd, meta, size);
  if (!error) {
    *out = fd;
  } else if (fd >= 0) {
    close(fd);
  }
  return error;
}

/* Wait for all that the commit puts in place: the disk is told of all of it before the first wait, so that a file
 * system with a journal writes that once. 0 or an errno. */
static int flush_all(struct stage *stage, int meta) {
  struct posix *self = storage_of(stage);
  bool unsound;
  if (stage->unsound) return EIO;
  if (!*stage->name && !self->durable) return 0; /* no file system over a network */
  posix_begin_flush(self, stage->base.fd);
  posix_begin_flush(self, meta);
  posix_begin_flush(self, stage->record.fd);
  int error = posix_flush(self, stage->base.fd, &stage->unsound);
  if (!error) error = posix_flush(self, meta, &unsound);
  if (!error && stage->record.fd >= 0) error = posix_flush(self, stage->record.fd, &unsound);
  return error;
}

/* Give a nameless file its name. A link can't replace a file, a rename can: what is there may be half an object. 0 or
 * an errno. */
static int give_name(const struct posix *self, int fd, const char *to) {
  char from[64], between[PATH_SIZE], name[NAME_SIZE];
  snprintf(from, sizeof(from), OWN_FILES "/%d", fd);
  if (linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0) return 0;
  if (errno == ENOENT) {
    int error = posix_make_folder_of(to);
    if (error || linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0) return error;
  }
  if (errno != EEXIST) return errno;
  new_name(name, NO_KEY, self->owner);
  posix_path(between, self, "stage/%s", name);
  if (linkat(AT_FDCWD, from, AT_FDCWD, between, AT_SYMLINK_FOLLOW)) return errno;
  int error = rename(between, to) ? errno : 0;
  if (error) unlink(between);
  return error;
}

/* Put one of its files in its place. 0 or an errno. */
static int place(struct stage *stage, int fd, const char *file, const char *to) {
  char from[PATH_SIZE];
  if (!*stage->name) return give_name(storage_of(stage), fd, to);
  return posix_move(stage_file(from, storage_of(stage), stage->name, file), to);
}

/* Put record, meta and data in their places, in this order. 0 or an errno; ENOENT: the folder was taken away. */
static int place_all(struct stage *stage, const mc_digest *digest, int meta) {
  struct posix *self = storage_of(stage);
  char to[PATH_SIZE], hex[MC_DIGEST_HEX_SIZE];
  bool has_record = stage->record.fd >= 0;
  if (fchmod(stage->base.fd, 0444)) log_debug(&self->logger, ORIGIN, "can't make an object read-only");
  int error = has_record ? posix_record_place(&stage->record) : 0;
  if (!error) error = place(stage, meta, "meta", posix_object_file(to, self, digest, ".meta"));
  if (!error) error = place(stage, stage->base.fd, "data", posix_object_file(to, self, digest, ""));
  if (!error && has_record) error = posix_record_settle(&stage->record, self);
  mc_digest_hex(hex, digest);
  return error ? error : posix_flush_names(self, "objects", hex);
}

static int commit_files(struct stage *stage, const mc_digest *digest, const void *meta, size_t meta_size) {
  int fd, error = write_meta(&fd, stage, meta, meta_size);
  if (!error) {
    error = flush_all(stage, fd);
    if (!error) error = place_all(stage, digest, fd);
    if (close(fd) && !error) error = errno;
  }
  posix_record_drop(&stage->record);
  return error;
}

mc_status posix_stage_record(mc_stage *base, const char *key, const void *data, size_t size, mc_error *err) {
  struct stage *stage = stage_of(base);
  struct posix *self = storage_of(stage);
  if (!key_is_valid(key)) return bad_key(err);
  posix_record_drop(&stage->record);
  int error = posix_record_draft(&stage->record, self, key, data, size);
  if (is_full(error)) return full(self, MC_SIZE_UNKNOWN, err);
  return error ? posix_error(err, error, "can't write a record into %s/records", self->root) : MC_OK;
}

mc_status posix_stage_commit(mc_stage *base, const mc_digest *digest, const void *meta, size_t meta_size,
                             mc_error *err) {
  struct stage *stage = stage_of(base);
  struct posix *self = storage_of(stage);
  char path[PATH_SIZE];
  int error = commit_files(stage, digest, meta, meta_size);
  if (posix_is_missing(error)) {
    return mc_error_set(err, MC_BUSY, ORIGIN, "another process has taken this download over; try again");
  }
  if (is_full(error)) return full(self, MC_SIZE_UNKNOWN, err);
  if (error) return posix_error(err, error, "can't put an object into %s", self->root);
  close_files(stage); /* first: what is open keeps its folder alive on NFS */
  if (*stage->name) remove_all(posix_path(path, self, "stage/%s", stage->name));
  free(stage);
  return MC_OK;
}

void posix_stage_close(mc_stage *base, bool keep) {
  struct stage *stage = stage_of(base);
  struct posix *self = storage_of(stage);
  char path[PATH_SIZE];
  close_files(stage); /* first: what is open keeps its folder alive on NFS */
  keep = keep && !stage->unsound && *stage->name && give_away(self, stage->name) == 0;
  if (!keep && *stage->name && remove_all(posix_path(path, self, "stage/%s", stage->name))) {
    log_warn(&self->logger, ORIGIN, "can't remove the stage %s", path);
  }
  free(stage);
}
