/* The contract of mc_upstream_ops, as one suite that is run against every upstream.
 *
 * What stands behind each is in upstream_origins.c: files, a web server, a service. A test that needs what one of them
 * can't be made to do is skipped for that one. Every test checks that descriptors and threads are given back. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/url.h"
#include "upstream_origins.h"

#define SIZE        ((size_t)(2 * MC_CHUNK_SIZE + 12345))
#define RETRIES     2
#define PATIENCE_MS 20000
#define THINGS      4
#define MAX_URLS    64
/* How soon a call ends that was cancelled, or whose deadline has passed. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SOON (1000 * NS_PER_MS)
#else
#define SOON (200 * NS_PER_MS)
#endif

static const mc_call no_limits = {.deadline = INT64_MAX};
static struct thing things[THINGS], shorter, nothing; /* `shorter` is the first half of the third */

struct world {
  const struct origin_ops *ops;
  const mc_upstream_ops *upstream_ops;
  mc_upstream_config config;
  struct origin *origin;
  mc_upstream *upstream;
  char *urls[MAX_URLS]; /* that url_of() gave */
  unsigned url_count;
  unsigned files, threads;
};

static unsigned count_entries(const char *path) {
  unsigned count = 0;
  DIR *folder = opendir(path);
  assert_non_null(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static int set_up(void **state) {
  struct world *world = *state;
  world->files = count_entries("/proc/self/fd");
  world->threads = count_entries("/proc/self/task");
  world->config = (mc_upstream_config){.struct_size = sizeof(world->config),
                                       .connect_timeout_ms = PATIENCE_MS,
                                       .stall_timeout_ms = PATIENCE_MS,
                                       .retries = RETRIES,
                                       .allow_link_local = true,
                                       .user_agent = "contract"};
  world->origin = world->ops->start(&world->config);
  return world->upstream_ops->open(&world->upstream, &world->config, NULL) != MC_OK;
}

static int tear_down(void **state) {
  struct world *world = *state;
  world->upstream_ops->close(world->upstream);
  world->ops->stop(world->origin);
  while (world->url_count) free(world->urls[--world->url_count]);
  /* A thread that was joined may be listed a moment longer; a resolver's may still be ending. */
  for (int tries = 0; count_entries("/proc/self/task") > world->threads && tries < 1000; tries++) {
    nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
  }
  assert_true(count_entries("/proc/self/task") <= world->threads);
  assert_int_equal(count_entries("/proc/self/fd"), world->files);
  return 0;
}

static bool can(const struct world *world, enum how how) {
  return world->ops->can & 1u << how;
}

static const char *url_of(struct world *world, const char *path) {
  assert_true(world->url_count < MAX_URLS);
  char *url = url_join(world->ops->root(world->origin), path);
  assert_non_null(url);
  return world->urls[world->url_count++] = url;
}

static const char *put(struct world *world, const char *path, const struct thing *thing) {
  world->ops->put(world->origin, path, thing);
  return url_of(world, path);
}

static void behave(struct world *world, const char *path, enum how how, uint64_t at, unsigned times) {
  world->ops->behave(world->origin, path, how, at, times);
}

static struct counts counts_of(struct world *world) {
  return world->ops->counts ? world->ops->counts(world->origin) : (struct counts){0};
}

static void await_counts(struct world *world, unsigned requests, uint64_t bytes) {
  int64_t until = clock_ns() + PATIENCE_MS * NS_PER_MS;
  struct counts counts;
  do {
    nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
    counts = counts_of(world);
    assert_true(clock_ns() < until);
  } while (counts.requests < requests || counts.bytes < bytes);
}

/* ---- sinks ---- */

/* Compares what comes with what should, and holds the upstream to the rules. */
struct sink {
  mc_sink sink; /* first */
  const struct thing *expected;
  size_t most;      /* that `space` gives at once */
  size_t given;     /* by the last `space` */
  uint64_t fail_at; /* from there on nothing is taken */
  mc_status fail_with;
  unsigned deliveries;
  atomic_uint_fast64_t reached;
  const char *wrong; /* what the upstream did against the rules */
  bool failed, differs;
  uint8_t *scratch;
};

#define SCRATCH ((size_t)1 << 20)

static mc_status take(struct sink *self, const uint8_t *data, size_t size, mc_error *err) {
  const struct thing *expected = self->expected;
  uint64_t offset = self->sink.offset;
  self->deliveries++;
  if (self->failed) self->wrong = "went on after the sink had failed";
  if (size == 0) self->wrong = "delivered nothing";
  if (size > self->sink.end - offset) {
    self->wrong = "delivered more than was asked for";
    return mc_error_set(err, MC_PROTOCOL, "sink", "too much");
  }
  if (offset + size > self->fail_at) {
    self->failed = true;
    if (self->fail_with == MC_CORRUPT) self->sink.offset = offset / MC_CHUNK_SIZE * MC_CHUNK_SIZE;
    return mc_error_set(err, self->fail_with, "sink", "as the test wants it");
  }
  if (offset + size > expected->size || memcmp(expected->data + offset, data, size) != 0) self->differs = true;
  self->sink.offset = offset + size;
  self->reached = self->sink.offset;
  return MC_OK;
}

static mc_status sink_write(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  return take((struct sink *)sink, data, size, err);
}

static void *sink_space(mc_sink *sink, size_t *size) {
  struct sink *self = (struct sink *)sink;
  uint64_t left = sink->end - sink->offset;
  if (left == 0) self->wrong = "wanted space for nothing";
  self->given = self->most < left ? self->most : (size_t)left;
  *size = self->given;
  return self->scratch;
}

static mc_status sink_advance(mc_sink *sink, size_t size, mc_error *err) {
  struct sink *self = (struct sink *)sink;
  if (size > self->given) self->wrong = "advanced beyond the space";
  return take(self, self->scratch, size, err);
}

static void sink_init(struct sink *self, const struct thing *expected, uint64_t from, uint64_t to) {
  *self = (struct sink){
      .sink = {.offset = from, .end = to, .write = sink_write, .space = sink_space, .advance = sink_advance},
      .expected = expected,
      .most = SCRATCH,
      .fail_at = UINT64_MAX,
      .scratch = malloc(SCRATCH)};
  assert_non_null(self->scratch);
}

/* What must hold of a sink however the read ended. */
static void sink_end(struct sink *self) {
  free(self->scratch);
  if (self->wrong) fail_msg("the upstream %s", self->wrong);
}

static mc_status read_range(struct world *world, mc_source *source, const struct thing *expected, uint64_t from,
                            uint64_t to, size_t most) {
  struct sink sink;
  mc_error err = MC_ERROR_INIT;
  sink_init(&sink, expected, from, to);
  sink.most = most;
  mc_status status = world->upstream_ops->source_read(source, &sink.sink, &no_limits, &err);
  assert_true(status == MC_OK || (err.status == status && *err.message && *err.origin));
  uint64_t end = to == MC_SIZE_UNKNOWN ? expected->size : to;
  if (status == MC_OK) {
    assert_true(sink.sink.offset == end);
    assert_false(sink.differs);
  }
  sink_end(&sink);
  return status;
}

static mc_status read_whole(struct world *world, mc_source *source, const struct thing *expected) {
  return read_range(world, source, expected, 0, expected->size, SCRATCH);
}

static mc_status try_open(struct world *world, const char *url, mc_source **source, mc_info *info) {
  mc_open_args args = {.url = url};
  mc_error err = MC_ERROR_INIT;
  memset(info, 0xAA, sizeof(*info)); /* all of it is the upstream's to set */
  mc_status status = world->upstream_ops->source_open(world->upstream, &args, source, info, &no_limits, &err);
  assert_true(status == MC_OK || err.status == status);
  return status;
}

static mc_source *open_source(struct world *world, const char *url, mc_info *info) {
  mc_source *source = NULL;
  assert_int_equal(try_open(world, url, &source, info), MC_OK);
  assert_non_null(source);
  assert_ptr_equal(source->upstream, world->upstream);
  return source;
}

static mc_status try_stat(struct world *world, const char *url, mc_info *info) {
  mc_error err = MC_ERROR_INIT;
  memset(info, 0xAA, sizeof(*info));
  mc_status status = world->upstream_ops->stat(world->upstream, url, info, &no_limits, &err);
  assert_true(status == MC_OK || err.status == status);
  return status;
}

static void close_source(struct world *world, mc_source *source) {
  world->upstream_ops->source_close(source);
}

static bool names_a_version(const mc_validators *validators) {
  return validators->version[0] || validators->etag[0] || validators->last_modified;
}

/* ---- the table ---- */

static void test_table(void **state) {
  struct world *world = *state;
  const mc_upstream_ops *ops = world->upstream_ops;
  assert_int_equal(ops->abi, MC_UPSTREAM_ABI);
  assert_true(ops->name && *ops->name && ops->schemes && ops->schemes[0]);
  assert_true(ops->open && ops->close && ops->stat && ops->source_open && ops->source_read && ops->source_close);
  assert_true(((ops->flags & MC_UPSTREAM_CACHE) != 0) == (ops->cache != NULL));
  for (const char *const *scheme = ops->schemes; *scheme; scheme++) {
    for (const char *c = *scheme; *c; c++) assert_false(*c >= 'A' && *c <= 'Z');
  }
  assert_ptr_equal(world->upstream->ops, ops);
}

static void test_open_does_no_io(void **state) {
  struct world *world = *state;
  mc_upstream *another;
  if (!world->ops->counts) skip();
  assert_int_equal(world->upstream_ops->open(&another, &world->config, NULL), MC_OK);
  world->upstream_ops->close(another);
  assert_int_equal(counts_of(world).connections, 0);
}

/* ---- facts ---- */

static void check_facts(const mc_info *info, const struct thing *thing, bool digest) {
  assert_true(info->size == thing->size);
  assert_false(info->unchanged);
  assert_true(names_a_version(&info->validators));
  assert_true(info->has_digest == digest);
  if (digest) assert_true(mc_digest_equal(&info->digest, &thing->digest));
}

static void test_stat(void **state) {
  struct world *world = *state;
  const char *url = put(world, "models/a b%.bin", &things[0]);
  mc_info info, again;
  assert_int_equal(try_stat(world, url, &info), MC_OK);
  check_facts(&info, &things[0], world->ops->tells_digest);
  assert_null(info.chunks.hashes);
  assert_int_equal(try_stat(world, url, &again), MC_OK);
  assert_memory_equal(&again.validators, &info.validators, sizeof(info.validators));
  assert_true(counts_of(world).bytes <= 2); /* it does not get it: a byte for each, to see whether ranges work */
  put(world, "models/a b%.bin", &things[1]);
  assert_int_equal(try_stat(world, url, &again), MC_OK);
  assert_memory_not_equal(&again.validators, &info.validators, sizeof(info.validators));
}

static void test_open(void **state) {
  struct world *world = *state;
  const char *url = put(world, "a.bin", &things[0]);
  mc_info info;
  mc_source *source = open_source(world, url, &info);
  check_facts(&info, &things[0], world->ops->tells_digest);
  assert_true(info.ranges);
  assert_true(counts_of(world).bytes <= 1);
  if (info.chunks.hashes) {
    assert_int_equal(info.chunks.count, things[0].chunks->count);
    assert_memory_equal(info.chunks.hashes, things[0].chunks->hashes, info.chunks.count * sizeof(mc_hash128));
  }
  close_source(world, source);
}

static void test_unchanged(void **state) {
  struct world *world = *state;
  const char *url = put(world, "a.bin", &things[0]);
  mc_info info;
  mc_source *source = open_source(world, url, &info);
  assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
  close_source(world, source);
  mc_validators known = info.validators;
  mc_open_args args = {.url = url, .known = &known, .known_size = SIZE, .known_digest = &things[0].digest};
  if (world->ops->counts) await_counts(world, 0, SIZE); /* which are counted once they are sent */
  uint64_t bytes = counts_of(world).bytes;
  source = (mc_source *)&info; /* to be set */
  memset(&info, 0xAA, sizeof(info));
  assert_int_equal(world->upstream_ops->source_open(world->upstream, &args, &source, &info, &no_limits, NULL), MC_OK);
  assert_true(info.unchanged);
  assert_null(source);
  assert_memory_equal(&info.validators, &known, sizeof(known));
  assert_true(counts_of(world).bytes <= bytes + 1);
  /* The same validators, but what is at hand is of another size and content. */
  args.known_size = SIZE - 1;
  args.known_digest = &things[1].digest;
  assert_int_equal(world->upstream_ops->source_open(world->upstream, &args, &source, &info, &no_limits, NULL), MC_OK);
  assert_false(info.unchanged);
  assert_non_null(source);
  close_source(world, source);
  /* Another version there. */
  put(world, "a.bin", &things[1]);
  args = (mc_open_args){.url = url, .known = &known, .known_size = SIZE, .known_digest = &things[0].digest};
  assert_int_equal(world->upstream_ops->source_open(world->upstream, &args, &source, &info, &no_limits, NULL), MC_OK);
  assert_false(info.unchanged);
  assert_int_equal(read_whole(world, source, &things[1]), MC_OK);
  close_source(world, source);
}

static void test_empty(void **state) {
  struct world *world = *state;
  const char *url = put(world, "empty", &nothing);
  mc_info info;
  assert_int_equal(try_stat(world, url, &info), MC_OK);
  assert_int_equal(info.size, 0);
  mc_source *source = open_source(world, url, &info);
  assert_int_equal(info.size, 0);
  close_source(world, source);
}

static void test_missing(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = NULL;
  put(world, "here.bin", &things[0]);
  static const char *const paths[] = {"nowhere.bin", "no/such/folder/x.bin"};
  for (size_t i = 0; i < 2; i++) {
    const char *url = url_of(world, paths[i]);
    assert_int_equal(try_stat(world, url, &info), MC_NOT_FOUND);
    assert_int_equal(try_open(world, url, &source, &info), MC_NOT_FOUND);
    assert_null(source);
  }
  /* One that was there. */
  const char *url = url_of(world, "here.bin");
  assert_int_equal(try_stat(world, url, &info), MC_OK);
  world->ops->remove(world->origin, "here.bin");
  assert_int_equal(try_stat(world, url, &info), MC_NOT_FOUND);
  assert_int_equal(try_open(world, url, &source, &info), MC_NOT_FOUND);
}

static void test_forbidden(void **state) {
  struct world *world = *state;
  const char *url = put(world, "secret.bin", &things[0]);
  mc_info info;
  mc_source *source = NULL;
  world->ops->forbid(world->origin, "secret.bin");
  mc_status opened = try_open(world, url, &source, &info);
  mc_status looked = try_stat(world, url, &info);
  assert_int_equal(opened, MC_PERMISSION_DENIED);
  assert_null(source);
  assert_int_equal(looked, MC_PERMISSION_DENIED);
}

/* ---- reading ---- */

static void test_whole(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  uint64_t before = counts_of(world).bytes;
  assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
  if (world->ops->counts) {
    await_counts(world, 0, before + SIZE);                /* which are counted once they are sent */
    assert_true(counts_of(world).bytes == before + SIZE); /* each byte once */
  }
  assert_int_equal(read_whole(world, source, &things[0]), MC_OK); /* and again, if so wanted */
  close_source(world, source);
}

static void test_ranges(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  static const uint64_t ranges[][2] = {
      {0, 1},           {SIZE - 1, SIZE}, {MC_CHUNK_SIZE - 1, MC_CHUNK_SIZE + 1}, {MC_CHUNK_SIZE, 2 * MC_CHUNK_SIZE},
      {12345, 5000000}, {7, SIZE}};
  for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
    assert_int_equal(read_range(world, source, &things[0], ranges[i][0], ranges[i][1], SCRATCH), MC_OK);
  }
  close_source(world, source);
}

static void test_as_far_as_it_goes(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  assert_int_equal(read_range(world, source, &things[0], 0, MC_SIZE_UNKNOWN, SCRATCH), MC_OK);
  assert_int_equal(read_range(world, source, &things[0], MC_CHUNK_SIZE + 3, MC_SIZE_UNKNOWN, SCRATCH), MC_OK);
  close_source(world, source);
}

static void test_small_spaces(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  static const size_t sizes[] = {1, 7, 4097, 65536};
  for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
    uint64_t length = sizes[i] * 1000;
    assert_int_equal(
        read_range(world, source, &things[0], 99, 99 + (length < SIZE - 99 ? length : SIZE - 99), sizes[i]), MC_OK);
  }
  close_source(world, source);
}

