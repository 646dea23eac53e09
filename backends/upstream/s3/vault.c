/* Sources of keys are as many as an operator has named credentials, and prefixes in Triton's file, plus the usual
 * places, plus none; each has a ring, made when it is first asked. */
#include "vault.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/origin.h"
#include "chain.h"
#include "profile.h"

#define ORIGIN "s3"

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

/* The keys that are written in a rule's credentials or in Triton's file; *out stays NULL where there are none. */
static mc_status get_written(struct s3_source *source, struct keys **out, mc_error *err) {
  const char *id = origin_setting(source->credentials, "access_key_id");
  const char *secret = origin_setting(source->credentials, "secret_access_key");
  if (!id && !secret) return MC_OK;
  if (!id || !secret) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "the credentials %.200s have only one of access_key_id and secret_access_key", source->where);
  }
  *out = keys_new(source->where, id, secret, origin_setting(source->credentials, "session_token"), 0);
  return *out ? MC_OK : no_memory(err);
}

static mc_status get(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  struct s3_source *source = user;
  const struct s3_settings *settings;
  const char *profile = origin_setting(source->credentials, "profile");
  *out = NULL;
  if (source->anonymous) {
    *out = keys_new(source->where, NULL, NULL, NULL, 0);
    return *out ? MC_OK : no_memory(err);
  }
  mc_status status = s3_source_settings(source, &settings, err);
  if (status) return status;
  struct s3_chain chain = {source->vault->client, &source->vault->environment, settings->region};
  struct s3_role role = {.where = source->where,
                         .arn = origin_setting(source->credentials, "role_arn"),
                         .external_id = origin_setting(source->credentials, "external_id")};
  status = get_written(source, out, err);
  if (!status && !*out && profile) status = s3_chain_profile(&chain, out, profile, call, err);
  if (!status && !*out) status = s3_chain_usual(&chain, out, call, err);
  if (status || !role.arn) return status;
  struct keys *base = *out;
  *out = NULL;
  if (!base->id) {
    status =
        mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                     "the credentials %.150s name a role, but there are no keys to ask for it with", source->where);
  } else {
    status = s3_chain_role(&chain, out, &role, base, call, err);
  }
  keys_release(base);
  return status;
}

mc_status s3_source_keys(struct s3_source *source, struct keys **out, const mc_call *call, mc_error *err) {
  return keyring_keys(source->ring, out, call, err);
}

bool s3_source_refuse(struct s3_source *source, const struct keys *keys) {
  return keyring_refuse(source->ring, keys);
}

/* ---- settings ---- */

/* A copy in *to, unless that is set already: what is said first counts. */
static mc_status set(char **to, const char *text, mc_error *err) {
  if (!text || *to) return MC_OK;
  *to = strdup(text);
  return *to ? MC_OK : no_memory(err);
}

static mc_status set_region(struct s3_settings *settings, const char *text, const char *where, mc_error *err) {
  if (text && !s3_region_is_safe(text)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the region of %.200s is none", where);
  }
  return set(&settings->region, text, err);
}

static mc_status set_endpoint(struct s3_settings *settings, const char *text, const char *where, mc_error *err) {
  return text && !settings->endpoint ? s3_endpoint_parse(&settings->endpoint, text, where, err) : MC_OK;
}

static mc_status set_style(struct s3_settings *settings, const char *text, const char *where, mc_error *err) {
  if (!text || settings->style || s3_style_parse(&settings->style, text)) return MC_OK;
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the addressing_style of %.200s is not auto, path or virtual",
                      where);
}

/* What the profile says, where nobody else has said anything. Files that can't be read matter to who needs their keys.
 */
static mc_status settle_by_profile(struct s3_settings *settings, const struct s3_vault *vault, const char *profile,
                                   mc_error *err) {
  struct s3_profiles *profiles;
  char where[120];
  mc_status status = s3_profiles_read(&profiles, &vault->environment, err);
  if (status) return status == MC_NO_MEMORY ? status : MC_OK;
  snprintf(where, sizeof(where), "the profile '%.80s'", profile);
  bool ignored = s3_environment_says(&vault->environment, S3_IGNORE_ENDPOINTS);
  status = set_region(settings, s3_profiles_value(profiles, profile, "region"), where, err);
  if (!status && !ignored) {
    status = set_endpoint(settings, s3_profiles_endpoint(profiles, profile, "s3"), where, err);
  }
  if (!status) status = set_style(settings, s3_profiles_value(profiles, profile, "s3.addressing_style"), where, err);
  s3_profiles_free(profiles);
  return status;
}

static mc_status settle(struct s3_settings *settings, const struct s3_source *source, mc_error *err) {
  const struct s3_environment *environment = &source->vault->environment;
  const char *name, *profile = origin_setting(source->credentials, "profile");
  mc_status status = set_region(settings, origin_setting(source->credentials, "region"), source->where, err);
  if (!status) {
    status = set_style(settings, origin_setting(source->credentials, "addressing_style"), source->where, err);
  }
  const char *said = s3_environment_first(environment, S3_REGION, S3_DEFAULT_REGION, &name);
  if (!status) status = set_region(settings, said, name, err);
  said = s3_environment_first(environment, S3_ENDPOINT_URL_S3, S3_ENDPOINT_URL, &name);
  bool ignored = s3_environment_says(environment, S3_IGNORE_ENDPOINTS);
  if (!status && !ignored) status = set_endpoint(settings, said, name, err);
  if (!profile) profile = s3_environment_first(environment, S3_PROFILE, S3_DEFAULT_PROFILE, NULL);
  return status ? status : settle_by_profile(settings, source->vault, profile ? profile : "default", err);
}

static void settings_end(struct s3_settings *settings) {
  free(settings->region);
  free(settings->endpoint);
  *settings = (struct s3_settings){0};
}

mc_status s3_source_settings(struct s3_source *source, const struct s3_settings **out, mc_error *err) {
  mc_status status = MC_OK;
  pthread_mutex_lock(&source->lock);
  if (!source->settled) {
    status = settle(&source->settings, source, err);
    if (status) settings_end(&source->settings);
    source->settled = !status;
  }
  pthread_mutex_unlock(&source->lock);
  *out = &source->settings;
  return status;
}

/* ---- sources ---- */

static void source_free(struct s3_source *source) {
  if (!source) return;
  keyring_free(source->ring);
  settings_end(&source->settings);
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
                                     "profile",       "role_arn",          "external_id",
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
