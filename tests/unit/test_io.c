/* Files: whole reads and writes, replacement, drafts, removal, copies; and whose process lives. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/io.h"

static char folder[64]; /* where each test works */
static unsigned files;  /* that were open before it */

static unsigned count_names(const char *path) {
  unsigned count = 0;
  DIR *dir = opendir(path);
  assert_non_null(dir);
  for (struct dirent *entry; (entry = readdir(dir));) {
    count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
  }
  closedir(dir);
  return count;
}

static int set_up(void **state) {
  (void)state;
  files = count_names("/proc/self/fd");
  strcpy(folder, "/tmp/modelcache-io-XXXXXX");
  return mkdtemp(folder) ? chdir(folder) : -1;
}

static int tear_down(void **state) {
  (void)state;
  if (chdir("/") || remove_all(folder)) return -1;
  assert_int_equal(access(folder, F_OK), -1);
  assert_int_equal(count_names("/proc/self/fd"), files);
  return 0;
}

static void write_text(const char *path, const char *text) {
  assert_int_equal(file_replace(path, text, strlen(text), 0644, false), 0);
}

static void assert_text(const char *path, const char *text) {
  char *data = NULL;
  size_t size = 0;
  assert_int_equal(file_read(path, (void **)&data, &size, 1000), 0);
  assert_int_equal(size, strlen(text));
  assert_string_equal(data, text);
  free(data);
}

/* ---- whole reads and writes ---- */

static void all_is_read_and_written(void **state) {
  (void)state;
  int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  char back[8] = "";
  assert_int_equal(write_all(fd, "abc", 3), 0);
  assert_int_equal(write_all(fd, "", 0), 0);
  assert_int_equal(pwrite_all(fd, "defg", 4, 3), 0);
  assert_int_equal(pread_all(fd, back, 7, 0), 0);
  assert_string_equal(back, "abcdefg");
  assert_int_equal(pread_all(fd, back, 0, 100), 0);
  assert_int_equal(pread_all(fd, back, 8, 0), ENODATA);
  assert_int_equal(pread_all(fd, back, 1, 7), ENODATA);
  assert_int_equal(pread_all(-1, back, 1, 0), EBADF);
  assert_int_equal(pwrite_all(-1, back, 1, 0), EBADF);
  assert_int_equal(write_all(-1, back, 1), EBADF);
  close(fd);
  fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
  assert_int_equal(write_all(fd, "x", 1), ENOSPC);
  close(fd);
}

static void *drain(void *arg) {
  char block[1000];
  size_t *total = arg;
  int fd = (int)*total;
  *total = 0;
  for (ssize_t got; (got = read(fd, block, sizeof(block))) > 0;) *total += (size_t)got;
  return NULL;
}

/* A pipe takes as much at a time as it has room for. */
static void short_writes_are_gone_on_with(void **state) {
  (void)state;
  size_t size = 1 << 20;
  char *data = calloc(1, size);
  int fds[2];
  pthread_t thread;
  assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
  size_t total = (size_t)fds[0];
  assert_int_equal(pthread_create(&thread, NULL, drain, &total), 0);
  assert_int_equal(write_all(fds[1], data, size), 0);
  close(fds[1]);
  pthread_join(thread, NULL);
  assert_int_equal(total, size);
  close(fds[0]);
  free(data);
}

static void reading_a_file_has_a_maximum(void **state) {
  (void)state;
  void *data = NULL;
  size_t size = 0;
  write_text("file", "12345");
  assert_int_equal(file_read("file", &data, &size, 4), EFBIG);
  assert_null(data);
  assert_int_equal(file_read("file", &data, &size, 5), 0);
  assert_string_equal((char *)data, "12345"); /* with a zero behind it */
  free(data);
  write_text("file", "");
  assert_int_equal(file_read("file", &data, &size, 0), 0);
  assert_int_equal(size, 0);
  free(data);
  assert_int_equal(file_read("none", &data, &size, 5), ENOENT);
  assert_int_equal(file_read(".", &data, &size, 5000), EINVAL);
  assert_int_equal(mkfifo("fifo", 0644), 0);
  assert_int_equal(file_read("fifo", &data, &size, 5), EINVAL); /* at once, without a writer */
  assert_int_equal(file_read("/dev/zero", &data, &size, 5), EINVAL);
}

