/* Where credentials are looked for: a rule's; Triton's file; GOOGLE_APPLICATION_CREDENTIALS; the file of `gcloud auth
 * application-default login`; the metadata service; else requests are anonymous.
 *
 * Each source has its ring, made when it is wanted first. Files are read whenever a token is got, since they rotate. */
#include "credentials.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "account.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/origin.h"
#include "base/text.h"
#include "machine.h"

#define ORIGIN       "gcs"
#define APPLICATION  "GOOGLE_APPLICATION_CREDENTIALS"
#define WELL_KNOWN   "application_default_credentials.json"
#define FILE_MAX     ((size_t)1 << 20)
#define ANONYMOUS_MS 600000 /* then it is looked again: a pod's metadata service may begin later than the pod */
#define WHERE_SIZE   400

struct source {
  struct gcs_credentials *all;
  const char *file; /* of a rule or Triton's; NULL: the usual places */
  char where[WHERE_SIZE];
  struct keyring *ring;
};

struct gcs_credentials {
  struct http_client *client;
  struct keybook *book;
  char *file, *well_known; /* or NULL */
  char *metadata;          /* its host, or NULL: the usual one */
  char *project;           /* who pays, or NULL */
  bool no_machine;         /* it's known not to be one of Google's */
  size_t count;
  pthread_mutex_t lock;    /* a leaf, of what follows */
  struct source **sources; /* of each of the book's numbers, and of the usual places; NULL: not wanted yet */
};

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

static mc_status keys_out(struct keys **out, const char *where, const char *id, const char *token, int64_t expires_at,
                          mc_error *err) {
  *out = keys_new(where, id, NULL, token, expires_at);
  return *out ? MC_OK : no_memory(err);
}

/* ---- files ---- */

/* What is wrong, and with which credentials. */
static mc_status wrong(const char *where, const char *path, mc_status status, const mc_error *error, mc_error *err) {
  return mc_error_set(err, status, ORIGIN, "the credentials of %.200s (%.200s): %s", where, path, error->message);
}

static mc_status read_account(json_t **out, const char *path, mc_error *err) {
  void *text = NULL;
  size_t size = 0;
  int error = file_read(path, &text, &size, FILE_MAX);
  if (error) return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "it can't be read: %s", strerror(error));
  mc_status status = gcs_account_parse(out, text, size, err);
  OPENSSL_cleanse(text, size);
  free(text);
  return status;
}

static mc_status get_from_file(struct gcs_credentials *self, struct keys **out, const char *where, const char *path,
                               const mc_call *call, mc_error *err) {
  json_t *account = NULL;
  struct gcs_token token = {.text = NULL};
  mc_error error = MC_ERROR_INIT;
  mc_status status = read_account(&account, path, &error);
  if (!status) status = gcs_token_get(&token, account, self->client, call, &error);
  if (status) {
    wrong(where, path, status, &error, err);
  } else {
    char text[2 * WHERE_SIZE];
    snprintf(text, sizeof(text), "%s (%s, %s)", where, gcs_account_type(account), path);
    text_clean(text);
    status = keys_out(out, text, gcs_account_id(account), token.text, token.expires_at, err);
  }
  gcs_token_free(&token);
  json_decref(account);
  return status;
}

/* ---- the usual places ---- */

static mc_status get_from_machine(struct gcs_credentials *self, struct keys **out, const mc_call *call, mc_error *err) {
  struct gcs_token token = {.text = NULL};
  const char *why = "NO_GCE_CHECK is set, and nothing is in " APPLICATION " or gcloud's folder";
  char where[200];
  mc_status status =
      self->no_machine ? MC_OK : gcs_machine_token(&token, &why, self->metadata, self->client, call, err);
  if (status) return status;
  if (token.text) {
    status = keys_out(out, "the machine's metadata service", "default", token.text, token.expires_at, err);
  } else {
    snprintf(where, sizeof(where), "none: %s", why);
    status = keys_out(out, where, NULL, NULL, self->no_machine ? 0 : clock_wall_ms() + ANONYMOUS_MS, err);
  }
  gcs_token_free(&token);
  return status;
}

static mc_status get_usual(struct gcs_credentials *self, struct keys **out, const mc_call *call, mc_error *err) {
  if (self->file) return get_from_file(self, out, APPLICATION, self->file, call, err);
  if (self->well_known && access(self->well_known, F_OK) == 0) {
    return get_from_file(self, out, "gcloud's folder", self->well_known, call, err);
  }
  return get_from_machine(self, out, call, err);
}

static mc_status get(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  struct source *source = user;
  if (source->file) return get_from_file(source->all, out, source->where, source->file, call, err);
  return get_usual(source->all, out, call, err);
}

/* ---- which ---- */

/* The ring of a source, made when it is wanted first. NULL: no memory. */
static struct keyring *ring_of(struct gcs_credentials *self, size_t number, const char *file, const char *where) {
  pthread_mutex_lock(&self->lock);
  struct source *source = self->sources[number];
  if (!source && (source = calloc(1, sizeof(*source)))) {
    source->all = self;
    source->file = file;
    snprintf(source->where, sizeof(source->where), "%s", where);
    source->ring = keyring_new(get, source, true);
    if (source->ring) {
      self->sources[number] = source;
    } else {
      free(source);
      source = NULL;
    }
  }
  pthread_mutex_unlock(&self->lock);
  return source ? source->ring : NULL;
}

