/* The contract of mc_coordination_ops, of all: what an owner tells those who wait, revisions, and listing in order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordination_world.h"

/* ---- news ---- */

struct listener {
  mc_coordination *member;
  const char *key;
  uint64_t token;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  mc_claim_news last;
  unsigned count;
  mc_status status;
  pthread_t thread;
};

static void hear(void *user, const mc_claim_news *news) {
  struct listener *listener = user;
  pthread_mutex_lock(&listener->lock);
  listener->last = *news;
  listener->count++;
  pthread_cond_broadcast(&listener->changed);
  pthread_mutex_unlock(&listener->lock);
}

static void *listener_main(void *arg) {
  struct listener *listener = arg;
  mc_call call = patient();
  listener->status =
      listener->member->ops->wait(listener->member, listener->key, listener->token, hear, listener, &call, NULL);
  return NULL;
}

static void listener_start(struct listener *listener) {
  pthread_mutex_init(&listener->lock, NULL);
  cond_init(&listener->changed);
  assert_int_equal(pthread_create(&listener->thread, NULL, listener_main, listener), 0);
}

/* Until it has heard that so much has landed. */
static void listener_await(struct listener *listener, uint64_t bytes) {
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  bool in_time = true;
  pthread_mutex_lock(&listener->lock);
  while ((!listener->count || listener->last.bytes != bytes) && in_time) {
    in_time = cond_wait_until(&listener->changed, &listener->lock, deadline);
  }
  pthread_mutex_unlock(&listener->lock);
  assert_true(in_time);
}

static mc_status listener_end(struct listener *listener) {
  pthread_join(listener->thread, NULL);
  pthread_cond_destroy(&listener->changed);
  return listener->status;
}

static mc_claim_news news_of(uint64_t bytes) {
  mc_claim_news news = {.bytes = bytes,
                        .total = MC_SIZE_UNKNOWN,
                        .rate = 7,
                        .validators = {"v1", "W/\"a\"", 1700000000},
                        .endpoint = "tcp://[::1]:7441"};
  memset(news.flight, (int)bytes, sizeof(news.flight));
  return news;
}

static void those_who_wait_hear_how_it_goes(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char key[KEY_SIZE];
  mc_claim held = claim(world->a, key_of(key, world, "x"));
  mc_claim_news first = news_of(1), last = news_of(3);
  assert_int_equal(world->ops->renew(world->a, key, held.token, &first, NULL), MC_OK);
  struct listener early = {.member = world->b, .key = key, .token = held.token}, late = early;
  listener_start(&early);
  listener_await(&early, 1); /* what was told before */
  for (uint64_t bytes = 2; bytes <= 3; bytes++) {
    mc_claim_news news = news_of(bytes);
    assert_int_equal(world->ops->renew(world->a, key, held.token, &news, NULL), MC_OK);
  }
  listener_await(&early, 3);
  listener_start(&late);
  listener_await(&late, 3);
  assert_int_equal(world->ops->renew(world->a, key, held.token, NULL, NULL), MC_OK); /* says nothing new */
  assert_int_equal(publish(world->a, world, "x", held.token, 3), MC_OK);
  assert_int_equal(listener_end(&early), MC_OK);
  assert_int_equal(listener_end(&late), MC_OK);
  assert_memory_equal(&early.last.validators.etag, last.validators.etag, strlen(last.validators.etag) + 1);
  assert_string_equal(early.last.validators.version, "v1");
  assert_string_equal(early.last.endpoint, last.endpoint);
  assert_memory_equal(early.last.flight, last.flight, sizeof(last.flight));
  assert_true(early.last.total == MC_SIZE_UNKNOWN && early.last.rate == 7 &&
              early.last.validators.last_modified == 1700000000);
}

static void news_of_one_claim_are_not_anothers(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char key[KEY_SIZE];
  mc_claim held = claim(world->a, key_of(key, world, "x"));
  mc_claim_news news = news_of(1);
  assert_int_equal(world->ops->renew(world->a, key, held.token, &news, NULL), MC_OK);
  world->ops->abandon(world->a, key, held.token);
  held = claim(world->a, key);
  struct listener listener = {.member = world->b, .key = key, .token = held.token};
  listener_start(&listener);
  pass(world->b, key, held.token, 20);
  assert_int_equal(publish(world->a, world, "x", held.token, 3), MC_OK);
  assert_int_equal(listener_end(&listener), MC_OK);
  assert_int_equal(listener.count, 0);
}

/* ---- revisions ---- */

static mc_status publish_revision(mc_coordination *member, const struct world *world, uint64_t token, uint64_t size,
                                  uint64_t revision) {
  char url[URL_SIZE], key[KEY_SIZE];
  mc_entry entry = entry_of(url_of(url, world, "x"), size);
  entry.revision = revision;
  return member->ops->publish(member, key_of(key, world, "x"), token, &entry, NULL);
}

