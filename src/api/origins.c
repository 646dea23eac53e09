/* Copying and checking origin rules and credentials, so that the upstreams can rely on them. */
#include "api/origins.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/origin.h"
#include "base/url.h"

#define ORIGIN          "origins"
#define MAX_RULES       1024
#define MAX_CREDENTIALS 256
#define MAX_SETTINGS    64
#define MAX_TEXT        ((size_t)64 << 10) /* of one value: a key file's content is the longest */

struct origins {
  mc_origin_rule *rules;
  size_t rule_count;
  mc_credentials *credentials;
  size_t credentials_count;
};

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for origin rules");
}

/* ---- credentials; no message has a value in it ---- */

/* Whether a key is there already, in one of the two ways to give it. */
static bool is_given(const mc_credentials *credentials, const char *key) {
  for (size_t i = 0; i < credentials->count; i++) {
    const char *other = credentials->settings[i].key;
    if (origin_is_setting(other, key) || origin_is_setting(key, other)) return true;
  }
  return false;
}

/* A file that isn't there, now. What is in it counts when it is needed. */
static mc_status check_value_file(const mc_credentials *credentials, const mc_setting *setting, mc_error *err) {
  char *secret;
  mc_error why = MC_ERROR_INIT;
  size_t size = strlen(setting->key);
  if (size < 6 || strcmp(setting->key + size - 5, "_file") != 0) return MC_OK;
  mc_status status = secret_read(&secret, setting->value, &why);
  if (!status) secret_free(secret);
  return status ? mc_error_set(err, status, ORIGIN, "the credentials '%.60s': %.60s: %s", credentials->name,
                               setting->key, why.message)
                : MC_OK;
}

static mc_status copy_settings(mc_credentials *to, const mc_credentials *from, mc_error *err) {
  if (from->count > MAX_SETTINGS) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the credentials '%.60s' have more than %d keys", from->name,
                        MAX_SETTINGS);
  }
  mc_setting *settings = calloc(from->count + 1, sizeof(*settings));
  if (!settings) return no_memory(err);
  to->settings = settings;
  for (size_t i = 0; i < from->count; i++) {
    const mc_setting *setting = &from->settings[i];
    const char *what = NULL;
    if (!setting->key || !*setting->key || strlen(setting->key) > MAX_TEXT) {
      return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the credentials '%.60s' have a value without a key",
                          from->name);
    }
    if (is_given(to, setting->key)) what = "there twice";
    if (!setting->value || !*setting->value) what = "empty";
    if (setting->value && strlen(setting->value) > MAX_TEXT) what = "longer than 64 KiB";
    if (what) {
      return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the credentials '%.60s': %.60s is %s", from->name,
                          setting->key, what);
    }
    settings[i] = (mc_setting){strdup(setting->key), strdup(setting->value)};
    to->count = i + 1;
    if (!settings[i].key || !settings[i].value) return no_memory(err);
    mc_status status = check_value_file(to, &settings[i], err);
    if (status) return status;
  }
  return MC_OK;
}

static mc_status copy_credentials(struct origins *origins, const mc_credentials *from, mc_error *err) {
  const char *name = from->name;
  if (!name || !*name || strcmp(name, "none") == 0) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "credentials need a name, which is not 'none'");
  }
  if (origin_credentials(origins->credentials, origins->credentials_count, name)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "there are credentials named '%.60s' twice", name);
  }
  mc_credentials *to = &origins->credentials[origins->credentials_count];
  to->name = strdup(name);
  if (!to->name) return no_memory(err);
  origins->credentials_count++;
  return copy_settings(to, from, err);
}

/* ---- rules ---- */

static mc_status bad_rule(mc_error *err, const mc_origin_rule *rule, const char *what, const char *why) {
  char prefix[200];
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the origin rule for %s: %s%s%s",
                      url_printable(prefix, sizeof(prefix), rule->prefix), what, *what ? ": " : "", why);
}

/* *text, malloced, is a URL of one of the schemes that names a server; it gets its normal form, without a '/' at the
 * end. */
static mc_status check_server(const mc_origin_rule *rule, const char *what, const char **text, const char *schemes,
                              mc_error *err) {
  struct url url;
  mc_error why = MC_ERROR_INIT;
  if (url_parse(&url, *text, &why)) return bad_rule(err, rule, what, why.message);
  if (!scheme_is_listed(schemes, url.scheme) || !url.authority_size || url.query) {
    url_free(&url);
    return bad_rule(err, rule, what, "it has to be http://HOST:PORT or https://HOST:PORT");
  }
  size_t size = strlen(url.text);
  while (url.text[size - 1] == '/') url.text[--size] = 0;
  free((char *)*text);
  *text = url.text;
  return MC_OK;
}

static mc_status check_file(const mc_origin_rule *rule, mc_error *err) {
  struct stat st;
  char text[128];
  int error = stat(rule->ca_file, &st) || access(rule->ca_file, R_OK) ? errno : 0;
  if (!error && !S_ISREG(st.st_mode)) return bad_rule(err, rule, "ca_file", "it is not a file");
  return error ? bad_rule(err, rule, "ca_file", strerror_r(error, text, sizeof(text))) : MC_OK;
}

