/* Two members over one storage and one shared coordination: one download for both, whatever happens to one of them, or
 * to the coordination. */
#include "tests/fakes/engine_fixture.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "tests/fakes/fake_hub.h"

#define DATA "tcp://first:7441"
#define HERD 100

/* The second member, beside the fixture's. */
static struct fixture other;
static char key[KEY_SIZE];
static atomic_uint outages, returns; /* as the first one logged them */

static void count_log(void *user, mc_log_level level, const char *origin, const char *message) {
  (void)origin;
  if (user != &outages) return;
  if (level == MC_LOG_WARN && strstr(message, "going on without the coordination")) outages++;
  if (level == MC_LOG_INFO && strstr(message, "the coordination is there again")) returns++;
}

static int setup(void **state) {
  fixture_setup(state);
  struct fixture *first = *state;
  first->options.coordination = "hub";
  first->options.coordination_backends = fake_hubs;
  first->options.logger = (mc_logger){count_log, &outages, MC_LOG_INFO};
  key_of(key, URL);
  outages = returns = 0;
  return 0;
}

static int teardown(void **state) {
  close_cache(*state);
  close_cache(&other);
  fake_hub_reset();
  return fixture_teardown(state);
}

static void open_both(struct fixture *first) {
  open_cache(first);
  assert_int_equal(mc_advertise(first->cache, DATA, "first:7440", NULL), MC_OK);
  other = *first;
  other.options.logger.user = NULL;
  open_cache(&other);
}

static mc_entry *known_by(struct fixture *member) {
  mc_entry *entry;
  assert_int_equal(entry_load(&entry, member->cache, key, NULL), MC_OK);
  return entry;
}

static uint64_t revision_known_by(struct fixture *member) {
  mc_entry *entry = known_by(member);
  uint64_t revision = entry->revision;
  free(entry);
  return revision;
}

/* What the storage's record says, which is all there is while the coordination is out of reach. */
static bool record_is(struct fixture *member, const struct fake_content *content) {
  fake_hub_lose();
  mc_entry *entry = known_by(member);
  bool same = entry->has_digest && mc_digest_equal(&entry->digest, &content->digest);
  free(entry);
  fake_hub_find(false);
  return same;
}

static void assert_given(struct pending *pending, const struct fake_content *content) {
  assert_int_equal(finish_get(pending), MC_OK);
  assert_is(pending->file, content);
  mc_file_release(pending->file);
}

/* The first member has begun to download, and does not get on. */
static struct fake_content *begin_download(struct fixture *first, struct pending *pending) {
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK + 1, 1);
  content->stalls = true;
  content->stalls_at = 2 * CHUNK;
  start_get_watched(pending, first, URL, NULL);
  fake_await(&content->stalled, 1);
  return content;
}

/* ---- one download for both ---- */

static void one_download_is_for_all_who_wait_at_both(void **state) {
  struct fixture *first = *state;
  static struct pending here[HERD], there[HERD];
  open_both(first);
  struct fake_content *content = begin_download(first, &here[0]);
  for (int i = 1; i < HERD; i++) start_get(&here[i], first, URL, NULL);
  for (int i = 0; i < HERD; i++) start_get_watched(&there[i], &other, URL, NULL);
  for (int i = 0; i < HERD; i++) await_flight(&there[i]);
  fake_release(content);
  for (int i = 0; i < HERD; i++) {
    assert_given(&here[i], content);
    assert_given(&there[i], content);
  }
  assert_int_equal(content->opens, 1);
  assert_int_equal(content->bytes, content->size);
  assert_int_equal(stat_of(&other, "downloads_total"), 0);
  assert_int_equal(fake_hub_calls("wait"), 1);
}

static void who_waits_elsewhere_is_told_how_it_goes(void **state) {
  struct fixture *first = *state;
  struct pending here, there;
  char reason[128];
  open_both(first);
  struct fake_content *content = begin_download(first, &here);
  start_get_watched(&there, &other, URL, NULL);
  await_flight(&there);
  mc_progress progress = last_progress(&there, reason);
  assert_int_equal(progress.phase, MC_PHASE_WAITING);
  assert_string_equal(reason, "another pod downloads it");
  assert_int_equal(progress.total, content->size);
  assert_true(progress.bytes <= content->size);
  assert_string_equal(progress.endpoint, DATA);
  assert_string_equal(progress.validators.etag, content->validators.etag);
  struct flight *flight = flight_find(first->cache, progress.flight);
  assert_non_null(flight);
  flight_release(flight);
  await_flight(&here);
  assert_string_equal(last_progress(&here, reason).endpoint, ""); /* its own */
  fake_release(content);
  assert_given(&here, content);
  assert_given(&there, content);
}