struct reader {
  struct world *world;
  mc_source *source;
  pthread_t thread;
  unsigned number;
  mc_status status;
  const char *wrong;
};

#define READERS 8

static void *reader_main(void *arg) {
  struct reader *self = arg;
  for (unsigned round = 0; round < 4 && !self->status && !self->wrong; round++) {
    uint64_t share = SIZE / READERS, from = ((self->number + round * 3) % READERS) * share;
    struct sink sink;
    sink_init(&sink, &things[0], from, from + share + 1);
    sink.most = 10000 + 1000 * self->number;
    self->status = self->world->upstream_ops->source_read(self->source, &sink.sink, &no_limits, NULL);
    free(sink.scratch);
    self->wrong = sink.wrong ? sink.wrong : sink.differs ? "delivered other bytes" : NULL;
  }
  return NULL;
}

static void test_threads(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  struct reader readers[READERS];
  for (unsigned i = 0; i < READERS; i++) {
    readers[i] = (struct reader){.world = world, .source = source, .number = i};
    assert_int_equal(pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]), 0);
  }
  for (unsigned i = 0; i < READERS; i++) {
    pthread_join(readers[i].thread, NULL);
    assert_int_equal(readers[i].status, MC_OK);
    if (readers[i].wrong) fail_msg("the upstream %s", readers[i].wrong);
  }
  close_source(world, source);
}

