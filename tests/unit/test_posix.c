/* What is particular to the posix storage: its folder's layout, what it cleans, and whom it takes for alive. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include <modelcache/backend/storage.h>

extern const mc_storage_ops posix_storage_ops;

#define MINUTE_MS (60 * 1000LL)
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)

static const mc_storage_ops *const ops = &posix_storage_ops;
static const char KEY[] = "00000000000000000000000000000000000000000000000000000000000000aa";

struct world {
  char folder[64];
  char path[512]; /* of what path_of made last */
  mc_storage *storage;
};

static mc_storage *open_at(const char *folder, mc_status expected) {
  mc_storage_config config = {.struct_size = sizeof(config), .location = folder};
  mc_storage *storage = NULL;
  mc_error err = MC_ERROR_INIT;
  mc_status status = ops->open(&storage, &config, &err);
  if (status != expected) fail_msg("open gives %s: %s", mc_status_name(status), err.message);
  return storage;
}

static int set_up(void **state) {
  struct world *world = calloc(1, sizeof(*world));
  strcpy(world->folder, "/tmp/modelcache-posix-XXXXXX");
  if (!mkdtemp(world->folder)) return -1;
  world->storage = open_at(world->folder, MC_OK);
  *state = world;
  return 0;
}

static int tear_down(void **state) {
  struct world *world = *state;
  if (world->storage) ops->close(world->storage);
  int error = remove_all(world->folder);
  free(world);
  return error;
}

static void reopen(struct world *world) {
  ops->close(world->storage);
  world->storage = open_at(world->folder, MC_OK);
}

static const char *path_of(struct world *world, const char *name) {
  snprintf(world->path, sizeof(world->path), "%s/%s", world->folder, name);
  return world->path;
}

static bool exists(struct world *world, const char *name) {
  struct stat st;
  return lstat(path_of(world, name), &st) == 0;
}

/* Set back when a file was last written to. */
static void age(struct world *world, const char *name, int64_t ms) {
  int64_t then = clock_wall_ms() - ms;
  struct timespec times[2] = {{.tv_sec = then / 1000}, {.tv_sec = then / 1000}};
  assert_int_equal(utimensat(AT_FDCWD, path_of(world, name), times, 0), 0);
}

static void write_file(struct world *world, const char *name, const char *text) {
  char folder[512];
  strcpy(folder, path_of(world, name));
  *strrchr(folder, '/') = 0;
  assert_int_equal(mkdir_all(folder, 0755), 0);
  assert_int_equal(file_replace(path_of(world, name), text, strlen(text), 0644, false), 0);
}

static mc_digest digest_of(const char *text) {
  mc_digest digest;
  sha256_of(&digest, text, strlen(text));
  return digest;
}

/* The name of an object's file below the storage, with a suffix. */
static const char *object_name(char name[256], const char *text, const char *suffix) {
  char hex[MC_DIGEST_HEX_SIZE];
  mc_digest digest = digest_of(text);
  mc_digest_hex(hex, &digest);
  snprintf(name, 256, "objects/%.2s/%s%s", hex, hex, suffix);
  return name;
}

static mc_stage *stage_of(struct world *world, const char *text) {
  mc_stage *stage = NULL;
  assert_int_equal(ops->stage_create(world->storage, KEY, strlen(text), &stage, NULL), MC_OK);
  assert_int_equal(pwrite_all(stage->fd, text, strlen(text), 0), 0);
  return stage;
}

static void put(struct world *world, const char *text) {
  mc_digest digest = digest_of(text);
  assert_int_equal(ops->stage_commit(stage_of(world, text), &digest, "meta", 4, NULL), MC_OK);
}

static mc_status look(struct world *world, const char *text) {
  mc_digest digest = digest_of(text);
  int fd;
  uint64_t size;
  mc_status status = ops->open_object(world->storage, &digest, &fd, &size, NULL);
  if (!status) close(fd);
  return status;
}

