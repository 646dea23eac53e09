/* Index pages: what a web server says is directly in a folder.
 *
 * Of an HTML page every link counts that names something in the folder, from there or from the server's root. Links
 * elsewhere (to other servers, to the parent, to a query that sorts the page, deeper) are no entries. A name that
 * decodes to a path out of the folder is no accident: the page is refused, and with it whatever else it says. */
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <jansson.h>

#include "base/io.h"
#include "base/url.h"
#include "http.h"
#include "json.h"

#define ORIGIN      "http"
#define HREF_MAX    2048
#define ELEMENT_MAX ((size_t)64 << 10) /* bytes of one element of a JSON index */

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Whether a decoded name, perhaps with a '/' behind it, is one part of a path. */
static bool is_part(const char *name) {
  char copy[300];
  size_t size = strlen(name);
  if (size && name[size - 1] == '/') size--;
  if (size >= sizeof(copy) || memchr(name, '/', size)) return false;
  memcpy(copy, name, size);
  copy[size] = 0;
  return path_is_safe(copy);
}

static mc_status evil(const char *name, mc_error *err) {
  return mc_error_set(err, MC_PROTOCOL, ORIGIN,
                      "the origin's index has a name that leads out of its folder, or can't be one: %.100s", name);
}

static mc_status unreadable(mc_error *err) {
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the origin's index looks like nginx's JSON, but can't be read");
}

/* Takes over `name`, which may be NULL: no memory. */
static mc_status add(struct index_page *page, char *name, uint64_t size, int64_t modified, size_t max, mc_error *err) {
  if (name && page->count && strcmp(page->names[page->count - 1].name, name) == 0) { /* its icon was a link, too */
    free(name);
    return MC_OK;
  }
  if (name && page->count == max) {
    free(name);
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN,
                        "a folder has more than %zu names; the option tree_files is the limit", max);
  }
  if (name && page->count == page->capacity) {
    size_t capacity = page->capacity ? 2 * page->capacity : 64;
    struct index_name *names = realloc(page->names, capacity * sizeof(*names));
    if (names) {
      page->names = names;
      page->capacity = capacity;
    }
  }
  if (!name || page->count == page->capacity) {
    free(name);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an index");
  }
  page->names[page->count++] = (struct index_name){name, size, modified};
  return MC_OK;
}

/* ---- JSON ---- */

/* {"name": "x", "type": "file", "mtime": "…", "size": 5} */
static mc_status take_element(struct index_page *page, json_t *element, size_t max, mc_error *err) {
  const char *name = json_string_value(json_object_get(element, "name"));
  const char *type = json_string_value(json_object_get(element, "type"));
  const char *time = json_string_value(json_object_get(element, "mtime"));
  json_int_t bytes = -1;
  json_t *size = json_object_get(element, "size");
  if (!name || !type) return unreadable(err);
  bool folder = strcmp(type, "directory") == 0;
  if (!folder && strcmp(type, "file") != 0) return MC_OK; /* a socket or the like */
  if (!*name || strchr(name, '/') || !is_part(name)) return evil(name, err);
  if (json_is_integer(size)) bytes = json_integer_value(size);
  time_t modified = time ? curl_getdate(time, NULL) : 0;
  return add(page, format_str("%s%s", name, folder ? "/" : ""), bytes < 0 ? MC_SIZE_UNKNOWN : (uint64_t)bytes,
             modified > 0 ? modified : 0, max, err);
}

static const char *skip_space(const char *at, const char *end) {
  while (at < end && is_space(*at)) at++;
  return at;
}

/* `at` is behind the '['. */
static mc_status parse_json(struct index_page *page, const char *at, const char *end, size_t max, mc_error *err) {
  struct http_json_array array = {.at = at, .end = end, .most = ELEMENT_MAX};
  for (json_t *element; (element = http_json_next(&array));) {
    mc_status status = take_element(page, element, max, err);
    json_decref(element);
    if (status) return status;
  }
  return array.broken ? unreadable(err) : MC_OK;
}

/* ---- HTML ---- */

