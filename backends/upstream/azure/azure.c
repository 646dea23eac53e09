/* azure: blobs of Azure's storage accounts. */
#include "azure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/url.h"
#include "blobs.h"

#define ORIGIN "azure"

static struct azure *azure_of(const mc_upstream *base) {
  return (struct azure *)(uintptr_t)base;
}

static mc_status aim(const struct http_request *request, struct http_target *target, const mc_call *call,
                     mc_error *err) {
  return azure_aim(request->self, request, target, NULL, call, err);
}

static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  (void)body;
  (void)call;
  return azure_judge(request->self, request, head, again, err);
}

static void describe(const struct http_store *self, const struct http_head *head, mc_info *info,
                     struct http_version *version) {
  (void)self;
  (void)version;
  const char *id = head->fields[FIELD_VERSION];
  /* Content-MD5 of a part is the part's. */
  bool of_part = head->status == 206 && !*head->fields[FIELD_BLOB_MD5];
  azure_md5_parse(&info->checksum, head->fields[*head->fields[FIELD_BLOB_MD5] ? FIELD_BLOB_MD5 : FIELD_MD5]);
  if (of_part) info->checksum = (mc_checksum){.kind = MC_CHECKSUM_NONE};
  if (strlen(id) < sizeof(info->validators.version)) strcpy(info->validators.version, id);
}

/* Accounts with folders of their own show these as blobs without content. */
static bool is_folder(const struct http_head *head) {
  return strcmp(head->fields[FIELD_TYPE], "directory") == 0 || strcmp(head->fields[FIELD_IS_FOLDER], "true") == 0;
}

static mc_status look(struct http_store *store, const char *url, mc_info *info, struct http_version *version,
                      const mc_call *call, mc_error *err) {
  struct http_request request = {
      .method = "HEAD", .url = url, .dialect = &store->make->dialect, .self = store, .follow = HTTP_FOLLOW_NONE};
  struct http_head head;
  mc_status status = http_fetch(store->client, &request, &head, call, err);
  if (status) return status;
  if (is_folder(&head)) {
    char text[URL_SHOWN];
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s is a folder, not a blob",
                        url_printable(text, sizeof(text), url));
  }
  http_store_describe(store, &head, info, version);
  return MC_OK;
}

static bool recall(struct http_store *self, const char *url, const mc_listed *listed, mc_info *info,
                   struct http_version *version) {
  (void)self;
  (void)url;
  if (listed->size == MC_SIZE_UNKNOWN || !listed->validators.etag[0]) return false;
  *info = (mc_info){.size = listed->size, .validators = listed->validators, .ranges = true};
  version->validators = listed->validators;
  return true;
}

static const struct http_make make = {
    .dialect = {.name = ORIGIN, .fields = AZURE_FIELDS, .aim = aim, .judge = judge},
    .trusted = true,
    .head_follows = HTTP_FOLLOW_NONE,
    .get_follows = HTTP_FOLLOW_NONE,
    .describe = describe,
    .look = look,
    .recall = recall,
};

static mc_status explain(mc_upstream *base, const char *url, mc_access *out, const mc_call *call, mc_error *err) {
  struct azure_address address;
  struct azure_access access;
  *out = (mc_access){.expires_at = 0};
  mc_status status = azure_address_parse(&address, url, err);
  if (status) return status;
  status = azure_access_find(&access, azure_of(base)->credentials, url, &address, call, err);
  if (!status) {
    const struct keys *keys = access.keys;
    snprintf(out->endpoint, sizeof(out->endpoint), "%.*s", (int)(strcspn(access.endpoint + 8, "/") + 8),
             access.endpoint);
    snprintf(out->credentials, sizeof(out->credentials), "%s", keys->where);
    snprintf(out->identity, sizeof(out->identity), "%s", keys->id ? keys->id : keys->secret ? address.account : "");
    if (keys->secret || keys->token) out->expires_at = keys->expires_at; /* else it is when to look again */
    azure_access_end(&access);
  }
  azure_address_free(&address);
  return status;
}

static void azure_close(mc_upstream *base) {
  struct azure *self = azure_of(base);
  azure_credentials_free(self->credentials);
  http_store_end(&self->store);
  free(self);
}

static mc_status azure_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err);

static const char *const schemes[] = {"as", NULL};

extern const mc_upstream_ops azure_upstream_ops;
const mc_upstream_ops azure_upstream_ops = {
    .abi = MC_UPSTREAM_ABI,
    .name = ORIGIN,
    .schemes = schemes,
    .open = azure_open,
    .close = azure_close,
    .stat = http_store_stat,
    .source_open = http_store_open,
    .source_read = http_store_read,
    .source_finish = http_store_finish,
    .source_close = http_store_close,
    .list = azure_list,
    .explain = explain,
};

static mc_status azure_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  struct azure *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the azure upstream");
  mc_status status = http_store_init(&self->store, &azure_upstream_ops, &make, config, err);
  if (status) {
    free(self);
    return status;
  }
  status = azure_credentials_new(&self->credentials, self->store.client, config, err);
  if (status) {
    azure_close(&self->store.base);
    return status;
  }
  *out = &self->store.base;
  return MC_OK;
}
