#include "base/url.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/text.h"

#define PATH_MAX_SAFE 4096
#define PART_MAX_SAFE 255

static bool is_alpha(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(unsigned char c) {
  return c >= '0' && c <= '9';
}

static bool is_unreserved(unsigned char c) {
  return is_alpha(c) || is_digit(c) || (c && strchr("-._~", c));
}

/* May stand in a path as it is. */
static bool is_path_char(unsigned char c) {
  return is_unreserved(c) || (c && strchr("/!$&'()*+,;=:@", c));
}

/* Object stores: what follows a bucket is a key, in which '#' and a '%' that begins no escape are characters. */
static bool is_store(const char *scheme) {
  return scheme_is_listed("s3,gs,as,hf", scheme);
}

/* Of these, those whose keys are decoded as a whole: an escape never means anything else than its character, and there
 * is one form of each key, or a rule for "s3://bucket/folder/" would not hold for "folder%2F". In a hub's revision it
 * does. */
static bool has_plain_keys(const char *scheme) {
  return is_store(scheme) && strcmp(scheme, "hf") != 0;
}

/* The size of the "http://" or "https://" that begins a text, or 0. */
static size_t web_scheme_size(const char *text) {
  return strncasecmp(text, "http://", 7) == 0 ? 7 : strncasecmp(text, "https://", 8) == 0 ? 8 : 0;
}

static mc_status refuse(mc_error *err, const char *why) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, "url", "not a URL that can be used: %s", why);
}

/* Append a path that has no escapes. */
static void append_escaped(struct buf *out, const char *from) {
  for (const char *c = from; *c; c++) {
    if (is_path_char((unsigned char)*c)) {
      buf_append(out, c, 1);
    } else {
      buf_printf(out, "%%%02X", (unsigned char)*c);
    }
  }
}

/* Append a path with escapes in their one form. false: a bad escape, unless the scheme takes them literally. */
static bool append_path(struct buf *out, const char *from, size_t size, const char *scheme) {
  bool literally = is_store(scheme), plain = has_plain_keys(scheme);
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)from[i];
    bool escaped = c == '%';
    bool bad = escaped && (i + 2 >= size || hex_value(from[i + 1]) < 0 || hex_value(from[i + 2]) < 0);
    if (bad && !literally) return false;
    if (escaped && !bad) {
      c = (unsigned char)(hex_value(from[i + 1]) << 4 | hex_value(from[i + 2]));
      i += 2;
      if (c == 0) return false;
    }
    /* An escaped reserved character keeps its escape, where it may mean something else than the bare one. */
    bool bare = escaped && !plain ? is_unreserved(c) : is_path_char(c);
    if (bare && !bad) {
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
  if (!size) return refuse(err, "it has no scheme with '://'; write https://…, file:///… or an absolute path");
  if (size >= sizeof(url->scheme)) return refuse(err, "its scheme is too long");
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)(*at)[i];
    if (!(is_alpha(c) || (i && (is_digit(c) || c == '+' || c == '-' || c == '.')))) {
      return refuse(err, "its scheme has a character that no scheme has");
    }
    url->scheme[i] = ascii_lower((*at)[i]);
  }
  url->scheme[size] = 0;
  *at = colon + 3;
  return MC_OK;
}

static int default_port(const char *scheme) {
  return strcmp(scheme, "https") == 0 ? 443 : strcmp(scheme, "http") == 0 ? 80 : -1;
}

/* Append "[address]" in the one form that inet_ntop gives it. *used: how much of `from` it was. */
static mc_status append_v6(struct buf *out, const char *from, size_t size, size_t *used, mc_error *err) {
  const char *end = memchr(from, ']', size);
  char text[INET6_ADDRSTRLEN] = "";
  struct in6_addr address;
  if (!end) return refuse(err, "its IPv6 address has no ']'");
  *used = (size_t)(end - from) + 1;
  if (*used - 2 < sizeof(text)) memcpy(text, from + 1, *used - 2);
  if (inet_pton(AF_INET6, text, &address) != 1) return refuse(err, "what is in its brackets is no IPv6 address");
  buf_printf(out, "[%s]", inet_ntop(AF_INET6, &address, text, sizeof(text)));
  return MC_OK;
}

/* Append ":port" unless it is the scheme's own; `size` digits, perhaps none, are at `from`. */
static mc_status append_port(struct buf *out, const char *scheme, const char *from, size_t size, mc_error *err) {
  char digits[6] = "";
  if (size >= sizeof(digits) || strspn(from, "0123456789") < size) return refuse(err, "its port is not a number");
  if (size == 0) return MC_OK;
  memcpy(digits, from, size);
  long port = strtol(digits, NULL, 10);
  if (port < 1 || port > 65535) return refuse(err, "its port is not between 1 and 65535");
  if (port != default_port(scheme)) buf_printf(out, ":%ld", port);
  return MC_OK;
}

/* Append "host[:port]" in its normal form. Only web hosts are lower-cased: elsewhere it names an account or a bucket.
 */
