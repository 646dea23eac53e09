#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

int pread_all(int fd, void *data, size_t size, uint64_t offset) {
  char *at = data;
  while (size) {
    ssize_t got = pread(fd, at, size, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return ENODATA;
    at += got;
    offset += (uint64_t)got;
    size -= (size_t)got;
  }
  return 0;
}

int pwrite_all(int fd, const void *data, size_t size, uint64_t offset) {
  const char *at = data;
  while (size) {
    ssize_t put = pwrite(fd, at, size, (off_t)offset);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return put ? errno : EIO;
    at += put;
    offset += (uint64_t)put;
    size -= (size_t)put;
  }
  return 0;
}

int write_all(int fd, const void *data, size_t size) {
  const char *at = data;
  while (size) {
    ssize_t put = write(fd, at, size);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return put ? errno : EIO;
    at += put;
    size -= (size_t)put;
  }
  return 0;
}

int mkdir_all(const char *path, mode_t mode) {
  if (!*path) return ENOENT;
  char *copy = strdup(path);
  if (!copy) return ENOMEM;
  int error = 0;
  for (char *at = copy + 1;; at++) {
    if (*at != '/' && *at) continue;
    char end = *at;
    *at = 0;
    if (mkdir(copy, mode) && errno != EEXIST && !error) error = errno;
    *at = end;
    if (!end) break;
  }
  struct stat st;
  if (stat(path, &st)) {
    if (!error) error = errno;
  } else {
    error = S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
  }
  free(copy);
  return error;
}

int fsync_folder(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = fsync(fd) && errno != EINVAL && errno != ENOTSUP ? errno : 0;
  close(fd);
  return error;
}

int file_read(const char *path, void **data, size_t *size, size_t max) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO of that name must not hold us */
  if (fd < 0) return errno;
  struct stat st;
  int error = fstat(fd, &st) ? errno : 0;
  if (!error && !S_ISREG(st.st_mode)) error = EINVAL;
  if (!error && (uint64_t)st.st_size > max) error = EFBIG;
  char *bytes = error ? NULL : malloc((size_t)st.st_size + 1);
  if (!error && !bytes) error = ENOMEM;
  if (!error) error = pread_all(fd, bytes, (size_t)st.st_size, 0);
  close(fd);
  if (error) {
    free(bytes);
    return error;
  }
  bytes[st.st_size] = 0;
  *data = bytes;
  *size = (size_t)st.st_size;
  return 0;
}

int file_replace(const char *path, const void *data, size_t size, mode_t mode, bool durable) {
  char *temporary = format_str("%s.XXXXXX", path);
  if (!temporary) return ENOMEM;
  int fd = mkostemp(temporary, O_CLOEXEC);
  if (fd < 0) {
    int error = errno;
    free(temporary);
    return error;
  }
  int error = write_all(fd, data, size);
  if (!error && fchmod(fd, mode)) error = errno;
  if (!error && durable && fsync(fd)) error = errno;
  if (close(fd) && !error) error = errno;
  if (!error && rename(temporary, path)) error = errno;
  if (error) unlink(temporary);
  if (!error && durable) {
    char *slash = strrchr(temporary, '/');
    if (slash) slash[slash == temporary] = 0; /* the root keeps its slash */
    error = fsync_folder(slash ? temporary : ".");
  }
  free(temporary);
  return error;
}

int file_allocate(int fd, uint64_t size) {
  struct stat st;
  int error = 0;
  if (size > INT64_MAX) return EFBIG;
  if (fstat(fd, &st)) return errno;
  if (size > (uint64_t)st.st_size) {
    do {
      error = fallocate(fd, 0, 0, (off_t)size) ? errno : 0;
    } while (error == EINTR);
    if (error == EOPNOTSUPP || error == ENOSYS) error = 0;
  }
  if (!error && ftruncate(fd, (off_t)size)) error = errno;
  if (error && ftruncate(fd, st.st_size)) return errno;
  return error;
}

