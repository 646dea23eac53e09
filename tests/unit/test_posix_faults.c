/* The posix storage when its system calls fail, and when its process dies between any two of them.
 *
 * The linker puts the functions below in the place of libc's (see unit_link_args in meson.build). Each act is done over
 * and over, with its first, second … call failing, until it gets through; whatever happens, nothing may be visible that
 * is not whole, no descriptor may stay open, and the storage must go on working. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include <modelcache/backend/storage.h>

extern const mc_storage_ops posix_storage_ops;

static const mc_storage_ops *const ops = &posix_storage_ops;
static const char KEY[] = "00000000000000000000000000000000000000000000000000000000000000aa";

/* ---- faults ---- */

static struct {
  int at;           /* the call that fails, counted from 1; 0: none */
  int more;         /* calls after it that fail, too */
  const char *only; /* count these alone; NULL: all */
  int seen;         /* calls since it was set */
  int error;        /* it fails with this; 0: the process dies in its stead */
  bool trouble;     /* calls that may be interrupted or cut short are, every other time */
  int64_t skew;     /* of our clock, in ms */
} fault;

static char trace[4096]; /* the names of calls, each with a blank behind it, since it was emptied */

static bool fails(const char *name) {
  if (strlen(trace) + strlen(name) + 2 < sizeof(trace)) strcat(strcat(trace, name), " ");
  if (!fault.at || (fault.only && strcmp(name, fault.only) != 0)) return false;
  if (++fault.seen < fault.at || fault.seen > fault.at + fault.more) return false;
  if (!fault.error) raise(SIGKILL);
  errno = fault.error;
  return true;
}

static bool is_troubled(void) {
  return fault.trouble && ++fault.seen % 2;
}

#define DECLARE(type, name, ...)                                                                                       \
  type __real_##name(__VA_ARGS__);                                                                                     \
  type __wrap_##name(__VA_ARGS__);
#define WRAP2(name, A, B)                                                                                              \
  DECLARE(int, name, A, B)                                                                                             \
  int __wrap_##name(A a, B b) {                                                                                        \
    return fails(#name) ? -1 : __real_##name(a, b);                                                                    \
  }
#define WRAP1(name, A)                                                                                                 \
  DECLARE(int, name, A)                                                                                                \
  int __wrap_##name(A a) {                                                                                             \
    return fails(#name) ? -1 : __real_##name(a);                                                                       \
  }

WRAP1(fsync, int)
WRAP1(unlink, const char *)
WRAP2(access, const char *, int)
WRAP2(chmod, const char *, mode_t)
WRAP2(fchmod, int, mode_t)
WRAP2(fstat64, int, struct stat *)
WRAP2(ftruncate64, int, off_t)
WRAP2(mkdir, const char *, mode_t)
WRAP2(mkostemp64, char *, int)
WRAP2(rename, const char *, const char *)

DECLARE(int, linkat, int, const char *, int, const char *, int)
int __wrap_linkat(int from, const char *path, int to, const char *name, int flags) {
  return fails("linkat") ? -1 : __real_linkat(from, path, to, name, flags);
}

DECLARE(int, open64, const char *, int, ...)
int __wrap_open64(const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  mode_t mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
  va_end(args);
  return fails("open64") ? -1 : __real_open64(path, flags, mode);
}

DECLARE(int, close, int)
int __wrap_close(int fd) { /* it's closed even if it fails */
  bool failed = fails("close");
  int error = errno, result = __real_close(fd);
  if (failed) errno = error;
  return failed ? -1 : result;
}

DECLARE(int, fallocate64, int, int, off_t, off_t)
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t size) {
  if (is_troubled()) {
    errno = EINTR;
    return -1;
  }
  return fails("fallocate64") ? -1 : __real_fallocate64(fd, mode, offset, size);
}

DECLARE(int, unlinkat, int, const char *, int)
int __wrap_unlinkat(int parent, const char *name, int flags) {
  return fails("unlinkat") ? -1 : __real_unlinkat(parent, name, flags);
}

