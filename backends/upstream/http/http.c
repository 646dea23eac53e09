/* http: files of web servers. */
#include "http.h"

#include <stdlib.h>

#include "store.h"

#define ORIGIN "http"

/* Web servers: nothing can be taken for granted. */
static const struct http_make make = {.dialect = {.name = ORIGIN}, .head_follows = HTTP_FOLLOW};

static void http_close(mc_upstream *base) {
  http_store_end((struct http_store *)base);
  free(base);
}

static mc_status http_list(mc_upstream *self, const char *url, size_t max,
                           bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                           mc_error *err) {
  return http_list_index(((struct http_store *)self)->client, url, max, visit, user, call, err);
}

static mc_status http_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err);

static const char *const schemes[] = {"http", "https", NULL};

extern const mc_upstream_ops http_upstream_ops;
const mc_upstream_ops http_upstream_ops = {
    .abi = MC_UPSTREAM_ABI,
    .name = ORIGIN,
    .schemes = schemes,
    .open = http_open,
    .close = http_close,
    .stat = http_store_stat,
    .source_open = http_store_open,
    .source_read = http_store_read,
    .source_finish = http_store_finish,
    .source_close = http_store_close,
    .list = http_list,
};

static mc_status http_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  struct http_store *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the http upstream");
  mc_status status = http_store_init(self, &http_upstream_ops, &make, config, err);
  if (status) {
    free(self);
    return status;
  }
  *out = &self->base;
  return MC_OK;
}