int file_draft(int *fd, char **temporary, const char *path) {
  const char *slash = strrchr(path, '/');
  char *folder = slash == path ? strdup("/") : slash ? format_str("%.*s", (int)(slash - path), path) : strdup(".");
  *temporary = NULL;
  *fd = folder ? open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;
  int error = *fd >= 0 ? 0 : folder ? errno : ENOMEM;
  free(folder);
  if (error != EOPNOTSUPP && error != EISDIR && error != EINVAL) return error;
  *temporary = format_str("%s.XXXXXX", path);
  *fd = *temporary ? mkostemp(*temporary, O_CLOEXEC) : -1;
  error = *fd >= 0 ? 0 : *temporary ? errno : ENOMEM;
  if (error) {
    free(*temporary);
    *temporary = NULL;
  }
  return error;
}

int file_publish(int fd, char *temporary, const char *path) {
  int error = fchmod(fd, 0644) ? errno : 0;
  if (!error && !temporary) { /* a link can't replace a file, a rename can */
    uint32_t number;
    char from[64];
    random_bytes(&number, sizeof(number));
    snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
    temporary = format_str("%s.%08x", path, number);
    if (!temporary) return ENOMEM;
    if (linkat(AT_FDCWD, from, AT_FDCWD, temporary, AT_SYMLINK_FOLLOW)) {
      error = errno;
      free(temporary); /* what has that name, if anything, is not ours */
      return error;
    }
  }
  if (!error && rename(temporary, path)) error = errno;
  if (error && temporary) unlink(temporary);
  free(temporary);
  return error;
}

void file_discard(char *temporary) {
  if (temporary) unlink(temporary);
  free(temporary);
}

static int remove_at(int parent, const char *name) {
  if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) return 0;
  int why = errno;
  if (why != EISDIR && why != EPERM) return why; /* POSIX has EPERM for a folder, Linux EISDIR */
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? 0 : errno == ENOTDIR ? why : errno;
  DIR *dir = fdopendir(fd);
  if (!dir) {
    int error = errno;
    close(fd);
    return error;
  }
  int error = 0;
  struct dirent *entry;
  while (!error && (entry = readdir(dir))) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    error = remove_at(fd, entry->d_name);
  }
  closedir(dir);
  if (!error && unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT) error = errno;
  return error;
}

int remove_all(const char *path) {
  return remove_at(AT_FDCWD, path);
}

#define COPY_PIECE ((size_t)64 << 20)

static bool always(void *arg) {
  (void)arg;
  return true;
}

int copy_fd(int from, int to, uint64_t size) {
  return copy_fd_while(from, to, size, always, NULL);
}

/* Copy the bytes from `at` to `end`. 0 or an errno. */
static int copy_range(int from, int to, uint64_t at, uint64_t end, bool (*go_on)(void *arg), void *arg) {
  off_t in = (off_t)at, out = (off_t)at;
  while ((uint64_t)in < end && go_on(arg)) {
    uint64_t left = end - (uint64_t)in;
    ssize_t copied = copy_file_range(from, &in, to, &out, left < COPY_PIECE ? (size_t)left : COPY_PIECE, 0);
    if (copied < 0 && errno == EINTR) continue;
    if (copied <= 0) break; /* not between these file systems, or not at all: by hand from here */
  }
  if ((uint64_t)in >= end) return 0;
  char *block = malloc(1 << 20);
  if (!block) return ENOMEM;
  int error = 0;
  for (at = (uint64_t)in; at < end && !error;) {
    size_t piece = end - at < (1 << 20) ? (size_t)(end - at) : (1 << 20);
    error = go_on(arg) ? pread_all(from, block, piece, at) : ECANCELED;
    if (!error) error = pwrite_all(to, block, piece, at);
    at += piece;
  }
  free(block);
  return error;
}

int copy_fd_while(int from, int to, uint64_t size, bool (*go_on)(void *arg), void *arg) {
  struct stat st;
  if (!go_on(arg)) return ECANCELED;
  if (fstat(from, &st) == 0 && (uint64_t)st.st_size == size && ioctl(to, FICLONE, from) == 0) return 0;
  return copy_range(from, to, 0, size, go_on, arg);
}