/* The name, below the storage, of the only stage there is; "" if there is none. */
static const char *only_stage(struct world *world, char name[256]) {
  unsigned count = 0;
  DIR *folder = opendir(path_of(world, "stage"));
  assert_non_null(folder);
  *name = 0;
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (entry->d_name[0] == '.') continue;
    snprintf(name, 256, "stage/%.200s", entry->d_name);
    count++;
  }
  closedir(folder);
  assert_true(count <= 1);
  return name;
}

static const char *below(char to[256], const char *folder, const char *name) {
  snprintf(to, 256, "%.200s/%s", folder, name);
  return to;
}

/* ---- the folder ---- */

static void the_layout_is_as_documented(void **state) {
  struct world *world = *state;
  char name[256];
  struct stat st;
  put(world, "abc");
  assert_int_equal(ops->record_put(world->storage, KEY, "x", 1, NULL), MC_OK);
  assert_true(exists(world, "format"));
  assert_true(exists(world, object_name(name, "abc", ".meta")));
  assert_true(exists(world, object_name(name, "abc", "")));
  assert_int_equal(stat(world->path, &st), 0);
  assert_int_equal(st.st_mode & 07777, 0444);
  char record[128];
  snprintf(record, sizeof(record), "records/00/%s", KEY);
  assert_true(exists(world, record));
  char stage[256];
  assert_string_equal(only_stage(world, stage), "");
}

static void folders_of_others_are_refused(void **state) {
  struct world *world = *state;
  static const char *const formats[] = {"modelcache posix 2\n", "modelcache posix 10\n", "something else", "", "\n"};
  for (size_t i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
    write_file(world, "format", formats[i]);
    assert_null(open_at(world->folder, MC_UNSUPPORTED));
  }
  char large[5000];
  memset(large, 'x', sizeof(large) - 1);
  large[sizeof(large) - 1] = 0;
  write_file(world, "format", large);
  assert_null(open_at(world->folder, MC_UNSUPPORTED));
  assert_int_equal(unlink(path_of(world, "format")), 0);
  assert_int_equal(mkdir(world->path, 0755), 0);
  assert_null(open_at(world->folder, MC_IO));
  assert_int_equal(rmdir(world->path), 0);
  reopen(world); /* one without it is new */
}

static void a_path_that_is_too_long_is_refused(void **state) {
  struct world *world = *state;
  char path[4000];
  int length = snprintf(path, sizeof(path), "%s", world->folder);
  while (length < 3900) {
    length += snprintf(path + length, sizeof(path) - (size_t)length, "/%0*d", 99, 0);
  }
  assert_null(open_at(path, MC_INVALID_ARGUMENT));
}

static void names_of_others_are_left_alone(void **state) {
  struct world *world = *state;
  static const char *const names[] = {
      "objects/00/README",
      "objects/00/00000000000000000000000000000000000000000000000000000000000000AA",
      "objects/00/00000000000000000000000000000000000000000000000000000000000000aa.other",
      "records/00/README",
      "stage/README",
      "stage/0000000000000000000000000000000000000000000000000000000000000000",
      "stage/00000000000000000000000000000000000000000000000000000000000000aa.none",
      "trees/something",
  };
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    write_file(world, names[i], "x");
    age(world, names[i], 30 * DAY_MS);
  }
  reopen(world);
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) assert_true(exists(world, names[i]));
}

/* ---- use ---- */

static bool find_used(void *user, const mc_stored *stored) {
  int64_t *used = user;
  mc_digest a = digest_of("a");
  used[mc_digest_equal(&stored->digest, &a) ? 0 : 1] = stored->used_at;
  return true;
}

