/* What a cache tells of itself: its counters, and its state as a document. */
#include <stdlib.h>
#include <string.h>

#include "base/url.h"
#include "engine/member.h"

#define API          "cache"
#define MOST_FLIGHTS 256

/* ---- counters ---- */

static const mc_stat_row stat_rows[] = {
#define STAT(id, name, unit, gauge, help) {name, unit, help, gauge, 0},
#include "engine/stats.def"
#undef STAT
};

static const struct {
  const char *suffix, *unit, *help;
} tier_rows[] = {{"objects", "", "objects in the tier"},
                 {"bytes", "bytes", "bytes of the objects in the tier"},
                 {"reserved_bytes", "bytes", "bytes set aside for downloads"},
                 {"capacity_bytes", "bytes", "capacity of the tier; 0: no limit of its own"},
                 {"open_objects", "", "objects with readers"}};
static const char *const home_names[] = {"storage_objects", "storage_bytes", "storage_reserved_bytes",
                                         "storage_capacity_bytes", "storage_open_objects"};
static const char *const memory_names[] = {"memory_objects", "memory_bytes", "memory_reserved_bytes",
                                           "memory_capacity_bytes", "memory_open_objects"};

static void gauges(mc_cache *cache, uint64_t *flights, uint64_t *waiting) {
  struct flight *flight;
  pthread_mutex_lock(&cache->lock);
  *flights = 0;
  DL_FOREACH(cache->flight_list, flight) *flights += !flight->ended; /* else it is only read from */
  *waiting = cache->waiting;
  pthread_mutex_unlock(&cache->lock);
}

size_t mc_stats(mc_cache *cache, mc_stat_row *rows, size_t count) {
  mc_stat_row all[STAT_COUNT + 11];
  size_t n = 0;
  uint64_t flights, waiting;
  struct member_state cluster;
  gauges(cache, &flights, &waiting);
  member_state(cache->member, &cluster);
  for (; n < STAT_COUNT; n++) {
    all[n] = stat_rows[n];
    all[n].value = atomic_load_explicit(&cache->stats[n], memory_order_relaxed);
  }
  all[STAT_FLYING].value = flights;
  all[STAT_WAITING].value = waiting;
  all[STAT_MEMBERS].value = cluster.members;
  all[STAT_REACHABLE].value = cluster.reachable;
  for (size_t i = 0; i < cache->tier_count; i++) {
    struct tier_usage usage;
    tier_usage(cache->tiers[i], &usage);
    const uint64_t values[] = {usage.objects, usage.bytes, usage.reserved, usage.capacity, usage.open};
    const char *const *names =
        strcmp(tier_storage(cache->tiers[i])->ops->name, "memory") == 0 ? memory_names : home_names;
    for (size_t k = 0; k < 5; k++)
      all[n++] = (mc_stat_row){names[k], tier_rows[k].unit, tier_rows[k].help, true, values[k]};
  }
  all[n++] = (mc_stat_row){0};
  if (count) memcpy(rows, all, (n < count ? n : count) * sizeof(*rows));
  if (count && count < n) rows[count - 1] = (mc_stat_row){0};
  return n;
}

/* ---- the document ---- */

static json_t *cluster_json(mc_cache *cache) {
  struct member_state state;
  json_t *members = report_members(cache, &state);
  json_t *coordination = json_pack("{sb}", "reachable", state.reachable);
  if (!state.reachable) json_object_set_new(coordination, "since_ms", json_integer(state.lost_at));
  return json_pack("{so so}", "coordination", coordination, "members", members);
}

mc_status mc_status_json(char **json, mc_cache *cache, mc_error *err) {
  mc_upstream *service = cache->client ? cache->upstreams[0] : NULL;
  if (service) {
    mc_call call = {deadline_in_ms(cache->options.stall_timeout_ms), NULL};
    return service->ops->cache->status(service, json, &call, err);
  }
  mc_stat_row rows[STAT_COUNT + 11];
  mc_stats(cache, rows, sizeof(rows) / sizeof(*rows));
  json_t *counters = json_object();
  for (mc_stat_row *row = rows; row->name; row++) {
    json_object_set_new(counters, row->name, json_integer((json_int_t)row->value));
  }
  char coordination[512];
  json_t *document =
      json_pack("{ss ss ss so so so}", "version", mc_version(), "storage", cache->options.storage, "coordination",
                url_printable(coordination, sizeof(coordination), cache->options.coordination), "counters", counters,
                "flights", report_flights(cache, MOST_FLIGHTS), "member", report_member(cache));
  if (cache->member) json_object_set_new(document, "cluster", cluster_json(cache));
  *json = document ? json_dumps(document, JSON_INDENT(2)) : NULL;
  json_decref(document);
  return *json ? MC_OK : mc_error_set(err, MC_NO_MEMORY, API, "no memory for the status");
}
