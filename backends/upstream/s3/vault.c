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

/* What is said in a rule's credentials or in Triton's file, or in the files that those name. */
enum { ID, SECRET, TOKEN, PROFILE, ROLE, EXTERNAL_ID, SAID };
static const char *const names_of_said[SAID] = {"access_key_id", "secret_access_key", "session_token",
                                                "profile",       "role_arn",          "external_id"};

static mc_status read_said(char *said[SAID], const mc_credentials *credentials, mc_error *err) {
  mc_status status = MC_OK;
  for (int i = 0; i < SAID && !status; i++) status = origin_secret(&said[i], credentials, names_of_said[i], err);
  return status;
}

static mc_status get_said(const struct s3_source *source, char *const said[SAID], struct keys **out, mc_error *err) {
  if (!said[ID] && !said[SECRET]) return MC_OK;
  if (!said[ID] || !said[SECRET]) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "of the credentials %.200s: only one of access_key_id and secret_access_key is there",
                        source->where);
  }
  *out = keys_new(source->where, said[ID], said[SECRET], said[TOKEN], 0);
  return *out ? MC_OK : no_memory(err);
}

static mc_status get_as_said(struct s3_source *source, char *const said[SAID], struct keys **out, const mc_call *call,
                             mc_error *err) {
  const struct s3_settings *settings;
  mc_status status = s3_source_settings(source, &settings, err);
  if (!status) status = get_said(source, said, out, err);
  if (status) return status;
  struct s3_chain chain = {source->vault->client, &source->vault->environment, settings->region};
  if (!*out && said[PROFILE]) status = s3_chain_profile(&chain, out, said[PROFILE], call, err);
  if (!status && !*out) status = s3_chain_usual(&chain, out, call, err);
  if (status || !said[ROLE]) return status;
  struct s3_role role = {.where = source->where, .arn = said[ROLE], .external_id = said[EXTERNAL_ID]};
  struct keys *base = *out;
  *out = NULL;
  if (base->id) {
    status = s3_chain_role(&chain, out, &role, base, call, err);
  } else {
    status =
        mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                     "the credentials %.150s name a role, but there are no keys to ask for it with", source->where);
  }
  keys_release(base);
  return status;
}

static mc_status get(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  struct s3_source *source = user;
  char *said[SAID] = {NULL};
  *out = NULL;
  if (source->anonymous) {
    *out = keys_new(source->where, NULL, NULL, NULL, 0);
    return *out ? MC_OK : no_memory(err);
  }
  mc_status status = read_said(said, source->credentials, err);
  if (!status) status = get_as_said(source, said, out, call, err);
  for (int i = 0; i < SAID; i++) secret_free(said[i]);
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

static mc_status settle_by_environment(struct s3_settings *settings, const struct s3_environment *environment,
                                       mc_error *err) {
  const char *name, *said = s3_environment_first(environment, S3_REGION, S3_DEFAULT_REGION, &name);
  mc_status status = set_region(settings, said, name, err);
  said = s3_environment_first(environment, S3_ENDPOINT_URL_S3, S3_ENDPOINT_URL, &name);
  if (status || s3_environment_says(environment, S3_IGNORE_ENDPOINTS)) return status;
  return set_endpoint(settings, said, name, err);
}

static mc_status settle(struct s3_settings *settings, const struct s3_source *source, mc_error *err) {
  const struct s3_environment *environment = &source->vault->environment;
  char *region = NULL, *style = NULL, *profile = NULL;
  mc_status status = origin_secret(&region, source->credentials, "region", err);
  if (!status) status = origin_secret(&style, source->credentials, "addressing_style", err);
  if (!status) status = origin_secret(&profile, source->credentials, "profile", err);
  if (!status) status = set_region(settings, region, source->where, err);
  if (!status) status = set_style(settings, style, source->where, err);
  if (!status) status = settle_by_environment(settings, environment, err);
  const char *name = profile ? profile : s3_environment_first(environment, S3_PROFILE, S3_DEFAULT_PROFILE, NULL);
  if (!status) status = settle_by_profile(settings, source->vault, name ? name : "default", err);
  secret_free(region);
  secret_free(style);
  secret_free(profile);
  return status;
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
  source->ring = keyring_new(get, source, true);
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