/* The numbers, by their bounds in the table. */
static mc_status check_numbers(const mc_origin_rule *rule, mc_error *err) {
  mc_error why = MC_ERROR_INIT;
  mc_origin_rule scratch;
  char text[64];
  for (const mc_option_row *row = mc_origin_rule_rows(); row->name; row++) {
    if (row->type == MC_OPTION_STRING || row->type == MC_OPTION_BOOL) continue;
    mc_option_print(row, rule, text, sizeof(text));
    if (*text && mc_option_parse(row, &scratch, text, &why)) return bad_rule(err, rule, "", why.message);
  }
  return MC_OK;
}

static mc_status check_rule(const struct origins *origins, mc_origin_rule *rule, mc_error *err) {
  mc_status status = check_numbers(rule, err);
  bool named = rule->credentials && strcmp(rule->credentials, "none") != 0;
  if (!status && named && !origin_credentials(origins->credentials, origins->credentials_count, rule->credentials)) {
    char why[120];
    snprintf(why, sizeof(why), "there are none named '%.60s'", rule->credentials);
    status = bad_rule(err, rule, "credentials", why);
  }
  if (!status && rule->endpoint) status = check_server(rule, "endpoint", &rule->endpoint, "http,https", err);
  if (!status && rule->proxy && strcmp(rule->proxy, "none") != 0) {
    status = check_server(rule, "proxy", &rule->proxy, "http,https,socks5,socks5h", err);
  }
  if (!status && rule->ca_file) status = check_file(rule, err);
  return status;
}

/* Its strings are copies then, also after a failure. */
static mc_status copy_strings(mc_origin_rule *rule, mc_error *err) {
  const char **members[] = {&rule->prefix, &rule->credentials, &rule->endpoint, &rule->ca_file, &rule->proxy};
  mc_status status = MC_OK;
  for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
    const char *from = *members[i];
    *members[i] = from && *from ? strdup(from) : NULL;
    if (from && *from && !*members[i]) status = no_memory(err);
  }
  return status;
}

static mc_status copy_rule(struct origins *origins, const mc_origin_rule *from, mc_error *err) {
  mc_error why = MC_ERROR_INIT;
  mc_origin_rule *to = &origins->rules[origins->rule_count++];
  *to = *from;
  mc_status status = copy_strings(to, err);
  if (status) return status;
  if (!to->prefix) return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "an origin rule has no prefix");
  char *prefix;
  status = origin_prefix(&prefix, to->prefix, &why);
  if (status) return bad_rule(err, to, "prefix", why.message);
  free((char *)to->prefix);
  to->prefix = prefix;
  for (size_t i = 0; i + 1 < origins->rule_count; i++) {
    if (strcmp(origins->rules[i].prefix, prefix) == 0) return bad_rule(err, to, "", "there are two of them");
  }
  return check_rule(origins, to, err);
}

/* ---- all of it ---- */

mc_status origins_copy(struct origins **out, mc_options *options, mc_error *err) {
  const mc_origin_rule *rules = options->origins;
  const mc_credentials *credentials = options->credentials;
  if (!rules) options->origin_count = 0;
  if (!credentials) options->credentials_count = 0;
  if (options->origin_count > MAX_RULES || options->credentials_count > MAX_CREDENTIALS) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "there are more than %d origin rules, or %d credentials",
                        MAX_RULES, MAX_CREDENTIALS);
  }
  struct origins *origins = *out = calloc(1, sizeof(*origins));
  if (!origins) return no_memory(err);
  origins->rules = calloc(options->origin_count + 1, sizeof(*rules));
  origins->credentials = calloc(options->credentials_count + 1, sizeof(*credentials));
  mc_status status = origins->rules && origins->credentials ? MC_OK : no_memory(err);
  for (size_t i = 0; i < options->credentials_count && !status; i++) {
    status = copy_credentials(origins, &credentials[i], err);
  }
  for (size_t i = 0; i < options->origin_count && !status; i++) status = copy_rule(origins, &rules[i], err);
  options->origins = origins->rules;
  options->credentials = origins->credentials;
  return status;
}

static void wipe(const char *text) {
  if (text) explicit_bzero((char *)text, strlen(text));
  free((char *)text);
}

void origins_free(struct origins *origins) {
  if (!origins) return;
  for (size_t i = 0; i < origins->rule_count; i++) {
    const mc_origin_rule *rule = &origins->rules[i];
    const char *texts[] = {rule->prefix, rule->credentials, rule->endpoint, rule->ca_file, rule->proxy};
    for (size_t t = 0; t < sizeof(texts) / sizeof(*texts); t++) free((char *)texts[t]);
  }
  for (size_t i = 0; i < origins->credentials_count; i++) {
    mc_credentials *credentials = &origins->credentials[i];
    for (size_t s = 0; s < credentials->count; s++) {
      free((char *)credentials->settings[s].key);
      wipe(credentials->settings[s].value);
    }
    free((mc_setting *)credentials->settings);
    free((char *)credentials->name);
  }
  free(origins->rules);
  free(origins->credentials);
  free(origins);
}
