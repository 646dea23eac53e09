/* The contract of mc_storage_ops, as one suite that is run against every storage, in every place it may be in.
 *
 * Tests of what only persistent storages promise are left out for the others. Crashes are real: a child process that is
 * killed. Every test checks that descriptors are given back. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "tests/rwx/volume.h"
#include <modelcache/backend/storage.h>

extern const mc_storage_ops posix_storage_ops, memory_storage_ops;

#define SIZE    ((size_t)300 * 1000 + 7)
#define THREADS 8
#define CROWD   4 /* processes */

static const char KEY[] = "00000000000000000000000000000000000000000000000000000000000000aa";
static const char OTHER_KEY[] = "00000000000000000000000000000000000000000000000000000000000000bb";

static const struct place {
  const char *name;
  const mc_storage_ops *ops;
  const char *parent; /* of its folder; NULL: it has none */
  bool durable, huge_pages;
  bool sealed; /* not even who has the stage's descriptor can change an object */
} places[] = {
    {"posix on a disk, durable", &posix_storage_ops, "/tmp", .durable = true},
    {"posix in shared memory", &posix_storage_ops, "/dev/shm"},
    {"memory", &memory_storage_ops, NULL, .sealed = true},
    {"memory with huge pages", &memory_storage_ops, NULL, .huge_pages = true, .sealed = true},
};

struct world {
  const struct place *place;
  const mc_storage_ops *ops;
  char folder[64];
  mc_storage *storage;
  unsigned files; /* that were open before */
};

static bool is_persistent(const struct world *world) {
  return world->ops->flags & MC_STORAGE_PERSISTENT;
}