static void test_two_sources(void **state) {
  struct world *world = *state;
  mc_info info;
  put(world, "a.bin", &things[0]);
  mc_source *one = open_source(world, url_of(world, "a.bin"), &info);
  mc_source *two = open_source(world, put(world, "b.bin", &things[1]), &info);
  assert_int_equal(read_whole(world, two, &things[1]), MC_OK);
  assert_int_equal(read_whole(world, one, &things[0]), MC_OK);
  close_source(world, one);
  assert_int_equal(read_whole(world, two, &things[1]), MC_OK);
  close_source(world, two);
}

/* ---- sinks that fail ---- */

static void test_sink_fails(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  static const mc_status statuses[] = {MC_NO_SPACE,  MC_CANCELLED, MC_DEADLINE_EXCEEDED,  MC_CORRUPT, MC_UNAVAILABLE,
                                       MC_NOT_FOUND, MC_IO,        MC_RESOURCE_EXHAUSTED, MC_CHANGED, MC_UNSUPPORTED,
                                       MC_PROTOCOL,  MC_BUSY};
  static const uint64_t places[] = {0, 100000, MC_CHUNK_SIZE + 1};
  for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
    for (size_t j = 0; j < 3; j++) {
      struct sink sink;
      mc_error err = MC_ERROR_INIT;
      sink_init(&sink, &things[0], 0, SIZE);
      sink.fail_at = places[j];
      sink.fail_with = statuses[i];
      unsigned requests = counts_of(world).requests;
      assert_int_equal(world->upstream_ops->source_read(source, &sink.sink, &no_limits, &err), statuses[i]);
      assert_string_equal(err.message, "as the test wants it"); /* that very error */
      assert_true(sink.failed);
      assert_true(counts_of(world).requests <= requests + 1); /* no more tries */
      sink_end(&sink);
    }
  }
  assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
  close_source(world, source);
}

/* The engine goes on from where the sink was set back to. */
static void test_corrupt_is_read_again(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  struct sink sink;
  sink_init(&sink, &things[0], 0, SIZE);
  sink.fail_at = MC_CHUNK_SIZE + 500000;
  sink.fail_with = MC_CORRUPT;
  assert_int_equal(world->upstream_ops->source_read(source, &sink.sink, &no_limits, NULL), MC_CORRUPT);
  assert_true(sink.sink.offset == MC_CHUNK_SIZE);
  sink.fail_at = UINT64_MAX;
  sink.failed = false;
  sink.sink.suspect = true;
  assert_int_equal(world->upstream_ops->source_read(source, &sink.sink, &no_limits, NULL), MC_OK);
  assert_false(sink.differs);
  sink_end(&sink);
  close_source(world, source);
}

