#include "page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../http/xml.h"
#include "base/io.h"
#include "base/url.h"

#define ORIGIN    "s3"
#define PAGE_MOST 10000 /* services give 1000 */

/* What follows the document's root, whatever that is called. */
static const char *below_root(const char *path) {
  const char *slash = strchr(path, '/');
  return slash ? slash + 1 : "";
}

int64_t s3_time(const char *text) {
  struct tm parts = {0};
  int length = 0;
  if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &parts.tm_year, &parts.tm_mon, &parts.tm_mday, &parts.tm_hour,
             &parts.tm_min, &parts.tm_sec, &length) != 6 ||
      length != 19) {
    return 0;
  }
  if (parts.tm_year < 1970 || parts.tm_mon < 1 || parts.tm_mon > 12) return 0;
  parts.tm_year -= 1900;
  parts.tm_mon--;
  int64_t time = timegm(&parts);
  return time > 0 ? time : 0;
}

/* ---- listings ---- */

struct listing {
  struct s3_page *page;
  struct s3_object object; /* of the element that is being read */
  bool is_listing, truncated, encoded, no_memory;
  const char *problem;
};

static void object_free(struct s3_object *object) {
  free(object->key);
  free(object->etag);
  *object = (struct s3_object){.size = MC_SIZE_UNKNOWN};
}

static bool keep(struct listing *listing, char **place, const char *text) {
  free(*place);
  *place = strdup(text);
  listing->no_memory = !*place;
  return *place != NULL;
}

/* Some servers leave out the quotes that are a part of it in headers. */
static bool keep_etag(struct listing *listing, const char *text) {
  bool bare = text[0] != '"' && strncmp(text, "W/", 2) != 0;
  if (!*text) return true;
  free(listing->object.etag);
  listing->object.etag = format_str(bare ? "\"%s\"" : "%s", text);
  listing->no_memory = !listing->object.etag;
  return !listing->no_memory;
}

static bool keep_size(struct listing *listing, const char *text) {
  uint64_t size = 0;
  for (; *text >= '0' && *text <= '9'; text++) {
    if (__builtin_mul_overflow(size, 10, &size) || __builtin_add_overflow(size, (uint64_t)(*text - '0'), &size)) break;
  }
  listing->object.size = size;
  if (*text || size == MC_SIZE_UNKNOWN) listing->problem = "a size in it is no number";
  return !listing->problem;
}

/* An object is complete. */
static bool add(struct listing *listing) {
  struct s3_page *page = listing->page;
  if (!listing->object.key) listing->problem = "an object in it has no key";
  if (page->count == PAGE_MOST) listing->problem = "it has more than 10000 objects";
  if (listing->problem) return false;
  if (page->count == page->capacity) {
    size_t capacity = page->capacity ? 2 * page->capacity : 64;
    struct s3_object *objects = realloc(page->objects, capacity * sizeof(*objects));
    listing->no_memory = !objects;
    if (!objects) return false;
    page->objects = objects;
    page->capacity = capacity;
  }
  page->objects[page->count++] = listing->object;
  listing->object = (struct s3_object){.size = MC_SIZE_UNKNOWN};
  return true;
}

static bool take_listing(void *user, const char *path, const char *text) {
  struct listing *listing = user;
  const char *name = below_root(path);
  if (!*name) listing->is_listing = strcmp(path, "ListBucketResult") == 0;
  if (strcmp(name, "Contents/Key") == 0) return keep(listing, &listing->object.key, text);
  if (strcmp(name, "Contents/ETag") == 0) return keep_etag(listing, text);
  if (strcmp(name, "Contents/Size") == 0) return keep_size(listing, text);
  if (strcmp(name, "Contents/LastModified") == 0) listing->object.modified = s3_time(text);
  if (strcmp(name, "Contents") == 0) return add(listing);
  if (strcmp(name, "NextContinuationToken") == 0 && *text) return keep(listing, &listing->page->next, text);
  if (strcmp(name, "IsTruncated") == 0) listing->truncated = strcmp(text, "true") == 0;
  if (strcmp(name, "EncodingType") == 0) listing->encoded = strcmp(text, "url") == 0;
  return true;
}

/* "encoding-type=url" is that of forms: '+' is a space. */
static bool decode(char *key) {
  for (char *at = key; *at; at++) {
    if (*at == '+') *at = ' ';
  }
  return url_decode(key, key, strlen(key));
}

mc_status s3_page_parse(struct s3_page *page, const char *text, size_t size, mc_error *err) {
  struct listing listing = {.page = page, .object.size = MC_SIZE_UNKNOWN};
  *page = (struct s3_page){0};
  mc_status status = http_xml_read(text, size, take_listing, &listing, err);
  if (!listing.problem && !listing.is_listing) listing.problem = "it is something else";
  if (!listing.problem && listing.truncated != (page->next != NULL)) {
    if (listing.truncated) listing.problem = "there is more, but it does not say how to get it";
    if (!listing.truncated) {
      free(page->next);
      page->next = NULL;
    }
  }
  for (size_t i = 0; i < page->count && listing.encoded && !listing.problem; i++) {
    if (!decode(page->objects[i].key)) listing.problem = "a key in it is badly escaped";
  }
  object_free(&listing.object);
  if (listing.no_memory) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a listing");
  } else if (!status && listing.problem) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service's listing can't be used: %s", listing.problem);
  }
  if (status) s3_page_free(page);
  return status;
}

void s3_page_free(struct s3_page *page) {
  for (size_t i = 0; i < page->count; i++) object_free(&page->objects[i]);
  free(page->objects);
  free(page->next);
  *page = (struct s3_page){0};
}

/* ---- errors ---- */

static bool is_word(const char *text) {
  return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_") == strlen(text);
}

/* S3's is <Error>, STS's <ErrorResponse><Error>. */
static bool take_error(void *user, const char *path, const char *text) {
  struct s3_error *error = user;
  if (strncmp(path, "ErrorResponse/", 14) == 0) path += 14;
  bool code = strcmp(path, "Error/Code") == 0, region = strcmp(path, "Error/Region") == 0;
  if ((code || region) && strlen(text) < sizeof(error->code) && is_word(text)) {
    strcpy(code ? error->code : error->region, text);
  }
  return true;
}

void s3_error_parse(struct s3_error *error, const char *text, size_t size) {
  *error = (struct s3_error){.code = ""};
  http_xml_read(text, size, take_error, error, NULL); /* what could be read counts */
}

/* ---- credentials ---- */

static bool take_keys(void *user, const char *path, const char *text) {
  struct s3_keys_text *keys = user;
  const char *credentials = strstr(path, "Result/Credentials/");
  if (!credentials) return true;
  const char *name = credentials + strlen("Result/Credentials/");
  const struct {
    const char *name;
    char *to;
    size_t size;
  } fields[] = {{"AccessKeyId", keys->id, sizeof(keys->id)},
                {"SecretAccessKey", keys->secret, sizeof(keys->secret)},
                {"SessionToken", keys->token, sizeof(keys->token)},
                {"Expiration", keys->expiration, sizeof(keys->expiration)}};
  for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
    if (strcmp(name, fields[i].name) == 0 && strlen(text) < fields[i].size) strcpy(fields[i].to, text);
  }
  return true;
}

mc_status s3_keys_parse(struct s3_keys_text *keys, const char *text, size_t size, mc_error *err) {
  *keys = (struct s3_keys_text){.id = ""};
  mc_status status = http_xml_read(text, size, take_keys, keys, err);
  if (status || (keys->id[0] && keys->secret[0])) return status;
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "STS's answer has no credentials in it");
}