/* ---- folders ---- */

static void folders_are_made_with_their_parents(void **state) {
  (void)state;
  char path[128];
  struct stat st;
  snprintf(path, sizeof(path), "%s/a/b//c/", folder);
  assert_int_equal(mkdir_all(path, 0750), 0);
  assert_int_equal(mkdir_all(path, 0750), 0);
  assert_int_equal(stat("a/b/c", &st), 0);
  assert_int_equal(st.st_mode & 07777, 0750);
  assert_int_equal(mkdir_all("x/y", 0755), 0);
  assert_int_equal(mkdir_all("/", 0755), 0);
  assert_int_equal(mkdir_all("", 0755), ENOENT);
  write_text("file", "x");
  assert_int_equal(mkdir_all("file", 0755), ENOTDIR);
  assert_int_equal(mkdir_all("file/below", 0755), ENOTDIR);
  assert_int_equal(symlink("a", "link"), 0);
  assert_int_equal(mkdir_all("link/d", 0755), 0);
  assert_int_equal(symlink("nowhere", "dangling"), 0);
  assert_true(mkdir_all("dangling", 0755) != 0);
  assert_int_equal(fsync_folder("a"), 0);
  assert_int_equal(fsync_folder("none"), ENOENT);
  assert_int_equal(fsync_folder("file"), ENOTDIR);
}

/* ---- replacing ---- */

static void a_file_is_replaced(void **state) {
  (void)state;
  char path[128];
  struct stat st;
  snprintf(path, sizeof(path), "%s/file", folder);
  for (int durable = 0; durable < 2; durable++) {
    assert_int_equal(file_replace(path, "long one", 8, 0640, durable), 0);
    assert_text("file", "long one");
    assert_int_equal(file_replace("file", "short", 5, 0644, durable), 0);
    assert_text(path, "short");
    assert_int_equal(stat("file", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
  }
  assert_int_equal(file_replace("file", "", 0, 0644, false), 0);
  assert_text("file", "");
  assert_int_equal(count_names("."), 1);
}

static void what_cannot_be_replaced_leaves_nothing(void **state) {
  (void)state;
  assert_int_equal(mkdir_all("target/full", 0755), 0);
  assert_int_equal(file_replace("target", "x", 1, 0644, true), EISDIR);
  assert_int_equal(file_replace("none/file", "x", 1, 0644, true), ENOENT);
  assert_int_equal(count_names("."), 1);
  int fd = -1;
  char *temporary = NULL;
  assert_int_equal(file_draft(&fd, &temporary, "target"), 0);
  assert_int_equal(file_publish(fd, temporary, "target"), EISDIR);
  close(fd);
  assert_int_equal(file_draft(&fd, &temporary, "none/file"), ENOENT);
  assert_int_equal(fd, -1);
  assert_null(temporary);
  assert_int_equal(count_names("."), 1);
  assert_int_equal(count_names("target"), 1);
}

static atomic_bool stop;
static atomic_int wrong;

static void *read_on(void *arg) {
  (void)arg;
  while (!stop) {
    char *data = NULL;
    size_t size = 0;
    if (file_read("file", (void **)&data, &size, 10000)) {
      wrong++;
      continue;
    }
    if ((size != 10 && size != 9000) || strspn(data, size == 10 ? "a" : "b") != size) wrong++;
    free(data);
  }
  return NULL;
}

static void readers_see_one_or_the_other(void **state) {
  (void)state;
  char a[10], b[9000];
  pthread_t threads[2];
  memset(a, 'a', sizeof(a));
  memset(b, 'b', sizeof(b));
  stop = false;
  wrong = 0;
  assert_int_equal(file_replace("file", a, sizeof(a), 0644, false), 0);
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, read_on, NULL), 0);
  for (int i = 0; i < 300; i++) {
    assert_int_equal(file_replace("file", i % 2 ? a : b, i % 2 ? sizeof(a) : sizeof(b), 0644, false), 0);
  }
  stop = true;
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  assert_int_equal(wrong, 0);
}