static unsigned open_files(void) {
  unsigned count = 0;
  DIR *folder = opendir("/proc/self/fd");
  assert_non_null(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static mc_storage *open_storage(const struct world *world, const char *folder) {
  mc_storage_config config = {.struct_size = sizeof(config),
                              .location = world->place->parent ? folder : NULL,
                              .durable = world->place->durable,
                              .huge_pages = world->place->huge_pages};
  mc_storage *storage = NULL;
  mc_error err = MC_ERROR_INIT;
  if (world->ops->open(&storage, &config, &err)) fail_msg("can't open the storage: %s", err.message);
  assert_ptr_equal(storage->ops, world->ops);
  return storage;
}

static int set_up(void **state) {
  struct world *world = *state;
  world->files = open_files();
  if (world->place->parent) {
    snprintf(world->folder, sizeof(world->folder), "%s/modelcache-storage-XXXXXX", world->place->parent);
    if (!mkdtemp(world->folder)) return -1;
  }
  world->storage = open_storage(world, world->folder);
  return 0;
}

static int tear_down(void **state) {
  struct world *world = *state;
  if (world->storage) world->ops->close(world->storage);
  world->storage = NULL;
  if (world->place->parent) {
    char disk[96];
    snprintf(disk, sizeof(disk), "%s/small", world->folder);
    umount2(disk, MNT_DETACH); /* of a test that failed */
    assert_int_equal(remove_all(world->folder), 0);
  }
  assert_int_equal(open_files(), world->files);
  return 0;
}

static void reopen(struct world *world) {
  world->ops->close(world->storage);
  world->storage = open_storage(world, world->folder);
}

/* ---- contents ---- */

/* Bytes that differ from seed to seed, and what they are named by. */
struct content {
  uint8_t *bytes;
  size_t size;
  mc_digest digest;
};

static struct content content_new(size_t size, unsigned seed) {
  struct content content = {malloc(size + 1), size, {{0}}};
  assert_non_null(content.bytes);
  for (size_t i = 0; i < size; i++) content.bytes[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + seed);
  sha256_of(&content.digest, content.bytes, size);
  return content;
}

static bool holds_content(int fd, const struct content *content) {
  uint8_t *bytes = malloc(content->size + 1);
  bool same = bytes && pread_all(fd, bytes, content->size, 0) == 0 &&
              memcmp(bytes, content->bytes, content->size) == 0 && pread(fd, bytes, 1, (off_t)content->size) == 0;
  free(bytes);
  return same;
}

static mc_stage *create(mc_storage *storage, const char *key, uint64_t size) {
  mc_stage *stage = NULL;
  mc_error err = MC_ERROR_INIT;
  if (storage->ops->stage_create(storage, key, size, &stage, &err)) fail_msg("can't make a stage: %s", err.message);
  return stage;
}

static mc_stage *stage_with(mc_storage *storage, const struct content *content) {
  mc_stage *stage = create(storage, KEY, content->size);
  assert_int_equal(pwrite_all(stage->fd, content->bytes, content->size, 0), 0);
  return stage;
}

static mc_status commit(mc_stage *stage, const mc_digest *digest, const char *meta) {
  return stage->storage->ops->stage_commit(stage, digest, meta, strlen(meta), NULL);
}

static void put(mc_storage *storage, const struct content *content, const char *meta) {
  assert_int_equal(commit(stage_with(storage, content), &content->digest, meta), MC_OK);
}

/* MC_OK: the object is there, whole, with the right meta. MC_CORRUPT: it's there, and is not. */
static mc_status look(mc_storage *storage, const struct content *content, const char *meta) {
  int fd = -1;
  uint64_t size = 0;
  mc_status status = storage->ops->open_object(storage, &content->digest, &fd, &size, NULL);
  if (status) return status;
  bool whole = size == content->size && holds_content(fd, content);
  close(fd);
  void *data = NULL;
  size_t length = 0;
  status = storage->ops->read_meta(storage, &content->digest, &data, &length, 100, NULL);
  if (!status) whole &= length == strlen(meta) && memcmp(data, meta, length) == 0;
  if (!status) free(data);
  return whole ? status : MC_CORRUPT;
}

static bool count_object(void *user, const mc_stored *stored) {
  (void)stored;
  ++*(unsigned *)user;
  return true;
}

static unsigned count_objects(mc_storage *storage) {
  unsigned count = 0;
  assert_int_equal(storage->ops->scan(storage, count_object, &count, NULL), MC_OK);
  return count;
}

static void assert_missing(mc_storage *storage, const struct content *content) {
  mc_error err = MC_ERROR_INIT;
  int fd;
  uint64_t size;
  void *meta;
  size_t length;
  assert_int_equal(storage->ops->open_object(storage, &content->digest, &fd, &size, &err), MC_NOT_FOUND);
  assert_int_equal(err.status, MC_NOT_FOUND);
  assert_int_equal(storage->ops->read_meta(storage, &content->digest, &meta, &length, 100, &err), MC_NOT_FOUND);
}

static void assert_journal(mc_stage *stage, const char *expected) {
  void *data = NULL;
  size_t size = 0;
  assert_int_equal(stage->storage->ops->stage_journal(stage, &data, &size, 1000, NULL), MC_OK);
  assert_int_equal(size, strlen(expected));
  assert_memory_equal(data, expected, size);
  free(data);
}

static void append(mc_stage *stage, const char *text) {
  assert_int_equal(stage->storage->ops->stage_append(stage, text, strlen(text), NULL), MC_OK);
}

static mc_stage *resume(mc_storage *storage, const char *key) {
  mc_stage *stage = NULL;
  mc_status status = storage->ops->stage_resume(storage, key, &stage, NULL);
  if (status) assert_int_equal(status, MC_NOT_FOUND);
  return stage;
}

/* ---- other processes and threads ---- */

/* A child that does `work` on a storage of its own. If that gives no exit code it waits to be killed. */
struct child {
  pid_t pid;
  int ready; /* a byte comes before `work` if it has a gate, and another when it waits to be killed */
};

static struct child child_start(const struct world *world, int (*work)(mc_storage *storage, int gate), int gate) {
  int pipe_fds[2];
  assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
  fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test die */
    close(pipe_fds[0]);
    mc_storage *storage = open_storage(world, world->folder);
    if (gate >= 0 && write(pipe_fds[1], "x", 1) != 1) _exit(98);
    int code = work(storage, gate);
    if (code >= 0) _exit(code);
    if (write(pipe_fds[1], "x", 1) == 1) pause(); /* to be killed */
    _exit(99);
  }
  close(pipe_fds[1]);
  return (struct child){pid, pipe_fds[0]};
}

static void child_wait_ready(struct child *child) {
  char byte;
  assert_int_equal(read(child->ready, &byte, 1), 1);
}

/* Its exit code, or -1 if it was killed. */
static int child_end(struct child *child) {
  int status = 0;
  assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
  close(child->ready);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void wait_at(int gate) {
  char byte;
  while (read(gate, &byte, 1) < 0 && errno == EINTR) continue;
}

/* Let CROWD processes do `work` at the same time; how many of them exited with `code`. */
static unsigned crowd(const struct world *world, int (*work)(mc_storage *storage, int gate), int code) {
  struct child children[CROWD];
  int gate[2];
  unsigned count = 0;
  assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
  for (unsigned i = 0; i < CROWD; i++) children[i] = child_start(world, work, gate[0]);
  for (unsigned i = 0; i < CROWD; i++) child_wait_ready(&children[i]);
  assert_int_equal(write(gate[1], "xxxxxxxxxxxxxxxx", CROWD), CROWD);
  for (unsigned i = 0; i < CROWD; i++) count += child_end(&children[i]) == code;
  close(gate[0]);
  close(gate[1]);
  return count;
}

/* What threads share. They don't assert: cmocka can only fail in its own thread. */
struct team {
  mc_storage *storage;
  pthread_barrier_t barrier;
  struct content contents[2];
  atomic_int next, won, wrong;
  atomic_bool stop;
};

static void team_run(struct team *team, void *(*main)(void *arg), unsigned threads) {
  pthread_t ids[THREADS];
  pthread_barrier_init(&team->barrier, NULL, threads);
  for (unsigned i = 0; i < threads; i++) assert_int_equal(pthread_create(&ids[i], NULL, main, team), 0);
  for (unsigned i = 0; i < threads; i++) pthread_join(ids[i], NULL);
  pthread_barrier_destroy(&team->barrier);
  assert_int_equal(team->wrong, 0);
}

/* ---- the vtable ---- */

static void flags_agree_with_the_ops(void **state) {
  struct world *world = *state;
  const mc_storage_ops *ops = world->ops;
  assert_int_equal(ops->abi, MC_STORAGE_ABI);
  assert_true(ops->name && *ops->name);
  assert_true(ops->open && ops->close && ops->open_object && ops->read_meta && ops->remove_object && ops->scan);
  assert_true(ops->stage_create && ops->stage_resize && ops->stage_commit && ops->stage_close);
  const bool given[] = {ops->stage_resume, ops->stage_append, ops->stage_journal, ops->restage,
                        ops->record_put,   ops->record_get,   ops->record_remove, ops->record_scan};
  for (size_t i = 0; i < sizeof(given) / sizeof(*given); i++) assert_int_equal(given[i], is_persistent(world));
  assert_int_equal(ops->flags & ~(unsigned)MC_STORAGE_PERSISTENT, 0);
}

static void keys_that_are_none_are_refused(void **state) {
  struct world *world = *state;
  const mc_storage_ops *ops = world->ops;
  static const char *const bad[] = {
      "",
      "aa",
      "00000000000000000000000000000000000000000000000000000000000000AA",
      "00000000000000000000000000000000000000000000000000000000000000aaa",
      "0000000000000000000000000000000000000000000000000000000000000000/",
      "../../../../../../../../../../../../../../../../../../etc/passwd",
      "0000000000000000000000000000000000000000000000000000000000000 aa",
  };
  struct content content = content_new(10, 1);
  put(world->storage, &content, "");
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    mc_stage *stage;
    mc_error err = MC_ERROR_INIT;
    void *data;
    size_t size;
    assert_int_equal(ops->stage_create(world->storage, bad[i], 1, &stage, &err), MC_INVALID_ARGUMENT);
    assert_true(err.status == MC_INVALID_ARGUMENT && err.message[0] && err.origin[0]);
    if (!is_persistent(world)) continue;
    assert_int_equal(ops->stage_resume(world->storage, bad[i], &stage, &err), MC_INVALID_ARGUMENT);
    assert_int_equal(ops->restage(world->storage, &content.digest, bad[i], &stage, &err), MC_INVALID_ARGUMENT);
    assert_int_equal(ops->record_put(world->storage, bad[i], "x", 1, &err), MC_INVALID_ARGUMENT);
    assert_int_equal(ops->record_get(world->storage, bad[i], &data, &size, 9, &err), MC_INVALID_ARGUMENT);
    assert_int_equal(ops->record_remove(world->storage, bad[i], &err), MC_INVALID_ARGUMENT);
  }
  assert_int_equal(look(world->storage, &content, ""), MC_OK);
  free(content.bytes);
}

static void places_that_cannot_be_are_refused(void **state) {
  struct world *world = *state;
  if (!world->place->parent) return;
  char file[96];
  snprintf(file, sizeof(file), "%s/file", world->folder);
  assert_int_equal(file_replace(file, "x", 1, 0644, false), 0);
  const char *const bad[] = {NULL, "", file, "/proc/none", "/dev/null/below"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    mc_storage_config config = {.struct_size = sizeof(config), .location = bad[i]};
    mc_storage *storage = NULL;
    mc_error err = MC_ERROR_INIT;
    mc_status status = world->ops->open(&storage, &config, &err);
    assert_true(status != MC_OK && status != MC_NOT_FOUND);
    assert_true(err.status == status && err.message[0]);
    assert_null(storage);
  }
}

/* ---- objects ---- */

static void objects_come_back_as_they_were_put(void **state) {
  struct world *world = *state;
  static const size_t sizes[] = {0, 1, 4096, SIZE, (2 << 20) + 1};
  for (unsigned i = 0; i < 5; i++) {
    struct content content = content_new(sizes[i], i);
    const char *meta = i % 2 ? "beside it" : "";
    assert_missing(world->storage, &content);
    put(world->storage, &content, meta);
    assert_int_equal(look(world->storage, &content, meta), MC_OK);
    if (is_persistent(world)) {
      reopen(world);
      assert_int_equal(look(world->storage, &content, meta), MC_OK);
    }
    free(content.bytes);
  }
  assert_int_equal(count_objects(world->storage), 5);
}

static void descriptors_are_the_callers_own(void **state) {
  struct world *world = *state;
  struct content content = content_new(SIZE, 1);
  int a = -1, b = -1;
  uint64_t size;
  char byte;
  put(world->storage, &content, "meta");
  assert_int_equal(world->ops->open_object(world->storage, &content.digest, &a, &size, NULL), MC_OK);
  assert_int_equal(world->ops->open_object(world->storage, &content.digest, &b, &size, NULL), MC_OK);
  assert_true(fcntl(a, F_GETFD) & FD_CLOEXEC);
  assert_int_equal(lseek(a, 100, SEEK_SET), 100); /* the other has an offset of its own */
  assert_int_equal(read(b, &byte, 1), 1);
  assert_int_equal((uint8_t)byte, content.bytes[0]);
  assert_int_equal(pwrite(a, "x", 1, 0), -1); /* and neither can write */
  assert_int_equal(ftruncate(a, 0), -1);
  close(a);
  assert_true(holds_content(b, &content));
  close(b);
  free(content.bytes);
}

static void what_is_removed_stays_with_its_readers(void **state) {
  struct world *world = *state;
  struct content content = content_new(SIZE, 1);
  int fd = -1;
  uint64_t size;
  put(world->storage, &content, "meta");
  assert_int_equal(world->ops->open_object(world->storage, &content.digest, &fd, &size, NULL), MC_OK);
  uint8_t *mapped = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
  assert_ptr_not_equal(mapped, MAP_FAILED);
  for (int i = 0; i < 2; i++) { /* fine also when it is not there */
    assert_int_equal(world->ops->remove_object(world->storage, &content.digest, NULL), MC_OK);
    assert_missing(world->storage, &content);
    assert_int_equal(count_objects(world->storage), 0);
  }
  assert_true(holds_content(fd, &content));
  assert_memory_equal(mapped, content.bytes, SIZE);
  put(world->storage, &content, "again");
  assert_int_equal(look(world->storage, &content, "again"), MC_OK);
  assert_memory_equal(mapped, content.bytes, SIZE);
  munmap(mapped, SIZE);
  close(fd);
  free(content.bytes);
}

static void meta_has_a_maximum(void **state) {
  struct world *world = *state;
  struct content content = content_new(10, 1);
  void *meta = NULL;
  size_t size = 0;
  mc_error err = MC_ERROR_INIT;
  put(world->storage, &content, "12345");
  assert_int_equal(world->ops->read_meta(world->storage, &content.digest, &meta, &size, 4, &err),
                   MC_RESOURCE_EXHAUSTED);
  assert_int_equal(err.status, MC_RESOURCE_EXHAUSTED);
  assert_int_equal(world->ops->read_meta(world->storage, &content.digest, &meta, &size, 5, &err), MC_OK);
  assert_int_equal(size, 5);
  assert_memory_equal(meta, "12345", 5);
  free(meta);
  free(content.bytes);
}

struct seen {
  struct content *contents;
  unsigned times[5], stop_after, visits;
  int64_t used_at[5];
};

static bool see(void *user, const mc_stored *stored) {
  struct seen *seen = user;
  for (unsigned i = 0; i < 5; i++) {
    if (!mc_digest_equal(&stored->digest, &seen->contents[i].digest)) continue;
    assert_int_equal(stored->size, seen->contents[i].size);
    seen->times[i]++;
    seen->used_at[i] = stored->used_at;
  }
  return ++seen->visits != seen->stop_after;
}

static void scan_reports_each_whole_object_once(void **state) {
  struct world *world = *state;
  struct content contents[5];
  int64_t begin = clock_wall_ms();
  assert_int_equal(count_objects(world->storage), 0);
  for (unsigned i = 0; i < 5; i++) {
    contents[i] = content_new(1000 * i, i);
    put(world->storage, &contents[i], "m");
    if (world->ops->touch) world->ops->touch(world->storage, &contents[i].digest);
  }
  mc_stage *stage = create(world->storage, KEY, 100); /* is no object */
  struct seen all = {.contents = contents}, some = {.contents = contents, .stop_after = 2};
  assert_int_equal(world->ops->scan(world->storage, see, &all, NULL), MC_OK);
  assert_int_equal(all.visits, 5);
  for (unsigned i = 0; i < 5; i++) {
    assert_int_equal(all.times[i], 1);
    assert_in_range(all.used_at[i], begin - 2000, clock_wall_ms() + 2000);
  }
  assert_int_equal(world->ops->scan(world->storage, see, &some, NULL), MC_OK);
  assert_int_equal(some.visits, 2);
  world->ops->stage_close(stage, false);
  for (unsigned i = 0; i < 5; i++) free(contents[i].bytes);
}

static void a_path_leads_to_the_bytes(void **state) {
  struct world *world = *state;
  struct content content = content_new(SIZE, 1);
  char path[4096] = "", small[8];
  put(world->storage, &content, "m");
  if (world->ops->object_path && world->ops->object_path(world->storage, &content.digest, path, sizeof(path))) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(holds_content(fd, &content));
    close(fd);
    assert_false(world->ops->object_path(world->storage, &content.digest, small, sizeof(small)));
  }
  if (world->ops->touch) world->ops->touch(world->storage, &content.digest);
  if (world->ops->free_bytes) {
    uint64_t bytes = 0;
    assert_int_equal(world->ops->free_bytes(world->storage, &bytes, NULL), MC_OK);
    assert_true(bytes > 0);
  }
  free(content.bytes);
}

