#include "engine_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "engine/engine.h"

/* ---- time ---- */

static _Atomic int64_t passed_ms;

/* The linker gives this to the library in place of its own. */
int64_t __real_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void) {
  return __real_clock_wall_ms() + passed_ms;
}

void time_passes(int64_t ms) {
  passed_ms += ms;
}

/* ---- the cache ---- */

static const mc_upstream_ops *const one[] = {&fake_upstream, NULL};
static const mc_upstream_ops *const two[] = {&fake_upstream, &fake_second_upstream, NULL};

int fixture_setup(void **state) {
  struct fixture *fixture = calloc(1, sizeof(*fixture));
  assert_non_null(fixture);
  strcpy(fixture->folder, "/tmp/modelcache-test.XXXXXX");
  assert_non_null(mkdtemp(fixture->folder));
  snprintf(fixture->storage, sizeof(fixture->storage), "faulty:%s/storage", fixture->folder);
  mc_options_init(&fixture->options);
  fixture->options.storage = fixture->storage;
  fixture->options.schemes = "fake";
  fixture->options.durable = MC_DURABLE_OFF;
  fixture->options.coordination = "fake";
  fixture->options.storage_backends = fake_storages;
  fixture->options.upstream_backends = one;
  fixture->options.coordination_backends = fake_coordinations;
  fixture->options.revalidate_after_ms = -1;
  fake_storage_reset();
  fake_coordination_reset();
  passed_ms = 0;
  *state = fixture;
  return 0;
}

int fixture_teardown(void **state) {
  struct fixture *fixture = *state;
  close_cache(fixture);
  fake_clear();
  assert_int_equal(remove_all(fixture->folder), 0);
  free(fixture);
  return 0;
}

void use_two_upstreams(struct fixture *fixture) {
  fixture->options.upstream_backends = two;
}

void open_cache(struct fixture *fixture) {
  mc_error error = MC_ERROR_INIT;
  mc_status status = mc_open_options(&fixture->cache, &fixture->options, &error);
  if (status) print_error("%s\n", error.message);
  assert_int_equal(status, MC_OK);
}

void close_cache(struct fixture *fixture) {
  mc_close(fixture->cache);
  fixture->cache = NULL;
}

/* ---- gets ---- */

void assert_is(mc_file *file, const struct fake_content *content) {
  const void *bytes;
  size_t size;
  assert_int_equal(mc_file_map(file, &bytes, &size, NULL), MC_OK);
  assert_int_equal(size, content->size);
  assert_memory_equal(bytes, content->data, size);
  assert_true(mc_digest_equal(mc_file_digest(file), &content->digest));
}

mc_file *get(struct fixture *fixture, const char *url, const struct fake_content *content) {
  mc_error error = MC_ERROR_INIT;
  mc_file *file = NULL;
  mc_status status = mc_get(&file, fixture->cache, url, NULL, &error);
  if (status) print_error("%s\n", error.message);
  assert_int_equal(status, MC_OK);
  assert_is(file, content);
  return file;
}

bool get_once(struct fixture *fixture, const char *url, const struct fake_content *content) {
  mc_file *file = get(fixture, url, content);
  bool cached = mc_file_was_cached(file);
  mc_file_release(file);
  return cached;
}

struct fake_content *small_files[16];

void add_small_files(int count) {
  for (int i = 0; i < count; i++) {
    char name[64];
    snprintf(name, sizeof(name), "host/%d", i);
    small_files[i] = fake_add(0, name, MIB, (uint32_t)i + 1);
  }
}

const char *small_url(char url[64], int i) {
  snprintf(url, 64, "fake://host/%d", i);
  return url;
}

void get_small_file(struct fixture *fixture, int i) {
  char url[64];
  get_once(fixture, small_url(url, i), small_files[i]);
}

mc_status try_get(struct fixture *fixture, const char *url, uint32_t flags, mc_error *err) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  mc_file *file = NULL;
  options.flags = flags;
  mc_status status = mc_get(&file, fixture->cache, url, &options, err);
  mc_file_release(file);
  return status;
}

uint64_t stat_of(struct fixture *fixture, const char *name) {
  mc_stat_row rows[64];
  mc_stats(fixture->cache, rows, 64);
  for (mc_stat_row *row = rows; row->name; row++) {
    if (strcmp(row->name, name) == 0) return row->value;
  }
  fail_msg("no counter is named %s", name);
  return 0;
}

/* Counters have no event: looked at again and again, without any other effect on what is tested. */
void await_stat(struct fixture *fixture, const char *name, uint64_t least) {
  int64_t until = clock_ns() + 60 * NS_PER_S;
  while (stat_of(fixture, name) < least) {
    assert_true(clock_ns() < until);
    sched_yield();
  }
}

void key_of(char key[KEY_SIZE], const char *url) {
  key_of_url(key, url);
}

