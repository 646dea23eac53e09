/* Listings: pages of the objects below a prefix. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/url.h"
#include "documents.h"
#include "gcs.h"

#define ORIGIN   "gcs"
#define PAGE_MAX ((size_t)16 << 20)

struct listing {
  struct gcs *gcs;
  struct gcs_address address; /* its object is the prefix */
  char *next;                 /* the token of the page to get; NULL: the first */
  size_t max, files;
  bool (*visit)(void *user, const mc_listed *listed);
  void *user;
  bool any, stopped;
};

/* ---- requests ---- */

static mc_status aim(const struct http_request *request, struct http_target *target, const mc_call *call,
                     mc_error *err) {
  struct listing *listing = request->self;
  bool emulated;
  char *endpoint;
  mc_status status = gcs_endpoint(&endpoint, listing->gcs, request->url, &emulated, err);
  if (status) return status;
  target->url = gcs_list_url(endpoint, &listing->address, listing->next);
  free(endpoint);
  if (!target->url) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  return gcs_authorize(listing->gcs, request, target, emulated, call, err);
}

static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  struct listing *listing = request->self;
  return gcs_judge(listing->gcs, request, head, body, again, call, err);
}

static const struct http_dialect dialect = {.name = ORIGIN, .aim = aim, .judge = judge};

static mc_status get_page(struct gcs_page *page, struct listing *listing, const char *url, const mc_call *call,
                          mc_error *err) {
  struct buf text;
  struct http_request request = {.method = "GET", .url = url, .dialect = &dialect, .self = listing};
  buf_init(&text, PAGE_MAX);
  mc_status status = http_fetch_text(listing->gcs->store.client, &request, &text, call, err);
  if (!status) status = gcs_page_parse(page, text.data, text.size, err);
  buf_free(&text);
  return status;
}

/* ---- what they hold ---- */

/* A name that ends in '/' marks a folder, and is no file. */
static mc_status take(struct listing *listing, const struct gcs_object *object, mc_error *err) {
  size_t prefix = strlen(listing->address.object), size = strlen(object->name);
  if (size < prefix || memcmp(object->name, listing->address.object, prefix) != 0) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the storage service lists an object that was not asked for");
  }
  listing->any = true;
  if (object->name[size - 1] == '/') return MC_OK;
  const char *path = object->name + prefix;
  if (!path_is_safe(path)) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "an object's name can't be used as a path: %.200s", path);
  }
  if (listing->files++ == listing->max) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN,
                        "the tree has more than %zu files; the option tree_files is the limit", listing->max);
  }
  mc_listed listed = {.path = path, .size = object->size, .validators = object->validators};
  listing->stopped = !listing->visit(listing->user, &listed);
  return MC_OK;
}

static mc_status take_page(struct listing *listing, struct gcs_page *page, mc_error *err) {
  mc_status status = MC_OK;
  for (size_t i = 0; i < page->count && !status && !listing->stopped; i++) {
    status = take(listing, &page->objects[i], err);
  }
  if (!status && listing->next && page->next && strcmp(listing->next, page->next) == 0) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the storage service gives the same page of a listing again");
  }
  free(listing->next);
  listing->next = page->next;
  page->next = NULL;
  gcs_page_free(page);
  return status;
}

mc_status gcs_list(mc_upstream *base, const char *url, size_t max, bool (*visit)(void *user, const mc_listed *listed),
                   void *user, const mc_call *call, mc_error *err) {
  struct listing listing = {.gcs = (struct gcs *)base, .max = max, .visit = visit, .user = user};
  char shown[URL_SHOWN];
  mc_status status = gcs_address_parse(&listing.address, url, err);
  if (status) return status;
  size_t size = strlen(listing.address.object);
  url_printable(shown, sizeof(shown), url);
  if (listing.address.generation[0]) {
    status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s: only an object has a generation", shown);
  } else if (size && listing.address.object[size - 1] != '/') {
    status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the URL of a tree ends in '/'");
  }
  bool more = !status;
  while (more) {
    struct gcs_page page;
    status = get_page(&page, &listing, url, call, err);
    if (!status) status = take_page(&listing, &page, err);
    more = !status && listing.next && !listing.stopped;
  }
  if (!status && !listing.any) status = mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s: nothing is below it", shown);
  free(listing.next);
  gcs_address_free(&listing.address);
  return status;
}
