/* What operators say of credentials: rules, and the file that Triton reads.
 *
 * Triton's file is JSON: {"gs": {"": "FILE", "gs://bucket": "FILE"}, "s3": {"": {"secret_key": …, "key_id": …,
 * "region": …, "session_token": …, "profile": …}}, "as": {"": {"account_str": …, "account_key": …}}}. The name is a
 * prefix of URLs, and the longest counts, as characters and not as folders: that is how Triton takes it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <openssl/crypto.h>

#include "base/io.h"
#include "base/origin.h"
#include "base/text.h"
#include "keys.h"

#define ORIGIN    "credentials"
#define TRITON    "TRITON_CLOUD_CREDENTIAL_PATH"
#define FILE_MAX  ((size_t)1 << 20)
#define PAGES_MAX 1000
#define SETTINGS  8 /* of one page */

struct page {
  char *prefix;
  mc_credentials credentials;
  mc_setting settings[SETTINGS];
};

struct keybook {
  const mc_origin_rule *rules;
  size_t rule_count;
  const mc_credentials *named;
  size_t named_count;
  char *path; /* of Triton's file, or NULL */
  struct page *pages;
  size_t page_count;
  mc_status status; /* of reading it */
  mc_error error;
};

/* ---- Triton's file ---- */

static mc_status bad(struct keybook *book, const char *what) {
  return mc_error_set(&book->error, MC_INVALID_ARGUMENT, ORIGIN, "%s (" TRITON "): %s", book->path, what);
}

/* Our names of its keys. */
static const char *name_of(const char *key) {
  static const char *const names[][2] = {{"key_id", "access_key_id"},
                                         {"secret_key", "secret_access_key"},
                                         {"session_token", "session_token"},
                                         {"region", "region"},
                                         {"profile", "profile"},
                                         {"account_str", "account"},
                                         {"account_key", "account_key"}};
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    if (strcmp(names[i][0], key) == 0) return names[i][1];
  }
  return NULL;
}

