/* Stages of the posix storage: folders "<key>.<owner>.<random>" that hold a download's data and journal.
 *
 *   its owner is …               means                                              becomes
 *   a process that lives         it is written to                                   an object, removed, or nobody's
 *   nobody                       closed to be resumed                               whoever renames it first
 *   a process that is gone       left by a crash                                    whoever renames it first
 *   elsewhere, and still         left by a crash, or its owner is paused            copied by whoever renames it first
 *
 * A stage without a key is a file that has no name before it is committed, where the file system can do that: it goes
 * with its process. A network file system can't: there it has a stage's name, without a folder.
 *
 * The journal is a row of frames, each a length (u32, little-endian, never 0) and so many bytes: a process that is
 * killed inside of write(2) can leave half of what it wrote, which is cut off when the stage is adopted. adopt.c takes
 * over what others left, commit.c makes a stage an object. */
#include "stage.h"

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

#define SEEN_MS 1000 /* how often others see that an owner lives, at most */

char *stage_file(char path[PATH_SIZE], const struct posix *self, const char *name, const char *file) {
  return posix_path(path, self, "stage/%s/%s", name, file);
}

char *stage_data(char path[PATH_SIZE], const struct stage *stage) {
  return posix_path(path, storage_of(stage), stage->is_file ? "stage/%s" : "stage/%s/data", stage->name);
}

void stage_new_name(char name[NAME_SIZE], const char *key, const char *owner) {
  uint64_t number;
  random_bytes(&number, sizeof(number));
  snprintf(name, NAME_SIZE, "%.64s.%.63s.%016" PRIx64, key, owner, number);
}

bool stage_is_full(int errnum) {
  return errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG;
}

mc_status stage_full(struct posix *self, uint64_t size, mc_error *err) {
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

mc_status stage_bad_key(mc_error *err) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a key is 64 lower-case hex digits");
}

/* ---- making ---- */

void stage_close_files(struct stage *stage) {
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

int stage_open_files(struct stage **out, struct posix *self, const char *name, int flags) {
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
    stage_close_files(stage);
    free(stage);
    return error;
  }
  stage->base.size = (uint64_t)data.st_size;
  *out = stage;
  return 0;
}

int stage_make_folder(char name[NAME_SIZE], struct posix *self, const char *key) {
  char path[PATH_SIZE];
  stage_new_name(name, key, self->owner);
  posix_path(path, self, "stage/%s", name);
  if (mkdir(path, 0777) == 0 || errno == EEXIST) return 0; /* NFS: the answer was lost, and it was asked again */
  return errno == ENOENT ? mkdir_all(path, 0777) : errno;
}

static int create(struct stage **out, struct posix *self, const char *key, uint64_t size) {
  char name[NAME_SIZE], path[PATH_SIZE];
  struct stage *stage = NULL;
  int error = stage_make_folder(name, self, key);
  if (error) return error;
  error = stage_open_files(&stage, self, name, O_CREAT);
  if (!error && size != MC_SIZE_UNKNOWN) error = file_allocate(stage->base.fd, size);
  if (error) {
    if (stage) stage_close_files(stage);
    free(stage);
    remove_all(posix_path(path, self, "stage/%s", name));
    return error;
  }
  stage->base.size = size;
  *out = stage;
  return 0;
}