/* ---- cancelling ---- */

/* One blocking call in a thread. */
struct blocked {
  struct world *world;
  enum { IN_STAT, IN_OPEN, IN_READ, IN_FINISH, IN_LIST, IN_ENTRIES, IN_STATE } op;
  const char *url;
  mc_source *source;
  mc_call call;
  mc_status status;
  pthread_t thread;
  struct sink sink;
  int64_t ended;
};

static bool visit_none(void *user, const mc_listed *listed) {
  (void)user;
  (void)listed;
  return true;
}

static bool visit_no_entry(void *user, const mc_entry *entry) {
  (void)user;
  (void)entry;
  return true;
}

static mc_status call_op(struct blocked *self) {
  const mc_upstream_ops *ops = self->world->upstream_ops;
  mc_upstream *upstream = self->world->upstream;
  mc_open_args args = {.url = self->url};
  mc_info info;
  char *json = NULL;
  mc_status status = MC_OK;
  switch (self->op) {
  case IN_STAT:
    return ops->stat(upstream, self->url, &info, &self->call, NULL);
  case IN_OPEN:
    return ops->source_open(upstream, &args, &self->source, &info, &self->call, NULL);
  case IN_READ:
    return ops->source_read(self->source, &self->sink.sink, &self->call, NULL);
  case IN_FINISH:
    return ops->source_finish(self->source, &info, &args, &self->call, NULL);
  case IN_LIST:
    return ops->list(upstream, self->url, 100, visit_none, NULL, &self->call, NULL);
  case IN_ENTRIES:
    return ops->cache->entries(upstream, self->url, NULL, visit_no_entry, NULL, &self->call, NULL);
  case IN_STATE:
    status = ops->cache->status(upstream, &json, &self->call, NULL);
    free(json);
    return status;
  }
  return status;
}

static void *blocked_main(void *arg) {
  struct blocked *self = arg;
  self->status = call_op(self);
  self->ended = clock_ns();
  return NULL;
}

/* Begin the call, wait until the origin has been asked (and has sent so many bytes), cancel it; then once more, with a
 * deadline. */
static void check_that_it_ends(struct blocked *self, uint64_t bytes) {
  struct world *world = self->world;
  for (int round = 0; round < 2; round++) {
    struct counts before = counts_of(world);
    bool by_deadline = round == 1;
    uint64_t offset = self->sink.sink.offset;
    assert_int_equal(mc_cancel_new(&self->call.cancel, NULL), MC_OK);
    self->call.deadline = by_deadline ? clock_ns() + 100 * NS_PER_MS : INT64_MAX;
    assert_int_equal(pthread_create(&self->thread, NULL, blocked_main, self), 0);
    int64_t end = self->call.deadline;
    if (!by_deadline) {
      bool silent = self->op == IN_READ || self->op == IN_FINISH; /* a service need not be asked again */
      await_counts(world, before.requests + !silent, before.bytes + bytes);
      end = clock_ns();
      mc_cancel_trigger(self->call.cancel);
    }
    pthread_join(self->thread, NULL);
    assert_int_equal(self->status, by_deadline ? MC_DEADLINE_EXCEEDED : MC_CANCELLED);
    assert_true(self->ended >= end || !by_deadline);
    if (self->ended - end > SOON) fail_msg("it took %lld ms", (long long)((self->ended - end) / NS_PER_MS));
    mc_cancel_free(self->call.cancel);
    self->sink.sink.offset = offset;
  }
}

static void test_stat_ends(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_SILENT)) skip();
  struct blocked blocked = {.world = world, .op = IN_STAT, .url = put(world, "a.bin", &things[0])};
  behave(world, "a.bin", HOW_SILENT, 0, 0);
  check_that_it_ends(&blocked, 0);
}

static void test_open_ends(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_SILENT)) skip();
  struct blocked blocked = {.world = world, .op = IN_OPEN, .url = put(world, "a.bin", &things[0])};
  behave(world, "a.bin", HOW_SILENT, 0, 0);
  check_that_it_ends(&blocked, 0);
  assert_null(blocked.source);
}

static void test_list_ends(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->list || !can(world, HOW_SILENT)) skip();
  put(world, "d/a.bin", &things[0]);
  behave(world, "d/", HOW_SILENT, 0, 0);
  struct blocked blocked = {.world = world, .op = IN_LIST, .url = url_of(world, "d/")};
  check_that_it_ends(&blocked, 0);
}

static void test_read_ends(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_STALLED)) skip();
  mc_info info;
  const char *url = put(world, "a.bin", &things[0]);
  behave(world, "a.bin", HOW_STALLED, 300000, 0);
  struct blocked blocked = {.world = world, .op = IN_READ, .source = open_source(world, url, &info)};
  sink_init(&blocked.sink, &things[0], 0, SIZE);
  check_that_it_ends(&blocked, 300000);
  assert_false(blocked.sink.differs);
  sink_end(&blocked.sink);
  close_source(world, blocked.source);
}

static void test_finish_ends(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->source_finish || !can(world, HOW_LATE)) skip();
  mc_info info;
  const char *url = put(world, "a.bin", &things[0]);
  behave(world, "a.bin", HOW_STALLED, SIZE, 0); /* all of it is there, but what it is is never told */
  struct blocked blocked = {.world = world, .op = IN_FINISH, .url = url, .source = open_source(world, url, &info)};
  assert_int_equal(read_whole(world, blocked.source, &things[0]), MC_OK);
  check_that_it_ends(&blocked, 0);
  close_source(world, blocked.source);
}

/* A call that is over before it begins does not begin. */
static void test_over_before_it_began(void **state) {
  struct world *world = *state;
  mc_info info;
  const char *url = put(world, "d/a.bin", &things[0]);
  mc_source *source = open_source(world, url, &info), *none = NULL;
  mc_call calls[2] = {{.deadline = INT64_MAX}, {.deadline = clock_ns() - 1}};
  assert_int_equal(mc_cancel_new(&calls[0].cancel, NULL), MC_OK);
  mc_cancel_trigger(calls[0].cancel);
  unsigned requests = counts_of(world).requests;
  for (int i = 0; i < 2; i++) {
    mc_status expected = i ? MC_DEADLINE_EXCEEDED : MC_CANCELLED;
    mc_open_args args = {.url = url};
    struct sink sink;
    sink_init(&sink, &things[0], 0, SIZE);
    assert_int_equal(world->upstream_ops->stat(world->upstream, url, &info, &calls[i], NULL), expected);
    assert_int_equal(world->upstream_ops->source_open(world->upstream, &args, &none, &info, &calls[i], NULL), expected);
    assert_int_equal(world->upstream_ops->source_read(source, &sink.sink, &calls[i], NULL), expected);
    sink_end(&sink);
    if (world->upstream_ops->list) {
      assert_int_equal(
          world->upstream_ops->list(world->upstream, url_of(world, "d/"), 9, visit_none, NULL, &calls[i], NULL),
          expected);
    }
  }
  assert_int_equal(counts_of(world).requests, requests);
  mc_cancel_free(calls[0].cancel);
  close_source(world, source);
}

