#include "base/origin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/url.h"

#define SECRET_MAX ((size_t)64 << 10)

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

/* ---- values in files ---- */

#define FILE_SUFFIX "_file"

bool origin_is_setting(const char *given, const char *key) {
  size_t size = strlen(key);
  return strncmp(given, key, size) == 0 && (!given[size] || strcmp(given + size, FILE_SUFFIX) == 0);
}

/* What is wrong with a text that was read as a secret; NULL: nothing. Takes the newline off. */
static const char *check_secret(char *text, size_t size) {
  if (size > SECRET_MAX) return "it has more than 64 KiB";
  if (size && text[size - 1] == '\n') text[--size] = 0;
  if (size && text[size - 1] == '\r') text[--size] = 0;
  return size == 0 ? "it is empty" : strlen(text) != size ? "it has a zero byte" : NULL;
}

mc_status secret_read(char **out, const char *path, mc_error *err) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* whatever it is: nothing to wait for */
  int error = fd < 0 ? errno : 0;
  bool is_file = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
  char *text = is_file ? calloc(1, SECRET_MAX + 2) : NULL;
  ssize_t got = text ? read(fd, text, SECRET_MAX + 1) : 0;
  if (got < 0) error = errno;
  if (fd >= 0) close(fd);
  char buffer[128];
  const char *what = error ? strerror_r(error, buffer, sizeof(buffer)) : !is_file ? "it is not a file" : NULL;
  if (!what && text) what = check_secret(text, (size_t)got);
  *out = what || !text ? NULL : strdup(text);
  if (text) explicit_bzero(text, SECRET_MAX + 2);
  free(text);
  if (what) return mc_error_set(err, MC_INVALID_ARGUMENT, "credentials", "%.200s: %s", path, what);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, "credentials", "no memory for a secret");
}

mc_status origin_secret(char **out, const mc_credentials *credentials, const char *key, mc_error *err) {
  *out = NULL;
  for (size_t i = 0; credentials && i < credentials->count; i++) {
    const mc_setting *setting = &credentials->settings[i];
    if (!origin_is_setting(setting->key, key)) continue;
    if (setting->key[strlen(key)]) return secret_read(out, setting->value, err);
    *out = strdup(setting->value);
    return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, "credentials", "no memory for a secret");
  }
  return MC_OK;
}

void secret_free(char *secret) {
  if (secret) explicit_bzero(secret, strlen(secret));
  free(secret);
}
