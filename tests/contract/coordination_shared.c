/* The contract of mc_coordination_ops, where other processes take part: members, holders, and what others change. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordination_world.h"

/* ---- members ---- */

struct roll {
  unsigned a, b, others;
  char document[64];
};

static bool call_roll(void *user, const char *member, const char *document, int64_t age_ms) {
  struct roll *roll = user;
  if (strcmp(member, "member-a") == 0) {
    roll->a++;
    snprintf(roll->document, sizeof(roll->document), "%s", document);
  } else if (strcmp(member, "member-b") == 0) {
    roll->b++;
  } else {
    roll->others++;
  }
  assert_true(age_ms >= 0 && age_ms < PATIENCE_MS);
  return true;
}

static struct roll roll_of(const struct world *world) {
  struct roll roll = {0};
  assert_int_equal(world->ops->members(world->b, call_roll, &roll, NULL), MC_OK);
  return roll;
}

static void members_tell_of_themselves(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char *large = malloc((64 << 10) + 2);
  memset(large, ' ', (64 << 10) + 1);
  large[(64 << 10) + 1] = 0;
  assert_int_equal(world->ops->present(world->a, large, NULL), MC_INVALID_ARGUMENT);
  assert_int_equal(world->ops->present(world->a, large + 1, NULL), MC_OK);
  free(large);
  assert_int_equal(world->ops->present(world->a, "{\"at\":1}", NULL), MC_OK);
  assert_int_equal(world->ops->present(world->a, "{\"at\":2}", NULL), MC_OK);
  struct roll roll = roll_of(world);
  assert_true(roll.a == 1 && roll.b == 0 && roll.others == 0);
  assert_string_equal(roll.document, "{\"at\":2}");
  assert_int_equal(world->ops->present(world->b, "{}", NULL), MC_OK);
  roll = roll_of(world);
  assert_true(roll.a == 1 && roll.b == 1);
  assert_int_equal(world->ops->present(world->a, NULL, NULL), MC_OK);
  roll = roll_of(world);
  assert_true(roll.a == 0 && roll.b == 1);
  assert_int_equal(world->ops->present(world->a, "{}", NULL), MC_OK);
  world->ops->close(world->a);
  world->a = NULL;
  roll = roll_of(world);
  assert_true(roll.a == 0 && roll.b == 1);
}

static void a_member_that_is_silent_is_forgotten(void **state) {
  struct world *world = *state;
  open_members(world, 100, 0);
  char key[KEY_SIZE];
  key_of(key, world, "x");
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  assert_int_equal(world->ops->present(world->a, "{}", NULL), MC_OK);
  do { /* as long as one lease is */
    mc_claim held = claim(world->b, key);
    assert_int_equal(wait_for(world->b, key, held.token), MC_OK);
    assert_true(clock_ns() < deadline);
  } while (roll_of(world).a);
}

/* ---- holders ---- */

static const char *holders_of(char text[256], const struct world *world, const char *key) {
  mc_entry *entry = NULL;
  assert_int_equal(world->ops->lookup(world->b, key, &entry, NULL), MC_OK);
  snprintf(text, 256, "%s", entry->holders);
  free(entry);
  return text;
}

static void a_lookup_tells_who_has_it_in_memory(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char key[KEY_SIZE], text[256];
  key_of(key, world, "x");
  mc_entry entry = entry_of("x", 41);
  assert_int_equal(publish(world->a, world, "x", 0, 41), MC_OK);
  mc_digest many[700];
  for (size_t i = 0; i < 700; i++) memset(&many[i], (int)i % 40, sizeof(many[i]));
  many[699] = entry.digest;
  assert_string_equal(holders_of(text, world, key), "");
  assert_int_equal(world->ops->hold(world->a, many, 700, "tcp://a:1", LONG_MS, NULL), MC_OK);
  assert_string_equal(holders_of(text, world, key), "tcp://a:1");
  assert_int_equal(world->ops->hold(world->b, &entry.digest, 1, "tcp://b:1", LONG_MS, NULL), MC_OK);
  assert_int_equal(world->ops->hold(world->b, NULL, 0, "tcp://b:1", LONG_MS, NULL), MC_OK);
  assert_true(strstr(holders_of(text, world, key), "tcp://a:1") && strstr(text, "tcp://b:1") && strlen(text) == 19);
  assert_int_equal(world->ops->hold(world->a, &entry.digest, 1, "tcp://a:1", 0, NULL), MC_OK);
  assert_string_equal(holders_of(text, world, key), "tcp://b:1");
  assert_int_equal(world->ops->hold(world->a, &entry.digest, 1, "tcp://a:1 b", 1, NULL), MC_INVALID_ARGUMENT);
  assert_int_equal(world->ops->hold(world->b, &entry.digest, 1, "tcp://b:1", 0, NULL), MC_OK);
  assert_string_equal(holders_of(text, world, key), "");
}