/* ---- drafts ---- */

/* The two kinds: without a name, and with one, where the file system can't do without. */
static void draft(int *fd, char **temporary, bool named) {
  if (named) {
    *temporary = format_str("file.XXXXXX");
    *fd = mkostemp(*temporary, O_CLOEXEC);
    assert_true(*fd >= 0);
  } else {
    assert_int_equal(file_draft(fd, temporary, "file"), 0);
    assert_true(fcntl(*fd, F_GETFD) & FD_CLOEXEC);
  }
}

static void a_draft_becomes_the_file_or_nothing(void **state) {
  (void)state;
  for (int named = 0; named < 2; named++) {
    int fd = -1;
    char *temporary = NULL;
    struct stat st;
    draft(&fd, &temporary, named);
    if (!temporary) assert_int_equal(count_names("."), 0); /* whoever dies now leaves nothing */
    assert_int_equal(write_all(fd, "first", 5), 0);
    assert_int_equal(access("file", F_OK), -1);
    assert_int_equal(file_publish(fd, temporary, "file"), 0);
    assert_int_equal(pwrite_all(fd, "F", 1, 0), 0); /* it's open still */
    close(fd);
    assert_text("file", "First");
    assert_int_equal(stat("file", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    draft(&fd, &temporary, named);
    assert_int_equal(write_all(fd, "second", 6), 0);
    assert_text("file", "First");
    assert_int_equal(file_publish(fd, temporary, "file"), 0);
    close(fd);
    assert_text("file", "second");
    draft(&fd, &temporary, named);
    file_discard(temporary);
    close(fd);
    assert_text("file", "second");
    assert_int_equal(count_names("."), 1);
    assert_int_equal(unlink("file"), 0);
  }
}

static void a_draft_is_beside_its_file(void **state) {
  (void)state;
  char absolute[128];
  const char *const paths[] = {"a/file", "./file", absolute};
  snprintf(absolute, sizeof(absolute), "%s/a/other", folder);
  assert_int_equal(mkdir_all("a", 0755), 0);
  for (int i = 0; i < 3; i++) {
    int fd = -1;
    char *temporary = NULL;
    assert_int_equal(file_draft(&fd, &temporary, paths[i]), 0);
    assert_int_equal(file_publish(fd, temporary, paths[i]), 0);
    close(fd);
    assert_text(paths[i], "");
  }
}

/* ---- removing ---- */

static void all_below_is_removed_and_nothing_else(void **state) {
  (void)state;
  assert_int_equal(mkdir_all("outside/a", 0755), 0);
  write_text("outside/a/file", "stays");
  assert_int_equal(mkdir_all("top/a/b/c", 0755), 0);
  assert_int_equal(mkdir_all("top/d", 0755), 0);
  write_text("top/a/b/.hidden", "x");
  write_text("top/a/read-only", "x");
  assert_int_equal(chmod("top/a/read-only", 0400), 0);
  assert_int_equal(symlink("../../outside", "top/a/link"), 0);
  assert_int_equal(symlink("nowhere", "top/dangling"), 0);
  assert_int_equal(mkfifo("top/fifo", 0644), 0);
  assert_int_equal(remove_all("top"), 0);
  assert_int_equal(access("top", F_OK), -1);
  assert_text("outside/a/file", "stays");
  assert_int_equal(symlink("outside", "link"), 0);
  assert_int_equal(remove_all("link"), 0); /* the link, not what it leads to */
  assert_text("outside/a/file", "stays");
  assert_int_equal(remove_all("outside/a/file"), 0);
  assert_int_equal(remove_all("none"), 0);
  assert_int_equal(remove_all("none/below"), 0);
  assert_int_equal(count_names("."), 1);
}

static void deep_folders_are_removed(void **state) {
  (void)state;
  char path[1000] = "";
  for (int i = 0; i < 200; i++) strcat(path, "d/");
  assert_int_equal(mkdir_all(path, 0755), 0);
  assert_int_equal(remove_all("d"), 0);
  assert_int_equal(count_names("."), 0);
}

/* ---- copying ---- */

static void copies_are_whole(void **state) {
  (void)state;
  static const size_t sizes[] = {0, 1, 4096, 3000001};
  static const char *const places[] = {".", "/dev/shm"}; /* on the same file system, and on another */
  for (size_t i = 0; i < 8; i++) {
    size_t size = sizes[i / 2];
    char *data = malloc(size + 1), *back = malloc(size + 1);
    int from = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    int to = open(places[i % 2], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_true(from >= 0 && to >= 0);
    for (size_t at = 0; at < size; at++) data[at] = (char)(at * 7 + at / 999);
    assert_int_equal(write_all(from, data, size), 0); /* their offsets don't matter */
    assert_int_equal(copy_fd(from, to, size), 0);
    assert_int_equal(pread_all(to, back, size, 0), 0);
    assert_memory_equal(back, data, size);
    assert_int_equal(lseek(to, 0, SEEK_END), size);
    close(from);
    close(to);
    free(data);
    free(back);
  }
}

/* Where the file system has holes. */
static void copies_keep_holes(void **state) {
  (void)state;
  static const off_t ends[] = {0, 1, (3 << 20) + 5}; /* the last piece, or a hole */
  for (size_t i = 0; i < 3; i++) {
    int from = open("sparse", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int to = open("copy", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    char back[3] = "";
    struct stat st, copied;
    assert_int_equal(pwrite_all(from, "abc", 3, 1 << 20), 0);
    assert_int_equal(ftruncate(from, (1 << 20) + 3 + ends[i]), 0);
    if (i == 2) assert_int_equal(pwrite_all(from, "xyz", 3, 4 << 20), 0);
    assert_int_equal(copy_fd_sparse(from, to), 0);
    assert_true(fstat(from, &st) == 0 && fstat(to, &copied) == 0);
    assert_int_equal(copied.st_size, st.st_size);
    assert_true(copied.st_blocks <= st.st_blocks);
    assert_int_equal(pread_all(to, back, 3, 1 << 20), 0);
    assert_memory_equal(back, "abc", 3);
    if (i == 2) assert_int_equal(pread_all(to, back, 3, 4 << 20), 0);
    assert_memory_equal(back, i == 2 ? "xyz" : "abc", 3);
    close(from);
    close(to);
  }
  assert_int_equal(unlink("sparse"), 0);
  assert_int_equal(copy_fd_sparse(-1, -1), EBADF);
}

static void no_more_is_copied_than_was_asked_for(void **state) {
  (void)state;
  char back[8] = "";
  write_text("file", "abcdef");
  int from = open("file", O_RDONLY | O_CLOEXEC), to = open("copy", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  assert_int_equal(copy_fd(from, to, 3), 0);
  assert_int_equal(lseek(to, 0, SEEK_END), 3);
  assert_int_equal(pread_all(to, back, 3, 0), 0);
  assert_string_equal(back, "abc");
  close(from);
  close(to);
}

static void copies_that_cannot_be_fail(void **state) {
  (void)state;
  write_text("file", "abc");
  int from = open("file", O_RDONLY | O_CLOEXEC);
  int to = open("copy", O_RDWR | O_CREAT | O_CLOEXEC, 0644), full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  assert_int_equal(copy_fd(from, to, 4), ENODATA); /* more than there is */
  assert_int_equal(copy_fd(from, full, 3), ENOSPC);
  assert_int_equal(copy_fd(to, from, 3), EBADF); /* can't be written */
  assert_int_equal(copy_fd(-1, to, 3), EBADF);
  close(from);
  close(to);
  close(full);
}

/* ---- the rest ---- */

static void texts_and_random_numbers(void **state) {
  (void)state;
  char *text = format_str("%d-%s", 5, "x");
  assert_string_equal(text, "5-x");
  free(text);
  uint8_t a[1000] = {0}, b[1000] = {0};
  random_bytes(a, sizeof(a));
  random_bytes(b, sizeof(b));
  assert_memory_not_equal(a, b, sizeof(a));
  random_bytes(NULL, 0);
}

static void owners_live_or_not(void **state) {
  (void)state;
  char mine[OWNER_SIZE], again[OWNER_SIZE], dead[OWNER_SIZE] = "", other[OWNER_SIZE];
  int64_t now = clock_wall_ms();
  int fds[2];
  assert_true(owner_name(mine));
  assert_true(owner_name(again));
  assert_string_equal(mine, again);
  assert_true(strlen(mine) < OWNER_SIZE && !strchr(mine, '/'));
  assert_true(owner_may_live(mine, 0, 0)); /* known, however long ago it wrote */
  assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
  pid_t pid = fork();
  if (pid == 0) {
    owner_name(mine);
    _exit(write(fds[1], mine, sizeof(mine)) != sizeof(mine));
  }
  assert_int_equal(read(fds[0], dead, sizeof(dead)), sizeof(dead));
  assert_string_not_equal(dead, mine);
  siginfo_t info;
  assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
  assert_false(owner_may_live(dead, now, 60000)); /* a zombie */
  assert_int_equal(waitpid(pid, NULL, 0), pid);
  assert_false(owner_may_live(dead, now, 60000));
  close(fds[0]);
  close(fds[1]);
  snprintf(other, sizeof(other), "0badb007%s", mine + 8); /* of another machine */
  assert_true(owner_may_live(other, now, 60000));
  assert_true(owner_may_live(other, now + 5000, 60000)); /* whose clock is ahead */
  assert_false(owner_may_live(other, now - 61000, 60000));
  static const char *const none[] = {"", "nobody", "x.1.2", "0badb007", "0badb007.1", "0badb007.-1.5", "0badb007.0.5"};
  for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++) assert_false(owner_may_live(none[i], now, 60000));
}

/* Who has no descriptor left to look into /proc must not take the living for dead. */
static void an_owner_lives_while_it_cannot_be_told(void **state) {
  (void)state;
  char mine[OWNER_SIZE], unsure[OWNER_SIZE];
  struct rlimit before, none;
  owner_name(mine);
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  none = (struct rlimit){0, before.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  bool lives = owner_may_live(mine, 0, 0), told = owner_name(unsure);
  int probe = open("/", O_RDONLY | O_CLOEXEC), error = errno;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
  assert_true(probe < 0 && error == EMFILE);
  assert_true(lives);
  assert_false(told);
  assert_true(owner_may_live(unsure, clock_wall_ms(), 60000)); /* the same process's, and one that writes */
  assert_false(owner_may_live(unsure, 0, 60000));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(all_is_read_and_written),
      TEST(short_writes_are_gone_on_with),
      TEST(reading_a_file_has_a_maximum),
      TEST(folders_are_made_with_their_parents),
      TEST(a_file_is_replaced),
      TEST(what_cannot_be_replaced_leaves_nothing),
      TEST(readers_see_one_or_the_other),
      TEST(a_draft_becomes_the_file_or_nothing),
      TEST(a_draft_is_beside_its_file),
      TEST(all_below_is_removed_and_nothing_else),
      TEST(deep_folders_are_removed),
      TEST(copies_are_whole),
      TEST(copies_keep_holes),
      TEST(no_more_is_copied_than_was_asked_for),
      TEST(copies_that_cannot_be_fail),
      TEST(texts_and_random_numbers),
      TEST(owners_live_or_not),
      TEST(an_owner_lives_while_it_cannot_be_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
