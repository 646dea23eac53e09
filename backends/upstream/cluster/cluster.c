/* The upstream that is a modelcache service: control by gRPC, bytes from its pods over a transport. */
#include "cluster.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "messages.h"

#define ORIGIN "cluster"

static void cluster_close(mc_upstream *self) {
  struct cluster *cluster = (struct cluster *)self;
  pool_free(cluster->pool);
  service_close(cluster->service);
  curl_global_cleanup();
  free(cluster);
}

extern const mc_upstream_ops cluster_upstream_ops;

static mc_status cluster_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  struct cluster *cluster = calloc(1, sizeof(*cluster));
  if (!cluster) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the client of a service");
  if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
    free(cluster);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "libcurl can't be initialised");
  }
  cluster->base.ops = &cluster_upstream_ops;
  cluster->retries = config->retries;
  mc_status status = service_open(&cluster->service, config, err);
  if (!status) status = pool_new(&cluster->pool, config, cluster_retries_ms(config->retries), err);
  if (status) {
    cluster_close(&cluster->base);
    return status;
  }
  *out = &cluster->base;
  return MC_OK;
}

static struct service *service_of(mc_upstream *self) {
  return ((struct cluster *)self)->service;
}

static mc_status cluster_stat(mc_upstream *self, const char *url, mc_info *info, const mc_call *call, mc_error *err) {
  Modelcache__V1__StatRequest request = MODELCACHE__V1__STAT_REQUEST__INIT;
  request.url = (char *)url;
  void *message;
  mc_status status = service_unary(&message, &modelcache__v1__stat_response__descriptor, service_of(self), "Stat",
                                   &request.base, call, err);
  if (status) return status;
  const Modelcache__V1__StatResponse *answer = message;
  mc_entry entry;
  if (answer->entry) {
    status = entry_from(&entry, answer->entry, err);
  } else {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service answered Stat without an entry");
  }
  if (!status && entry.missing) status = mc_error_set(err, MC_NOT_FOUND, ORIGIN, "the origin has no such file");
  if (!status) {
    *info = (mc_info){.size = entry.size,
                      .validators = entry.validators,
                      .has_digest = entry.has_digest,
                      .digest = entry.digest,
                      .ranges = true};
  }
  message_free(message);
  return status;
}

static mc_status cluster_history(mc_upstream *self, const char *url, bool (*visit)(void *user, const mc_former *former),
                                 void *user, const mc_call *call, mc_error *err) {
  Modelcache__V1__StatRequest request = MODELCACHE__V1__STAT_REQUEST__INIT;
  request.url = (char *)url;
  request.cached = true;
  void *message;
  mc_status status = service_unary(&message, &modelcache__v1__stat_response__descriptor, service_of(self), "Stat",
                                   &request.base, call, err);
  if (status) return status;
  const Modelcache__V1__StatResponse *answer = message;
  for (size_t i = 0; i < answer->n_history && i < MC_HISTORY_MOST && !status; i++) {
    mc_former former;
    status = former_from(&former, answer->history[i], err);
    if (!status && !visit(user, &former)) break;
  }
  message_free(message);
  return status;
}

/* ---- news ---- */

static mc_status cluster_watch(mc_upstream *self, const char *prefix,
                               void (*changed)(void *user, const mc_entry *entry), void *user, const mc_call *call,
                               mc_error *err) {
  Modelcache__V1__WatchRequest request = MODELCACHE__V1__WATCH_REQUEST__INIT;
  request.prefix = (char *)prefix;
  struct rpc_stream *stream;
  mc_status status = service_call(&stream, service_of(self), "Watch", &request.base, call, err);
  if (status) return status;
  while (!status) {
    const void *data;
    size_t size;
    Modelcache__V1__WatchEvent *event;
    mc_entry entry;
    status = rpc_stream_next(stream, &data, &size, call, err);
    if (!status && !data) status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the service has ended a Watch");
    if (status) break;
    status = message_unpack((void **)&event, &modelcache__v1__watch_event__descriptor, data, size, err);
    if (status) break;
    if (event->entry) status = entry_from(&entry, event->entry, err);
    if (!status) changed(user, event->entry ? &entry : NULL);
    message_free(event);
  }
  rpc_stream_close(stream, false);
  return status;
}

/* ---- lists ---- */

/* Call List and hand each batch to `take` until it ends or `take` sets *stop. `after`: of what is cached; or NULL. */
static mc_status list(mc_upstream *self, const char *prefix, const char *after, bool origin,
                      mc_status (*take)(void *user, const Modelcache__V1__ListResponse *batch, bool *stop,
                                        mc_error *err),
                      void *user, const mc_call *call, mc_error *err) {
  Modelcache__V1__ListRequest request = MODELCACHE__V1__LIST_REQUEST__INIT;
  request.prefix = (char *)prefix;
  if (after) request.after = (char *)after;
  request.origin = origin;
  struct rpc_stream *stream;
  mc_status status = service_call(&stream, service_of(self), "List", &request.base, call, err);
  if (status) return status;
  for (bool stop = false; !stop && !status;) {
    const void *data;
    size_t size;
    void *batch;
    status = rpc_stream_next(stream, &data, &size, call, err);
    if (status || !data) break;
    status = message_unpack(&batch, &modelcache__v1__list_response__descriptor, data, size, err);
    if (status) break;
    status = take(user, batch, &stop, err);
    message_free(batch);
  }
  rpc_stream_close(stream, false);
  return status;
}

struct entry_visit {
  bool (*visit)(void *user, const mc_entry *entry);
  void *user;
};

