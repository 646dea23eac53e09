/* s3: buckets of Amazon S3, and of the many servers that speak as it does. */
#include "s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/url.h"

#define ORIGIN "s3"

static mc_status aim(const struct http_request *request, struct http_target *target, const mc_call *call,
                     mc_error *err) {
  static const struct s3_header checksums = {"x-amz-checksum-mode", "ENABLED"}; /* they are told to who asks */
  const char *etag = request->version ? request->version->validators.etag : "";
  if (*etag && strncmp(etag, "W/", 2) != 0 && !http_target_header(target, "If-Match: %s", etag)) {
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
  }
  return s3_aim(request->self, request, NULL, &checksums, target, call, err);
}

static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  return s3_judge(request->self, request, head, body, again, call, err);
}

/* An ETag is no MD5 that could be checked: not of what was sent in parts, nor of what is encrypted by a key. */
static void describe(const struct http_store *self, const struct http_head *head, mc_info *info,
                     struct http_version *version) {
  const char *id = head->fields[S3_FIELD_VERSION];
  bool composite = strcmp(head->fields[S3_FIELD_CHECKSUM_TYPE], "COMPOSITE") == 0;
  (void)self;
  (void)version;
  /* "null" is the one of each key in a bucket that keeps no versions any more. */
  if (strcmp(id, "null") != 0 && strlen(id) < sizeof(info->validators.version)) strcpy(info->validators.version, id);
  if (composite) info->has_digest = false;
  /* Of the whole object: what is made of the parts' own ends in "-3", or is said to be COMPOSITE. */
  const char *crc = head->fields[S3_FIELD_CRC32C];
  if (!composite && head->status == 200) checksum_read(&info->checksum, MC_CHECKSUM_CRC32C, crc, strlen(crc));
}

static bool recall(struct http_store *self, const char *url, const mc_listed *listed, mc_info *info,
                   struct http_version *version) {
  (void)self;
  (void)url;
  if (listed->size == MC_SIZE_UNKNOWN || !listed->validators.etag[0]) return false;
  *info = (mc_info){.size = listed->size, .validators = listed->validators, .ranges = true};
  *version = (struct http_version){.validators = listed->validators};
  return true;
}

static const struct http_make make = {
    .dialect = {.name = ORIGIN, .fields = S3_FIELDS, .aim = aim, .judge = judge},
    .trusted = true,
    .head_follows = HTTP_FOLLOW_NONE,
    .get_follows = HTTP_FOLLOW_NONE,
    .describe = describe,
    .recall = recall,
};

static mc_status s3_explain(mc_upstream *base, const char *url, mc_access *access, const mc_call *call, mc_error *err) {
  struct s3 *self = (struct s3 *)base;
  struct s3_route route;
  struct keys *keys = NULL;
  *access = (mc_access){.endpoint = ""};
  mc_status status = s3_route_find(&route, self, url, err);
  if (!status) status = s3_source_keys(route.source, &keys, call, err);
  char *at = status ? NULL : s3_address_url(&route.address, NULL, route.endpoint, route.region, route.style);
  if (at) {
    const char *host = strstr(at, "://") + 3;
    snprintf(access->endpoint, sizeof(access->endpoint), "%.*s", (int)(host - at) + (int)strcspn(host, "/"), at);
    snprintf(access->credentials, sizeof(access->credentials), "%s", keys->where);
    snprintf(access->identity, sizeof(access->identity), "%s", keys->id ? keys->id : "");
    access->expires_at = keys->id ? keys->expires_at : 0;
  } else if (!status) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an address");
  }
  free(at);
  keys_release(keys);
  s3_route_end(&route);
  return status;
}

static void s3_close(mc_upstream *base) {
  struct s3 *self = (struct s3 *)base;
  s3_vault_free(self->vault);
  http_store_end(&self->store);
  s3_regions_end(&self->regions);
  free(self);
}

static mc_status s3_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err);

static const char *const schemes[] = {"s3", NULL};

extern const mc_upstream_ops s3_upstream_ops;
const mc_upstream_ops s3_upstream_ops = {
    .abi = MC_UPSTREAM_ABI,
    .name = ORIGIN,
    .schemes = schemes,
    .open = s3_open,
    .close = s3_close,
    .stat = http_store_stat,
    .source_open = http_store_open,
    .source_read = http_store_read,
    .source_finish = http_store_finish,
    .source_close = http_store_close,
    .list = s3_list,
    .explain = s3_explain,
};

static mc_status s3_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  struct s3 *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the s3 upstream");
  mc_status status = http_store_init(&self->store, &s3_upstream_ops, &make, config, err);
  if (status) {
    free(self);
    return status;
  }
  s3_regions_init(&self->regions);
  status = s3_vault_new(&self->vault, config, self->store.client, err);
  if (status) {
    s3_close(&self->store.base);
    return status;
  }
  *out = &self->store.base;
  return MC_OK;
}