int copy_fd_sparse(int from, int to) {
  struct stat st;
  if (ioctl(to, FICLONE, from) == 0) return 0;
  if (fstat(from, &st) || ftruncate(to, st.st_size)) return errno;
  int error = 0;
  for (off_t at = 0, end; at < st.st_size && !error; at = end) {
    at = lseek(from, at, SEEK_DATA);
    if (at < 0) return errno == ENXIO ? 0 : errno; /* a hole up to the end */
    end = lseek(from, at, SEEK_HOLE);
    if (end < 0) return errno;
    if (end > st.st_size) end = st.st_size; /* it grows */
    if (at < end) error = copy_range(from, to, (uint64_t)at, (uint64_t)end, always, NULL);
  }
  return error;
}

char *format_str(const char *format, ...) {
  char *text;
  va_list args;
  va_start(args, format);
  int length = vasprintf(&text, format, args);
  va_end(args);
  return length < 0 ? NULL : text;
}

void random_bytes(void *data, size_t size) {
  char *at = data;
  while (size) {
    ssize_t got = getrandom(at, size, 0);
    if (got <= 0) continue;
    at += got;
    size -= (size_t)got;
  }
}

/* ---- owners ---- */

/* Whether an error is of the moment, and says nothing of what was asked for. */
static bool is_passing(int errnum) {
  return errnum == EMFILE || errnum == ENFILE || errnum == ENOMEM || errnum == EINTR;
}

/* Where a pid means what it means here: this boot of this machine, and this pid namespace. Containers on one machine
 * share the boot id, and each has a process 1; the first namespaces of two machines have one number. Without both it is
 * told of nobody that he is gone. False: it can't be told now. */
#define NO_BOOT "00000000"
static bool boot_id(char boot[9]) {
  char text[9] = "";
  struct stat st;
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0 && is_passing(errno)) return false;
  if (fd >= 0 && read(fd, text, 8) != 8) text[0] = 0;
  if (fd >= 0) close(fd);
  strcpy(boot, NO_BOOT);
  if (!text[0] || stat("/proc/self/ns/pid", &st)) return true;
  snprintf(boot, 9, "%08x", (uint32_t)strtoul(text, NULL, 16) ^ (uint32_t)st.st_ino);
  return true;
}

/* The 22nd field of /proc/PID/stat; 0 if there is no such process. False: it can't be told now. */
static bool start_time(long pid, unsigned long long *started) {
  char path[64], text[1024];
  snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
  *started = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return !is_passing(errno);
  ssize_t got = read(fd, text, sizeof(text) - 1);
  int error = errno;
  close(fd);
  if (got <= 0) return got == 0 || !is_passing(error);
  text[got] = 0;
  char *at = strrchr(text, ')'); /* the command's name may hold anything */
  if (at && at[1] == ' ' && at[2] == 'Z') return true;
  for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
  if (at) *started = strtoull(at, NULL, 10);
  return true;
}

bool owner_name(char owner[OWNER_SIZE]) {
  char boot[9];
  unsigned long long started = 0;
  bool told = boot_id(boot) && start_time(getpid(), &started);
  snprintf(owner, OWNER_SIZE, "%s.%ld.%llu", told ? boot : NO_BOOT, (long)getpid(), started);
  return told;
}

bool owner_may_live(const char *owner, int64_t mtime_ms, int64_t older_than_ms) {
  char boot[9], theirs[9];
  long pid;
  unsigned long long started, now;
  if (sscanf(owner, "%8[0-9a-f].%ld.%llu", theirs, &pid, &started) != 3 || pid <= 0) return false;
  if (!boot_id(boot)) return true;
  if (strcmp(boot, theirs) == 0 && strcmp(boot, NO_BOOT) != 0) {
    if (!start_time(pid, &now)) return true;
    if (now) return now == started;
    /* Gone, or a zombie; unless /proc hides other users' processes from us, which only a signal finds. */
    if (kill((pid_t)pid, 0) == 0 || errno != EPERM) return false;
  }
  return clock_wall_ms() - mtime_ms <= older_than_ms;
}
