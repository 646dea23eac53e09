/* Trees: published whole, switched atomically, and nothing outside of them is touched. */
#include "tests/fakes/engine_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE "fake://host/tree/"

static struct fake_content *add_file(const char *path, uint64_t size, uint32_t seed) {
  char name[128];
  snprintf(name, sizeof(name), "host/tree/%s", path);
  return fake_add(0, name, size, seed);
}

static mc_status get_tree(struct fixture *fixture, mc_tree_result *out, const char *path, mc_error *err) {
  mc_error own = MC_ERROR_INIT;
  return mc_get_tree(out, fixture->cache, TREE, path, NULL, err ? err : &own);
}

static void assert_file(const char *tree, const char *name, const struct fake_content *content) {
  char path[4300];
  snprintf(path, sizeof(path), "%s/%s", tree, name);
  assert_file_is(path, content);
}

static bool exists(const char *tree, const char *name) {
  char path[4300];
  snprintf(path, sizeof(path), "%s/%s", tree, name);
  return access(path, F_OK) == 0;
}

/* How many versions and stages lie beside the link; the mark is neither. */
static unsigned versions_of(struct fixture *fixture, const char *name) {
  char path[256], relative[128];
  snprintf(relative, sizeof(relative), ".%s.mc", name);
  path_in(fixture, path, relative);
  return names_in(path) - exists(path, ".key");
}

static void a_tree_is_there_whole(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a", 10, 1), *b = add_file("sub/b", CHUNK + 1, 2),
                      *c = add_file("sub/deep/c", 0, 3);
  mc_tree_result result;
  char path[256];
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, &result, path_in(fixture, path, "models"), NULL), MC_OK);
  assert_string_equal(result.path, path);
  assert_int_equal(result.files, 3);
  assert_int_equal(result.bytes, CHUNK + 11);
  assert_true(result.changed);
  assert_file(path, "a", a);
  assert_file(path, "sub/b", b);
  assert_file(path, "sub/deep/c", c);
  assert_int_equal(versions_of(fixture, "models"), 1); /* no stage is left */
}

static void the_same_again_changes_nothing(void **state) {
  struct fixture *fixture = *state;
  mc_tree_result first, second;
  add_file("a", 10, 1);
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, &first, NULL, NULL), MC_OK); /* a place of the cache's own */
  close_cache(fixture);
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, &second, NULL, NULL), MC_OK);
  assert_string_equal(first.path, second.path);
  assert_true(first.changed);
  assert_false(second.changed);
  assert_true(exists(second.path, "a"));
}

static void a_change_switches_and_keeps_the_version_before(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a", 10, 1), *gone = add_file("gone", 10, 2);
  mc_tree_result result;
  char path[256];
  fixture->options.revalidate_after_ms = 0;
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, &result, path_in(fixture, path, "models"), NULL), MC_OK);
  int reader = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  fake_change(a, 20, 3);
  gone->missing = true;
  struct fake_content *new = add_file("new", 5, 4);
  assert_int_equal(get_tree(fixture, &result, path, NULL), MC_OK);
  assert_true(result.changed);
  assert_file(path, "a", a);
  assert_file(path, "new", new);
  assert_false(exists(path, "gone"));
  assert_int_equal(faccessat(reader, "gone", F_OK, 0), 0); /* whoever is in the version before stays there */
  for (int i = 0; i < 3; i++) assert_int_equal(get_tree(fixture, &result, path, NULL), MC_OK);
  assert_false(result.changed);
  assert_int_equal(faccessat(reader, "gone", F_OK, 0), 0); /* until the next switch */
  assert_int_equal(versions_of(fixture, "models"), 2);
  fake_change(a, 30, 5);
  assert_int_equal(get_tree(fixture, &result, path, NULL), MC_OK);
  assert_int_equal(faccessat(reader, "gone", F_OK, 0), -1);
  assert_int_equal(versions_of(fixture, "models"), 2);
  close(reader);
}