/* ---- what changes, what is cut, what lies ---- */

static void test_changed_before_the_read(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  put(world, "a.bin", &things[1]);
  assert_int_equal(read_whole(world, source, &things[0]), MC_CHANGED);
  close_source(world, source);
}

static void test_changed_between_reads(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  assert_int_equal(read_range(world, source, &things[0], 0, MC_CHUNK_SIZE, SCRATCH), MC_OK);
  put(world, "a.bin", &things[1]);
  mc_status status = read_range(world, source, &things[0], MC_CHUNK_SIZE, SIZE, SCRATCH);
  /* A cache may still have the version that was opened: the bytes were compared. */
  assert_true(status == MC_CHANGED || (status == MC_OK && world->upstream_ops->cache));
  close_source(world, source);
  source = open_source(world, url_of(world, "a.bin"), &info);
  assert_int_equal(read_whole(world, source, &things[1]), MC_OK);
  close_source(world, source);
}

static void test_removed_before_the_read(void **state) {
  struct world *world = *state;
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  world->ops->remove(world->origin, "a.bin");
  /* What is open stays so in a file system; elsewhere it is gone, or not the one that it was. */
  mc_status status = read_whole(world, source, &things[0]);
  assert_true(status == MC_OK || status == MC_NOT_FOUND || status == MC_CHANGED);
  close_source(world, source);
}

static void test_another_size(void **state) {
  struct world *world = *state;
  mc_info info;
  const struct thing longer = things[2];
  mc_source *source = open_source(world, put(world, "a.bin", &longer), &info);
  put(world, "a.bin", &shorter);
  assert_int_equal(read_whole(world, source, &things[2]), MC_CHANGED);
  close_source(world, source);
  source = open_source(world, url_of(world, "a.bin"), &info);
  assert_true(info.size == shorter.size);
  put(world, "a.bin", &longer);
  assert_int_equal(read_whole(world, source, &shorter), MC_CHANGED);
  close_source(world, source);
}

static void test_said_more_than_there_is(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_SAID_MORE)) skip();
  mc_info info;
  mc_source *source;
  const char *url = put(world, "a.bin", &things[0]);
  behave(world, "a.bin", HOW_SAID_MORE, 0, 0);
  if (try_open(world, url, &source, &info) != MC_OK) return; /* it found out at once */
  if (info.size == SIZE) {                                   /* it did not listen */
    assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
  } else {
    struct sink sink;
    sink_init(&sink, &things[0], 0, info.size);
    mc_status status = world->upstream_ops->source_read(source, &sink.sink, &no_limits, NULL);
    assert_true(status != MC_OK && status != MC_NO_MEMORY);
    assert_true(sink.sink.offset <= SIZE);
    assert_false(sink.differs);
    sink_end(&sink);
  }
  close_source(world, source);
}

static void test_said_less_than_there_is(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_SAID_LESS)) skip();
  mc_info info;
  mc_source *source;
  const char *url = put(world, "a.bin", &things[0]);
  behave(world, "a.bin", HOW_SAID_LESS, 0, 0);
  if (try_open(world, url, &source, &info) != MC_OK) return;
  struct sink sink;
  sink_init(&sink, &things[0], 0, info.size);
  mc_status status = world->upstream_ops->source_read(source, &sink.sink, &no_limits, NULL);
  if (info.size == SIZE) {
    assert_int_equal(status, MC_OK);
  } else {
    assert_true(status == MC_CHANGED || status == MC_PROTOCOL);
  }
  sink_end(&sink);
  close_source(world, source);
}

static void test_another_range_than_was_asked_for(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_WRONG_RANGE)) skip();
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  behave(world, "a.bin", HOW_WRONG_RANGE, 0, 0);
  struct sink sink;
  sink_init(&sink, &things[0], 1000, 2000);
  assert_int_equal(world->upstream_ops->source_read(source, &sink.sink, &no_limits, NULL), MC_PROTOCOL);
  assert_true(sink.sink.offset == 1000);
  sink_end(&sink);
  close_source(world, source);
}

/* Round and round, or to where credentials of the machine are. */
static void check_led(struct world *world, enum how how) {
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  behave(world, "a.bin", how, 0, 0);
  unsigned requests = counts_of(world).requests;
  mc_status status = read_whole(world, source, &things[0]);
  close_source(world, source);
  assert_true(status == MC_PROTOCOL || status == MC_PERMISSION_DENIED);
  assert_true(counts_of(world).requests - requests <= 20);
  mc_error err = MC_ERROR_INIT;
  status = world->upstream_ops->stat(world->upstream, url_of(world, "a.bin"), &info, &no_limits, &err);
  assert_true(status == MC_PROTOCOL || status == MC_PERMISSION_DENIED); /* and not: that nobody answers there */
  assert_true(err.message[0]);
}

static void test_redirects_without_end(void **state) {
  if (!can(*state, HOW_LOOPING)) skip();
  check_led(*state, HOW_LOOPING);
}

static void test_redirects_to_metadata(void **state) {
  if (!can(*state, HOW_MISLED)) skip();
  check_led(*state, HOW_MISLED);
}

static void test_cut_is_continued(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_CUT)) skip();
  mc_info info;
  const uint64_t cut = MC_CHUNK_SIZE + 54321;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  behave(world, "a.bin", HOW_CUT, cut, 1);
  struct counts before = counts_of(world);
  assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
  await_counts(world, before.requests + 2, before.bytes + SIZE);
  struct counts after = counts_of(world);
  assert_int_equal(after.requests - before.requests, 2);
  assert_true(after.bytes - before.bytes == SIZE); /* from where it was: no byte twice */
  close_source(world, source);
}

static void test_cut_for_good(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_CUT)) skip();
  mc_info info;
  mc_source *source = open_source(world, put(world, "a.bin", &things[0]), &info);
  behave(world, "a.bin", HOW_CUT, 100000, 0);
  unsigned requests = counts_of(world).requests;
  mc_status status = read_whole(world, source, &things[0]);
  assert_true(mc_status_is_retryable(status));
  assert_true(counts_of(world).requests - requests <= 1 + RETRIES + 1); /* the first brought something on */
  close_source(world, source);
}

static void test_failures_are_tried_again(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_FAILING)) skip();
  mc_info info;
  const char *url = put(world, "a.bin", &things[0]);
  behave(world, "a.bin", HOW_FAILING, 0, RETRIES);
  mc_source *source = open_source(world, url, &info);
  behave(world, "a.bin", HOW_FAILING, 0, RETRIES);
  assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
  behave(world, "a.bin", HOW_FAILING, 0, 0);
  unsigned requests = counts_of(world).requests;
  assert_int_equal(read_whole(world, source, &things[0]), MC_UNAVAILABLE);
  assert_int_equal(counts_of(world).requests - requests, 1 + RETRIES);
  close_source(world, source);
}