static mc_status take_entries(void *user, const Modelcache__V1__ListResponse *batch, bool *stop, mc_error *err) {
  struct entry_visit *visit = user;
  for (size_t i = 0; i < batch->n_entries && !*stop; i++) {
    mc_entry entry;
    mc_status status = entry_from(&entry, batch->entries[i], err);
    if (status) return status;
    *stop = !visit->visit(visit->user, &entry);
  }
  return MC_OK;
}

static mc_status cluster_entries(mc_upstream *self, const char *prefix, const char *after,
                                 bool (*visit)(void *user, const mc_entry *entry), void *user, const mc_call *call,
                                 mc_error *err) {
  struct entry_visit visits = {visit, user};
  return list(self, prefix, after, false, take_entries, &visits, call, err);
}

struct listed_visit {
  bool (*visit)(void *user, const mc_listed *listed);
  void *user;
  size_t left, max;
};

static mc_status take_listed(void *user, const Modelcache__V1__ListResponse *batch, bool *stop, mc_error *err) {
  struct listed_visit *visit = user;
  for (size_t i = 0; i < batch->n_listed && !*stop; i++) {
    mc_listed listed;
    mc_status status = listed_from(&listed, batch->listed[i], err);
    if (status) return status;
    if (visit->left-- == 0) {
      return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "the folder has more than %zu files", visit->max);
    }
    *stop = !visit->visit(visit->user, &listed);
  }
  return MC_OK;
}

static mc_status cluster_list(mc_upstream *self, const char *url, size_t max,
                              bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                              mc_error *err) {
  struct listed_visit visits = {visit, user, max, max};
  return list(self, url, NULL, true, take_listed, &visits, call, err);
}

/* ---- managing ---- */

static mc_status cluster_prefetch(mc_upstream *self, const char *url, bool pin, const mc_call *call, mc_error *err) {
  Modelcache__V1__PrefetchRequest request = MODELCACHE__V1__PREFETCH_REQUEST__INIT;
  request.url = (char *)url;
  request.pin = pin;
  void *answer = NULL;
  mc_status status = service_unary(&answer, &modelcache__v1__prefetch_response__descriptor, service_of(self),
                                   "Prefetch", &request.base, call, err);
  message_free(answer);
  return status;
}

static mc_status cluster_evict(mc_upstream *self, const char *url, uint64_t *evicted, const mc_call *call,
                               mc_error *err) {
  Modelcache__V1__EvictRequest request = MODELCACHE__V1__EVICT_REQUEST__INIT;
  request.url = (char *)url;
  void *answer = NULL;
  mc_status status = service_unary(&answer, &modelcache__v1__evict_response__descriptor, service_of(self), "Evict",
                                   &request.base, call, err);
  if (!status) *evicted = ((const Modelcache__V1__EvictResponse *)answer)->bytes;
  message_free(answer);
  return status;
}

static mc_status cluster_status(mc_upstream *self, char **json, const mc_call *call, mc_error *err) {
  Modelcache__V1__StatusRequest request = MODELCACHE__V1__STATUS_REQUEST__INIT;
  void *answer = NULL;
  mc_status status = service_unary(&answer, &modelcache__v1__status_response__descriptor, service_of(self), "Status",
                                   &request.base, call, err);
  if (status) return status;
  *json = strdup(((const Modelcache__V1__StatusResponse *)answer)->json);
  message_free(answer);
  return *json ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the service's state");
}

static mc_status cluster_check(mc_upstream *self, const char *url, mc_origin_check *out, const mc_call *call,
                               mc_error *err) {
  Modelcache__V1__CheckOriginRequest request = MODELCACHE__V1__CHECK_ORIGIN_REQUEST__INIT;
  request.url = (char *)url;
  void *answer = NULL;
  mc_status status = service_unary(&answer, &modelcache__v1__check_origin_response__descriptor, service_of(self),
                                   "CheckOrigin", &request.base, call, err);
  if (!status) status = check_from(out, answer, err);
  message_free(answer);
  return status;
}

static mc_status cluster_repair(mc_upstream *self, bool dry_run, mc_repair_result *out, const mc_call *call,
                                mc_error *err) {
  Modelcache__V1__RepairRequest request = MODELCACHE__V1__REPAIR_REQUEST__INIT;
  request.dry_run = dry_run;
  void *message = NULL;
  mc_status status = service_unary(&message, &modelcache__v1__repair_response__descriptor, service_of(self), "Repair",
                                   &request.base, call, err);
  if (status) return status;
  const Modelcache__V1__RepairResponse *answer = message;
  *out = (mc_repair_result){.struct_size = sizeof(*out),
                            .records = answer->records,
                            .entries = answer->entries,
                            .missing = answer->missing,
                            .older = answer->older,
                            .objects = answer->objects};
  message_free(message);
  return MC_OK;
}

static const mc_upstream_cache_ops cache_ops = {
    .entries = cluster_entries,
    .prefetch = cluster_prefetch,
    .evict = cluster_evict,
    .status = cluster_status,
    .check = cluster_check,
    .history = cluster_history,
    .watch = cluster_watch,
    .repair = cluster_repair,
};

const mc_upstream_ops cluster_upstream_ops = {
    .abi = MC_UPSTREAM_ABI,
    .name = "cluster",
    .flags = MC_UPSTREAM_CACHE,
    .schemes = (const char *const[]){"*", NULL},
    .open = cluster_open,
    .close = cluster_close,
    .stat = cluster_stat,
    .source_open = cluster_source_open,
    .source_read = cluster_source_read,
    .source_finish = cluster_source_finish,
    .source_close = cluster_source_close,
    .list = cluster_list,
    .cache = &cache_ops,
};
