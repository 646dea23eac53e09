/* The file upstream where only files can be odd: what is no file, links, times that were set back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/io.h"
#include "base/url.h"
#include <modelcache/backend/upstream.h>

extern const mc_upstream_ops file_upstream_ops;

#define NOBODY 65534

static const mc_call forever = {INT64_MAX, NULL};

struct fixture {
  char folder[64];
  mc_upstream *upstream;
};

static int setup(void **state) {
  struct fixture *f = calloc(1, sizeof(*f));
  strcpy(f->folder, "/tmp/modelcache-file-XXXXXX");
  mc_upstream_config config = {.struct_size = sizeof(config)};
  *state = f;
  return !mkdtemp(f->folder) || chmod(f->folder, 0755) || file_upstream_ops.open(&f->upstream, &config, NULL);
}

static int teardown(void **state) {
  struct fixture *f = *state;
  file_upstream_ops.close(f->upstream);
  int error = remove_all(f->folder);
  free(f);
  return error;
}

static char *path_of(const struct fixture *f, const char *name) {
  char *path = format_str("%s/%s", f->folder, name);
  assert_non_null(path);
  return path;
}

static void make_file(const struct fixture *f, const char *name, const char *text) {
  char *path = path_of(f, name), *slash = strrchr(path, '/');
  *slash = 0;
  assert_int_equal(mkdir_all(path, 0755), 0);
  *slash = '/';
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  assert_true(fd >= 0);
  assert_int_equal(pwrite_all(fd, text, strlen(text), 0), 0);
  close(fd);
  free(path);
}

static char *url_of(const struct fixture *f, const char *name) {
  char *folder = format_str("file://%s/", f->folder), *url = url_join(folder, name);
  free(folder);
  assert_non_null(url);
  return url;
}

static mc_status stat_of(const struct fixture *f, const char *name, mc_info *info) {
  char *url = url_of(f, name);
  mc_source *source = NULL;
  mc_open_args args = {.url = url};
  mc_status status = file_upstream_ops.stat(f->upstream, url, info, &forever, NULL);
  mc_status opened = file_upstream_ops.source_open(f->upstream, &args, &source, info, &forever, NULL);
  assert_int_equal(status, opened);
  if (!opened) file_upstream_ops.source_close(source);
  free(url);
  return status;
}

static void what_is_no_file_is_refused_and_does_not_block(void **state) {
  struct fixture *f = *state;
  mc_info info;
  char *fifo = path_of(f, "fifo"), *folder = path_of(f, "folder"), *name = path_of(f, "socket");
  assert_int_equal(mkfifo(fifo, 0644), 0);
  assert_int_equal(mkdir(folder, 0755), 0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
  static const char *const names[] = {"fifo", "folder", "socket"};
  for (size_t i = 0; i < 3; i++) assert_int_equal(stat_of(f, names[i], &info), MC_INVALID_ARGUMENT);
  assert_int_equal(file_upstream_ops.stat(f->upstream, "file:///dev/zero", &info, &forever, NULL), MC_INVALID_ARGUMENT);
  make_file(f, "file", "x");
  assert_int_equal(stat_of(f, "file/below", &info), MC_NOT_FOUND);
  close(fd);
  free(fifo);
  free(folder);
  free(name);
}

/* A tool that keeps times, such as rsync, may put other bytes into a file and set its time back. */
static void a_time_that_was_set_back_hides_nothing(void **state) {
  struct fixture *f = *state;
  mc_info before, after;
  struct stat st;
  make_file(f, "a", "one");
  char *path = path_of(f, "a");
  assert_int_equal(stat_of(f, "a", &before), MC_OK);
  assert_int_equal(stat(path, &st), 0);
  make_file(f, "a", "two");
  const struct timespec times[2] = {st.st_atim, st.st_mtim};
  assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
  assert_int_equal(stat_of(f, "a", &after), MC_OK);
  assert_true(before.size == after.size && before.validators.last_modified == after.validators.last_modified);
  assert_string_not_equal(before.validators.version, after.validators.version);
  free(path);
}

