#include "documents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>
#include <openssl/crypto.h>

#include "base/checksum.h"
#include "base/clock.h"

#define ORIGIN        "gcs"
#define NAME_MOST     4096 /* the API's own limit is 1024 */
#define TOKEN_MOST    16384
#define LIFETIME_S    300 /* of a token of which nothing is told */
#define LIFETIME_MOST 31536000

static mc_status bad(mc_error *err, const char *what) {
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the storage service's answer can't be used: %s", what);
}

/* ---- values ---- */

/* The API writes 64-bit numbers as strings. */
static bool number_of(uint64_t *out, const json_t *value) {
  if (json_is_integer(value)) {
    *out = (uint64_t)json_integer_value(value);
    return json_integer_value(value) >= 0;
  }
  const char *text = json_string_value(value);
  uint64_t number = 0;
  if (!text || !*text) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9' || __builtin_mul_overflow(number, 10, &number) ||
        __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number)) {
      return false;
    }
  }
  *out = number;
  return true;
}

/* CRC32C is there for every object, MD5 not for composed ones. */
void gcs_checksum_parse(mc_checksum *out, const char *value) {
  *out = (mc_checksum){.kind = MC_CHECKSUM_NONE};
  for (const char *at = value; *at && out->kind != MC_CHECKSUM_CRC32C;) {
    at += strspn(at, ", \t");
    size_t size = strcspn(at, ", \t");
    if (strncmp(at, "crc32c=", 7) == 0) checksum_read(out, MC_CHECKSUM_CRC32C, at + 7, size - 7);
    if (strncmp(at, "md5=", 4) == 0) checksum_read(out, MC_CHECKSUM_MD5, at + 4, size - 4);
    at += size;
  }
}

/* "Z", or the hours and minutes by which its zone is before UTC. */
static bool take_zone(int64_t *seconds, const char *at) {
  int hours, minutes, used = 0;
  char sign;
  if (strcmp(at, "Z") == 0) return true;
  if (sscanf(at, "%c%2d:%2d%n", &sign, &hours, &minutes, &used) != 3 || at[used] || !strchr("+-", sign)) return false;
  *seconds += (sign == '+' ? -1 : 1) * (hours * 3600LL + minutes * 60LL);
  return true;
}

bool gcs_time_parse(int64_t *out, const char *text) {
  struct tm tm = {0};
  int used = 0;
  if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
             &tm.tm_sec, &used) != 6 ||
      !used || tm.tm_year < 1970 || tm.tm_mon < 1 || tm.tm_mon > 12) {
    return false;
  }
  text += used;
  if (*text == '.') text += 1 + strspn(text + 1, "0123456789");
  tm.tm_year -= 1900;
  tm.tm_mon--;
  int64_t seconds = timegm(&tm);
  if (!take_zone(&seconds, text) || seconds < 0) return false;
  *out = seconds;
  return true;
}

/* ---- objects ---- */

static mc_status read_object(struct gcs_object *out, const json_t *json, mc_error *err) {
  const char *name = json_string_value(json_object_get(json, "name"));
  const json_t *crc32c = json_object_get(json, "crc32c"), *md5 = json_object_get(json, "md5Hash");
  const char *updated = json_string_value(json_object_get(json, "updated"));
  uint64_t generation;
  *out = (struct gcs_object){.size = 0};
  if (!name || !*name || strlen(name) > NAME_MOST) return bad(err, "an object has no name");
  if (!number_of(&out->size, json_object_get(json, "size")) || out->size >= MC_SIZE_UNKNOWN) {
    return bad(err, "an object has no size");
  }
  if (!number_of(&generation, json_object_get(json, "generation"))) return bad(err, "an object has no generation");
  snprintf(out->validators.version, sizeof(out->validators.version), "%llu", (unsigned long long)generation);
  if (updated && !gcs_time_parse(&out->validators.last_modified, updated)) out->validators.last_modified = 0;
  bool summed = json_is_string(crc32c) && checksum_read(&out->checksum, MC_CHECKSUM_CRC32C, json_string_value(crc32c),
                                                        json_string_length(crc32c));
  if (!summed && json_is_string(md5)) {
    checksum_read(&out->checksum, MC_CHECKSUM_MD5, json_string_value(md5), json_string_length(md5));
  }
  out->name = strdup(name);
  return out->name ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an object's name");
}

void gcs_object_free(struct gcs_object *object) {
  free(object->name);
}

static json_t *load(const char *text, size_t size) {
  json_t *root = json_loadb(text, size, 0, NULL);
  if (json_is_object(root)) return root;
  json_decref(root);
  return NULL;
}

