/* The posix storage on a volume that two machines have mounted, each of which hears late of what the other does. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "engine/verify.h"
#include "tests/rwx/volume.h"
#include <modelcache/backend/storage.h>

extern const mc_storage_ops posix_storage_ops;

#define SIZE      ((size_t)300 * 1000)
#define MINUTE_MS (60 * 1000LL)

static const mc_storage_ops *const ops = &posix_storage_ops;
static const char KEY[] = "00000000000000000000000000000000000000000000000000000000000000aa";

struct world {
  struct volume volume;
  mc_storage *storages[MACHINES];
  uint8_t bytes[SIZE];
  mc_digest digest;
};

/* ---- the world ---- */

static const char *const habits[] = {"--names=600000", "--attrs=600000", "--copy-renames", NULL};

static mc_storage *open_on(struct world *world, int machine, int64_t orphan_ms) {
  mc_storage_config config = {.struct_size = sizeof(config),
                              .location = world->volume.machines[machine].mount,
                              .durable = true,
                              .orphan_ms = orphan_ms};
  mc_storage *storage = NULL;
  mc_error err = MC_ERROR_INIT;
  if (ops->open(&storage, &config, &err)) fail_msg("can't open the storage: %s", err.message);
  return storage;
}

static int set_up(void **state) {
  struct world *world = calloc(1, sizeof(*world));
  if (!world || volume_make(&world->volume)) return -1;
  for (int i = 0; i < MACHINES; i++) {
    if (volume_mount(&world->volume, i, habits)) return -1;
  }
  for (size_t i = 0; i < SIZE; i++) world->bytes[i] = (uint8_t)(i * 31 + (i >> 8) * 7);
  sha256_of(&world->digest, world->bytes, SIZE);
  for (int i = 0; i < MACHINES; i++) world->storages[i] = open_on(world, i, 0);
  *state = world;
  return 0;
}

static int tear_down(void **state) {
  struct world *world = *state;
  for (int i = 0; i < MACHINES; i++) {
    if (world->storages[i]) ops->close(world->storages[i]);
  }
  volume_remove(&world->volume);
  free(world);
  return 0;
}

static mc_stage *stage_on(struct world *world, int machine) {
  mc_stage *stage = NULL;
  mc_error err = MC_ERROR_INIT;
  if (ops->stage_create(world->storages[machine], KEY, SIZE, &stage, &err)) fail_msg("no stage: %s", err.message);
  assert_int_equal(pwrite_all(stage->fd, world->bytes, SIZE, 0), 0);
  assert_int_equal(ops->stage_append(stage, "journal", 7, NULL), MC_OK);
  return stage;
}

static mc_status commit(struct world *world, mc_stage *stage) {
  return ops->stage_commit(stage, &world->digest, "meta", 4, NULL);
}

/* MC_OK: it's there as it should be. MC_CORRUPT: it's there, and is not. */
static mc_status look(struct world *world, int machine) {
  static uint8_t bytes[SIZE];
  char *meta = NULL;
  size_t length = 0;
  uint64_t size;
  int fd;
  mc_status status = ops->open_object(world->storages[machine], &world->digest, &fd, &size, NULL);
  if (status) return status;
  bool whole = size == SIZE && pread_all(fd, bytes, SIZE, 0) == 0 && memcmp(bytes, world->bytes, SIZE) == 0;
  close(fd);
  status = ops->read_meta(world->storages[machine], &world->digest, (void **)&meta, &length, 10, NULL);
  if (status) return status;
  whole &= length == 4 && memcmp(meta, "meta", 4) == 0;
  free(meta);
  return whole ? MC_OK : MC_CORRUPT;
}

static bool count_object(void *user, const mc_stored *stored) {
  assert_int_equal(stored->size, SIZE);
  ++*(unsigned *)user;
  return true;
}

static mc_status get_record(struct world *world, int machine, char text[16]) {
  void *data = NULL;
  size_t size = 0;
  mc_status status = ops->record_get(world->storages[machine], KEY, &data, &size, 15, NULL);
  if (status) return status;
  memcpy(text, data, size);
  text[size] = 0;
  free(data);
  return MC_OK;
}

/* ---- seeing what the other did ---- */

