/* Google Cloud Storage in small: its JSON API over http_origin's pages. Each object has two, its content and its
 * resource, and each prefix that is listed has one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "http_origin.h"
#include "upstream_origins.h"

extern const mc_upstream_ops gcs_upstream_ops;

#define BUCKET    "bucket"
#define SERVICE   "/storage/v1/b/" BUCKET "/o"
#define MAX_FILES 32
#define MAX_TEXTS 1024
#define TEXT_MAX  ((size_t)1 << 16)

struct origin {
  struct http_origin *server;
  mc_origin_rule rule;
  char endpoint[64];
  char *texts[MAX_TEXTS]; /* resources and listings that were served at some time */
  unsigned text_count, count;
  struct object {
    char *name;
    const struct thing *thing;
    unsigned version;
  } objects[MAX_FILES];
};

static void must(bool holds) {
  if (!holds) abort();
}

/* ---- targets and paths ---- */

/* "/download" SERVICE "/NAME?alt=media&generation=N", SERVICE "/NAME?fields=…", SERVICE "?…&prefix=NAME": names are
 * kept as they are written there, in "/content/NAME", "/resource/NAME", "/list/NAME". */
static bool read_target(struct http_asked *out, const char *target) {
  static const char download[] = "/download", service[] = SERVICE;
  bool content = strncmp(target, download, strlen(download)) == 0;
  if (content) target += strlen(download);
  if (strncmp(target, service, strlen(service)) != 0) return false;
  target += strlen(service);
  const char *query = strchr(target, '?'), *prefix = strstr(target, "&prefix="),
             *generation = strstr(target, "&generation=");
  out->about = !content;
  if (content && generation) out->version = (unsigned)strtoul(generation + 12, NULL, 10);
  if (*target == '/' && query) {
    snprintf(out->path, sizeof(out->path), "/%s%.*s", content ? "content" : "resource", (int)(query - target), target);
  } else if (prefix) {
    snprintf(out->path, sizeof(out->path), "/list/%s", prefix + strlen("&prefix="));
  } else {
    return false;
  }
  return true;
}

/* Malloced. */
static char *path_of(const char *kind, const char *name) {
  struct buf path;
  buf_init(&path, TEXT_MAX);
  buf_printf(&path, "/%s/", kind);
  for (const char *c = name; *c; c++) {
    bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("-._~", *c);
    if (plain) buf_append(&path, c, 1);
    if (!plain) buf_printf(&path, "%%%02X", (unsigned char)*c);
  }
  return buf_take(&path);
}

/* ---- documents ---- */

static void put_text(struct origin *origin, const char *kind, const char *name, char *text) {
  char *path = path_of(kind, name);
  must(path && text && origin->text_count < MAX_TEXTS);
  origin->texts[origin->text_count++] = text;
  http_origin_put(origin->server, path, text, strlen(text));
  free(path);
}

/* No name of the tests has what JSON would escape. */
static char *resource_of(const struct object *object, const char *name, uint64_t more) {
  return format_str("{\"name\": \"%s\", \"size\": \"%llu\", \"generation\": \"%u\", \"updated\": "
                    "\"2024-05-06T07:08:09.123Z\"}",
                    name, (unsigned long long)(object->thing->size + more), object->version);
}

static void put_listing(struct origin *origin, const char *prefix) {
  struct buf text;
  buf_init(&text, TEXT_MAX);
  buf_append_str(&text, "{\"kind\": \"storage#objects\", \"items\": [");
  const char *comma = "";
  for (unsigned i = 0; i < origin->count; i++) {
    const struct object *object = &origin->objects[i];
    if (strncmp(object->name, prefix, strlen(prefix)) != 0) continue;
    char *resource = resource_of(object, object->name, 0);
    buf_printf(&text, "%s%s", comma, resource);
    comma = ", ";
    free(resource);
  }
  buf_append_str(&text, "]}");
  put_text(origin, "list", prefix, buf_take(&text));
}

static struct object *find(struct origin *origin, const char *name) {
  for (unsigned i = 0; i < origin->count; i++) {
    if (strcmp(origin->objects[i].name, name) == 0) return &origin->objects[i];
  }
  return NULL;
}

/* ---- the origin ---- */