mc_status gcs_object_parse(struct gcs_object *out, const char *text, size_t size, mc_error *err) {
  json_t *root = load(text, size);
  if (!root) return bad(err, "it is no JSON object");
  mc_status status = read_object(out, root, err);
  json_decref(root);
  return status;
}

static mc_status read_page(struct gcs_page *out, const json_t *root, mc_error *err) {
  json_t *items = json_object_get(root, "items"), *next = json_object_get(root, "nextPageToken");
  if (items && !json_is_array(items)) return bad(err, "a listing is no array");
  if (next && !json_is_string(next)) return bad(err, "a page's token is no string");
  out->objects = calloc(json_array_size(items) + 1, sizeof(*out->objects));
  if (json_string_length(next)) out->next = strdup(json_string_value(next));
  if (!out->objects || (json_string_length(next) && !out->next)) {
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a listing");
  }
  mc_status status = MC_OK;
  while (!status && out->count < json_array_size(items)) {
    status = read_object(&out->objects[out->count], json_array_get(items, out->count), err);
    if (!status) out->count++;
  }
  return status;
}

mc_status gcs_page_parse(struct gcs_page *out, const char *text, size_t size, mc_error *err) {
  json_t *root = load(text, size);
  *out = (struct gcs_page){.objects = NULL};
  if (!root) return bad(err, "it is no JSON object");
  mc_status status = read_page(out, root, err);
  json_decref(root);
  if (status) gcs_page_free(out);
  return status;
}

void gcs_page_free(struct gcs_page *page) {
  for (size_t i = 0; i < page->count; i++) gcs_object_free(&page->objects[i]);
  free(page->objects);
  free(page->next);
  *page = (struct gcs_page){.objects = NULL};
}

/* ---- tokens ---- */

bool gcs_token_is_sound(const char *text) {
  size_t size = 0;
  while (text[size] > 0x20 && text[size] < 0x7f && size < TOKEN_MOST) size++;
  return size && !text[size];
}

/* OAuth tells for how long it holds, IAM until when. */
static int64_t expiry_of(const json_t *root) {
  uint64_t lifetime;
  int64_t when;
  const char *until = json_string_value(json_object_get(root, "expireTime"));
  if (until && gcs_time_parse(&when, until)) return when * 1000;
  if (!number_of(&lifetime, json_object_get(root, "expires_in"))) lifetime = LIFETIME_S;
  return clock_wall_ms() + (int64_t)(lifetime < LIFETIME_MOST ? lifetime : LIFETIME_MOST) * 1000;
}

mc_status gcs_token_parse(struct gcs_token *out, const char *text, size_t size, mc_error *err) {
  json_t *root = load(text, size);
  const char *token = json_string_value(json_object_get(root, "access_token"));
  if (!token) token = json_string_value(json_object_get(root, "accessToken"));
  bool sound = token && gcs_token_is_sound(token);
  *out = (struct gcs_token){.text = sound ? strdup(token) : NULL, .expires_at = expiry_of(root)};
  json_decref(root);
  if (!sound) return mc_error_set(err, MC_PROTOCOL, ORIGIN, "there is no token in the answer of who gives them");
  return out->text ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a token");
}

void gcs_token_free(struct gcs_token *token) {
  if (token->text) OPENSSL_cleanse(token->text, strlen(token->text));
  free(token->text);
  token->text = NULL;
}

/* ---- failures ---- */

static void take_reason(struct gcs_failure *out, const json_t *value) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
  const char *text = json_string_value(value);
  size_t size = text ? strlen(text) : 0;
  if (!out->reason[0] && size < sizeof(out->reason) && size && strspn(text, letters) == size) strcpy(out->reason, text);
}

/* Of storage, of Google's other services, and of OAuth: {"error": {"errors": [{"reason": …}], "status": …, "message":
 * …}}, {"error": "invalid_grant"}. */
void gcs_failure_parse(struct gcs_failure *out, const char *body) {
  *out = (struct gcs_failure){.reason = ""};
  json_t *root = json_loads(body, 0, NULL), *error = json_object_get(root, "error");
  const char *message = json_string_value(json_object_get(error, "message"));
  take_reason(out, error);
  take_reason(out, json_object_get(json_array_get(json_object_get(error, "errors"), 0), "reason"));
  take_reason(out, json_object_get(error, "status"));
  out->no_bucket = message && strstr(message, "bucket does not exist");
  out->payer = message && strstr(message, "requester pays");
  json_decref(root);
}
