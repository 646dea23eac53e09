/* The order of the AWS tools: the environment, the profile, the token of a web identity, the container's agent, the
 * machine's metadata service. What another program would have to be run for (credential_process), or is kept by another
 * (the tokens of single sign-on), is refused by name: to go on would find other credentials than the operator's. */
#include "chain.h"

#include <string.h>

#include "base/clock.h"
#include "profile.h"

#define ORIGIN       "s3"
#define DEPTH_MAX    5
#define NOTHING_MS   300000 /* where nothing is found it's looked for again after this */
#define DEFAULT_NAME "default"

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

/* ---- roles ---- */

mc_status s3_chain_role(const struct s3_chain *chain, struct keys **out, struct s3_role *role, const struct keys *keys,
                        const mc_call *call, mc_error *err) {
  const struct s3_environment *environment = chain->environment;
  const char *said = s3_environment_first(environment, S3_ENDPOINT_URL_STS, S3_ENDPOINT_URL, NULL);
  if (said) role->endpoint = said;
  if (s3_environment_says(environment, S3_IGNORE_ENDPOINTS)) role->endpoint = NULL;
  return s3_get_role(chain, out, role, keys, call, err);
}

static mc_status get_web_identity(const struct s3_chain *chain, struct keys **out, const mc_call *call, mc_error *err) {
  char *const *values = chain->environment->values;
  struct s3_role role = {.where = "AWS_ROLE_ARN",
                         .arn = values[S3_ROLE_ARN],
                         .session_name = values[S3_ROLE_SESSION_NAME],
                         .token_file = values[S3_WEB_IDENTITY_TOKEN_FILE]};
  if (!role.token_file) return MC_OK;
  if (!role.arn) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN, which says for which role");
  }
  return s3_chain_role(chain, out, &role, NULL, call, err);
}

/* ---- the environment ---- */

static mc_status get_environment(const struct s3_chain *chain, struct keys **out, mc_error *err) {
  char *const *values = chain->environment->values;
  if (!values[S3_ACCESS_KEY_ID] && !values[S3_SECRET_ACCESS_KEY]) return MC_OK;
  if (!values[S3_ACCESS_KEY_ID] || !values[S3_SECRET_ACCESS_KEY]) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set");
  }
  *out = keys_new("AWS_ACCESS_KEY_ID", values[S3_ACCESS_KEY_ID], values[S3_SECRET_ACCESS_KEY], values[S3_SESSION_TOKEN],
                  0);
  return *out ? MC_OK : no_memory(err);
}

/* ---- profiles ---- */

struct walk {
  const struct s3_chain *chain;
  const struct s3_profiles *profiles;
  const mc_call *call;
};

static mc_status get_written(struct keys **out, const struct s3_profiles *profiles, enum s3_profile_file file,
                             const char *profile, mc_error *err) {
  char where[160];
  const char *id = s3_profiles_value_in(profiles, file, profile, "aws_access_key_id");
  const char *secret = s3_profiles_value_in(profiles, file, profile, "aws_secret_access_key");
  if (!id && !secret) return MC_OK;
  snprintf(where, sizeof(where), "the profile '%.80s' of the %s file", profile,
           file == S3_CONFIG ? "config" : "credentials");
  if (!id || !secret) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "%s has only one of aws_access_key_id and aws_secret_access_key", where);
  }
  *out = keys_new(where, id, secret, s3_profiles_value_in(profiles, file, profile, "aws_session_token"), 0);
  return *out ? MC_OK : no_memory(err);
}

static mc_status refuse(const char *profile, const char *what, mc_error *err) {
  return mc_error_set(
      err, MC_UNSUPPORTED, ORIGIN,
      "the profile '%.80s' has %s, which can't be used here; use keys, a role_arn or a web identity, or "
      "another profile by AWS_PROFILE",
      profile, what);
}

/* The keys themselves, wherever the profile has them. */
static mc_status get_keys(struct walk *walk, struct keys **out, const char *profile, mc_error *err) {
  const struct s3_profiles *profiles = walk->profiles;
  mc_status status = get_written(out, profiles, S3_CREDENTIALS, profile, err);
  if (status || *out) return status;
  if (s3_profiles_value(profiles, profile, "credential_process")) return refuse(profile, "a credential_process", err);
  if (s3_profiles_value(profiles, profile, "sso_session") || s3_profiles_value(profiles, profile, "sso_start_url")) {
    return refuse(profile, "single sign-on (sso_…)", err);
  }
  return get_written(out, profiles, S3_CONFIG, profile, err);
}

static mc_status get_profile(struct walk *walk, struct keys **out, const char *profile, unsigned depth, mc_error *err);