static mc_status append_authority(struct buf *out, const char *scheme, const char *from, size_t size, mc_error *err) {
  bool web = default_port(scheme) > 0;
  size_t host = 0;
  mc_status status = MC_OK;
  if (memchr(from, '@', size)) {
    return refuse(err, "it has a user name or password in it; give credentials in their own place");
  }
  if (size && from[0] == '[') {
    status = append_v6(out, from, size, &host, err);
    if (status) return status;
  }
  for (; host < size && from[host] != ':'; host++) {
    char c = web ? ascii_lower(from[host]) : from[host];
    if (from[0] == '[' || !is_unreserved((unsigned char)c)) {
      return refuse(err, "its host has a character that no host has");
    }
    buf_append(out, &c, 1);
  }
  if (web && host == 0) return refuse(err, "it has no host");
  if (host < size) status = append_port(out, scheme, from + host + 1, size - host - 1, err);
  return status;
}

/* Append the path of a URL, or a file system's own path, in which '?', '#' and '%' are characters like others. */
static mc_status append_whole_path(struct buf *out, const char *from, size_t size, bool bare, const char *scheme,
                                   mc_error *err) {
  size_t start = out->size;
  if (size == 0) buf_append(out, "/", 1);
  if (bare) {
    append_escaped(out, from);
  } else if (!append_path(out, from, size, scheme)) {
    return refuse(err, "it has a bad percent-escape in it");
  }
  if (out->failed) return refuse(err, "it is too long");
  return resolve_dots(out, start) ? MC_OK : refuse(err, "its path leads above its root");
}

/* Append "?query" as it is, but for bytes that no URL may have. */
static void append_query(struct buf *out, const char *from, size_t size) {
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)from[i];
    if (c <= 0x20 || c >= 0x7f) {
      buf_printf(out, "%%%02X", c);
    } else {
      buf_append(out, &c, 1);
    }
  }
}

static mc_status build(struct url *url, struct buf *out, const char *text, size_t *authority, size_t *path,
                       mc_error *err) {
  if (strlen(text) > URL_MAX) return refuse(err, "it is longer than 8192 bytes");
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c < 0x20 || *c == 0x7f) return refuse(err, "it has a control character in it");
  }
  const char *at = text;
  bool bare = *text == '/';
  mc_status status = MC_OK;
  if (bare) {
    strcpy(url->scheme, "file");
  } else {
    status = parse_scheme(url, &at, err);
    if (status) return status;
  }
  buf_printf(out, "%s://", url->scheme);
  *authority = out->size;
  bool file = strcmp(url->scheme, "file") == 0, store = is_store(url->scheme);
  const char *scheme = url->scheme;
  if (strcmp(url->scheme, "s3") == 0 && web_scheme_size(at)) { /* "s3://http://host:port/bucket/key" */
    scheme = web_scheme_size(at) == 7 ? "http" : "https";
    buf_printf(out, "%s://", scheme);
    at += web_scheme_size(at);
  }
  size_t size = bare ? 0 : strcspn(at, store ? "/?" : "/?#");
  if (!(file && size == strlen("localhost") && memcmp(at, "localhost", size) == 0)) {
    status = append_authority(out, scheme, at, size, err);
    if (status) return status;
    if (file && out->size > *authority) return refuse(err, "a file URL has no host: file:///…");
  }
  at += size;
  *path = out->size;
  size = bare ? strlen(at) : strcspn(at, store ? "?" : "?#");
  status = append_whole_path(out, at, size, bare, url->scheme, err);
  if (status) return status;
  at += size;
  if (*at == '?') append_query(out, at, strcspn(at, "#"));
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
  /* Whatever stands before an '@' in the authority goes, also where it is no URL in other ways: "http:/user:pw@host".
   */
  size_t start = strcspn(url, ":/?#");
  start = url[start] == ':' && strchr("/\\", url[start + 1]) ? start + 1 + strspn(url + start + 1, "/\\") : 0;
  start += web_scheme_size(url + start);
  size_t end = start + strcspn(url + start, "/?#");
  const char *at = memrchr(url + start, '@', end - start);
  size_t rest = at ? (size_t)(at - url) + 1 : start;
  snprintf(text, size, "%.*s%.*s%s", (int)start, url, (int)(length - rest), url + rest, url[length] == '?' ? "?…" : "");
  text_clean(text);
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
  append_escaped(&out, path);
  buf_append_str(&out, url + length); /* a query, such as a signature, holds for what is below, too */
  char *joined = buf_take(&out);
  buf_free(&out);
  return joined;
}

bool scheme_is_listed(const char *list, const char *scheme) {
  size_t length = strlen(scheme);
  for (const char *at = list; at && *at;) {
    at += strspn(at, ", ");
    size_t size = strcspn(at, ", ");
    if (size == length && strncmp(at, scheme, size) == 0) return true;
    at += size;
  }
  return false;
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