DECLARE(int, sync_file_range, int, off_t, off_t, unsigned)
int __wrap_sync_file_range(int fd, off_t offset, off_t size, unsigned flags) {
  return fails("sync_file_range") ? -1 : __real_sync_file_range(fd, offset, size, flags);
}

DECLARE(ssize_t, write, int, const void *, size_t)
ssize_t __wrap_write(int fd, const void *data, size_t size) {
  if (is_troubled()) {
    if (size > 1) return __real_write(fd, data, size / 2);
    errno = EINTR;
    return -1;
  }
  return fails("write") ? -1 : __real_write(fd, data, size);
}

DECLARE(ssize_t, writev, int, const struct iovec *, int)
ssize_t __wrap_writev(int fd, const struct iovec *parts, int count) {
  if (is_troubled()) {
    errno = EINTR;
    return -1;
  }
  bool failed = fails("writev");
  if (failed && errno == ENOSPC) return __real_writev(fd, parts, 1); /* the disk is full in the middle of it */
  return failed ? -1 : __real_writev(fd, parts, count);
}

DECLARE(ssize_t, pread64, int, void *, size_t, off_t)
ssize_t __wrap_pread64(int fd, void *data, size_t size, off_t offset) {
  if (is_troubled()) {
    if (size > 1) return __real_pread64(fd, data, size / 2, offset);
    errno = EINTR;
    return -1;
  }
  return fails("pread64") ? -1 : __real_pread64(fd, data, size, offset);
}

int64_t __real_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void) {
  return __real_clock_wall_ms() + fault.skew;
}

/* ---- the world ---- */

#define SIZE 5000

struct world {
  char folder[64];
  mc_storage *storage;
  mc_stage *stage; /* of an act that needs one */
  uint8_t bytes[SIZE];
  mc_digest digest;
  mc_error err;
};

