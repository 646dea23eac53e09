/* Where requests may go: addresses that are refused, and redirects. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/net.h"
#include "base/url.h"
#include "internal.h"

#define ORIGIN "http"

mc_status http_refuse_address(const char *url, mc_error *err) {
  char text[URL_SHOWN];
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                      "%s leads to a link-local or metadata address, which is refused; see allow_link_local",
                      url_printable(text, sizeof(text), url));
}

/* Whether a host is written as an address that is link-local; in any of the ways in which somebody may read it so. */
static bool is_link_local(const char *host) {
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  char text[HOST_SIZE];
  size_t size = strlen(host);
  if (size < 2 || size >= sizeof(text)) return false;
  bool brackets = host[0] == '[' && host[size - 1] == ']';
  size -= host[size - 1] == '.' || brackets;
  memcpy(text, host + brackets, size - brackets);
  text[size - brackets] = 0;
  if (!brackets) return inet_aton(text, &v4.sin_addr) && net_is_link_local((struct sockaddr *)&v4);
  return inet_pton(AF_INET6, text, &v6.sin6_addr) == 1 && net_is_link_local((struct sockaddr *)&v6);
}

static bool is_ascii(const char *text) {
  while (*text && (unsigned char)*text < 0x80) text++;
  return *text == 0;
}

mc_status http_check_host(const struct http_settings *settings, const char *url, mc_error *err) {
  if (settings->allow_link_local) return MC_OK;
  CURLU *parts = curl_url();
  char *host = NULL;
  if (!parts) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  bool refused = curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
                 curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK && is_link_local(host);
  curl_free(host);
  curl_url_cleanup(parts);
  return refused ? http_refuse_address(url, err) : MC_OK;
}

bool http_is_redirect(const struct http_head *head) {
  long status = head->status;
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Resolve `location` against `from`; without user information, which would be a credential of somebody's choice. */
static mc_status resolve(char **out, const char *from, const char *location, const char *asked, mc_error *err) {
  char text[URL_SHOWN];
  CURLU *parts = curl_url();
  char *scheme = NULL, *host = NULL, *whole = NULL;
  CURLUcode code = parts ? curl_url_set(parts, CURLUPART_URL, from, 0) : CURLUE_OUT_OF_MEMORY;
  if (!code) code = curl_url_set(parts, CURLUPART_URL, location, CURLU_URLENCODE | CURLU_NON_SUPPORT_SCHEME);
  if (!code) code = curl_url_set(parts, CURLUPART_USER, NULL, 0);
  if (!code) code = curl_url_set(parts, CURLUPART_PASSWORD, NULL, 0);
  if (!code) code = curl_url_set(parts, CURLUPART_FRAGMENT, NULL, 0);
  if (!code) code = curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0);
  if (!code) code = curl_url_get(parts, CURLUPART_URL, &whole, 0);
  if (!code && curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK && !is_ascii(host)) {
    code = CURLUE_BAD_HOSTNAME; /* it may become another name, or an address, on its way to the resolver */
  }
  mc_status status = MC_OK;
  url_printable(text, sizeof(text), asked);
  if (code == CURLUE_OUT_OF_MEMORY) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a redirect");
  } else if (code) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s redirects to something that is no URL", text);
  } else if (!curl_strequal(scheme, "http") && !curl_strequal(scheme, "https")) {
    status =
        mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s redirects to something that is not http or https", text);
  } else if (strlen(whole) > URL_MAX) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s redirects to a URL of more than %d bytes", text, URL_MAX);
  } else if (!(*out = strdup(whole))) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a redirect");
  }
  curl_free(scheme);
  curl_free(host);
  curl_free(whole);
  curl_url_cleanup(parts);
  return status;
}

mc_status http_redirect(char **url, const char *schemes, CURL *easy, const char *asked, mc_error *err) {
  struct curl_header *location;
  char *to = NULL, text[URL_SHOWN];
  if (curl_easy_header(easy, "Location", 0, CURLH_HEADER, -1, &location) != CURLHE_OK) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s redirects without saying where to",
                        url_printable(text, sizeof(text), asked));
  }
  mc_status status = resolve(&to, *url, location->value, asked, err);
  const char *scheme = to && curl_strnequal(to, "https:", 6) ? "https" : "http";
  if (!status && schemes && !scheme_is_listed(schemes, scheme)) {
    status = mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                          "%s redirects to %s://, which the option 'schemes' does not list",
                          url_printable(text, sizeof(text), asked), scheme);
    free(to);
  }
  if (status) return status;
  free(*url);
  *url = to;
  return MC_OK;
}
