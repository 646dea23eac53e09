/* What a listing said is not asked again, and is believed for no longer than it holds. */
#include "tests/fakes/engine_fixture.h"

#include <string.h>
#include <unistd.h>

#define SIZE      20000
#define OTHER_URL "fake://host/other"
#define LATER     ((int64_t)1000 * 1000) /* when a copy has to be revalidated */

static mc_listed listing_of(const struct fake_content *content) {
  return (mc_listed){.path = "file", .size = content->size, .validators = content->validators};
}

static mc_status get_listed(struct fixture *fixture, const mc_listed *listed, uint32_t flags,
                            const struct fake_content *content) {
  struct pending pending;
  start_get_listed(&pending, fixture, URL, listed, flags);
  mc_status status = finish_get(&pending);
  if (!status) assert_is(pending.file, content);
  mc_file_release(pending.file);
  return status;
}

/* As a caller who only says that it was listed. */
static mc_status get_said(struct fixture *fixture, const mc_listed *listed, const struct fake_content *content) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  mc_file *file = NULL;
  options.listed = listed;
  mc_status status = mc_get(&file, fixture->cache, URL, &options, NULL);
  if (!status) assert_is(file, content);
  mc_file_release(file);
  return status;
}

static int64_t checked_at(struct fixture *fixture) {
  mc_entry *entry;
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  int64_t when = entry->checked_at;
  mc_entry_free(entry);
  return when;
}

/* How often the upstream had to say what is there. */
static unsigned asked(const struct fake_content *content) {
  return fake_count(&content->opens) - fake_count(&content->opens_listed);
}

static void what_was_listed_is_opened_without_asking(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 3 * CHUNK, 1);
  mc_listed listed = listing_of(content);
  fixture->options.revalidate_after_ms = LATER;
  open_cache(fixture);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK);
  assert_int_equal(asked(content), 0);
  assert_int_equal(content->opens_listed, 1);
  get_once(fixture, URL, content); /* and is known by its ETag then */
  time_passes(LATER);
  get_once(fixture, URL, content);
  assert_int_equal(content->opens_unchanged, 1);
}

static void a_listing_confirms_the_copy(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_listed listed = listing_of(content);
  fixture->options.revalidate_after_ms = LATER;
  open_cache(fixture);
  get_once(fixture, URL, content);
  int64_t before = checked_at(fixture);
  time_passes(LATER);
  fake_reset_counts(content);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK);
  assert_true(checked_at(fixture) >= before + LATER);
  get_once(fixture, URL, content); /* so that others need not ask either */
  assert_int_equal(content->opens, 0);
  assert_int_equal(get_listed(fixture, &listed, MC_GET_REVALIDATE, content), MC_OK);
  assert_int_equal(content->opens, 0);
  assert_int_equal(get_listed(fixture, &listed, MC_GET_REVALIDATE | MC_GET_PIN, content), MC_OK);
  assert_int_equal(content->opens, 0);
  mc_entry *entry;
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  assert_true(entry->pinned);
  mc_entry_free(entry);
}

static void another_version_in_the_listing_is_news(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_change(content, SIZE, 2);
  fake_reset_counts(content);
  mc_listed listed = listing_of(content);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK); /* however young the copy is */
  assert_int_equal(asked(content), 0);
  assert_int_equal(content->opens_listed, 1);
}

static void a_time_alone_confirms_nothing(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  content->validators.last_modified = 1700000000;
  mc_listed listed = listing_of(content);
  listed.validators.etag[0] = 0;
  fixture->options.revalidate_after_ms = LATER;
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK);
  assert_int_equal(content->opens, 1); /* it is young, as without a listing */
  time_passes(LATER);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK);
  assert_int_equal(content->opens, 2);
  assert_int_equal(content->opens_unchanged, 1);
}

static void a_listing_that_is_out_of_date_is_asked_about(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_listed listed = listing_of(content);
  fake_change(content, SIZE + 5, 2);
  open_cache(fixture);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK);
  assert_int_equal(content->opens_listed, 1); /* not a second time by what has failed */
  assert_int_equal(asked(content), 1);
  assert_int_equal(stat_of(fixture, "restarts_total"), 1);
}

static void a_size_that_is_out_of_date_is_found_too(void **state) {
  struct fixture *fixture = *state;
  const uint64_t sizes[] = {0, SIZE - 1, SIZE + 1, 3 * CHUNK};
  open_cache(fixture);
  for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
    struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
    mc_listed listed = listing_of(content);
    listed.size = sizes[i];
    listed.validators.etag[0] = 0;
    mc_status status = get_listed(fixture, &listed, MC_GET_REVALIDATE, content);
    assert_int_equal(status, MC_OK);
    fake_clear();
  }
}

