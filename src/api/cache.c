/* Looking into a cache and managing it. */
#include <stdlib.h>
#include <string.h>

#include "base/url.h"
#include "engine/engine.h"
#include "engine/ledger.h"
#include "engine/member.h"

#define API "cache"

const char *mc_version(void) {
  return "0.1.0";
}

void mc_free(void *memory) {
  free(memory);
}

void mc_entry_free(mc_entry *entry) {
  free(entry);
}

/* The service of a client, or NULL. */
static mc_upstream *service_of(mc_cache *cache) {
  return cache->client ? cache->upstreams[0] : NULL;
}

/* ---- stat, list ---- */

static mc_status stat_upstream(mc_entry **out, mc_cache *cache, const char *url, int64_t timeout_ms, mc_error *err) {
  mc_upstream *upstreams[MAX_UPSTREAMS];
  size_t count;
  mc_call call = {deadline_in_ms(timeout_ms), NULL};
  mc_info info = {.size = MC_SIZE_UNKNOWN};
  mc_status status = route(upstreams, &count, cache, url, err);
  for (size_t i = 0; i < count && !status; i++) {
    status = upstreams[i]->ops->stat(upstreams[i], url, &info, &call, err);
    if (!status) break;
    if (i + 1 < count && route_goes_on(upstreams[i], status)) status = MC_OK;
  }
  if (status) return status;
  mc_entry *entry = entry_new(url, NULL);
  if (!entry) return mc_error_set(err, MC_NO_MEMORY, API, "no memory for an entry");
  entry->size = info.size;
  entry->validators = info.validators;
  entry->has_digest = info.has_digest;
  entry->digest = info.digest;
  entry->checked_at = clock_wall_ms();
  *out = entry;
  return MC_OK;
}

mc_status mc_stat(mc_entry **out, mc_cache *cache, const char *url, uint32_t flags, int64_t timeout_ms, mc_error *err) {
  char *normal, key[KEY_SIZE];
  mc_status status = url_normalise(&normal, url, err);
  if (status) return status;
  key_of_url(key, normal);
  if (flags & MC_GET_CACHED) {
    status = entry_load(out, cache, key, err);
    if (status == MC_NOT_FOUND) mc_error_set(err, status, API, "it is not in the cache");
  } else {
    status = stat_upstream(out, cache, normal, timeout_ms, err);
    mc_entry *known;
    if (!status && entry_load(&known, cache, key, NULL) == MC_OK) {
      (*out)->fetched_at = known->fetched_at;
      (*out)->pinned = known->pinned;
      if (!(*out)->has_digest && known->has_digest &&
          validators_same(&known->validators, known->size, &(*out)->validators, (*out)->size)) {
        (*out)->has_digest = true;
        (*out)->digest = known->digest;
      }
      free(known);
    }
  }
  free(normal);
  return status;
}

struct visit {
  bool (*visit)(void *user, const mc_entry *entry);
  void *user;
};

static bool visit_present(void *user, const mc_entry *entry) {
  struct visit *to = user;
  return entry->missing || to->visit(to->user, entry);
}

mc_status mc_list(mc_cache *cache, const char *prefix, const char *after,
                  bool (*visit)(void *user, const mc_entry *entry), void *user, int64_t timeout_ms, mc_error *err) {
  mc_upstream *service = service_of(cache);
  struct visit present = {visit, user};
  if (service) {
    mc_call call = {deadline_in_ms(timeout_ms), NULL};
    return service->ops->cache->entries(service, prefix, after, visit, user, &call, err);
  }
  return cache->coordination->ops->list(cache->coordination, prefix, after, visit_present, &present, err);
}

mc_status mc_list_upstream(mc_cache *cache, const char *url, bool (*visit)(void *user, const mc_listed *listed),
                           void *user, int64_t timeout_ms, mc_error *err) {
  char *folder;
  mc_call call = {deadline_in_ms(timeout_ms), NULL};
  mc_status status = url_of_folder(&folder, url, err);
  if (status) return status;
  status = route_list(NULL, cache, folder, visit, user, &call, err);
  free(folder);
  return status;
}