static void the_order_of_use_survives(void **state) {
  struct world *world = *state;
  char a[256], b[256];
  int64_t used[2] = {0, 0};
  mc_digest digest = digest_of("a");
  put(world, "a");
  put(world, "b");
  age(world, object_name(a, "a", ".meta"), 2 * HOUR_MS);
  age(world, object_name(b, "b", ".meta"), HOUR_MS);
  assert_int_equal(ops->scan(world->storage, find_used, used, NULL), MC_OK);
  assert_true(used[0] < used[1]);
  ops->touch(world->storage, &digest);
  reopen(world);
  assert_int_equal(ops->scan(world->storage, find_used, used, NULL), MC_OK);
  assert_true(used[0] > used[1]);
  assert_in_range(used[0], clock_wall_ms() - MINUTE_MS, clock_wall_ms());
}

/* ---- halves ---- */

static void data_alone_is_no_object(void **state) {
  struct world *world = *state;
  char name[256];
  int64_t used[2] = {0, 0};
  mc_digest digest = digest_of("a");
  put(world, "a");
  assert_int_equal(unlink(path_of(world, object_name(name, "a", ".meta"))), 0);
  assert_int_equal(look(world, "a"), MC_NOT_FOUND);
  assert_int_equal(ops->scan(world->storage, find_used, used, NULL), MC_OK);
  assert_int_equal(used[0], 0);
  put(world, "a"); /* the next commit makes it whole */
  assert_int_equal(look(world, "a"), MC_OK);
  assert_int_equal(unlink(path_of(world, object_name(name, "a", ""))), 0);
  assert_int_equal(look(world, "a"), MC_NOT_FOUND);
  void *meta;
  size_t size;
  assert_int_equal(ops->read_meta(world->storage, &digest, &meta, &size, 10, NULL), MC_NOT_FOUND);
}

static void only_old_halves_are_cleaned(void **state) {
  struct world *world = *state;
  static const struct {
    const char *suffix;
    int64_t age_ms;
    bool stays;
  } halves[] = {
      {".meta", 0, true},      {".meta", 2 * HOUR_MS, false}, {"", 0, true},
      {"", 2 * HOUR_MS, true}, {"", 2 * DAY_MS, false},
  };
  char name[256];
  for (size_t i = 0; i < sizeof(halves) / sizeof(*halves); i++) {
    write_file(world, object_name(name, "a", halves[i].suffix), "a");
    age(world, name, halves[i].age_ms);
    reopen(world);
    assert_int_equal(exists(world, name), halves[i].stays);
    unlink(world->path);
  }
  put(world, "a"); /* and no whole one, however old */
  age(world, object_name(name, "a", ".meta"), 300 * DAY_MS);
  age(world, object_name(name, "a", ""), 300 * DAY_MS);
  reopen(world);
  assert_int_equal(look(world, "a"), MC_OK);
}

static void drafts_of_records_are_cleaned(void **state) {
  struct world *world = *state;
  char young[128], old[128];
  snprintf(young, sizeof(young), "records/00/%s.abcdef", KEY);
  snprintf(old, sizeof(old), "records/00/%s.uvwxyz", KEY);
  assert_int_equal(ops->record_put(world->storage, KEY, "x", 1, NULL), MC_OK);
  write_file(world, young, "half");
  write_file(world, old, "half");
  age(world, old, 2 * HOUR_MS);
  reopen(world);
  assert_true(exists(world, young));
  assert_false(exists(world, old));
  void *data;
  size_t size;
  assert_int_equal(ops->record_get(world->storage, KEY, &data, &size, 10, NULL), MC_OK);
  free(data);
}

/* ---- stages ---- */

/* Close a stage and give its folder another owner. */
static void give_to(struct world *world, mc_stage *stage, const char *owner) {
  char from[512], to[512], name[256];
  ops->stage_close(stage, true);
  snprintf(from, sizeof(from), "%s", path_of(world, only_stage(world, name)));
  snprintf(to, sizeof(to), "%s/stage/%s.%s.0123456789abcdef", world->folder, KEY, owner);
  assert_int_equal(rename(from, to), 0);
}

