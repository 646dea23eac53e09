#include "base/url.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define PATH_MAX_SAFE 4096
#define PART_MAX_SAFE 255

static int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = (char)(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_unreserved(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c) != NULL;
}

/* May stand in a path as it is. */
static bool is_path_char(unsigned char c) {
  return c && (is_unreserved(c) || strchr("/!$&'()*+,;=:@", c) != NULL);
}

static mc_status refuse(mc_error *err, const char *why) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, "url", "not a URL that can be used: %s", why);
}

/* Append a path with escapes in their one form. false: a bad escape. */
static bool append_path(struct buf *out, const char *from, size_t size) {
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)from[i];
    bool escaped = c == '%';
    if (escaped) {
      if (i + 2 >= size || hex_value(from[i + 1]) < 0 || hex_value(from[i + 2]) < 0) return false;
      c = (unsigned char)(hex_value(from[i + 1]) << 4 | hex_value(from[i + 2]));
      i += 2;
      if (c == 0) return false;
    }
    /* An escaped reserved character keeps its escape: it may mean something else there than the bare one. */
    if (escaped ? is_unreserved(c) : is_path_char(c)) {
      buf_append(out, &c, 1);
    } else {
      buf_printf(out, "%%%02X", c);
    }
  }
  return true;
}

/* Resolve "." and ".." in the normalised path at `start`; ".." at the root is an error. */
static bool resolve_dots(struct buf *out, size_t start) {
  char *base = out->data + start, *to = base, *from = base;
  while (*from) {
    /* from is at a '/' */
    char *part = from + 1;
    size_t size = strcspn(part, "/");
    bool last = part[size] == 0;
    if (size == 1 && part[0] == '.') {
      if (last) *to++ = '/';
    } else if (size == 2 && part[0] == '.' && part[1] == '.') {
      if (to == base) return false;
      do to--;
      while (*to != '/');
      if (last) *to++ = '/';
    } else {
      memmove(to, from, size + 1);
      to += size + 1;
    }
    from = part + size;
  }
  *to = 0;
  out->size = start + (size_t)(to - base);
  return true;
}

static mc_status parse_scheme(struct url *url, const char **at, mc_error *err) {
  const char *colon = strstr(*at, "://");
  size_t size = colon ? (size_t)(colon - *at) : 0;
  if (!size) return refuse(err, "it has no scheme; write https://…, file:///… or an absolute path");
  if (size >= sizeof(url->scheme)) return refuse(err, "its scheme is too long");
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)(*at)[i];
    if (!(isalpha(c) || (i && (isdigit(c) || c == '+' || c == '-' || c == '.')))) {
      return refuse(err, "its scheme has a character that no scheme has");
    }
    url->scheme[i] = (char)tolower(c);
  }
  url->scheme[size] = 0;
  *at = colon + 3;
  return MC_OK;
}

static int default_port(const char *scheme) {
  return strcmp(scheme, "https") == 0 ? 443 : strcmp(scheme, "http") == 0 ? 80 : -1;
}

/* Append "host[:port]" in its normal form. */
static mc_status append_authority(struct buf *out, const char *scheme, const char *from, size_t size, mc_error *err) {
  bool web = default_port(scheme) > 0;
  size_t host = size;
  if (memchr(from, '@', size)) {
    return refuse(err, "it has a user name or password in it; give credentials in their own place");
  }
  if (size && from[0] == '[') {
    const char *end = memchr(from, ']', size);
    if (!end) return refuse(err, "its IPv6 address has no ']'");
    host = (size_t)(end - from) + 1;
    for (size_t i = 1; i + 1 < host; i++) {
      if (hex_value(from[i]) < 0 && from[i] != ':' && from[i] != '.') return refuse(err, "its IPv6 address is none");
    }
    if (host < size && from[host] != ':') return refuse(err, "its port can't be read");
  } else {
    const char *colon = memchr(from, ':', size);
    if (colon) host = (size_t)(colon - from);
    for (size_t i = 0; i < host; i++) {
      if (!is_unreserved((unsigned char)from[i])) return refuse(err, "its host has a character that no host has");
    }
  }
  if (web && host == 0) return refuse(err, "it has no host");
  for (size_t i = 0; i < host; i++) {
    char c = (char)tolower((unsigned char)from[i]);
    buf_append(out, web ? &c : &from[i], 1);
  }
  if (host < size) {
    char digits[8] = "";
    size_t length = size - host - 1;
    if (length >= 6 || strspn(from + host + 1, "0123456789") < length) return refuse(err, "its port is not a number");
    memcpy(digits, from + host + 1, length);
    long port = length ? strtol(digits, NULL, 10) : default_port(scheme);
    if (port > 65535 || (length && port == 0)) return refuse(err, "its port is not between 1 and 65535");
    if (port > 0 && port != default_port(scheme)) buf_printf(out, ":%ld", port);
  }
  return MC_OK;
}

