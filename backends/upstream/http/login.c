#include "login.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/io.h"
#include "base/origin.h"

#define ORIGIN    "http"
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

/* ---- what is given ---- */

struct login {
  char *token, *user, *password, *header; /* malloced; NULL: not given */
};

static void forget(struct login *login) {
  secret_free(login->token);
  secret_free(login->user);
  secret_free(login->password);
  secret_free(login->header);
}

static const char *problem_of(const struct login *login) {
  const char *user = login->user, *password = login->password;
  if (login->token && user) return "they have both a token and a user";
  if (!user != !password) return "user and password belong together";
  if (login->token && !is_text(login->token)) return "the token has a character that can't be sent, or none at all";
  if (user && (!is_text(user) || strchr(user, ':') || (*password && !is_text(password)))) {
    return "user or password have a character that can't be sent";
  }
  if (user && strlen(user) + strlen(password) + 1 > BASIC_MAX) return "user and password are longer than 1024 bytes";
  if (login->header && !is_header(login->header)) {
    return "the header is not 'Name: value', or one that requests have anyway";
  }
  return NULL;
}

/* As it is now: files are renewed by others. To be forgotten, also after a failure. */
static mc_status recall(struct login *login, const mc_credentials *one, mc_error *err) {
  *login = (struct login){.token = NULL};
  mc_status status = origin_secret(&login->token, one, "token", err);
  if (!status) status = origin_secret(&login->user, one, "user", err);
  if (!status) status = origin_secret(&login->password, one, "password", err);
  if (!status) status = origin_secret(&login->header, one, "header", err);
  const char *problem = status ? NULL : problem_of(login);
  if (!problem) return status;
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the credentials '%.60s', for a web server: %s", one->name,
                      problem);
}

mc_status http_login_check(const mc_upstream_config *config, const struct keybook *book, mc_error *err) {
  static const char *const keys[] = {"token", "user", "password", "header", NULL};
  mc_status status = keybook_check(book, "http", keys, err);
  if (!status) status = keybook_check(book, "https", keys, err);
  for (size_t i = 0; i < config->origin_count && !status; i++) {
    const mc_origin_rule *rule = &config->origins[i];
    if (strncmp(rule->prefix, "http://", 7) != 0 && strncmp(rule->prefix, "https://", 8) != 0) continue;
    const mc_credentials *one = origin_credentials(config->credentials, config->credentials_count, rule->credentials);
    struct login login;
    if (!one) continue;
    status = recall(&login, one, err);
    forget(&login);
  }
  return status;
}

/* ---- sending it ---- */

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
}

static bool add_basic(struct http_target *target, const char *user, const char *password) {
  unsigned char text[BASIC_MAX / 3 * 4 + 8];
  char *both = format_str("%s:%s", user, password);
  if (!both) return false;
  EVP_EncodeBlock(text, (const unsigned char *)both, (int)strlen(both));
  bool added = http_target_header(target, "Authorization: Basic %s", (const char *)text);
  OPENSSL_cleanse(text, sizeof(text));
  secret_free(both);
  return added;
}

mc_status http_login(struct http_target *target, const struct keybook_page *page, mc_error *err) {
  struct login login;
  mc_status status = recall(&login, page->credentials, err);
  bool good = true;
  if (!status && login.header) good = http_target_header(target, "%s", login.header);
  if (!status && login.token) good &= http_target_header(target, "Authorization: Bearer %s", login.token);
  if (!status && login.user) good &= add_basic(target, login.user, login.password);
  forget(&login);
  return status || good ? status : no_memory(err);
}