static unsigned open_files(void) {
  unsigned count = 0;
  DIR *folder = opendir("/proc/self/fd");
  assert_non_null(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static mc_status open_as(struct world *world, bool durable) {
  mc_storage_config config = {.struct_size = sizeof(config), .location = world->folder, .durable = durable};
  return ops->open(&world->storage, &config, &world->err);
}

static mc_status open_storage(struct world *world) {
  return open_as(world, true);
}

/* From now on the n-th call fails; with error 0 the process dies instead. */
static void set_fault(int n, int error) {
  fault.at = n;
  fault.seen = 0;
  fault.error = error;
}

static void begin(struct world *world) {
  memset(world, 0, sizeof(*world));
  strcpy(world->folder, "/dev/shm/modelcache-faults-XXXXXX");
  assert_non_null(mkdtemp(world->folder));
  for (size_t i = 0; i < SIZE; i++) world->bytes[i] = (uint8_t)(i * 31 + (i >> 8));
  sha256_of(&world->digest, world->bytes, SIZE);
  assert_int_equal(open_storage(world), MC_OK);
}

static void end(struct world *world) {
  if (world->stage) ops->stage_close(world->stage, false);
  if (world->storage) ops->close(world->storage);
  assert_int_equal(remove_all(world->folder), 0);
}

static void make_stage(struct world *world) {
  assert_int_equal(ops->stage_create(world->storage, KEY, SIZE, &world->stage, NULL), MC_OK);
  assert_int_equal(pwrite_all(world->stage->fd, world->bytes, SIZE, 0), 0);
  assert_int_equal(ops->stage_append(world->stage, "journal", 7, NULL), MC_OK);
}

static mc_status commit(struct world *world) {
  mc_status status = ops->stage_commit(world->stage, &world->digest, "meta", 4, &world->err);
  if (!status) world->stage = NULL;
  return status;
}

/* Whether the object is there; it fails the test if it's there in part. */
static bool is_visible(struct world *world) {
  uint8_t bytes[SIZE];
  int fd = -1;
  uint64_t size = 0;
  void *meta = NULL;
  size_t meta_size = 0;
  mc_status status = ops->open_object(world->storage, &world->digest, &fd, &size, NULL);
  if (status) {
    assert_int_equal(status, MC_NOT_FOUND);
    assert_int_equal(ops->read_meta(world->storage, &world->digest, &meta, &meta_size, 10, NULL), MC_NOT_FOUND);
    return false;
  }
  assert_int_equal(size, SIZE);
  assert_int_equal(pread_all(fd, bytes, SIZE, 0), 0);
  assert_memory_equal(bytes, world->bytes, SIZE);
  close(fd);
  assert_int_equal(ops->read_meta(world->storage, &world->digest, &meta, &meta_size, 10, NULL), MC_OK);
  assert_int_equal(meta_size, 4);
  assert_memory_equal(meta, "meta", 4);
  free(meta);
  return true;
}

static bool count_object(void *user, const mc_stored *stored) {
  assert_int_equal(stored->size, SIZE);
  ++*(unsigned *)user;
  return true;
}

/* What scan says and what can be opened must be one. */
static bool check_visible(struct world *world) {
  unsigned count = 0;
  bool visible = is_visible(world);
  assert_int_equal(ops->scan(world->storage, count_object, &count, NULL), MC_OK);
  assert_int_equal(count, visible);
  return visible;
}

static bool count_name(void *user, const char *name) {
  (void)name;
  ++*(unsigned *)user;
  return true;
}

static unsigned count_stages(struct world *world) {
  char path[128];
  unsigned count = 0;
  snprintf(path, sizeof(path), "%s/stage", world->folder);
  DIR *folder = opendir(path);
  if (!folder) return 0;
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (entry->d_name[0] != '.') count_name(&count, entry->d_name);
  }
  closedir(folder);
  return count;
}

/* ---- acts ---- */

struct act {
  const char *name;
  void (*prepare)(struct world *world);
  mc_status (*run)(struct world *world);
  void (*check)(struct world *world, mc_status status); /* after it, with what it did or did not do */
  bool may_miss;                                        /* what can't be had now counts as not there */
  bool lost;                                            /* when it dies its stage goes with it */
};

static mc_status commit_with_record(struct world *world) {
  mc_status status = ops->stage_record(world->stage, KEY, "new", 3, &world->err);
  return status ? status : commit(world);
}

static void prepare_again(struct world *world) {
  make_stage(world);
  assert_int_equal(commit(world), MC_OK);
  make_stage(world);
}

/* Of a small file, which has no name before its commit. */
static void make_nameless(struct world *world) {
  assert_int_equal(ops->stage_create(world->storage, NULL, SIZE, &world->stage, NULL), MC_OK);
  assert_int_equal(pwrite_all(world->stage->fd, world->bytes, SIZE, 0), 0);
}

/* The same where files can't be linked. */
static void make_small(struct world *world) {
  ops->close(world->storage);
  set_fault(1, EPERM);
  fault.only = "linkat";
  assert_int_equal(open_storage(world), MC_OK);
  fault.at = 0;
  fault.only = NULL;
  make_nameless(world);
}

static void prepare_nameless_again(struct world *world) {
  make_nameless(world);
  assert_int_equal(commit(world), MC_OK);
  make_nameless(world);
}

static void check_committed(struct world *world, mc_status status) {
  bool visible = check_visible(world);
  assert_true(visible || status);
}

static void check_still_there(struct world *world, mc_status status) {
  (void)status;
  assert_true(check_visible(world)); /* the one before */
}

static void prepare_object(struct world *world) {
  make_stage(world);
  assert_int_equal(commit(world), MC_OK);
}

static mc_status run_remove(struct world *world) {
  return ops->remove_object(world->storage, &world->digest, &world->err);
}

static void check_removed(struct world *world, mc_status status) {
  bool visible = check_visible(world);
  assert_true(!visible || status);
  assert_int_equal(ops->remove_object(world->storage, &world->digest, NULL), MC_OK);
  assert_false(check_visible(world));
}

static mc_status run_restage(struct world *world) {
  return ops->restage(world->storage, &world->digest, KEY, &world->stage, &world->err);
}

static void check_restaged(struct world *world, mc_status status) {
  bool visible = check_visible(world);
  assert_true(!visible || status);
}

static void prepare_nothing(struct world *world) {
  (void)world;
}

static mc_status run_create(struct world *world) {
  return ops->stage_create(world->storage, KEY, SIZE, &world->stage, &world->err);
}

static mc_status run_create_nameless(struct world *world) {
  return ops->stage_create(world->storage, NULL, SIZE, &world->stage, &world->err);
}

static void check_created(struct world *world, mc_status status) {
  assert_true(status ? !world->stage : world->stage->size == SIZE);
  assert_false(check_visible(world));
}

static void prepare_kept(struct world *world) {
  make_stage(world);
  ops->stage_close(world->stage, true);
  world->stage = NULL;
}

static mc_status run_resume(struct world *world) {
  return ops->stage_resume(world->storage, KEY, &world->stage, &world->err);
}

static void check_resumed(struct world *world, mc_status status) {
  void *data = NULL;
  size_t size = 0;
  if (status) return;
  assert_int_equal(ops->stage_journal(world->stage, &data, &size, 100, NULL), MC_OK);
  assert_int_equal(size, 7);
  assert_memory_equal(data, "journal", 7);
  free(data);
  assert_int_equal(commit(world), MC_OK);
  assert_true(check_visible(world));
}

static mc_status run_append(struct world *world) {
  return ops->stage_append(world->stage, "more", 4, &world->err);
}

/* A failure hides neither what is before nor what is after it. */
static void check_appended(struct world *world, mc_status status) {
  void *data = NULL;
  size_t size = 0;
  if (!world->stage) return; /* it was the process that died */
  assert_int_equal(ops->stage_append(world->stage, "!", 1, NULL), MC_OK);
  ops->stage_close(world->stage, true);
  world->stage = NULL;
  assert_int_equal(ops->stage_resume(world->storage, KEY, &world->stage, NULL), MC_OK);
  assert_int_equal(ops->stage_journal(world->stage, &data, &size, 100, NULL), MC_OK);
  assert_string_equal((char *)data, status ? "journal!" : "journalmore!");
  free(data);
}

static mc_status run_resize(struct world *world) {
  return ops->stage_resize(world->stage, (uint64_t)3 * SIZE, &world->err);
}

static void check_resized(struct world *world, mc_status status) {
  if (!world->stage) return; /* it was the process that died */
  uint64_t size = status ? SIZE : 3 * SIZE;
  assert_int_equal(world->stage->size, size);
  assert_int_equal(lseek(world->stage->fd, 0, SEEK_END), size);
  assert_int_equal(ops->stage_resize(world->stage, SIZE, NULL), MC_OK);
  assert_int_equal(commit(world), MC_OK);
  assert_true(check_visible(world));
}

static void prepare_record(struct world *world) {
  assert_int_equal(ops->record_put(world->storage, KEY, "old", 3, NULL), MC_OK);
}

static mc_status run_record(struct world *world) {
  return ops->record_put(world->storage, KEY, "new", 3, &world->err);
}

static bool only_the_record(void *user, const char *key, const void *data, size_t size) {
  (void)data;
  assert_string_equal(key, KEY);
  assert_int_equal(size, 3);
  ++*(unsigned *)user;
  return true;
}

static void check_recorded(struct world *world, mc_status status) {
  char *data = NULL;
  size_t size = 0;
  unsigned count = 0;
  assert_int_equal(ops->record_get(world->storage, KEY, (void **)&data, &size, 10, NULL), MC_OK);
  assert_true(strcmp(data, "new") == 0 || (status && strcmp(data, "old") == 0));
  free(data);
  assert_int_equal(ops->record_scan(world->storage, only_the_record, &count, 10, NULL), MC_OK);
  assert_int_equal(count, 1);
}

static void check_first_record(struct world *world, mc_status status) {
  char *data = NULL;
  size_t size = 0;
  mc_status got = ops->record_get(world->storage, KEY, (void **)&data, &size, 10, NULL);
  assert_true(got == MC_OK || (got == MC_NOT_FOUND && status));
  if (!got) assert_string_equal(data, "new");
  free(data);
}

static bool has_record(struct world *world) {
  void *data = NULL;
  size_t size;
  mc_status status = ops->record_get(world->storage, KEY, &data, &size, 10, NULL);
  free(data);
  return status == MC_OK;
}

/* The record comes first: what is visible has one. */
static void check_both(struct world *world, mc_status status) {
  check_first_record(world, status);
  assert_true(has_record(world) || !check_visible(world));
  check_committed(world, status);
}

static void prepare_closed(struct world *world) {
  prepare_object(world);
  ops->close(world->storage);
  world->storage = NULL;
}

static const struct act acts[] = {
    {"commit", make_stage, commit, check_committed},
    {"commit with a record", make_stage, commit_with_record, check_both},
    {"commit a nameless one with a record", make_nameless, commit_with_record, check_both, .lost = true},
    {"commit a small one with a record", make_small, commit_with_record, check_both, .lost = true},
    {"commit again", prepare_again, commit, check_still_there},
    {"commit a nameless one", make_nameless, commit, check_committed, .lost = true},
    {"commit a nameless one again", prepare_nameless_again, commit, check_still_there},
    {"create a nameless one", prepare_nothing, run_create_nameless, check_created},
    {"remove", prepare_object, run_remove, check_removed},
    {"restage", prepare_object, run_restage, check_restaged},
    {"create", prepare_nothing, run_create, check_created},
    {"resume", prepare_kept, run_resume, check_resumed, .may_miss = true},
    {"resize", make_stage, run_resize, check_resized},
    {"append", make_stage, run_append, check_appended},
    {"replace a record", prepare_record, run_record, check_recorded},
    {"put a record", prepare_nothing, run_record, check_first_record},
    {"open", prepare_closed, open_storage, check_still_there},
};

static void ensure_open(struct world *world) {
  if (!world->storage) assert_int_equal(open_storage(world), MC_OK);
}

/* To open a storage takes a thousand calls, most of them the same for each of its folders. */
static int next(int n) {
  return n < 40 ? n + 1 : n + 97;
}

/* Run an act whose n-th call fails. False: it has fewer. */
static bool fail_at(const struct act *act, int n, int error) {
  struct world world;
  unsigned files = open_files();
  begin(&world);
  act->prepare(&world);
  set_fault(n, error);
  mc_status status = act->run(&world);
  fault.at = 0;
  bool reached = fault.seen >= n;
  if (!reached && status) fail_msg("%s fails without a fault: %s", act->name, world.err.message);
  if (status && (status != world.err.status || !world.err.message[0] || (status == MC_NOT_FOUND && !act->may_miss))) {
    fail_msg("%s with error %d at call %d: %s, %s", act->name, error, n, mc_status_name(status), world.err.message);
  }
  ensure_open(&world);
  act->check(&world, status);
  if (world.stage) ops->stage_close(world.stage, false);
  world.stage = NULL;
  ops->close(world.storage);
  world.storage = NULL;
  ensure_open(&world); /* and another process sees the same */
  check_visible(&world);
  end(&world);
  assert_int_equal(open_files(), files);
  return reached;
}

static void whatever_fails_nothing_visible_is_in_part(void **state) {
  static const int errors[] = {EIO, ENOSPC, EMFILE, EACCES};
  (void)state;
  for (size_t i = 0; i < sizeof(acts) / sizeof(*acts); i++) {
    for (size_t j = 0; j < sizeof(errors) / sizeof(*errors); j++) {
      int n = 1;
      while (fail_at(&acts[i], n, errors[j])) n = next(n);
      assert_in_range(n, 2, 2000);
    }
  }
}

/* Run an act in a process that dies in the stead of its n-th call. False: it has fewer. */
static bool die_at(const struct act *act, int n) {
  struct world world;
  int how = 0;
  begin(&world);
  ops->close(world.storage);
  world.storage = NULL;
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    if (open_storage(&world)) _exit(2);
    act->prepare(&world);
    set_fault(n, 0);
    _exit(act->run(&world) != MC_OK);
  }
  assert_int_equal(waitpid(pid, &how, 0), pid);
  bool died = WIFSIGNALED(how);
  assert_true(died || WEXITSTATUS(how) == 0);
  ensure_open(&world);
  act->check(&world, died ? MC_IO : MC_OK);
  if (!check_visible(&world) && (act->run == commit || act->run == commit_with_record) && !act->lost) {
    assert_int_equal(ops->stage_resume(world.storage, KEY, &world.stage, NULL),
                     MC_OK); /* what was downloaded is not lost */
    check_resumed(&world, MC_OK);
  }
  while (ops->stage_resume(world.storage, KEY, &world.stage, NULL) == MC_OK) ops->stage_close(world.stage, false);
  world.stage = NULL;
  ops->close(world.storage);
  assert_int_equal(open_storage(&world), MC_OK);
  assert_int_equal(count_stages(&world), 0); /* nothing is left behind for good */
  end(&world);
  return died;
}

