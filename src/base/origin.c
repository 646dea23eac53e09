#include "base/origin.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/io.h"
#include "base/url.h"

/* "s3://": no URL by itself, but one with a host after it. */
static mc_status whole_scheme(char **out, const char *text, mc_error *err) {
  struct url url;
  char *example = format_str("%s%s", text, strcasecmp(text, "file://") == 0 ? "/" : "any/");
  if (!example) return mc_error_set(err, MC_NO_MEMORY, "url", "no memory for a URL");
  mc_status status = url_parse(&url, example, err);
  free(example);
  if (status) return status;
  *out = format_str("%s://", url.scheme);
  url_free(&url);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, "url", "no memory for a URL");
}

mc_status origin_prefix(char **out, const char *text, mc_error *err) {
  const char *colon = text[0] == '/' ? NULL : strstr(text, "://");
  if (colon && !colon[3]) return whole_scheme(out, text, err);
  mc_status status = url_normalise(out, text, err);
  if (status || !strchr(*out, '?')) return status;
  free(*out);
  return mc_error_set(err, MC_INVALID_ARGUMENT, "url", "a prefix has no query");
}

static bool holds(const char *prefix, size_t size, const char *url) {
  if (strncmp(url, prefix, size) != 0) return false;
  return prefix[size - 1] == '/' || !url[size] || strchr("/?@", url[size]);
}

const mc_origin_rule *origin_rule(const mc_origin_rule *rules, size_t count, const char *url) {
  const mc_origin_rule *best = NULL;
  size_t longest = 0;
  for (size_t i = 0; i < count; i++) {
    size_t size = strlen(rules[i].prefix);
    if (size <= longest || !holds(rules[i].prefix, size, url)) continue;
    best = &rules[i];
    longest = size;
  }
  return best;
}

const mc_credentials *origin_credentials(const mc_credentials *list, size_t count, const char *name) {
  for (size_t i = 0; name && i < count; i++) {
    if (strcmp(list[i].name, name) == 0) return &list[i];
  }
  return NULL;
}

const char *origin_setting(const mc_credentials *credentials, const char *key) {
  for (size_t i = 0; credentials && i < credentials->count; i++) {
    if (strcmp(credentials->settings[i].key, key) == 0) return credentials->settings[i].value;
  }
  return NULL;
}
