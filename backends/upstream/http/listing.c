/* Listings: what a web server's index pages say is in a folder.
 *
 * nginx's autoindex_format json is taken as it is meant; of an HTML page every href counts that names something
 * directly in the folder. Links elsewhere (absolute, to the parent, to a query that sorts the page) are no files. A
 * name that decodes to a path out of the folder is no accident: it ends the listing. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>
#include <jansson.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/url.h"
#include "http.h"

#define ORIGIN    "http"
#define PAGE_MAX  ((size_t)16 << 20)
#define MAX_DEPTH 32

typedef bool visit_name(void *user, const char *name, uint64_t size, int64_t modified);

/* Whether a decoded name, perhaps with a '/' behind it, is one part of a path. */
static bool name_is_safe(const char *name) {
  size_t length = strlen(name);
  char copy[512];
  if (length && name[length - 1] == '/') length--;
  if (length == 0 || length >= sizeof(copy)) return false;
  memcpy(copy, name, length);
  copy[length] = 0;
  return !strchr(copy, '/') && path_is_safe(copy);
}

static mc_status evil(const char *name, mc_error *err) {
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the origin's listing has a name that leaves its folder: %.100s", name);
}

static mc_status parse_json(const char *page, size_t size, visit_name *visit, void *user, mc_error *err) {
  json_t *list = json_loadb(page, size, 0, NULL), *item;
  mc_status status = MC_OK;
  size_t i;
  if (!json_is_array(list)) status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the origin's listing can't be read");
  json_array_foreach(status ? NULL : list, i, item) {
    const char *name = json_string_value(json_object_get(item, "name"));
    const char *type = json_string_value(json_object_get(item, "type"));
    const char *time = json_string_value(json_object_get(item, "mtime"));
    json_t *bytes = json_object_get(item, "size");
    if (!name || !type) continue;
    bool folder = strcmp(type, "directory") == 0;
    if (!folder && strcmp(type, "file") != 0) continue;
    char *shown = format_str("%s%s", name, folder ? "/" : "");
    if (!shown) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
    if (!status && !name_is_safe(shown)) status = evil(name, err);
    time_t modified = time ? curl_getdate(time, NULL) : 0;
    bool go_on =
        !status && visit(user, shown,
                         json_is_integer(bytes) && json_integer_value(bytes) >= 0 ? (uint64_t)json_integer_value(bytes)
                                                                                  : MC_SIZE_UNKNOWN,
                         modified > 0 ? modified : 0);
    free(shown);
    if (!go_on) break;
  }
  json_decref(list);
  return status;
}