static void wherever_it_dies_nothing_visible_is_in_part(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof(acts) / sizeof(*acts); i++) {
    if (acts[i].check == check_created || acts[i].run == run_resume) continue; /* they look at the stage they got */
    int n = 1;
    while (die_at(&acts[i], n)) n = next(n);
    assert_in_range(n, 2, 2000);
  }
}

static void interrupted_and_short_calls_are_gone_on_with(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof(acts) / sizeof(*acts); i++) {
    struct world world;
    begin(&world);
    acts[i].prepare(&world);
    fault.trouble = true;
    fault.seen = 0;
    mc_status status = acts[i].run(&world);
    fault.trouble = false;
    if (status) fail_msg("%s is not gone on with: %s", acts[i].name, world.err.message);
    acts[i].check(&world, MC_OK);
    end(&world);
  }
}

/* ---- what an error must not cost ---- */

static void a_stage_outlasts_want_of_descriptors(void **state) {
  (void)state;
  struct world world;
  int n = 1;
  bool exhausted = false;
  mc_status status;
  begin(&world);
  prepare_kept(&world);
  do { /* until it gets through; in between it is always there */
    set_fault(n++, EMFILE);
    status = run_resume(&world);
    fault.at = 0;
    if (status) assert_true(status == MC_RESOURCE_EXHAUSTED || status == MC_NOT_FOUND);
    exhausted |= status == MC_RESOURCE_EXHAUSTED;
    assert_int_equal(count_stages(&world), 1);
    assert_in_range(n, 1, 100);
  } while (status);
  assert_true(exhausted);
  check_resumed(&world, MC_OK);
  end(&world);
}

