#include "sign.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/url.h"

#define ALGORITHM "AWS4-HMAC-SHA256"
#define DATE      32 /* "20130524T000000Z" */
#define HASH      32
#define TEXT_MOST ((size_t)64 << 10)

static void hex_of(char *hex, const unsigned char *bytes, size_t size) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < size; i++) {
    *hex++ = digits[bytes[i] >> 4];
    *hex++ = digits[bytes[i] & 15];
  }
  *hex = 0;
}

void s3_sha256(char hex[S3_SHA256_HEX], const void *data, size_t size) {
  mc_digest digest;
  sha256_of(&digest, data, size);
  hex_of(hex, digest.bytes, sizeof(digest.bytes));
}

void s3_escape(struct buf *out, const char *text, bool path) {
  static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  while (*text) {
    size_t size = strspn(text, plain);
    buf_append(out, text, size);
    text += size;
    if (!*text) return;
    if (path && *text == '/') {
      buf_append(out, "/", 1);
    } else {
      buf_printf(out, "%%%02X", (unsigned char)*text);
    }
    text++;
  }
}

static void date_of(char text[DATE], int64_t seconds) {
  time_t time = (time_t)seconds;
  struct tm parts;
  gmtime_r(&time, &parts);
  strftime(text, DATE, "%Y%m%dT%H%M%SZ", &parts);
}

static bool hmac(unsigned char out[HASH], const void *key, size_t key_size, const char *text) {
  return HMAC(EVP_sha256(), key, (int)key_size, (const unsigned char *)text, strlen(text), out, NULL) != NULL;
}

/* HMAC after HMAC: of the date, the region, the service, and what is to be signed. */
static bool sign_text(char hex[S3_SHA256_HEX], const struct s3_signing *signing, const char *day, const char *text) {
  unsigned char key[HASH];
  struct buf first;
  buf_init(&first, TEXT_MOST);
  bool good = buf_printf(&first, "AWS4%s", signing->secret) && hmac(key, first.data, first.size, day) &&
              hmac(key, key, HASH, signing->region) && hmac(key, key, HASH, signing->service) &&
              hmac(key, key, HASH, "aws4_request") && hmac(key, key, HASH, text);
  if (good) hex_of(hex, key, HASH);
  buf_wipe(&first);
  OPENSSL_cleanse(key, sizeof(key));
  return good;
}

static void append_names(struct buf *out, const struct s3_signing *signing) {
  for (size_t i = 0; i < signing->header_count; i++) {
    buf_printf(out, "%s%s", i ? ";" : "", signing->headers[i].name);
  }
}

/* The request in its one form, of which the hash is signed. It may hold a token. */
static bool hash_request(char hex[S3_SHA256_HEX], const struct s3_signing *signing) {
  struct buf text;
  buf_init(&text, TEXT_MOST);
  buf_printf(&text, "%s\n%s\n%s\n", signing->method, signing->path, signing->query);
  for (size_t i = 0; i < signing->header_count; i++) {
    buf_printf(&text, "%s:%s\n", signing->headers[i].name, signing->headers[i].value);
  }
  buf_append_str(&text, "\n");
  append_names(&text, signing);
  buf_printf(&text, "\n%s", signing->payload);
  bool good = !text.failed;
  if (good) s3_sha256(hex, text.data, text.size);
  buf_wipe(&text);
  return good;
}

char *s3_authorization(const struct s3_signing *signing) {
  char date[DATE], request[S3_SHA256_HEX], signature[S3_SHA256_HEX];
  struct buf scope, text, value;
  date_of(date, signing->time);
  buf_init(&scope, TEXT_MOST);
  buf_init(&text, TEXT_MOST);
  buf_init(&value, TEXT_MOST);
  bool good = hash_request(request, signing) &&
              buf_printf(&scope, "%.8s/%s/%s/aws4_request", date, signing->region, signing->service);
  good = good && buf_printf(&text, ALGORITHM "\n%s\n%s\n%s", date, scope.data, request);
  char day[9] = "";
  memcpy(day, date, 8);
  good = good && sign_text(signature, signing, day, text.data);
  if (good) buf_printf(&value, ALGORITHM " Credential=%s/%s,SignedHeaders=", signing->id, scope.data);
  if (good) append_names(&value, signing);
  if (good) good = buf_printf(&value, ",Signature=%s", signature);
  char *taken = good ? buf_take(&value) : NULL;
  buf_free(&scope);
  buf_free(&text);
  buf_free(&value);
  return taken;
}

/* Point into a copy of a URL, which is cut in pieces. */
static void split(char *url, const char **host, const char **path, const char **query) {
  char *at = strstr(url, "://") + 3;
  size_t authority = strcspn(at, "/?");
  memmove(at - 1, at, authority); /* room for the zero */
  *host = at - 1;
  char *question = strchr(at + authority, '?');
  at[authority - 1] = 0;
  *path = at + authority;
  if (question) *question = 0;
  *query = question ? question + 1 : "";
}

bool s3_sign(struct http_target *target, const struct http_request *request, const struct s3_header *header,
             const char *region, const char *service, const struct keys *keys) {
  char date[DATE], payload[S3_SHA256_HEX];
  int64_t now = clock_wall_ms() / 1000;
  char *url = strdup(target->url);
  if (!url) return false;
  struct s3_header headers[6];
  struct s3_signing signing = {.method = request->method,
                               .headers = headers,
                               .payload = payload,
                               .region = region,
                               .service = service,
                               .id = keys->id,
                               .secret = keys->secret,
                               .time = now};
  split(url, &signing.host, &signing.path, &signing.query);
  date_of(date, now);
  s3_sha256(payload, request->body ? request->body : "", request->body ? request->body_size : 0);
  headers[signing.header_count++] = (struct s3_header){"host", signing.host};
  if (header) headers[signing.header_count++] = *header;
  headers[signing.header_count++] = (struct s3_header){"x-amz-content-sha256", payload};
  headers[signing.header_count++] = (struct s3_header){"x-amz-date", date};
  if (keys->token) headers[signing.header_count++] = (struct s3_header){"x-amz-security-token", keys->token};
  char *authorization = s3_authorization(&signing);
  bool good = authorization && http_target_header(target, "Authorization: %s", authorization);
  for (size_t i = 1; i < signing.header_count; i++) { /* libcurl says which host it is */
    good = good && http_target_header(target, "%s: %s", headers[i].name, headers[i].value);
  }
  free(authorization);
  free(url);
  return good;
}
