/* S3 in small, over http_origin's pages: each object has one, and each prefix that is listed has one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "http_origin.h"
#include "upstream_origins.h"

extern const mc_upstream_ops s3_upstream_ops;

#define BUCKET    "bucket"
#define LISTING   "/" BUCKET "?encoding-type=url&list-type=2&prefix="
#define MAX_FILES 32
#define MAX_TEXTS 1024
#define TEXT_MAX  ((size_t)1 << 16)

struct origin {
  struct http_origin *server;
  mc_origin_rule rule;
  mc_credentials credentials;
  char endpoint[64];
  char *texts[MAX_TEXTS]; /* listings that were served at some time */
  unsigned text_count, count;
  struct object {
    char *key;
    const struct thing *thing;
    unsigned version;
  } objects[MAX_FILES];
};

static void must(bool holds) {
  if (!holds) abort();
}

/* ---- paths and listings ---- */

/* As it stands in a request, malloced. */
static char *path_of(const char *before, const char *key, bool path) {
  struct buf out;
  buf_init(&out, TEXT_MAX);
  buf_append_str(&out, before);
  for (const char *c = key; *c; c++) {
    bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                 strchr("-._~", *c) || (path && *c == '/');
    if (plain) buf_append(&out, c, 1);
    if (!plain) buf_printf(&out, "%%%02X", (unsigned char)*c);
  }
  return buf_take(&out);
}

static char *object_path(const char *key) {
  return path_of("/" BUCKET "/", key, true);
}

static void put_listing(struct origin *origin, const char *prefix, char *text) {
  char *path = path_of(LISTING, prefix, false);
  must(path && text && origin->text_count < MAX_TEXTS);
  origin->texts[origin->text_count++] = text;
  http_origin_put(origin->server, path, text, strlen(text));
  free(path);
}

/* All keys that begin so. */
static void list(struct origin *origin, const char *prefix) {
  struct buf text;
  buf_init(&text, TEXT_MAX);
  buf_append_str(&text, "<ListBucketResult><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>");
  for (unsigned i = 0; i < origin->count; i++) {
    const struct object *object = &origin->objects[i];
    if (strncmp(object->key, prefix, strlen(prefix)) != 0) continue;
    char *key = path_of("", object->key, false);
    buf_printf(&text, "<Contents><Key>%s</Key><ETag>&quot;v%u&quot;</ETag><Size>%zu</Size></Contents>", key,
               object->version, object->thing->size);
    free(key);
  }
  buf_append_str(&text, "</ListBucketResult>");
  put_listing(origin, prefix, buf_take(&text));
}

static struct object *find(struct origin *origin, const char *key) {
  for (unsigned i = 0; i < origin->count; i++) {
    if (strcmp(origin->objects[i].key, key) == 0) return &origin->objects[i];
  }
  return NULL;
}

/* ---- the origin ---- */

static struct origin *s3_start(mc_upstream_config *config) {
  static const mc_setting settings[] = {{"access_key_id", "ID"}, {"secret_access_key", "a-secret"}};
  struct origin *origin = calloc(1, sizeof(*origin));
  must(origin != NULL);
  origin->server = http_origin_start();
  snprintf(origin->endpoint, sizeof(origin->endpoint), "http://127.0.0.1:%u", http_origin_port(origin->server));
  origin->rule = (mc_origin_rule)MC_ORIGIN_RULE_INIT;
  origin->rule.prefix = "s3://";
  origin->rule.endpoint = origin->endpoint;
  origin->rule.credentials = "mine";
  origin->credentials = (mc_credentials){"mine", settings, 2};
  config->origins = &origin->rule;
  config->origin_count = 1;
  config->credentials = &origin->credentials;
  config->credentials_count = 1;
  return origin;
}

static void s3_stop(struct origin *origin) {
  http_origin_stop(origin->server);
  while (origin->text_count) free(origin->texts[--origin->text_count]);
  while (origin->count) free(origin->objects[--origin->count].key);
  free(origin);
}

static const char *s3_root(const struct origin *origin) {
  (void)origin;
  return "s3://" BUCKET "/";
}

static void s3_put(struct origin *origin, const char *key, const struct thing *thing) {
  char *path = object_path(key);
  struct object *object = find(origin, key);
  if (!object) {
    must(origin->count < MAX_FILES);
    object = &origin->objects[origin->count++];
    object->key = strdup(key);
  }
  object->thing = thing;
  object->version = http_origin_put(origin->server, path, thing->data, thing->size);
  for (const char *slash = strchr(key, '/'); slash; slash = strchr(slash + 1, '/')) {
    char *prefix = format_str("%.*s", (int)(slash + 1 - key), key);
    list(origin, prefix);
    free(prefix);
  }
  free(path);
}

static void s3_remove(struct origin *origin, const char *key) {
  struct object *object = find(origin, key);
  must(object != NULL);
  char *path = object_path(key);
  http_origin_remove(origin->server, path);
  free(path);
  free(object->key);
  *object = origin->objects[--origin->count];
}

static void set(struct origin *origin, const char *key, const struct http_behaviour *behaviour) {
  char *path = find(origin, key) ? object_path(key) : path_of(LISTING, key, false);
  http_origin_behave(origin->server, path, behaviour);
  free(path);
}

static void s3_forbid(struct origin *origin, const char *key) {
  set(origin, key, &(struct http_behaviour){.status = 403});
}

static void s3_behave(struct origin *origin, const char *key, enum how how, uint64_t at, unsigned times) {
  const struct object *object = find(origin, key);
  uint64_t size = object ? object->thing->size : 0;
  struct http_behaviour behaviour = http_behaviour_of(how, at, times, size);
  set(origin, key, &behaviour);
}

static void s3_mislead(struct origin *origin, const char *folder) {
  put_listing(origin, folder,
              format_str("<ListBucketResult><Contents><Key>%s../../etc/passwd</Key><Size>1</Size></Contents>"
                         "</ListBucketResult>",
                         folder));
}

static struct counts s3_counts(struct origin *origin) {
  struct http_counts counts = http_origin_counts(origin->server);
  return (struct counts){counts.connections, counts.requests, counts.body_bytes};
}

const struct origin_ops s3_origin = {
    .upstream = &s3_upstream_ops,
    .can = HTTP_CAN | 1 << HOW_SIZELESS,
    .start = s3_start,
    .stop = s3_stop,
    .root = s3_root,
    .put = s3_put,
    .remove = s3_remove,
    .forbid = s3_forbid,
    .behave = s3_behave,
    .mislead = s3_mislead,
    .counts = s3_counts,
};