static void test_without_ranges(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_UNRANGED)) skip();
  mc_info info;
  const char *url = put(world, "a.bin", &things[0]);
  behave(world, "a.bin", HOW_UNRANGED, 0, 0);
  mc_source *source = open_source(world, url, &info);
  assert_false(info.ranges);
  assert_true(info.size == SIZE);
  assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
  close_source(world, source);
}

/* The ranges that were promised turn out not to work. */
static void test_ranges_that_cease(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_UNRANGED)) skip();
  mc_info info;
  const char *url = put(world, "a.bin", &things[0]);
  mc_source *source = open_source(world, url, &info);
  assert_true(info.ranges);
  behave(world, "a.bin", HOW_UNRANGED, 0, 0);
  mc_status status = read_range(world, source, &things[0], MC_CHUNK_SIZE, SIZE, SCRATCH);
  assert_true(status == MC_UNSUPPORTED || status == MC_CHANGED);
  close_source(world, source);
  source = open_source(world, url, &info); /* now it shows */
  assert_false(info.ranges);
  assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
  close_source(world, source);
}

static void test_unknown_size(void **state) {
  struct world *world = *state;
  if (!can(world, HOW_SIZELESS)) skip();
  mc_info info;
  const char *url = put(world, "a.bin", &things[0]);
  behave(world, "a.bin", HOW_SIZELESS, 0, 0);
  assert_int_equal(try_stat(world, url, &info), MC_OK);
  assert_true(info.size == MC_SIZE_UNKNOWN);
  mc_source *source = open_source(world, url, &info);
  assert_true(info.size == MC_SIZE_UNKNOWN);
  assert_false(info.ranges);
  assert_int_equal(read_range(world, source, &things[0], 0, MC_SIZE_UNKNOWN, SCRATCH), MC_OK);
  close_source(world, source);
}

/* ---- what is known late ---- */

static void test_late_facts(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->source_finish || !can(world, HOW_LATE)) skip();
  mc_info info;
  const char *url = put(world, "a.bin", &things[0]);
  behave(world, "a.bin", HOW_LATE, 0, 0);
  mc_source *source = open_source(world, url, &info);
  check_facts(&info, &things[0], false);
  assert_null(info.chunks.hashes);
  assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
  world->ops->news(world->origin);
  mc_open_args args = {.url = url};
  assert_int_equal(world->upstream_ops->source_finish(source, &info, &args, &no_limits, NULL), MC_OK);
  check_facts(&info, &things[0], true);
  assert_int_equal(info.chunks.count, things[0].chunks->count);
  assert_memory_equal(info.chunks.hashes, things[0].chunks->hashes, info.chunks.count * sizeof(mc_hash128));
  close_source(world, source);
}

/* ---- closing ---- */

static void test_closed_after_each_failure(void **state) {
  struct world *world = *state;
  mc_info info;
  const char *url = put(world, "a.bin", &things[0]);
  unsigned files = 0;
  for (int round = 0; round < 20; round++) {
    mc_source *source = open_source(world, url, &info);
    struct sink sink;
    sink_init(&sink, &things[0], 0, SIZE);
    sink.fail_at = (uint64_t)round * 100000;
    sink.fail_with = MC_NO_SPACE;
    assert_int_equal(world->upstream_ops->source_read(source, &sink.sink, &no_limits, NULL), MC_NO_SPACE);
    sink_end(&sink);
    close_source(world, source);
    if (round == 9) files = count_entries("/proc/self/fd"); /* a few connections may be kept */
  }
  /* In tests of a server in this process its own ends of connections that were closed count as well. */
  unsigned per_round = world->ops->counts ? 2 : 0;
  assert_true(count_entries("/proc/self/fd") <= files + 10 * per_round);
}

/* ---- listings ---- */

struct listing {
  unsigned count, most;
  char paths[16][64];
  mc_listed listed[16];
};

static bool visit(void *user, const mc_listed *listed) {
  struct listing *listing = user;
  assert_true(listing->count < 16);
  assert_true(path_is_safe(listed->path));
  snprintf(listing->paths[listing->count], sizeof(listing->paths[0]), "%s", listed->path);
  listing->listed[listing->count] = *listed;
  listing->listed[listing->count++].path = "";
  return listing->count < listing->most;
}

static mc_status list(struct world *world, const char *folder, size_t max, struct listing *listing) {
  *listing = (struct listing){.most = listing->most};
  mc_error err = MC_ERROR_INIT;
  mc_status status =
      world->upstream_ops->list(world->upstream, url_of(world, folder), max, visit, listing, &no_limits, &err);
  assert_true(status == MC_OK || err.status == status);
  return status;
}

static const char *const tree[] = {"d/config.json", "d/1/model.onnx", "d/1/deep/er/still.bin",
                                   "d/with space & 100%.bin", "d/\xC3\xBC/#?.bin"};
#define TREE (sizeof(tree) / sizeof(*tree))

static void test_list(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->list) skip();
  for (size_t i = 0; i < TREE; i++) put(world, tree[i], &things[i % THINGS]);
  put(world, "elsewhere/x", &things[0]);
  struct listing listing = {.most = 100};
  assert_int_equal(list(world, "d/", TREE, &listing), MC_OK); /* exactly as many as are allowed */
  assert_int_equal(listing.count, TREE);
  for (size_t i = 0; i < TREE; i++) { /* each once, in any order */
    unsigned found = 0;
    for (unsigned j = 0; j < listing.count; j++) {
      if (strcmp(listing.paths[j], tree[i] + 2) != 0) continue;
      found++;
      assert_true(listing.listed[j].size == SIZE || listing.listed[j].size == MC_SIZE_UNKNOWN);
      /* What is listed can be got, by the path as it is told. */
      mc_info info;
      char *url = url_join(url_of(world, "d/"), listing.paths[j]);
      mc_source *source = open_source(world, url, &info);
      assert_int_equal(read_whole(world, source, &things[i % THINGS]), MC_OK);
      close_source(world, source);
      free(url);
    }
    assert_int_equal(found, 1);
  }
  assert_int_equal(list(world, "d/1/", 100, &listing), MC_OK);
  assert_int_equal(listing.count, 2);
}

/* What a listing tells is what there is, in the words of who is asked for it. */
static void assert_agrees(const mc_listed *listed, const mc_info *info) {
  const mc_validators *told = &listed->validators, *known = &info->validators;
  if (*told->version && *known->version) assert_string_equal(told->version, known->version);
  if (*told->etag && *known->etag) assert_string_equal(told->etag, known->etag);
  if (told->last_modified && known->last_modified) assert_int_equal(told->last_modified, known->last_modified);
  if (listed->has_digest && info->has_digest) assert_true(mc_digest_equal(&listed->digest, &info->digest));
}

