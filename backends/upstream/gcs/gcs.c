/* gcs: objects of Google Cloud Storage, by its JSON API.
 *
 * What is there is told by an object's resource, and the generation in it is the version: it is asked for by its number
 * ever after, so that no part of another can come. An object that is stored compressed (Content-Encoding: gzip) is
 * decompressed by the service unless gzip is accepted: it is, since size and checksums are of the bytes as stored. */
#include "gcs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/text.h"
#include "base/url.h"
#include "documents.h"

#define ORIGIN     "gcs"
#define ENDPOINT   "https://storage.googleapis.com"
#define ANSWER_MAX ((size_t)1 << 20)

enum field { GENERATION, HASH }; /* of the media's dialect */

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
}

/* ---- where requests go ---- */

/* Without a scheme it is http, and a '/' at the end does not count. NULL: no memory. */
static char *endpoint_of(const char *text) {
  char *url = format_str("%s%s", strstr(text, "://") ? "" : "http://", text);
  for (size_t size = url ? strlen(url) : 0; size && url[size - 1] == '/'; size--) url[size - 1] = 0;
  return url;
}

/* An emulator's, which nobody has checked yet. */
static mc_status check_emulator(const char *endpoint, mc_error *err) {
  struct url url;
  bool good = url_parse(&url, endpoint, NULL) == MC_OK;
  bool web = good && (strcmp(url.scheme, "http") == 0 || strcmp(url.scheme, "https") == 0) && !url.query;
  if (good) url_free(&url);
  if (web) return MC_OK;
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                      "STORAGE_EMULATOR_HOST is no address of an emulator: http://HOST:PORT");
}

mc_status gcs_endpoint(char **out, const struct gcs *self, const char *url, bool *emulated, mc_error *err) {
  const mc_origin_rule *rule = http_client_rule(self->store.client, url);
  *emulated = !(rule && rule->endpoint) && self->emulator;
  *out = NULL;
  mc_status status = *emulated ? check_emulator(self->emulator, err) : MC_OK;
  if (status) return status;
  *out = endpoint_of(rule && rule->endpoint ? rule->endpoint : *emulated ? self->emulator : ENDPOINT);
  return *out ? MC_OK : no_memory(err);
}

mc_status gcs_authorize(struct gcs *self, const struct http_request *request, struct http_target *target, bool emulated,
                        const mc_call *call, mc_error *err) {
  struct keys *keys = NULL;
  if (emulated) return MC_OK;
  mc_status status = gcs_credentials_keys(self->credentials, &keys, request->url, call, err);
  if (status) return status;
  target->keys = keys;
  char *project;
  status = gcs_credentials_project(self->credentials, &project, request->url, err);
  if (status) return status;
  bool good = !keys->token || http_target_header(target, "Authorization: Bearer %s", keys->token);
  if (project && gcs_token_is_sound(project)) good &= http_target_header(target, "X-Goog-User-Project: %s", project);
  free(project);
  return good ? MC_OK : no_memory(err);
}

typedef char *make_url(const char *endpoint, const struct gcs_address *address, const char *generation);

static mc_status aim_at(make_url *make, const struct http_request *request, struct http_target *target,
                        const mc_call *call, mc_error *err) {
  struct gcs *self = request->self;
  struct gcs_address address;
  bool emulated;
  mc_status status = gcs_address_parse(&address, request->url, err);
  if (status) return status;
  bool known = request->version && request->version->validators.version[0];
  char *endpoint;
  status = gcs_endpoint(&endpoint, self, request->url, &emulated, err);
  if (!status) {
    target->url = make(endpoint, &address, known ? request->version->validators.version : address.generation);
    if (!target->url) status = no_memory(err);
  }
  free(endpoint);
  gcs_address_free(&address);
  if (status) return status;
  return gcs_authorize(self, request, target, emulated, call, err);
}

