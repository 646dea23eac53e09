/* hf: files of repositories on the Hugging Face Hub, or another hub that speaks as it does. */
#include "hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/url.h"

#define ORIGIN  "hf"
#define USUALLY "https://huggingface.co"

/* The hub of the environment, or the usual one; "" if what is said there is no address; NULL: no memory. */
static char *read_endpoint(void) {
  const char *value = getenv("HF_ENDPOINT");
  struct url url;
  if (!value || !*value) return strdup(USUALLY);
  if (url_parse(&url, value, NULL)) return strdup("");
  bool web = strcmp(url.scheme, "http") == 0 || strcmp(url.scheme, "https") == 0;
  if (!web || url.query) {
    url_free(&url);
    return strdup("");
  }
  size_t size = strlen(url.text);
  while (url.text[size - 1] == '/') url.text[--size] = 0;
  return url.text;
}

static void hf_close(mc_upstream *base) {
  struct hf *self = (struct hf *)base;
  http_store_end(&self->store);
  tokens_free(self->tokens);
  memos_end(&self->links);
  memos_end(&self->commits);
  free(self->endpoint);
  free(self);
}

static mc_status hf_explain(mc_upstream *base, const char *url, mc_access *access, const mc_call *call, mc_error *err) {
  struct hf *self = (struct hf *)base;
  struct hf_address address;
  struct keys *keys = NULL;
  *access = (mc_access){0};
  mc_status status = hf_address_parse(&address, url, err);
  if (status) return status;
  hf_address_free(&address);
  const char *endpoint = hf_endpoint(self, url, err);
  status = endpoint ? tokens_get(self->tokens, &keys, url, call, err) : MC_INVALID_ARGUMENT;
  if (status) return status;
  size_t site = (size_t)(strstr(endpoint, "://") + 3 - endpoint);
  site += strcspn(endpoint + site, "/");
  snprintf(access->endpoint, sizeof(access->endpoint), "%.*s", (int)site, endpoint);
  snprintf(access->credentials, sizeof(access->credentials), "%s", keys->where);
  keys_release(keys);
  return MC_OK;
}

static mc_status hf_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err);

static const char *const schemes[] = {"hf", NULL};

extern const mc_upstream_ops hf_upstream_ops;
const mc_upstream_ops hf_upstream_ops = {
    .abi = MC_UPSTREAM_ABI,
    .name = ORIGIN,
    .schemes = schemes,
    .open = hf_open,
    .close = hf_close,
    .stat = http_store_stat,
    .source_open = http_store_open,
    .source_read = http_store_read,
    .source_finish = http_store_finish,
    .source_close = http_store_close,
    .list = hf_list,
    .explain = hf_explain,
};

static mc_status hf_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  struct hf *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the hf upstream");
  self->endpoint = read_endpoint();
  mc_status status = self->endpoint ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the hf upstream");
  if (!status) status = tokens_new(&self->tokens, config, err);
  if (!status) status = http_store_init(&self->store, &hf_upstream_ops, &hf_make, config, err);
  if (status) {
    tokens_free(self->tokens);
    free(self->endpoint);
    free(self);
    return status;
  }
  memos_init(&self->links);
  memos_init(&self->commits);
  *out = &self->store.base;
  return MC_OK;
}