static void age_stage(struct world *world, int64_t ms) {
  static const char *const files[] = {"data", "journal", "."};
  char stage[256], file[256];
  only_stage(world, stage);
  for (int i = 0; i < 3; i++) age(world, below(file, stage, files[i]), ms);
}

static void an_owner_lives_or_not(void **state) {
  struct world *world = *state;
  char mine[OWNER_SIZE], reused[OWNER_SIZE], stage[256];
  owner_name(mine);
  snprintf(reused, sizeof(reused), "%.*s.1", (int)(strrchr(mine, '.') - mine), mine);
  const struct {
    const char *owner;
    int64_t age_ms;
    bool adopted;
  } cases[] = {
      {mine, 0, false},
      {mine, 30 * DAY_MS, false},                /* slow, but alive */
      {reused, 0, true},                         /* its process number is another's now */
      {"0badb007.4711.99", 0, false},            /* of another machine, and written to just now */
      {"0badb007.4711.99", 2 * MINUTE_MS, true}, /* … and not for a while */
      {"nobody", 0, true},
      {"what.ever", 0, true},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    mc_stage *made = stage_of(world, "data"), *found = NULL;
    assert_int_equal(ops->stage_append(made, "x", 1, NULL), MC_OK);
    give_to(world, made, cases[i].owner);
    age_stage(world, cases[i].age_ms);
    mc_status status = ops->stage_resume(world->storage, KEY, &found, NULL);
    assert_int_equal(status, cases[i].adopted ? MC_OK : MC_NOT_FOUND);
    if (found) ops->stage_close(found, false);
    remove_all(path_of(world, only_stage(world, stage)));
  }
}

/* Who had it may only be paused, and write on: what is adopted is a copy, also when who copied it has died. */
static void a_doubtful_stage_is_copied(void **state) {
  struct world *world = *state;
  char mine[OWNER_SIZE], gone[OWNER_SIZE + 8], doubted[OWNER_SIZE + 16];
  owner_name(mine);
  snprintf(gone, sizeof(gone), "%.*s.1", (int)(strrchr(mine, '.') - mine), mine);
  snprintf(doubted, sizeof(doubted), "%s.doubt", gone);
  const struct {
    const char *owner;
    bool copied;
  } cases[] = {{"nobody", false}, {gone, false}, {"0badb007.4711.99", true}, {doubted, true}, {"nobody.doubt", true}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    char back[4], name[256];
    struct stat before, after;
    mc_digest digest = digest_of("data");
    mc_stage *made = stage_of(world, "data"), *found = NULL;
    assert_int_equal(ops->stage_append(made, "x", 1, NULL), MC_OK);
    int paused = fcntl(made->fd, F_DUPFD_CLOEXEC, 0);
    give_to(world, made, cases[i].owner);
    age_stage(world, 2 * MINUTE_MS);
    assert_int_equal(ops->stage_resume(world->storage, KEY, &found, NULL), MC_OK);
    only_stage(world, name); /* what it was is not there any more */
    assert_true(fstat(paused, &before) == 0 && fstat(found->fd, &after) == 0);
    assert_int_equal(before.st_ino != after.st_ino, cases[i].copied);
    if (cases[i].copied) assert_int_equal(pwrite_all(paused, "evil", 4, 0), 0);
    close(paused);
    assert_int_equal(pread_all(found->fd, back, 4, 0), 0);
    assert_memory_equal(back, "data", 4);
    assert_int_equal(found->size, 4);
    assert_int_equal(ops->stage_commit(found, &digest, "m", 1, NULL), MC_OK);
    assert_string_equal(only_stage(world, name), "");
  }
}