static void one_listing_is_enough(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a", 10, 1), *b = add_file("sub/b", CHUNK + 1, 2);
  mc_tree_options options;
  mc_tree_result result;
  char path[256];
  mc_tree_options_init(&options);
  options.flags = MC_GET_REVALIDATE;
  a->lists_version = b->lists_version = true;
  open_cache(fixture);
  path_in(fixture, path, "models");
  for (int again = 0; again < 3; again++) {
    assert_int_equal(mc_get_tree(&result, fixture->cache, TREE, path, &options, NULL), MC_OK);
    assert_true(result.changed == !again);
    assert_int_equal(a->opens, 1);
    assert_int_equal(a->opens_listed, 1);
    assert_int_equal(b->opens, b->opens_listed);
  }
  fake_change(b, 20, 3);
  assert_int_equal(mc_get_tree(&result, fixture->cache, TREE, path, &options, NULL), MC_OK);
  assert_true(result.changed);
  assert_file(path, "a", a);
  assert_file(path, "sub/b", b);
  assert_int_equal(a->opens, 1);
  assert_int_equal(b->opens, 2);
}

struct mover {
  struct fake_content *first, *second;
  unsigned times;
};

/* When the first file is there, both become others. */
static void move_on(void *user, uint64_t done, uint64_t count, uint64_t bytes, uint64_t total) {
  struct mover *mover = user;
  (void)count;
  (void)bytes;
  (void)total;
  if (done != 1 || mover->times++) return;
  fake_change(mover->first, 10, 11);
  fake_change(mover->second, 10, 12);
  fake_release(mover->second);
}

static void a_tree_is_of_one_version(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a", 10, 1), *b = add_file("b", 10, 2);
  struct mover mover = {a, b, 0};
  mc_tree_options options;
  char path[256];
  mc_tree_options_init(&options);
  options.progress = move_on;
  options.user = &mover;
  a->lists_version = b->lists_version = true;
  b->stalls = true;
  open_cache(fixture);
  assert_int_equal(mc_get_tree(NULL, fixture->cache, TREE, path_in(fixture, path, "models"), &options, NULL), MC_OK);
  assert_int_equal(mover.times, 1);
  assert_file(path, "a", a);
  assert_file(path, "b", b);
  assert_int_equal(versions_of(fixture, "models"), 1);
}

static void take_away(void *user, uint64_t done, uint64_t count, uint64_t bytes, uint64_t total) {
  struct mover *mover = user;
  (void)count;
  (void)bytes;
  (void)total;
  if (done != 1 || mover->times++) return;
  mover->second->missing = true;
  fake_release(mover->second);
}

static void what_goes_while_a_tree_is_got_is_not_missed(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a", 10, 1), *b = add_file("b", 10, 2);
  struct mover mover = {a, b, 0};
  mc_tree_options options;
  mc_tree_result result;
  char path[256];
  mc_tree_options_init(&options);
  options.progress = take_away;
  options.user = &mover;
  b->stalls = true;
  open_cache(fixture);
  assert_int_equal(mc_get_tree(&result, fixture->cache, TREE, path_in(fixture, path, "models"), &options, NULL), MC_OK);
  assert_int_equal(result.files, 1);
  assert_file(path, "a", a);
}

static void a_failure_leaves_what_was_there(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a", 10, 1), *b = add_file("b", 4 * CHUNK, 2);
  mc_tree_result result;
  char path[256];
  fixture->options.revalidate_after_ms = 0;
  fixture->options.stale_if_error_ms = 0;
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, &result, path_in(fixture, path, "models"), NULL), MC_OK);
  uint64_t before = a->data[3];
  fake_change(a, 10, 3);
  fake_change(b, 4 * CHUNK, 4);
  b->fails = 1000;
  b->fails_with = MC_PERMISSION_DENIED;
  assert_int_equal(get_tree(fixture, &result, path, NULL), MC_PERMISSION_DENIED);
  char name[300];
  uint8_t byte;
  snprintf(name, sizeof(name), "%s/a", path);
  int fd = open(name, O_RDONLY | O_CLOEXEC);
  assert_int_equal(pread(fd, &byte, 1, 3), 1);
  assert_int_equal(byte, before);
  close(fd);
  assert_int_equal(versions_of(fixture, "models"), 1);
}