static mc_status open_listed(struct world *world, const char *url, const mc_listed *listed, mc_source **source,
                             mc_info *info) {
  mc_open_args args = {.url = url, .listed = listed};
  *source = NULL;
  memset(info, 0xAA, sizeof(*info));
  return world->upstream_ops->source_open(world->upstream, &args, source, info, &no_limits, NULL);
}

static void test_listed_is_opened(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->list) skip();
  for (size_t i = 0; i < TREE; i++) put(world, tree[i], &things[0]);
  struct listing listing = {.most = 100};
  assert_int_equal(list(world, "d/", TREE, &listing), MC_OK);
  for (unsigned i = 0; i < listing.count; i++) {
    mc_info stat, info;
    mc_source *source;
    char *url = url_join(url_of(world, "d/"), listing.paths[i]);
    assert_int_equal(try_stat(world, url, &stat), MC_OK);
    assert_agrees(&listing.listed[i], &stat);
    assert_int_equal(open_listed(world, url, &listing.listed[i], &source, &info), MC_OK);
    assert_true(names_a_version(&info.validators));
    assert_agrees(&listing.listed[i], &info);
    assert_true(info.size == SIZE || info.size == MC_SIZE_UNKNOWN);
    assert_int_equal(read_whole(world, source, &things[0]), MC_OK);
    close_source(world, source);
    free(url);
  }
}

/* Another content is there than was listed, or none: that is told, or it is what is read, as a whole. */
static void test_listed_is_out_of_date(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->list) skip();
  const struct thing *others[] = {&things[1], &shorter, NULL};
  for (size_t i = 0; i < 3; i++) {
    const char *url = put(world, "d/a.bin", &things[0]);
    struct listing listing = {.most = 100};
    mc_info info;
    mc_source *source;
    assert_int_equal(list(world, "d/", 100, &listing), MC_OK);
    assert_int_equal(listing.count, 1);
    if (others[i]) put(world, "d/a.bin", others[i]);
    if (!others[i]) world->ops->remove(world->origin, "d/a.bin");
    mc_status status = open_listed(world, url, &listing.listed[0], &source, &info);
    if (status) {
      assert_true(status == MC_CHANGED || (status == MC_NOT_FOUND && !others[i]));
      continue;
    }
    status = read_range(world, source, others[i] ? others[i] : &nothing, 0, info.size, SCRATCH);
    close_source(world, source);
    if (status) {
      assert_true(status == MC_CHANGED || (status == MC_PROTOCOL && others[i] == &shorter));
    } else { /* read_range has compared it */
      assert_true(others[i] && info.size == others[i]->size);
    }
  }
}

static void test_list_has_a_limit(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->list) skip();
  for (size_t i = 0; i < TREE; i++) put(world, tree[i], &things[0]);
  struct listing listing = {.most = 100};
  assert_int_equal(list(world, "d/", TREE - 1, &listing), MC_RESOURCE_EXHAUSTED);
  assert_true(listing.count <= TREE - 1);
}

static void test_list_stops(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->list) skip();
  for (size_t i = 0; i < TREE; i++) put(world, tree[i], &things[0]);
  for (unsigned most = 1; most < TREE; most++) {
    struct listing listing = {.most = most};
    assert_int_equal(list(world, "d/", 100, &listing), MC_OK);
    assert_int_equal(listing.count, most);
  }
}

static void test_list_of_nothing(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->list) skip();
  put(world, "d/a.bin", &things[0]);
  struct listing listing = {.most = 100};
  assert_int_equal(list(world, "nowhere/", 100, &listing), MC_NOT_FOUND);
  assert_int_equal(listing.count, 0);
}

static void test_list_that_leaves_the_tree(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->list || !world->ops->mislead) skip();
  world->ops->mislead(world->origin, "evil/");
  struct listing listing = {.most = 100};
  assert_int_equal(list(world, "evil/", 100, &listing), MC_PROTOCOL);
}

/* ---- caches ---- */

struct entries {
  unsigned count, most;
  char last[256];
  const char *prefix;
};

static bool visit_entry(void *user, const mc_entry *entry) {
  struct entries *entries = user;
  assert_true(strncmp(entry->url, entries->prefix, strlen(entries->prefix)) == 0);
  assert_true(strcmp(entries->last, entry->url) < 0); /* sorted, each once */
  snprintf(entries->last, sizeof(entries->last), "%s", entry->url);
  assert_true(entry->has_digest && entry->size == SIZE && names_a_version(&entry->validators));
  return ++entries->count < entries->most;
}

/* ---- explaining ---- */

static void check_told(const struct world *world, const char *text, size_t size) {
  assert_non_null(memchr(text, 0, size));
  for (; *text; text++) assert_true((unsigned char)*text >= 0x20 && *text != 0x7f);
  for (size_t i = 0; i < world->config.credentials_count; i++) {
    const mc_credentials *credentials = &world->config.credentials[i];
    for (size_t k = 0; k < credentials->count; k++) {
      if (strstr(credentials->settings[k].key, "secret")) assert_null(strstr(text, credentials->settings[k].value));
    }
  }
}

static void test_explain(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->explain) skip();
  const char *url = put(world, "a.bin", &things[0]);
  unsigned requests = counts_of(world).requests;
  mc_access access;
  memset(&access, 0xee, sizeof(access));
  assert_int_equal(world->upstream_ops->explain(world->upstream, url, &access, &no_limits, NULL), MC_OK);
  assert_true(*access.endpoint && *access.credentials);
  assert_true(access.expires_at >= 0);
  check_told(world, access.endpoint, sizeof(access.endpoint));
  check_told(world, access.credentials, sizeof(access.credentials));
  check_told(world, access.identity, sizeof(access.identity));
  if (world->ops->counts) assert_int_equal(counts_of(world).requests, requests); /* nothing is asked of the origin */
}