int stage_open_nameless(int *fd, const struct posix *self, mode_t mode) {
  char path[PATH_SIZE];
  *fd = open(posix_path(path, self, "stage"), O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
  return *fd < 0 ? errno : 0;
}

/* A small file, of data alone. Without a name, which is given by way of /proc, where that can be. It is written as a
 * whole at once, so that a full disk shows without its blocks being set aside. 0 or an errno. */
static int create_small(struct stage **out, struct posix *self, uint64_t size) {
  char path[PATH_SIZE];
  int error = 0;
  struct stage *stage = calloc(1, sizeof(*stage));
  if (!stage) return ENOMEM;
  *stage =
      (struct stage){.base = {.storage = &self->base, .fd = -1, .size = size}, .journal = -1, .record = {.fd = -1}};
  if (self->nameless) {
    error = stage_open_nameless(&stage->base.fd, self, 0600);
  } else {
    stage->is_file = true;
    stage_new_name(stage->name, NO_KEY, self->owner);
    stage->base.fd = open(stage_data(path, stage), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (stage->base.fd < 0) error = errno;
  }
  if (!error && ftruncate(stage->base.fd, (off_t)size)) error = errno;
  if (!error) {
    *out = stage;
    return 0;
  }
  if (stage->is_file && stage->base.fd >= 0) unlink(path);
  stage_close_files(stage);
  free(stage);
  return error;
}

static int create_any(struct stage **out, struct posix *self, const char *key, uint64_t size) {
  return key ? create(out, self, key, size) : create_small(out, self, size);
}

bool posix_can_be_nameless(const struct posix *self) {
  char from[64], name[NAME_SIZE], path[PATH_SIZE];
  int fd;
  if (stage_open_nameless(&fd, self, 0600)) return false;
  snprintf(from, sizeof(from), OWN_FILES "/%d", fd);
  stage_new_name(name, NO_KEY, self->owner);
  posix_path(path, self, "stage/%s", name);
  bool able = linkat(AT_FDCWD, from, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0;
  if (able) unlink(path);
  close(fd);
  return able;
}

mc_status posix_stage_create(mc_storage *storage, const char *key, uint64_t size, mc_stage **out, mc_error *err) {
  struct posix *self = posix_of(storage);
  struct stage *stage;
  if (key && !key_is_valid(key)) return stage_bad_key(err);
  int error = create_any(&stage, self, key, size);
  /* A download that is wanted now is worth more than those that nobody goes on with. */
  if (stage_is_full(error) && posix_clean_stages(self, 0)) error = create_any(&stage, self, key, size);
  if (stage_is_full(error)) return stage_full(self, size, err);
  if (error) return posix_error(err, error, "can't begin a download in %s/stage", self->root);
  *out = &stage->base;
  return MC_OK;
}

/* ---- writing ---- */

mc_status posix_stage_resize(mc_stage *base, uint64_t size, mc_error *err) {
  struct stage *stage = stage_of(base);
  int error = file_allocate(base->fd, size);
  if (stage_is_full(error)) return stage_full(storage_of(stage), size, err);
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

/* Another machine sees what is written when this one gets to sending it, which may take longer than we may seem to do
 * nothing. Setting the time sends it now. */
static void be_seen(struct stage *stage) {
  int64_t now = clock_ns() / NS_PER_MS;
  if (!storage_of(stage)->shared || now - stage->seen_ms < SEEN_MS) return;
  stage->seen_ms = now;
  futimens(stage->journal, NULL);
}

mc_status posix_stage_append(mc_stage *base, const void *data, size_t size, mc_error *err) {
  struct stage *stage = stage_of(base);
  if (size > JOURNAL_MAX) return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "too much at once for a journal");
  int error = size ? append(stage, data, size) : 0;
  if (!error) be_seen(stage);
  if (!error) return MC_OK;
  if (stage_is_full(error)) return stage_full(storage_of(stage), MC_SIZE_UNKNOWN, err);
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

void posix_stage_close(mc_stage *base, bool keep) {
  struct stage *stage = stage_of(base);
  struct posix *self = storage_of(stage);
  char path[PATH_SIZE];
  stage_close_files(stage); /* first: what is open keeps its folder alive on NFS */
  keep = keep && !stage->unsound && !stage->is_file && *stage->name && stage_give_away(self, stage->name) == 0;
  if (!keep && *stage->name && remove_all(posix_path(path, self, "stage/%s", stage->name))) {
    log_warn(&self->logger, ORIGIN, "can't remove the stage %s", path);
  }
  free(stage);
}
