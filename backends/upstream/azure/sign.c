#include "sign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/text.h"
#include "base/url.h"

#define PARAMETERS 16
#define KEY_BYTES  512
#define TEXT_MOST  ((size_t)8 * URL_MAX)

void azure_date(char text[AZURE_DATE_SIZE], int64_t when) {
  static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  time_t time = (time_t)when;
  struct tm tm = {0};
  gmtime_r(&time, &tm);
  snprintf(text, AZURE_DATE_SIZE, "%s, %02u %s %04u %02u:%02u:%02u GMT", days[tm.tm_wday % 7], tm.tm_mday % 100U,
           months[tm.tm_mon % 12], (tm.tm_year + 1900U) % 10000, tm.tm_hour % 100U, tm.tm_min % 100U, tm.tm_sec % 100U);
}

/* ---- what is signed ---- */

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Append "\nname:value" of each parameter, decoded, by their names. */
static bool append_query(struct buf *out, const char *query) {
  char *copy = strdup(query), *parameters[PARAMETERS], *rest = copy;
  size_t count = 0;
  bool good = copy != NULL;
  for (char *one = copy; good && (one = strtok_r(one, "&", &rest)); one = NULL) {
    size_t name = strcspn(one, "=");
    good = one[name] && count < PARAMETERS;
    if (!good) break;
    one[name] = ':';
    for (size_t i = 0; i < name; i++) one[i] = ascii_lower(one[i]);
    good = url_decode(one + name + 1, one + name + 1, strlen(one + name + 1)); /* in place: it gets no longer */
    parameters[count++] = one;
  }
  if (good) qsort(parameters, count, sizeof(*parameters), by_name);
  for (size_t i = 0; good && i < count; i++) buf_printf(out, "\n%s", parameters[i]);
  free(copy);
  return good;
}

bool azure_string_to_sign(struct buf *out, const struct azure_signing *signing) {
  const char *host = strstr(signing->url, "://");
  const char *path = host ? strchr(host + 3, '/') : NULL;
  if (!path) return false;
  size_t size = strcspn(path, "?");
  /* Empty: Content-Encoding, -Language, -Length, -MD5, -Type, Date, If-Modified-Since; If-None-Match,
   * If-Unmodified-Since. */
  buf_printf(out, "%s\n\n\n\n\n\n\n\n%s\n\n\n%s\n", signing->method, signing->if_match, signing->range);
  buf_printf(out, "x-ms-date:%s\nx-ms-version:%s\n", signing->date, signing->version);
  buf_printf(out, "/%s%.*s", signing->account, (int)size, path);
  bool good = !path[size] || append_query(out, path + size + 1);
  return good && !out->failed;
}

/* ---- keys ---- */

/* The size of what a text is the base64 of; 0: of nothing. */
static size_t decode(unsigned char bytes[KEY_BYTES], const char *text) {
  size_t size = strlen(text), padding = 0;
  if (size == 0 || size % 4 || size / 4 * 3 > KEY_BYTES) return 0;
  while (padding < 2 && text[size - 1 - padding] == '=') padding++;
  if (memchr(text, '=', size - padding)) return 0;
  int length = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)size);
  return length < 0 ? 0 : (size_t)length - padding;
}

bool azure_is_key(const char *text) {
  unsigned char bytes[KEY_BYTES];
  bool good = decode(bytes, text) > 0;
  OPENSSL_cleanse(bytes, sizeof(bytes));
  return good;
}

char *azure_sign(const struct azure_signing *signing, const char *key) {
  unsigned char bytes[KEY_BYTES], mac[EVP_MAX_MD_SIZE], text[EVP_MAX_MD_SIZE * 2];
  unsigned length = 0;
  struct buf out;
  buf_init(&out, TEXT_MOST);
  size_t size = decode(bytes, key);
  bool good = size > 0 && azure_string_to_sign(&out, signing) &&
              HMAC(EVP_sha256(), bytes, (int)size, (const unsigned char *)out.data, out.size, mac, &length);
  OPENSSL_cleanse(bytes, sizeof(bytes));
  buf_free(&out);
  if (!good) return NULL;
  EVP_EncodeBlock(text, mac, (int)length);
  return format_str("SharedKey %s:%s", signing->account, (const char *)text);
}