/* Nor, when /proc can't be looked into, is a living owner taken for dead. */
static void a_living_owner_is_left_alone(void **state) {
  (void)state;
  struct world world;
  begin(&world);
  make_stage(&world);
  for (int n = 1; n < 40; n++) {
    mc_stage *taken = NULL;
    set_fault(n, EMFILE);
    mc_status status = ops->stage_resume(world.storage, KEY, &taken, NULL);
    fault.at = 0;
    assert_true(status == MC_NOT_FOUND || status == MC_RESOURCE_EXHAUSTED);
    mc_storage *mine = world.storage;
    set_fault(n, EMFILE);
    status = open_storage(&world); /* which cleans */
    fault.at = 0;
    if (!status) ops->close(world.storage);
    world.storage = mine;
  }
  assert_int_equal(commit(&world), MC_OK); /* nobody took it */
  assert_true(check_visible(&world));
  end(&world);
}

/* The kernel tells of a failed write once, and then forgets: so we must not. */
static void data_that_could_not_be_flushed_is_never_committed(void **state) {
  (void)state;
  static const char *const calls[] = {"fsync", "close"}; /* the first of each is of the data */
  for (size_t i = 0; i < 4; i++) {
    struct world world;
    begin(&world);
    ops->close(world.storage);
    bool durable = i / 2;
    assert_int_equal(open_as(&world, durable), MC_OK);
    make_stage(&world);
    set_fault(1, EIO);
    fault.only = calls[i % 2];
    mc_status status = commit(&world);
    fault.at = 0;
    fault.only = NULL;
    if (!durable && i % 2 == 0) { /* does not ask for it */
      assert_int_equal(status, MC_OK);
    } else {
      assert_int_equal(status, MC_IO);
      assert_int_equal(commit(&world), MC_IO);
      assert_false(check_visible(&world));
      ops->stage_close(world.stage, true);
      world.stage = NULL;
      assert_int_equal(run_resume(&world), MC_NOT_FOUND);
    }
    end(&world);
  }
}

