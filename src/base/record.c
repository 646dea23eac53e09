#include "base/record.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/hash.h"

mc_entry *entry_new(const char *url, const char *holders) {
  size_t length = strlen(url) + 1, more = holders ? strlen(holders) + 1 : 1;
  mc_entry *entry = calloc(1, sizeof(*entry) + length + more);
  if (!entry) return NULL;
  char *texts = (char *)(entry + 1);
  entry->struct_size = sizeof(*entry);
  entry->url = memcpy(texts, url, length);
  entry->holders = memcpy(texts + length, holders ? holders : "", more);
  entry->size = MC_SIZE_UNKNOWN;
  return entry;
}

mc_entry *entry_copy(const mc_entry *entry) {
  mc_entry *copy = entry_new(entry->url, entry->holders);
  if (!copy) return NULL;
  const char *url = copy->url, *holders = copy->holders;
  *copy = *entry;
  copy->url = url;
  copy->holders = holders;
  return copy;
}

static bool copy_text(char *to, size_t size, const char *from) {
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

char *record_encode(const mc_entry *entry) {
  char hex[MC_DIGEST_HEX_SIZE] = "";
  if (entry->has_digest) mc_digest_hex(hex, &entry->digest);
  json_t *json =
      json_pack("{ss sI ss ss ss sI sI sI sb sb sI}", "url", entry->url, "size", (json_int_t)entry->size, "digest", hex,
                "etag", record_text(entry->validators.etag), "version", record_text(entry->validators.version),
                "last_modified", (json_int_t)entry->validators.last_modified, "fetched_at",
                (json_int_t)entry->fetched_at, "checked_at", (json_int_t)entry->checked_at, "pinned", entry->pinned,
                "missing", entry->missing, "revision", (json_int_t)entry->revision);
  char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
  json_decref(json);
  return text;
}

static mc_entry *decode(const char *key, json_t *json) {
  const char *url, *digest, *etag, *version;
  char expected[KEY_SIZE];
  json_int_t bytes, modified, fetched, checked, revision = 0; /* records of before have no revision */
  int pinned, missing = 0;
  if (json_unpack(json, "{ss sI ss ss ss sI sI sI sb s?b s?I}", "url", &url, "size", &bytes, "digest", &digest, "etag",
                  &etag, "version", &version, "last_modified", &modified, "fetched_at", &fetched, "checked_at",
                  &checked, "pinned", &pinned, "missing", &missing, "revision", &revision)) {
    return NULL;
  }
  key_of_url(expected, url);
  mc_entry *entry = strcmp(expected, key) == 0 ? entry_new(url, NULL) : NULL;
  if (!entry) return NULL;
  entry->size = (uint64_t)bytes;
  entry->validators.last_modified = modified;
  entry->fetched_at = fetched;
  entry->checked_at = checked;
  entry->pinned = pinned;
  entry->missing = missing;
  entry->revision = (uint64_t)revision;
  entry->has_digest = !missing && mc_digest_parse(&entry->digest, digest, NULL) == MC_OK;
  if ((entry->has_digest || entry->missing) &&
      copy_text(entry->validators.etag, sizeof(entry->validators.etag), etag) &&
      copy_text(entry->validators.version, sizeof(entry->validators.version), version)) {
    return entry;
  }
  free(entry);
  return NULL;
}

mc_entry *record_decode(const char *key, const void *data, size_t size) {
  json_t *json = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL);
  mc_entry *entry = json ? decode(key, json) : NULL;
  json_decref(json);
  return entry;
}
