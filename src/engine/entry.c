/* Entries: what is known of a URL, in memory and as the record that outlives everything else.
 *
 * A record is a JSON object: url, size, digest, etag, version, last_modified, fetched_at, checked_at, pinned. It is
 * written before the object becomes visible, so that a crash between the two leaves a stage that can be resumed and
 * never an object that nothing leads to. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "engine/engine.h"

#define RECORD_MAX ((size_t)64 << 10)

mc_entry *entry_new(const char *url) {
  size_t length = strlen(url) + 1;
  mc_entry *entry = calloc(1, sizeof(*entry) + length);
  if (!entry) return NULL;
  entry->struct_size = sizeof(*entry);
  entry->url = memcpy((char *)(entry + 1), url, length);
  entry->size = MC_SIZE_UNKNOWN;
  return entry;
}

mc_entry *entry_copy(const mc_entry *entry) {
  mc_entry *copy = entry_new(entry->url);
  if (!copy) return NULL;
  const char *url = copy->url;
  *copy = *entry;
  copy->url = url;
  return copy;
}

static bool copy_text(char *to, size_t size, const char *from) {
  if (!from) from = "";
  if (strlen(from) >= size) return false;
  strcpy(to, from);
  return true;
}

/* Validators may hold any bytes, a record only UTF-8: one without is asked for again in full. */
static const char *record_text(const char *text) {
  json_t *json = json_string(text);
  json_decref(json);
  return json ? text : "";
}

static char *record_encode(const mc_entry *entry) {
  char hex[MC_DIGEST_HEX_SIZE] = "";
  if (entry->has_digest) mc_digest_hex(hex, &entry->digest);
  json_t *json =
      json_pack("{ss sI ss ss ss sI sI sI sb}", "url", entry->url, "size", (json_int_t)entry->size, "digest", hex,
                "etag", record_text(entry->validators.etag), "version", record_text(entry->validators.version),
                "last_modified", (json_int_t)entry->validators.last_modified, "fetched_at",
                (json_int_t)entry->fetched_at, "checked_at", (json_int_t)entry->checked_at, "pinned", entry->pinned);
  char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
  json_decref(json);
  return text;
}

/* NULL: not a record that can be used. */
static mc_entry *record_decode(const char *key, const void *data, size_t size) {
  const char *url, *digest, *etag, *version;
  json_int_t bytes, modified, fetched, checked;
  int pinned;
  json_t *json = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL);
  mc_entry *entry = NULL;
  if (json && json_unpack(json, "{ss sI ss ss ss sI sI sI sb}", "url", &url, "size", &bytes, "digest", &digest, "etag",
                          &etag, "version", &version, "last_modified", &modified, "fetched_at", &fetched, "checked_at",
                          &checked, "pinned", &pinned) == 0) {
    char expected[KEY_SIZE];
    key_of_url(expected, url);
    if (strcmp(expected, key) == 0) entry = entry_new(url);
    if (entry) {
      entry->size = (uint64_t)bytes;
      entry->validators.last_modified = modified;
      entry->fetched_at = fetched;
      entry->checked_at = checked;
      entry->pinned = pinned;
      entry->has_digest = mc_digest_parse(&entry->digest, digest, NULL) == MC_OK;
      if (!entry->has_digest || !copy_text(entry->validators.etag, sizeof(entry->validators.etag), etag) ||
          !copy_text(entry->validators.version, sizeof(entry->validators.version), version)) {
        free(entry);
        entry = NULL;
      }
    }
  }
  json_decref(json);
  return entry;
}

static mc_storage *record_storage(struct mc_cache *cache) {
  mc_storage *storage = cache->home ? tier_storage(cache->home) : NULL;
  return storage && storage->ops->flags & MC_STORAGE_PERSISTENT ? storage : NULL;
}

mc_status entry_record(struct mc_cache *cache, const char *key, const mc_entry *entry, mc_stage *stage, mc_error *err) {
  mc_storage *storage = record_storage(cache);
  if (!storage || !entry->has_digest) return MC_OK;
  char *text = record_encode(entry);
  if (!text) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a record");
  bool together = stage && stage->storage == storage && storage->ops->stage_record;
  mc_status status = together ? storage->ops->stage_record(stage, key, text, strlen(text), err)
                              : storage->ops->record_put(storage, key, text, strlen(text), err);
  free(text);
  return status;
}

mc_status entry_load(mc_entry **out, struct mc_cache *cache, const char *key, mc_error *err) {
  mc_status status = cache->coordination->ops->lookup(cache->coordination, key, out, err);
  mc_storage *storage = record_storage(cache);
  /* Without coordination what is stored can be served all the same. */
  bool unreachable = status && mc_status_is_retryable(status);
  if ((status != MC_NOT_FOUND && !unreachable) || !storage) return status;
  void *data;
  size_t size;
  mc_status found = storage->ops->record_get(storage, key, &data, &size, RECORD_MAX, unreachable ? NULL : err);
  if (found) return unreachable ? status : found;
  mc_entry *entry = record_decode(key, data, size);
  free(data);
  if (!entry) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "the record of this URL can't be read");
  mc_status published = cache->coordination->ops->publish(cache->coordination, key, 0, entry, NULL);
  if (!published) tier_refer(cache->home, &entry->digest, 1, entry->pinned); /* else it will be loaded again */
  *out = entry;
  return MC_OK;
}

static bool load_record(void *user, const char *key, const void *data, size_t size) {
  struct mc_cache *cache = user;
  mc_entry *entry = record_decode(key, data, size);
  if (entry) {
    cache->coordination->ops->publish(cache->coordination, key, 0, entry, NULL);
    tier_refer(cache->home, &entry->digest, 1, entry->pinned);
  } else {
    log_warn(cache->logger, ORIGIN, "record %s can't be read, and is ignored", key);
  }
  free(entry);
  return true;
}

mc_status entry_load_all(struct mc_cache *cache, mc_error *err) {
  mc_storage *storage = record_storage(cache);
  return storage ? storage->ops->record_scan(storage, load_record, cache, RECORD_MAX, err) : MC_OK;
}

void entry_announce(struct mc_cache *cache, const mc_entry *entry) {
  pthread_mutex_lock(&cache->watch_lock);
  if (cache->watcher) cache->watcher(cache->watcher_user, entry);
  pthread_mutex_unlock(&cache->watch_lock);
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
