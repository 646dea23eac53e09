/* A cache as a member of a cluster: what it tells the others, and what it makes of what they tell. */
#include "tests/fakes/engine_fixture.h"

#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine.h"
#include "tests/fakes/fake_hub.h"

#define OWN "tcp://own:1"

static int setup(void **state) {
  fixture_setup(state);
  struct fixture *fixture = *state;
  fixture->options.coordination = "hub";
  fixture->options.coordination_backends = fake_hubs;
  fixture->options.memory_capacity = 64 * MIB;
  fixture->options.lease_ms = 300; /* beats come quickly */
  return 0;
}

static int teardown(void **state) {
  int failed = fixture_teardown(state);
  fake_hub_reset();
  return failed;
}

static void open_advertised(struct fixture *fixture) {
  open_cache(fixture);
  assert_int_equal(mc_advertise(fixture->cache, OWN, "own:2", NULL), MC_OK);
}

/* What others are told of who has it in memory. */
static void holders_of(struct fixture *fixture, const char *url, char holders[256]) {
  char key[KEY_SIZE];
  mc_entry *entry;
  mc_coordination *coordination = fixture->cache->coordination;
  key_of(key, url);
  assert_int_equal(coordination->ops->lookup(coordination, key, &entry, NULL), MC_OK);
  snprintf(holders, 256, "%s", entry->holders ? entry->holders : "");
  free(entry);
}

static void await_holders(struct fixture *fixture, const char *wanted) {
  char holders[256];
  int64_t until = clock_ns() + 60 * NS_PER_S;
  for (*holders = 0, strcpy(holders, "?"); strcmp(holders, wanted) != 0; sched_yield()) {
    assert_true(clock_ns() < until);
    holders_of(fixture, URL, holders);
  }
}

static void await_calls(const char *op, unsigned more) {
  unsigned before = fake_hub_calls(op);
  int64_t until = clock_ns() + 60 * NS_PER_S;
  while (fake_hub_calls(op) < before + more) {
    assert_true(clock_ns() < until);
    sched_yield();
  }
}

static void bring_into_memory(struct fixture *fixture, const struct fake_content *content) {
  uint64_t before = stat_of(fixture, "promotions_total");
  get_once(fixture, URL, content);
  get_once(fixture, URL, content);
  await_stat(fixture, "promotions_total", before + 1);
}

static json_t *status_of(struct fixture *fixture) {
  char *text;
  assert_int_equal(mc_status_json(&text, fixture->cache, NULL), MC_OK);
  json_t *status = json_loads(text, 0, NULL);
  assert_non_null(status);
  mc_free(text);
  return status;
}

static json_t *await_members(struct fixture *fixture, size_t count) {
  int64_t until = clock_ns() + 60 * NS_PER_S;
  for (;; sched_yield()) {
    json_t *status = status_of(fixture);
    json_t *members = json_object_get(json_object_get(status, "cluster"), "members");
    assert_true(clock_ns() < until);
    bool all = json_array_size(members) == count;
    for (size_t i = 0; i < count && all; i++) all = json_object_get(json_array_get(members, i), "data") != NULL;
    if (all) return status;
    json_decref(status);
  }
}

/* ---- holders ---- */

static void what_is_in_memory_is_told(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK + 1, 1);
  open_advertised(fixture);
  bring_into_memory(fixture, content);
  await_holders(fixture, OWN);
  assert_int_equal(mc_advertise(fixture->cache, "tcp://moved:1", NULL, NULL), MC_OK);
  await_holders(fixture, "tcp://moved:1");
  assert_int_equal(mc_advertise(fixture->cache, NULL, NULL, NULL), MC_OK);
  await_holders(fixture, "");
}

static void nobody_is_told_where_nothing_can_be_read(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_cache(fixture);
  bring_into_memory(fixture, content);
  await_calls("present", 2);
  assert_int_equal(fake_hub_calls("hold"), 0);
}

static void what_has_left_memory_is_withdrawn(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  fixture->options.memory_ttl_ms = 1000;
  fixture->options.lease_ms = 60000; /* it does not run out */
  open_advertised(fixture);
  bring_into_memory(fixture, content);
  await_holders(fixture, OWN);
  time_passes(2000);
  tier_sweep(fixture->cache->tiers[0]);
  await_holders(fixture, "");
  bring_into_memory(fixture, content);
  await_holders(fixture, OWN);
  close_cache(fixture);
  fixture->options.memory_capacity = 0;
  open_cache(fixture);
  char holders[256];
  holders_of(fixture, URL, holders);
  assert_string_equal(holders, "");
}