/* ---- stages ---- */

static void a_stage_is_empty_and_nobody_elses(void **state) {
  struct world *world = *state;
  struct content zeros = {calloc(1, SIZE), SIZE, {{0}}};
  mc_stage *a = create(world->storage, KEY, SIZE), *b = create(world->storage, KEY, SIZE);
  assert_ptr_equal(a->storage, world->storage);
  assert_int_equal(a->size, SIZE);
  assert_true(a->fd >= 0 && a->fd != b->fd);
  assert_true(fcntl(a->fd, F_GETFD) & FD_CLOEXEC);
  assert_true(holds_content(a->fd, &zeros));
  assert_int_equal(pwrite_all(a->fd, "abc", 3, SIZE - 3), 0);
  assert_true(holds_content(b->fd, &zeros));
  if (a->memory) { /* is what fd has */
    assert_memory_equal((char *)a->memory + SIZE - 3, "abc", 3);
    memcpy(a->memory, "xyz", 3);
    char back[3];
    assert_int_equal(pread_all(a->fd, back, 3, 0), 0);
    assert_memory_equal(back, "xyz", 3);
  }
  world->ops->stage_close(a, false);
  world->ops->stage_close(b, false);
  free(zeros.bytes);
}

static void a_size_may_come_late(void **state) {
  struct world *world = *state;
  struct content content = content_new(SIZE, 2);
  for (int told = 0; told < 2; told++) {
    mc_stage *stage = create(world->storage, KEY, MC_SIZE_UNKNOWN);
    assert_true(stage->size == MC_SIZE_UNKNOWN);
    assert_null(stage->memory);
    assert_int_equal(pwrite_all(stage->fd, content.bytes, SIZE, 0), 0);
    if (told) {
      assert_int_equal(world->ops->stage_resize(stage, SIZE, NULL), MC_OK);
      assert_int_equal(stage->size, SIZE);
    }
    assert_int_equal(commit(stage, &content.digest, "m"), MC_OK);
    assert_int_equal(look(world->storage, &content, "m"), MC_OK);
    assert_int_equal(world->ops->remove_object(world->storage, &content.digest, NULL), MC_OK);
  }
  free(content.bytes);
}