/* Of all that a commit waits for, each failure fails it, and nothing shows. */
static void what_could_not_be_flushed_is_never_visible(void **state) {
  (void)state;
  for (int n = 1; n <= 3; n++) { /* data, meta, record */
    for (int nameless = 0; nameless < 2; nameless++) {
      struct world world;
      begin(&world);
      nameless ? make_nameless(&world) : make_stage(&world);
      set_fault(n, EIO);
      fault.only = "fsync";
      assert_int_equal(commit_with_record(&world), MC_IO);
      fault.at = 0;
      fault.only = NULL;
      assert_false(check_visible(&world));
      assert_false(has_record(&world));
      assert_int_equal(commit_with_record(&world), n == 1 ? MC_IO : MC_OK); /* what is written anew can be */
      assert_int_equal(check_visible(&world), n > 1);
      assert_int_equal(has_record(&world), n > 1);
      end(&world);
    }
  }
}

/* The calls of these names in the trace, by their first letters. */
static const char *order(char letters[64], const char *const names[]) {
  char copy[sizeof(trace)], *rest = copy;
  size_t count = 0;
  strcpy(copy, trace);
  for (char *name; (name = strtok_r(rest, " ", &rest)) && count < 63;) {
    for (size_t i = 0; names[i]; i++) {
      if (strcmp(name, names[i]) == 0) letters[count++] = *name;
    }
  }
  letters[count] = 0;
  return letters;
}