static void a_coordination_that_comes_back_empty_is_told_again(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_advertised(fixture);
  bring_into_memory(fixture, content);
  await_holders(fixture, OWN);
  fake_hub_lose();
  await_calls("present", 2);
  fake_hub_find(true);
  get_once(fixture, URL, content);
  await_holders(fixture, OWN);
}

static void many_objects_are_told_with_each_beat(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *contents[40];
  char name[64], url[64];
  open_advertised(fixture);
  for (int i = 0; i < 40; i++) {
    snprintf(name, sizeof(name), "host/%d", i);
    snprintf(url, sizeof(url), "fake://host/%d", i);
    contents[i] = fake_add(0, name, 1000, (uint32_t)i + 1);
    get_once(fixture, url, contents[i]);
    get_once(fixture, url, contents[i]);
    await_stat(fixture, "promotions_total", (uint64_t)i + 1);
  }
  await_calls("present", 2); /* all of them again by then */
  for (int i = 0; i < 40; i++) {
    char holders[256];
    snprintf(url, sizeof(url), "fake://host/%d", i);
    holders_of(fixture, url, holders);
    assert_string_equal(holders, OWN);
  }
}

/* ---- endpoints ---- */

static void hold_elsewhere(struct fixture *fixture, const struct fake_content *content, const char *endpoint) {
  mc_coordination *coordination = fixture->cache->coordination;
  assert_int_equal(coordination->ops->hold(coordination, &content->digest, 1, endpoint, 60000, NULL), MC_OK);
}

static void a_file_without_holders_is_read_here(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  const char *endpoints[8];
  open_advertised(fixture);
  mc_file *file = get(fixture, URL, content);
  assert_int_equal(mc_file_endpoints(file, endpoints, 8), 1);
  assert_string_equal(endpoints[0], OWN);
  assert_int_equal(mc_file_spread(file), 0);
  mc_file_release(file);
}

static void holders_come_before_a_storage(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  const char *endpoints[8];
  char name[64];
  fixture->options.memory_capacity = 0;
  open_advertised(fixture);
  get_once(fixture, URL, content);
  hold_elsewhere(fixture, content, "tcp://a:1");
  hold_elsewhere(fixture, content, "tcp://b:1");
  mc_file *file = get(fixture, URL, content);
  unsigned first[2] = {0};
  for (int i = 0; i < 1000; i++) {
    assert_int_equal(mc_file_endpoints(file, endpoints, 8), 3);
    first[strcmp(endpoints[0], "tcp://a:1") != 0]++;
    assert_string_not_equal(endpoints[0], endpoints[1]);
    assert_string_equal(endpoints[2], OWN);
  }
  assert_true(first[0] > 300 && first[1] > 300);
  assert_int_equal(mc_file_spread(file), 2);
  assert_int_equal(mc_file_endpoints(file, endpoints, 2), 2);
  assert_string_equal(endpoints[1], OWN);
  assert_int_equal(mc_file_endpoints(file, endpoints, 0), 0);
  mc_file_release(file);
  assert_int_equal(stat_of(fixture, "hits_members_total"), 1);
  for (int i = 0; i < 20; i++) {
    snprintf(name, sizeof(name), "tcp://pod%d:1", i);
    hold_elsewhere(fixture, content, name);
  }
  file = get(fixture, URL, content);
  assert_int_equal(mc_file_endpoints(file, endpoints, 8), 8);
  assert_string_equal(endpoints[7], OWN);
  assert_int_equal(mc_file_spread(file), 7);
  mc_file_release(file);
}

static void readers_are_spread_over_all_holders(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  const char *endpoints[8];
  open_advertised(fixture);
  bring_into_memory(fixture, content);
  await_holders(fixture, OWN);
  hold_elsewhere(fixture, content, "tcp://a:1");
  hold_elsewhere(fixture, content, "tcp://b:1");
  mc_file *file = get(fixture, URL, content);
  unsigned own = 0;
  for (int i = 0; i < 3000; i++) {
    assert_int_equal(mc_file_endpoints(file, endpoints, 8), 3);
    own += strcmp(endpoints[0], OWN) == 0;
  }
  assert_true(own > 700 && own < 1300);
  assert_int_equal(mc_file_spread(file), 3);
  mc_file_release(file);
  assert_int_equal(stat_of(fixture, "hits_memory_total"), 1);
}

static void hits_are_counted_where_they_come_from(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  open_cache(fixture);
  bring_into_memory(fixture, content);
  get_once(fixture, URL, content);
  assert_int_equal(stat_of(fixture, "misses_total"), 1);
  assert_int_equal(stat_of(fixture, "hits_storage_total"), 1);
  assert_int_equal(stat_of(fixture, "hits_memory_total"), 1);
  assert_int_equal(stat_of(fixture, "hits_total"), 2);
}

