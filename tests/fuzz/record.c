/* Records of entries: JSON beside the stored objects, as whatever wrote there left it. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/hash.h"
#include "base/record.h"
#include "fuzz.h"

static void take(const char *key, const void *data, size_t size) {
  mc_entry *entry = record_decode(key, data, size);
  if (!entry) return;
  char expected[KEY_SIZE];
  key_of_url(expected, entry->url);
  CHECK(strcmp(expected, key) == 0);
  CHECK(entry->has_digest != entry->missing);
  CHECK(strlen(entry->validators.etag) < sizeof(entry->validators.etag));
  CHECK(strlen(entry->validators.version) < sizeof(entry->validators.version));
  char *text = record_encode(entry);
  mc_entry *again = text ? record_decode(key, text, strlen(text)) : NULL;
  CHECK(again && strcmp(again->url, entry->url) == 0 && again->size == entry->size);
  CHECK(mc_digest_equal(&again->digest, &entry->digest) && again->pinned == entry->pinned);
  CHECK(memcmp(&again->validators, &entry->validators, sizeof(entry->validators)) == 0);
  CHECK(again->revision == entry->revision && again->missing == entry->missing);
  CHECK(again->fetched_at == entry->fetched_at && again->checked_at == entry->checked_at);
  CHECK(entry->history_count <= MC_HISTORY_MOST && again->history_count == entry->history_count);
  for (size_t i = 0; i < entry->history_count; i++) {
    CHECK(memcmp(&again->history[i], &entry->history[i], sizeof(mc_former)) == 0);
    CHECK(strlen(entry->history[i].validators.etag) < sizeof(entry->history[i].validators.etag));
  }
  free(again);
  free(text);
  free(entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char key[KEY_SIZE];
  key_of_url(key, "https://host/model.bin");
  take(key, data, size);
  /* As if it stood where its URL belongs. */
  json_t *json = json_loadb((const char *)data, size, 0, NULL);
  const char *url = json_string_value(json_object_get(json, "url"));
  if (url) {
    key_of_url(key, url);
    take(key, data, size);
  }
  json_decref(json);
  return 0;
}