/* ---- prefetch, evict ---- */

mc_status mc_prefetch(mc_cache *cache, const char *url, bool pin, mc_error *err) {
  mc_upstream *service = service_of(cache);
  char *normal, key[KEY_SIZE];
  mc_status status = url_normalise(&normal, url, err);
  if (status) return status;
  if (service) {
    mc_call call = {deadline_in_ms(cache->options.stall_timeout_ms), NULL};
    status = service->ops->cache->prefetch(service, normal, pin, &call, err);
  } else {
    mc_upstream *upstreams[MAX_UPSTREAMS];
    size_t count;
    key_of_url(key, normal);
    status = route(upstreams, &count, cache, normal, err);
    if (!status) status = flight_join(cache, normal, key, NULL, pin ? MC_GET_PIN : 0, err);
  }
  free(normal);
  return status;
}

/* Forget the entry and its record, so that neither comes back by the other. */
static mc_status forget(mc_cache *cache, const char *key, const mc_entry *entry, mc_error *err) {
  mc_coordination *coordination = cache->coordination;
  mc_storage *storage = record_storage(cache);
  mc_entry *again;
  mc_status status = coordination->ops->forget(coordination, key, err);
  if (!status && storage) status = storage->ops->record_remove(storage, key, err);
  if (status) return status;
  if (cache->ledger) ledger_forget(cache->ledger, key, entry->revision);
  /* Another member may have found the record between the two, or got the URL anew. */
  if (!cache->news || coordination->ops->lookup(coordination, key, &again, NULL)) return MC_OK;
  if (again->revision <= entry->revision) {
    status = coordination->ops->forget(coordination, key, err);
  } else {
    entry_refer(cache, key, again);
    status = entry_record(cache, key, again, NULL, err);
  }
  free(again);
  return status;
}

static mc_status evict_here(uint64_t *evicted, mc_cache *cache, const char *key, mc_error *err) {
  mc_entry *entry;
  mc_status status = entry_load(&entry, cache, key, err);
  if (status) return status;
  status = forget(cache, key, entry, err);
  if (!status && entry->has_digest && cache->home) {
    bool needed = tier_is_referred(cache->home, &entry->digest);
    /* The home tier first: what is copied from it meanwhile sees that it has gone. */
    for (size_t i = cache->tier_count; i-- > 0 && !needed && !status;) {
      uint64_t bytes;
      status = tier_remove(cache->tiers[i], &entry->digest, &bytes, err);
      *evicted += bytes;
    }
  }
  if (!status) member_kick(cache->member);
  if (!status && !entry->missing) {
    entry->missing = true;
    entry->has_digest = false;
    entry_announce(cache, entry);
  }
  free(entry);
  return status;
}

mc_status mc_evict(uint64_t *evicted, mc_cache *cache, const char *url, mc_error *err) {
  mc_upstream *service = service_of(cache);
  uint64_t bytes = 0, there = 0;
  char *normal, key[KEY_SIZE];
  mc_status status = url_normalise(&normal, url, err);
  if (status) return status;
  key_of_url(key, normal);
  status = evict_here(&bytes, cache, key, err);
  if (status == MC_NOT_FOUND) mc_error_set(err, status, API, "it is not in the cache");
  if (cache->news && status == MC_UNAVAILABLE) {
    char why[sizeof(err->message)] = "";
    if (err) memcpy(why, err->message, sizeof(why));
    mc_error_set(err, status, API, "nothing can be evicted while the coordination is out of reach: %s", why);
  }
  if (status == MC_BUSY) mc_error_set(err, status, API, "it is being downloaded or checked now; try again");
  if (service && (status == MC_OK || status == MC_NOT_FOUND)) {
    mc_call call = {deadline_in_ms(cache->options.stall_timeout_ms), NULL};
    mc_status remote = service->ops->cache->evict(service, normal, &there, &call, err);
    status = remote == MC_NOT_FOUND ? status : remote; /* gone from one of them is gone */
  }
  free(normal);
  if (evicted) *evicted = bytes + there;
  return status;
}
