/* The contract of mc_coordination_ops, as suites that are run against every coordination: entries, claims and waiting.
 *
 * Where other processes can take part, every test has two members of one coordination; else both are the same. URLs,
 * and so keys, are new in each test: a coordination may remember. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordination_world.h"
#ifdef HAVE_REDIS
#include "redis_servers.h"
#endif

extern const mc_coordination_ops local_coordination_ops, redis_coordination_ops;

/* ---- the vtable ---- */

static void the_ops_are_there(void **state) {
  struct world *world = *state;
  const mc_coordination_ops *ops = world->ops;
  assert_int_equal(ops->abi, MC_COORDINATION_ABI);
  assert_true(ops->name && *ops->name && ops->open && ops->close);
  assert_true(ops->lookup && ops->claim && ops->renew && ops->publish && ops->abandon && ops->wait);
  assert_true(ops->forget && ops->list);
}

static void configurations_that_cannot_be_are_refused(void **state) {
  struct world *world = *state;
  char longest[64], too_long[65];
  mc_coordination *none = NULL;
  memset(longest, 'm', sizeof(longest));
  memset(too_long, 'm', sizeof(too_long));
  longest[63] = too_long[64] = 0;
  assert_int_equal(try_open(&none, world, NULL, NULL, LONG_MS, 0), MC_INVALID_ARGUMENT);
  assert_int_equal(try_open(&none, world, NULL, "", LONG_MS, 0), MC_INVALID_ARGUMENT);
  assert_int_equal(try_open(&none, world, NULL, too_long, LONG_MS, 0), MC_INVALID_ARGUMENT);
  assert_int_equal(try_open(&none, world, NULL, "m", 0, 0), MC_INVALID_ARGUMENT);
  assert_int_equal(try_open(&none, world, NULL, "m", -1, 0), MC_INVALID_ARGUMENT);
  assert_null(none);
  char key[KEY_SIZE];
  assert_int_equal(try_open(&none, world, NULL, longest, LONG_MS, 0), MC_OK);
  mc_claim held = claim(none, key_of(key, world, "x"));
  assert_string_equal(held.owner, longest);
  world->ops->abandon(none, key, held.token);
  world->ops->close(none);
}

static void keys_that_are_none_are_refused(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  static const char *const bad[] = {"", "aa", "00000000000000000000000000000000000000000000000000000000000000AA",
                                    "00000000000000000000000000000000000000000000000000000000000000aaa",
                                    "0000000000000000000000000000000000000000000000000000000000000\r\na"};
  mc_call call = patient();
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    mc_entry entry = entry_of("https://origin/x", 1), *found = NULL;
    mc_claim held;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(world->ops->claim(world->a, bad[i], &held, &err), MC_INVALID_ARGUMENT);
    assert_true(err.status == MC_INVALID_ARGUMENT && err.message[0] && err.origin[0]);
    assert_int_equal(world->ops->publish(world->a, bad[i], 0, &entry, NULL), MC_INVALID_ARGUMENT);
    assert_int_equal(world->ops->lookup(world->a, bad[i], &found, NULL), MC_INVALID_ARGUMENT);
    assert_int_equal(world->ops->renew(world->a, bad[i], 1, NULL, NULL), MC_INVALID_ARGUMENT);
    assert_int_equal(world->ops->wait(world->a, bad[i], 1, NULL, NULL, &call, NULL), MC_INVALID_ARGUMENT);
    assert_int_equal(world->ops->forget(world->a, bad[i], NULL), MC_INVALID_ARGUMENT);
    world->ops->abandon(world->a, bad[i], 1);
    assert_null(found);
  }
}

/* ---- entries ---- */

