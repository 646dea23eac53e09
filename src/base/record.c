#include "base/record.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/hash.h"

static mc_entry *make(const char *url, const char *holders, size_t history) {
  size_t length = strlen(url) + 1, more = strlen(holders) + 1;
  mc_entry *entry = calloc(1, sizeof(*entry) + history * sizeof(mc_former) + length + more);
  if (!entry) return NULL;
  mc_former *formers = (mc_former *)(entry + 1);
  char *texts = (char *)(formers + history);
  entry->struct_size = sizeof(*entry);
  entry->url = memcpy(texts, url, length);
  entry->holders = memcpy(texts + length, holders, more);
  entry->history = formers;
  entry->history_count = history;
  entry->size = MC_SIZE_UNKNOWN;
  return entry;
}

/* What `history` of an entry that was just made is written through. */
static mc_former *formers_of(mc_entry *entry) {
  return (mc_former *)(entry + 1);
}

mc_entry *entry_new(const char *url, const char *holders) {
  return make(url, holders ? holders : "", 0);
}

mc_entry *entry_held(const mc_entry *entry, const char *holders) {
  mc_entry *copy = make(entry->url, holders, entry->history_count);
  if (!copy) return NULL;
  const char *url = copy->url, *own = copy->holders;
  if (entry->history_count) {
    memcpy(formers_of(copy), entry->history, entry->history_count * sizeof(*entry->history));
  }
  *copy = *entry;
  copy->url = url;
  copy->holders = own;
  copy->history = formers_of(copy);
  return copy;
}

mc_entry *entry_copy(const mc_entry *entry) {
  return entry_held(entry, entry->holders ? entry->holders : "");
}

mc_entry *entry_after(const mc_entry *before, const char *url, const mc_digest *digest, int64_t keep_ms, int64_t now) {
  size_t count = 0, kept = before ? before->history_count : 0;
  bool replaces = before && before->has_digest && !(digest && mc_digest_equal(digest, &before->digest));
  while (kept && now - before->history[kept - 1].replaced_at >= keep_ms) kept--;
  if (keep_ms <= 0) replaces = false;
  if (replaces && kept == MC_HISTORY_MOST) kept--;
  mc_entry *entry = make(url, "", replaces + kept);
  if (!entry) return NULL;
  mc_former *formers = formers_of(entry);
  if (replaces) {
    formers[count++] = (mc_former){.digest = before->digest,
                                   .size = before->size,
                                   .validators = before->validators,
                                   .fetched_at = before->fetched_at,
                                   .replaced_at = now};
  }
  if (kept) memcpy(formers + count, before->history, kept * sizeof(*formers));
  return entry;
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

static json_t *history_json(const mc_entry *entry) {
  json_t *list = json_array();
  for (size_t i = 0; i < entry->history_count; i++) {
    const mc_former *former = &entry->history[i];
    char hex[MC_DIGEST_HEX_SIZE];
    json_array_append_new(list,
                          json_pack("{ss sI ss ss sI sI sI}", "digest", mc_digest_hex(hex, &former->digest), "size",
                                    (json_int_t)former->size, "etag", record_text(former->validators.etag), "version",
                                    record_text(former->validators.version), "last_modified",
                                    (json_int_t)former->validators.last_modified, "fetched_at",
                                    (json_int_t)former->fetched_at, "replaced_at", (json_int_t)former->replaced_at));
  }
  return list;
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
  if (json && entry->history_count) json_object_set_new(json, "history", history_json(entry));
  char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
  json_decref(json);
  return text;
}

/* false: it is none. */
static bool decode_former(mc_former *former, json_t *json) {
  const char *digest, *etag, *version;
  json_int_t bytes, modified, fetched, replaced;
  if (json_unpack(json, "{ss sI ss ss sI sI sI}", "digest", &digest, "size", &bytes, "etag", &etag, "version", &version,
                  "last_modified", &modified, "fetched_at", &fetched, "replaced_at", &replaced)) {
    return false;
  }
  former->size = (uint64_t)bytes;
  former->validators.last_modified = modified;
  former->fetched_at = fetched;
  former->replaced_at = replaced;
  return mc_digest_parse(&former->digest, digest, NULL) == MC_OK &&
         copy_text(former->validators.etag, sizeof(former->validators.etag), etag) &&
         copy_text(former->validators.version, sizeof(former->validators.version), version);
}

/* What can't be read of a history ends it: the entry is no less true for that. */
static mc_entry *make_with_history(const char *url, json_t *history) {
  size_t most = json_array_size(history) < MC_HISTORY_MOST ? json_array_size(history) : MC_HISTORY_MOST;
  mc_entry *entry = make(url, "", most);
  if (!entry) return NULL;
  entry->history_count = 0;
  while (entry->history_count < most &&
         decode_former(&formers_of(entry)[entry->history_count], json_array_get(history, entry->history_count))) {
    entry->history_count++;
  }
  return entry;
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
  mc_entry *entry = strcmp(expected, key) == 0 ? make_with_history(url, json_object_get(json, "history")) : NULL;
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
