/* rwxfs: a folder, seen as a bad network volume shows it. For tests: several mounts of one folder are several machines.
 *
 *   rwxfs FOLDER MOUNTPOINT [--control=FOLDER] [--names=MS] [--attrs=MS] [--copy-renames]
 *
 * It stays in the foreground, writes "ready" and a newline to stdout once it is mounted, and unmounts on SIGTERM.
 * Killed, it leaves a dead mount: umount -l MOUNTPOINT, and start it again.
 *
 *   always            no locks (ENOLCK), no hard links (EPERM), no files without a name (EOPNOTSUPP), no preallocation;
 *                     reading or writing a file that was removed by way of another mount, or replaced: ESTALE
 *   --names=MS        what a name led to, also that it was missing, is remembered for so long, whatever other mounts
 * do; forgotten when its folder is opened, as NFS has it (close-to-open), or it is changed from here
 *   --attrs=MS        so are a file's size and times, until it is opened
 *   --copy-renames    a rename of a file from folder to folder copies it, and removes the source then: the target can
 *                     be seen in part
 *   --control=FOLDER  files in it are switches: "full": no space (ENOSPC); "fsync-fails": the next fsync fails with
 * EIO, and the file is removed; "hold-rename": a copying rename stops in the middle until it's removed, and says that
 * it does so by making "held" */
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static struct {
  char *folder, *control;
  int names_ms, attrs_ms, copy_renames;
} options;

static char *full(char path[PATH_MAX], const char *name) {
  snprintf(path, PATH_MAX, "%s%s", options.folder, name);
  return path;
}

static int result(int value) {
  return value < 0 ? -errno : value;
}

/* ---- switches ---- */

#define HOLD_MS 20000 /* at most, should a test be stuck */

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static char *switch_path(char path[PATH_MAX], const char *name) {
  snprintf(path, PATH_MAX, "%s/%s", options.control, name);
  return path;
}

static bool is_on(const char *name) {
  char path[PATH_MAX];
  return options.control && access(switch_path(path, name), F_OK) == 0;
}