static void an_entry_comes_back_as_a_copy(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char url[URL_SIZE], key[KEY_SIZE];
  mc_entry *entry = NULL;
  mc_error err = MC_ERROR_INIT;
  key_of(key, world, "x");
  assert_int_equal(world->ops->lookup(world->a, key, &entry, &err), MC_NOT_FOUND);
  assert_int_equal(err.status, MC_NOT_FOUND);
  assert_int_equal(publish(world->a, world, "x", 0, 5), MC_OK);
  assert_int_equal(world->ops->lookup(world->b, key, &entry, NULL), MC_OK);
  assert_int_equal(publish(world->b, world, "x", 0, 6), MC_OK);
  assert_int_equal(known_size(world->a, world, "x"), 6);
  assert_int_equal(world->ops->forget(world->a, key, NULL), MC_OK);
  assert_int_equal(known_size(world->b, world, "x"), 0);
  assert_int_equal(world->ops->forget(world->a, key, NULL), MC_OK);
  assert_true(entry_is(entry, url_of(url, world, "x"), 5)); /* the first one, still */
  assert_int_equal(entry->struct_size, sizeof(*entry));
  free(entry);
}

struct listing {
  const struct world *world;
  unsigned count, stop_after, times[10];
  bool wrong;
};

/* Entries here have names "0" … "9", and their number plus one, or that and 100, as sizes. */
static bool see(void *user, const mc_entry *entry) {
  struct listing *listing = user;
  char url[URL_SIZE];
  unsigned number = (unsigned)(strrchr(entry->url, '/')[1] - '0') % 10;
  url_of(url, listing->world, (char[]){(char)('0' + number), 0});
  if (!entry_is(entry, url, number + 1) && !entry_is(entry, url, number + 101)) listing->wrong = true;
  listing->times[number]++;
  return ++listing->count != listing->stop_after;
}

static void list_finds_by_prefix(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char url[URL_SIZE], key[KEY_SIZE];
  for (unsigned i = 0; i < 10; i++) {
    assert_int_equal(publish(world->a, world, (char[]){(char)('0' + i), 0}, 0, i + 1), MC_OK);
  }
  claim(world->a, key_of(key, world, "claimed")); /* is no entry */
  struct listing all = {.world = world}, some = {.world = world, .stop_after = 3}, one = {.world = world},
                 none = {.world = world};
  assert_int_equal(world->ops->list(world->b, url_of(url, world, ""), NULL, see, &all, NULL), MC_OK);
  assert_int_equal(all.count, 10);
  for (int i = 0; i < 10; i++) assert_int_equal(all.times[i], 1);
  assert_int_equal(world->ops->list(world->b, url_of(url, world, ""), NULL, see, &some, NULL), MC_OK);
  assert_int_equal(some.count, 3);
  assert_int_equal(world->ops->list(world->b, url_of(url, world, "4"), NULL, see, &one, NULL), MC_OK);
  assert_true(one.count == 1 && one.times[4] == 1);
  assert_int_equal(world->ops->list(world->b, url_of(url, world, "44"), NULL, see, &none, NULL), MC_OK);
  assert_int_equal(world->ops->list(world->b, "*", NULL, see, &none, NULL), MC_OK); /* no pattern */
  assert_int_equal(none.count, 0);
  assert_false(all.wrong || some.wrong || one.wrong);
}

struct publisher {
  struct world *world;
  atomic_bool stop;
  mc_status status;
};

/* Replace the first five again and again; add and remove the last. */
static void *publisher_main(void *arg) {
  struct publisher *publisher = arg;
  struct world *world = publisher->world;
  char key[KEY_SIZE];
  for (unsigned i = 0; !publisher->stop && !publisher->status; i++) {
    unsigned number = i % 5;
    publisher->status = publish(world->a, world, (char[]){(char)('0' + number), 0}, 0, number + (i % 2 ? 1 : 101));
    if (!publisher->status) publisher->status = publish(world->a, world, "9", 0, 10);
    if (!publisher->status) publisher->status = world->ops->forget(world->a, key_of(key, world, "9"), NULL);
  }
  return NULL;
}

