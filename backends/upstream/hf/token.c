#include "token.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/origin.h"

#define ORIGIN   "hf"
#define FILE_MAX ((size_t)64 << 10)
#define FRESH_MS 60000 /* a file is read again after that: tokens rotate, and people log in */

/* A place where tokens are: the usual ones, or named credentials. */
struct place {
  struct tokens *tokens;
  const mc_credentials *credentials; /* NULL: the usual ones */
  struct keyring *ring;
};

struct tokens {
  struct keybook *book;
  bool disabled;        /* by HF_HUB_DISABLE_IMPLICIT_TOKEN */
  char *token;          /* of the environment, or NULL */
  const char *name;     /* of its variable */
  char *file;           /* NULL: nobody knows where */
  struct place *places; /* the usual ones first, then the book's numbers */
  size_t count;
};

/* ---- reading ---- */

/* Without the space around it. MC_INVALID_ARGUMENT: it can't be sent. An empty one is none: *out is NULL. */
static mc_status take(struct keys **out, const char *where, const char *text, size_t size, int64_t expires_at,
                      mc_error *err) {
  static const char space[] = " \t\r\n";
  *out = NULL;
  while (size && strchr(space, text[size - 1])) size--;
  while (size && strchr(space, *text)) {
    text++;
    size--;
  }
  if (!size) return MC_OK;
  for (size_t i = 0; i < size; i++) {
    if (text[i] > ' ' && text[i] < 0x7f) continue;
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "what is in %s is no token", where);
  }
  char *token = strndup(text, size);
  if (token) *out = keys_new(where, NULL, NULL, token, expires_at);
  if (token) OPENSSL_cleanse(token, size);
  free(token);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a token");
}

/* *out is NULL if there is no such file, or nothing in it. */
static mc_status read_file(struct keys **out, const char *path, int64_t expires_at, mc_error *err) {
  void *text = NULL;
  size_t size = 0;
  char where[300];
  *out = NULL;
  snprintf(where, sizeof(where), "the file %s", path);
  int error = file_read(path, &text, &size, FILE_MAX);
  if (error == ENOENT || error == ENOTDIR) return MC_OK;
  if (error) return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s, for a token: %s", where, strerror(error));
  mc_status status = take(out, where, text, size, expires_at, err);
  OPENSSL_cleanse(text, size);
  free(text);
  return status;
}

static mc_status get_named(struct keys **out, const mc_credentials *credentials, mc_error *err) {
  char where[120], *token;
  mc_error why = MC_ERROR_INIT;
  bool fixed = origin_setting(credentials, "token") != NULL; /* else it is in a file */
  snprintf(where, sizeof(where), "the credentials '%.80s'", credentials->name);
  mc_status status = origin_secret(&token, credentials, "token", &why);
  if (status) return mc_error_set(err, status, ORIGIN, "%s: token_file: %s", where, why.message);
  status = take(out, where, token, strlen(token), fixed ? 0 : clock_wall_ms() + FRESH_MS, err);
  secret_free(token);
  if (status || *out) return status;
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s have nothing but space as a token", where);
}

static mc_status get_usual(struct keys **out, const struct tokens *tokens, mc_error *err) {
  int64_t expires_at = clock_wall_ms() + FRESH_MS;
  mc_status status = MC_OK;
  *out = NULL;
  if (!tokens->disabled && tokens->token) {
    status = take(out, tokens->name, tokens->token, strlen(tokens->token), 0, err);
  }
  if (!tokens->disabled && !status && !*out && tokens->file) status = read_file(out, tokens->file, expires_at, err);
  if (status || *out) return status;
  *out = keys_new(tokens->disabled ? "none: HF_HUB_DISABLE_IMPLICIT_TOKEN is set"
                                   : "none: there is no HF_TOKEN and no file with a token",
                  NULL, NULL, NULL, tokens->disabled ? 0 : expires_at);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a token");
}

static mc_status get(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  const struct place *place = user;
  (void)call;
  return place->credentials ? get_named(out, place->credentials, err) : get_usual(out, place->tokens, err);
}

/* ---- the environment ---- */

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value && *value ? value : NULL;
}

static bool is_on(const char *name) {
  const char *value = variable(name);
  return value && (strcmp(value, "1") == 0 || strcasecmp(value, "on") == 0 || strcasecmp(value, "yes") == 0 ||
                   strcasecmp(value, "true") == 0);
}