static void one_failure_ends_the_others(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *slow = add_file("slow", CHUNK, 1), *bad = add_file("z-bad", 10, 2);
  slow->stalls = true;
  bad->fails = 1000;
  bad->fails_with = MC_PERMISSION_DENIED;
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, NULL, NULL, NULL), MC_PERMISSION_DENIED); /* though the slow one never ends */
}

static void paths_that_leave_the_tree_are_refused(void **state) {
  struct fixture *fixture = *state;
  const char *const names[] = {"../evil", "a/../../evil", "/evil", "a//b", ".", "a/", "back\\slash", "new\nline"};
  mc_error error = MC_ERROR_INIT;
  char path[256];
  open_cache(fixture);
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    add_file("good", 1, 1);
    add_file(names[i], 1, 2);
    assert_int_equal(get_tree(fixture, NULL, path_in(fixture, path, "models"), &error), MC_PROTOCOL);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(path_in(fixture, path, "evil"), F_OK), -1);
    fake_clear();
  }
}

static void a_path_that_is_listed_twice_is_refused(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a", 10, 1);
  mc_error error = MC_ERROR_INIT;
  open_cache(fixture);
  get_once(fixture, TREE "a", a);
  add_file("a", 10, 2);
  assert_int_equal(get_tree(fixture, NULL, NULL, &error), MC_PROTOCOL);
  assert_non_null(strstr(error.message, "twice"));
  get_once(fixture, TREE "a", a); /* what is stored was not written to */
}

static void a_file_where_another_has_a_folder_is_an_error(void **state) {
  struct fixture *fixture = *state;
  add_file("a", 10, 1);
  add_file("a/b", 10, 2);
  open_cache(fixture);
  assert_int_not_equal(get_tree(fixture, NULL, NULL, NULL), MC_OK);
}

static void what_is_no_tree_is_left_alone(void **state) {
  struct fixture *fixture = *state;
  char folder[256], inside[256];
  mc_error error = MC_ERROR_INIT;
  add_file("a", 10, 1);
  open_cache(fixture);
  assert_int_equal(mkdir(path_in(fixture, folder, "mine"), 0755), 0);
  assert_int_equal(mkdir(path_in(fixture, inside, "mine/precious"), 0755), 0);
  assert_int_equal(get_tree(fixture, NULL, folder, &error), MC_INVALID_ARGUMENT);
  assert_int_equal(get_tree(fixture, NULL, strcat(folder, "///"), &error), MC_INVALID_ARGUMENT);
  assert_int_equal(access(inside, F_OK), 0);
  assert_int_equal(get_tree(fixture, NULL, "", &error), MC_INVALID_ARGUMENT);
  assert_int_equal(get_tree(fixture, NULL, "/", &error), MC_INVALID_ARGUMENT);
}

static void long_paths_are_refused_and_short_ones_are_fine(void **state) {
  struct fixture *fixture = *state;
  char longest[5000], before[4096];
  mc_tree_result result;
  struct fake_content *a = add_file("a", 10, 1);
  open_cache(fixture);
  memset(longest, '/', sizeof(longest));
  for (size_t i = 1; i < sizeof(longest); i += 50) longest[i] = 'x';
  longest[sizeof(longest) - 1] = 0;
  longest[sizeof(longest) - 2] = 'x';
  assert_int_equal(get_tree(fixture, NULL, longest, NULL), MC_INVALID_ARGUMENT);
  /* A path without a slash is beside the current folder. */
  assert_non_null(getcwd(before, sizeof(before)));
  assert_int_equal(chdir(fixture->folder), 0);
  assert_int_equal(get_tree(fixture, &result, "models", NULL), MC_OK);
  assert_string_equal(result.path, "models");
  assert_file("models", "a", a);
  assert_int_equal(get_tree(fixture, &result, "models/", NULL), MC_OK);
  assert_false(result.changed);
  assert_int_equal(chdir(before), 0);
}