static void list_is_whole_while_others_publish(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  struct publisher publisher = {.world = world};
  pthread_t thread;
  char url[URL_SIZE];
  url_of(url, world, "");
  for (unsigned i = 0; i < 9; i++) publish(world->a, world, (char[]){(char)('0' + i), 0}, 0, i + 1);
  assert_int_equal(pthread_create(&thread, NULL, publisher_main, &publisher), 0);
  bool good = true;
  for (int round = 0; round < 200 && good; round++) {
    struct listing listing = {.world = world};
    good =
        world->ops->list(world->b, url, NULL, see, &listing, NULL) == MC_OK && !listing.wrong && listing.times[9] <= 1;
    for (int i = 0; i < 9; i++) good = good && listing.times[i] == 1;
  }
  publisher.stop = true;
  pthread_join(thread, NULL);
  assert_true(good);
  assert_int_equal(publisher.status, MC_OK);
}

static void entries_have_a_maximum(void **state) {
  struct world *world = *state;
  if (world->ops->flags & MC_COORDINATION_SHARED) return; /* that is the server's business */
  open_members(world, LONG_MS, 4);
  char url[URL_SIZE], claimed[KEY_SIZE];
  mc_claim held = claim(world->a, key_of(claimed, world, "claimed"));
  assert_int_equal(publish(world->a, world, "0", 0, 1), MC_OK);
  for (unsigned i = 1; i < 10; i++) {
    assert_int_equal(publish(world->a, world, (char[]){(char)('0' + i), 0}, 0, i + 1), MC_OK);
    assert_int_equal(known_size(world->a, world, "0"), 1); /* is used, and so stays */
  }
  struct listing all = {.world = world};
  assert_int_equal(world->ops->list(world->a, url_of(url, world, ""), NULL, see, &all, NULL), MC_OK);
  assert_int_equal(all.count, 3); /* and the one that is claimed */
  assert_true(all.times[0] && all.times[8] && all.times[9]);
  mc_claim again = claim(world->a, claimed);
  assert_false(again.granted);
  assert_int_equal(again.token, held.token);
}

static void an_overdue_claim_outlasts_a_full_table(void **state) {
  struct world *world = *state;
  if (world->ops->flags & MC_COORDINATION_SHARED) return;
  open_members(world, 1, 4);
  char key[KEY_SIZE];
  mc_claim held = claim(world->a, key_of(key, world, "claimed"));
  usleep(5000);
  for (unsigned i = 0; i < 10; i++) {
    assert_int_equal(publish(world->a, world, (char[]){(char)('0' + i), 0}, 0, i + 1), MC_OK);
  }
  assert_int_equal(world->ops->renew(world->a, key, held.token, NULL, NULL), MC_OK);
  world->ops->abandon(world->a, key, held.token);
}

/* ---- claims ---- */

static void a_claim_is_one_members(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char key[KEY_SIZE], other[KEY_SIZE];
  mc_claim first = claim(world->a, key_of(key, world, "x"));
  assert_true(first.granted);
  assert_string_equal(first.owner, "member-a");
  for (int i = 0; i < 3; i++) {
    mc_claim second = claim(i % 2 ? world->a : world->b, key);
    assert_false(second.granted);
    assert_int_equal(second.token, first.token);
    assert_string_equal(second.owner, "member-a");
  }
  mc_claim elsewhere = claim(world->b, key_of(other, world, "y")); /* keys have nothing to do with each other */
  assert_true(elsewhere.granted);
  assert_int_equal(world->ops->renew(world->a, key, first.token, NULL, NULL), MC_OK);
  assert_int_equal(publish(world->a, world, "x", first.token, 3), MC_OK);
  assert_int_equal(known_size(world->b, world, "x"), 3);
  mc_claim next = claim(world->b, key); /* publishing gave it back */
  assert_true(next.granted && next.token > first.token);
  world->ops->abandon(world->b, key, next.token);
  mc_claim last = claim(world->a, key);
  assert_true(last.granted && last.token > next.token);
  assert_int_equal(known_size(world->b, world, "x"), 3); /* a claim hides no entry */
}