static mc_status aim_at_media(const struct http_request *request, struct http_target *target, const mc_call *call,
                              mc_error *err) {
  return aim_at(gcs_media_url, request, target, call, err);
}

static mc_status aim_at_object(const struct http_request *request, struct http_target *target, const mc_call *call,
                               mc_error *err) {
  return aim_at(gcs_object_url, request, target, call, err);
}

/* ---- what answers stand for ---- */

static mc_status refused(const struct http_request *request, const struct http_head *head,
                         const struct gcs_failure *failure, mc_error *err) {
  const struct keys *keys = request->target->keys;
  char url[URL_SHOWN];
  url_printable(url, sizeof(url), request->url);
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s: access is denied (HTTP %ld%s%s); the credentials: %.300s",
                      url, head->status, *failure->reason ? ", " : "", failure->reason,
                      keys ? keys->where : "none, of an emulator");
}

static bool is_limit(const char *reason) {
  static const char *const reasons[] = {"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "backendError"};
  size_t i = 0, count = sizeof(reasons) / sizeof(*reasons);
  while (i < count && strcmp(reasons[i], reason) != 0) i++;
  return i < count;
}

mc_status gcs_judge(struct gcs *self, const struct http_request *request, const struct http_head *head,
                    const char *body, bool *again, const mc_call *call, mc_error *err) {
  struct gcs_failure failure;
  char url[URL_SHOWN];
  const struct keys *keys = request->target->keys;
  (void)call;
  gcs_failure_parse(&failure, body);
  url_printable(url, sizeof(url), request->url);
  if (head->status == 403 && is_limit(failure.reason)) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: too much is asked of the bucket (HTTP 403, %s)", url,
                        failure.reason);
  }
  if (head->status == 400 && failure.payer) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "%s: whoever reads this bucket pays for it; set GOOGLE_CLOUD_QUOTA_PROJECT, or the key "
                        "quota_project of a rule's credentials, to the project that does",
                        url);
  }
  if (head->status == 401 && keys) *again = gcs_credentials_refuse(self->credentials, request->url, keys);
  if (head->status == 401 || head->status == 403) return refused(request, head, &failure, err);
  if (head->status == 404 && failure.no_bucket) {
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s: there is no such bucket (HTTP 404)", url);
  }
  return http_status(head, request->url, err);
}

static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  return gcs_judge(request->self, request, head, body, again, call, err);
}

/* ---- versions ---- */

/* Of a response with content. Other validators than the generation tell of the object's resource, which may change
 * without its content. The checksums are of the whole, also with a part of it. */
static void describe(const struct http_store *store, const struct http_head *head, mc_info *info,
                     struct http_version *version) {
  (void)store;
  (void)version;
  info->validators = (mc_validators){.version = ""};
  const char *generation = head->fields[GENERATION];
  size_t size = strlen(generation);
  if (size < sizeof(info->validators.version)) memcpy(info->validators.version, generation, size + 1);
  gcs_checksum_parse(&info->checksum, head->fields[HASH]);
}

static void set_version(mc_info *info, struct http_version *version, uint64_t size, const mc_validators *validators) {
  *info = (mc_info){.size = size, .validators = *validators, .ranges = true};
  *version = (struct http_version){.validators = *validators};
}

static mc_status look(struct http_store *store, const char *url, mc_info *info, struct http_version *version,
                      const mc_call *call, mc_error *err) {
  static const struct http_dialect dialect = {.name = ORIGIN, .aim = aim_at_object, .judge = judge};
  struct http_request request = {.method = "GET", .url = url, .dialect = &dialect, .self = store};
  struct gcs_address address;
  struct gcs_object object;
  char shown[URL_SHOWN];
  struct buf text;
  mc_status status = gcs_address_parse(&address, url, err);
  if (status) return status;
  bool is_object = *address.object;
  gcs_address_free(&address);
  if (!is_object) {
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN,
                        "%s is a bucket, and no file: name an object in it, or get it as a tree",
                        url_printable(shown, sizeof(shown), url));
  }
  buf_init(&text, ANSWER_MAX);
  status = http_fetch_text(store->client, &request, &text, call, err);
  if (!status) status = gcs_object_parse(&object, text.data, text.size, err);
  buf_free(&text);
  if (status) return status;
  set_version(info, version, object.size, &object.validators);
  info->checksum = object.checksum;
  gcs_object_free(&object);
  return MC_OK;
}

