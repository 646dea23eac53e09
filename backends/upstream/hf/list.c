/* Listings: the tree of one commit, page after page. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "hf.h"

#define ORIGIN     "hf"
#define PAGE_MAX   ((size_t)16 << 20)
#define COMMIT_MS  3600000 /* that a listing was of; the files of a large one may take as long to be fetched */
#define TREE_QUERY "recursive=true&expand=false"

struct listing {
  struct hf *hf;
  const char *url;
  struct hf_address address;
  char commit[65];
  size_t max, files, folders, seen; /* both at most `max`; on this page */
  bool (*visit)(void *user, const mc_listed *listed);
  void *user;
  bool stopped;
};

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a listing");
}

/* ---- the API ---- */

static mc_status begin_text(void *user, const struct http_head *head, mc_error *err) {
  (void)head;
  (void)err;
  buf_clear(user);
  return MC_OK;
}

static mc_status take_text(void *user, const void *data, size_t size, mc_error *err) {
  if (buf_append(user, data, size)) return MC_OK;
  return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "an answer of the hub's API is larger than 16 MiB");
}

/* Takes over `path`, which may be NULL: no memory. */
static mc_status ask(struct listing *listing, char *path, struct buf *text, struct http_head *head, const mc_call *call,
                     mc_error *err) {
  struct hf_question question = {.hf = listing->hf, .address = &listing->address, .path = path};
  struct http_request request = {.method = "GET",
                                 .url = listing->url,
                                 .dialect = &hf_api,
                                 .self = &question,
                                 .follow = HTTP_FOLLOW_SITE,
                                 .on_head = begin_text,
                                 .on_body = take_text,
                                 .user = text};
  mc_status status = path ? http_fetch(listing->hf->store.client, &request, head, call, err) : no_memory(err);
  free(path);
  return status;
}

/* A path of the API with what the address has for it, escaped as one part. */
static char *api_path(const char *before, const char *part, const char *after) {
  struct buf path;
  buf_init(&path, (size_t)64 << 10);
  buf_append_str(&path, before);
  hf_escape(&path, part, false);
  buf_append_str(&path, after);
  char *text = buf_take(&path);
  buf_free(&path);
  return text;
}

static mc_status find_commit(struct listing *listing, const mc_call *call, mc_error *err) {
  const char *revision = listing->address.revision;
  struct buf text;
  struct http_head head;
  if (hf_is_commit(revision)) {
    snprintf(listing->commit, sizeof(listing->commit), "%s", revision);
    return MC_OK;
  }
  buf_init(&text, PAGE_MAX);
  mc_status status = ask(listing, api_path("/revision/", revision, "?expand=sha"), &text, &head, call, err);
  if (!status) status = hf_revision_parse(listing->commit, text.data ? text.data : "", text.size, err);
  buf_free(&text);
  if (status) return status;
  mc_hash128 key = hf_commit_key(listing->hf, &listing->address, listing->url);
  memos_put(&listing->hf->commits, &key, listing->commit, COMMIT_MS);
  return MC_OK;
}

/* ---- pages ---- */

static mc_status take(void *user, const mc_listed *listed, bool folder, mc_error *err) {
  struct listing *listing = user;
  const char *below = listing->address.path;
  size_t length = strlen(below);
  listing->seen++;
  if (listing->stopped) return MC_OK;
  if ((folder ? listing->folders : listing->files) == listing->max) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN,
                        "the tree has more than %zu files or folders; the option tree_files is the limit",
                        listing->max);
  }
  if (folder) {
    listing->folders++;
    return MC_OK;
  }
  if (strncmp(listed->path, below, length) != 0) {
    if (strncmp(listed->path, below, length - 1) == 0 && !listed->path[length - 1]) return MC_OK; /* is a file itself */
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the hub's list of files has one that is elsewhere: %.100s",
                        listed->path);
  }
  mc_listed found = *listed;
  found.path += length;
  listing->files++;
  listing->stopped = !listing->visit(listing->user, &found);
  return MC_OK;
}

/* `query` is of this page, then of the next one; "": there is none. */
static mc_status take_page(struct listing *listing, const char *folder, char query[HTTP_FIELD_SIZE],
                           const mc_call *call, mc_error *err) {
  struct buf text;
  struct http_head head;
  char *tail = format_str("?%s", query);
  char *tree = format_str("/tree/%s%s", listing->commit, *folder ? "/" : "");
  buf_init(&text, PAGE_MAX);
  mc_status status = ask(listing, tail && tree ? api_path(tree, folder, tail) : NULL, &text, &head, call, err);
  free(tail);
  free(tree);
  listing->seen = 0;
  if (!status) status = hf_page_parse(text.data ? text.data : "", text.size, take, listing, err);
  buf_free(&text);
  if (status) return status;
  *query = 0;
  const char *link = head.fields[FIELD_LINK];
  bool more = strstr(link, "next") != NULL, cut = head.cut & 1U << FIELD_LINK;
  if (cut || (more && (!hf_page_next(query, HTTP_FIELD_SIZE, link) || !listing->seen))) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN,
                        "the hub's list of files goes on, but not so that it can be followed");
  }
  return MC_OK;
}

mc_status hf_list(mc_upstream *base, const char *url, size_t max, bool (*visit)(void *user, const mc_listed *listed),
                  void *user, const mc_call *call, mc_error *err) {
  struct listing listing = {.hf = (struct hf *)base, .url = url, .max = max, .visit = visit, .user = user};
  char query[HTTP_FIELD_SIZE] = TREE_QUERY, *folder = NULL;
  mc_status status = mc_call_check(call, err);
  if (!status) status = hf_address_parse(&listing.address, url, err);
  if (status) return status;
  size_t length = strlen(listing.address.path);
  if (length && listing.address.path[length - 1] != '/') {
    status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the URL of a tree ends in '/'");
  } else if (!(folder = strndup(listing.address.path, length ? length - 1 : 0))) {
    status = no_memory(err);
  }
  if (!status) status = find_commit(&listing, call, err);
  while (!status && *query && !listing.stopped) status = take_page(&listing, folder, query, call, err);
  if (!status && length && !listing.files) { /* git has no empty ones */
    status = mc_error_set(err, MC_NOT_FOUND, ORIGIN, "there is no folder '%.200s' in %s", folder, listing.address.repo);
  }
  free(folder);
  hf_address_free(&listing.address);
  return status;
}
