/* file: files of this machine, by file:///path. A version is told by inode and change time, which is set by everything
 * that touches the file and can't be set back as the modification time can. A file that changes while it is read is
 * MC_CHANGED. Listings follow no links: what they lead to may be outside the folder. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/url.h"
#include <modelcache/backend/upstream.h>

#define ORIGIN    "file"
#define MAX_DEPTH 32

/* Two changes so close to each other may have the same time: a clock tick is up to 10 ms. */
#define SETTLED (20 * NS_PER_MS)

struct source {
  mc_source base;
  int fd;
  uint64_t size;
  mc_validators validators;
};

static void describe(mc_info *info, const struct stat *st) {
  *info = (mc_info){.size = (uint64_t)st->st_size, .ranges = true};
  info->validators.last_modified = st->st_mtim.tv_sec;
  snprintf(info->validators.version, sizeof(info->validators.version), "%llu-%lld.%09ld",
           (unsigned long long)st->st_ino, (long long)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
}

/* How long the next change may yet bear the same time as the last one; 0: it can't. */
static int64_t unsettled_ns(const struct stat *st) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  int64_t age = (now.tv_sec - st->st_ctim.tv_sec) * NS_PER_S + now.tv_nsec - st->st_ctim.tv_nsec;
  return age < 0 || age >= SETTLED ? 0 : SETTLED - age;
}

/* Look at an open file; at one that changed a moment ago again when the next change is bound to have another time. */
static mc_status look(struct stat *st, int fd, mc_error *err) {
  for (bool again = false;; again = true) {
    if (fstat(fd, st)) return mc_error_errno(err, errno, ORIGIN, "can't look at a file");
    int64_t left = unsettled_ns(st);
    if (again || !left) return MC_OK;
    nanosleep(&(struct timespec){.tv_nsec = left}, NULL);
  }
}

/* The path of a URL, malloced. */
static mc_status path_of(char **out, const char *url, mc_error *err) {
  struct url parsed;
  mc_status status = url_parse(&parsed, url, err);
  if (status) return status;
  char *path = malloc(parsed.path_size + 1);
  bool good = path && url_decode(path, parsed.path, parsed.path_size);
  url_free(&parsed);
  if (!good) {
    free(path);
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the URL's path can't be decoded");
  }
  *out = path;
  return MC_OK;
}

static mc_status check_type(const struct stat *st, const char *path, mc_error *err) {
  if (S_ISREG(st->st_mode)) return MC_OK;
  if (S_ISDIR(st->st_mode)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s is a folder; get it as a tree", path);
  }
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s is not a regular file", path);
}

/* The type is looked at before it is opened, as to open a device may do something, and again behind, as it may be
 * another one by then. */
static mc_status open_path(int *fd, mc_info *info, const char *path, mc_error *err) {
  struct stat st;
  if (stat(path, &st)) return mc_error_errno(err, errno, ORIGIN, "can't look at %s", path);
  mc_status status = check_type(&st, path, err);
  if (status) return status;
  int got = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (got < 0) return mc_error_errno(err, errno, ORIGIN, "can't open %s", path);
  status = look(&st, got, err);
  if (!status) status = check_type(&st, path, err);
  if (status) {
    close(got);
    return status;
  }
  describe(info, &st);
  *fd = got;
  return MC_OK;
}

static mc_status open_file(int *fd, mc_info *info, const char *url, const mc_call *call, mc_error *err) {
  char *path = NULL;
  mc_status status = mc_call_check(call, err);
  if (!status) status = path_of(&path, url, err);
  if (!status) status = open_path(fd, info, path, err);
  free(path);
  return status;
}

static mc_status file_stat(mc_upstream *self, const char *url, mc_info *info, const mc_call *call, mc_error *err) {
  (void)self;
  int fd = -1;
  mc_status status = open_file(&fd, info, url, call, err);
  if (!status) close(fd);
  return status;
}

static mc_status file_source_open(mc_upstream *self, const mc_open_args *args, mc_source **out, mc_info *info,
                                  const mc_call *call, mc_error *err) {
  int fd = -1;
  *out = NULL;
  mc_status status = open_file(&fd, info, args->url, call, err);
  if (status) return status;
  if (args->known && args->known_size == info->size && strcmp(args->known->version, info->validators.version) == 0) {
    *info = (mc_info){.unchanged = true, .validators = info->validators};
    close(fd);
    return MC_OK;
  }
  struct source *source = calloc(1, sizeof(*source));
  if (!source) {
    close(fd);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  }
  *source = (struct source){.base = {self}, .fd = fd, .size = info->size, .validators = info->validators};
  *out = &source->base;
  return MC_OK;
}

static mc_status check_unchanged(struct source *source, mc_error *err) {
  struct stat st;
  mc_info now;
  if (fstat(source->fd, &st)) return mc_error_errno(err, errno, ORIGIN, "can't look at a file");
  describe(&now, &st);
  if (strcmp(now.validators.version, source->validators.version) == 0) return MC_OK;
  return mc_error_set(err, MC_CHANGED, ORIGIN, "the file changed while it was read");
}