/* As a server does that drains, or a library that serves nobody. */
static void who_has_no_endpoint_is_not_followed(void **state) {
  struct fixture *first = *state;
  static const uint8_t none[32];
  struct pending here, there;
  open_both(first);
  assert_int_equal(mc_advertise(first->cache, NULL, NULL, NULL), MC_OK);
  struct fake_content *content = begin_download(first, &here);
  start_get_watched(&there, &other, URL, NULL);
  do {
    await_reports(&there);
  } while (last_progress(&there, NULL).total == MC_SIZE_UNKNOWN);
  assert_memory_equal(last_progress(&there, NULL).flight, none, sizeof(none));
  fake_release(content);
  assert_given(&here, content);
  assert_given(&there, content);
}

/* ---- what happens to the owner ---- */

static void who_waits_finishes_what_the_owner_left(void **state) {
  struct fixture *first = *state;
  struct pending here, there;
  first->options.parallelism = 1;
  open_both(first);
  struct fake_content *content = begin_download(first, &here);
  start_get_watched(&there, &other, URL, NULL);
  await_flight(&there);
  close_cache(first);
  assert_int_equal(finish_get(&here), MC_CANCELLED);
  fake_release(content);
  assert_given(&there, content);
  assert_int_equal(content->opens, 2);
  assert_int_equal(content->bytes, content->size);
  assert_int_equal(stat_of(&other, "resumed_bytes_total"), 2 * CHUNK);
}

static void each_member_tries_once_what_fails(void **state) {
  struct fixture *first = *state;
  struct pending here, there;
  open_both(first);
  struct fake_content *content = begin_download(first, &here);
  fake_lock();
  content->fails_at = 2 * CHUNK;
  content->fails_with = MC_PERMISSION_DENIED;
  content->fails = UINT32_MAX;
  fake_unlock();
  start_get_watched(&there, &other, URL, NULL);
  await_flight(&there);
  fake_release(content);
  assert_int_equal(finish_get(&here), MC_PERMISSION_DENIED);
  assert_int_equal(finish_get(&there), MC_PERMISSION_DENIED);
  assert_int_equal(content->opens, 2);
}

static void what_is_missing_is_asked_for_once(void **state) {
  struct fixture *first = *state;
  first->options.negative_ttl_ms = 60000;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  content->missing = true;
  open_both(first);
  assert_int_equal(try_get(first, URL, 0, NULL), MC_NOT_FOUND);
  assert_int_equal(try_get(&other, URL, 0, NULL), MC_NOT_FOUND);
  assert_int_equal(content->opens, 1);
}

/* ---- claims that are lost ---- */

static void a_claim_that_nobody_took_costs_nothing(void **state) {
  struct fixture *first = *state;
  struct pending here;
  open_both(first);
  struct fake_content *content = begin_download(first, &here);
  await_flight(&here);
  struct flight *flight = flight_find(first->cache, last_progress(&here, NULL).flight);
  assert_non_null(flight);
  fake_hub_revoke(key);
  claim_tell_soon(flight);
  int64_t until = clock_ns() + 60 * NS_PER_S;
  while (!claim_is_lost(flight) && clock_ns() < until) sched_yield();
  assert_true(claim_is_lost(flight));
  flight_release(flight);
  fake_release(content);
  assert_given(&here, content);
  assert_true(get_once(&other, URL, content));
  assert_true(record_is(&other, content));
  assert_int_equal(content->opens, 1);
}

/* It was about to write its record when it lost the claim, and wrote it over the newer one. */
static void a_newer_record_is_mended_by_who_wrote_over_it(void **state) {
  struct fixture *first = *state;
  struct pending here;
  first->options.revalidate_after_ms = 1000;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1), before;
  open_both(first);
  get_once(first, URL, content);
  time_passes(1001);
  fake_storage_hold_one(FAKE_RECORD_PUT);
  start_get(&here, first, URL, NULL);
  fake_storage_await_held(1);
  before = *content;
  before.data = memcpy(malloc(content->size), content->data, content->size);
  fake_hub_revoke(key);
  fake_change(content, 2 * CHUNK, 2);
  assert_false(get_once(&other, URL, content)); /* its record comes with the commit */
  fake_storage_hold(FAKE_RECORD_PUT, false);
  assert_given(&here, &before); /* which was current when it was asked for */
  close_cache(first);
  assert_true(record_is(&other, content));
  assert_true(get_once(&other, URL, content));
  free(before.data);
}