static void what_was_listed_and_is_gone_is_not_found(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_listed listed = listing_of(content);
  content->missing = true;
  open_cache(fixture);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_NOT_FOUND);
  assert_int_equal(try_get(fixture, URL, 0, NULL), MC_NOT_FOUND);
  assert_int_equal(asked(content), 1); /* which is remembered, */
  content->missing = false;
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK); /* but not against a listing */
}

static void what_is_here_under_another_url_is_not_even_opened(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1), *other = fake_add(0, "host/other", SIZE, 1);
  mc_listed listed = listing_of(content);
  listed.has_digest = true;
  listed.digest = content->digest;
  open_cache(fixture);
  get_once(fixture, OTHER_URL, other);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK);
  get_once(fixture, URL, content);
  assert_int_equal(content->opens, 0);
}

static void a_listed_digest_is_checked(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_listed listed = listing_of(content);
  listed.has_digest = true;
  memset(&listed.digest, 7, sizeof(listed.digest));
  open_cache(fixture);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK); /* by asking: it was the listing that was wrong */
  assert_int_equal(asked(content), 1);
}

static void another_upstreams_listing_is_not_this_ones(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *first = fake_add(0, FILE_NAME, SIZE, 1), *second = fake_add(1, FILE_NAME, SIZE, 2);
  mc_listed listed = listing_of(first);
  first->fails = 1000;
  first->fails_with = MC_UNAVAILABLE;
  use_two_upstreams(fixture);
  open_cache(fixture);
  assert_int_equal(get_listed(fixture, &listed, 0, second), MC_OK);
  assert_int_equal(first->opens_listed, 1);
  assert_int_equal(second->opens_listed, 0);
  assert_int_equal(second->opens, 1);
}

static void who_joins_gets_the_same(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  struct pending pending[4];
  mc_listed listed = listing_of(content);
  open_cache(fixture);
  for (unsigned listed_first = 0; listed_first < 2; listed_first++) {
    content->stalls = true;
    for (unsigned i = 0; i < 4; i++) {
      if (i % 2 == listed_first) start_get(&pending[i], fixture, URL, NULL);
      if (i % 2 != listed_first) start_get_listed(&pending[i], fixture, URL, &listed, 0);
      if (i == 0) fake_await(&content->stalled, 1);
    }
    fake_release(content);
    for (unsigned i = 0; i < 4; i++) {
      assert_int_equal(finish_get(&pending[i]), MC_OK);
      assert_is(pending[i].file, content);
      mc_file_release(pending[i].file);
    }
    assert_int_equal(content->bytes, content->size);
    assert_int_equal(mc_evict(&(uint64_t){0}, fixture->cache, URL, NULL), MC_OK);
    fake_reset_counts(content);
    uint64_t used;
    while (read(content->gate, &used, sizeof(used)) > 0) continue;
  }
}

/* What is read by a listing's word is as old as that. */
static void a_listing_dates_what_comes_of_it(void **state) {
  struct fixture *fixture = *state;
  static const char *const slow_ones[] = {"host/slow", "host/slower"};
  for (int known = 0; known < 2; known++) { /* by its digest, under another URL */
    struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1), *slow = fake_add(0, slow_ones[known], SIZE, 2);
    struct fake_content *other = fake_add(0, "host/other", SIZE, 1);
    struct pending first, listed_one;
    mc_listed listed = listing_of(content);
    listed.has_digest = known;
    listed.digest = content->digest;
    slow->stalls = true;
    fixture->options.flights = 1;
    fixture->options.revalidate_after_ms = LATER;
    open_cache(fixture);
    if (known) get_once(fixture, OTHER_URL, other);
    start_get(&first, fixture, known ? "fake://host/slower" : "fake://host/slow", NULL);
    fake_await(&slow->stalled, 1);
    start_get_listed(&listed_one, fixture, URL, &listed, 0);
    time_passes(LATER); /* until there is a flight for it */
    fake_release(slow);
    assert_int_equal(finish_get(&first), MC_OK);
    assert_int_equal(finish_get(&listed_one), MC_OK);
    assert_int_equal(asked(content), 0);
    mc_file_release(first.file);
    mc_file_release(listed_one.file);
    get_once(fixture, URL, content);
    assert_int_equal(content->opens_unchanged, 1);
    assert_int_equal(mc_evict(&(uint64_t){0}, fixture->cache, URL, NULL), MC_OK);
    close_cache(fixture);
    fake_clear();
  }
}