static mc_status file_source_read(mc_source *base, mc_sink *sink, const mc_call *call, mc_error *err) {
  struct source *source = (struct source *)base;
  uint64_t end = sink->end == MC_SIZE_UNKNOWN ? source->size : sink->end;
  while (sink->offset < end) {
    size_t space;
    mc_status status = mc_call_check(call, err);
    if (status) return status;
    void *to = sink->space(sink, &space);
    if (space > end - sink->offset) space = (size_t)(end - sink->offset);
    ssize_t got = pread(source->fd, to, space, (off_t)sink->offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return mc_error_errno(err, errno, ORIGIN, "can't read a file");
    if (got == 0) {
      status = check_unchanged(source, err);
      return status ? status : mc_error_set(err, MC_CHANGED, ORIGIN, "the file became shorter while it was read");
    }
    status = sink->advance(sink, (size_t)got, err);
    if (status) return status;
  }
  return check_unchanged(source, err);
}

static void file_source_close(mc_source *base) {
  struct source *source = (struct source *)base;
  close(source->fd);
  free(source);
}

/* ---- listing ---- */

struct listing {
  size_t count, max;
  bool (*visit)(void *user, const mc_listed *listed);
  void *user;
  bool stopped;
  const mc_call *call;
};

static mc_status list_folder(struct listing *listing, int parent, const char *name, const char *prefix, int depth,
                             mc_error *err);

static mc_status list_name(struct listing *listing, int folder, const char *name, const char *prefix, int depth,
                           mc_error *err) {
  struct stat st;
  char *path = format_str("%s%s%s", prefix, *prefix ? "/" : "", name);
  mc_status status = path ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  if (!status && fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW)) {
    bool gone = errno == ENOENT; /* since its name was read */
    if (!gone) status = mc_error_errno(err, errno, ORIGIN, "can't look at %s", path);
    free(path);
    return status;
  }
  if (status) return status;
  if (S_ISDIR(st.st_mode)) {
    status = list_folder(listing, folder, name, path, depth + 1, err);
  } else if (S_ISREG(st.st_mode) && !path_is_safe(path)) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s has a name that is not safe to use elsewhere", path);
  } else if (S_ISREG(st.st_mode)) {
    mc_info info;
    describe(&info, &st);
    if (unsettled_ns(&st)) info.validators.version[0] = 0; /* what is opened may be another one */
    mc_listed listed = {.path = path, .size = info.size, .validators = info.validators};
    if (listing->count++ == listing->max) {
      status = mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "the folder has more than %zu files", listing->max);
    } else {
      listing->stopped = !listing->visit(listing->user, &listed);
    }
  }
  free(path);
  return status;
}

static mc_status list_folder(struct listing *listing, int parent, const char *name, const char *prefix, int depth,
                             mc_error *err) {
  if (depth > MAX_DEPTH) return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "folders are nested too deeply");
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (depth ? O_NOFOLLOW : 0));
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    int error = errno;
    if (fd >= 0) close(fd);
    if (depth && (error == ENOENT || error == ENOTDIR || error == ELOOP)) return MC_OK; /* something else by now */
    return mc_error_errno(err, error, ORIGIN, "can't list %s", name);
  }
  mc_status status = MC_OK;
  struct dirent *entry;
  while (!status && !listing->stopped) {
    errno = 0;
    entry = readdir(dir);
    if (!entry) {
      if (errno) status = mc_error_errno(err, errno, ORIGIN, "can't list %s", name);
      break;
    }
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    status = mc_call_check(listing->call, err);
    if (!status) status = list_name(listing, fd, entry->d_name, prefix, depth, err);
  }
  closedir(dir);
  return status;
}

static mc_status file_list(mc_upstream *self, const char *url, size_t max,
                           bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                           mc_error *err) {
  (void)self;
  char *path = NULL;
  mc_status status = mc_call_check(call, err);
  if (!status) status = path_of(&path, url, err);
  if (status) return status;
  struct listing listing = {.max = max, .visit = visit, .user = user, .call = call};
  status = list_folder(&listing, AT_FDCWD, path, "", 0, err);
  free(path);
  return status;
}

static void file_close(mc_upstream *self) {
  free(self);
}

static mc_status file_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err);

static const char *const schemes[] = {"file", NULL};

extern const mc_upstream_ops file_upstream_ops;
const mc_upstream_ops file_upstream_ops = {
    .abi = MC_UPSTREAM_ABI,
    .name = "file",
    .schemes = schemes,
    .open = file_open,
    .close = file_close,
    .stat = file_stat,
    .source_open = file_source_open,
    .source_read = file_source_read,
    .source_close = file_source_close,
    .list = file_list,
};

static mc_status file_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  (void)config;
  mc_upstream *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  self->ops = &file_upstream_ops;
  *out = self;
  return MC_OK;
}