/* What has the folders of a commit that was cut off for a day. */
static void drafts_of_commits_are_cleaned(void **state) {
  struct world *world = *state;
  static const char *const kinds[] = {"", ".meta"};
  for (size_t i = 0; i < 2; i++) {
    char suffix[128], name[256], young[256];
    put(world, "a");
    snprintf(suffix, sizeof(suffix), "%s.%s.0123456789abcdef", kinds[i], KEY);
    write_file(world, object_name(name, "a", suffix), "half");
    age(world, name, 2 * DAY_MS);
    snprintf(suffix, sizeof(suffix), "%s.%s.0123456789abcdee", kinds[i], KEY);
    write_file(world, object_name(young, "a", suffix), "half");
    reopen(world);
    assert_false(exists(world, name));
    assert_true(exists(world, young));
    assert_int_equal(look(world, "a"), MC_OK);
    assert_int_equal(unlink(path_of(world, young)), 0);
  }
}

static void stages_are_kept_for_a_day(void **state) {
  struct world *world = *state;
  static const struct {
    const char *journal;
    int64_t age_ms;
    bool stays;
  } cases[] = {{"x", 0, true}, {"x", DAY_MS - HOUR_MS, true}, {"x", DAY_MS + HOUR_MS, false}, {"", 0, false}};
  char stage[256];
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    mc_stage *made = stage_of(world, "data");
    assert_int_equal(ops->stage_append(made, cases[i].journal, strlen(cases[i].journal), NULL), MC_OK);
    ops->stage_close(made, true);
    age_stage(world, cases[i].age_ms);
    reopen(world);
    assert_int_equal(*only_stage(world, stage) != 0, cases[i].stays);
    if (*stage) remove_all(path_of(world, stage));
  }
  mc_stage *alive = stage_of(world, "data"); /* what has an owner stays, however old */
  age_stage(world, 300 * DAY_MS);
  mc_storage *other = open_at(world->folder, MC_OK);
  ops->close(other);
  assert_true(*only_stage(world, stage));
  ops->stage_close(alive, false);
}

/* Another machine took a stage whose owner was too slow: to the owner it is lost. */
static void a_stage_that_was_taken_is_lost_to_its_owner(void **state) {
  struct world *world = *state;
  char from[512], to[512], name[256];
  mc_digest digest = digest_of("data");
  mc_stage *stage = stage_of(world, "data");
  snprintf(from, sizeof(from), "%s", path_of(world, only_stage(world, name)));
  snprintf(to, sizeof(to), "%s/stage/%s.0badb007.1.1.0123456789abcdef", world->folder, KEY);
  assert_int_equal(rename(from, to), 0);
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(ops->stage_commit(stage, &digest, "m", 1, &err), MC_BUSY);
  assert_int_equal(err.status, MC_BUSY);
  assert_int_equal(look(world, "data"), MC_NOT_FOUND);
  ops->stage_close(stage, true);
  assert_int_equal(access(to, F_OK), 0); /* the other's still */
}

static void a_torn_journal_ends_where_it_is_whole(void **state) {
  struct world *world = *state;
  char name[256], file[256];
  void *whole = NULL;
  size_t length = 0;
  mc_stage *stage = stage_of(world, "data");
  assert_int_equal(ops->stage_append(stage, "first", 5, NULL), MC_OK);
  assert_int_equal(ops->stage_append(stage, "second", 6, NULL), MC_OK);
  ops->stage_close(stage, true);
  assert_int_equal(file_read(path_of(world, below(file, only_stage(world, name), "journal")), &whole, &length, 100), 0);
  for (size_t cut = 0; cut <= length; cut++) { /* and after each cut it goes on */
    void *data = NULL;
    size_t size = 0;
    path_of(world, below(file, only_stage(world, name), "journal"));
    assert_int_equal(file_replace(world->path, whole, cut, 0644, false), 0);
    assert_int_equal(ops->stage_resume(world->storage, KEY, &stage, NULL), MC_OK);
    assert_int_equal(ops->stage_append(stage, "!", 1, NULL), MC_OK);
    ops->stage_close(stage, true);
    assert_int_equal(ops->stage_resume(world->storage, KEY, &stage, NULL), MC_OK);
    assert_int_equal(ops->stage_journal(stage, &data, &size, 100, NULL), MC_OK);
    assert_string_equal((char *)data, cut == length ? "firstsecond!" : cut >= 9 ? "first!" : "!");
    free(data);
    ops->stage_close(stage, true);
  }
  free(whole);
}