/* Nor by who can't be told that he lost his claim. */
static void a_newer_record_stays_in_an_outage(void **state) {
  struct fixture *first = *state;
  struct pending here;
  open_both(first);
  struct fake_content *content = begin_download(first, &here), *newer = fake_add(0, "host/newer", CHUNK, 2);
  mc_entry published = {.url = URL, .size = newer->size, .has_digest = true, .digest = newer->digest, .holders = ""};
  published.revision = UINT64_MAX / 2;
  fake_hub_lose();
  assert_int_equal(entry_record(other.cache, key, &published, NULL, NULL), MC_OK);
  fake_release(content);
  assert_given(&here, content);
  assert_true(record_is(&other, newer));
}

/* ---- revisions ---- */

static void revisions_grow(void **state) {
  struct fixture *first = *state;
  first->options.revalidate_after_ms = 1000;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_both(first);
  get_once(first, URL, content);
  uint64_t downloaded = revision_known_by(&other);
  assert_true(downloaded > 0);
  time_passes(1001);
  get_once(&other, URL, content);
  uint64_t confirmed = revision_known_by(first);
  assert_true(confirmed > downloaded);
  assert_int_equal(try_get(first, URL, MC_GET_PIN, NULL), MC_OK);
  uint64_t pinned = revision_known_by(&other);
  assert_true(pinned > confirmed);
  time_passes(-60000); /* a clock that was put back */
  fake_hub_lose();
  assert_int_equal(try_get(first, URL, MC_GET_REVALIDATE, NULL), MC_OK);
  uint64_t alone = revision_known_by(&other); /* by its record */
  assert_true(alone > pinned);
  fake_hub_find(true);
  assert_int_equal(try_get(&other, URL, MC_GET_REVALIDATE, NULL), MC_OK);
  assert_true(revision_known_by(first) > alone);
}

/* ---- without the coordination ---- */

static void without_the_coordination_all_goes_on(void **state) {
  struct fixture *first = *state;
  first->options.revalidate_after_ms = 1000;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_both(first);
  fake_hub_lose();
  assert_false(get_once(first, URL, content));
  assert_true(get_once(&other, URL, content)); /* by its record */
  assert_int_equal(content->opens, 1);
  assert_int_equal(stat_of(first, "uncoordinated_total"), 1);
  assert_int_equal(stat_of(&other, "uncoordinated_total"), 0);
  time_passes(1001);
  assert_true(get_once(first, URL, content));
  assert_true(get_once(first, URL, content));
  assert_true(get_once(&other, URL, content));
  assert_int_equal(content->opens_unchanged, 1);
  assert_int_equal(stat_of(first, "uncoordinated_total"), 2);
  assert_int_equal(outages, 1);
  assert_int_equal(returns, 0);
  fake_hub_find(false);
  time_passes(1001);
  assert_true(get_once(first, URL, content));
  assert_int_equal(returns, 1);
  assert_true(get_once(&other, URL, content));
  assert_int_equal(content->opens_unchanged, 2);
  assert_int_equal(content->opens, 3);
}

static void who_waits_goes_on_alone_when_the_coordination_is_lost(void **state) {
  struct fixture *first = *state;
  struct pending here, there;
  first->options.lease_ms = 1000;
  open_both(first);
  struct fake_content *content = begin_download(first, &here);
  start_get_watched(&there, &other, URL, NULL);
  await_flight(&there);
  fake_hub_lose();
  fake_await(&content->opens, 2);
  fake_release(content);
  assert_given(&here, content);
  assert_given(&there, content);
  assert_int_equal(stat_of(&other, "uncoordinated_total"), 1);
}

/* The clock, which looks after deadlines, must not wait for it. */
static void a_coordination_that_hangs_holds_up_no_deadline(void **state) {
  struct fixture *first = *state;
  struct pending here, late;
  mc_get_options options = MC_GET_OPTIONS_INIT;
  open_both(first);
  fake_hub_hold("renew"); /* the one with which it tells that it has begun */
  struct fake_content *content = begin_download(first, &here);
  fake_hub_await_held();
  options.timeout_ms = 1;
  start_get(&late, first, URL, &options);
  assert_int_equal(finish_get(&late), MC_DEADLINE_EXCEEDED);
  fake_hub_release();
  fake_release(content);
  assert_given(&here, content);
}