/* The few entities that index pages write in links. In place. */
static void unescape_html(char *text) {
  static const char *const entities[][2] = {
      {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&#39;", "'"}};
  char *to = text;
  for (char *from = text; *from;) {
    size_t i;
    for (i = 0; i < 5 && strncmp(from, entities[i][0], strlen(entities[i][0])) != 0; i++) continue;
    if (i < 5) {
      *to++ = entities[i][1][0];
      from += strlen(entities[i][0]);
    } else {
      *to++ = *from++;
    }
  }
  *to = 0;
}

/* One href. *go_on: whether the visitor wants more. */
static mc_status take_href(const char *href, size_t size, visit_name *visit, void *user, bool *go_on, mc_error *err) {
  char raw[2048], name[2048];
  if (size == 0 || size >= sizeof(raw)) return MC_OK;
  memcpy(raw, href, size);
  raw[size] = 0;
  unescape_html(raw);
  if (strncmp(raw, "./", 2) == 0) memmove(raw, raw + 2, strlen(raw + 2) + 1);
  size_t end = strcspn(raw, "?#");
  bool elsewhere = raw[0] == '/' || end == 0 || raw[end] || strcmp(raw, "../") == 0 || strcmp(raw, "..") == 0 ||
                   strstr(raw, "://") || strncasecmp(raw, "javascript:", 11) == 0 ||
                   strncasecmp(raw, "mailto:", 7) == 0;
  if (elsewhere) return MC_OK;
  if (!url_decode(name, raw, strlen(raw)) || !name_is_safe(name)) return evil(raw, err);
  *go_on = visit(user, name, MC_SIZE_UNKNOWN, 0);
  return MC_OK;
}

static mc_status parse_html(const char *page, size_t size, visit_name *visit, void *user, mc_error *err) {
  const char *at = page, *end = page + size;
  mc_status status = MC_OK;
  bool go_on = true;
  while (!status && go_on && (at = memchr(at, '<', (size_t)(end - at)))) {
    const char *close = memchr(at, '>', (size_t)(end - at));
    if (!close) break;
    bool link = close - at > 3 && (at[1] | 0x20) == 'a' && (at[2] == ' ' || at[2] == '\t' || at[2] == '\n');
    for (const char *href = at; link && href + 6 < close; href++) {
      if (strncasecmp(href, "href=", 5) != 0) continue;
      char quote = href[5];
      const char *from = href + 6;
      const char *to = quote == '"' || quote == '\'' ? memchr(from, quote, (size_t)(close - from)) : NULL;
      if (to) status = take_href(from, (size_t)(to - from), visit, user, &go_on, err);
      break;
    }
    at = close;
  }
  return status;
}

mc_status http_parse_index(const char *page, size_t size, visit_name *visit, void *user, mc_error *err) {
  size_t start = 0;
  while (start < size && strchr(" \t\r\n", page[start])) start++;
  if (start < size && page[start] == '[') return parse_json(page, size, visit, user, err);
  return parse_html(page, size, visit, user, err);
}

/* ---- walking ---- */

struct walk {
  struct http_client *client;
  size_t count, max;
  bool (*visit)(void *user, const mc_listed *listed);
  void *user;
  const mc_call *call;
  bool stopped;
};

struct folder {
  struct walk *walk;
  const char *url, *prefix;
  int depth;
  mc_status status;
  mc_error *err;
};

static mc_status walk_folder(struct walk *walk, const char *url, const char *prefix, int depth, mc_error *err);

static bool walk_name(void *user, const char *name, uint64_t size, int64_t modified) {
  struct folder *folder = user;
  struct walk *walk = folder->walk;
  char *path = format_str("%s%s", folder->prefix, name);
  bool is_folder = name[strlen(name) - 1] == '/';
  if (!path) {
    folder->status = mc_error_set(folder->err, MC_NO_MEMORY, ORIGIN, "no memory");
  } else if (is_folder) {
    char *url = url_join(folder->url, name);
    folder->status = url ? walk_folder(walk, url, path, folder->depth + 1, folder->err)
                         : mc_error_set(folder->err, MC_NO_MEMORY, ORIGIN, "no memory");
    free(url);
  } else if (walk->count++ >= walk->max) {
    folder->status = mc_error_set(folder->err, MC_RESOURCE_EXHAUSTED, ORIGIN,
                                  "the folder has more than %zu files; raise tree_files", walk->max);
  } else {
    mc_listed listed = {path, size, modified};
    walk->stopped = !path_is_safe(path) || !walk->visit(walk->user, &listed);
  }
  free(path);
  return !folder->status && !walk->stopped;
}

static mc_status take_page(void *user, const void *data, size_t size, mc_error *err) {
  if (buf_append(user, data, size)) return MC_OK;
  return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "an index page is larger than 16 MiB");
}

static mc_status walk_folder(struct walk *walk, const char *url, const char *prefix, int depth, mc_error *err) {
  if (depth > MAX_DEPTH) return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "folders are nested too deeply");
  struct buf page;
  struct http_head head;
  buf_init(&page, PAGE_MAX);
  struct http_request request = {
      .method = "GET", .url = url, .first = MC_SIZE_UNKNOWN, .on_body = take_page, .user = &page};
  mc_status status = MC_OK;
  for (uint32_t attempt = 0;; attempt++) {
    buf_clear(&page);
    status = http_perform(walk->client, &request, &head, walk->call, err);
    if (!status) status = http_status(head.status, url, err);
    if (status != MC_UNAVAILABLE || attempt >= http_retries(walk->client)) break;
    status = http_backoff(attempt + 1, head.retry_after_ms, walk->call, err);
    if (status) break;
  }
  struct folder folder = {walk, url, prefix, depth, MC_OK, err};
  if (!status) status = http_parse_index(page.data ? page.data : "", page.size, walk_name, &folder, err);
  buf_free(&page);
  return status ? status : folder.status;
}

mc_status http_list_index(struct http_client *client, const char *url, size_t max,
                          bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                          mc_error *err) {
  struct walk walk = {.client = client, .max = max, .visit = visit, .user = user, .call = call};
  return walk_folder(&walk, url, "", 0, err);
}
