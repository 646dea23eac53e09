#include "login.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/io.h"
#include "base/origin.h"

#define ORIGIN    "http"
#define TOKEN_MAX ((size_t)64 << 10)
#define BASIC_MAX 1024

/* ---- what can be sent ---- */

static bool is_text(const char *value) {
  for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
    if (*c < 0x20 || *c == 0x7f) return false;
  }
  return *value != 0;
}

/* "Name: value", which the client does not set by itself. */
static bool is_header(const char *text) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  static const char *const own[] = {"accept-encoding", "connection",       "content-length", "host",
                                    "range",           "transfer-encoding"};
  size_t size = strspn(text, letters);
  if (size == 0 || strncmp(text + size, ": ", 2) != 0 || !is_text(text + size + 2)) return false;
  for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
    if (strlen(own[i]) == size && curl_strnequal(text, own[i], size)) return false;
  }
  return true;
}

static const char *problem_of(const mc_credentials *one) {
  const char *token = origin_setting(one, "token"), *path = origin_setting(one, "token_path");
  const char *user = origin_setting(one, "user"), *password = origin_setting(one, "password");
  const char *header = origin_setting(one, "header");
  if (!token + !path + !user < 2) return "they have more than one of token, token_path and user";
  if (!user != !password) return "user and password belong together";
  if (token && !is_text(token)) return "the token has a character that can't be sent, or none at all";
  if (user && (!is_text(user) || strchr(user, ':') || (*password && !is_text(password)))) {
    return "user or password have a character that can't be sent";
  }
  if (user && strlen(user) + strlen(password) + 1 > BASIC_MAX) return "user and password are longer than 1024 bytes";
  if (header && !is_header(header)) return "the header is not 'Name: value', or one that requests have anyway";
  return NULL;
}

mc_status http_login_check(const mc_upstream_config *config, const struct keybook *book, mc_error *err) {
  static const char *const keys[] = {"token", "token_path", "user", "password", "header", NULL};
  mc_status status = keybook_check(book, "http", keys, err);
  if (!status) status = keybook_check(book, "https", keys, err);
  for (size_t i = 0; i < config->origin_count && !status; i++) {
    const mc_origin_rule *rule = &config->origins[i];
    if (strncmp(rule->prefix, "http://", 7) != 0 && strncmp(rule->prefix, "https://", 8) != 0) continue;
    const mc_credentials *one = origin_credentials(config->credentials, config->credentials_count, rule->credentials);
    const char *problem = one ? problem_of(one) : NULL;
    if (!problem) continue;
    status =
        mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the credentials '%.60s', which the rule for %.100s names: %s",
                     one->name, rule->prefix, problem);
  }
  return status;
}

/* ---- sending it ---- */

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
}

/* Such files are renewed by others: it is read for each request. */
static mc_status add_token_of(struct http_target *target, const struct keybook_page *page, const char *path,
                              mc_error *err) {
  void *data = NULL;
  size_t size = 0;
  int error = file_read(path, &data, &size, TOKEN_MAX);
  if (error) return mc_error_errno(err, error, ORIGIN, "the token_path of %.120s, %.200s", page->where, path);
  char *token = data;
  while (size && strchr(" \t\r\n", token[size - 1])) token[--size] = 0;
  bool sound = strlen(token) == size && is_text(token);
  bool added = sound && http_target_header(target, "Authorization: Bearer %s", token);
  OPENSSL_cleanse(data, size);
  free(data);
  if (added) return MC_OK;
  if (sound) return no_memory(err);
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                      "the token_path of %.120s, %.200s, is of a file without a token", page->where, path);
}

static bool add_basic(struct http_target *target, const char *user, const char *password) {
  unsigned char text[BASIC_MAX / 3 * 4 + 8];
  char *both = format_str("%s:%s", user, password);
  if (!both) return false;
  EVP_EncodeBlock(text, (const unsigned char *)both, (int)strlen(both));
  bool added = http_target_header(target, "Authorization: Basic %s", (const char *)text);
  OPENSSL_cleanse(text, sizeof(text));
  OPENSSL_cleanse(both, strlen(both));
  free(both);
  return added;
}

mc_status http_login(struct http_target *target, const struct keybook_page *page, mc_error *err) {
  const char *token = origin_setting(page->credentials, "token");
  const char *path = origin_setting(page->credentials, "token_path");
  const char *user = origin_setting(page->credentials, "user");
  const char *header = origin_setting(page->credentials, "header");
  if (header && !http_target_header(target, "%s", header)) return no_memory(err);
  if (token && !http_target_header(target, "Authorization: Bearer %s", token)) return no_memory(err);
  if (user && !add_basic(target, user, origin_setting(page->credentials, "password"))) return no_memory(err);
  return path ? add_token_of(target, page, path, err) : MC_OK;
}
