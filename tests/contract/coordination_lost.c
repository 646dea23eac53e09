/* The contract of mc_coordination_ops, of one that can be lost: killed, stopped, emptied, and found again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordination_world.h"
#include "redis_servers.h"

#define DO(world, ...)                                                                                                 \
  redis_do((enum redis_place)(world)->place->redis, reply, sizeof(reply), (const char *const[]){__VA_ARGS__, NULL})

static enum redis_place redis_of(const struct world *world) {
  return (enum redis_place)world->place->redis;
}

static mc_status look(mc_coordination *member, const char *key, mc_error *err) {
  mc_entry *entry = NULL;
  mc_status status = member->ops->lookup(member, key, &entry, err);
  free(entry);
  return status == MC_NOT_FOUND ? MC_OK : status;
}

/* Lose, and find: whoever listens knows when it is so. */
static void await_lost(mc_coordination *member, const char *key) {
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  while (look(member, key, NULL) != MC_UNAVAILABLE) assert_true(clock_ns() < deadline);
}

static void await_found(mc_coordination *member, const char *key) {
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  for (mc_status status; (status = look(member, key, NULL)) != MC_OK; usleep(10000)) {
    assert_true(status == MC_UNAVAILABLE && clock_ns() < deadline);
  }
}

static void an_empty_one_says_so_until_it_is_filled(void **state) {
  struct world *world = *state;
  char key[KEY_SIZE], reply[64];
  DO(world, "FLUSHDB");
  open_members(world, LONG_MS, 0);
  await_told(&world->told_a, MC_EVENT_EMPTY, 1);
  await_told(&world->told_b, MC_EVENT_EMPTY, 1);
  assert_int_equal(look(world->b, key_of(key, world, "x"), NULL), MC_OK);
  assert_int_equal(world->ops->filled(world->a, NULL), MC_OK);
  world->ops->close(world->b);
  assert_int_equal(try_open(&world->b, world, &world->told_b, "member-b", LONG_MS, 0), MC_OK);
  assert_int_equal(look(world->b, key, NULL), MC_OK);
  assert_int_equal(told(&world->told_b, MC_EVENT_EMPTY), 1); /* by the first look it would have been told */
  assert_int_equal(told(&world->told_b, MC_EVENT_GAP), 0);
  assert_int_equal(world->ops->present(world->a, "{}", NULL), MC_OK);
  DO(world, "FLUSHDB"); /* no connection breaks */
  assert_int_equal(world->ops->present(world->a, "{}", NULL), MC_OK);
  await_told(&world->told_a, MC_EVENT_EMPTY, 2);
}

static void one_that_was_emptied_and_filled_by_another_is_noticed(void **state) {
  struct world *world = *state;
  char reply[64];
  open_members(world, LONG_MS, 0);
  assert_int_equal(world->ops->present(world->b, "{}", NULL), MC_OK);
  assert_int_equal(world->ops->filled(world->a, NULL), MC_OK);
  assert_int_equal(world->ops->present(world->b, "{}", NULL), MC_OK);
  assert_int_equal(world->ops->present(world->b, "{}", NULL), MC_OK);
  unsigned gaps = told(&world->told_b, MC_EVENT_GAP);
  DO(world, "FLUSHDB");
  assert_int_equal(world->ops->present(world->a, "{}", NULL), MC_OK); /* a sees it, and makes good what was lost */
  assert_int_equal(world->ops->filled(world->a, NULL), MC_OK);
  assert_int_equal(world->ops->present(world->b, "{}", NULL), MC_OK);
  await_told(&world->told_b, MC_EVENT_GAP, gaps + 1);
  assert_int_equal(world->ops->present(world->b, "{}", NULL), MC_OK);
}

static void what_was_missed_is_told(void **state) {
  struct world *world = *state;
  char key[KEY_SIZE], reply[64];
  open_members(world, LONG_MS, 0);
  assert_int_equal(publish(world->a, world, "x", 0, 3), MC_OK);
  assert_int_equal(look(world->b, key_of(key, world, "x"), NULL), MC_OK);
  assert_int_equal(world->ops->filled(world->a, NULL), MC_OK);
  DO(world, "CLIENT", "KILL", "TYPE", "pubsub");
  await_told(&world->told_a, MC_EVENT_GAP, 1);
  await_told(&world->told_b, MC_EVENT_GAP, 1);
  await_found(world->a, key);
  await_found(world->b, key);
  assert_int_equal(known_size(world->a, world, "x"), 3);
  DO(world, "CLIENT", "KILL", "TYPE", "normal"); /* those of the ops */
  DO(world, "SCRIPT", "FLUSH");
  await_found(world->a, key);
  assert_int_equal(known_size(world->a, world, "x"), 3);
}