static void hold(void) {
  char path[PATH_MAX];
  if (!is_on("hold-rename")) return;
  close(open(switch_path(path, "held"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  for (int64_t until = now_ms() + HOLD_MS; is_on("hold-rename") && now_ms() < until;) usleep(1000);
  unlink(switch_path(path, "held"));
}

/* ---- what this machine remembers ---- */

#define BUCKETS  1024
#define GONE_MAX 1024

struct memory {
  struct memory *next;
  int64_t names_until, attrs_until;
  bool missing;
  struct stat st;
  char name[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all below */
static struct memory *memories[BUCKETS];
static ino_t gone[GONE_MAX]; /* files that a copying rename of this mount removed: who has one open keeps it */
static size_t gone_count;

static struct memory **bucket_of(const char *name) {
  uint32_t hash = 5381;
  for (const char *at = name; *at; at++) hash = hash * 33 + (unsigned char)*at;
  return &memories[hash % BUCKETS];
}

static void forget(const char *name) {
  pthread_mutex_lock(&lock);
  for (struct memory **at = bucket_of(name); *at;) {
    struct memory *memory = *at;
    if (strcmp(memory->name, name) == 0) {
      *at = memory->next;
      free(memory);
    } else {
      at = &memory->next;
    }
  }
  pthread_mutex_unlock(&lock);
}

static void remember(const char *name, const struct stat *st) {
  size_t size = strlen(name) + 1;
  forget(name);
  struct memory *memory = malloc(sizeof(*memory) + size);
  if (!memory) return;
  memcpy(memory->name, name, size);
  memory->missing = !st;
  if (st) memory->st = *st;
  memory->names_until = now_ms() + options.names_ms;
  memory->attrs_until = now_ms() + options.attrs_ms;
  pthread_mutex_lock(&lock);
  memory->next = *bucket_of(name);
  *bucket_of(name) = memory;
  pthread_mutex_unlock(&lock);
}

/* 0: as *st says; ENOENT: it's missing; EAGAIN: nothing is known any more. */
static int recall(const char *name, struct stat *st) {
  int64_t now = now_ms();
  int known = EAGAIN;
  pthread_mutex_lock(&lock);
  for (struct memory *at = *bucket_of(name); at && known == EAGAIN; at = at->next) {
    if (strcmp(at->name, name) != 0) continue;
    if (now < (at->missing ? at->names_until : at->attrs_until)) known = at->missing ? ENOENT : 0;
    if (!known) *st = at->st;
  }
  pthread_mutex_unlock(&lock);
  return known;
}

/* Something in the folder of `name` was changed from here. */
static void changed(const char *name) {
  char folder[PATH_MAX];
  forget(name);
  snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(name, '/') - name), name);
  forget(*folder ? folder : "/");
}

/* A folder was opened: of the names in it that are as remembered, the attributes stay. */
static void refresh(const char *folder) {
  char path[PATH_MAX];
  struct stat st;
  size_t length = strcmp(folder, "/") == 0 ? 0 : strlen(folder);
  forget(folder);
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < BUCKETS; i++) {
    for (struct memory **at = &memories[i]; *at;) {
      struct memory *memory = *at;
      bool within = strncmp(memory->name, folder, length) == 0 && memory->name[length] == '/' &&
                    !strchr(memory->name + length + 1, '/');
      bool same = !memory->missing && lstat(full(path, memory->name), &st) == 0 && st.st_ino == memory->st.st_ino;
      if (within && !same) {
        *at = memory->next;
        free(memory);
      } else {
        at = &memory->next;
      }
    }
  }
  pthread_mutex_unlock(&lock);
}

/* Whether another machine took a file away that is open here. */
static bool is_stale(int fd) {
  struct stat st;
  if (fstat(fd, &st) || st.st_nlink || !S_ISREG(st.st_mode)) return false;
  bool ours = false;
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < GONE_MAX; i++) ours |= gone[i] == st.st_ino;
  pthread_mutex_unlock(&lock);
  return !ours;
}

/* ---- names ---- */

static int fs_getattr(const char *name, struct stat *st, struct fuse_file_info *file) {
  char path[PATH_MAX];
  if (file) return result(fstat((int)file->fh, st));
  int known = recall(name, st);
  if (known != EAGAIN) return -known;
  if (lstat(full(path, name), st) == 0) {
    remember(name, st);
    return 0;
  }
  if (errno != ENOENT) return -errno;
  remember(name, NULL);
  return -ENOENT;
}

static int fs_opendir(const char *name, struct fuse_file_info *file) {
  char path[PATH_MAX];
  refresh(name);
  int fd = open(full(path, name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  file->fh = (uint64_t)fd;
  return 0;
}

static int fs_readdir(const char *name, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *file,
                      enum fuse_readdir_flags flags) {
  char path[PATH_MAX];
  (void)offset, (void)file, (void)flags;
  DIR *dir = opendir(full(path, name));
  if (!dir) return -errno;
  for (struct dirent *entry; (entry = readdir(dir));) fill(buffer, entry->d_name, NULL, 0, 0);
  closedir(dir);
  return 0;
}

static int fs_mkdir(const char *name, mode_t mode) {
  char path[PATH_MAX];
  changed(name);
  return is_on("full") ? -ENOSPC : result(mkdir(full(path, name), mode));
}

static int fs_rmdir(const char *name) {
  char path[PATH_MAX];
  changed(name);
  return result(rmdir(full(path, name)));
}

static int fs_unlink(const char *name) {
  char path[PATH_MAX];
  changed(name);
  return result(unlink(full(path, name)));
}

static int fs_symlink(const char *target, const char *name) {
  char path[PATH_MAX];
  changed(name);
  return is_on("full") ? -ENOSPC : result(symlink(target, full(path, name)));
}

static int fs_readlink(const char *name, char *target, size_t size) {
  char path[PATH_MAX];
  ssize_t length = readlink(full(path, name), target, size - 1);
  if (length < 0) return -errno;
  target[length] = 0;
  return 0;
}

static int fs_link(const char *from, const char *to) {
  (void)from, (void)to;
  return -EPERM;
}

static int copy_half(int in, int out, bool rest) {
  char block[65536];
  off_t size = lseek(in, 0, SEEK_END), half = size / 2, end = rest ? size : half;
  for (off_t at = rest ? half : 0; at < end;) {
    size_t piece = end - at < (off_t)sizeof(block) ? (size_t)(end - at) : sizeof(block);
    ssize_t got = pread(in, block, piece, at);
    if (got <= 0) return got < 0 ? errno : EIO;
    if (pwrite(out, block, (size_t)got, at) != got) return ENOSPC;
    at += got;
  }
  return 0;
}

static int copy_rename(const char *from, const char *to) {
  struct stat st;
  int in = open(from, O_RDONLY | O_CLOEXEC);
  if (in < 0) return -errno;
  fstat(in, &st);
  unlink(to);
  int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  int error = out < 0 ? errno : copy_half(in, out, false);
  if (!error) hold();
  if (!error) error = copy_half(in, out, true);
  const struct timespec times[] = {st.st_atim, st.st_mtim};
  if (!error && (fchmod(out, st.st_mode & 07777) || futimens(out, times))) error = errno;
  if (!error) {
    pthread_mutex_lock(&lock);
    gone[gone_count++ % GONE_MAX] = st.st_ino;
    pthread_mutex_unlock(&lock);
    if (unlink(from)) error = errno;
  }
  if (out >= 0) close(out);
  close(in);
  return -error;
}

static int fs_rename(const char *from, const char *to, unsigned flags) {
  char from_path[PATH_MAX], to_path[PATH_MAX];
  struct stat st;
  changed(from);
  changed(to);
  if (flags) return -EINVAL;
  full(from_path, from);
  full(to_path, to);
  size_t folder = (size_t)(strrchr(from, '/') - from);
  bool within = folder == (size_t)(strrchr(to, '/') - to) && strncmp(from, to, folder) == 0;
  if (options.copy_renames && !within && lstat(from_path, &st) == 0) {
    return S_ISREG(st.st_mode) ? copy_rename(from_path, to_path) : -EXDEV;
  }
  return result(rename(from_path, to_path));
}

static int fs_chmod(const char *name, mode_t mode, struct fuse_file_info *file) {
  char path[PATH_MAX];
  forget(name);
  return result(file ? fchmod((int)file->fh, mode) : chmod(full(path, name), mode));
}

static int fs_chown(const char *name, uid_t user, gid_t group, struct fuse_file_info *file) {
  char path[PATH_MAX];
  forget(name);
  return result(file ? fchown((int)file->fh, user, group) : lchown(full(path, name), user, group));
}

static int fs_truncate(const char *name, off_t size, struct fuse_file_info *file) {
  char path[PATH_MAX];
  forget(name);
  return result(file ? ftruncate((int)file->fh, size) : truncate(full(path, name), size));
}

static int fs_utimens(const char *name, const struct timespec times[2], struct fuse_file_info *file) {
  char path[PATH_MAX];
  forget(name);
  return result(file ? futimens((int)file->fh, times)
                     : utimensat(AT_FDCWD, full(path, name), times, AT_SYMLINK_NOFOLLOW));
}

/* ---- files ---- */

static int open_file(const char *name, int flags, mode_t mode, struct fuse_file_info *file) {
  char path[PATH_MAX];
  struct stat st;
  bool remembered = recall(name, &st) == 0;
  forget(name);
  if (flags & O_CREAT) changed(name);
  if (flags & O_CREAT && is_on("full")) return -ENOSPC;
  int fd = open(full(path, name), flags | O_CLOEXEC, mode);
  if (fd < 0) return errno == ENOENT && remembered ? -ESTALE : -errno;
  file->fh = (uint64_t)fd;
  return 0;
}

static int fs_open(const char *name, struct fuse_file_info *file) {
  return open_file(name, file->flags, 0, file);
}

static int fs_create(const char *name, mode_t mode, struct fuse_file_info *file) {
  return open_file(name, file->flags | O_CREAT, mode, file);
}

static int fs_read(const char *name, char *data, size_t size, off_t offset, struct fuse_file_info *file) {
  (void)name;
  if (is_stale((int)file->fh)) return -ESTALE;
  return result((int)pread((int)file->fh, data, size, offset));
}

static int fs_write(const char *name, const char *data, size_t size, off_t offset, struct fuse_file_info *file) {
  if (name) forget(name);
  if (is_stale((int)file->fh)) return -ESTALE;
  return is_on("full") ? -ENOSPC : result((int)pwrite((int)file->fh, data, size, offset));
}

static int fs_fsync(const char *name, int data_only, struct fuse_file_info *file) {
  char path[PATH_MAX];
  (void)name, (void)data_only; /* what is below outlives us */
  if (options.control && unlink(switch_path(path, "fsync-fails")) == 0) return -EIO;
  return is_stale((int)file->fh) ? -ESTALE : 0;
}

static int fs_release(const char *name, struct fuse_file_info *file) {
  (void)name;
  return result(close((int)file->fh));
}

static int fs_flock(const char *name, struct fuse_file_info *file, int op) {
  (void)name, (void)file, (void)op;
  return -ENOLCK;
}

static int fs_lock(const char *name, struct fuse_file_info *file, int command, struct flock *area) {
  (void)name, (void)file, (void)command, (void)area;
  return -ENOLCK;
}

static int fs_statfs(const char *name, struct statvfs *st) {
  char path[PATH_MAX];
  int error = result(statvfs(full(path, name), st));
  if (!error && is_on("full")) st->f_bavail = st->f_bfree = 0;
  return error;
}

static void *fs_init(struct fuse_conn_info *connection, struct fuse_config *config) {
  (void)connection;
  config->use_ino = 1;
  config->entry_timeout = config->negative_timeout = config->attr_timeout = 0; /* it is here that it is remembered */
  puts("ready");
  fflush(stdout);
  return NULL;
}

static const struct fuse_operations operations = {
    .init = fs_init,
    .getattr = fs_getattr,
    .opendir = fs_opendir,
    .readdir = fs_readdir,
    .releasedir = fs_release,
    .fsyncdir = fs_fsync,
    .mkdir = fs_mkdir,
    .rmdir = fs_rmdir,
    .unlink = fs_unlink,
    .symlink = fs_symlink,
    .readlink = fs_readlink,
    .link = fs_link,
    .rename = fs_rename,
    .chmod = fs_chmod,
    .chown = fs_chown,
    .truncate = fs_truncate,
    .utimens = fs_utimens,
    .open = fs_open,
    .create = fs_create,
    .read = fs_read,
    .write = fs_write,
    .fsync = fs_fsync,
    .release = fs_release,
    .flock = fs_flock,
    .lock = fs_lock,
    .statfs = fs_statfs,
};

#define OPTION(text, field)                                                                                            \
  { text, offsetof(__typeof__(options), field), 1 }

static int keep_names(void *data, const char *arg, int key, struct fuse_args *args) {
  (void)data, (void)args;
  if (key != FUSE_OPT_KEY_NONOPT) return 1;
  if (!options.folder) {
    options.folder = realpath(arg, NULL);
    return options.folder ? 0 : -1;
  }
  return 1;
}

int main(int argc, char **argv) {
  static const struct fuse_opt table[] = {OPTION("--control=%s", control), OPTION("--names=%d", names_ms),
                                          OPTION("--attrs=%d", attrs_ms), OPTION("--copy-renames", copy_renames),
                                          FUSE_OPT_END};
  struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
  if (fuse_opt_parse(&args, &options, table, keep_names) || !options.folder) {
    fprintf(stderr, "usage: rwxfs FOLDER MOUNTPOINT [--control=FOLDER] [--names=MS] [--attrs=MS] [--copy-renames]\n");
    return 2;
  }
  umask(0);
  fuse_opt_add_arg(&args, "-f");
  int code = fuse_main(args.argc, args.argv, &operations, NULL);
  fuse_opt_free_args(&args);
  return code;
}