/* ---- nobody is given what was seen before he came ---- */

static void who_joins_is_not_given_what_was_seen_before(void **state) {
  struct fixture *first = *state;
  struct pending early, late;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_both(first);
  get_once(first, URL, content);
  fake_hub_hold("lookup");
  start_get(&early, &other, URL, NULL);
  fake_hub_await_held(); /* it looks whether a copy is at hand, and that has to be verified */
  fake_hub_hold("lookup");
  fake_hub_release();
  fake_hub_await_held(); /* its flight has seen the first version */
  fake_change(content, 2 * CHUNK, 2);
  assert_int_equal(try_get(first, URL, MC_GET_REVALIDATE, NULL), MC_OK);
  start_get(&late, &other, URL, NULL);
  await_stat(&other, "waiting_requests", 2);
  assert_int_equal(stat_of(&other, "flights_total"), 1);
  fake_hub_release();
  assert_given(&late, content);
  assert_int_equal(finish_get(&early), MC_OK);
  mc_file_release(early.file);
  assert_int_equal(content->opens, 2);
}

/* Who lost his claim while he downloads is overtaken: those who came since may know the newer version already. */
static void who_joins_one_that_is_overtaken_is_given_the_newer(void **state) {
  struct fixture *first = *state;
  struct pending here, late;
  open_both(first);
  struct fake_content *newer = fake_add(0, "host/newer", CHUNK, 2);
  get_once(&other, "fake://host/newer", newer);
  struct fake_content *content = begin_download(first, &here);
  mc_entry published = {.url = URL, .size = newer->size, .has_digest = true, .digest = newer->digest, .holders = ""};
  published.revision = UINT64_MAX / 2;
  published.fetched_at = published.checked_at = clock_wall_ms();
  fake_hub_revoke(key);
  fake_hub_regress(key, &published);
  start_get_watched(&late, first, URL, NULL);
  await_reports(&late);
  fake_release(content);
  assert_int_equal(finish_get(&here), MC_OK);
  mc_file_release(here.file);
  assert_given(&late, newer);
}

/* The coordination has lost what was published since. The record tells of it. */
static void who_was_overtaken_stays_so_when_that_is_forgotten(void **state) {
  struct fixture *first = *state;
  struct pending here;
  open_both(first);
  struct fake_content *content = begin_download(first, &here), *newer = fake_add(1, "host/newer", CHUNK, 2);
  mc_entry published = {.url = URL, .size = newer->size, .has_digest = true, .digest = newer->digest, .holders = ""};
  published.revision = UINT64_MAX / 2;
  char *text = record_encode(&published);
  mc_storage *storage = tier_storage(other.cache->home);
  assert_int_equal(storage->ops->record_put(storage, key, text, strlen(text), NULL), MC_OK);
  free(text);
  fake_hub_revoke(key);
  fake_release(content);
  assert_given(&here, content);
  close_cache(first); /* once it has told the coordination */
  mc_entry *known = known_by(&other);
  assert_true(mc_digest_equal(&known->digest, &newer->digest));
  free(known);
}

static void a_pinned_file_stays_pinned_for_both(void **state) {
  struct fixture *first = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_both(first);
  get_once(first, URL, content);
  assert_int_equal(try_get(&other, URL, MC_GET_PIN, NULL), MC_OK);
  mc_entry *entry = known_by(first);
  assert_true(entry->pinned);
  free(entry);
  assert_int_equal(content->opens, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
      TEST(one_download_is_for_all_who_wait_at_both),
      TEST(who_waits_elsewhere_is_told_how_it_goes),
      TEST(who_has_no_endpoint_is_not_followed),
      TEST(who_waits_finishes_what_the_owner_left),
      TEST(each_member_tries_once_what_fails),
      TEST(what_is_missing_is_asked_for_once),
      TEST(a_claim_that_nobody_took_costs_nothing),
      TEST(a_newer_record_is_mended_by_who_wrote_over_it),
      TEST(a_newer_record_stays_in_an_outage),
      TEST(revisions_grow),
      TEST(without_the_coordination_all_goes_on),
      TEST(who_waits_goes_on_alone_when_the_coordination_is_lost),
      TEST(a_coordination_that_hangs_holds_up_no_deadline),
      TEST(who_joins_is_not_given_what_was_seen_before),
      TEST(who_joins_one_that_is_overtaken_is_given_the_newer),
      TEST(who_was_overtaken_stays_so_when_that_is_forgotten),
      TEST(a_pinned_file_stays_pinned_for_both),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
