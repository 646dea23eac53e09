/* Listings: from index page to index page, down a folder. Folders that are still to be looked at are a list of paths,
 * so that one page at a time is in memory. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/url.h"
#include "http.h"
#include "store.h"

#define ORIGIN      "http"
#define PAGE_MAX    ((size_t)16 << 20)
#define MAX_DEPTH   32
#define WAITING_MAX ((size_t)64 << 20) /* names of folders to look at */

struct walk {
  struct http_store *store;
  const char *url;
  size_t max, files, folders; /* both at most `max` */
  char **waiting;             /* folders to look at, the last one next: "" or "a/b/" */
  size_t bytes;               /* of their names */
  size_t count, capacity;
  bool (*visit)(void *user, const mc_listed *listed);
  void *user;
  bool stopped;
};

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a listing");
}

static mc_status too_many(const struct walk *walk, mc_error *err) {
  return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN,
                      "the tree has more than %zu files or folders; the option tree_files is the limit", walk->max);
}

/* ---- one page ---- */

static mc_status begin_page(void *user, const struct http_head *head, mc_error *err) {
  (void)head;
  (void)err;
  buf_clear(user);
  return MC_OK;
}

static mc_status take_page(void *user, const void *data, size_t size, mc_error *err) {
  if (buf_append(user, data, size)) return MC_OK;
  return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "an index page of the origin is larger than 16 MiB");
}

static mc_status get_page(struct index_page *page, struct walk *walk, const char *folder, const mc_call *call,
                          mc_error *err) {
  struct buf text;
  struct http_head head;
  char *url = url_join(walk->url, folder);
  if (!url) return no_memory(err);
  buf_init(&text, PAGE_MAX);
  struct http_request request = {.method = "GET",
                                 .url = url,
                                 .dialect = &walk->store->make->dialect,
                                 .self = walk->store,
                                 .on_head = begin_page,
                                 .on_body = take_page,
                                 .user = &text};
  mc_status status = http_fetch(walk->store->client, &request, &head, call, err);
  if (!status) status = http_index_parse(page, url, text.data ? text.data : "", text.size, walk->max, err);
  buf_free(&text);
  free(url);
  return status;
}

/* ---- the walk ---- */

/* Takes over `folder`, which may be NULL: no memory. */
static mc_status push(struct walk *walk, char *folder, mc_error *err) {
  if (folder && walk->count == walk->capacity) {
    size_t capacity = walk->capacity ? 2 * walk->capacity : 16;
    char **waiting = realloc(walk->waiting, capacity * sizeof(*waiting));
    if (waiting) {
      walk->waiting = waiting;
      walk->capacity = capacity;
    }
  }
  if (!folder || walk->count == walk->capacity) {
    free(folder);
    return no_memory(err);
  }
  walk->waiting[walk->count++] = folder;
  walk->bytes += strlen(folder);
  return MC_OK;
}

static int depth_of(const char *folder) {
  int depth = 0;
  while ((folder = strchr(folder, '/'))) {
    folder++;
    depth++;
  }
  return depth;
}

static mc_status take_folder(struct walk *walk, char *path, mc_error *err) {
  mc_status status = MC_OK;
  if (depth_of(path) > MAX_DEPTH) {
    status = mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "folders are nested deeper than %d", MAX_DEPTH);
  } else if (walk->folders++ == walk->max) {
    status = too_many(walk, err);
  } else if (walk->bytes + strlen(path) > WAITING_MAX) {
    status = mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "the names of the tree's folders are longer than 64 MiB");
  }
  if (!status) return push(walk, path, err);
  free(path);
  return status;
}

static mc_status take_file(struct walk *walk, char *path, const struct index_name *name, mc_error *err) {
  mc_status status = MC_OK;
  if (!path_is_safe(path)) {
    status =
        mc_error_set(err, MC_PROTOCOL, ORIGIN, "the origin's index leads to a path that can't be used: %.100s", path);
  } else if (walk->files++ == walk->max) {
    status = too_many(walk, err);
  } else {
    mc_listed listed = {.path = path, .size = name->size, .validators.last_modified = name->modified};
    walk->stopped = !walk->visit(walk->user, &listed);
  }
  free(path);
  return status;
}

static mc_status look_at(struct walk *walk, const char *folder, const mc_call *call, mc_error *err) {
  struct index_page page;
  mc_status status = get_page(&page, walk, folder, call, err);
  if (status) return status;
  for (size_t i = 0; i < page.count && !status && !walk->stopped; i++) {
    const struct index_name *name = &page.names[i];
    char *path = format_str("%s%s", folder, name->name);
    if (!path) {
      status = no_memory(err);
    } else if (name->name[strlen(name->name) - 1] == '/') {
      status = take_folder(walk, path, err);
    } else {
      status = take_file(walk, path, name, err);
    }
  }
  http_index_free(&page);
  return status;
}

mc_status http_list_index(struct http_store *store, const char *url, size_t max,
                          bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                          mc_error *err) {
  struct walk walk = {.store = store, .url = url, .max = max, .visit = visit, .user = user};
  size_t size = strcspn(url, "?#");
  if (size == 0 || url[size - 1] != '/') {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the URL of a tree ends in '/'");
  }
  mc_status status = push(&walk, strdup(""), err);
  while (!status && walk.count && !walk.stopped) {
    char *folder = walk.waiting[--walk.count];
    walk.bytes -= strlen(folder);
    status = look_at(&walk, folder, call, err);
    free(folder);
  }
  while (walk.count) free(walk.waiting[--walk.count]);
  free(walk.waiting);
  return status;
}