/* A path of the environment, with what follows it; "~/" is the home folder. NULL: no memory, or no home. */
static char *path_of(const char *value, const char *rest) {
  const char *home = variable("HOME");
  bool tilde = value[0] == '~' && (value[1] == '/' || value[1] == 0);
  if (!tilde) return format_str("%s%s", value, rest);
  return home ? format_str("%s%s%s", home, value + 1, rest) : NULL;
}

static char *usual_file(void) {
  const char *value = variable("HF_TOKEN_PATH");
  if (value) return path_of(value, "");
  if ((value = variable("HF_HOME"))) return path_of(value, "/token");
  if ((value = variable("XDG_CACHE_HOME"))) return path_of(value, "/huggingface/token");
  return path_of("~", "/.cache/huggingface/token");
}

/* ---- tokens ---- */

static mc_status check_named(const mc_upstream_config *config, const struct keybook *book, mc_error *err) {
  static const char *const keys[] = {"token", NULL};
  mc_status status = keybook_check(book, "hf", keys, err);
  for (size_t i = 0; i < config->origin_count && !status; i++) {
    const mc_origin_rule *rule = &config->origins[i];
    const mc_credentials *named = origin_credentials(config->credentials, config->credentials_count, rule->credentials);
    if (strncmp(rule->prefix, "hf://", 5) != 0 || !named) continue;
    if (!named->count) {
      status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                            "the credentials '%.60s', which the rule for %.100s names, need a token or a token_file",
                            named->name, rule->prefix);
    }
  }
  return status;
}

static mc_status make_places(struct tokens *tokens, const mc_upstream_config *config, mc_error *err) {
  tokens->count = config->credentials_count + 1;
  tokens->places = calloc(tokens->count, sizeof(*tokens->places));
  for (size_t i = 0; tokens->places && i < tokens->count; i++) {
    struct place *place = &tokens->places[i];
    *place = (struct place){.tokens = tokens, .credentials = i ? &config->credentials[i - 1] : NULL};
    place->ring = keyring_new(get, place, false);
    if (!place->ring) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for tokens");
  }
  return tokens->places ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for tokens");
}

mc_status tokens_new(struct tokens **out, const mc_upstream_config *config, mc_error *err) {
  struct tokens *tokens = calloc(1, sizeof(*tokens));
  if (!tokens) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for tokens");
  mc_status status = keybook_new(&tokens->book, config, "hf", err);
  if (!status) status = check_named(config, tokens->book, err);
  if (!status) status = make_places(tokens, config, err);
  tokens->disabled = is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN");
  tokens->name = variable("HF_TOKEN") ? "HF_TOKEN" : "HUGGING_FACE_HUB_TOKEN";
  const char *token = variable(tokens->name);
  if (!status && token && !(tokens->token = strdup(token))) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for tokens");
  }
  tokens->file = usual_file();
  if (status) {
    tokens_free(tokens);
    return status;
  }
  *out = tokens;
  return MC_OK;
}

void tokens_free(struct tokens *tokens) {
  if (!tokens) return;
  for (size_t i = 0; tokens->places && i < tokens->count; i++) keyring_free(tokens->places[i].ring);
  keybook_free(tokens->book);
  if (tokens->token) OPENSSL_cleanse(tokens->token, strlen(tokens->token));
  free(tokens->token);
  free(tokens->file);
  free(tokens->places);
  free(tokens);
}

mc_status tokens_get(struct tokens *tokens, struct keys **out, const char *url, const mc_call *call, mc_error *err) {
  struct keybook_page page;
  mc_status status = keybook_find(tokens->book, &page, url, err);
  if (status) return status;
  if (page.place == KEYBOOK_NONE) {
    *out = keys_new(page.where, NULL, NULL, NULL, 0);
    return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a token");
  }
  /* Triton's file has no section for hubs. */
  size_t number = page.place == KEYBOOK_RULE ? page.number + 1 : 0;
  return keyring_keys(tokens->places[number].ring, out, call, err);
}

bool tokens_renew(struct tokens *tokens, const struct keys *refused, const char *url, const mc_call *call) {
  struct keybook_page page;
  struct keys *now = NULL;
  if (!refused || !refused->expires_at) return false; /* the same would come from there */
  if (keybook_find(tokens->book, &page, url, NULL)) return false;
  size_t number = page.place == KEYBOOK_RULE ? page.number + 1 : 0;
  if (!keyring_refuse(tokens->places[number].ring, refused)) return false;
  if (keyring_keys(tokens->places[number].ring, &now, call, NULL)) return false;
  bool other = now->token && (!refused->token || strcmp(now->token, refused->token) != 0);
  keys_release(now);
  return other;
}