static void a_listing_of_before_takes_nothing_newer_away(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_listed listed = listing_of(content);
  fake_change(content, SIZE, 2);
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_reset_counts(content);
  time_passes(-LATER);
  assert_int_equal(get_listed(fixture, &listed, 0, content), MC_OK);
  time_passes(LATER);
  assert_int_equal(content->opens_listed, 0);
  assert_int_equal(content->opens_unchanged, 1);
}

static void who_wants_it_checked_does_not_join_what_was_listed(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  struct pending listed_one, other;
  mc_get_options revalidate = MC_GET_OPTIONS_INIT;
  mc_listed listed = listing_of(content);
  revalidate.flags = MC_GET_REVALIDATE;
  content->stalls = true;
  open_cache(fixture);
  start_get_listed(&listed_one, fixture, URL, &listed, 0);
  fake_await(&content->stalled, 1);
  start_get(&other, fixture, URL, &revalidate);
  fake_release(content);
  assert_int_equal(finish_get(&listed_one), MC_OK);
  assert_int_equal(finish_get(&other), MC_OK);
  assert_int_equal(asked(content), 1);
  assert_int_equal(content->opens_unchanged, 1);
  mc_file_release(listed_one.file);
  mc_file_release(other.file);
}

/* Whoever wants it checked now is not served by a listing of before. */
static void who_joins_without_a_listing_has_it_asked(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1), *slow = fake_add(0, "host/other", SIZE, 2);
  struct pending first, listed_one, other;
  mc_get_options revalidate = MC_GET_OPTIONS_INIT;
  mc_listed listed = listing_of(content);
  revalidate.flags = MC_GET_REVALIDATE;
  slow->stalls = true;
  fixture->options.flights = 1;
  open_cache(fixture);
  get_once(fixture, URL, content);
  fake_change(content, SIZE, 3);
  start_get(&first, fixture, OTHER_URL, NULL);
  fake_await(&slow->stalled, 1);
  start_get_listed(&listed_one, fixture, URL, &listed, MC_GET_REVALIDATE);
  start_get(&other, fixture, URL, &revalidate);
  fake_release(slow);
  assert_int_equal(finish_get(&first), MC_OK);
  assert_int_equal(finish_get(&listed_one), MC_OK);
  assert_int_equal(finish_get(&other), MC_OK);
  assert_is(other.file, content);
  mc_file_release(first.file);
  mc_file_release(listed_one.file);
  mc_file_release(other.file);
  assert_int_equal(asked(content), 2);
}

static void what_a_caller_says_is_good_for_him_alone(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1);
  mc_listed listed = listing_of(content);
  fixture->options.revalidate_after_ms = LATER;
  open_cache(fixture);
  assert_int_equal(get_said(fixture, &listed, content), MC_OK);
  assert_int_equal(content->opens_listed, 0); /* nothing is opened by his word */
  int64_t before = checked_at(fixture);
  time_passes(LATER);
  assert_int_equal(get_said(fixture, &listed, content), MC_OK);
  assert_int_equal(content->opens, 1);
  assert_true(checked_at(fixture) == before);
  get_once(fixture, URL, content); /* nothing is confirmed by it */
  assert_int_equal(content->opens_unchanged, 1);
  listed.validators.etag[1]++;
  assert_int_equal(get_said(fixture, &listed, content), MC_OK); /* he knows of a newer one: it is asked for */
  assert_int_equal(content->opens_unchanged, 2);
}

static void what_a_caller_says_takes_nothing_else_for_it(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, SIZE, 1), *other = fake_add(0, "host/other", SIZE, 2);
  mc_listed listed = listing_of(content);
  open_cache(fixture);
  get_once(fixture, OTHER_URL, other);
  listed.has_digest = true;
  listed.digest = other->digest;
  assert_int_equal(get_said(fixture, &listed, content), MC_OK);
  get_once(fixture, URL, content);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(what_was_listed_is_opened_without_asking),
      TEST(a_listing_confirms_the_copy),
      TEST(another_version_in_the_listing_is_news),
      TEST(a_time_alone_confirms_nothing),
      TEST(a_listing_that_is_out_of_date_is_asked_about),
      TEST(a_size_that_is_out_of_date_is_found_too),
      TEST(what_was_listed_and_is_gone_is_not_found),
      TEST(what_is_here_under_another_url_is_not_even_opened),
      TEST(a_listed_digest_is_checked),
      TEST(another_upstreams_listing_is_not_this_ones),
      TEST(who_joins_gets_the_same),
      TEST(a_listing_dates_what_comes_of_it),
      TEST(a_listing_of_before_takes_nothing_newer_away),
      TEST(who_wants_it_checked_does_not_join_what_was_listed),
      TEST(who_joins_without_a_listing_has_it_asked),
      TEST(what_a_caller_says_is_good_for_him_alone),
      TEST(what_a_caller_says_takes_nothing_else_for_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