static mc_status add_setting(struct keybook *book, struct page *page, const char *key, const json_t *value) {
  if (!json_is_string(value)) return bad(book, "a credential's value is not a string");
  if (!*json_string_value(value)) return MC_OK; /* as if it were not there */
  char *copy = page->credentials.count < SETTINGS ? strdup(json_string_value(value)) : NULL;
  if (!copy) return mc_error_set(&book->error, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
  page->settings[page->credentials.count++] = (mc_setting){key, copy};
  return MC_OK;
}

/* The prefix in the form of normalised URLs, but no longer than it was meant. */
static mc_status set_prefix(struct keybook *book, struct page *page, const char *prefix) {
  mc_error error = MC_ERROR_INIT;
  if (!*prefix) {
    page->prefix = strdup("");
  } else if (origin_prefix(&page->prefix, prefix, &error)) {
    return bad(book, error.message);
  } else if (prefix[strlen(prefix) - 1] != '/' && page->prefix[strlen(page->prefix) - 1] == '/') {
    page->prefix[strlen(page->prefix) - 1] = 0;
  }
  return page->prefix ? MC_OK : mc_error_set(&book->error, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

static mc_status add_page(struct keybook *book, const char *prefix, json_t *value) {
  if (book->page_count == PAGES_MAX) return bad(book, "it has more than 1000 credentials in a section");
  struct page *page = &book->pages[book->page_count++];
  const char *key;
  json_t *member;
  page->credentials = (mc_credentials){.name = "triton", .settings = page->settings};
  mc_status status = set_prefix(book, page, prefix);
  if (status || json_is_string(value)) return status ? status : add_setting(book, page, "file", value);
  if (!json_is_object(value)) return bad(book, "a credential is neither a file's name nor an object");
  json_object_foreach(value, key, member) {
    const char *name = name_of(key);
    if (name && !status) status = add_setting(book, page, name, member);
  }
  return status;
}

static mc_status read_section(struct keybook *book, const json_t *root, const char *section) {
  json_t *pages = json_object_get(root, section);
  const char *prefix;
  json_t *value;
  mc_status status = MC_OK;
  if (!json_is_object(root)) return bad(book, "it is not a JSON object");
  if (!pages) return MC_OK;
  if (!json_is_object(pages)) return bad(book, "a section is not an object of prefixes");
  book->pages = calloc(json_object_size(pages) + 1, sizeof(*book->pages));
  if (!book->pages) return mc_error_set(&book->error, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
  json_object_foreach(pages, prefix, value) {
    if (!status) status = add_page(book, prefix, value);
  }
  return status;
}

static mc_status read_triton(struct keybook *book, const char *section) {
  void *text = NULL;
  size_t size = 0;
  json_error_t problem;
  char what[JSON_ERROR_TEXT_LENGTH + 32];
  int error = file_read(book->path, &text, &size, FILE_MAX);
  if (error) return bad(book, strerror(error));
  json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
  OPENSSL_cleanse(text, size);
  free(text);
  if (!root) { /* what jansson says may quote a secret */
    snprintf(what, sizeof(what), "it is no JSON: line %d, column %d", problem.line, problem.column);
    return bad(book, what);
  }
  mc_status status = read_section(book, root, section);
  json_decref(root);
  return status;
}

/* ---- the book ---- */

mc_status keybook_new(struct keybook **out, const mc_upstream_config *config, const char *section, mc_error *err) {
  struct keybook *book = calloc(1, sizeof(*book));
  const char *path = section ? getenv(TRITON) : NULL;
  if (!book) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
  book->rules = config->origins;
  book->rule_count = config->origin_count;
  book->named = config->credentials;
  book->named_count = config->credentials_count;
  if (path && *path && !(book->path = strdup(path))) {
    keybook_free(book);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
  }
  if (book->path) book->status = read_triton(book, section);
  *out = book;
  return MC_OK;
}

void keybook_free(struct keybook *book) {
  if (!book) return;
  for (size_t i = 0; i < book->page_count; i++) {
    struct page *page = &book->pages[i];
    for (size_t k = 0; k < page->credentials.count; k++) {
      secret_free((char *)(uintptr_t)page->settings[k].value);
    }
    free(page->prefix);
  }
  free(book->pages);
  free(book->path);
  free(book);
}

size_t keybook_count(const struct keybook *book) {
  return book->named_count + book->page_count;
}

static bool find_triton(const struct keybook *book, struct keybook_page *page, const char *url) {
  const struct page *best = NULL;
  for (size_t i = 0; i < book->page_count; i++) {
    const struct page *one = &book->pages[i];
    size_t size = strlen(one->prefix);
    if (strncmp(one->prefix, url, size) == 0 && (!best || size > strlen(best->prefix))) best = one;
  }
  if (!best) return false;
  page->place = KEYBOOK_TRITON;
  page->credentials = &best->credentials;
  page->number = book->named_count + (size_t)(best - book->pages);
  snprintf(page->where, sizeof(page->where), TRITON ", \"%.120s\"", best->prefix);
  text_clean(page->where);
  return true;
}

mc_status keybook_find(const struct keybook *book, struct keybook_page *page, const char *url, mc_error *err) {
  const mc_origin_rule *rule = origin_rule(book->rules, book->rule_count, url);
  const char *name = rule ? rule->credentials : NULL;
  *page = (struct keybook_page){.place = KEYBOOK_NOTHING};
  if (name && strcmp(name, "none") == 0) {
    page->place = KEYBOOK_NONE;
    snprintf(page->where, sizeof(page->where), "none: the rule for %.120s says so", rule->prefix);
    return MC_OK;
  }
  if (name) {
    page->place = KEYBOOK_RULE;
    page->credentials = origin_credentials(book->named, book->named_count, name);
    page->number = (size_t)(page->credentials - book->named);
    snprintf(page->where, sizeof(page->where), "'%.60s', by the rule for %.100s", name, rule->prefix);
    return MC_OK;
  }
  if (book->status) {
    if (err) *err = book->error;
    return book->status;
  }
  find_triton(book, page, url);
  return MC_OK;
}

static bool is_one_of(const char *key, const char *const keys[]) {
  while (*keys && !origin_is_setting(key, *keys)) keys++;
  return *keys != NULL;
}

mc_status keybook_check(const struct keybook *book, const char *scheme, const char *const keys[], mc_error *err) {
  size_t size = strlen(scheme);
  for (size_t i = 0; i < book->rule_count; i++) {
    const mc_origin_rule *rule = &book->rules[i];
    if (strncmp(rule->prefix, scheme, size) != 0 || strncmp(rule->prefix + size, "://", 3) != 0) continue;
    const mc_credentials *named = origin_credentials(book->named, book->named_count, rule->credentials);
    for (size_t k = 0; named && k < named->count; k++) {
      if (is_one_of(named->settings[k].key, keys)) continue;
      return mc_error_set(
          err, MC_INVALID_ARGUMENT, ORIGIN,
          "the credentials '%.60s', which the rule for %.100s names, have a key '%.60s', which %s:// has no "
          "use for; see the page on origins",
          named->name, rule->prefix, named->settings[k].key, scheme);
    }
  }
  return MC_OK;
}
