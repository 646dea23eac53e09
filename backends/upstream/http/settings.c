/* How a client connects: timeouts, proxies, certificates. */
#include <stdlib.h>
#include <string.h>

#include "aside.h"
#include "internal.h"

/* A copy of the first of these variables that is set and not empty, or of `fallback`. */
static bool read_variable(char **out, const char *const names[], const char *fallback) {
  const char *value = NULL;
  for (size_t i = 0; names[i] && !(value && *value); i++) value = getenv(names[i]);
  if (!value || !*value) value = fallback;
  *out = value ? strdup(value) : NULL;
  return *out || !value;
}

bool http_settings_read(struct http_settings *settings, const mc_upstream_config *config) {
  /* The variables of the curl command, and their order. HTTP_PROXY is left out: a CGI gets it from its client's
   * headers. */
  static const char *const plain[] = {"http_proxy", "all_proxy", "ALL_PROXY", NULL};
  static const char *const secure[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", NULL};
  static const char *const none[] = {"no_proxy", "NO_PROXY", NULL};
  static const char *const file[] = {"CURL_CA_BUNDLE", "SSL_CERT_FILE", NULL};
  static const char *const folder[] = {"SSL_CERT_DIR", NULL};
  *settings = (struct http_settings){.connect_timeout_ms = config->connect_timeout_ms,
                                     .stall_timeout_ms = config->stall_timeout_ms,
                                     .retries = config->retries,
                                     .allow_link_local = config->allow_link_local,
                                     .logger = config->logger};
  settings->user_agent = strdup(config->user_agent ? config->user_agent : "modelcache");
  settings->schemes = config->schemes ? strdup(config->schemes) : NULL;
  return settings->user_agent && (settings->schemes || !config->schemes) &&
         read_variable(&settings->proxy, plain, "") && read_variable(&settings->secure_proxy, secure, "") &&
         read_variable(&settings->no_proxy, none, "") && read_variable(&settings->ca_file, file, NULL) &&
         read_variable(&settings->ca_folder, folder, NULL);
}

void http_settings_free(struct http_settings *settings) {
  free(settings->user_agent);
  free(settings->schemes);
  free(settings->proxy);
  free(settings->secure_proxy);
  free(settings->no_proxy);
  free(settings->ca_file);
  free(settings->ca_folder);
}

bool http_settings_apply(const struct http_settings *settings, const struct http_policy *policy, CURL *easy,
                         const char *url) {
  static const mc_origin_rule none = {0};
  const mc_origin_rule *rule = policy ? http_policy_rule(policy) : &none;
  const char *usual = curl_strnequal(url, "https:", 6) ? settings->secure_proxy : settings->proxy;
  const char *proxy = !rule->proxy ? usual : strcmp(rule->proxy, "none") == 0 ? "" : rule->proxy;
  const char *ca_file = rule->ca_file ? rule->ca_file : settings->ca_file;
  const char *ca_folder = rule->ca_file ? NULL : settings->ca_folder;
  bool good = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                               aside_connect_timeout_ms(settings->connect_timeout_ms)) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_USERAGENT, settings->user_agent) == CURLE_OK;
  /* Set also when they are empty: libcurl would look into the environment by itself. */
  good = good && curl_easy_setopt(easy, CURLOPT_PROXY, proxy) == CURLE_OK &&
         curl_easy_setopt(easy, CURLOPT_NOPROXY, rule->proxy ? "" : settings->no_proxy) == CURLE_OK;
  if (ca_file) good = good && curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file) == CURLE_OK;
  if (ca_folder || rule->ca_file) good = good && curl_easy_setopt(easy, CURLOPT_CAPATH, ca_folder) == CURLE_OK;
  return good;
}