static void what_one_commits_the_other_opens_at_once(void **state) {
  struct world *world = *state;
  char text[16];
  for (int i = 0; i < 4; i++) { /* the first time its folder is missing as well */
    int from = i % 2, to = 1 - from;
    assert_int_equal(look(world, to), MC_NOT_FOUND); /* which is remembered */
    assert_int_equal(get_record(world, to, text), MC_NOT_FOUND);
    mc_stage *stage = stage_on(world, from);
    assert_int_equal(ops->stage_record(stage, KEY, "record", 6, NULL), MC_OK);
    assert_int_equal(commit(world, stage), MC_OK);
    assert_int_equal(look(world, to), MC_OK);
    assert_int_equal(get_record(world, to, text), MC_OK);
    assert_string_equal(text, "record");
    assert_int_equal(ops->record_put(world->storages[from], KEY, "replaced", 8, NULL), MC_OK);
    assert_int_equal(get_record(world, to, text), MC_OK);
    assert_string_equal(text, "replaced");
    assert_int_equal(ops->remove_object(world->storages[to], &world->digest, NULL), MC_OK);
    assert_int_equal(ops->record_remove(world->storages[to], KEY, NULL), MC_OK);
    assert_int_equal(look(world, from), MC_NOT_FOUND);
  }
}

/* A file that was taken away under a reader is missing, and not damaged. */
static void what_another_machine_removes_is_missing(void **state) {
  struct world *world = *state;
  uint64_t size;
  char byte;
  int fd;
  assert_int_equal(commit(world, stage_on(world, 0)), MC_OK);
  assert_int_equal(ops->open_object(world->storages[1], &world->digest, &fd, &size, NULL), MC_OK);
  assert_int_equal(ops->remove_object(world->storages[0], &world->digest, NULL), MC_OK);
  assert_int_equal(pread(fd, &byte, 1, 0), -1);
  assert_int_equal(errno, ESTALE);
  mc_chunk_table *table = chunk_table_new(SIZE);
  assert_int_equal(verify_chunks(fd, table, 0, 1, NULL, NULL), MC_NOT_FOUND);
  free(table);
  close(fd);
  assert_int_equal(look(world, 1), MC_NOT_FOUND);
}

/* ---- committing ---- */

struct committer {
  struct world *world;
  mc_stage *stage;
  mc_status status;
};

static void *commit_in_thread(void *arg) {
  struct committer *committer = arg;
  committer->status = commit(committer->world, committer->stage);
  return NULL;
}

/* Wait until rwxfs stands in the middle of a rename between folders. */
static void await_held(struct world *world) {
  while (!volume_is_on(&world->volume, "held")) usleep(1000);
}

static void nothing_is_visible_while_it_is_on_its_way(void **state) {
  struct world *world = *state;
  for (int again = 0; again < 2; again++) { /* the second time over the object that is there */
    struct committer committer = {world, stage_on(world, 0), MC_IO};
    pthread_t thread;
    volume_switch(&world->volume, "hold-rename", true);
    assert_int_equal(pthread_create(&thread, NULL, commit_in_thread, &committer), 0);
    await_held(world);
    mc_status seen = look(world, 1); /* on machine 0 the kernel holds the folder meanwhile */
    unsigned count = 0;
    mc_status scanned = ops->scan(world->storages[1], count_object, &count, NULL);
    volume_switch(&world->volume, "hold-rename", false);
    pthread_join(thread, NULL);
    assert_int_equal(seen, again ? MC_OK : MC_NOT_FOUND);
    assert_int_equal(scanned, MC_OK);
    assert_int_equal(count, again);
    assert_int_equal(committer.status, MC_OK);
    assert_int_equal(look(world, 1), MC_OK);
  }
}

/* The client of the volume dies in the middle of a commit, and its machine comes back. */
static void a_volume_that_breaks_in_a_commit_shows_nothing(void **state) {
  struct world *world = *state;
  struct committer committer = {world, stage_on(world, 0), MC_OK};
  mc_stage *stage = NULL;
  pthread_t thread;
  volume_switch(&world->volume, "hold-rename", true);
  assert_int_equal(pthread_create(&thread, NULL, commit_in_thread, &committer), 0);
  await_held(world);
  volume_kill(&world->volume, 0);
  volume_switch(&world->volume, "hold-rename", false);
  volume_switch(&world->volume, "held", false);
  pthread_join(thread, NULL);
  assert_true(committer.status == MC_IO || committer.status == MC_UNAVAILABLE);
  ops->stage_close(committer.stage, true); /* it can't tell anybody */
  ops->close(world->storages[0]);
  world->storages[0] = NULL;
  assert_int_equal(look(world, 1), MC_NOT_FOUND);
  assert_null(volume_mount(&world->volume, 0, habits));
  world->storages[0] = open_on(world, 0, 0);
  assert_int_equal(look(world, 0), MC_NOT_FOUND);
  assert_int_equal(ops->stage_resume(world->storages[0], KEY, &stage, NULL), MC_NOT_FOUND); /* we live */
  assert_int_equal(commit(world, stage_on(world, 0)), MC_OK);
  assert_int_equal(look(world, 1), MC_OK);
}