/* ---- files ---- */

const char *path_in(struct fixture *fixture, char path[256], const char *name) {
  snprintf(path, 256, "%s/%s", fixture->folder, name);
  return path;
}

const char *object_file(struct fixture *fixture, char path[256], const struct fake_content *content) {
  char hex[MC_DIGEST_HEX_SIZE];
  mc_digest_hex(hex, &content->digest);
  snprintf(path, 256, "%s/storage/objects/%.2s/%s", fixture->folder, hex, hex);
  return path;
}

void write_byte(const char *path, uint64_t offset, uint8_t flip) {
  uint8_t byte;
  assert_int_equal(chmod(path, 0644), 0);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  assert_true(fd >= 0);
  assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
  byte ^= flip;
  assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
  assert_int_equal(close(fd), 0);
}

unsigned names_in(const char *folder) {
  unsigned count = 0;
  DIR *dir = opendir(folder);
  assert_non_null(dir);
  for (struct dirent *entry; (entry = readdir(dir));) {
    count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
  }
  closedir(dir);
  return count;
}

void assert_file_is(const char *path, const struct fake_content *content) {
  void *data;
  size_t size;
  assert_int_equal(file_read(path, &data, &size, (size_t)1 << 30), 0);
  assert_int_equal(size, content->size);
  assert_memory_equal(data, content->data, size);
  free(data);
}

/* ---- calls that wait ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void pending_done(void *user, mc_status status, mc_file *file, const mc_error *error) {
  struct pending *pending = user;
  pthread_mutex_lock(&lock);
  assert_false(pending->done);
  pending->done = true;
  pending->status = status;
  pending->file = file;
  pending->error = *error;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

static void pending_progress(void *user, const mc_progress *progress) {
  struct pending *pending = user;
  pthread_mutex_lock(&lock);
  assert_false(pending->done);
  pending->reports++;
  pending->reported = true;
  pending->saw_phase[progress->phase] = true;
  static const uint8_t none[32];
  pending->last = *progress;
  pending->follows = memcmp(progress->flight, none, sizeof(none)) != 0;
  snprintf(pending->endpoint, sizeof(pending->endpoint), "%s", progress->endpoint);
  snprintf(pending->reason, sizeof(pending->reason), "%s", progress->reason);
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

void start_get(struct pending *pending, struct fixture *fixture, const char *url, const mc_get_options *options) {
  memset(pending, 0, sizeof(*pending));
  assert_int_equal(mc_get_start(&pending->request, fixture->cache, url, options, pending_done, pending, NULL), MC_OK);
}

void start_get_watched(struct pending *pending, struct fixture *fixture, const char *url,
                       const mc_get_options *options) {
  mc_get_options own = MC_GET_OPTIONS_INIT;
  if (options) own = *options;
  own.progress = pending_progress;
  own.user = pending;
  start_get(pending, fixture, url, &own);
}

void start_get_listed(struct pending *pending, struct fixture *fixture, const char *url, const mc_listed *listed,
                      uint32_t flags) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  options.flags = flags;
  struct hint *hint = hint_new(listed, fixture->cache->upstreams[0], clock_wall_ms());
  assert_non_null(hint);
  memset(pending, 0, sizeof(*pending));
  assert_int_equal(request_start(&pending->request, fixture->cache, url, &options, hint, pending_done, pending, NULL),
                   MC_OK);
}

static void wait_a_minute(const bool *flag) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 60;
  int error = 0;
  pthread_mutex_lock(&lock);
  while (!*flag && !error) error = pthread_cond_timedwait(&changed, &lock, &until);
  pthread_mutex_unlock(&lock);
  assert_int_equal(error, 0);
}

mc_status finish_get(struct pending *pending) {
  wait_a_minute(&pending->done);
  mc_request_release(pending->request);
  pending->request = NULL;
  return pending->status;
}

bool is_done(struct pending *pending) {
  pthread_mutex_lock(&lock);
  bool done = pending->done;
  pthread_mutex_unlock(&lock);
  return done;
}

void await_phase(struct pending *pending, mc_phase phase) {
  wait_a_minute(&pending->saw_phase[phase]);
}

void await_reports(struct pending *pending) {
  wait_a_minute(&pending->reported);
  pthread_mutex_lock(&lock);
  pending->reported = false;
  pthread_mutex_unlock(&lock);
}

void await_flight(struct pending *pending) {
  wait_a_minute(&pending->follows);
}

mc_progress last_progress(struct pending *pending, char *reason) {
  pthread_mutex_lock(&lock);
  mc_progress progress = pending->last;
  if (reason) memcpy(reason, pending->reason, sizeof(pending->reason));
  pthread_mutex_unlock(&lock);
  progress.reason = reason;
  progress.endpoint = pending->endpoint;
  return progress;
}