static void a_stage_can_be_resized(void **state) {
  struct world *world = *state;
  struct content content = content_new(SIZE, 3);
  mc_stage *stage = stage_with(world->storage, &content);
  static const uint64_t sizes[] = {SIZE, 3 * SIZE, SIZE / 2, SIZE / 2, 0, SIZE};
  uint64_t kept = SIZE;
  for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
    assert_int_equal(world->ops->stage_resize(stage, sizes[i], NULL), MC_OK);
    assert_int_equal(stage->size, sizes[i]);
    assert_int_equal(lseek(stage->fd, 0, SEEK_END), sizes[i]);
    if (kept > sizes[i]) kept = sizes[i];
    uint8_t *bytes = malloc(sizes[i] + 1);
    assert_int_equal(pread_all(stage->fd, bytes, sizes[i], 0), 0);
    assert_memory_equal(bytes, content.bytes, kept);
    for (uint64_t at = kept; at < sizes[i]; at++) assert_int_equal(bytes[at], 0);
    if (stage->memory) assert_memory_equal(bytes, stage->memory, sizes[i]);
    free(bytes);
  }
  world->ops->stage_close(stage, false);
  free(content.bytes);
}

static void sizes_that_cannot_be_leave_a_stage_as_it_was(void **state) {
  struct world *world = *state;
  struct content content = content_new(SIZE, 4);
  mc_stage *stage = stage_with(world->storage, &content), *none = NULL;
  static const uint64_t sizes[] = {MC_SIZE_UNKNOWN - 1, (uint64_t)INT64_MAX, (uint64_t)1 << 62, (uint64_t)1 << 60};
  for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(world->ops->stage_create(world->storage, KEY, sizes[i], &none, &err), MC_NO_SPACE);
    assert_true(err.status == MC_NO_SPACE && err.message[0]);
    assert_int_equal(world->ops->stage_resize(stage, sizes[i], &err), MC_NO_SPACE);
    assert_int_equal(stage->size, SIZE);
    assert_true(holds_content(stage->fd, &content));
  }
  assert_null(none);
  assert_int_equal(commit(stage, &content.digest, "m"), MC_OK);
  assert_int_equal(look(world->storage, &content, "m"), MC_OK);
  free(content.bytes);
}

/* Of a small file: an object like any other, also over one that is there or half of one, and never left behind. */
static void a_stage_without_a_key_is_never_kept(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) skip();
  char folder[128], path[4096];
  struct content content = content_new(20000, 1), empty = content_new(0, 2);
  mc_stage *stage;
  snprintf(folder, sizeof(folder), "%s/stage", world->folder);
  for (int again = 0; again < 3; again++) {
    stage = create(world->storage, NULL, content.size);
    assert_int_equal(stage->size, content.size);
    assert_int_equal(pwrite_all(stage->fd, content.bytes, content.size, 0), 0);
    assert_int_equal(commit(stage, &content.digest, "meta"), MC_OK);
    assert_int_equal(look(world->storage, &content, "meta"), MC_OK);
    if (again != 1 || !world->ops->object_path) continue;
    /* A crash left data that is not what it should be, and took the meta. */
    assert_true(world->ops->object_path(world->storage, &content.digest, path, sizeof(path)));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(file_replace(path, "half", 4, 0444, false), 0);
    assert_true(strlen(path) + 6 < sizeof(path));
    assert_int_equal(unlink(strcat(path, ".meta")), 0);
  }
  put(world->storage, &empty, "nothing");
  assert_int_equal(look(world->storage, &empty, "nothing"), MC_OK);
  stage = create(world->storage, NULL, content.size);
  assert_int_equal(pwrite_all(stage->fd, content.bytes, 100, 0), 0);
  world->ops->stage_close(stage, false);
  DIR *dir = opendir(folder);
  unsigned left = 0;
  for (struct dirent *entry; dir && (entry = readdir(dir));) left += entry->d_name[0] != '.';
  if (dir) closedir(dir);
  assert_int_equal(left, 0);
  free(content.bytes);
  free(empty.bytes);
}

static void a_stage_that_is_closed_leaves_nothing(void **state) {
  struct world *world = *state;
  struct content content = content_new(SIZE, 5);
  for (int keep = 0; keep < (is_persistent(world) ? 1 : 2); keep++) {
    mc_stage *stage = stage_with(world->storage, &content);
    assert_missing(world->storage, &content);
    if (is_persistent(world)) append(stage, "x");
    world->ops->stage_close(stage, keep);
    assert_missing(world->storage, &content);
    assert_int_equal(count_objects(world->storage), 0);
  }
  if (is_persistent(world)) assert_null(resume(world->storage, KEY));
  free(content.bytes);
}

