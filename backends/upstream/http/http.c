/* http: files of web servers. */
#include "http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/origin.h"
#include "base/text.h"
#include "base/url.h"
#include "login.h"
#include "store.h"

#define ORIGIN "http"

struct http {
  struct http_store store; /* first */
  struct keybook *book;
};

/* ---- credentials ---- */

static mc_status aim(const struct http_request *request, struct http_target *target, const mc_call *call,
                     mc_error *err) {
  struct http *self = request->self;
  struct keybook_page page;
  (void)call;
  mc_status status = keybook_find(self->book, &page, request->url, err);
  return status || page.place != KEYBOOK_RULE ? status : http_login(target, &page, err);
}

/* A refusal says which credentials it is of. */
static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  struct http *self = request->self;
  struct keybook_page page;
  char url[URL_SHOWN];
  (void)body;
  (void)again;
  (void)call;
  bool refused = (head->status == 401 || head->status == 403) &&
                 keybook_find(self->book, &page, request->url, NULL) == MC_OK && page.place == KEYBOOK_RULE;
  if (!refused) return http_status(head, request->url, err);
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                      "%s: the origin refuses access (HTTP %ld); the credentials: %s",
                      url_printable(url, sizeof(url), request->url), head->status, page.where);
}

static mc_status explain(mc_upstream *base, const char *url, mc_access *access, const mc_call *call, mc_error *err) {
  struct http *self = (struct http *)base;
  struct keybook_page page;
  *access = (mc_access){.endpoint = ""};
  mc_status status = mc_call_check(call, err);
  if (!status) status = keybook_find(self->book, &page, url, err);
  if (status) return status;
  const char *authority = strstr(url, "://"), *user = origin_setting(page.credentials, "user");
  int size = authority ? (int)(authority - url + 3 + (ptrdiff_t)strcspn(authority + 3, "/?#")) : 0;
  snprintf(access->endpoint, sizeof(access->endpoint), "%.*s", size, url);
  snprintf(access->credentials, sizeof(access->credentials), "%s",
           page.place == KEYBOOK_NOTHING ? "none: no rule names any" : page.where);
  snprintf(access->identity, sizeof(access->identity), "%s", user ? user : "");
  text_clean(access->endpoint);
  text_clean(access->credentials);
  text_clean(access->identity);
  return MC_OK;
}

/* ---- the upstream ---- */

/* Web servers: nothing can be taken for granted. */
static const struct http_make make = {.dialect = {.name = ORIGIN, .aim = aim, .judge = judge},
                                      .head_follows = HTTP_FOLLOW};

static void http_close(mc_upstream *base) {
  struct http *self = (struct http *)base;
  http_store_end(&self->store);
  keybook_free(self->book);
  free(self);
}

static mc_status http_list(mc_upstream *self, const char *url, size_t max,
                           bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                           mc_error *err) {
  return http_list_index((struct http_store *)self, url, max, visit, user, call, err);
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
    .explain = explain,
};

static mc_status http_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  struct http *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the http upstream");
  mc_status status = keybook_new(&self->book, config, NULL, err);
  if (!status) status = http_login_check(config, self->book, err);
  if (!status) status = http_store_init(&self->store, &http_upstream_ops, &make, config, err);
  if (status) {
    keybook_free(self->book);
    free(self);
    return status;
  }
  *out = &self->store.base;
  return MC_OK;
}
