/* What the client's own files share. */
#ifndef UPSTREAM_HTTP_INTERNAL_H
#define UPSTREAM_HTTP_INTERNAL_H

#include <curl/curl.h>

#include "http.h"

/* How a client connects: its configuration, and what it takes from the environment. */
struct http_settings {
  int64_t connect_timeout_ms, stall_timeout_ms;
  uint32_t retries;
  bool allow_link_local;
  const mc_logger *logger;
  char *user_agent;
  char *schemes;                         /* NULL: both */
  char *proxy, *secure_proxy, *no_proxy; /* for http, for https, for neither; "" where there is none */
  char *ca_file, *ca_folder;             /* NULL: the system's */
};

/* Reads the environment: other threads of the process may change it later, and getenv would not be safe then. false: no
 * memory; http_settings_free then, too. */
bool http_settings_read(struct http_settings *settings, const mc_upstream_config *config);
void http_settings_free(struct http_settings *settings);

/* policy.c: what the operator's rules change for single origins. */

struct http_origins {
  const mc_origin_rule *rules;
  size_t count;
};

/* Of one rule. */
struct http_policy;

/* One for each rule. NULL: no memory. */
struct http_policy *http_policies_new(const struct http_origins *origins);
void http_policies_free(struct http_policy *policies, const struct http_origins *origins);
/* NULL: no rule. The following take that, too. */
struct http_policy *http_policy_of(struct http_policy *policies, const struct http_origins *origins, const char *url);
const mc_origin_rule *http_policy_rule(const struct http_policy *policy);
/* So many bytes have come. */
void http_throttle_charge(struct http_policy *policy, size_t size);
/* Wait as long as the rule's bandwidth wants it, or the call ends. Whether there was anything to wait for. */
bool http_throttle_wait(struct http_policy *policy, const mc_call *call);

/* false: no memory. */
bool http_settings_apply(const struct http_settings *settings, const struct http_policy *policy, CURL *easy,
                         const char *url);

const struct http_settings *http_client_settings(const struct http_client *client);

/* target.c: where requests may go. */

/* MC_PERMISSION_DENIED if the URL's host is written as an address that is refused. What a name resolves to is looked at
 * when a connection is made; behind a proxy it's the proxy that resolves it, and the proxy's rules that hold. */
mc_status http_check_host(const struct http_settings *settings, const char *url, mc_error *err);
mc_status http_refuse_address(const char *url, mc_error *err);
bool http_is_redirect(const struct http_head *head);
/* Replace *url by where the response that `easy` has just got redirects it to. `schemes`: those that are allowed, with
 * commas between; NULL: http and https. `asked` is for messages. */
mc_status http_redirect(char **url, const char *schemes, CURL *easy, const char *asked, mc_error *err);

/* retry.c, for tests: milliseconds before the attempt that follows `failures` failures in a row, of which the last one
 * asked to wait for `asked_ms` (or -1). */
int64_t http_backoff_ms(uint32_t failures, int64_t asked_ms);

#endif
