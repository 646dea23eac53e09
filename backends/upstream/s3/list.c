/* Listings: ListObjectsV2, page after page, of all keys that begin as the folder does. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/url.h"
#include "page.h"
#include "s3.h"

#define ORIGIN      "s3"
#define PAGE_BYTES  ((size_t)16 << 20) /* a thousand keys, each of up to 1024 bytes, three times as long in escapes */
#define EMPTY_PAGES 1000               /* in a row: of what was deleted there may be some */

struct listing {
  struct s3 *s3;
  const char *url, *prefix;
  char *next; /* NULL: the first page */
  size_t max, files;
  bool any; /* key, if only the folder's own */
  bool (*visit)(void *user, const mc_listed *listed);
  void *user;
  bool stopped;
};

static mc_status aim(const struct http_request *request, struct http_target *target, const mc_call *call,
                     mc_error *err) {
  struct listing *listing = request->self;
  struct buf query;
  buf_init(&query, (size_t)4 * URL_MAX);
  if (listing->next) {
    buf_append_str(&query, "continuation-token=");
    s3_escape(&query, listing->next, false);
    buf_append_str(&query, "&");
  }
  buf_append_str(&query, "encoding-type=url&list-type=2&prefix=");
  s3_escape(&query, listing->prefix, false);
  mc_status status = query.failed ? mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a listing")
                                  : s3_aim(listing->s3, request, query.data, NULL, target, call, err);
  buf_free(&query);
  return status;
}

static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  struct listing *listing = request->self;
  return s3_judge(listing->s3, request, head, body, again, call, err);
}

static const struct http_dialect dialect = {.name = ORIGIN, .fields = S3_FIELDS, .aim = aim, .judge = judge};

static mc_status take(struct listing *listing, const struct s3_object *object, mc_error *err) {
  size_t size = strlen(listing->prefix), length = strlen(object->key);
  if (strncmp(object->key, listing->prefix, size) != 0) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service lists a key that is not below the folder: %.100s",
                        object->key);
  }
  listing->any = true;
  if (length == 0 || object->key[length - 1] == '/') return MC_OK; /* stands for a folder */
  mc_listed listed = {.path = object->key + size, .size = object->size, .validators.last_modified = object->modified};
  if (!path_is_safe(listed.path)) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "a key of the bucket can't be a file's path: %.100s", object->key);
  }
  if (listing->files++ == listing->max) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN,
                        "the tree has more than %zu files; the option tree_files is the limit", listing->max);
  }
  if (object->etag && strlen(object->etag) < sizeof(listed.validators.etag)) {
    strcpy(listed.validators.etag, object->etag);
  }
  listing->stopped = !listing->visit(listing->user, &listed);
  return MC_OK;
}

static mc_status get_page(struct s3_page *page, struct listing *listing, const mc_call *call, mc_error *err) {
  struct buf text;
  struct http_request request = {
      .method = "GET", .url = listing->url, .dialect = &dialect, .self = listing, .follow = HTTP_FOLLOW_NONE};
  buf_init(&text, PAGE_BYTES);
  mc_status status = http_fetch_text(listing->s3->store.client, &request, &text, call, err);
  if (!status) status = s3_page_parse(page, text.data, text.size, err);
  buf_free(&text);
  return status;
}

static mc_status walk(struct listing *listing, const mc_call *call, mc_error *err) {
  for (unsigned empty = 0; !listing->stopped; empty++) {
    struct s3_page page;
    mc_status status = get_page(&page, listing, call, err);
    if (status) return status;
    if (page.count) empty = 0;
    for (size_t i = 0; i < page.count && !status && !listing->stopped; i++) {
      status = take(listing, &page.objects[i], err);
    }
    bool same = page.next && listing->next && strcmp(page.next, listing->next) == 0;
    free(listing->next);
    listing->next = page.next;
    page.next = NULL;
    s3_page_free(&page);
    if (status || !listing->next) return status;
    if (same || empty == EMPTY_PAGES) {
      return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service's listing does not come to an end");
    }
  }
  return MC_OK;
}

mc_status s3_list(mc_upstream *self, const char *url, size_t max, bool (*visit)(void *user, const mc_listed *listed),
                  void *user, const mc_call *call, mc_error *err) {
  struct s3_address address;
  char text[200];
  mc_status status = s3_address_parse(&address, url, err);
  size_t size = status ? 0 : strlen(address.key);
  if (!status && (address.version || (size && address.key[size - 1] != '/'))) {
    status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the URL of a tree ends in '/', and names no version");
  }
  struct listing listing = {
      .s3 = (struct s3 *)self, .url = url, .prefix = address.key, .max = max, .visit = visit, .user = user};
  if (!status) status = walk(&listing, call, err);
  if (!status && !listing.any && size) {
    status = mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s does not exist: the bucket has no key that begins so",
                          url_printable(text, sizeof(text), url));
  }
  free(listing.next);
  s3_address_free(&address);
  return status;
}
