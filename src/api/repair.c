/* Comparing what the coordination knows with what is stored. */
#include "engine/engine.h"
#include "engine/reconcile.h"

static bool in_time(void *user) {
  return clock_ns() < *(const int64_t *)user;
}

static mc_status repair_here(mc_repair_result *out, mc_cache *cache, bool dry_run, int64_t deadline, mc_error *err) {
  struct reconcile how = {.records = true,
                          .dry_run = dry_run,
                          .fill = cache->news != NULL,
                          .go_on = in_time,
                          .user = &deadline,
                          .deadline = deadline};
  *out = (mc_repair_result){.struct_size = sizeof(*out)};
  if (!cache->home) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "this cache keeps nothing (storage is 'none')");
  }
  mc_status status = cache->news ? tier_rescan(cache->home, in_time, &deadline, err) : MC_OK;
  if (!status) status = reconcile(cache, &how, out, err);
  if (status != MC_CANCELLED) return status;
  return mc_error_set(err, MC_DEADLINE_EXCEEDED, ORIGIN, "the storage could not be gone through in time");
}

mc_status mc_repair(mc_repair_result *out, mc_cache *cache, bool dry_run, int64_t timeout_ms, mc_error *err) {
  mc_upstream *service = cache->client ? cache->upstreams[0] : NULL;
  mc_call call = {deadline_in_ms(timeout_ms), NULL};
  if (!service) return repair_here(out, cache, dry_run, call.deadline, err);
  if (service->ops->cache->repair) return service->ops->cache->repair(service, dry_run, out, &call, err);
  return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "%s can't compare its storage", service->ops->name);
}