static void what_is_claimed_is_left_alone(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char key[KEY_SIZE];
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(publish(world->a, world, "x", 0, 3), MC_OK);
  mc_claim held = claim(world->a, key_of(key, world, "x"));
  assert_int_equal(publish(world->b, world, "x", 0, 4), MC_BUSY);
  assert_int_equal(publish(world->b, world, "x", held.token + 1, 4), MC_BUSY);
  assert_int_equal(world->ops->forget(world->b, key, &err), MC_BUSY);
  assert_true(err.status == MC_BUSY && err.message[0]);
  world->ops->abandon(world->b, key, held.token + 1);
  world->ops->abandon(world->b, key, 0);
  assert_int_equal(world->ops->renew(world->b, key, held.token + 1, NULL, NULL), MC_BUSY);
  assert_int_equal(world->ops->renew(world->b, key, 0, NULL, NULL), MC_BUSY);
  assert_false(claim(world->b, key).granted);
  assert_int_equal(known_size(world->b, world, "x"), 3);
  assert_int_equal(publish(world->a, world, "x", held.token, 5), MC_OK);
  assert_int_equal(publish(world->a, world, "x", held.token, 6), MC_BUSY); /* it was given back */
  assert_int_equal(world->ops->renew(world->a, key, held.token, NULL, NULL), MC_BUSY);
  assert_int_equal(known_size(world->b, world, "x"), 5);
  assert_int_equal(publish(world->b, world, "x", 0, 7), MC_OK);
  assert_int_equal(world->ops->forget(world->b, key, NULL), MC_OK);
}

static void a_stale_token_does_nothing(void **state) {
  struct world *world = *state;
  open_members(world, SHORT_MS, 0);
  char key[KEY_SIZE];
  mc_claim stale = claim(world->a, key_of(key, world, "x"));
  assert_int_equal(wait_for(world->b, key, stale.token), MC_OK); /* until the lease has run out */
  mc_claim now = claim(world->b, key);
  assert_true(now.granted && now.token > stale.token);
  assert_int_equal(world->ops->renew(world->a, key, stale.token, NULL, NULL), MC_BUSY);
  assert_int_equal(publish(world->a, world, "x", stale.token, 3), MC_BUSY);
  assert_int_equal(known_size(world->a, world, "x"), 0);
  world->ops->abandon(world->a, key, stale.token);
  assert_int_equal(world->ops->renew(world->b, key, now.token, NULL, NULL), MC_OK);
  assert_int_equal(publish(world->b, world, "x", now.token, 4), MC_OK);
  assert_int_equal(known_size(world->a, world, "x"), 4);
}

static void an_overdue_claim_nobody_took_is_still_ones_own(void **state) {
  struct world *world = *state;
  open_members(world, SHORT_MS, 0);
  char key[KEY_SIZE];
  mc_claim held = claim(world->a, key_of(key, world, "x"));
  assert_int_equal(wait_for(world->b, key, held.token), MC_OK);
  assert_int_equal(world->ops->renew(world->a, key, held.token, NULL, NULL), MC_OK);
  assert_false(claim(world->b, key).granted);
  assert_int_equal(wait_for(world->b, key, held.token), MC_OK);
  assert_int_equal(publish(world->a, world, "x", held.token, 3), MC_OK);
  held = claim(world->a, key);
  assert_int_equal(wait_for(world->b, key, held.token), MC_OK);
  assert_int_equal(publish(world->b, world, "x", 0, 4), MC_OK); /* it stands in nobody's way */
  assert_int_equal(publish(world->a, world, "x", held.token, 5), MC_BUSY);
  held = claim(world->a, key);
  assert_int_equal(wait_for(world->b, key, held.token), MC_OK);
  assert_int_equal(world->ops->forget(world->b, key, NULL), MC_OK);
  assert_int_equal(publish(world->a, world, "x", held.token, 6), MC_BUSY);
  assert_int_equal(known_size(world->a, world, "x"), 0);
}

/* ---- waiting ---- */

