/* Answers of a hub's API: pages of a tree, the link to the next one, what a revision is. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "../http/json.h"
#include "base/url.h"
#include "hf.h"

#define ORIGIN      "hf"
#define ELEMENT_MAX ((size_t)256 << 10) /* of one file or folder */

static mc_status unreadable(mc_error *err) {
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the hub's list of files can't be read");
}

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static const char *skip_space(const char *at, const char *end) {
  while (at < end && is_space(*at)) at++;
  return at;
}

/* {"type": "file", "oid": git's, "size": 5, "path": "a/b", "lfs": {"oid": SHA-256, …}} */
static mc_status take_element(json_t *element,
                              mc_status (*visit)(void *user, const mc_listed *listed, bool folder, mc_error *err),
                              void *user, mc_error *err) {
  const char *type = json_string_value(json_object_get(element, "type"));
  const char *path = json_string_value(json_object_get(element, "path"));
  const char *oid = json_string_value(json_object_get(element, "oid"));
  const char *lfs = json_string_value(json_object_get(json_object_get(element, "lfs"), "oid"));
  json_t *size = json_object_get(element, "size");
  if (!type || !path) return unreadable(err);
  bool folder = strcmp(type, "directory") == 0;
  if (!folder && strcmp(type, "file") != 0) return MC_OK; /* another repository, say */
  if (!path_is_safe(path)) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the hub's list of files has a path that can't be used: %.100s",
                        path);
  }
  mc_info info = {.size = MC_SIZE_UNKNOWN};
  hf_take_tag(lfs ? lfs : oid ? oid : "", &info);
  mc_listed listed = {.path = path, .size = MC_SIZE_UNKNOWN, .validators = info.validators};
  listed.has_digest = info.has_digest;
  listed.digest = info.digest;
  if (json_is_integer(size) && json_integer_value(size) >= 0) listed.size = (uint64_t)json_integer_value(size);
  return visit(user, &listed, folder, err);
}

mc_status hf_page_parse(const char *text, size_t size,
                        mc_status (*visit)(void *user, const mc_listed *listed, bool folder, mc_error *err), void *user,
                        mc_error *err) {
  const char *end = text + size, *at = skip_space(text, end);
  if (at == end || *at++ != '[') return unreadable(err);
  struct http_json_array array = {.at = at, .end = end, .most = ELEMENT_MAX};
  for (json_t *element; (element = http_json_next(&array));) {
    mc_status status = take_element(element, visit, user, err);
    json_decref(element);
    if (status) return status;
  }
  return array.broken ? unreadable(err) : MC_OK;
}

/* Link: <https://hub/api/…?recursive=true&cursor=…>; rel="next", <…>; rel="…". Only the query is taken: the rest we
 * know, and a token is sent there. */
bool hf_page_next(char *query, size_t size, const char *link) {
  for (const char *at = link; (at = strchr(at, '<'));) {
    const char *begin = at + 1, *end = strchr(begin, '>');
    if (!end) return false;
    size_t rest = strcspn(end, "<");
    const char *rel = memmem(end, rest, "rel=\"next\"", strlen("rel=\"next\""));
    if (!rel) rel = memmem(end, rest, "rel=next", strlen("rel=next"));
    at = end;
    if (!rel) continue;
    begin = memchr(begin, '?', (size_t)(end - begin));
    size_t length = begin ? (size_t)(end - ++begin) : 0;
    if (!length || length >= size) return false;
    for (size_t i = 0; i < length; i++) {
      if (begin[i] <= ' ' || begin[i] >= 0x7f || begin[i] == '#') return false;
    }
    memcpy(query, begin, length);
    query[length] = 0;
    return true;
  }
  return false;
}

mc_status hf_revision_parse(char commit[65], const char *text, size_t size, mc_error *err) {
  json_t *root = json_loadb(text, size, 0, NULL);
  const char *sha = json_string_value(json_object_get(root, "sha"));
  bool good = sha && hf_is_commit(sha);
  if (good) snprintf(commit, 65, "%s", sha);
  json_decref(root);
  return good ? MC_OK : mc_error_set(err, MC_PROTOCOL, ORIGIN, "the hub does not say which commit a revision is");
}