/* Bytes before names, and names before the answer. */
static void what_is_durable_is_flushed_in_order(void **state) {
  (void)state;
  static const char *const names[] = {"sync_file_range", "fsync", "rename", NULL};
  for (int durable = 0; durable < 2; durable++) {
    struct world world;
    char letters[64];
    begin(&world);
    ops->close(world.storage);
    assert_int_equal(open_as(&world, durable), MC_OK);
    make_stage(&world);
    *trace = 0;
    assert_int_equal(commit(&world), MC_OK);
    /* data, meta; data into the folder, meta and data to their places there; the folder, and the one it is in */
    assert_string_equal(order(letters, names), durable ? "ssffrrrff" : "rrr");
    make_stage(&world);
    *trace = 0;
    assert_int_equal(commit(&world), MC_OK);
    assert_string_equal(order(letters, names), durable ? "ssffrrrf" : "rrr"); /* that is known to be flushed */
    *trace = 0;
    assert_int_equal(run_record(&world), MC_OK);
    assert_string_equal(order(letters, names), durable ? "frff" : "r");
    *trace = 0;
    assert_int_equal(run_record(&world), MC_OK);
    assert_string_equal(order(letters, names), durable ? "frf" : "r");
    make_stage(&world);
    *trace = 0;
    assert_int_equal(commit_with_record(&world), MC_OK);
    /* data, meta and record are begun, and waited for; data into the folder; record, meta and data to their places; the
     * folders of both */
    assert_string_equal(order(letters, names), durable ? "sssfffrrrrff" : "rrrr");
    end(&world);
  }
}

static void a_nameless_one_is_flushed_in_order(void **state) {
  (void)state;
  static const char *const names[] = {"fsync", "linkat", "rename", NULL};
  for (int durable = 0; durable < 2; durable++) {
    struct world world;
    char letters[64];
    begin(&world);
    ops->close(world.storage);
    assert_int_equal(open_as(&world, durable), MC_OK);
    make_nameless(&world);
    *trace = 0;
    assert_int_equal(commit(&world), MC_OK);
    /* data; meta, which makes the folder; both by their names; the folders */
    assert_string_equal(order(letters, names), durable ? "fflllff" : "lll");
    make_nameless(&world);
    *trace = 0;
    assert_int_equal(commit(&world), MC_OK); /* over the one that is there */
    assert_string_equal(order(letters, names), durable ? "ffllrllrf" : "llrllr");
    end(&world);
  }
}