static void what_ends_a_claim_wakes_all(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char key[KEY_SIZE];
  key_of(key, world, "x");
  for (int round = 0; round < 10; round++) {
    struct waiter waiters[THREADS] = {0};
    mc_claim held = claim(world->a, key);
    assert_true(held.granted);
    for (int i = 0; i < THREADS; i++) {
      waiters[i] = (struct waiter){i % 2 ? world->a : world->b, key, held.token, patient(), MC_OK, false, 0};
      waiter_start(&waiters[i]);
    }
    pass(world->a, key, held.token, 1 + round % 3); /* most of them are waiting by now */
    for (int i = 0; i < THREADS; i++) assert_false(waiters[i].returned);
    if (round % 2) {
      assert_int_equal(publish(world->a, world, "x", held.token, 3), MC_OK);
    } else {
      world->ops->abandon(world->a, key, held.token);
    }
    for (int i = 0; i < THREADS; i++) assert_int_equal(waiter_end(&waiters[i]), MC_OK);
  }
}

static void the_end_of_a_lease_wakes(void **state) {
  struct world *world = *state;
  open_members(world, SHORT_MS, 0);
  char key[KEY_SIZE];
  int64_t begin = clock_ns();
  mc_claim held = claim(world->a, key_of(key, world, "x"));
  mc_call for_ever = {.deadline = INT64_MAX};
  assert_int_equal(world->ops->wait(world->b, key, held.token, NULL, NULL, &for_ever, NULL), MC_OK);
  assert_true(clock_ns() - begin >= SHORT_MS * NS_PER_MS);
  assert_true(claim(world->b, key).granted);
}

static void a_renewed_claim_is_waited_for_longer(void **state) {
  struct world *world = *state;
  open_members(world, 1500, 0);
  char key[KEY_SIZE];
  mc_claim held = claim(world->a, key_of(key, world, "x"));
  struct waiter waiter = {world->b, key, held.token, patient(), MC_OK, false, 0};
  waiter_start(&waiter);
  for (int i = 0; i < 10; i++) { /* more than a lease in all */
    pass(world->a, key, held.token, 200);
    assert_int_equal(world->ops->renew(world->a, key, held.token, NULL, NULL), MC_OK);
    assert_false(waiter.returned);
  }
  assert_int_equal(publish(world->a, world, "x", held.token, 3), MC_OK);
  assert_int_equal(waiter_end(&waiter), MC_OK);
}

/* The news came between the look and the wait: it must not be waited for. */
static void news_before_a_wait_is_not_lost(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char key[KEY_SIZE];
  key_of(key, world, "x");
  for (int how = 0; how < 4; how++) {
    mc_claim held = claim(world->a, key), refused = claim(world->b, key);
    assert_false(refused.granted);
    if (how % 2) {
      publish(world->a, world, "x", held.token, 3);
    } else {
      world->ops->abandon(world->a, key, held.token);
    }
    mc_claim next = {0};
    if (how / 2) next = claim(world->a, key); /* a claim that is not the one that was asked for */
    assert_int_equal(wait_for(world->b, key, refused.token), MC_OK);
    if (how / 2) world->ops->abandon(world->a, key, next.token);
  }
  assert_int_equal(wait_for(world->b, key_of(key, world, "unknown"), 1), MC_OK);
}

static void a_wait_ends_with_its_call(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char key[KEY_SIZE];
  mc_claim held = claim(world->a, key_of(key, world, "x"));
  mc_cancel *cancel;
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
  int64_t begin = clock_ns();
  mc_call soon = {.deadline = deadline_in_ms(30), .cancel = cancel}, past = {.deadline = begin};
  assert_int_equal(world->ops->wait(world->b, key, held.token, NULL, NULL, &past, &err), MC_DEADLINE_EXCEEDED);
  assert_int_equal(err.status, MC_DEADLINE_EXCEEDED);
  assert_int_equal(world->ops->wait(world->b, key, held.token, NULL, NULL, &soon, &err), MC_DEADLINE_EXCEEDED);
  assert_true(clock_ns() - begin >= 30 * NS_PER_MS);
  struct waiter waiters[THREADS];
  for (int i = 0; i < THREADS; i++) {
    waiters[i] = (struct waiter){world->b, key, held.token, {INT64_MAX, cancel}, MC_OK, false, 0};
    waiter_start(&waiters[i]);
  }
  pass(world->b, key, held.token, 5);
  mc_cancel_trigger(cancel);
  for (int i = 0; i < THREADS; i++) assert_int_equal(waiter_end(&waiters[i]), MC_CANCELLED);
  mc_call cancelled = {.deadline = INT64_MAX, .cancel = cancel};
  assert_int_equal(world->ops->wait(world->b, key, held.token, NULL, NULL, &cancelled, &err), MC_CANCELLED);
  assert_int_equal(err.status, MC_CANCELLED);
  assert_false(claim(world->b, key).granted); /* none of which has touched the claim */
  mc_cancel_free(cancel);
}

