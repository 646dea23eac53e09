/* Which upstreams are asked for a URL, and when the next one is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/origin.h"
#include "base/url.h"
#include "engine/download.h"
#include "engine/engine.h"

#define MAX_RESTARTS 3 /* when the content changes while it is read */

static bool takes_scheme(const mc_upstream_ops *ops, const char *scheme) {
  for (const char *const *at = ops->schemes; *at; at++) {
    if (strcmp(*at, "*") == 0 || strcmp(*at, scheme) == 0) return true;
  }
  return false;
}

mc_origin_rule route_rule(const struct mc_cache *cache, const char *url) {
  const mc_options *options = &cache->options;
  const mc_origin_rule *found = origin_rule(options->origins, options->origin_count, url);
  mc_origin_rule rule = MC_ORIGIN_RULE_INIT;
  if (found) rule = *found;
  if (!found) rule.prefix = "";
  if (rule.revalidate_after_ms == MC_INHERIT) rule.revalidate_after_ms = options->revalidate_after_ms;
  if (!rule.parallelism) rule.parallelism = options->parallelism;
  return rule;
}

bool route_schemes(char *text, size_t size, const struct mc_cache *cache, const char *scheme) {
  size_t used = 0;
  bool listed = false;
  *text = 0;
  for (size_t i = 0; i < cache->upstream_count; i++) {
    for (const char *const *at = cache->upstreams[i]->ops->schemes; *at; at++) {
      if (strcmp(*at, "*") == 0 || scheme_is_listed(text, *at)) continue;
      listed |= strcmp(*at, scheme) == 0;
      int more = used < size ? snprintf(text + used, size - used, "%s%s", used ? ", " : "", *at) : 0;
      used += more > 0 ? (size_t)more : 0;
    }
  }
  return listed;
}

mc_status route(mc_upstream *upstreams[MAX_UPSTREAMS], size_t *count, struct mc_cache *cache, const char *url,
                mc_error *err) {
  char scheme[16] = "", text[256];
  memcpy(scheme, url, strcspn(url, ":") < sizeof(scheme) ? strcspn(url, ":") : 0);
  mc_origin_rule rule = route_rule(cache, url);
  bool listed = scheme_is_listed(cache->options.schemes, scheme), known = false;
  bool allowed = listed && rule.allowed && (!cache->client || cache->options.fallback);
  *count = 0;
  for (size_t i = 0; i < cache->upstream_count; i++) {
    mc_upstream *upstream = cache->upstreams[i];
    if (!takes_scheme(upstream->ops, scheme)) continue;
    known = true;
    bool is_cache = upstream->ops->flags & MC_UPSTREAM_CACHE; /* which has rules of its own */
    if (is_cache || allowed) upstreams[(*count)++] = upstream;
  }
  if (*count) return MC_OK;
  if (!known) {
    route_schemes(text, sizeof(text), cache, scheme);
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "no upstream takes URLs with %s://; there is: %s", scheme, text);
  }
  if (!listed) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "URLs with %s:// are not allowed here; the option 'schemes' lists those that are (now: %s)",
                        scheme, cache->options.schemes);
  }
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "it is not allowed by the rule for %s",
                      url_printable(text, sizeof(text), rule.prefix));
}

bool route_goes_on(const mc_upstream *upstream, mc_status status) {
  if (status == MC_CANCELLED || status == MC_DEADLINE_EXCEEDED || status == MC_CHANGED) return false;
  if (mc_status_is_retryable(status)) return true;
  bool is_cache = upstream->ops->flags & MC_UPSTREAM_CACHE;
  return is_cache && (status == MC_NO_SPACE || status == MC_IO || status == MC_CORRUPT || status == MC_PROTOCOL ||
                      status == MC_NO_MEMORY);
}

mc_status route_ask(struct flight *flight, struct download *download,
                    mc_status (*ask)(void *user, mc_upstream *upstream, mc_error *err), void *user, mc_error *err) {
  struct mc_cache *cache = flight->cache;
  mc_upstream *upstreams[MAX_UPSTREAMS];
  size_t count;
  mc_status status = route(upstreams, &count, cache, flight->url, err);
  if (status) return status;
  int restarts = 0;
  for (size_t i = 0; i < count;) {
    status = ask(user, upstreams[i], err);
    if (status == MC_CHANGED && restarts++ < MAX_RESTARTS) {
      stat_add(cache, STAT_RESTARTS, 1);
      flight_hide(flight);
      download_reset(download);
      continue;
    }
    if (status == MC_OK || !route_goes_on(upstreams[i], status) || ++i == count) break;
    stat_add(cache, STAT_FALLBACKS, 1);
    char url[256];
    log_info(cache->logger, ORIGIN, "%s: %s; going to the origin", url_printable(url, sizeof(url), flight->url),
             err ? err->message : mc_status_name(status));
  }
  return status;
}

/* ---- folders ---- */

mc_status url_of_folder(char **out, const char *url, mc_error *err) {
  char *normal;
  mc_status status = url_normalise(&normal, url, err);
  if (status) return status;
  size_t length = strcspn(normal, "?");
  if (normal[length - 1] != '/') {
    char *folder = format_str("%.*s/%s", (int)length, normal, normal + length);
    free(normal);
    normal = folder;
    if (!normal) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  }
  *out = normal;
  return MC_OK;
}

struct listing {
  bool (*visit)(void *user, const mc_listed *listed);
  void *user;
  bool begun;
};

static bool pass_on(void *user, const mc_listed *listed) {
  struct listing *listing = user;
  listing->begun = true;
  return listing->visit(listing->user, listed);
}

mc_status route_list(mc_upstream **from, struct mc_cache *cache, const char *url,
                     bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                     mc_error *err) {
  mc_upstream *upstreams[MAX_UPSTREAMS];
  size_t count, most = (size_t)cache->options.tree_files;
  struct listing listing = {visit, user, false};
  mc_status status = route(upstreams, &count, cache, url, err);
  for (size_t i = 0; i < count && !status; i++) {
    const mc_upstream_ops *ops = upstreams[i]->ops;
    if (from) *from = upstreams[i];
    status = ops->list ? ops->list(upstreams[i], url, most, pass_on, &listing, call, err)
                       : mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "%s can't list folders", ops->name);
    if (!status) break;
    /* What has been reported can't be taken back: another's list would report it again. */
    if (i + 1 < count && !listing.begun && route_goes_on(upstreams[i], status)) status = MC_OK;
  }
  return status;
}
