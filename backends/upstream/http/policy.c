/* What the operator's rules change for single origins, and how fast they may be read. */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/origin.h"
#include "internal.h"

#define BURST_MS 50 /* of bandwidth that was not used is not lost */

struct http_policy {
  const mc_origin_rule *rule;
  pthread_mutex_t lock; /* a leaf */
  int64_t paid_until;   /* at the rule's bandwidth, what has come took until then */
};

struct http_policy *http_policies_new(const struct http_origins *origins) {
  struct http_policy *policies = calloc(origins->count ? origins->count : 1, sizeof(*policies));
  for (size_t i = 0; policies && i < origins->count; i++) {
    policies[i].rule = &origins->rules[i];
    pthread_mutex_init(&policies[i].lock, NULL);
  }
  return policies;
}

void http_policies_free(struct http_policy *policies, const struct http_origins *origins) {
  for (size_t i = 0; policies && i < origins->count; i++) pthread_mutex_destroy(&policies[i].lock);
  free(policies);
}

struct http_policy *http_policy_of(struct http_policy *policies, const struct http_origins *origins, const char *url) {
  const mc_origin_rule *rule = origin_rule(origins->rules, origins->count, url);
  return rule ? &policies[rule - origins->rules] : NULL;
}

const mc_origin_rule *http_policy_rule(const struct http_policy *policy) {
  return policy->rule;
}

void http_throttle_charge(struct http_policy *policy, size_t size) {
  if (!policy || !policy->rule->bandwidth) return;
  int64_t now = clock_ns(), takes = (int64_t)((double)size * (double)NS_PER_S / (double)policy->rule->bandwidth);
  pthread_mutex_lock(&policy->lock);
  int64_t from = now - BURST_MS * NS_PER_MS;
  policy->paid_until = (policy->paid_until > from ? policy->paid_until : from) + takes;
  pthread_mutex_unlock(&policy->lock);
}

bool http_throttle_wait(struct http_policy *policy, const mc_call *call) {
  if (!policy || !policy->rule->bandwidth) return false;
  bool waited = false;
  for (;;) {
    pthread_mutex_lock(&policy->lock);
    int64_t until = deadline_earlier(policy->paid_until, call->deadline);
    pthread_mutex_unlock(&policy->lock);
    if (clock_ns() >= until || mc_call_check(call, NULL)) return waited;
    struct pollfd cancel = {.fd = mc_cancel_fd(call->cancel), .events = POLLIN};
    poll(&cancel, 1, deadline_poll_ms(until));
    waited = true;
  }
}
