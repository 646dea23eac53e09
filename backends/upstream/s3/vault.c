/* Sources of keys are as many as an operator has named credentials, plus the usual places; each has a ring, made when
 * it is first asked. The order is that of the AWS tools:
 *
 *   a rule's credentials, Triton's file      as their keys say
 *   the environment                          AWS_ACCESS_KEY_ID …
 *   nothing                                  public buckets can be read without */
#include "vault.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/origin.h"

#define ORIGIN       "s3"
#define ANONYMOUS_MS 300000 /* where nothing is found it's looked for again after this */

struct s3_source {
  struct s3_vault *vault;
  const mc_credentials *credentials; /* NULL: the usual places */
  bool anonymous;                    /* a rule says so */
  char where[200];
  struct keyring *ring;
  pthread_mutex_t lock; /* a leaf */
  bool settled;
  struct s3_settings settings;
};

struct s3_vault {
  struct http_client *client;
  struct keybook *book;
  struct s3_environment environment;
  pthread_mutex_t lock;       /* a leaf */
  struct s3_source **sources; /* by number; then the usual places, then none at all */
  size_t count;
};

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

/* ---- getting keys ---- */

static mc_status get_static(struct keys **out, const char *where, const char *id, const char *secret, const char *token,
                            mc_error *err) {
  *out = keys_new(where, id, secret, token, 0);
  return *out ? MC_OK : no_memory(err);
}

static mc_status get_nothing(struct keys **out, const char *why, int64_t expires_at, mc_error *err) {
  *out = keys_new(why, NULL, NULL, NULL, expires_at);
  return *out ? MC_OK : no_memory(err);
}

/* *out stays NULL where there are none. */
static mc_status get_environment(struct s3_vault *vault, struct keys **out, mc_error *err) {
  char *const *values = vault->environment.values;
  if (!values[S3_ACCESS_KEY_ID] && !values[S3_SECRET_ACCESS_KEY]) return MC_OK;
  if (!values[S3_ACCESS_KEY_ID] || !values[S3_SECRET_ACCESS_KEY]) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set");
  }
  return get_static(out, "AWS_ACCESS_KEY_ID", values[S3_ACCESS_KEY_ID], values[S3_SECRET_ACCESS_KEY],
                    values[S3_SESSION_TOKEN], err);
}

static mc_status get_usual(struct s3_vault *vault, struct keys **out, const mc_call *call, mc_error *err) {
  (void)call;
  mc_status status = get_environment(vault, out, err);
  if (status || *out) return status;
  return get_nothing(out, "none: nothing was found in the environment", clock_wall_ms() + ANONYMOUS_MS, err);
}

static mc_status get(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  struct s3_source *source = user;
  const mc_credentials *credentials = source->credentials;
  const char *id = origin_setting(credentials, "access_key_id");
  const char *secret = origin_setting(credentials, "secret_access_key");
  *out = NULL;
  if (source->anonymous) return get_nothing(out, source->where, 0, err);
  if (!id != !secret) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "the credentials %s have only one of access_key_id and secret_access_key", source->where);
  }
  if (id) return get_static(out, source->where, id, secret, origin_setting(credentials, "session_token"), err);
  return get_usual(source->vault, out, call, err);
}

mc_status s3_source_keys(struct s3_source *source, struct keys **out, const mc_call *call, mc_error *err) {
  return keyring_keys(source->ring, out, call, err);
}

bool s3_source_refuse(struct s3_source *source, const struct keys *keys) {
  return keyring_refuse(source->ring, keys);
}

/* ---- settings ---- */