static void a_journal_that_is_none_is_empty(void **state) {
  struct world *world = *state;
  static const char *const journals[] = {"MCJRNL1\nof another time", "x", "\xff\xff\xff\xff\xff\xff\xff\xff"};
  char name[256], file[256];
  for (size_t i = 0; i < sizeof(journals) / sizeof(*journals); i++) {
    mc_stage *stage = stage_of(world, "data");
    void *data = NULL;
    size_t size = 1;
    ops->stage_close(stage, true);
    write_file(world, below(file, only_stage(world, name), "journal"), journals[i]);
    assert_int_equal(ops->stage_resume(world->storage, KEY, &stage, NULL), MC_OK);
    assert_int_equal(ops->stage_journal(stage, &data, &size, 100, NULL), MC_OK);
    assert_int_equal(size, 0);
    free(data);
    ops->stage_close(stage, false);
  }
}

/* As another user than root, whom modes don't stop. */
static int resume_read_only(const char *folder) {
  if (setgid(65534) || setuid(65534)) return 77;
  struct world world = {.storage = open_at(folder, MC_OK)};
  snprintf(world.folder, sizeof(world.folder), "%s", folder);
  mc_stage *stage = stage_of(&world, "data");
  mc_digest digest = digest_of("data");
  char back[4] = "";
  if (ops->stage_append(stage, "x", 1, NULL) || fchmod(stage->fd, 0444)) return 1;
  ops->stage_close(stage, true);
  if (ops->stage_resume(world.storage, KEY, &stage, NULL)) return 2;
  if (pread_all(stage->fd, back, 4, 0) || memcmp(back, "data", 4) != 0) return 3;
  if (ops->stage_commit(stage, &digest, "m", 1, NULL)) return 4;
  if (ops->restage(world.storage, &digest, KEY, &stage, NULL)) return 5; /* an object is read-only, too */
  if (pwrite_all(stage->fd, "d", 1, 0) || ops->stage_commit(stage, &digest, "m", 1, NULL)) return 6;
  ops->close(world.storage);
  return 0;
}

/* Its owner died after making it read-only, and before its rename. */
static void read_only_data_is_resumed(void **state) {
  struct world *world = *state;
  char folder[512];
  int how = 0;
  assert_int_equal(chmod(world->folder, 0755), 0);
  strcpy(folder, path_of(world, "other"));
  assert_int_equal(mkdir(folder, 0777), 0);
  assert_int_equal(chmod(folder, 0777), 0);
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) _exit(resume_read_only(folder));
  assert_int_equal(waitpid(pid, &how, 0), pid);
  if (WIFEXITED(how) && WEXITSTATUS(how) == 77) skip(); /* takes root */
  assert_true(WIFEXITED(how));
  assert_int_equal(WEXITSTATUS(how), 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(the_layout_is_as_documented),
      TEST(folders_of_others_are_refused),
      TEST(a_path_that_is_too_long_is_refused),
      TEST(names_of_others_are_left_alone),
      TEST(the_order_of_use_survives),
      TEST(data_alone_is_no_object),
      TEST(only_old_halves_are_cleaned),
      TEST(drafts_of_records_are_cleaned),
      TEST(an_owner_lives_or_not),
      TEST(a_doubtful_stage_is_copied),
      TEST(drafts_of_commits_are_cleaned),
      TEST(stages_are_kept_for_a_day),
      TEST(a_stage_that_was_taken_is_lost_to_its_owner),
      TEST(a_torn_journal_ends_where_it_is_whole),
      TEST(a_journal_that_is_none_is_empty),
      TEST(read_only_data_is_resumed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
