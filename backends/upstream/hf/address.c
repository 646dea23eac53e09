#include "address.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/url.h"

#define ORIGIN   "hf"
#define SCHEME   "hf://"
#define FORM     "hf://[models|datasets|spaces/]ORG/NAME[@REVISION]/PATH"
#define NAME_MAX 96 /* of an organisation or a repository */

static bool is_name_char(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

static bool is_name(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (!is_name_char((unsigned char)text[i])) return false;
  }
  return size > 0 && size <= NAME_MAX && memcmp(text, "..", size < 2 ? size : 2) != 0;
}

bool hf_is_commit(const char *text) {
  size_t size = strspn(text, "0123456789abcdef");
  return text[size] == 0 && (size == 40 || size == 64);
}

static mc_status refuse(const char *url, const char *why, mc_error *err) {
  char text[300];
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s %s; it is written " FORM,
                      url_printable(text, sizeof(text), url), why);
}

/* The type that a URL begins with, which *at is moved behind; models where it begins with none. NULL: one that we can't
 * read. */
static const char *take_type(const char **at) {
  static const char *const types[] = {"models", "datasets", "spaces", "kernels", "buckets"};
  size_t size = strcspn(*at, "/");
  for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
    if (strlen(types[i]) != size || strncmp(*at, types[i], size) != 0) continue;
    *at += size + ((*at)[size] == '/');
    return i < 3 ? types[i] : NULL;
  }
  return types[0];
}

/* The size of "refs/pr/1" or "refs/convert/parquet", whose slashes need no escapes; 0: it is no such name. */
static size_t special_size(const char *at) {
  size_t before = strncmp(at, "refs/pr/", 8) == 0 ? 8 : strncmp(at, "refs/convert/", 13) == 0 ? 13 : 0, size = before;
  if (!before) return 0;
  while (before == 8 ? at[size] >= '0' && at[size] <= '9' : is_name_char((unsigned char)at[size])) size++;
  return size > before && (at[size] == '/' || at[size] == 0) ? size : 0;
}

/* Decoded, malloced. NULL: no memory, or it can't be decoded. */
static char *decode(const char *from, size_t size) {
  char *text = malloc(size + 1);
  if (text && url_decode(text, from, size)) return text;
  free(text);
  return NULL;
}

static mc_status take_repo(struct hf_address *address, const char **at, const char *url, mc_error *err) {
  size_t org = strcspn(*at, "/@?"), name = (*at)[org] == '/' ? strcspn(*at + org + 1, "/@?") : 0;
  if (!name || !is_name(*at, org) || !is_name(*at + org + 1, name)) {
    return refuse(url, "does not begin with the name of a repository, ORG/NAME", err);
  }
  address->repo = strndup(*at, org + 1 + name);
  *at += org + 1 + name;
  return MC_OK;
}

static mc_status take_revision(struct hf_address *address, const char **at, const char *url, mc_error *err) {
  if (**at != '@') {
    address->revision = strdup("main");
    return MC_OK;
  }
  size_t size = special_size(++*at);
  if (!size) size = strcspn(*at, "/?");
  if (!size) return refuse(url, "has an '@' with no revision behind it", err);
  address->revision = decode(*at, size);
  *at += size;
  return MC_OK;
}

static mc_status take_path(struct hf_address *address, const char *at, const char *url, mc_error *err) {
  if (*at == '/') at++;
  if (strchr(at, '?')) return refuse(url, "has a query, which files on a hub don't have (a '?' of a name is %3F)", err);
  address->path = decode(at, strlen(at));
  size_t size = address->path ? strlen(address->path) : 0;
  if (!size) return MC_OK;
  bool folder = address->path[size - 1] == '/';
  if (folder) address->path[size - 1] = 0;
  bool safe = path_is_safe(address->path);
  if (folder) address->path[size - 1] = '/';
  return safe ? MC_OK : refuse(url, "has a path that no file has", err);
}

mc_status hf_address_parse(struct hf_address *address, const char *url, mc_error *err) {
  *address = (struct hf_address){0};
  if (strncmp(url, SCHEME, strlen(SCHEME)) != 0) return refuse(url, "is no URL of a hub", err);
  const char *at = url + strlen(SCHEME);
  address->type = take_type(&at);
  if (!address->type)
    return refuse(url, "is of a kind that can't be read: neither models, nor datasets or spaces", err);
  mc_status status = take_repo(address, &at, url, err);
  if (!status) status = take_revision(address, &at, url, err);
  if (!status) status = take_path(address, at, url, err);
  if (!status && !(address->repo && address->revision && address->path)) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an address"); /* a normalised URL can be decoded */
  }
  if (status) hf_address_free(address);
  return status;
}

void hf_address_free(struct hf_address *address) {
  free(address->repo);
  free(address->revision);
  free(address->path);
  *address = (struct hf_address){0};
}

void hf_escape(struct buf *out, const char *text, bool keep_slash) {
  for (const char *c = text; *c; c++) {
    if (is_name_char((unsigned char)*c) || *c == '~' || (*c == '/' && keep_slash)) {
      buf_append(out, c, 1);
    } else {
      buf_printf(out, "%%%02X", (unsigned char)*c);
    }
  }
}

void hf_address_file(struct buf *out, const struct hf_address *address, const char *revision) {
  bool model = strcmp(address->type, "models") == 0;
  buf_printf(out, "/%s%s%s/resolve/", model ? "" : address->type, model ? "" : "/", address->repo);
  hf_escape(out, revision ? revision : address->revision, false);
  buf_append(out, "/", 1);
  hf_escape(out, address->path, true);
}

void hf_address_api(struct buf *out, const struct hf_address *address) {
  buf_printf(out, "/api/%s/%s", address->type, address->repo);
}
