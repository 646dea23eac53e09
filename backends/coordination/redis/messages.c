#include "messages.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/hash.h"
#include "base/record.h"

#define MAX_LEASE_MS ((json_int_t)1 << 40)

/* Validators may hold any bytes, JSON only UTF-8: as in a record. */
static const char *text_of(const char *text) {
  json_t *json = json_string(text);
  json_decref(json);
  return json ? text : "";
}

char *claim_news_encode(const mc_claim_news *news) {
  static const uint8_t none[sizeof(news->flight)];
  char flight[MC_DIGEST_HEX_SIZE] = "";
  mc_digest name;
  memcpy(name.bytes, news->flight, sizeof(name.bytes));
  if (memcmp(news->flight, none, sizeof(none)) != 0) mc_digest_hex(flight, &name);
  json_t *json =
      json_pack("{sI sI sI ss ss sI ss ss}", "bytes", (json_int_t)news->bytes, "total", (json_int_t)news->total, "rate",
                (json_int_t)news->rate, "etag", text_of(news->validators.etag), "version",
                text_of(news->validators.version), "last_modified", (json_int_t)news->validators.last_modified,
                "flight", flight, "endpoint", text_of(news->endpoint));
  char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
  json_decref(json);
  return text;
}

static bool copy_text(char *to, size_t size, const char *from) {
  if (strlen(from) >= size) return false;
  strcpy(to, from);
  return true;
}

static bool news_of(mc_claim_news *out, json_t *json) {
  json_int_t bytes, total, rate, modified;
  const char *etag, *version, *flight, *endpoint;
  mc_digest name = {0};
  *out = (mc_claim_news){0};
  if (json_unpack(json, "{sI sI sI ss ss sI ss ss}", "bytes", &bytes, "total", &total, "rate", &rate, "etag", &etag,
                  "version", &version, "last_modified", &modified, "flight", &flight, "endpoint", &endpoint)) {
    return false;
  }
  if (*flight && mc_digest_parse(&name, flight, NULL)) return false;
  out->bytes = (uint64_t)bytes;
  out->total = (uint64_t)total;
  out->rate = (uint64_t)rate;
  out->validators.last_modified = modified;
  memcpy(out->flight, name.bytes, sizeof(out->flight));
  return copy_text(out->validators.etag, sizeof(out->validators.etag), etag) &&
         copy_text(out->validators.version, sizeof(out->validators.version), version) &&
         copy_text(out->endpoint, sizeof(out->endpoint), endpoint);
}

bool claim_news_decode(mc_claim_news *out, const char *data, size_t size) {
  json_t *json = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL);
  bool good = json && news_of(out, json);
  json_decref(json);
  return good;
}

bool flight_message_decode(struct flight_message *out, const char *data, size_t size) {
  json_t *json = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL), *news = NULL;
  json_int_t token = 0, ms = 0;
  bool good = json && json_unpack(json, "{sI sI s?o}", "token", &token, "ms", &ms, "news", &news) == 0 && token > 0 &&
              ms >= 0 && ms < MAX_LEASE_MS;
  *out = (struct flight_message){.token = (uint64_t)token, .ms = ms};
  out->has_news = good && news && news_of(&out->news, news);
  json_decref(json);
  return good;
}

/* NULL and true: it is null. */
static bool entry_of(mc_entry **out, const char *key, json_t *json) {
  *out = NULL;
  if (json_is_null(json)) return true;
  char *text = json_dumps(json, JSON_COMPACT);
  if (text) *out = record_decode(key, text, strlen(text));
  free(text);
  return *out;
}

bool change_message_decode(struct change_message *out, const char *data, size_t size) {
  json_t *json = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL), *before, *now;
  const char *key, *by;
  *out = (struct change_message){.before = NULL};
  bool good = json && json_unpack(json, "{ss ss so so}", "key", &key, "by", &by, "before", &before, "now", &now) == 0 &&
              key_is_valid(key) && copy_text(out->by, sizeof(out->by), by) && entry_of(&out->before, key, before) &&
              entry_of(&out->now, key, now) && (out->before || out->now);
  json_decref(json);
  if (good) return true;
  free(out->before);
  free(out->now);
  *out = (struct change_message){.before = NULL};
  return false;
}