/* ---- members ---- */

static void a_status_shows_all_members(void **state) {
  struct fixture *fixture = *state;
  mc_cache *other;
  open_advertised(fixture);
  assert_int_equal(mc_open_options(&other, &fixture->options, NULL), MC_OK);
  json_t *status = await_members(fixture, 2);
  json_t *cluster = json_object_get(status, "cluster");
  assert_true(json_is_true(json_object_get(json_object_get(cluster, "coordination"), "reachable")));
  bool found = false;
  json_t *member;
  size_t i;
  json_array_foreach(json_object_get(cluster, "members"), i, member) {
    assert_true(json_is_integer(json_object_get(member, "age_ms")));
    assert_true(json_is_string(json_object_get(member, "id")));
    assert_true(json_is_object(json_object_get(member, "memory")) &&
                json_is_object(json_object_get(member, "storage")));
    if (strcmp(json_string_value(json_object_get(member, "data")), OWN) == 0) found = true;
  }
  assert_true(found);
  json_decref(status);
  await_stat(fixture, "cluster_members", 2);
  mc_close(other);
  json_decref(await_members(fixture, 1));
}

static void a_flight_is_seen_by_the_others(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, CHUNK, 1);
  struct pending one, two;
  mc_cache *other;
  content->stalls = true;
  open_advertised(fixture);
  assert_int_equal(mc_open_options(&other, &fixture->options, NULL), MC_OK);
  start_get(&one, fixture, "fake://host/file?key=secret", NULL);
  start_get(&two, fixture, URL, NULL);
  fake_await(&content->stalled, 1);
  bool seen = false;
  mc_cache *own = fixture->cache;
  for (fixture->cache = other; !seen; sched_yield()) {
    json_t *status = status_of(fixture);
    json_t *member, *flight;
    size_t i, k;
    json_array_foreach(json_object_get(json_object_get(status, "cluster"), "members"), i, member) {
      json_array_foreach(json_object_get(member, "flights"), k, flight) {
        seen |= strcmp(json_string_value(json_object_get(flight, "url")), URL) == 0 &&
                json_integer_value(json_object_get(flight, "waiters")) == 1;
      }
    }
    char *text = json_dumps(status, 0);
    assert_null(strstr(text, "secret"));
    free(text);
    json_decref(status);
  }
  fixture->cache = own;
  fake_release(content);
  assert_int_equal(finish_get(&two), MC_OK);
  mc_file_release(two.file);
  finish_get(&one);
  mc_file_release(one.file);
  mc_close(other);
}

static void a_lost_coordination_shows(void **state) {
  struct fixture *fixture = *state;
  open_advertised(fixture);
  json_decref(await_members(fixture, 1));
  fake_hub_lose();
  int64_t until = clock_ns() + 60 * NS_PER_S;
  while (stat_of(fixture, "coordination_reachable")) {
    assert_true(clock_ns() < until);
    sched_yield();
  }
  json_t *status = status_of(fixture);
  json_t *cluster = json_object_get(status, "cluster"), *said = json_object_get(cluster, "coordination");
  assert_true(json_is_false(json_object_get(said, "reachable")));
  assert_true(json_integer_value(json_object_get(said, "since_ms")) > 0);
  assert_int_equal(json_array_size(json_object_get(cluster, "members")), 1); /* what it knows of itself */
  json_decref(status);
  fake_hub_find(false);
  await_stat(fixture, "coordination_reachable", 1);
  json_decref(await_members(fixture, 1));
}

static void alone_it_tells_nobody(void **state) {
  struct fixture *fixture = *state;
  fixture->options.coordination = "local";
  open_advertised(fixture);
  json_t *status = status_of(fixture);
  assert_null(json_object_get(status, "cluster"));
  assert_true(json_is_object(json_object_get(status, "member")));
  assert_int_equal(stat_of(fixture, "cluster_members"), 1);
  assert_int_equal(stat_of(fixture, "coordination_reachable"), 1);
  json_decref(status);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
      TEST(what_is_in_memory_is_told),
      TEST(nobody_is_told_where_nothing_can_be_read),
      TEST(what_has_left_memory_is_withdrawn),
      TEST(a_coordination_that_comes_back_empty_is_told_again),
      TEST(many_objects_are_told_with_each_beat),
      TEST(a_file_without_holders_is_read_here),
      TEST(holders_come_before_a_storage),
      TEST(readers_are_spread_over_all_holders),
      TEST(hits_are_counted_where_they_come_from),
      TEST(a_status_shows_all_members),
      TEST(a_flight_is_seen_by_the_others),
      TEST(a_lost_coordination_shows),
      TEST(alone_it_tells_nobody),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
