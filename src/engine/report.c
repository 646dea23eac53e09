/* What a member tells of itself, as JSON: to the others, and to people. Nothing in it is a secret: URLs are without
 * their users, passwords and queries. */
#include "engine/member.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "base/url.h"

#define MOST_FLIGHTS 32 /* in a document */
#define ID_DIGITS    16 /* of a flight's key: enough to tell them apart */

static const char *const stat_names[] = {
#define STAT(id, name, unit, gauge, help) name,
#include "engine/stats.def"
#undef STAT
};

/* A text of any bytes. */
static json_t *text_json(const char *text) {
  char *clean = strdup(text);
  if (!clean) return NULL;
  text_clean(clean);
  json_t *json = json_string(clean);
  free(clean);
  return json;
}

/* ---- flights ---- */

static json_t *flight_json(struct flight *flight, size_t waiters) {
  static const char *const phases[] = {"queued", "asking", "waiting", "downloading", "verifying"};
  char url[512], reason[REASON_SIZE], endpoint[MC_ENDPOINT_SIZE];
  mc_progress progress;
  flight_progress(flight, &progress, reason, endpoint);
  json_t *json =
      json_pack("{so ss# ss sI sI sI}", "url", text_json(url_printable(url, sizeof(url), flight->url)), "key",
                flight->key, ID_DIGITS, "phase", phases[progress.phase], "bytes", (json_int_t)progress.bytes, "rate",
                (json_int_t)progress.rate, "waiters", (json_int_t)waiters);
  if (progress.total != MC_SIZE_UNKNOWN) json_object_set_new(json, "total", json_integer((json_int_t)progress.total));
  return json;
}

json_t *report_flights(struct mc_cache *cache, size_t most) {
  json_t *list = json_array();
  struct flight *flight, *flights[256];
  size_t waiters[256], count = 0;
  struct mc_request *request;
  if (most > 256) most = 256;
  pthread_mutex_lock(&cache->lock);
  DL_FOREACH(cache->flight_list, flight) {
    if (count == most) break;
    if (!flight->joinable) continue; /* those that can be joined hold a reference of their own */
    DL_COUNT(flight->waiters, request, waiters[count]);
    flights[count++] = flight_acquire(flight);
  }
  pthread_mutex_unlock(&cache->lock);
  for (size_t i = 0; i < count; i++) {
    json_array_append_new(list, flight_json(flights[i], waiters[i]));
    flight_release(flights[i]);
  }
  return list;
}

/* ---- a member ---- */

static json_t *tier_json(struct mc_cache *cache, struct tier *tier, bool memory) {
  struct tier_usage usage;
  enum stat_id hits = memory ? STAT_HITS_MEMORY : STAT_HITS_STORAGE;
  tier_usage(tier, &usage);
  return json_pack("{sI sI sI sI}", "objects", (json_int_t)usage.objects, "bytes", (json_int_t)usage.bytes, "capacity",
                   (json_int_t)usage.capacity, "hits",
                   (json_int_t)atomic_load_explicit(&cache->stats[hits], memory_order_relaxed));
}

static json_t *counters_json(struct mc_cache *cache) {
  static const enum stat_id told[] = {STAT_GETS,           STAT_HITS,         STAT_HITS_MEMORY,
                                      STAT_HITS_MEMBERS,   STAT_HITS_STORAGE, STAT_MISSES,
                                      STAT_DOWNLOAD_BYTES, STAT_SERVED_BYTES, STAT_ERRORS};
  json_t *counters = json_object();
  for (size_t i = 0; i < sizeof(told) / sizeof(*told); i++) {
    uint64_t value = atomic_load_explicit(&cache->stats[told[i]], memory_order_relaxed);
    json_object_set_new(counters, stat_names[told[i]], json_integer((json_int_t)value));
  }
  return counters;
}

json_t *report_member(struct mc_cache *cache) {
  char host[256] = "", data[MC_ENDPOINT_SIZE], control[MC_ENDPOINT_SIZE];
  gethostname(host, sizeof(host) - 1);
  pthread_mutex_lock(&cache->lock);
  strcpy(data, cache->endpoint);
  strcpy(control, cache->control);
  pthread_mutex_unlock(&cache->lock);
  json_t *json = json_pack("{so ss ss sI so so so so so}", "name", text_json(host), "id", cache->id, "version",
                           mc_version(), "started_at", (json_int_t)cache->started_at, "data", text_json(data),
                           "control", text_json(control), "folder", text_json(cache->options.storage), "counters",
                           counters_json(cache), "flights", report_flights(cache, MOST_FLIGHTS));
  for (size_t i = 0; i < cache->tier_count; i++) {
    bool memory = !(tier_storage(cache->tiers[i])->ops->flags & MC_STORAGE_PERSISTENT);
    json_object_set_new(json, memory ? "memory" : "storage", tier_json(cache, cache->tiers[i], memory));
  }
  return json;
}

/* ---- all of them ---- */

/* What another member wrote is shown as it is, if it is an object at all. */
static bool add_member(void *user, const char *id, const char *document, int64_t age_ms) {
  json_t *json = strlen(document) < DOCUMENT_MAX ? json_loads(document, JSON_REJECT_DUPLICATES, NULL) : NULL;
  if (!json_is_object(json)) {
    json_decref(json);
    return true;
  }
  json_object_set_new(json, "id", text_json(id));
  json_object_set_new(json, "age_ms", json_integer(age_ms));
  json_array_append_new(user, json);
  return true;
}

json_t *report_members(struct mc_cache *cache, struct member_state *state) {
  mc_coordination *coordination = cache->coordination;
  json_t *members = json_array();
  member_state(cache->member, state);
  mc_status status = coordination->ops->members(coordination, add_member, members, NULL);
  if (!status && json_array_size(members)) return members;
  if (status && state->reachable) {
    state->reachable = false;
    state->lost_at = clock_wall_ms();
  }
  json_array_clear(members); /* what it knows of itself */
  json_t *own = report_member(cache);
  json_object_set_new(own, "age_ms", json_integer(0));
  json_array_append_new(members, own);
  return members;
}