/* Those with which a profile asks for its role. */
static mc_status get_base(struct walk *walk, struct keys **out, const char *profile, unsigned depth, mc_error *err) {
  const char *source = s3_profiles_value(walk->profiles, profile, "source_profile");
  const char *place = s3_profiles_value(walk->profiles, profile, "credential_source");
  mc_status status = MC_OK;
  if (!source == !place) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "the profile '%.80s' has a role_arn, and needs one of source_profile, credential_source and "
                        "web_identity_token_file",
                        profile);
  }
  if (source && strcmp(source, profile) == 0) {
    status = get_keys(walk, out, profile, err);
  } else if (source) {
    status = get_profile(walk, out, source, depth + 1, err);
  } else if (strcmp(place, "Environment") == 0) {
    status = get_environment(walk->chain, out, err);
  } else if (strcmp(place, "EcsContainer") == 0) {
    status = s3_get_container(walk->chain, out, walk->call, err);
  } else if (strcmp(place, "Ec2InstanceMetadata") == 0) {
    status = s3_get_machine(walk->chain, out, walk->call, err);
  }
  if (status || *out) return status;
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                      "there are no credentials where the profile '%.80s' says: %.80s", profile,
                      source ? source : place);
}

static mc_status get_role(struct walk *walk, struct keys **out, const char *profile, const char *arn, unsigned depth,
                          mc_error *err) {
  const struct s3_profiles *profiles = walk->profiles;
  char where[120];
  snprintf(where, sizeof(where), "the profile '%.80s'", profile);
  struct s3_role role = {.where = where,
                         .arn = arn,
                         .session_name = s3_profiles_value(profiles, profile, "role_session_name"),
                         .external_id = s3_profiles_value(profiles, profile, "external_id"),
                         .duration = s3_profiles_value(profiles, profile, "duration_seconds"),
                         .token_file = s3_profiles_value(profiles, profile, "web_identity_token_file"),
                         .endpoint = s3_profiles_endpoint(profiles, profile, "sts")};
  struct keys *base = NULL;
  if (s3_profiles_value(profiles, profile, "mfa_serial")) return refuse(profile, "an mfa_serial", err);
  mc_status status = role.token_file ? MC_OK : get_base(walk, &base, profile, depth, err);
  if (!status) status = s3_chain_role(walk->chain, out, &role, base, walk->call, err);
  keys_release(base);
  return status;
}

static mc_status get_profile(struct walk *walk, struct keys **out, const char *profile, unsigned depth, mc_error *err) {
  const char *arn = s3_profiles_value(walk->profiles, profile, "role_arn");
  if (depth > DEPTH_MAX) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "the profiles' source_profile lead on and on, or in a circle: see '%.80s'", profile);
  }
  if (!s3_profiles_have(walk->profiles, profile)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "there is no profile '%.80s' in the AWS tools' credentials and config files", profile);
  }
  return arn ? get_role(walk, out, profile, arn, depth, err) : get_keys(walk, out, profile, err);
}

/* *out stays NULL if the profile has none, or if there is no profile and it `may` be so. */
static mc_status find_profile(const struct s3_chain *chain, struct keys **out, const char *profile, bool may,
                              const mc_call *call, mc_error *err) {
  struct s3_profiles *profiles;
  mc_status status = s3_profiles_read(&profiles, chain->environment, err);
  if (status) return status;
  struct walk walk = {chain, profiles, call};
  if (!may || s3_profiles_have(profiles, profile)) status = get_profile(&walk, out, profile, 0, err);
  s3_profiles_free(profiles);
  return status;
}

mc_status s3_chain_profile(const struct s3_chain *chain, struct keys **out, const char *profile, const mc_call *call,
                           mc_error *err) {
  mc_status status = find_profile(chain, out, profile, false, call, err);
  if (status || *out) return status;
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the profile '%.80s' has no credentials", profile);
}

/* ---- all of them ---- */

mc_status s3_chain_usual(const struct s3_chain *chain, struct keys **out, const mc_call *call, mc_error *err) {
  const char *profile = s3_environment_first(chain->environment, S3_PROFILE, S3_DEFAULT_PROFILE, NULL);
  mc_status status = get_environment(chain, out, err);
  if (!status && !*out) {
    status = find_profile(chain, out, profile ? profile : DEFAULT_NAME, !profile, call, err);
  }
  if (!status && !*out) status = get_web_identity(chain, out, call, err);
  if (!status && !*out) status = s3_get_container(chain, out, call, err);
  if (!status && !*out) status = s3_get_machine(chain, out, call, err);
  if (status || *out) return status;
  *out = keys_new("none: neither the environment, nor a profile, a web identity, the container or the machine has any",
                  NULL, NULL, NULL, clock_wall_ms() + NOTHING_MS);
  return *out ? MC_OK : no_memory(err);
}