/* ---- all at once ---- */

struct team {
  struct world *world;
  atomic_int next, wrong, published;
  pthread_barrier_t barrier;
  unsigned guarded[3]; /* only whoever has the claim of that name may touch it: ThreadSanitizer sees it, too */
  unsigned grants[3];
};

static void team_run(struct team *team, void *(*main)(void *arg)) {
  pthread_t ids[THREADS];
  pthread_barrier_init(&team->barrier, NULL, THREADS);
  for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&ids[i], NULL, main, team), 0);
  for (int i = 0; i < THREADS; i++) pthread_join(ids[i], NULL);
  pthread_barrier_destroy(&team->barrier);
  assert_int_equal(team->wrong, 0);
}

/* Whether there is an entry. */
static bool is_known(mc_coordination *member, const char *key) {
  mc_entry *entry = NULL;
  bool known = member->ops->lookup(member, key, &entry, NULL) == MC_OK;
  free(entry);
  return known;
}

/* What an engine does for a URL that all want at once. */
static void *get_once(void *arg) {
  struct team *team = arg;
  struct world *world = team->world;
  mc_coordination *member = team->next++ % 2 ? world->a : world->b;
  char key[KEY_SIZE];
  key_of(key, world, "x");
  pthread_barrier_wait(&team->barrier);
  while (!is_known(member, key)) {
    mc_claim mine;
    if (world->ops->claim(member, key, &mine, NULL)) team->wrong++;
    if (mine.granted && is_known(member, key)) {
      world->ops->abandon(member, key, mine.token); /* it came between the look and the claim */
    } else if (mine.granted) {
      team->published++;
      if (publish(member, world, "x", mine.token, 3)) team->wrong++;
    } else if (wait_for(member, key, mine.token)) {
      team->wrong++;
      break;
    }
  }
  return NULL;
}

static void a_herd_downloads_once(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  for (int round = 0; round < 50; round++) {
    struct team team = {.world = world};
    char key[KEY_SIZE];
    team_run(&team, get_once);
    assert_int_equal(team.published, 1);
    assert_int_equal(world->ops->forget(world->a, key_of(key, world, "x"), NULL), MC_OK);
  }
}

static bool see_any(void *user, const mc_entry *entry) {
  (void)user;
  return entry->url[0] != 0;
}

/* All ops on three keys, with claims that are held, given back and waited for. */
static void *hammer(void *arg) {
  struct team *team = arg;
  struct world *world = team->world;
  int me = team->next++;
  mc_coordination *member = me % 2 ? world->a : world->b;
  pthread_barrier_wait(&team->barrier);
  for (int i = 0; i < 300; i++) {
    int which = (i + me) % 3;
    const char *name = (const char *[]){"x", "y", "z"}[which];
    char key[KEY_SIZE], url[URL_SIZE];
    key_of(key, world, name);
    mc_claim mine = {0};
    if (world->ops->claim(member, key, &mine, NULL)) team->wrong++;
    if (mine.granted) {
      if (++team->guarded[which] != 1) team->wrong++;
      team->grants[which]++;
      if (world->ops->renew(member, key, mine.token, NULL, NULL)) team->wrong++;
      team->guarded[which]--;
      if (i % 3) {
        if (publish(member, world, name, mine.token, 1 + (uint64_t)(i % 200))) team->wrong++;
      } else {
        world->ops->abandon(member, key, mine.token);
      }
    } else if (wait_for(member, key, mine.token)) {
      team->wrong++;
    }
    is_known(member, key);
    if (i % 7 == 0) world->ops->forget(member, key, NULL);
    if (i % 5 == 0 && world->ops->list(member, url_of(url, world, ""), NULL, see_any, NULL, NULL)) team->wrong++;
  }
  return NULL;
}