static mc_status build(struct url *url, struct buf *out, const char *text, size_t *authority, size_t *path,
                       mc_error *err) {
  if (strlen(text) > URL_MAX) return refuse(err, "it is longer than 8192 bytes");
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c < 0x20 || *c == 0x7f) return refuse(err, "it has a control character in it");
  }
  const char *at = text;
  mc_status status = MC_OK;
  if (*text == '/') {
    strcpy(url->scheme, "file");
  } else {
    status = parse_scheme(url, &at, err);
    if (status) return status;
  }
  bool bare = at == text; /* an absolute path: '?' and '#' are characters like others, and nothing is escaped */
  buf_printf(out, "%s://", url->scheme);
  *authority = out->size;
  size_t size = bare ? 0 : strcspn(at, "/?#");
  status = append_authority(out, url->scheme, at, size, err);
  if (status) return status;
  if (strcmp(url->scheme, "file") == 0 && out->size > *authority) {
    if (strcmp(out->data + *authority, "localhost") != 0) return refuse(err, "a file URL has no host: file:///…");
    out->size = *authority;
    out->data[out->size] = 0;
  }
  at += size;
  *path = out->size;
  size = bare ? strlen(at) : strcspn(at, "?#");
  if (size == 0) buf_append(out, "/", 1);
  if (bare) {
    for (const char *c = at; *c; c++) {
      if (is_path_char((unsigned char)*c)) {
        buf_append(out, c, 1);
      } else {
        buf_printf(out, "%%%02X", (unsigned char)*c);
      }
    }
  } else if (!append_path(out, at, size)) {
    return refuse(err, "it has a bad percent-escape in it");
  }
  if (out->failed) return refuse(err, "it is too long");
  if (!resolve_dots(out, *path)) return refuse(err, "its path leads above its root");
  at += size;
  if (*at == '?') {
    size = strcspn(at, "#");
    for (size_t i = 0; i < size; i++) {
      unsigned char c = (unsigned char)at[i];
      if (c <= 0x20 || c >= 0x7f) {
        buf_printf(out, "%%%02X", c);
      } else {
        buf_append(out, &c, 1);
      }
    }
  }
  return out->failed ? refuse(err, "it is too long") : MC_OK;
}

mc_status url_parse(struct url *url, const char *text, mc_error *err) {
  struct buf out;
  size_t authority = 0, path = 0;
  memset(url, 0, sizeof(*url));
  if (!text || !*text) return refuse(err, "it is empty");
  buf_init(&out, (size_t)3 * URL_MAX + 64);
  mc_status status = build(url, &out, text, &authority, &path, err);
  if (!status && out.size > URL_MAX) status = refuse(err, "it is longer than 8192 bytes once it is escaped");
  char *normal = status ? NULL : buf_take(&out);
  if (!status && !normal) status = mc_error_set(err, MC_NO_MEMORY, "url", "no memory for a URL");
  buf_free(&out);
  if (status) return status;
  url->text = normal;
  url->authority = normal + authority;
  url->authority_size = path - authority;
  url->path = normal + path;
  url->path_size = strcspn(url->path, "?");
  url->query = url->path[url->path_size] ? url->path + url->path_size + 1 : NULL;
  return MC_OK;
}

void url_free(struct url *url) {
  free(url->text);
  url->text = NULL;
}

mc_status url_normalise(char **out, const char *text, mc_error *err) {
  struct url url;
  mc_status status = url_parse(&url, text, err);
  if (!status) *out = url.text;
  return status;
}

const char *url_printable(char *text, size_t size, const char *url) {
  size_t length = strcspn(url, "?#");
  const char *start = strstr(url, "://");
  start = start && start < url + length ? start + 3 : url;
  const char *slash = memchr(start, '/', (size_t)(url + length - start));
  const char *end = slash ? slash : url + length, *at = memrchr(start, '@', (size_t)(end - start));
  int head = at ? (int)(start - url) : 0;
  const char *rest = at ? at + 1 : url;
  snprintf(text, size, "%.*s%.*s%s", head, url, (int)(url + length - rest), rest, url[length] == '?' ? "?…" : "");
  for (char *c = text; *c; c++) {
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
  }
  return text;
}

bool url_decode(char *to, const char *from, size_t size) {
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)from[i];
    if (c == '%') {
      if (i + 2 >= size || hex_value(from[i + 1]) < 0 || hex_value(from[i + 2]) < 0) return false;
      c = (unsigned char)(hex_value(from[i + 1]) << 4 | hex_value(from[i + 2]));
      i += 2;
    }
    if (c == 0) return false;
    *to++ = (char)c;
  }
  *to = 0;
  return true;
}

char *url_join(const char *url, const char *path) {
  struct buf out;
  buf_init(&out, (size_t)4 * URL_MAX);
  size_t length = strcspn(url, "?#");
  buf_append(&out, url, length);
  for (const char *c = path; *c; c++) {
    if (is_path_char((unsigned char)*c)) {
      buf_append(&out, c, 1);
    } else {
      buf_printf(&out, "%%%02X", (unsigned char)*c);
    }
  }
  buf_append_str(&out, url + length); /* a query, such as a signature, holds for what is below, too */
  char *joined = buf_take(&out);
  buf_free(&out);
  return joined;
}

bool path_is_safe(const char *path) {
  size_t length = strlen(path);
  if (length == 0 || length > PATH_MAX_SAFE) return false;
  for (const unsigned char *c = (const unsigned char *)path; *c; c++) {
    if (*c < 0x20 || *c == 0x7f || *c == '\\') return false;
  }
  for (const char *part = path;;) {
    size_t size = strcspn(part, "/");
    if (size == 0 || size > PART_MAX_SAFE) return false;
    if (part[0] == '.' && (size == 1 || (size == 2 && part[1] == '.'))) return false;
    if (part[size] == 0) return true;
    part += size + 1;
  }
}