static struct origin *gcs_start(mc_upstream_config *config) {
  static const struct http_face face = {read_target, "X-Goog-Generation", 1, NULL};
  struct origin *origin = calloc(1, sizeof(*origin));
  must(origin != NULL);
  origin->server = http_origin_start();
  http_origin_speak(origin->server, &face);
  snprintf(origin->endpoint, sizeof(origin->endpoint), "http://127.0.0.1:%u", http_origin_port(origin->server));
  origin->rule = (mc_origin_rule)MC_ORIGIN_RULE_INIT;
  origin->rule.prefix = "gs://";
  origin->rule.endpoint = origin->endpoint;
  origin->rule.credentials = "none";
  config->origins = &origin->rule;
  config->origin_count = 1;
  return origin;
}

static void gcs_stop(struct origin *origin) {
  http_origin_stop(origin->server);
  while (origin->text_count) free(origin->texts[--origin->text_count]);
  while (origin->count) free(origin->objects[--origin->count].name);
  free(origin);
}

static const char *gcs_root(const struct origin *origin) {
  (void)origin;
  return "gs://" BUCKET "/";
}

static void gcs_put(struct origin *origin, const char *name, const struct thing *thing) {
  char *path = path_of("content", name);
  struct object *object = find(origin, name);
  if (!object) {
    must(origin->count < MAX_FILES);
    object = &origin->objects[origin->count++];
    object->name = strdup(name);
  }
  object->thing = thing;
  object->version = http_origin_put(origin->server, path, thing->data, thing->size);
  put_text(origin, "resource", name, resource_of(object, name, 0));
  for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
    char *prefix = format_str("%.*s", (int)(slash + 1 - name), name);
    put_listing(origin, prefix);
    free(prefix);
  }
  free(path);
}

static void gcs_remove(struct origin *origin, const char *name) {
  static const char *const kinds[] = {"content", "resource"};
  struct object *object = find(origin, name);
  must(object != NULL);
  for (size_t i = 0; i < 2; i++) {
    char *path = path_of(kinds[i], name);
    http_origin_remove(origin->server, path);
    free(path);
  }
  free(object->name);
  *object = origin->objects[--origin->count];
}

static void set(struct origin *origin, const char *kind, const char *name, const struct http_behaviour *behaviour) {
  char *path = path_of(kind, name);
  http_origin_behave(origin->server, path, behaviour);
  free(path);
}

static void gcs_forbid(struct origin *origin, const char *name) {
  set(origin, "resource", name, &(struct http_behaviour){.status = 403});
}

static void gcs_behave(struct origin *origin, const char *name, enum how how, uint64_t at, unsigned times) {
  struct http_behaviour behaviour = http_behaviour_of(how, at, times, 0);
  const struct object *object = find(origin, name);
  if (!object) { /* a folder */
    set(origin, "list", name, &behaviour);
    return;
  }
  set(origin, "content", name, &behaviour);
  bool both = how == HOW_SILENT || how == HOW_FAILING || how == HOW_LOOPING || how == HOW_MISLED;
  if (both) set(origin, "resource", name, &behaviour);
  uint64_t more = how == HOW_SAID_MORE ? 1000 : how == HOW_SAID_LESS ? (uint64_t)-1000 : 0;
  if (!both) put_text(origin, "resource", name, resource_of(object, name, more));
}

static void gcs_mislead(struct origin *origin, const char *folder) {
  static const struct thing nothing = {.size = 0};
  struct object object = {.thing = &nothing, .version = 1};
  char *name = format_str("%s../../etc/passwd", folder), *resource = resource_of(&object, name, 0);
  put_text(origin, "list", folder, format_str("{\"items\": [%s]}", resource));
  free(name);
  free(resource);
}

static struct counts gcs_counts(struct origin *origin) {
  struct http_counts counts = http_origin_counts(origin->server);
  return (struct counts){counts.connections, counts.requests, counts.body_bytes};
}

const struct origin_ops gcs_origin = {
    .upstream = &gcs_upstream_ops,
    .can = HTTP_CAN,
    .start = gcs_start,
    .stop = gcs_stop,
    .root = gcs_root,
    .put = gcs_put,
    .remove = gcs_remove,
    .forbid = gcs_forbid,
    .behave = gcs_behave,
    .mislead = gcs_mislead,
    .counts = gcs_counts,
};
