/* Azure's Blob service in small, over http_origin's pages: one for each blob, and one for each prefix that is listed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/upstream/azure/address.h"
#include "base/buf.h"
#include "base/io.h"
#include "base/url.h"
#include "http_origin.h"
#include "upstream_origins.h"

extern const mc_upstream_ops azure_upstream_ops;

#define ROOT      "as://account/container/"
#define MAX_FILES 32
#define MAX_TEXTS 1024
#define TEXT_MAX  ((size_t)1 << 16)

struct origin {
  struct http_origin *server;
  mc_origin_rule rule;
  char endpoint[64];
  char *texts[MAX_TEXTS]; /* listings that were served at some time */
  unsigned text_count, count;
  struct blob {
    char *name;
    const struct thing *thing;
    unsigned version;
  } blobs[MAX_FILES];
};

static void must(bool holds) {
  if (!holds) abort();
}

/* The target of requests for a blob, or for what begins with it; malloced. */
static char *target_of(const char *name, bool list) {
  struct azure_address address;
  char *url = url_join(ROOT, name);
  must(url && azure_address_parse(&address, url, NULL) == MC_OK);
  char *target = list ? azure_list_url("/account", &address, "") : azure_blob_url("/account", &address);
  must(target != NULL);
  azure_address_free(&address);
  free(url);
  return target;
}

/* ---- listings ---- */

static void put_listing(struct origin *origin, const char *prefix, char *text) {
  char *target = target_of(prefix, true);
  must(text && origin->text_count < MAX_TEXTS);
  origin->texts[origin->text_count++] = text;
  http_origin_put(origin->server, target, text, strlen(text));
  free(target);
}

static void append_blob(struct buf *text, const struct blob *blob) {
  buf_append_str(text, "<Blob><Name>");
  for (const char *c = blob->name; *c; c++) buf_printf(text, strchr("&<", *c) ? "&#%d;" : "%c", *c);
  buf_printf(text, "</Name><Properties><Etag>v%u</Etag><Content-Length>%zu</Content-Length></Properties></Blob>",
             blob->version, blob->thing->size);
}

static void list(struct origin *origin, const char *prefix) {
  struct buf text;
  buf_init(&text, TEXT_MAX);
  buf_append_str(&text, "<EnumerationResults><Blobs>");
  for (unsigned i = 0; i < origin->count; i++) {
    const struct blob *blob = &origin->blobs[i];
    if (strncmp(blob->name, prefix, strlen(prefix)) == 0) append_blob(&text, blob);
  }
  buf_append_str(&text, "</Blobs><NextMarker/></EnumerationResults>");
  put_listing(origin, prefix, buf_take(&text));
}

static void azure_mislead(struct origin *origin, const char *folder) {
  put_listing(origin, folder,
              format_str("<EnumerationResults><Blobs><Blob><Name>%s../../etc/passwd</Name></Blob></Blobs>"
                         "</EnumerationResults>",
                         folder));
}

/* ---- the origin ---- */

static struct origin *azure_start(mc_upstream_config *config) {
  static const mc_setting settings[] = {{"account_key", "a2V5"}};
  static const mc_credentials named = {"key", settings, 1};
  struct origin *origin = calloc(1, sizeof(*origin));
  must(origin != NULL);
  origin->server = http_origin_start();
  snprintf(origin->endpoint, sizeof(origin->endpoint), "http://127.0.0.1:%u", http_origin_port(origin->server));
  origin->rule = (mc_origin_rule)MC_ORIGIN_RULE_INIT;
  origin->rule.prefix = "as://";
  origin->rule.endpoint = origin->endpoint;
  origin->rule.credentials = "key";
  config->origins = &origin->rule;
  config->origin_count = 1;
  config->credentials = &named;
  config->credentials_count = 1;
  return origin;
}

static void azure_stop(struct origin *origin) {
  http_origin_stop(origin->server);
  while (origin->text_count) free(origin->texts[--origin->text_count]);
  while (origin->count) free(origin->blobs[--origin->count].name);
  free(origin);
}

static const char *azure_root(const struct origin *origin) {
  (void)origin;
  return ROOT;
}

static unsigned find(const struct origin *origin, const char *name) {
  unsigned i = 0;
  while (i < origin->count && strcmp(origin->blobs[i].name, name) != 0) i++;
  return i;
}

static void azure_put(struct origin *origin, const char *name, const struct thing *thing) {
  unsigned i = find(origin, name);
  must(i < MAX_FILES);
  struct blob *blob = &origin->blobs[i];
  if (i == origin->count) origin->blobs[origin->count++].name = strdup(name);
  char *target = target_of(name, false);
  blob->version = http_origin_put(origin->server, target, thing->data, thing->size);
  blob->thing = thing;
  free(target);
  for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
    char *prefix = format_str("%.*s", (int)(slash + 1 - name), name);
    list(origin, prefix);
    free(prefix);
  }
}

static void azure_remove(struct origin *origin, const char *name) {
  char *target = target_of(name, false);
  http_origin_remove(origin->server, target);
  free(target);
  unsigned i = find(origin, name);
  free(origin->blobs[i].name);
  origin->blobs[i] = origin->blobs[--origin->count];
}

static void set(struct origin *origin, const char *name, const struct http_behaviour *behaviour) {
  char *target = target_of(name, find(origin, name) == origin->count);
  http_origin_behave(origin->server, target, behaviour);
  free(target);
}

static void azure_forbid(struct origin *origin, const char *name) {
  set(origin, name, &(struct http_behaviour){.status = 403});
}

static void azure_behave(struct origin *origin, const char *name, enum how how, uint64_t at, unsigned times) {
  unsigned i = find(origin, name);
  uint64_t size = i < origin->count ? origin->blobs[i].thing->size : 0;
  struct http_behaviour behaviour = http_behaviour_of(how, at, times, size);
  set(origin, name, &behaviour);
}

static struct counts azure_counts(struct origin *origin) {
  struct http_counts counts = http_origin_counts(origin->server);
  return (struct counts){counts.connections, counts.requests, counts.body_bytes};
}

const struct origin_ops azure_origin = {
    .upstream = &azure_upstream_ops,
    .can = HTTP_CAN,
    .start = azure_start,
    .stop = azure_stop,
    .root = azure_root,
    .put = azure_put,
    .remove = azure_remove,
    .forbid = azure_forbid,
    .behave = azure_behave,
    .mislead = azure_mislead,
    .counts = azure_counts,
};