static void one_that_is_killed_comes_back_empty(void **state) {
  struct world *world = *state;
  char key[KEY_SIZE], other[KEY_SIZE];
  open_members(world, LONG_MS, 0);
  key_of(key, world, "x");
  key_of(other, world, "y");
  assert_int_equal(publish(world->a, world, "gone", 0, 3), MC_OK);
  assert_int_equal(world->ops->filled(world->b, NULL), MC_OK);
  mc_claim held = claim(world->a, key), lost = claim(world->a, other);
  struct waiter waiter = {world->b, key, held.token, patient(), MC_OK, false, 0};
  waiter_start(&waiter);
  pass(world->b, key, held.token, 20);
  unsigned empty_a = told(&world->told_a, MC_EVENT_EMPTY), empty_b = told(&world->told_b, MC_EVENT_EMPTY);
  redis_kill(redis_of(world));
  await_lost(world->a, key);
  await_lost(world->b, key);
  mc_error err = MC_ERROR_INIT;
  mc_claim none;
  assert_int_equal(world->ops->claim(world->a, key, &none, &err), MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "can't be reached"));
  assert_null(strstr(err.message, "p@ss"));
  assert_int_equal(publish(world->a, world, "x", held.token, 4), MC_UNAVAILABLE);
  assert_int_equal(world->ops->members(world->a, NULL, NULL, NULL), MC_UNAVAILABLE);
  redis_restart(redis_of(world));
  await_told(&world->told_a, MC_EVENT_EMPTY, empty_a + 1);
  await_told(&world->told_b, MC_EVENT_EMPTY, empty_b + 1);
  await_found(world->a, key);
  await_found(world->b, key);
  assert_int_equal(waiter_end(&waiter), MC_OK); /* it looked again, and the claim was not there */
  assert_int_equal(known_size(world->b, world, "gone"), 0);
  assert_int_equal(world->ops->renew(world->a, key, held.token, NULL, NULL), MC_OK); /* the owner goes on */
  assert_false(claim(world->b, key).granted);
  assert_int_equal(publish(world->a, world, "x", held.token, 5), MC_OK);
  assert_int_equal(known_size(world->b, world, "x"), 5);
  mc_claim next = claim(world->b, other); /* another was quicker */
  assert_true(next.granted && next.token > lost.token);
  assert_int_equal(world->ops->renew(world->a, other, lost.token, NULL, NULL), MC_BUSY);
  assert_int_equal(publish(world->a, world, "y", lost.token, 6), MC_BUSY);
  assert_int_equal(publish(world->b, world, "y", next.token, 7), MC_OK);
}

static void one_that_hangs_costs_one_timeout(void **state) {
  struct world *world = *state;
  char key[KEY_SIZE], other[KEY_SIZE];
  open_members(world, 1000, 0);
  key_of(other, world, "y");
  assert_int_equal(world->ops->filled(world->b, NULL), MC_OK);
  mc_claim held = claim(world->a, key_of(key, world, "x"));
  struct waiter waiter = {world->b, key, held.token, patient(), MC_OK, false, 0};
  waiter_start(&waiter);
  pass(world->b, key, held.token, 20);
  redis_pause(redis_of(world));
  for (int i = 0; i < 1000; i++) { /* each at its own price, that would be a quarter of an hour */
    assert_int_equal(look(i % 2 ? world->a : world->b, other, NULL), MC_UNAVAILABLE);
  }
  assert_int_equal(waiter_end(&waiter), MC_UNAVAILABLE);
  unsigned a = told(&world->told_a, MC_EVENT_GAP), b = told(&world->told_b, MC_EVENT_GAP);
  redis_resume(redis_of(world));
  await_told(&world->told_a, MC_EVENT_GAP, a + 1);
  await_told(&world->told_b, MC_EVENT_GAP, b + 1);
  await_found(world->a, key);
  await_found(world->b, key);
  assert_int_equal(world->ops->renew(world->a, key, held.token, NULL, NULL), MC_OK);
  waiter = (struct waiter){world->b, key, held.token, patient(), MC_OK, false, 0};
  waiter_start(&waiter);
  assert_int_equal(publish(world->a, world, "x", held.token, 3), MC_OK);
  assert_int_equal(waiter_end(&waiter), MC_OK);
  assert_int_equal(known_size(world->b, world, "x"), 3);
}