/* With the lock held. */
static mc_status settle(struct s3_source *source, mc_error *err) {
  const struct s3_environment *environment = &source->vault->environment;
  struct s3_settings *settings = &source->settings;
  const char *region = origin_setting(source->credentials, "region"), *name;
  const char *style = origin_setting(source->credentials, "addressing_style");
  if (!region) region = s3_environment_first(environment, S3_REGION, S3_DEFAULT_REGION, NULL);
  const char *endpoint = s3_environment_first(environment, S3_ENDPOINT_URL_S3, S3_ENDPOINT_URL, &name);
  if (s3_environment_says(environment, S3_IGNORE_ENDPOINTS)) endpoint = NULL;
  if (style && !s3_style_parse(&settings->style, style)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "the addressing_style of the credentials %s is not auto, path or virtual", source->where);
  }
  if (region && !s3_region_is_safe(region)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a region that is set is none: see AWS_REGION");
  }
  mc_status status = MC_OK;
  if (endpoint && !settings->endpoint) status = s3_endpoint_parse(&settings->endpoint, endpoint, name, err);
  if (!status && region && !settings->region) settings->region = strdup(region);
  if (!status && region && !settings->region) status = no_memory(err);
  return status;
}

mc_status s3_source_settings(struct s3_source *source, const struct s3_settings **out, mc_error *err) {
  mc_status status = MC_OK;
  pthread_mutex_lock(&source->lock);
  if (!source->settled) status = settle(source, err);
  source->settled = !status;
  pthread_mutex_unlock(&source->lock);
  *out = &source->settings;
  return status;
}

/* ---- sources ---- */

static void source_free(struct s3_source *source) {
  if (!source) return;
  keyring_free(source->ring);
  free(source->settings.region);
  free(source->settings.endpoint);
  pthread_mutex_destroy(&source->lock);
  free(source);
}

static struct s3_source *source_new(struct s3_vault *vault, const struct keybook_page *page) {
  struct s3_source *source = calloc(1, sizeof(*source));
  if (!source) return NULL;
  pthread_mutex_init(&source->lock, NULL);
  source->vault = vault;
  source->credentials = page->credentials;
  source->anonymous = page->place == KEYBOOK_NONE;
  memcpy(source->where, page->where, sizeof(source->where));
  source->ring = keyring_new(get, source);
  if (source->ring) return source;
  source_free(source);
  return NULL;
}

mc_status s3_vault_find(struct s3_vault *vault, struct s3_source **out, const char *url, mc_error *err) {
  struct keybook_page page;
  mc_status status = keybook_find(vault->book, &page, url, err);
  if (status) return status;
  size_t number = page.place == KEYBOOK_NONE      ? vault->count - 1
                  : page.place == KEYBOOK_NOTHING ? vault->count - 2
                                                  : page.number;
  pthread_mutex_lock(&vault->lock);
  if (!vault->sources[number]) vault->sources[number] = source_new(vault, &page);
  *out = vault->sources[number];
  pthread_mutex_unlock(&vault->lock);
  return *out ? MC_OK : no_memory(err);
}

mc_status s3_vault_new(struct s3_vault **out, const mc_upstream_config *config, struct http_client *client,
                       mc_error *err) {
  static const char *const keys[] = {"access_key_id", "secret_access_key", "session_token",
                                     "region",        "addressing_style",  NULL};
  struct s3_vault *vault = calloc(1, sizeof(*vault));
  if (!vault) return no_memory(err);
  pthread_mutex_init(&vault->lock, NULL);
  vault->client = client;
  mc_status status = keybook_new(&vault->book, config, "s3", err);
  if (!status) status = keybook_check(vault->book, "s3", keys, err);
  if (!status) {
    vault->count = keybook_count(vault->book) + 2;
    vault->sources = calloc(vault->count, sizeof(*vault->sources));
    if (!s3_environment_read(&vault->environment) || !vault->sources) status = no_memory(err);
  }
  if (status) {
    s3_vault_free(vault);
    return status;
  }
  *out = vault;
  return MC_OK;
}

void s3_vault_free(struct s3_vault *vault) {
  if (!vault) return;
  for (size_t i = 0; vault->sources && i < vault->count; i++) source_free(vault->sources[i]);
  free(vault->sources);
  keybook_free(vault->book);
  s3_environment_free(&vault->environment);
  pthread_mutex_destroy(&vault->lock);
  free(vault);
}
