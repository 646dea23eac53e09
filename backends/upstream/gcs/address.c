#include "address.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/url.h"

#define ORIGIN       "gcs"
#define FORM         "it is written gs://bucket/object, with ?generation=N for a version"
#define FIELDS       "name,size,generation,updated,crc32c,md5Hash"
#define PAGE_OBJECTS 1000 /* the most that it gives */

static mc_status refuse(const char *url, const char *why, mc_error *err) {
  char text[300];
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s: %s; " FORM, url_printable(text, sizeof(text), url), why);
}

static mc_status set_bucket(struct gcs_address *out, const char *url, const char *from, size_t size, mc_error *err) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
  if (size == 0) return refuse(url, "it names no bucket", err);
  if (strspn(from, letters) < size || size < 3 || size >= sizeof(out->bucket) || from[0] == '.') {
    return refuse(url, "a bucket's name has 3 to 222 lower-case letters, digits, '-', '_' and '.'", err);
  }
  memcpy(out->bucket, from, size);
  return MC_OK;
}

static mc_status set_generation(struct gcs_address *out, const char *url, const char *query, mc_error *err) {
  static const char name[] = "generation=";
  if (strncmp(query, name, strlen(name)) != 0) {
    return refuse(url, "it has a query that is no generation (a '?' in an object's name is written %3F)", err);
  }
  const char *value = query + strlen(name);
  size_t size = strlen(value);
  if (size == 0 || size >= sizeof(out->generation) || strspn(value, "0123456789") != size) {
    return refuse(url, "its generation is not a number", err);
  }
  strcpy(out->generation, value);
  return MC_OK;
}

mc_status gcs_address_parse(struct gcs_address *out, const char *url, mc_error *err) {
  static const char scheme[] = "gs://";
  *out = (struct gcs_address){.object = NULL};
  if (strncmp(url, scheme, strlen(scheme)) != 0) return refuse(url, "it is no gs:// URL", err);
  const char *bucket = url + strlen(scheme);
  size_t size = strcspn(bucket, "/?");
  mc_status status = set_bucket(out, url, bucket, size, err);
  if (status) return status;
  const char *object = bucket + size;
  object += *object == '/';
  size_t length = strcspn(object, "?");
  if (object[length]) status = set_generation(out, url, object + length + 1, err);
  if (status) return status;
  out->object = malloc(length + 1);
  if (!out->object) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  if (url_decode(out->object, object, length)) return MC_OK;
  gcs_address_free(out);
  return refuse(url, "it has a bad percent-escape in it", err);
}

void gcs_address_free(struct gcs_address *address) {
  free(address->object);
  address->object = NULL;
}

void gcs_append_name(struct buf *out, const char *name) {
  static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~";
  for (const char *c = name; *c; c++) {
    if (strchr(plain, *c)) {
      buf_append(out, c, 1);
    } else {
      buf_printf(out, "%%%02X", (unsigned char)*c);
    }
  }
}

static void begin(struct buf *out, const char *endpoint, const char *service, const struct gcs_address *address) {
  buf_init(out, (size_t)8 * URL_MAX);
  buf_printf(out, "%s%s/b/", endpoint, service);
  gcs_append_name(out, address->bucket);
  buf_append_str(out, "/o");
}

static char *end(struct buf *out) {
  char *url = buf_take(out);
  buf_free(out);
  return url;
}

static char *url_of(const char *endpoint, const char *service, const struct gcs_address *address, const char *query,
                    const char *generation) {
  struct buf out;
  begin(&out, endpoint, service, address);
  buf_append_str(&out, "/");
  gcs_append_name(&out, address->object);
  buf_printf(&out, "?%s", query);
  if (*generation) buf_printf(&out, "&generation=%s", generation);
  return end(&out);
}

char *gcs_object_url(const char *endpoint, const struct gcs_address *address, const char *generation) {
  return url_of(endpoint, "/storage/v1", address, "fields=" FIELDS, generation);
}

char *gcs_media_url(const char *endpoint, const struct gcs_address *address, const char *generation) {
  return url_of(endpoint, "/download/storage/v1", address, "alt=media", generation);
}

char *gcs_list_url(const char *endpoint, const struct gcs_address *address, const char *token) {
  struct buf out;
  begin(&out, endpoint, "/storage/v1", address);
  buf_printf(&out, "?maxResults=%d&fields=nextPageToken,items(" FIELDS ")&prefix=", PAGE_OBJECTS);
  gcs_append_name(&out, address->object);
  if (token) {
    buf_append_str(&out, "&pageToken=");
    gcs_append_name(&out, token);
  }
  return end(&out);
}