static void the_newer_entry_stays(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char key[KEY_SIZE];
  key_of(key, world, "x");
  uint64_t revision = (uint64_t)clock_wall_ms() * 1000 + 3600 * 1000000ULL; /* somebody's clock is wrong */
  assert_int_equal(publish_revision(world->a, world, 0, 1, revision), MC_OK);
  assert_int_equal(publish_revision(world->b, world, 0, 2, revision - 1), MC_BUSY);
  assert_int_equal(known_size(world->a, world, "x"), 1);
  assert_int_equal(publish_revision(world->b, world, 0, 3, revision), MC_OK);
  assert_int_equal(publish_revision(world->b, world, 0, 4, revision + 5), MC_OK);
  mc_claim held = claim(world->a, key);
  assert_true(held.granted && held.token > revision + 5);
  assert_int_equal(publish_revision(world->b, world, 0, 5, held.token + 1), MC_BUSY); /* it is claimed */
  assert_int_equal(publish_revision(world->a, world, held.token, 6, held.token), MC_OK);
  mc_entry *entry = NULL;
  assert_int_equal(world->ops->lookup(world->b, key, &entry, NULL), MC_OK);
  assert_true(entry->size == 6 && entry->revision == held.token && entry->holders && !*entry->holders);
  free(entry);
}

/* ---- listing ---- */

struct order {
  const struct world *world;
  char names[8];
  unsigned count, most;
};

static bool in_order(void *user, const mc_entry *entry) {
  struct order *order = user;
  if (order->count < sizeof(order->names) - 1) order->names[order->count] = strrchr(entry->url, '/')[1];
  return ++order->count != order->most;
}

static void list_goes_by_the_bytes_of_urls(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  char url[URL_SIZE], after[URL_SIZE];
  static const char *const names[] = {"b", "~", "a", "Z", "c", "ab"};
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    assert_int_equal(publish(world->a, world, names[i], 0, 1), MC_OK);
  }
  struct order all = {.world = world}, some = all, rest = all, few = {.world = world, .most = 2}, none = all;
  url_of(url, world, "");
  assert_int_equal(world->ops->list(world->b, url, NULL, in_order, &all, NULL), MC_OK);
  assert_string_equal(all.names, "Zaabc~");
  assert_int_equal(world->ops->list(world->b, url, url_of(after, world, "a"), in_order, &rest, NULL), MC_OK);
  assert_string_equal(rest.names, "abc~");
  assert_int_equal(world->ops->list(world->b, url, url_of(after, world, "aa"), in_order, &few, NULL), MC_OK);
  assert_string_equal(few.names, "ab");
  assert_int_equal(world->ops->list(world->b, url_of(url, world, "a"), "https://a", in_order, &some, NULL), MC_OK);
  assert_string_equal(some.names, "aa");
  assert_int_equal(world->ops->list(world->b, url, url_of(after, world, "b"), in_order, &none, NULL), MC_OK);
  assert_int_equal(none.count, 0); /* all that begin with the prefix come before */
}

static bool count_all(void *user, const mc_entry *entry) {
  char *last = user;
  unsigned *count = (unsigned *)(void *)(last + URL_SIZE);
  if (strcmp(entry->url, last) > 0) ++*count; /* each once, in order */
  snprintf(last, URL_SIZE, "%s", entry->url);
  return true;
}

static void list_of_many_is_whole(void **state) {
  struct world *world = *state;
  open_members(world, LONG_MS, 0);
  struct {
    char last[URL_SIZE];
    unsigned count;
  } seen = {"", 0};
  char name[32], url[URL_SIZE];
  for (unsigned i = 0; i < 1300; i++) {
    snprintf(name, sizeof(name), "%u", i);
    assert_int_equal(publish(world->a, world, name, 0, 1), MC_OK);
  }
  assert_int_equal(world->ops->list(world->b, url_of(url, world, ""), NULL, count_all, &seen, NULL), MC_OK);
  assert_int_equal(seen.count, 1300);
}

int run_news(const struct place *place) {
  struct world world = {.place = place, .ops = place->ops};
#define TEST(name) cmocka_unit_test_prestate_setup_teardown(name, world_set_up, world_tear_down, &world)
  const struct CMUnitTest tests[] = {
      TEST(those_who_wait_hear_how_it_goes), TEST(news_of_one_claim_are_not_anothers),
      TEST(the_newer_entry_stays),           TEST(list_goes_by_the_bytes_of_urls),
      TEST(list_of_many_is_whole),
  };
  return cmocka_run_group_tests_name(place->name, tests, NULL, NULL);
}