/* However soon the next change comes. */
static void versions_that_follow_each_other_at_once_differ(void **state) {
  struct fixture *f = *state;
  char last[sizeof(((mc_info *)NULL)->validators.version)] = "";
  for (int i = 0; i < 10; i++) {
    mc_info info;
    make_file(f, "a", i % 2 ? "one" : "two");
    assert_int_equal(stat_of(f, "a", &info), MC_OK);
    assert_string_not_equal(info.validators.version, last);
    strcpy(last, info.validators.version);
  }
}

struct listing {
  unsigned count;
  char text[512];
};

static bool visit(void *user, const mc_listed *listed) {
  struct listing *listing = user;
  listing->count++;
  strncat(listing->text, listed->path, sizeof(listing->text) - strlen(listing->text) - 2);
  strcat(listing->text, " ");
  return true;
}

static mc_status list(const struct fixture *f, struct listing *listing) {
  char *url = url_of(f, "");
  *listing = (struct listing){.count = 0};
  mc_status status = file_upstream_ops.list(f->upstream, url, 1000, visit, listing, &forever, NULL);
  free(url);
  return status;
}

static void link_to(const struct fixture *f, const char *target, const char *name) {
  char *path = path_of(f, name);
  assert_int_equal(symlink(target, path), 0);
  free(path);
}

static void listings_follow_no_links(void **state) {
  struct fixture *f = *state;
  struct listing listing;
  make_file(f, "real/file", "x");
  link_to(f, "/etc", "real/outside");
  link_to(f, "/etc/passwd", "real/passwd");
  link_to(f, "..", "real/round");
  link_to(f, "nowhere", "real/broken");
  char *fifo = path_of(f, "real/fifo");
  assert_int_equal(mkfifo(fifo, 0644), 0);
  free(fifo);
  assert_int_equal(list(f, &listing), MC_OK);
  assert_string_equal(listing.text, "real/file ");
}

/* To leave one out without a word would make a tree that is not whole. */
static void a_name_that_cant_be_used_is_told(void **state) {
  struct fixture *f = *state;
  struct listing listing;
  make_file(f, "good", "x");
  make_file(f, "back\\slash", "x");
  assert_int_equal(list(f, &listing), MC_PROTOCOL);
}

static void folders_that_go_too_deep_end_the_listing(void **state) {
  struct fixture *f = *state;
  struct listing listing;
  char name[400] = "";
  for (int i = 0; i < 30; i++) strcat(name, "deeper/");
  strcat(name, "file");
  make_file(f, name, "x");
  assert_int_equal(list(f, &listing), MC_OK);
  assert_int_equal(listing.count, 1);
  memset(name, 0, sizeof(name));
  for (int i = 0; i < 40; i++) strcat(name, "deeper/");
  strcat(name, "file");
  make_file(f, name, "x");
  assert_int_equal(list(f, &listing), MC_RESOURCE_EXHAUSTED);
}

static void a_folder_that_may_not_be_read_is_told(void **state) {
  struct fixture *f = *state;
  struct listing listing;
  make_file(f, "closed/file", "x");
  char *path = path_of(f, "closed");
  assert_int_equal(chmod(path, 0), 0);
  if (getuid() == 0) setfsuid(NOBODY); /* who is root may read everything */
  mc_status status = list(f, &listing);
  setfsuid(getuid());
  assert_int_equal(status, MC_PERMISSION_DENIED);
  chmod(path, 0755);
  free(path);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(what_is_no_file_is_refused_and_does_not_block),
      TEST(a_time_that_was_set_back_hides_nothing),
      TEST(versions_that_follow_each_other_at_once_differ),
      TEST(listings_follow_no_links),
      TEST(a_name_that_cant_be_used_is_told),
      TEST(folders_that_go_too_deep_end_the_listing),
      TEST(a_folder_that_may_not_be_read_is_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