static void what_fails_on_the_volume_is_said(void **state) {
  struct world *world = *state;
  mc_stage *none = NULL, *stage = stage_on(world, 0);
  volume_switch(&world->volume, "full", true);
  assert_int_equal(ops->stage_create(world->storages[1], KEY, 1, &none, NULL), MC_NO_SPACE);
  assert_int_equal(ops->stage_append(stage, "more", 4, NULL), MC_NO_SPACE);
  assert_int_equal(commit(world, stage), MC_NO_SPACE);
  volume_switch(&world->volume, "full", false);
  assert_int_equal(look(world, 1), MC_NOT_FOUND);
  assert_int_equal(commit(world, stage), MC_OK);
  assert_int_equal(look(world, 1), MC_OK);
  assert_int_equal(ops->remove_object(world->storages[1], &world->digest, NULL), MC_OK);
  stage = stage_on(world, 0);
  volume_switch(&world->volume, "fsync-fails", true);
  assert_int_equal(commit(world, stage), MC_IO);
  assert_false(volume_is_on(&world->volume, "fsync-fails"));
  assert_int_equal(commit(world, stage), MC_IO); /* though it fails no more */
  assert_int_equal(look(world, 1), MC_NOT_FOUND);
  ops->stage_close(stage, false);
}

/* ---- adopting ---- */

/* A process that has a stage on machine 0, in a pid namespace of its own as a container has one. Through its gate it is
 * told to write nonsense into its stage and to commit it; it exits with the status. */
struct owner {
  pid_t starter, pid;
  int gate;
};

static void own(struct world *world, int ready, int gate) {
  static uint8_t nonsense[SIZE];
  pid_t pid = getpid();
  char byte;
  world->storages[0] = open_on(world, 0, 0);
  mc_stage *stage = stage_on(world, 0);
  if (write(ready, &pid, sizeof(pid)) != sizeof(pid) || read(gate, &byte, 1) != 1) _exit(100);
  (void)!pwrite(stage->fd, nonsense, SIZE, 0); /* stale, or into nowhere */
  ops->stage_append(stage, "nonsense", 8, NULL);
  _exit(commit(world, stage));
}

/* False: it takes root. */
static bool owner_start(struct owner *owner, struct world *world) {
  int ready[2], gate[2];
  pid_t pid = -1;
  assert_true(pipe2(ready, O_CLOEXEC) == 0 && pipe2(gate, O_CLOEXEC) == 0);
  fflush(NULL);
  owner->starter = fork();
  assert_true(owner->starter >= 0);
  if (owner->starter == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(gate[1]);
    pid = unshare(CLONE_NEWPID) ? -1 : fork();
    if (pid == 0) own(world, ready[1], gate[0]);
    int how = 0;
    if (write(ready[1], &pid, sizeof(pid)) != sizeof(pid) || pid < 0) _exit(100);
    _exit(waitpid(pid, &how, 0) == pid && WIFEXITED(how) ? WEXITSTATUS(how) : 100);
  }
  close(ready[1]);
  close(gate[0]);
  owner->gate = gate[1];
  owner->pid = -1;
  for (int i = 0; i < 2; i++) { /* it calls itself 1; what its starter calls it is what we do */
    if (read(ready[0], &pid, sizeof(pid)) != sizeof(pid)) break;
    if (pid != 1) owner->pid = pid;
  }
  close(ready[0]);
  if (owner->pid > 0) return true;
  close(owner->gate);
  waitpid(owner->starter, NULL, 0);
  return false;
}