/* ---- committing ---- */

static void a_commit_may_come_twice(void **state) {
  struct world *world = *state;
  struct content content = content_new(SIZE, 6);
  int fd = -1;
  uint64_t size;
  put(world->storage, &content, "m");
  assert_int_equal(world->ops->open_object(world->storage, &content.digest, &fd, &size, NULL), MC_OK);
  put(world->storage, &content, "m");
  assert_int_equal(look(world->storage, &content, "m"), MC_OK);
  assert_int_equal(count_objects(world->storage), 1);
  assert_true(holds_content(fd, &content));
  close(fd);
  free(content.bytes);
}

static void followers_keep_what_they_have(void **state) {
  struct world *world = *state;
  struct content content = content_new(SIZE, 7);
  mc_stage *stage = stage_with(world->storage, &content);
  int follower = fcntl(stage->fd, F_DUPFD_CLOEXEC, 0);
  uint8_t *mapped = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, follower, 0);
  assert_ptr_not_equal(mapped, MAP_FAILED);
  assert_int_equal(commit(stage, &content.digest, "m"), MC_OK);
  assert_true(holds_content(follower, &content));
  assert_memory_equal(mapped, content.bytes, SIZE);
  assert_int_equal(world->ops->remove_object(world->storage, &content.digest, NULL), MC_OK);
  assert_true(holds_content(follower, &content));
  assert_memory_equal(mapped, content.bytes, SIZE);
  munmap(mapped, SIZE);
  close(follower);
  free(content.bytes);
}

