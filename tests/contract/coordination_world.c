#include "coordination_world.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/record.h"

/* ---- events ---- */

void record_event(void *user, const mc_coordination_event *event) {
  struct recorder *recorder = user;
  if (!recorder) return;
  pthread_mutex_lock(&recorder->lock);
  recorder->counts[event->kind]++;
  if (event->kind == MC_EVENT_ENTRY) {
    free(recorder->before);
    free(recorder->now);
    recorder->before = event->before ? entry_copy(event->before) : NULL;
    recorder->now = event->now ? entry_copy(event->now) : NULL;
  }
  pthread_cond_broadcast(&recorder->changed);
  pthread_mutex_unlock(&recorder->lock);
}

unsigned told(struct recorder *recorder, mc_coordination_event_kind kind) {
  pthread_mutex_lock(&recorder->lock);
  unsigned count = recorder->counts[kind];
  pthread_mutex_unlock(&recorder->lock);
  return count;
}

void await_told(struct recorder *recorder, mc_coordination_event_kind kind, unsigned count) {
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  bool in_time = true;
  pthread_mutex_lock(&recorder->lock);
  while (recorder->counts[kind] < count && in_time) {
    in_time = cond_wait_until(&recorder->changed, &recorder->lock, deadline);
  }
  pthread_mutex_unlock(&recorder->lock);
  assert_true(in_time);
}

static void recorder_begin(struct recorder *recorder) {
  *recorder = (struct recorder){.lock = PTHREAD_MUTEX_INITIALIZER};
  cond_init(&recorder->changed);
}

static void recorder_end(struct recorder *recorder) {
  free(recorder->before);
  free(recorder->now);
  pthread_cond_destroy(&recorder->changed);
}

static unsigned open_files(void) {
  unsigned count = 0;
  DIR *folder = opendir("/proc/self/fd");
  assert_non_null(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

mc_status try_open(mc_coordination **out, const struct world *world, struct recorder *recorder, const char *member,
                   int64_t lease_ms, uint64_t max_entries) {
  mc_coordination_config config = {.struct_size = sizeof(config),
                                   .location = world->place->location,
                                   .member_id = member,
                                   .lease_ms = lease_ms,
                                   .max_entries = max_entries,
                                   .event = record_event,
                                   .user = recorder};
  return world->ops->open(out, &config, NULL);
}

void open_members(struct world *world, int64_t lease_ms, uint64_t max_entries) {
  assert_int_equal(try_open(&world->a, world, &world->told_a, "member-a", lease_ms, max_entries), MC_OK);
  world->b = world->a;
  if (!(world->ops->flags & MC_COORDINATION_SHARED)) return;
  assert_int_equal(try_open(&world->b, world, &world->told_b, "member-b", lease_ms, max_entries), MC_OK);
}

int world_set_up(void **state) {
  static unsigned serial; /* of all suites: they may share a server */
  struct world *world = *state;
  world->files = open_files();
  world->serial = ++serial;
  recorder_begin(&world->told_a);
  recorder_begin(&world->told_b);
  return 0;
}

int world_tear_down(void **state) {
  struct world *world = *state;
  if (world->b && world->b != world->a) world->ops->close(world->b);
  if (world->a) world->ops->close(world->a);
  world->a = world->b = NULL;
  recorder_end(&world->told_a);
  recorder_end(&world->told_b);
  assert_int_equal(open_files(), world->files);
  return 0;
}

/* ---- URLs, entries, calls ---- */

const char *url_of(char url[URL_SIZE], const struct world *world, const char *name) {
  snprintf(url, URL_SIZE, "https://origin/%d/%u/%s", (int)getpid(), world->serial, name);
  return url;
}

const char *key_of(char key[KEY_SIZE], const struct world *world, const char *name) {
  char url[URL_SIZE];
  key_of_url(key, url_of(url, world, name));
  return key;
}

mc_entry entry_of(const char *url, uint64_t size) {
  mc_entry entry = {.struct_size = sizeof(entry), .url = url, .size = size, .has_digest = true, .fetched_at = 7};
  snprintf(entry.validators.etag, sizeof(entry.validators.etag), "\"%llu\"", (unsigned long long)size);
  memset(entry.digest.bytes, (int)size, sizeof(entry.digest.bytes));
  return entry;
}

bool entry_is(const mc_entry *entry, const char *url, uint64_t size) {
  mc_entry expected = entry_of(url, size);
  return strcmp(entry->url, url) == 0 && entry->size == size && entry->has_digest && entry->fetched_at == 7 &&
         strcmp(entry->validators.etag, expected.validators.etag) == 0 &&
         mc_digest_equal(&entry->digest, &expected.digest);
}

mc_status publish(mc_coordination *member, const struct world *world, const char *name, uint64_t token, uint64_t size) {
  char url[URL_SIZE], key[KEY_SIZE];
  mc_entry entry = entry_of(url_of(url, world, name), size);
  return member->ops->publish(member, key_of(key, world, name), token, &entry, NULL);
}

uint64_t known_size(mc_coordination *member, const struct world *world, const char *name) {
  char url[URL_SIZE], key[KEY_SIZE];
  mc_entry *entry = NULL;
  mc_status status = member->ops->lookup(member, key_of(key, world, name), &entry, NULL);
  if (status == MC_NOT_FOUND) return 0;
  assert_int_equal(status, MC_OK);
  uint64_t size = entry->size;
  assert_true(entry_is(entry, url_of(url, world, name), size));
  free(entry);
  return size;
}

mc_claim claim(mc_coordination *member, const char *key) {
  mc_claim claim;
  memset(&claim, 0x55, sizeof(claim));
  assert_int_equal(member->ops->claim(member, key, &claim, NULL), MC_OK);
  assert_true(claim.token != 0);
  assert_true(memchr(claim.owner, 0, sizeof(claim.owner)) && *claim.owner);
  return claim;
}

mc_call patient(void) {
  return (mc_call){.deadline = deadline_in_ms(PATIENCE_MS)};
}

mc_status wait_for(mc_coordination *member, const char *key, uint64_t token) {
  mc_call call = patient();
  return member->ops->wait(member, key, token, NULL, NULL, &call, NULL);
}

/* ---- a thread that waits ---- */

static void *waiter_main(void *arg) {
  struct waiter *waiter = arg;
  waiter->status =
      waiter->member->ops->wait(waiter->member, waiter->key, waiter->token, NULL, NULL, &waiter->call, NULL);
  waiter->returned = true;
  return NULL;
}

void waiter_start(struct waiter *waiter) {
  assert_int_equal(pthread_create(&waiter->thread, NULL, waiter_main, waiter), 0);
}

mc_status waiter_end(struct waiter *waiter) {
  pthread_join(waiter->thread, NULL);
  return waiter->status;
}

void pass(mc_coordination *member, const char *key, uint64_t token, int64_t ms) {
  mc_call call = {.deadline = deadline_in_ms(ms)};
  assert_int_equal(member->ops->wait(member, key, token, NULL, NULL, &call, NULL), MC_DEADLINE_EXCEEDED);
}