/* What it says of its commit. */
static int owner_end(struct owner *owner) {
  int how = 0;
  kill(owner->pid, SIGCONT);
  assert_int_equal(write(owner->gate, "x", 1), 1);
  close(owner->gate);
  assert_int_equal(waitpid(owner->starter, &how, 0), owner->starter);
  return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

static mc_stage *adopt(mc_storage *storage) {
  mc_stage *stage = NULL;
  mc_status status;
  int64_t deadline = clock_ns() + 30 * NS_PER_S;
  do {
    status = ops->stage_resume(storage, KEY, &stage, NULL);
  } while (status == MC_NOT_FOUND && clock_ns() < deadline);
  assert_int_equal(status, MC_OK);
  return stage;
}

/* Its number says nothing here, and its machine is this one. */
static void a_paused_owner_harms_nobody_who_adopts(void **state) {
  struct world *world = *state;
  struct owner owner;
  mc_stage *stage = NULL;
  char *journal = NULL;
  size_t size = 0;
  if (!owner_start(&owner, world)) skip();
  assert_int_equal(kill(owner.pid, SIGSTOP), 0);
  assert_int_equal(ops->stage_resume(world->storages[1], KEY, &stage, NULL), MC_NOT_FOUND); /* not for a minute */
  ops->close(world->storages[1]);
  world->storages[1] = open_on(world, 1, 50);
  stage = adopt(world->storages[1]);
  int code = owner_end(&owner);
  assert_true(code == MC_BUSY || code == MC_IO);
  assert_int_equal(ops->stage_journal(stage, (void **)&journal, &size, 100, NULL), MC_OK);
  assert_string_equal(journal, "journal");
  free(journal);
  assert_int_equal(look(world, 1), MC_NOT_FOUND);
  assert_int_equal(commit(world, stage), MC_OK);
  assert_int_equal(look(world, 1), MC_OK);
  assert_int_equal(look(world, 0), MC_OK);
}

/* Make the only stage one of a process of another machine, which was never here; `path` becomes its folder, as it lies
 * below the mounts. */
static void give_to_another(char path[512], struct world *world) {
  char pattern[256];
  glob_t found;
  snprintf(pattern, sizeof(pattern), "%s/stage/*", world->volume.backing);
  assert_int_equal(glob(pattern, 0, NULL, &found), 0);
  assert_int_equal(found.gl_pathc, 1);
  snprintf(path, 512, "%s/stage/%s.0badb007.4711.99.0123456789abcdef", world->volume.backing, KEY);
  assert_int_equal(rename(found.gl_pathv[0], path), 0);
  globfree(&found);
}

static void set_back(const char *folder, int64_t ms) {
  static const char *const files[] = {"data", "journal", "."};
  int64_t then = clock_wall_ms() - ms;
  const struct timespec times[] = {{.tv_sec = then / 1000}, {.tv_sec = then / 1000}};
  for (int i = 0; i < 3; i++) {
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
  }
}

/* When an owner last wrote is asked for, not remembered. */
static void an_owner_that_writes_again_is_left_alone(void **state) {
  struct world *world = *state;
  char path[512];
  mc_stage *stage = stage_on(world, 0), *taken = NULL;
  ops->stage_close(stage, true);
  give_to_another(path, world);
  set_back(path, 6 * MINUTE_MS);
  mc_storage *patient = open_on(world, 1, 10 * MINUTE_MS), *hasty = open_on(world, 1, 5 * MINUTE_MS);
  assert_int_equal(ops->stage_resume(patient, KEY, &taken, NULL), MC_NOT_FOUND);
  set_back(path, 0);
  assert_int_equal(ops->stage_resume(hasty, KEY, &taken, NULL), MC_NOT_FOUND);
  set_back(path, 6 * MINUTE_MS);
  assert_int_equal(ops->stage_resume(hasty, KEY, &taken, NULL), MC_OK);
  assert_int_equal(commit(world, taken), MC_OK);
  ops->close(patient);
  ops->close(hasty);
  assert_int_equal(look(world, 0), MC_OK);
}

/* ---- running ---- */

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(what_one_commits_the_other_opens_at_once),  TEST(what_another_machine_removes_is_missing),
      TEST(nothing_is_visible_while_it_is_on_its_way), TEST(a_volume_that_breaks_in_a_commit_shows_nothing),
      TEST(what_fails_on_the_volume_is_said),          TEST(a_paused_owner_harms_nobody_who_adopts),
      TEST(an_owner_that_writes_again_is_left_alone),
  };
  static const char *const plain[] = {NULL};
  struct volume volume;
  const char *why = volume_make(&volume);
  if (!why) why = volume_mount(&volume, 0, plain);
  volume_remove(&volume);
  if (why) {
    fprintf(stderr, "skipped: %s\n", why);
    return 77;
  }
  return cmocka_run_group_tests(tests, NULL, NULL);
}