static void all_ops_at_once(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  struct team team = {.world = world};
  team_run(&team, hammer);
  for (int i = 0; i < 3; i++) assert_true(team.guarded[i] == 0 && team.grants[i] > 0);
}

/* The same with leases that run out all the time, and too few entries: nothing hangs, and tokens only grow. */
static void *expire(void *arg) {
  struct team *team = arg;
  struct world *world = team->world;
  mc_coordination *member = team->next++ % 2 ? world->a : world->b;
  uint64_t last = 0;
  char key[KEY_SIZE];
  key_of(key, world, "x");
  pthread_barrier_wait(&team->barrier);
  for (int i = 0; i < 30; i++) {
    mc_claim mine = {0};
    if (world->ops->claim(member, key, &mine, NULL)) team->wrong++;
    if (mine.token < last) team->wrong++;
    last = mine.token;
    publish(member, world, (const char *[]){"1", "2", "3", "4"}[i % 4], 0, 1);
    if (wait_for(member, key, mine.token)) team->wrong++; /* its own, too: nobody gives it back */
  }
  return NULL;
}

static void leases_run_out_under_all(void **state) {
  struct world *world = *state;
  open_members(world, 2, 3);
  struct team team = {.world = world};
  team_run(&team, expire);
}

/* ---- running ---- */

static int run(const struct place *place) {
  struct world world = {.place = place, .ops = place->ops};
#define TEST(name) cmocka_unit_test_prestate_setup_teardown(name, world_set_up, world_tear_down, &world)
  const struct CMUnitTest tests[] = {
      TEST(the_ops_are_there),
      TEST(configurations_that_cannot_be_are_refused),
      TEST(keys_that_are_none_are_refused),
      TEST(an_entry_comes_back_as_a_copy),
      TEST(list_finds_by_prefix),
      TEST(list_is_whole_while_others_publish),
      TEST(entries_have_a_maximum),
      TEST(an_overdue_claim_outlasts_a_full_table),
      TEST(a_claim_is_one_members),
      TEST(what_is_claimed_is_left_alone),
      TEST(a_stale_token_does_nothing),
      TEST(an_overdue_claim_nobody_took_is_still_ones_own),
      TEST(what_ends_a_claim_wakes_all),
      TEST(the_end_of_a_lease_wakes),
      TEST(a_renewed_claim_is_waited_for_longer),
      TEST(news_before_a_wait_is_not_lost),
      TEST(a_wait_ends_with_its_call),
      TEST(a_herd_downloads_once),
      TEST(all_ops_at_once),
      TEST(leases_run_out_under_all),
  };
  return cmocka_run_group_tests_name(place->name, tests, NULL, NULL);
}

int main(void) {
  const struct place local = {"local", &local_coordination_ops, NULL, -1};
  int failed = run(&local) + run_news(&local);
#ifdef HAVE_REDIS
  static const char *const names[REDIS_PLACES] = {"redis", "redis, a user", "redis, a socket", "redis, by Sentinel",
                                                  "redis, by TLS"};
  bool there = redis_servers_start();
  if (!there) print_message("redis-server is missing: tests/setup installs it\n");
  for (int i = 0; i < REDIS_PLACES && there; i++) {
    if (!*redis_url((enum redis_place)i)) continue;
    const struct place place = {names[i], &redis_coordination_ops, redis_url((enum redis_place)i), i};
    failed += run(&place) + run_news(&place) + run_shared(&place) + run_lost(&place);
  }
  redis_servers_stop();
#endif
  return failed ? 1 : 0;
}