static void without_a_storage_a_path_must_be_named(void **state) {
  struct fixture *fixture = *state;
  mc_error error = MC_ERROR_INIT;
  mc_tree_result result;
  char path[256];
  struct fake_content *a = add_file("a", CHUNK + 5, 1);
  fixture->options.storage = "none";
  fixture->options.memory_capacity = 64 * MIB;
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, NULL, NULL, &error), MC_INVALID_ARGUMENT);
  assert_int_equal(access("none", F_OK), -1);
  assert_int_equal(get_tree(fixture, &result, path_in(fixture, path, "models"), NULL), MC_OK); /* copies, then */
  assert_file(path, "a", a);
}

static void nothing_there_is_not_found(void **state) {
  struct fixture *fixture = *state;
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, NULL, NULL, NULL), MC_NOT_FOUND);
}

static void too_many_files_are_refused(void **state) {
  struct fixture *fixture = *state;
  add_file("a", 1, 1);
  add_file("b", 1, 2);
  add_file("c", 1, 3);
  fixture->options.tree_files = 2;
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, NULL, NULL, NULL), MC_RESOURCE_EXHAUSTED);
}

static mc_status get_some(struct fixture *fixture, mc_tree_result *out, const char *path, const char *allow,
                          const char *ignore, mc_error *err) {
  mc_tree_options options;
  const char *const allowed[] = {allow, NULL}, *const ignored[] = {ignore, NULL};
  mc_tree_options_init(&options);
  options.allow = allow ? allowed : NULL;
  options.ignore = ignored;
  return mc_get_tree(out, fixture->cache, TREE, path, &options, err);
}

static void patterns_choose_the_files(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a.json", 10, 1), *b = add_file("sub/b.json", 20, 2), *c = add_file("c.bin", 40, 3);
  mc_tree_result result;
  mc_error error = MC_ERROR_INIT;
  char path[256];
  open_cache(fixture);
  path_in(fixture, path, "models");
  assert_int_equal(get_some(fixture, &result, path, "*.json", "sub/", NULL), MC_OK);
  assert_int_equal(result.files, 1);
  assert_int_equal(result.bytes, 10);
  assert_file(path, "a.json", a);
  assert_false(exists(path, "sub"));
  assert_int_equal(b->opens + c->opens, 0);
  assert_int_equal(get_some(fixture, &result, path, NULL, "*.json", NULL), MC_OK); /* the path is switched */
  assert_true(result.changed);
  assert_file(path, "c.bin", c);
  assert_false(exists(path, "a.json"));
  assert_int_equal(get_some(fixture, &result, path, "*.onnx", NULL, &error), MC_NOT_FOUND);
  assert_non_null(strstr(error.message, "none of the 3 files"));
  assert_file(path, "c.bin", c); /* as before */
  assert_int_equal(get_some(fixture, &result, path, "", NULL, &error), MC_INVALID_ARGUMENT);
  add_file("../evil.bin", 1, 4);
  assert_int_equal(get_some(fixture, &result, path, "*.json", NULL, &error), MC_PROTOCOL); /* though not let through */
}

static void other_patterns_are_another_tree(void **state) {
  struct fixture *fixture = *state;
  mc_tree_result all, some, others, again;
  add_file("a", 10, 1);
  add_file("b", 10, 2);
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, &all, NULL, NULL), MC_OK);
  assert_int_equal(get_some(fixture, &some, NULL, "a", NULL, NULL), MC_OK);
  assert_int_equal(get_some(fixture, &others, NULL, NULL, "a", NULL), MC_OK);
  assert_string_not_equal(all.path, some.path);
  assert_string_not_equal(all.path, others.path);
  assert_string_not_equal(some.path, others.path);
  assert_int_equal(get_some(fixture, &again, NULL, NULL, NULL, NULL), MC_OK);
  assert_string_equal(again.path, all.path); /* empty lists are none */
  assert_true(exists(some.path, "a") && !exists(some.path, "b"));
  assert_true(exists(others.path, "b") && !exists(others.path, "a"));
}

