/* Listings of containers, page by page. */
#include <stdlib.h>
#include <string.h>

#include "azure.h"
#include "base/buf.h"
#include "base/url.h"
#include "blobs.h"

#define ORIGIN    "azure"
#define PAGE_MAX  ((size_t)64 << 20) /* 5000 blobs, each with the most metadata that it may have */
#define EMPTY_MAX 1000               /* pages in a row without any blob, which there may be */

struct listing {
  struct azure *azure;
  const char *url;
  const char *marker; /* of the page that is asked for */
  char *prefix;       /* of the names; the paths follow it */
  size_t max, count;
  bool (*visit)(void *user, const mc_listed *listed);
  void *user;
  bool enough;
};

static mc_status aim(const struct http_request *request, struct http_target *target, const mc_call *call,
                     mc_error *err) {
  const struct listing *listing = request->self;
  return azure_aim(listing->azure, request, target, listing->marker, call, err);
}

static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  const struct listing *listing = request->self;
  (void)body;
  (void)call;
  return azure_judge(listing->azure, request, head, again, err);
}

static const struct http_dialect dialect = {.name = ORIGIN, .fields = AZURE_FIELDS, .aim = aim, .judge = judge};

static mc_status bad(const struct listing *listing, mc_status status, const char *what, mc_error *err) {
  char url[URL_SHOWN];
  return mc_error_set(err, status, ORIGIN, "%s: %s", url_printable(url, sizeof(url), listing->url), what);
}

static mc_status tell(struct listing *listing, const struct azure_blob *blob, mc_error *err) {
  size_t prefix = strlen(listing->prefix), size = strlen(blob->name);
  if (strncmp(blob->name, listing->prefix, prefix) != 0) {
    return bad(listing, MC_PROTOCOL, "the listing has a name that is not below it", err);
  }
  if (blob->is_folder || size == prefix || blob->name[size - 1] == '/') return MC_OK;
  mc_listed listed = {.path = blob->name + prefix, .size = blob->size, .validators = blob->validators};
  if (!path_is_safe(listed.path)) {
    return bad(listing, MC_PROTOCOL, "a name below it can't be a file's path", err);
  }
  if (listing->count == listing->max) {
    return bad(listing, MC_RESOURCE_EXHAUSTED, "there are more files below it than are allowed", err);
  }
  listing->count++;
  listing->enough = !listing->visit(listing->user, &listed);
  return MC_OK;
}

static mc_status get_page(struct azure_page *page, struct listing *listing, const mc_call *call, mc_error *err) {
  struct http_request request = {
      .method = "GET", .url = listing->url, .dialect = &dialect, .self = listing, .follow = HTTP_FOLLOW_NONE};
  struct buf body;
  buf_init(&body, PAGE_MAX);
  mc_status status = http_fetch_text(listing->azure->store.client, &request, &body, call, err);
  if (!status) status = azure_page_parse(page, body.data, body.size, err);
  buf_free(&body);
  return status;
}

static mc_status list_all(struct listing *listing, const mc_call *call, mc_error *err) {
  char *marker = NULL;
  mc_status status = MC_OK;
  bool more = true;
  for (unsigned empty = 0; !status && more && !listing->enough;) {
    struct azure_page page;
    listing->marker = marker ? marker : "";
    status = get_page(&page, listing, call, err);
    if (status) break;
    for (size_t i = 0; i < page.count && !status && !listing->enough; i++) status = tell(listing, &page.blobs[i], err);
    empty = page.count ? 0 : empty + 1;
    more = page.next != NULL;
    bool stuck = more && (empty > EMPTY_MAX || (marker && strcmp(marker, page.next) == 0));
    if (!status && stuck) status = bad(listing, MC_PROTOCOL, "the listing has no end", err);
    free(marker);
    marker = page.next;
    page.next = NULL;
    azure_page_free(&page);
  }
  free(marker);
  return status;
}

mc_status azure_list(mc_upstream *self, const char *url, size_t max, bool (*visit)(void *user, const mc_listed *listed),
                     void *user, const mc_call *call, mc_error *err) {
  struct azure_address address;
  struct listing listing = {.azure = (struct azure *)self, .url = url, .max = max, .visit = visit, .user = user};
  mc_status status = azure_address_parse(&address, url, err);
  if (status) return status;
  listing.prefix = address.blob;
  if (*address.version) {
    status = bad(&listing, MC_INVALID_ARGUMENT, "a version is of one blob, and can't be listed", err);
  } else {
    status = list_all(&listing, call, err);
  }
  if (!status && listing.count == 0) status = bad(&listing, MC_NOT_FOUND, "there is nothing below it", err);
  azure_address_free(&address);
  return status;
}