static void it_need_not_be_there_yet(void **state) {
  struct world *world = *state;
  char key[KEY_SIZE];
  key_of(key, world, "x");
  redis_kill(redis_of(world));
  open_members(world, LONG_MS, 0);
  assert_int_equal(look(world->a, key, NULL), MC_UNAVAILABLE);
  redis_restart(redis_of(world));
  await_told(&world->told_a, MC_EVENT_EMPTY, 1);
  await_told(&world->told_b, MC_EVENT_EMPTY, 1);
  await_found(world->a, key);
  await_found(world->b, key);
  assert_int_equal(publish(world->b, world, "x", 0, 3), MC_OK);
  await_told(&world->told_a, MC_EVENT_ENTRY, 1);
}

static void who_may_not_enter_is_told(void **state) {
  struct world *world = *state;
  struct place wrong = *world->place;
  const struct place *right = world->place;
  char key[KEY_SIZE], url[300];
  if (redis_of(world) != REDIS_USER) return; /* the others have no password */
  snprintf(url, sizeof(url), "redis://pod:hunter2@%s", strchr(right->location, '@') + 1);
  wrong.location = url;
  world->place = &wrong;
  open_members(world, LONG_MS, 0);
  world->place = right;
  for (int i = 0; i < 3; i++) {
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(look(world->a, key_of(key, world, "x"), &err), MC_UNAVAILABLE);
    assert_non_null(strstr(err.message, "password"));
    assert_null(strstr(err.message, "hunter2"));
  }
}

/* A password that was changed is an outage, not a refusal: what is stored is served meanwhile. */
static void who_is_locked_out_later_is_told_that_it_is_lost(void **state) {
  struct world *world = *state;
  char key[KEY_SIZE], reply[64];
  mc_error err = MC_ERROR_INIT;
  if (redis_of(world) != REDIS_USER) return; /* the others have no password */
  open_members(world, LONG_MS, 0);
  assert_int_equal(look(world->a, key_of(key, world, "x"), NULL), MC_OK);
  DO(world, "ACL", "SETUSER", "pod", "resetpass", ">hunter2");
  DO(world, "CLIENT", "KILL", "TYPE", "normal"); /* those of the ops: the listener stays */
  assert_int_equal(look(world->a, key, &err), MC_UNAVAILABLE);
  DO(world, "CLIENT", "KILL", "USER", "pod");
  await_lost(world->a, key);
  assert_int_equal(look(world->a, key, &err), MC_UNAVAILABLE);
  assert_int_equal(err.status, MC_UNAVAILABLE);
  DO(world, "ACL", "SETUSER", "pod", "resetpass", ">p@ss/w:rd");
  await_found(world->a, key);
}

static void a_waiter_asks_for_nothing(void **state) {
  struct world *world = *state;
  char key[KEY_SIZE];
  unsigned all;
  open_members(world, 900, 0); /* three of them: a member says PING after a second, or more */
  mc_claim held = claim(world->a, key_of(key, world, "x"));
  struct waiter waiter = {world->b, key, held.token, patient(), MC_OK, false, 0};
  waiter_start(&waiter);
  pass(world->b, key, held.token, 50);
  assert_int_equal(world->ops->renew(world->a, key, held.token, NULL, NULL), MC_OK);
  redis_monitor_start(redis_of(world));
  for (int i = 0; i < 9; i++) {
    usleep(300000); /* time is what it's about */
    assert_int_equal(world->ops->renew(world->a, key, held.token, NULL, NULL), MC_OK);
  }
  assert_false(waiter.returned);
  assert_int_equal(redis_monitor_count(redis_of(world), "EVALSHA", &all), 9);
  assert_int_equal(all, 9); /* and nothing else */
  assert_int_equal(publish(world->a, world, "x", held.token, 3), MC_OK);
  assert_int_equal(waiter_end(&waiter), MC_OK);
}

int run_lost(const struct place *place) {
  struct world world = {.place = place, .ops = place->ops};
#define TEST(name) cmocka_unit_test_prestate_setup_teardown(name, world_set_up, world_tear_down, &world)
  const struct CMUnitTest tests[] = {
      TEST(an_empty_one_says_so_until_it_is_filled),
      TEST(one_that_was_emptied_and_filled_by_another_is_noticed),
      TEST(what_was_missed_is_told),
      TEST(one_that_is_killed_comes_back_empty),
      TEST(one_that_hangs_costs_one_timeout),
      TEST(it_need_not_be_there_yet),
      TEST(who_may_not_enter_is_told),
      TEST(who_is_locked_out_later_is_told_that_it_is_lost),
      TEST(a_waiter_asks_for_nothing),
  };
  return cmocka_run_group_tests_name(place->name, tests, NULL, NULL);
}