static void only_a_tree_of_the_same_patterns_is_kept(void **state) {
  struct fixture *fixture = *state;
  mc_tree_result result;
  char path[256];
  struct fake_content *a = add_file("a", 10, 1);
  add_file("b", 10, 2);
  open_cache(fixture);
  path_in(fixture, path, "models");
  assert_int_equal(get_some(fixture, NULL, path, "a", NULL, NULL), MC_OK);
  a->open_fails = MC_UNAVAILABLE; /* the listing, too */
  assert_int_equal(get_some(fixture, &result, path, "a", NULL, NULL), MC_OK);
  assert_int_equal(result.files, 1);
  assert_int_equal(get_some(fixture, NULL, path, "b", NULL, NULL), MC_UNAVAILABLE);
  assert_int_equal(get_some(fixture, NULL, path, NULL, "a", NULL), MC_UNAVAILABLE);
  assert_int_equal(get_tree(fixture, NULL, path, NULL), MC_UNAVAILABLE);
}

struct told {
  pthread_t thread;
  uint64_t calls, files, total, bytes;
};

static void tell(void *user, uint64_t files, uint64_t total_files, uint64_t bytes, uint64_t total_bytes) {
  struct told *told = user;
  assert_true(pthread_equal(told->thread, pthread_self()));
  assert_true(files > told->files && files <= total_files && bytes <= total_bytes);
  told->calls++;
  told->files = files;
  told->total = total_files;
  told->bytes = bytes;
}

static void progress_comes_on_the_callers_thread(void **state) {
  struct fixture *fixture = *state;
  struct told told = {.thread = pthread_self()};
  mc_tree_options options;
  char name[32];
  for (uint32_t i = 0; i < 100; i++) { /* more than are got together */
    snprintf(name, sizeof(name), "%03u", i);
    add_file(name, 100, i + 1);
  }
  mc_tree_options_init(&options);
  options.progress = tell;
  options.user = &told;
  open_cache(fixture);
  assert_int_equal(mc_get_tree(NULL, fixture->cache, TREE, NULL, &options, NULL), MC_OK);
  assert_int_equal(told.files, 100);
  assert_int_equal(told.total, 100);
  assert_int_equal(told.bytes, 10000);
}

static void *cancel_when_stalled(void *arg) {
  void **both = arg;
  struct fake_content *content = both[0];
  fake_await(&content->stalled, 1);
  mc_cancel_trigger(both[1]);
  return NULL;
}

static void a_tree_can_be_cancelled(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a", CHUNK, 1);
  mc_tree_options options;
  pthread_t thread;
  char path[256];
  a->stalls = true;
  mc_tree_options_init(&options);
  assert_int_equal(mc_cancel_new(&options.cancel, NULL), MC_OK);
  void *both[] = {a, options.cancel};
  open_cache(fixture);
  assert_int_equal(pthread_create(&thread, NULL, cancel_when_stalled, both), 0);
  assert_int_equal(mc_get_tree(NULL, fixture->cache, TREE, path_in(fixture, path, "models"), &options, NULL),
                   MC_CANCELLED);
  pthread_join(thread, NULL);
  assert_int_equal(access(path, F_OK), -1);
  assert_int_equal(versions_of(fixture, "models"), 0);
  assert_int_equal(mc_get_tree(NULL, fixture->cache, TREE, path, &options, NULL), MC_CANCELLED); /* before it lists */
  mc_cancel_free(options.cancel);
}

static void a_trees_time_is_limited(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *a = add_file("a", CHUNK, 1);
  mc_tree_options options;
  a->stalls = true;
  mc_tree_options_init(&options);
  options.timeout_ms = 30;
  open_cache(fixture);
  assert_int_equal(mc_get_tree(NULL, fixture->cache, TREE, NULL, &options, NULL), MC_DEADLINE_EXCEEDED);
}