/* What needs no ring, which is read for each request: *out is set, or this fails; else *ring. */
static mc_status choose(struct gcs_credentials *self, struct keys **out, struct keyring **ring, const char *url,
                        mc_error *err) {
  struct keybook_page page;
  *out = NULL;
  *ring = NULL;
  mc_status status = keybook_find(self->book, &page, url, err);
  if (status) return status;
  const char *file = origin_setting(page.credentials, "file");
  const char *anonymous = origin_setting(page.credentials, "anonymous");
  if (page.place == KEYBOOK_NONE) return keys_out(out, page.where, NULL, NULL, 0, err);
  if (anonymous && strcmp(anonymous, "true") == 0) {
    char where[sizeof(page.where) + 8];
    snprintf(where, sizeof(where), "none: %s", page.where);
    return keys_out(out, where, NULL, NULL, 0, err);
  }
  char *token;
  status = origin_secret(&token, page.credentials, "token", err);
  if (!status && token && !gcs_token_is_sound(token)) {
    status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the token of %.200s has a character that no token has",
                          page.where);
  } else if (!status && token) {
    status = keys_out(out, page.where, NULL, token, 0, err);
  }
  secret_free(token);
  if (status || *out) return status;
  *ring = file ? ring_of(self, page.number, file, page.where) : ring_of(self, self->count, NULL, "");
  return *ring ? MC_OK : no_memory(err);
}

mc_status gcs_credentials_keys(struct gcs_credentials *self, struct keys **out, const char *url, const mc_call *call,
                               mc_error *err) {
  struct keyring *ring;
  mc_status status = choose(self, out, &ring, url, err);
  return status || *out ? status : keyring_keys(ring, out, call, err);
}

bool gcs_credentials_refuse(struct gcs_credentials *self, const char *url, const struct keys *keys) {
  struct keyring *ring;
  struct keys *fixed = NULL;
  if (!keys->token || choose(self, &fixed, &ring, url, NULL)) return false;
  bool others = fixed ? fixed->token && strcmp(fixed->token, keys->token) != 0 : keyring_refuse(ring, keys);
  keys_release(fixed);
  return others;
}

mc_status gcs_credentials_project(struct gcs_credentials *self, char **out, const char *url, mc_error *err) {
  struct keybook_page page;
  *out = NULL;
  mc_status status = keybook_find(self->book, &page, url, err);
  if (!status) status = origin_secret(out, page.credentials, "quota_project", err);
  if (status || *out || !self->project) return status;
  *out = strdup(self->project);
  return *out ? MC_OK : no_memory(err);
}

/* ---- the environment ---- */

/* false: no memory. */
static bool read_variable(char **out, const char *name) {
  const char *value = getenv(name);
  *out = value && *value ? strdup(value) : NULL;
  return *out || !value || !*value;
}

static bool read_environment(struct gcs_credentials *self) {
  const char *folder = getenv("CLOUDSDK_CONFIG"), *home = getenv("HOME"), *check = getenv("NO_GCE_CHECK");
  self->no_machine = check && strcasecmp(check, "true") == 0;
  if (folder && *folder) {
    self->well_known = format_str("%s/" WELL_KNOWN, folder);
  } else if (home && *home) {
    self->well_known = format_str("%s/.config/gcloud/" WELL_KNOWN, home);
  }
  bool known = self->well_known || !((folder && *folder) || (home && *home));
  return known && read_variable(&self->file, APPLICATION) && read_variable(&self->metadata, "GCE_METADATA_HOST") &&
         read_variable(&self->project, "GOOGLE_CLOUD_QUOTA_PROJECT");
}

mc_status gcs_credentials_open(struct gcs_credentials **out, struct http_client *client,
                               const mc_upstream_config *config, mc_error *err) {
  static const char *const keys[] = {"file", "token", "anonymous", "quota_project", NULL};
  struct gcs_credentials *self = calloc(1, sizeof(*self));
  if (!self) return no_memory(err);
  self->client = client;
  pthread_mutex_init(&self->lock, NULL);
  mc_status status = keybook_new(&self->book, config, "gs", err);
  if (!status) status = keybook_check(self->book, "gs", keys, err);
  if (!status) {
    self->count = keybook_count(self->book);
    self->sources = calloc(self->count + 1, sizeof(struct source *));
    if (!self->sources || !read_environment(self)) status = no_memory(err);
  }
  if (status) gcs_credentials_close(self);
  if (!status) *out = self;
  return status;
}

void gcs_credentials_close(struct gcs_credentials *self) {
  if (!self) return;
  for (size_t i = 0; self->sources && i <= self->count; i++) {
    if (self->sources[i]) keyring_free(self->sources[i]->ring);
    free(self->sources[i]);
  }
  free(self->sources);
  keybook_free(self->book);
  pthread_mutex_destroy(&self->lock);
  free(self->file);
  free(self->well_known);
  free(self->metadata);
  free(self->project);
  free(self);
}
