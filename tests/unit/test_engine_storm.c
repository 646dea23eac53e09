/* Everything at once, in a cache that is too small for it: gets of all kinds, cancelling, evicting, contents that
 * change and reads that fail. Whatever comes back is true to its digest, and nothing is left over. */
#include "tests/fakes/engine_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"

#define THREADS 8
#define ROUNDS  60
#define FILES   6

struct storm {
  struct fixture *fixture;
  struct fake_content *contents[FILES];
  unsigned number;
  unsigned good, other; /* calls that gave content; that did not */
  pthread_t thread;
};

static void check_true(const void *bytes, size_t size, const mc_digest *digest) {
  mc_digest got;
  sha256_of(&got, bytes, size);
  if (!mc_digest_equal(&got, digest)) abort(); /* cmocka's assertions are for the main thread */
}

static void check_file(mc_file *file) {
  const void *bytes;
  size_t size;
  if (mc_file_map(file, &bytes, &size, NULL)) abort();
  check_true(bytes, size, mc_file_digest(file));
  const char *path = mc_file_path(file);
  if (path && access(path, R_OK)) abort(); /* what is promised while it's held */
  mc_file_release(file);
}

/* Only what can happen here is fine. */
static void check_status(struct storm *storm, mc_status status) {
  const mc_status fine[] = {MC_OK,      MC_CANCELLED, MC_UNAVAILABLE, MC_NO_SPACE,          MC_DEADLINE_EXCEEDED,
                            MC_CHANGED, MC_BUSY,      MC_NOT_FOUND,   MC_RESOURCE_EXHAUSTED};
  bool found = false;
  for (size_t i = 0; i < sizeof(fine) / sizeof(*fine); i++) found = found || fine[i] == status;
  if (!found) {
    fprintf(stderr, "status %s\n", mc_status_name(status));
    abort();
  }
  if (status) {
    storm->other++;
  } else {
    storm->good++;
  }
}

static void plain_get(struct storm *storm, const char *url, uint32_t flags) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  mc_file *file = NULL;
  options.flags = flags;
  mc_status status = mc_get(&file, storm->fixture->cache, url, &options, NULL);
  check_status(storm, status);
  if (!status) check_file(file);
}

static void get_into_buffer(struct storm *storm, const char *url, uint32_t flags) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  mc_file *file = NULL;
  options.flags = flags;
  options.timeout_ms = 1 + storm->number * 3;
  options.buffer_size = 2 * CHUNK;
  options.buffer = malloc(options.buffer_size);
  mc_status status = mc_get(&file, storm->fixture->cache, url, &options, NULL);
  check_status(storm, status);
  if (!status) check_true(options.buffer, mc_file_size(file), mc_file_digest(file));
  mc_file_release(file);
  free(options.buffer);
}

static void get_and_cancel(struct storm *storm, const char *url, unsigned seed) {
  struct pending pending;
  start_get_watched(&pending, storm->fixture, url, NULL);
  if (seed % 2) sched_yield();
  mc_request_cancel(pending.request);
  mc_status status = finish_get(&pending);
  check_status(storm, status);
  if (!status) check_file(pending.file);
}

static void *storm_main(void *arg) {
  struct storm *storm = arg;
  unsigned seed = storm->number * 7919 + 1;
  for (int i = 0; i < ROUNDS; i++) {
    char url[64];
    seed = seed * 1103515245 + 12345;
    unsigned file = (seed >> 16) % FILES, what = (seed >> 8) % 16;
    snprintf(url, sizeof(url), "fake://host/%u", file);
    if (what < 6) plain_get(storm, url, 0);
    if (what == 6) plain_get(storm, url, MC_GET_REVALIDATE);
    if (what == 7) plain_get(storm, url, MC_GET_CACHED);
    if (what == 8) plain_get(storm, url, seed % 2 ? MC_GET_PIN : MC_GET_UNPIN);
    if (what == 9) get_into_buffer(storm, url, 0);
    if (what == 10) get_into_buffer(storm, url, MC_GET_DIRECT);
    if (what == 11 || what == 12) get_and_cancel(storm, url, seed);
    if (what == 13) mc_evict(NULL, storm->fixture->cache, url, NULL);
    if (what == 14) fake_change(storm->contents[file], 1 + seed % (2 * CHUNK), seed);
    if (what == 15) mc_prefetch(storm->fixture->cache, url, false, NULL);
  }
  return NULL;
}

static void all_at_once(void **state) {
  struct fixture *fixture = *state;
  struct storm storms[THREADS] = {{.fixture = fixture}};
  char name[32], folder[256];
  for (unsigned i = 0; i < FILES; i++) {
    snprintf(name, sizeof(name), "host/%u", i);
    struct fake_content *content = storms[0].contents[i] = fake_add(0, name, 1 + i * CHUNK / 3, i + 1);
    content->fails = 5;
    content->fails_at = CHUNK / 2;
    content->fails_with = MC_UNAVAILABLE;
    content->unknown_size = i == 1;
    content->no_ranges = i == 2;
  }
  fixture->options.storage_capacity = 3 * CHUNK;
  fixture->options.memory_capacity = 4 * CHUNK;
  fixture->options.revalidate_after_ms = 20;
  fixture->options.negative_ttl_ms = 1;
  fixture->options.flights = 4;
  open_cache(fixture);
  for (unsigned i = 0; i < THREADS; i++) {
    if (i) storms[i] = storms[0];
    storms[i].number = i;
  }
  for (unsigned i = 0; i < THREADS; i++) {
    assert_int_equal(pthread_create(&storms[i].thread, NULL, storm_main, &storms[i]), 0);
  }
  unsigned good = 0;
  for (unsigned i = 0; i < THREADS; i++) {
    pthread_join(storms[i].thread, NULL);
    good += storms[i].good;
  }
  assert_true(good > THREADS * ROUNDS / 4);
  struct tier *tiers[] = {fixture->cache->tiers[0], fixture->cache->tiers[1]};
  tier_acquire(tiers[0]);
  tier_acquire(tiers[1]);
  close_cache(fixture);
  for (int i = 0; i < 2; i++) {
    struct tier_usage usage;
    tier_usage(tiers[i], &usage);
    assert_int_equal(usage.open, 0);
    assert_int_equal(usage.reserved, 0);
    assert_true(usage.bytes <= usage.capacity);
    tier_release(tiers[i]);
  }
  assert_true(names_in(path_in(fixture, folder, "storage/stage")) <= FILES);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(all_at_once, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
