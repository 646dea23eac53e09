#include "account.h"

#include <string.h>

#define ORIGIN "gcs"
#define NEEDS  4

static mc_status bad(mc_error *err, const char *what, const char *name) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s%.60s", what, name);
}

static const char *text_of(const json_t *json, const char *name) {
  const char *text = json_string_value(json_object_get(json, name));
  return text ? text : "";
}

static mc_status check_url(const json_t *account, const char *name, mc_error *err) {
  const char *url = text_of(account, name);
  if (!*url || strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0) return MC_OK;
  return bad(err, "it has no URL of the web as its ", name);
}

/* Where somebody else's token comes from. */
static mc_status check_source(const json_t *account, mc_error *err) {
  const json_t *source = json_object_get(account, "credential_source");
  if (*text_of(source, "environment_id") || json_object_get(source, "executable")) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN,
                        "its credential_source is AWS or a program, which is not supported; use a file or a URL");
  }
  if (!*text_of(source, "file") && !*text_of(source, "url")) {
    return bad(err, "its credential_source has no file and no url", "");
  }
  const json_t *format = json_object_get(source, "format");
  if (strcmp(text_of(format, "type"), "json") == 0 && !*text_of(format, "subject_token_field_name")) {
    return bad(err, "its credential_source's format has no subject_token_field_name", "");
  }
  return check_url(source, "url", err);
}

static mc_status check(const json_t *account, bool nested, mc_error *err) {
  static const struct {
    const char *type, *needs[NEEDS];
  } types[] = {{"service_account", {"client_email", "private_key"}},
               {"authorized_user", {"client_id", "client_secret", "refresh_token"}},
               {"external_account", {"audience", "subject_token_type", "token_url"}},
               {"impersonated_service_account", {"service_account_impersonation_url"}}};
  static const char *const urls[] = {"token_uri", "token_url", "service_account_impersonation_url"};
  const size_t count = sizeof(types) / sizeof(*types);
  const char *type = gcs_account_type(account);
  size_t i = 0;
  while (i < count && strcmp(types[i].type, type) != 0) i++;
  if (i == count || (nested && i == count - 1)) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "its type '%.60s' is not one that is supported", type);
  }
  for (size_t k = 0; k < NEEDS && types[i].needs[k]; k++) {
    if (!*text_of(account, types[i].needs[k])) return bad(err, "it has no ", types[i].needs[k]);
  }
  mc_status status = MC_OK;
  for (size_t k = 0; k < sizeof(urls) / sizeof(*urls) && !status; k++) status = check_url(account, urls[k], err);
  if (status) return status;
  if (strcmp(type, "external_account") == 0) return check_source(account, err);
  return i == count - 1 ? check(json_object_get(account, "source_credentials"), true, err) : MC_OK;
}

mc_status gcs_account_parse(json_t **out, const char *text, size_t size, mc_error *err) {
  json_error_t problem;
  json_t *account = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
  if (!account) { /* what jansson says may quote a secret */
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "it is no JSON: line %d, column %d", problem.line,
                        problem.column);
  }
  mc_status status = check(account, false, err);
  if (status) json_decref(account);
  if (!status) *out = account;
  return status;
}

const char *gcs_account_type(const json_t *account) {
  return text_of(account, "type");
}

const char *gcs_account_id(const json_t *account) {
  static const char *const names[] = {"client_email", "client_id", "audience"};
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    if (*text_of(account, names[i])) return text_of(account, names[i]);
  }
  const json_t *source = json_object_get(account, "source_credentials");
  return source ? gcs_account_id(source) : "";
}