static void a_holder_that_is_silent_is_forgotten(void **state) {
  struct world *world = *state;
  open_members(world, 50, 0);
  char key[KEY_SIZE], other[KEY_SIZE], text[256];
  key_of(key, world, "x");
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  mc_entry entry = entry_of("x", 42);
  assert_int_equal(publish(world->a, world, "x", 0, 42), MC_OK);
  assert_int_equal(world->ops->hold(world->a, &entry.digest, 1, "tcp://a:1", LONG_MS, NULL), MC_OK);
  assert_int_equal(world->ops->hold(world->b, &entry.digest, 1, "tcp://b:1", 100, NULL), MC_OK);
  do { /* as long as one lease is */
    mc_claim held = claim(world->b, key_of(other, world, "y"));
    assert_int_equal(wait_for(world->b, other, held.token), MC_OK);
    assert_true(clock_ns() < deadline);
  } while (strcmp(holders_of(text, world, key), "tcp://a:1") != 0);
  assert_int_equal(world->ops->hold(world->a, &entry.digest, 1, "tcp://a:1", 0, NULL), MC_OK);
}

/* ---- what others change ---- */

static mc_status publish_state(mc_coordination *member, const struct world *world, bool pinned, bool missing,
                               int64_t checked_at) {
  char url[URL_SIZE], key[KEY_SIZE];
  mc_entry entry = entry_of(url_of(url, world, "x"), 5);
  entry.pinned = pinned;
  entry.missing = missing;
  entry.has_digest = !missing;
  entry.checked_at = checked_at;
  return member->ops->publish(member, key_of(key, world, "x"), 0, &entry, NULL);
}

static void others_changes_are_told(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char url[URL_SIZE], key[KEY_SIZE];
  key_of(key, world, "x");
  assert_int_equal(known_size(world->a, world, "x"), 0); /* a listens by now */
  assert_int_equal(known_size(world->b, world, "x"), 0);
  struct recorder *a = &world->told_a, *b = &world->told_b;
  assert_int_equal(publish_state(world->b, world, false, false, 1), MC_OK);
  await_told(a, MC_EVENT_ENTRY, 1);
  assert_true(!a->before && a->now && entry_is(a->now, url_of(url, world, "x"), 5));
  assert_int_equal(publish_state(world->b, world, false, false, 2), MC_OK); /* only checked */
  assert_int_equal(publish_state(world->b, world, true, false, 2), MC_OK);
  await_told(a, MC_EVENT_ENTRY, 2);
  assert_true(a->before && !a->before->pinned && a->now && a->now->pinned);
  assert_int_equal(publish_state(world->b, world, true, true, 3), MC_OK);
  await_told(a, MC_EVENT_ENTRY, 3);
  assert_true(a->before && !a->before->missing && a->now && a->now->missing);
  assert_int_equal(told(b, MC_EVENT_ENTRY), 0);
  assert_int_equal(world->ops->forget(world->a, key, NULL), MC_OK);
  await_told(b, MC_EVENT_ENTRY, 1);
  assert_true(b->before && !b->now);
  assert_int_equal(told(a, MC_EVENT_ENTRY), 3); /* not what one did oneself */
  mc_claim held = claim(world->a, key);
  assert_int_equal(publish(world->a, world, "x", held.token, 6), MC_OK);
  await_told(b, MC_EVENT_ENTRY, 2);
  assert_true(!b->before && entry_is(b->now, url, 6));
}

int run_shared(const struct place *place) {
  struct world world = {.place = place, .ops = place->ops};
#define TEST(name) cmocka_unit_test_prestate_setup_teardown(name, world_set_up, world_tear_down, &world)
  const struct CMUnitTest tests[] = {
      TEST(members_tell_of_themselves),
      TEST(a_member_that_is_silent_is_forgotten),
      TEST(a_lookup_tells_who_has_it_in_memory),
      TEST(a_holder_that_is_silent_is_forgotten),
      TEST(others_changes_are_told),
  };
  return cmocka_run_group_tests_name(place->name, tests, NULL, NULL);
}