/* Where a file without a name can't get one, for want of /proc or of links, it has a stage's. */
static void without_links_a_nameless_one_has_a_name(void **state) {
  (void)state;
  struct world world;
  begin(&world);
  make_small(&world);
  assert_int_equal(count_stages(&world), 1);
  assert_int_equal(commit(&world), MC_OK);
  assert_true(check_visible(&world));
  end(&world);
}

/* The disk is full in the middle of a frame, and what is there can't be cut off. */
static void half_an_append_hides_nothing(void **state) {
  (void)state;
  for (int more = 0; more < 3; more++) {
    struct world world;
    begin(&world);
    make_stage(&world);
    set_fault(1, ENOSPC);
    fault.more = more; /* the append's own attempt to cut, and the next one's */
    assert_int_equal(run_append(&world), MC_NO_SPACE);
    if (more == 2) assert_int_equal(run_append(&world), MC_NO_SPACE);
    fault.at = fault.more = 0;
    check_appended(&world, MC_NO_SPACE);
    end(&world);
  }
}

static void a_commit_that_failed_may_be_tried_again(void **state) {
  (void)state;
  for (int n = 13;; n++) { /* after the data was flushed */
    struct world world;
    begin(&world);
    make_stage(&world);
    set_fault(n, ENOSPC);
    mc_status status = commit(&world);
    fault.at = 0;
    if (status && !check_visible(&world)) {
      assert_int_equal(commit(&world), MC_OK);
      assert_true(check_visible(&world));
    }
    bool reached = fault.seen >= n;
    end(&world);
    if (!reached) break;
  }
}

/* A stage of another machine's process, which writes to it now: our clocks need not agree for it to be seen so. */
static void clocks_that_differ_do_not_make_an_owner_dead(void **state) {
  (void)state;
  static const int64_t skews[] = {0, 600 * 1000, -600 * 1000};
  for (size_t i = 0; i < 3; i++) {
    struct world world;
    char from[200], to[200];
    fault.skew = skews[i];
    begin(&world);
    prepare_kept(&world);
    snprintf(from, sizeof(from), "%s/stage", world.folder);
    DIR *folder = opendir(from);
    struct dirent *entry;
    while ((entry = readdir(folder)) && entry->d_name[0] == '.') continue;
    assert_non_null(entry);
    snprintf(from, sizeof(from), "%s/stage/%.100s", world.folder, entry->d_name);
    closedir(folder);
    snprintf(to, sizeof(to), "%s/stage/%s.0badb007.4711.99.0123456789abcdef", world.folder, KEY);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(run_resume(&world), MC_NOT_FOUND);
    ops->close(world.storage);
    assert_int_equal(open_storage(&world), MC_OK);
    assert_int_equal(run_resume(&world), MC_NOT_FOUND);
    fault.skew += 3600 * 1000; /* an hour later it is another thing */
    assert_int_equal(run_resume(&world), MC_OK);
    fault.skew = 0;
    end(&world);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(whatever_fails_nothing_visible_is_in_part),
      cmocka_unit_test(wherever_it_dies_nothing_visible_is_in_part),
      cmocka_unit_test(interrupted_and_short_calls_are_gone_on_with),
      cmocka_unit_test(a_stage_outlasts_want_of_descriptors),
      cmocka_unit_test(a_living_owner_is_left_alone),
      cmocka_unit_test(data_that_could_not_be_flushed_is_never_committed),
      cmocka_unit_test(what_could_not_be_flushed_is_never_visible),
      cmocka_unit_test(what_is_durable_is_flushed_in_order),
      cmocka_unit_test(a_nameless_one_is_flushed_in_order),
      cmocka_unit_test(without_links_a_nameless_one_has_a_name),
      cmocka_unit_test(half_an_append_hides_nothing),
      cmocka_unit_test(a_commit_that_failed_may_be_tried_again),
      cmocka_unit_test(clocks_that_differ_do_not_make_an_owner_dead),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
