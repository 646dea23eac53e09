#include "address.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/url.h"
#include "sign.h"

#define ORIGIN    "s3"
#define SCHEME    "s3://"
#define HOW       "; write s3://BUCKET/KEY, or s3://HOST:PORT/BUCKET/KEY for a server that isn't AWS's"
#define LABEL_MAX 63

static mc_status refuse(const char *url, const char *what, mc_error *err) {
  char text[200];
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s: %s" HOW, url_printable(text, sizeof(text), url), what);
}

static bool begins(const char *text, const char *with) {
  return strncmp(text, with, strlen(with)) == 0;
}

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an address");
}

/* The endpoint that a URL has in it, in the form in which libcurl names its host, since that is signed; *at is moved
 * to where the bucket begins. */
static mc_status take_endpoint(struct s3_address *address, const char **at, const char *url, mc_error *err) {
  size_t word = begins(*at, "http://") ? 7 : begins(*at, "https://") ? 8 : 0;
  size_t size = word + strcspn(*at + word, "/?");
  if (!word && !memchr(*at, ':', size)) return MC_OK;
  char *text = format_str("%s%.*s", word ? "" : "http://", (int)size, *at);
  mc_status status = text ? s3_endpoint_parse(&address->endpoint, text, "a URL", NULL) : MC_NO_MEMORY;
  free(text);
  *at += size + ((*at)[size] == '/');
  if (!status) return MC_OK;
  return status == MC_NO_MEMORY ? no_memory(err) : refuse(url, "its host is none", err);
}

static char *decode(const char *from, size_t size) {
  char *to = malloc(size + 1);
  if (to && url_decode(to, from, size)) return to;
  free(to);
  return NULL;
}

static bool is_bucket(const char *bucket) {
  static const char characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._";
  size_t size = strlen(bucket);
  return size && size < 256 && strspn(bucket, characters) == size && strcmp(bucket, ".") != 0 &&
         strcmp(bucket, "..") != 0;
}

mc_status s3_address_parse(struct s3_address *address, const char *url, mc_error *err) {
  *address = (struct s3_address){0};
  const char *at = begins(url, SCHEME) ? url + strlen(SCHEME) : NULL;
  if (!at) return refuse(url, "it is no s3:// URL", err);
  mc_status status = take_endpoint(address, &at, url, err);
  if (status) return status;
  size_t size = strcspn(at, "/?");
  address->bucket = decode(at, size);
  at += size + (at[size] == '/');
  size = strcspn(at, "?");
  address->key = decode(at, size);
  at += size;
  if (!address->bucket || !address->key) return no_memory(err);
  if (!*address->bucket) return refuse(url, "it names no bucket", err);
  if (!is_bucket(address->bucket)) return refuse(url, "its bucket has a name that no bucket has", err);
  if (strlen(address->bucket) > 6 && strcmp(address->bucket + strlen(address->bucket) - 6, "--x-s3") == 0) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "directory buckets (S3 Express) can't be read: '%.80s'",
                        address->bucket);
  }
  if (!*at) return MC_OK;
  if (!begins(at, "?versionId=") || strchr(at, '&') || !at[11]) {
    return refuse(url, "it has a query other than ?versionId=VERSION; a '?' in a key is written %3F", err);
  }
  address->version = decode(at + 11, strlen(at + 11));
  return address->version ? MC_OK : refuse(url, "its version has a bad percent-escape in it", err);
}

void s3_address_free(struct s3_address *address) {
  free(address->endpoint);
  free(address->bucket);
  free(address->key);
  free(address->version);
  *address = (struct s3_address){0};
}

bool s3_style_parse(enum s3_style *style, const char *text) {
  static const char *const names[] = {"auto", "path", "virtual"};
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    if (strcmp(names[i], text) != 0) continue;
    *style = (enum s3_style)i;
    return true;
  }
  return false;
}

mc_status s3_endpoint_parse(char **out, const char *text, const char *where, mc_error *err) {
  struct url url = {0};
  *out = NULL;
  mc_status status = url_parse(&url, text, NULL);
  bool good = !status && (strcmp(url.scheme, "http") == 0 || strcmp(url.scheme, "https") == 0) && url.path_size == 1 &&
              !url.query;
  if (good) *out = format_str("%.*s", (int)(url.path - url.text), url.text);
  url_free(&url);
  if (*out) return MC_OK;
  if (good || status == MC_NO_MEMORY) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an endpoint");
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                      "the endpoint of %s can't be used: write http://HOST:PORT or https://HOST, without a path",
                      where);
}

bool s3_region_is_safe(const char *region) {
  size_t size = strlen(region);
  return size && size <= LABEL_MAX &&
         strspn(region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == size;
}

/* Without dots: *.s3.amazonaws.com is what the certificate is for. */
static bool is_label(const char *bucket) {
  size_t size = strlen(bucket);
  return size >= 3 && size <= LABEL_MAX && strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-") == size &&
         bucket[0] != '-' && bucket[size - 1] != '-';
}

char *s3_address_url(const struct s3_address *address, const char *key, const char *endpoint, const char *region,
                     enum s3_style style) {
  bool aws = !endpoint;
  bool virtual = style == S3_STYLE_VIRTUAL || (style == S3_STYLE_AUTO && aws && is_label(address->bucket));
  const char *host = aws ? NULL : strstr(endpoint, "://") + 3;
  struct buf url;
  buf_init(&url, (size_t)4 * URL_MAX);
  if (aws) {
    buf_append_str(&url, "https://");
  } else {
    buf_append(&url, endpoint, (size_t)(host - endpoint));
  }
  if (virtual) buf_printf(&url, "%s.", address->bucket);
  if (aws) {
    buf_printf(&url, "s3.%s.amazonaws.com%s", region, begins(region, "cn-") ? ".cn" : "");
  } else {
    buf_append_str(&url, host);
  }
  if (!virtual) buf_printf(&url, "/%s", address->bucket);
  if (virtual || key) buf_append_str(&url, "/");
  if (key) s3_escape(&url, key, true);
  char *taken = buf_take(&url);
  buf_free(&url);
  return taken;
}
