/* Telling how an origin is asked, and trying it. */
#include <stdio.h>
#include <stdlib.h>

#include "base/url.h"
#include "engine/engine.h"

static mc_status try_origin(mc_origin_check *out, mc_cache *cache, const char *url, const mc_call *call) {
  mc_upstream *upstreams[MAX_UPSTREAMS];
  size_t count;
  mc_info info = {.size = MC_SIZE_UNKNOWN};
  mc_status status = route(upstreams, &count, cache, url, &out->error);
  out->allowed = status != MC_PERMISSION_DENIED;
  if (status) return status;
  const mc_upstream_ops *ops = upstreams[0]->ops;
  snprintf(out->upstream, sizeof(out->upstream), "%s", ops->name);
  if (ops->explain) status = ops->explain(upstreams[0], url, &out->access, call, &out->error);
  if (!status) status = ops->stat(upstreams[0], url, &info, call, &out->error);
  out->size = info.size;
  out->validators = info.validators;
  return status;
}

/* What the origin says is what was to be checked; that the caller's own time is over is the call's failure. */
static mc_status check_here(mc_origin_check *out, mc_cache *cache, const char *url, const mc_call *call,
                            mc_error *err) {
  mc_origin_rule rule = route_rule(cache, url);
  *out = (mc_origin_check){.struct_size = sizeof(*out),
                           .revalidate_after_ms = rule.revalidate_after_ms,
                           .parallelism = rule.parallelism,
                           .bandwidth = rule.bandwidth,
                           .pin = rule.pin,
                           .size = MC_SIZE_UNKNOWN};
  url_printable(out->rule, sizeof(out->rule), rule.prefix);
  mc_status status = out->error.status = try_origin(out, cache, url, call);
  if (status != MC_DEADLINE_EXCEEDED && status != MC_CANCELLED) return MC_OK;
  if (err) *err = out->error;
  return status;
}

mc_status mc_check_origin(mc_origin_check *out, mc_cache *cache, const char *url, int64_t timeout_ms, mc_error *err) {
  mc_upstream *service = cache->client ? cache->upstreams[0] : NULL;
  mc_call call = {deadline_in_ms(timeout_ms), NULL};
  char *normal;
  mc_status status = url_normalise(&normal, url, err);
  if (status) return status;
  if (!service) {
    status = check_here(out, cache, normal, &call, err);
  } else if (service->ops->cache->check) {
    status = service->ops->cache->check(service, normal, out, &call, err);
  } else {
    status = mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "%s can't check origins", service->ops->name);
  }
  free(normal);
  return status;
}