/* The few entities that index pages write in links. In place. */
static void unescape(char *text) {
  static const struct {
    const char *name;
    char means;
  } entities[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&#39;", '\''}, {"&#x27;", '\''}};
  char *to = text;
  for (const char *from = text; *from;) {
    size_t i = 0, count = sizeof(entities) / sizeof(*entities);
    while (i < count && strncmp(from, entities[i].name, strlen(entities[i].name)) != 0) i++;
    *to++ = i < count ? entities[i].means : *from;
    from += i < count ? strlen(entities[i].name) : 1;
  }
  *to = 0;
}

/* Whether a link is to somewhere else than below the folder, or to nothing at all. */
static bool leads_elsewhere(const char *href) {
  size_t scheme = strspn(href, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
  return href[scheme] == ':' || strncmp(href, "//", 2) == 0 || strpbrk(href, "?#") || strcmp(href, "..") == 0 ||
         strcmp(href, "../") == 0 || strcmp(href, ".") == 0 || href[0] == 0;
}

struct html {
  struct index_page *page;
  char folder[URL_MAX + 1]; /* the decoded path of the page's own URL */
  size_t max;
};

static mc_status take_href(struct html *html, const char *href, size_t size, mc_error *err) {
  char raw[HREF_MAX], name[HREF_MAX];
  bool cut = size >= sizeof(raw);
  if (cut) size = sizeof(raw) - 1;
  if (memchr(href, 0, size)) return evil("one with a zero in it", err);
  memcpy(raw, href, size);
  raw[size] = 0;
  unescape(raw);
  const char *link = raw;
  while (strncmp(link, "./", 2) == 0) link += 2;
  if (leads_elsewhere(link)) return MC_OK;
  if (cut || !url_decode(name, link, strlen(link))) return evil(link, err);
  const char *part = name;
  if (*part == '/') {
    size_t above = strlen(html->folder);
    bool below = above && html->folder[above - 1] == '/' && strncmp(part, html->folder, above) == 0;
    if (!below || !part[above]) return MC_OK;
    part += above;
  }
  const char *slash = strchr(part, '/');
  if (slash && slash[1] && path_is_safe(part)) return MC_OK; /* deeper: its own folder's page has it, too */
  if (!is_part(part)) return evil(part, err);
  return add(html->page, strdup(part), MC_SIZE_UNKNOWN, 0, html->max, err);
}

/* Read the attributes of a tag, from behind its name to its '>', which is returned; NULL: it has no end. *href: the
 * first one of that name, or NULL. */
static const char *read_tag(const char *at, const char *end, const char **href, size_t *size) {
  *href = NULL;
  for (at = skip_space(at, end); at < end && *at != '>'; at = skip_space(at, end)) {
    const char *name = at;
    while (at < end && !is_space(*at) && *at != '=' && *at != '>') at++;
    bool wanted = !*href && at - name == 4 && curl_strnequal(name, "href", 4);
    const char *equals = skip_space(at, end);
    if (equals == end || *equals != '=') continue;
    at = skip_space(equals + 1, end);
    if (at == end) break;
    const char *value = at;
    if (*at == '"' || *at == '\'') {
      value++;
      at = memchr(value, *at, (size_t)(end - value));
      if (!at) return NULL;
    } else {
      while (at < end && !is_space(*at) && *at != '>') at++;
    }
    if (wanted) {
      *href = value;
      *size = (size_t)(at - value);
    }
    if (at < end && (*at == '"' || *at == '\'')) at++;
  }
  return at < end ? at : NULL;
}

static mc_status parse_html(struct html *html, const char *at, const char *end, mc_error *err) {
  mc_status status = MC_OK;
  while (!status && (at = memchr(at, '<', (size_t)(end - at)))) {
    const char *href = NULL;
    size_t size = 0;
    if (end - at > 4 && memcmp(at, "<!--", 4) == 0) {
      at = memmem(at + 4, (size_t)(end - at - 4), "-->", 3);
    } else if (end - at > 2 && (at[1] == 'a' || at[1] == 'A') && is_space(at[2])) {
      at = read_tag(at + 2, end, &href, &size);
    } else {
      at++;
    }
    if (!at) break;
    if (href) status = take_href(html, href, size, err);
  }
  return status;
}

/* ---- pages ---- */

static int by_name(const void *a, const void *b) {
  return strcmp(((const struct index_name *)a)->name, ((const struct index_name *)b)->name);
}

/* Pages link to one thing by its icon, too. */
static void sort_names(struct index_page *page) {
  size_t kept = 0;
  if (page->count) qsort(page->names, page->count, sizeof(*page->names), by_name);
  for (size_t i = 0; i < page->count; i++) {
    if (kept && strcmp(page->names[kept - 1].name, page->names[i].name) == 0) {
      free(page->names[i].name);
    } else {
      page->names[kept++] = page->names[i];
    }
  }
  page->count = kept;
}

/* The path of a URL that is one already, decoded; "" if it has none. */
static void path_of(char path[URL_MAX + 1], const char *url) {
  const char *authority = strstr(url, "://");
  const char *from = authority ? authority + 3 + strcspn(authority + 3, "/?#") : url;
  size_t size = strcspn(from, "?#");
  if (size > URL_MAX || !url_decode(path, from, size)) path[0] = 0;
}

mc_status http_index_parse(struct index_page *page, const char *url, const char *text, size_t size, size_t max,
                           mc_error *err) {
  *page = (struct index_page){0};
  const char *end = text + size, *at = skip_space(text, end);
  bool json = at < end && *at == '[';
  struct html html = {.page = page, .max = max};
  path_of(html.folder, url);
  mc_status status = json ? parse_json(page, at + 1, end, max, err) : parse_html(&html, at, end, err);
  if (status) {
    http_index_free(page);
  } else {
    sort_names(page);
  }
  return status;
}

void http_index_free(struct index_page *page) {
  for (size_t i = 0; i < page->count; i++) free(page->names[i].name);
  free(page->names);
  *page = (struct index_page){0};
}
