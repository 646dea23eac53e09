/* Entries: what is known of a URL, in the coordination and as the record that outlives everything else.
 *
 * A record is written before the object becomes visible, so that a crash between the two leaves a stage that can be
 * resumed and never an object that nothing leads to. */
#include <stdlib.h>
#include <string.h>

#include "engine/ledger.h"
#include "engine/news.h"
#include "engine/refresh.h"

mc_storage *record_storage(const struct mc_cache *cache) {
  mc_storage *storage = cache->home ? tier_storage(cache->home) : NULL;
  return storage && storage->ops->flags & MC_STORAGE_PERSISTENT ? storage : NULL;
}

mc_status entry_record(struct mc_cache *cache, const char *key, const mc_entry *entry, mc_stage *stage, mc_error *err) {
  mc_storage *storage = record_storage(cache);
  if (!storage) return MC_OK;
  if (!entry->has_digest && !entry->history_count && !entry->pinned) {
    storage->ops->record_remove(storage, key, NULL);
    return MC_OK;
  }
  char *text = record_encode(entry);
  if (!text) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a record");
  bool together = stage && stage->storage == storage && storage->ops->stage_record;
  mc_status status = together ? storage->ops->stage_record(stage, key, text, strlen(text), err)
                              : storage->ops->record_put(storage, key, text, strlen(text), err);
  free(text);
  return status;
}

static mc_status load_record(mc_entry **out, mc_storage *storage, const char *key, mc_error *err) {
  void *data;
  size_t size;
  mc_status status = storage->ops->record_get(storage, key, &data, &size, RECORD_MAX, err);
  if (status) return status;
  *out = record_decode(key, data, size);
  free(data);
  return *out ? MC_OK : mc_error_set(err, MC_NOT_FOUND, ORIGIN, "the record of this URL can't be read");
}

bool entry_is_outrun(struct mc_cache *cache, const char *key, const mc_entry *entry) {
  mc_storage *storage = record_storage(cache);
  mc_entry *known;
  if (!coordination_is_shared(cache) || !storage || load_record(&known, storage, key, NULL)) return false;
  bool outrun = known->revision > entry->revision;
  free(known);
  return outrun;
}

bool entry_refer(struct mc_cache *cache, const char *key, const mc_entry *entry) {
  refresh_note(cache, entry);
  return cache->ledger && ledger_set(cache->ledger, key, entry);
}

/* The record's entry is newer than what the coordination knows. Whoever published meanwhile knows better. */
static mc_entry *bring_in(struct mc_cache *cache, const char *key, mc_entry *entry) {
  mc_coordination *coordination = cache->coordination;
  mc_entry *now;
  if (coordination->ops->publish(coordination, key, 0, entry, NULL) == MC_BUSY &&
      coordination->ops->lookup(coordination, key, &now, NULL) == MC_OK) {
    if (now->revision >= entry->revision) {
      free(entry);
      return now;
    }
    free(now);
  }
  entry_refer(cache, key, entry);
  return entry;
}

static mc_status load(mc_entry **out, struct mc_cache *cache, const char *key, bool doubt, mc_error *err) {
  mc_entry *known = NULL, *entry;
  mc_status status = cache->coordination->ops->lookup(cache->coordination, key, &known, err);
  mc_storage *storage = record_storage(cache);
  /* Without coordination what is stored can be served all the same. */
  bool unreachable = status && mc_status_is_retryable(status);
  bool look = status ? status == MC_NOT_FOUND || unreachable : doubt;
  *out = status ? NULL : known;
  if (!look || !storage) return status;
  mc_status found = load_record(&entry, storage, key, status == MC_NOT_FOUND ? err : NULL);
  if (found) return status == MC_NOT_FOUND ? found : status;
  if (!status && entry->revision <= known->revision) {
    free(entry);
    return MC_OK;
  }
  free(status ? NULL : known);
  if (unreachable) entry_refer(cache, key, entry);
  *out = unreachable ? entry : bring_in(cache, key, entry);
  return MC_OK;
}

mc_status entry_load(mc_entry **out, struct mc_cache *cache, const char *key, mc_error *err) {
  return load(out, cache, key, news_in_doubt(cache->news), err);
}

mc_status entry_newest(mc_entry **out, struct mc_cache *cache, const char *key, mc_error *err) {
  return load(out, cache, key, true, err);
}

static bool load_scanned(void *user, const char *key, const void *data, size_t size) {
  struct mc_cache *cache = user;
  mc_entry *entry = record_decode(key, data, size);
  if (entry) {
    cache->coordination->ops->publish(cache->coordination, key, 0, entry, NULL);
    entry_refer(cache, key, entry);
  } else {
    log_warn(cache->logger, ORIGIN, "record %s can't be read, and is ignored", key);
  }
  free(entry);
  return true;
}

mc_status entry_load_all(struct mc_cache *cache, mc_error *err) {
  mc_storage *storage = record_storage(cache);
  return storage ? storage->ops->record_scan(storage, load_scanned, cache, RECORD_MAX, err) : MC_OK;
}

bool entry_is_fresh(const struct mc_cache *cache, const mc_entry *entry) {
  int64_t limit = entry->missing ? cache->options.negative_ttl_ms : route_rule(cache, entry->url).revalidate_after_ms;
  if (limit < 0) return true; /* for ever */
  int64_t age = clock_wall_ms() - entry->checked_at;
  return age >= 0 && age < limit;
}

bool validators_same(const mc_validators *a, uint64_t a_size, const mc_validators *b, uint64_t b_size) {
  if (a_size != b_size && a_size != MC_SIZE_UNKNOWN && b_size != MC_SIZE_UNKNOWN) return false;
  if (a->version[0] && b->version[0]) return strcmp(a->version, b->version) == 0;
  if (a->etag[0] && b->etag[0]) return strcmp(a->etag, b->etag) == 0;
  return a->last_modified && a->last_modified == b->last_modified;
}