static void seals_hold_for_whoever_has_a_descriptor(void **state) {
  struct world *world = *state;
  if (!world->place->sealed) return;
  struct content content = content_new(SIZE, 8);
  mc_stage *stage = stage_with(world->storage, &content);
  int writable = fcntl(stage->fd, F_DUPFD_CLOEXEC, 0), fd = -1;
  uint64_t size;
  assert_int_equal(commit(stage, &content.digest, "m"), MC_OK);
  assert_int_equal(world->ops->open_object(world->storage, &content.digest, &fd, &size, NULL), MC_OK);
  int seals = fcntl(fd, F_GET_SEALS), wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_FUTURE_WRITE;
  assert_int_equal(seals & wanted, wanted);
  char path[32];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  int again = open(path, O_RDWR | O_CLOEXEC);
  const int fds[] = {writable, again >= 0 ? again : writable};
  for (int i = 0; i < 2; i++) {
    assert_int_equal(pwrite(fds[i], "x", 1, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fds[i], 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fds[i], 2 * SIZE), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fallocate(fds[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    assert_ptr_equal(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0), MAP_FAILED);
  }
  assert_true(holds_content(fd, &content));
  if (again >= 0) close(again);
  close(writable);
  close(fd);
  free(content.bytes);
}

/* Stages and objects of two digests, all ops at once: whatever is opened is whole. */
static void *hammer(void *arg) {
  struct team *team = arg;
  mc_storage *storage = team->storage;
  int me = team->next++;
  pthread_barrier_wait(&team->barrier);
  for (int i = 0; i < 40; i++) {
    struct content *content = &team->contents[(i + me) % 2];
    mc_stage *stage = NULL;
    mc_status status = storage->ops->stage_create(storage, KEY, content->size, &stage, NULL);
    if (status || pwrite_all(stage->fd, content->bytes, content->size, 0)) team->wrong++;
    if (status) break;
    if (storage->ops->stage_record && storage->ops->stage_record(stage, KEY, "r", 1, NULL)) team->wrong++;
    if (commit(stage, &content->digest, "m")) team->wrong++;
    status = look(storage, content, "m");
    if (status && status != MC_NOT_FOUND) team->wrong++;
    unsigned count = 0;
    if (storage->ops->scan(storage, count_object, &count, NULL) || count > 2) team->wrong++;
    if (storage->ops->touch) storage->ops->touch(storage, &content->digest);
    if (me % 2 && storage->ops->remove_object(storage, &content->digest, NULL)) team->wrong++;
  }
  return NULL;
}

static void threads_may_commit_and_remove_at_once(void **state) {
  struct world *world = *state;
  struct team team = {.storage = world->storage, .contents = {content_new(9000, 1), content_new(SIZE / 4, 2)}};
  team_run(&team, hammer, THREADS);
  for (int i = 0; i < 2; i++) {
    put(world->storage, &team.contents[i], "m");
    assert_int_equal(look(world->storage, &team.contents[i], "m"), MC_OK);
    free(team.contents[i].bytes);
  }
}

static void a_commit_may_put_a_record(void **state) {
  struct world *world = *state;
  if (!is_persistent(world) || !world->ops->stage_record) return;
  struct content content = content_new(SIZE, 3);
  char *data = NULL;
  size_t size = 0;
  for (int nameless = 0; nameless < 2; nameless++) {
    mc_stage *stage = create(world->storage, nameless ? NULL : KEY, content.size);
    assert_int_equal(pwrite_all(stage->fd, content.bytes, content.size, 0), 0);
    assert_int_equal(world->ops->stage_record(stage, "key", "r", 1, NULL), MC_INVALID_ARGUMENT);
    assert_int_equal(world->ops->stage_record(stage, KEY, "given", 5, NULL), MC_OK);
    assert_int_equal(world->ops->stage_record(stage, KEY, "again", 5, NULL), MC_OK);
    mc_status status = world->ops->record_get(world->storage, KEY, (void **)&data, &size, 10, NULL);
    assert_int_equal(status, nameless ? MC_OK : MC_NOT_FOUND); /* not yet, but for the first round's */
    if (!status) free(data);
    assert_int_equal(commit(stage, &content.digest, "m"), MC_OK);
    assert_int_equal(look(world->storage, &content, "m"), MC_OK);
    assert_int_equal(world->ops->record_get(world->storage, KEY, (void **)&data, &size, 10, NULL), MC_OK);
    assert_string_equal(data, "again");
    free(data);
    stage = create(world->storage, KEY, 1); /* one that is closed takes its record along */
    assert_int_equal(world->ops->stage_record(stage, KEY, "never", 5, NULL), MC_OK);
    world->ops->stage_close(stage, nameless);
    assert_int_equal(world->ops->record_get(world->storage, KEY, (void **)&data, &size, 10, NULL), MC_OK);
    assert_string_equal(data, "again");
    free(data);
  }
  free(content.bytes);
}

static int commit_twenty_times(mc_storage *storage, int gate) {
  struct content content = content_new(SIZE, 9);
  wait_at(gate);
  for (int i = 0; i < 20; i++) {
    put(storage, &content, "m");
    if (look(storage, &content, "m") != MC_OK) return 1; /* nobody removes it */
  }
  return 0;
}

static void processes_may_commit_at_once(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  struct content content = content_new(SIZE, 9);
  assert_int_equal(crowd(world, commit_twenty_times, 0), CROWD);
  assert_int_equal(look(world->storage, &content, "m"), MC_OK);
  assert_int_equal(count_objects(world->storage), 1);
  free(content.bytes);
}

/* ---- journals and resuming ---- */

static void a_journal_is_what_was_appended(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  mc_stage *stage = create(world->storage, KEY, 10);
  void *data = NULL;
  size_t size = 0;
  assert_journal(stage, "");
  append(stage, "one");
  append(stage, "");
  append(stage, "two");
  assert_journal(stage, "onetwo");
  append(stage, "3");
  assert_journal(stage, "onetwo3");
  assert_int_equal(world->ops->stage_journal(stage, &data, &size, 6, NULL), MC_RESOURCE_EXHAUSTED);
  assert_int_equal(world->ops->stage_journal(stage, &data, &size, 7, NULL), MC_OK);
  free(data);
  world->ops->stage_close(stage, false);
}

static void a_kept_stage_is_resumed_once(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  struct content content = content_new(SIZE, 10);
  mc_stage *stage = stage_with(world->storage, &content);
  append(stage, "one");
  assert_null(resume(world->storage, KEY)); /* its owner lives */
  world->ops->stage_close(stage, true);
  reopen(world);
  for (int i = 0; i < 3; i++) {
    assert_null(resume(world->storage, OTHER_KEY));
    stage = resume(world->storage, KEY);
    assert_non_null(stage);
    assert_null(resume(world->storage, KEY));
    assert_int_equal(stage->size, SIZE);
    assert_true(holds_content(stage->fd, &content));
    assert_journal(stage, i == 0 ? "one" : i == 1 ? "onemore" : "onemoremore");
    append(stage, "more");
    if (i < 2) world->ops->stage_close(stage, true);
  }
  assert_missing(world->storage, &content);
  assert_int_equal(commit(stage, &content.digest, "m"), MC_OK);
  assert_int_equal(look(world->storage, &content, "m"), MC_OK);
  assert_null(resume(world->storage, KEY));
  free(content.bytes);
}

static void another_instance_leaves_a_stage_alone(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  struct content content = content_new(SIZE, 11);
  mc_stage *stage = stage_with(world->storage, &content);
  append(stage, "x");
  mc_storage *other = open_storage(world, world->folder);
  assert_null(resume(other, KEY));
  assert_int_equal(commit(stage, &content.digest, "m"), MC_OK);
  assert_int_equal(look(other, &content, "m"), MC_OK);
  world->ops->close(other);
  free(content.bytes);
}

static int hold_a_stage(mc_storage *storage, int gate) {
  (void)gate;
  struct content content = content_new(SIZE, 12);
  append(stage_with(storage, &content), "journal");
  return -1;
}

static void a_killed_owners_stage_is_resumed(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  struct content content = content_new(SIZE, 12);
  struct child child = child_start(world, hold_a_stage, -1);
  child_wait_ready(&child);
  assert_null(resume(world->storage, KEY));
  reopen(world); /* cleans, but not what is alive */
  assert_null(resume(world->storage, KEY));
  kill(child.pid, SIGKILL);
  siginfo_t info;
  assert_int_equal(waitid(P_PID, (id_t)child.pid, &info, WEXITED | WNOWAIT), 0); /* a zombie is dead */
  mc_stage *stage = resume(world->storage, KEY);
  assert_non_null(stage);
  assert_int_equal(child_end(&child), -1);
  assert_true(holds_content(stage->fd, &content));
  assert_journal(stage, "journal");
  assert_int_equal(commit(stage, &content.digest, "m"), MC_OK);
  assert_int_equal(look(world->storage, &content, "m"), MC_OK);
  free(content.bytes);
}

static int hold_a_useless_stage(mc_storage *storage, int gate) {
  (void)gate;
  create(storage, KEY, SIZE);
  return -1;
}

static void opening_removes_what_cannot_be_resumed(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  struct child child = child_start(world, hold_a_useless_stage, -1);
  child_wait_ready(&child);
  kill(child.pid, SIGKILL);
  assert_int_equal(child_end(&child), -1);
  reopen(world); /* a stage without a journal */
  assert_null(resume(world->storage, KEY));
}

#define RECORD 5000 /* bytes: more than a page, so that a write of it can be cut in two */

static int append_for_ever(mc_storage *storage, int gate) {
  mc_stage *stage = create(storage, KEY, 10);
  char record[RECORD];
  for (unsigned i = 0;; i++) {
    memset(record, (char)i, sizeof(record));
    append(stage, "");
    if (storage->ops->stage_append(stage, record, sizeof(record), NULL)) return 1;
    if (i % 8 == 0 && write(gate, "x", 1) != 1) return 2;
  }
}

static void assert_whole_records(mc_stage *stage) {
  uint8_t *data = NULL;
  size_t size = 0;
  assert_int_equal(stage->storage->ops->stage_journal(stage, (void **)&data, &size, 1 << 30, NULL), MC_OK);
  assert_int_equal(size % RECORD, 0);
  for (size_t i = 0; i < size; i++) assert_int_equal(data[i], (uint8_t)(i / RECORD));
  free(data);
}

static void an_append_is_whole_or_absent(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  for (int i = 0; i < 10; i++) {
    int gate[2];
    char byte;
    assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
    struct child child = child_start(world, append_for_ever, gate[1]);
    for (int j = 0; j <= i; j++) assert_int_equal(read(gate[0], &byte, 1), 1);
    kill(child.pid, SIGKILL);
    assert_int_equal(child_end(&child), -1);
    close(gate[0]);
    close(gate[1]);
    mc_stage *stage = resume(world->storage, KEY);
    assert_non_null(stage);
    assert_whole_records(stage);
    world->ops->stage_close(stage, false);
  }
}

static int adopt_one(mc_storage *storage, int gate) {
  wait_at(gate);
  mc_stage *stage = resume(storage, KEY);
  if (stage) assert_journal(stage, "x");
  if (stage) storage->ops->stage_close(stage, false);
  return stage ? 1 : 0;
}

static void *adopt_in_thread(void *arg) {
  struct team *team = arg;
  mc_stage *stage = NULL;
  pthread_barrier_wait(&team->barrier);
  mc_status status = team->storage->ops->stage_resume(team->storage, KEY, &stage, NULL);
  if (!status) {
    team->won++;
    team->storage->ops->stage_close(stage, false);
  } else if (status != MC_NOT_FOUND) {
    team->wrong++;
  }
  return NULL;
}

static void of_many_adopters_one_wins(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  for (int i = 0; i < 10; i++) {
    for (int threads = 0; threads < 2; threads++) {
      mc_stage *stage = create(world->storage, KEY, SIZE);
      append(stage, "x");
      world->ops->stage_close(stage, true);
      struct team team = {.storage = world->storage};
      if (threads) {
        team_run(&team, adopt_in_thread, THREADS);
        assert_int_equal(team.won, 1);
      } else {
        assert_int_equal(crowd(world, adopt_one, 1), 1);
      }
      assert_null(resume(world->storage, KEY));
    }
  }
}

static void a_damaged_object_becomes_a_stage_again(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  struct content content = content_new(SIZE, 13);
  mc_stage *stage = NULL;
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(world->ops->restage(world->storage, &content.digest, KEY, &stage, &err), MC_NOT_FOUND);
  put(world->storage, &content, "m");
  int fd = -1;
  uint64_t size;
  assert_int_equal(world->ops->open_object(world->storage, &content.digest, &fd, &size, NULL), MC_OK);
  assert_int_equal(world->ops->restage(world->storage, &content.digest, KEY, &stage, &err), MC_OK);
  assert_missing(world->storage, &content);
  assert_int_equal(count_objects(world->storage), 0);
  assert_int_equal(stage->size, SIZE);
  assert_true(holds_content(stage->fd, &content));
  assert_true(holds_content(fd, &content));
  assert_journal(stage, "");
  append(stage, "x");
  world->ops->stage_close(stage, true);
  stage = resume(world->storage, KEY);
  assert_non_null(stage);
  assert_int_equal(pwrite_all(stage->fd, content.bytes, 100, 0), 0);
  assert_int_equal(commit(stage, &content.digest, "new"), MC_OK);
  assert_int_equal(look(world->storage, &content, "new"), MC_OK);
  close(fd);
  free(content.bytes);
}

/* ---- records ---- */

static mc_status get_record(mc_storage *storage, const char *key, char *text, size_t size) {
  void *data = NULL;
  size_t length = 0;
  mc_status status = storage->ops->record_get(storage, key, &data, &length, size - 1, NULL);
  if (status) return status;
  memcpy(text, data, length);
  text[length] = 0;
  free(data);
  return MC_OK;
}

struct records {
  unsigned count, stop_after;
  char text[64];
};

static bool see_record(void *user, const char *key, const void *data, size_t size) {
  struct records *records = user;
  assert_int_equal(strlen(key), 64);
  assert_true(strcmp(key, KEY) == 0 || strcmp(key, OTHER_KEY) == 0);
  strncat(records->text, data, size);
  return ++records->count != records->stop_after;
}

static void records_are_kept_and_replaced(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  const mc_storage_ops *ops = world->ops;
  char text[64];
  assert_int_equal(get_record(world->storage, KEY, text, sizeof(text)), MC_NOT_FOUND);
  assert_int_equal(ops->record_remove(world->storage, KEY, NULL), MC_OK);
  assert_int_equal(ops->record_put(world->storage, KEY, "first, long", 11, NULL), MC_OK);
  assert_int_equal(ops->record_put(world->storage, KEY, "second", 6, NULL), MC_OK);
  assert_int_equal(ops->record_put(world->storage, OTHER_KEY, "", 0, NULL), MC_OK);
  reopen(world);
  assert_int_equal(get_record(world->storage, KEY, text, sizeof(text)), MC_OK);
  assert_string_equal(text, "second");
  assert_int_equal(get_record(world->storage, OTHER_KEY, text, sizeof(text)), MC_OK);
  assert_string_equal(text, "");
  assert_int_equal(get_record(world->storage, KEY, text, 6), MC_RESOURCE_EXHAUSTED);
  struct records all = {0}, one = {.stop_after = 1}, small = {0};
  assert_int_equal(ops->record_scan(world->storage, see_record, &all, 100, NULL), MC_OK);
  assert_int_equal(all.count, 2);
  assert_string_equal(all.text, "second");
  assert_int_equal(ops->record_scan(world->storage, see_record, &one, 100, NULL), MC_OK);
  assert_int_equal(one.count, 1);
  assert_int_equal(ops->record_scan(world->storage, see_record, &small, 5, NULL), MC_OK); /* without the large one */
  assert_int_equal(small.count, 1);
  assert_int_equal(ops->record_remove(world->storage, KEY, NULL), MC_OK);
  assert_int_equal(get_record(world->storage, KEY, text, sizeof(text)), MC_NOT_FOUND);
  struct records left = {0};
  assert_int_equal(ops->record_scan(world->storage, see_record, &left, 100, NULL), MC_OK);
  assert_int_equal(left.count, 1);
}

static bool check_record(const uint8_t *data, size_t size) {
  bool good = size == 100 || size == 9000;
  for (size_t i = 0; good && i < size; i++) good = data[i] == (size == 100 ? 'a' : 'b');
  return good;
}

static bool check_scanned(void *user, const char *key, const void *data, size_t size) {
  struct team *team = user;
  (void)key;
  if (!check_record(data, size)) team->wrong++;
  return true;
}

/* The first thread writes, the others read. */
static void *replace_and_read(void *arg) {
  struct team *team = arg;
  const mc_storage_ops *ops = team->storage->ops;
  int me = team->next++;
  char values[2][9000];
  memset(values[0], 'a', sizeof(values[0]));
  memset(values[1], 'b', sizeof(values[1]));
  pthread_barrier_wait(&team->barrier);
  for (int i = 0; me == 0 && i < 200; i++) {
    if (ops->record_put(team->storage, KEY, values[i % 2], i % 2 ? 9000 : 100, NULL)) team->wrong++;
  }
  if (me == 0) team->stop = true;
  while (me && !team->stop) {
    void *data = NULL;
    size_t size = 0;
    mc_status status = ops->record_get(team->storage, KEY, &data, &size, 10000, NULL);
    if (status || !check_record(data, size)) team->wrong++;
    if (!status) free(data);
    if (me == 1 && ops->record_scan(team->storage, check_scanned, team, 10000, NULL)) team->wrong++;
  }
  return NULL;
}

static void readers_see_a_record_whole_while_it_is_replaced(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  char first[100];
  memset(first, 'a', sizeof(first));
  assert_int_equal(world->ops->record_put(world->storage, KEY, first, sizeof(first), NULL), MC_OK);
  struct team team = {.storage = world->storage};
  team_run(&team, replace_and_read, 4);
}

/* ---- a full disk ---- */

/* Take all that is free. */
static void fill_up(const char *path) {
  char block[4096];
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  assert_true(fd >= 0);
  memset(block, 'f', sizeof(block));
  while (write(fd, block, sizeof(block)) > 0) continue;
  assert_int_equal(errno, ENOSPC);
  close(fd);
}

static void assert_full_is_said_and_nothing_lost(mc_storage *storage, const char *filler) {
  const mc_storage_ops *ops = storage->ops;
  struct content content = content_new(SIZE, 14), stored = content_new(SIZE, 15);
  char text[64], large[8000] = "";
  mc_error err = MC_ERROR_INIT;
  mc_stage *none = NULL;
  put(storage, &stored, "m");
  assert_int_equal(ops->record_put(storage, KEY, "old", 3, NULL), MC_OK);
  assert_int_equal(ops->stage_create(storage, KEY, (uint64_t)64 << 20, &none, &err), MC_NO_SPACE);
  assert_int_equal(err.status, MC_NO_SPACE);
  mc_stage *stage = stage_with(storage, &content);
  append(stage, "before");
  fill_up(filler);
  assert_int_equal(ops->stage_append(stage, large, sizeof(large), &err), MC_NO_SPACE);
  assert_int_equal(ops->record_put(storage, KEY, large, sizeof(large), &err), MC_NO_SPACE);
  assert_int_equal(ops->stage_resize(stage, 2 * SIZE, &err), MC_NO_SPACE);
  assert_int_equal(ops->stage_commit(stage, &content.digest, large, sizeof(large), &err), MC_NO_SPACE);
  assert_int_equal(err.status, MC_NO_SPACE);
  assert_missing(storage, &content);
  assert_int_equal(look(storage, &stored, "m"), MC_OK);
  assert_int_equal(get_record(storage, KEY, text, sizeof(text)), MC_OK);
  assert_string_equal(text, "old");
  assert_int_equal(ops->remove_object(storage, &stored.digest, NULL), MC_OK);
  assert_int_equal(unlink(filler), 0);
  append(stage, "after"); /* and all goes on once there is room */
  assert_journal(stage, "beforeafter");
  assert_true(holds_content(stage->fd, &content));
  assert_int_equal(commit(stage, &content.digest, "m"), MC_OK);
  assert_int_equal(look(storage, &content, "m"), MC_OK);
  free(content.bytes);
  free(stored.bytes);
}

static void abandoned_stages_give_way(mc_storage *storage) {
  mc_stage *stage = create(storage, OTHER_KEY, (uint64_t)5 << 20);
  append(stage, "x");
  storage->ops->stage_close(stage, true);
  storage->ops->stage_close(create(storage, KEY, (uint64_t)5 << 20), false);
  assert_null(resume(storage, OTHER_KEY));
}

static void a_full_disk_is_said_and_costs_nothing(void **state) {
  struct world *world = *state;
  if (!is_persistent(world)) return;
  char disk[96], folder[128], filler[128];
  snprintf(disk, sizeof(disk), "%s/small", world->folder);
  snprintf(folder, sizeof(folder), "%s/storage", disk);
  snprintf(filler, sizeof(filler), "%s/filler", disk);
  assert_int_equal(mkdir_all(disk, 0755), 0);
  if (mount("modelcache", disk, "tmpfs", 0, "size=8m")) skip(); /* takes root */
  mc_storage *storage = open_storage(world, folder);
  assert_full_is_said_and_nothing_lost(storage, filler);
  abandoned_stages_give_way(storage);
  world->ops->close(storage);
  fill_up(filler);
  storage = open_storage(world, folder); /* what is stored can be served */
  assert_int_equal(count_objects(storage), 1);
  world->ops->close(storage);
  assert_int_equal(umount2(disk, MNT_DETACH), 0);
}

/* ---- running ---- */

static int run(const struct place *place) {
  struct world world = {.place = place, .ops = place->ops};
#define TEST(name) cmocka_unit_test_prestate_setup_teardown(name, set_up, tear_down, &world)
  const struct CMUnitTest tests[] = {
      TEST(flags_agree_with_the_ops),
      TEST(keys_that_are_none_are_refused),
      TEST(places_that_cannot_be_are_refused),
      TEST(objects_come_back_as_they_were_put),
      TEST(descriptors_are_the_callers_own),
      TEST(what_is_removed_stays_with_its_readers),
      TEST(meta_has_a_maximum),
      TEST(scan_reports_each_whole_object_once),
      TEST(a_path_leads_to_the_bytes),
      TEST(a_stage_is_empty_and_nobody_elses),
      TEST(a_size_may_come_late),
      TEST(a_stage_can_be_resized),
      TEST(sizes_that_cannot_be_leave_a_stage_as_it_was),
      TEST(a_stage_without_a_key_is_never_kept),
      TEST(a_stage_that_is_closed_leaves_nothing),
      TEST(a_commit_may_come_twice),
      TEST(a_commit_may_put_a_record),
      TEST(followers_keep_what_they_have),
      TEST(seals_hold_for_whoever_has_a_descriptor),
      TEST(threads_may_commit_and_remove_at_once),
      TEST(processes_may_commit_at_once),
      TEST(a_journal_is_what_was_appended),
      TEST(a_kept_stage_is_resumed_once),
      TEST(another_instance_leaves_a_stage_alone),
      TEST(a_killed_owners_stage_is_resumed),
      TEST(opening_removes_what_cannot_be_resumed),
      TEST(an_append_is_whole_or_absent),
      TEST(of_many_adopters_one_wins),
      TEST(a_damaged_object_becomes_a_stage_again),
      TEST(records_are_kept_and_replaced),
      TEST(readers_see_a_record_whole_while_it_is_replaced),
      TEST(a_full_disk_is_said_and_costs_nothing),
  };
  return cmocka_run_group_tests_name(place->name, tests, NULL, NULL);
}

/* On a volume with the habits of network file systems. 77: there can't be one here. */
static int run_on_a_volume(void) {
  static const char *const habits[] = {"--names=3000", "--attrs=3000", "--copy-renames", NULL};
  struct volume volume;
  const char *why = volume_make(&volume);
  if (!why) why = volume_mount(&volume, 0, habits);
  if (why) {
    fprintf(stderr, "skipped: %s\n", why);
    volume_remove(&volume);
    return 77;
  }
  const struct place place = {"posix on a shared volume", &posix_storage_ops, volume.machines[0].mount,
                              .durable = true};
  int failed = run(&place);
  volume_remove(&volume);
  return failed ? 1 : 0;
}

int main(int argc, char **argv) {
  int failed = 0;
  if (argc > 1 && strcmp(argv[1], "volume") == 0) return run_on_a_volume();
  for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) failed += run(&places[i]);
  return failed ? 1 : 0;
}