static void test_cache(void **state) {
  struct world *world = *state;
  const mc_upstream_cache_ops *ops = world->upstream_ops->cache;
  if (!ops) skip();
  assert_true(ops->entries && ops->prefetch && ops->evict && ops->status);
  put(world, "a", &things[0]);
  put(world, "d/a", &things[0]);
  put(world, "d/b", &things[1]);
  put(world, "d/c", &things[2]);
  world->ops->expect(world->origin, REQUEST_ENTRIES);
  struct entries entries = {.most = 100, .prefix = url_of(world, "d/")};
  assert_int_equal(ops->entries(world->upstream, entries.prefix, NULL, visit_entry, &entries, &no_limits, NULL), MC_OK);
  assert_int_equal(entries.count, 3);
  entries = (struct entries){.most = 2, .prefix = entries.prefix};
  assert_int_equal(ops->entries(world->upstream, entries.prefix, NULL, visit_entry, &entries, &no_limits, NULL), MC_OK);
  assert_int_equal(entries.count, 2);
  entries = (struct entries){.most = 100, .prefix = entries.prefix};
  snprintf(entries.last, sizeof(entries.last), "%s", url_of(world, "d/a"));
  assert_int_equal(ops->entries(world->upstream, entries.prefix, entries.last, visit_entry, &entries, &no_limits, NULL),
                   MC_OK);
  assert_int_equal(entries.count, 2);
  const char *url = url_of(world, "d/a");
  world->ops->expect(world->origin, REQUEST_PREFETCH);
  assert_int_equal(ops->prefetch(world->upstream, url, true, &no_limits, NULL), MC_OK);
  world->ops->expect(world->origin, REQUEST_EVICT);
  uint64_t evicted = 0;
  assert_int_equal(ops->evict(world->upstream, url, &evicted, &no_limits, NULL), MC_OK);
  assert_int_equal(evicted, EVICTED_BYTES);
  world->ops->expect(world->origin, REQUEST_STATUS);
  char *json = NULL;
  assert_int_equal(ops->status(world->upstream, &json, &no_limits, NULL), MC_OK);
  assert_true(json && json[0] == '{');
  free(json);
  if (!ops->check) return;
  mc_origin_check found;
  world->ops->expect(world->origin, REQUEST_CHECK);
  memset(&found, 0xee, sizeof(found));
  assert_int_equal(ops->check(world->upstream, url, &found, &no_limits, NULL), MC_OK);
  assert_int_equal(found.struct_size, sizeof(found));
  assert_string_equal(found.upstream, "http");
  assert_int_equal(found.error.status, MC_NOT_FOUND);
  assert_string_equal(found.error.message, "there is no such file");
  assert_true(found.size == MC_SIZE_UNKNOWN);
  if (!ops->repair) return;
  mc_repair_result repaired;
  world->ops->expect(world->origin, REQUEST_REPAIR);
  memset(&repaired, 0xee, sizeof(repaired));
  assert_int_equal(ops->repair(world->upstream, true, &repaired, &no_limits, NULL), MC_OK);
  assert_int_equal(repaired.struct_size, sizeof(repaired));
  assert_int_equal(repaired.records, 5);
  assert_int_equal(repaired.entries, 4);
  assert_int_equal(repaired.missing, 3);
  assert_int_equal(repaired.older, 2);
  assert_int_equal(repaired.objects, 1);
}

static void test_cache_ends(void **state) {
  struct world *world = *state;
  if (!world->upstream_ops->cache || !can(world, HOW_SILENT)) skip();
  put(world, "d/", &things[0]);
  behave(world, "d/", HOW_SILENT, 0, 0);
  struct blocked blocked = {.world = world, .op = IN_ENTRIES, .url = url_of(world, "d/")};
  check_that_it_ends(&blocked, 0);
}

/* ---- running ---- */

static void make_thing(struct thing *thing, unsigned number, size_t size) {
  uint8_t *data = malloc(size + 1);
  for (size_t i = 0; i < size; i++) data[i] = (uint8_t)(((i + number) * 2654435761u + number * 40503u) >> 11);
  *thing = (struct thing){.data = data, .size = size, .chunks = chunk_table_new(size)};
  sha256_of(&thing->digest, data, size);
  for (uint32_t i = 0; i < thing->chunks->count; i++) {
    xxh128_of(chunk_table_hashes(thing->chunks) + i, data + i * MC_CHUNK_SIZE, (size_t)chunk_length(size, i));
  }
}

static void free_thing(struct thing *thing) {
  free((void *)thing->data);
  free(thing->chunks);
}

static int run(const struct origin_ops *ops) {
  struct world world = {.ops = ops, .upstream_ops = ops->upstream};
#define TEST(name) cmocka_unit_test_prestate_setup_teardown(name, set_up, tear_down, &world)
  const struct CMUnitTest tests[] = {
      TEST(test_table),
      TEST(test_open_does_no_io),
      TEST(test_stat),
      TEST(test_open),
      TEST(test_unchanged),
      TEST(test_empty),
      TEST(test_missing),
      TEST(test_forbidden),
      TEST(test_whole),
      TEST(test_ranges),
      TEST(test_as_far_as_it_goes),
      TEST(test_small_spaces),
      TEST(test_threads),
      TEST(test_two_sources),
      TEST(test_sink_fails),
      TEST(test_corrupt_is_read_again),
      TEST(test_stat_ends),
      TEST(test_open_ends),
      TEST(test_list_ends),
      TEST(test_read_ends),
      TEST(test_finish_ends),
      TEST(test_over_before_it_began),
      TEST(test_changed_before_the_read),
      TEST(test_changed_between_reads),
      TEST(test_removed_before_the_read),
      TEST(test_another_size),
      TEST(test_said_more_than_there_is),
      TEST(test_said_less_than_there_is),
      TEST(test_another_range_than_was_asked_for),
      TEST(test_redirects_without_end),
      TEST(test_redirects_to_metadata),
      TEST(test_cut_is_continued),
      TEST(test_cut_for_good),
      TEST(test_failures_are_tried_again),
      TEST(test_without_ranges),
      TEST(test_ranges_that_cease),
      TEST(test_unknown_size),
      TEST(test_late_facts),
      TEST(test_closed_after_each_failure),
      TEST(test_list),
      TEST(test_listed_is_opened),
      TEST(test_listed_is_out_of_date),
      TEST(test_list_has_a_limit),
      TEST(test_list_stops),
      TEST(test_list_of_nothing),
      TEST(test_list_that_leaves_the_tree),
      TEST(test_explain),
      TEST(test_cache),
      TEST(test_cache_ends),
  };
  return cmocka_run_group_tests_name(ops->upstream->name, tests, NULL, NULL);
}

static void *do_nothing(void *arg) {
  return arg;
}

int main(void) {
  /* A sanitizer's own thread begins with our first one, and must not be counted as one that was left behind. */
  pthread_t thread;
  if (pthread_create(&thread, NULL, do_nothing, NULL) == 0) pthread_join(thread, NULL);
  for (unsigned i = 0; i < THINGS; i++) make_thing(&things[i], i + 1, SIZE);
  make_thing(&shorter, 3, SIZE / 2);
  make_thing(&nothing, 0, 0);
  const struct origin_ops *const origins[] = {
      &file_origin, &http_origin, &s3_origin, &gcs_origin, &azure_origin, &hf_origin, &hf_lfs_origin, &cluster_origin,
  };
  int failed = 0;
  for (size_t i = 0; i < sizeof(origins) / sizeof(*origins); i++) failed += run(origins[i]);
  for (unsigned i = 0; i < THINGS; i++) free_thing(&things[i]);
  free_thing(&shorter);
  free_thing(&nothing);
  return failed ? 1 : 0;
}