static bool recall(struct http_store *store, const char *url, const mc_listed *listed, mc_info *info,
                   struct http_version *version) {
  (void)store;
  (void)url;
  if (listed->size == MC_SIZE_UNKNOWN || !listed->validators.version[0]) return false;
  set_version(info, version, listed->size, &listed->validators); /* its checksum comes with the content */
  return true;
}

static const struct http_make make = {
    .dialect = {.name = ORIGIN,
                .encoding = "gzip",
                .fields = {[GENERATION] = "x-goog-generation", [HASH] = "x-goog-hash"},
                .aim = aim_at_media,
                .judge = judge},
    .trusted = true,
    .describe = describe,
    .look = look,
    .recall = recall,
};

/* ---- the upstream ---- */

static mc_status explain(mc_upstream *base, const char *url, mc_access *access, const mc_call *call, mc_error *err) {
  struct gcs *self = (struct gcs *)base;
  struct keys *keys = NULL;
  bool emulated;
  char *endpoint;
  *access = (mc_access){.endpoint = ""};
  mc_status status = gcs_endpoint(&endpoint, self, url, &emulated, err);
  if (status) return status;
  url_printable(access->endpoint, sizeof(access->endpoint), endpoint);
  free(endpoint);
  if (emulated) {
    strcpy(access->credentials, "none: STORAGE_EMULATOR_HOST is set");
    return MC_OK;
  }
  status = gcs_credentials_keys(self->credentials, &keys, url, call, err);
  if (status) return status;
  snprintf(access->credentials, sizeof(access->credentials), "%s", keys->where);
  snprintf(access->identity, sizeof(access->identity), "%s", keys->id ? keys->id : "");
  if (keys->token) access->expires_at = keys->expires_at;
  text_clean(access->credentials);
  text_clean(access->identity);
  keys_release(keys);
  return MC_OK;
}

static void gcs_close(mc_upstream *base) {
  struct gcs *self = (struct gcs *)base;
  gcs_credentials_close(self->credentials);
  http_store_end(&self->store);
  free(self->emulator);
  free(self);
}

static mc_status gcs_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err);

static const char *const schemes[] = {"gs", NULL};

extern const mc_upstream_ops gcs_upstream_ops;
const mc_upstream_ops gcs_upstream_ops = {
    .abi = MC_UPSTREAM_ABI,
    .name = ORIGIN,
    .schemes = schemes,
    .open = gcs_open,
    .close = gcs_close,
    .stat = http_store_stat,
    .source_open = http_store_open,
    .source_read = http_store_read,
    .source_finish = http_store_finish,
    .source_close = http_store_close,
    .list = gcs_list,
    .explain = explain,
};

static mc_status gcs_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  struct gcs *self = calloc(1, sizeof(*self));
  const char *emulator = getenv("STORAGE_EMULATOR_HOST");
  bool emulated = emulator && *emulator;
  if (self && emulated) self->emulator = endpoint_of(emulator);
  if (!self || (emulated && !self->emulator)) {
    free(self);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the gcs upstream");
  }
  mc_status status = http_store_init(&self->store, &gcs_upstream_ops, &make, config, err);
  if (!status) {
    status = gcs_credentials_open(&self->credentials, self->store.client, config, err);
    if (status) http_store_end(&self->store);
  }
  if (status) {
    free(self->emulator);
    free(self);
    return status;
  }
  *out = &self->store.base;
  return MC_OK;
}