static void what_a_killed_process_left_is_removed(void **state) {
  struct fixture *fixture = *state;
  char path[256], left[256];
  add_file("a", 1, 1);
  open_cache(fixture);
  assert_int_equal(get_tree(fixture, NULL, path_in(fixture, path, "models"), NULL), MC_OK);
  assert_int_equal(mkdir(path_in(fixture, left, ".models.mc/stage.x"), 0755), 0);
  struct timespec long_ago[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
  assert_int_equal(utimensat(AT_FDCWD, left, long_ago, 0), 0);
  assert_int_equal(get_tree(fixture, NULL, path, NULL), MC_OK);
  assert_int_equal(access(left, F_OK), -1);
}

static void a_link_that_leads_elsewhere_is_left_alone(void **state) {
  struct fixture *fixture = *state;
  mc_tree_result result;
  char path[256], folder[256], target[256] = "";
  add_file("a", 10, 1);
  open_cache(fixture);
  assert_int_equal(mkdir(path_in(fixture, folder, "mine"), 0755), 0);
  assert_int_equal(symlink("mine", path_in(fixture, path, "models")), 0);
  assert_int_equal(get_tree(fixture, &result, path, NULL), MC_INVALID_ARGUMENT);
  assert_int_equal(readlink(path, target, sizeof(target) - 1), 4);
  assert_string_equal(target, "mine");
}

struct getter {
  pthread_t thread;
  struct fixture *fixture;
  const char *path;
  struct fake_content *changes; /* or NULL */
  mc_status status;
  bool there;
};

static void *getter_main(void *arg) {
  struct getter *self = arg;
  mc_tree_options options;
  mc_error error = MC_ERROR_INIT;
  mc_tree_options_init(&options);
  options.flags = MC_GET_REVALIDATE;
  for (uint32_t i = 0; i < 30 && !self->status; i++) {
    mc_tree_result result;
    if (self->changes) fake_change(self->changes, 10, 100 + i);
    self->status = mc_get_tree(&result, self->fixture->cache, TREE, self->path, &options, &error);
    /* Two switches may go by while the kernel follows the link: then it is followed once more. */
    bool there = self->status || exists(self->path, "a") || exists(self->path, "a");
    if (!there) self->there = false;
  }
  return NULL;
}

static void many_get_one_tree_while_it_changes(void **state) {
  struct fixture *fixture = *state;
  struct getter getters[6];
  char path[256];
  struct fake_content *a = add_file("a", 10, 1);
  open_cache(fixture);
  path_in(fixture, path, "models");
  for (size_t i = 0; i < 6; i++) {
    getters[i] = (struct getter){.fixture = fixture, .path = path, .changes = i ? NULL : a, .there = true};
    assert_int_equal(pthread_create(&getters[i].thread, NULL, getter_main, &getters[i]), 0);
  }
  for (size_t i = 0; i < 6; i++) pthread_join(getters[i].thread, NULL);
  for (size_t i = 0; i < 6; i++) {
    assert_int_equal(getters[i].status, MC_OK);
    assert_true(getters[i].there);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(a_tree_is_there_whole),
      TEST(the_same_again_changes_nothing),
      TEST(a_change_switches_and_keeps_the_version_before),
      TEST(one_listing_is_enough),
      TEST(a_tree_is_of_one_version),
      TEST(what_goes_while_a_tree_is_got_is_not_missed),
      TEST(a_failure_leaves_what_was_there),
      TEST(one_failure_ends_the_others),
      TEST(paths_that_leave_the_tree_are_refused),
      TEST(a_path_that_is_listed_twice_is_refused),
      TEST(a_file_where_another_has_a_folder_is_an_error),
      TEST(what_is_no_tree_is_left_alone),
      TEST(long_paths_are_refused_and_short_ones_are_fine),
      TEST(without_a_storage_a_path_must_be_named),
      TEST(nothing_there_is_not_found),
      TEST(too_many_files_are_refused),
      TEST(patterns_choose_the_files),
      TEST(other_patterns_are_another_tree),
      TEST(only_a_tree_of_the_same_patterns_is_kept),
      TEST(progress_comes_on_the_callers_thread),
      TEST(a_tree_can_be_cancelled),
      TEST(a_trees_time_is_limited),
      TEST(what_a_killed_process_left_is_removed),
      TEST(a_link_that_leads_elsewhere_is_left_alone),
      TEST(many_get_one_tree_while_it_changes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
