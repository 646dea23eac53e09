/* The methods of modelcache.v1.ModelCache and grpc.health.v1.Health; Fetch is in fetch.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <utlist.h>

#include "control.h"
#include "messages.h"

#define BATCH         256   /* entries in one ListResponse */
#define BATCHES_AHEAD 8     /* of one List that the client has not taken yet */
#define SLOW_MS       30000 /* a client that takes no batch for so long is given up */
#define MAX_WATCHES   10000
/* How long an upstream may be waited for where the client sets no deadline. */
#define STAT_MS (60 * 1000)
#define LIST_MS (600 * 1000)
/* And how long the storage may be gone through. */
#define REPAIR_MS (3600 * 1000)

/* ---- methods that block: by a worker ---- */

struct rpc_job {
  struct job job;
  struct call *call;
  ProtobufCMessage *message;
  void (*work)(struct call *call, const ProtobufCMessage *message);
};

static void run_job(struct job *base) {
  struct rpc_job *job = (struct rpc_job *)base;
  if (call_is_gone(job->call)) {
    call_refuse(job->call, MC_CANCELLED, "the call was cancelled");
  } else {
    job->work(job->call, job->message);
  }
  protobuf_c_message_free_unpacked(job->message, NULL);
  free(job);
}

/* The client's deadline, but no later than what may keep a thread. */
static int64_t timeout_within(struct call *call, int64_t most) {
  int64_t timeout = call_timeout_ms(call);
  return timeout && timeout < most ? timeout : most;
}

/* What a URL was before. */
struct history {
  Modelcache__V1__Version messages[MC_HISTORY_MOST], *list[MC_HISTORY_MOST];
  Modelcache__V1__Validators validators[MC_HISTORY_MOST];
  mc_former formers[MC_HISTORY_MOST];
  size_t count;
};

static bool add_former(void *user, const mc_former *former) {
  struct history *history = user;
  size_t i = history->count++;
  Modelcache__V1__Version *message = history->list[i] = &history->messages[i];
  mc_former *own = &history->formers[i];
  *own = *former;
  modelcache__v1__version__init(message);
  fill_validators(&history->validators[i], &own->validators);
  message->validators = &history->validators[i];
  message->digest = (ProtobufCBinaryData){sizeof(own->digest), own->digest.bytes};
  message->size = own->size;
  message->fetched_at_ms = own->fetched_at;
  message->replaced_at_ms = own->replaced_at;
  message->stored = own->stored;
  return history->count < MC_HISTORY_MOST;
}

static void work_stat(struct call *call, const ProtobufCMessage *body) {
  const Modelcache__V1__StatRequest *message = (const Modelcache__V1__StatRequest *)body;
  mc_error error = MC_ERROR_INIT;
  mc_entry *entry;
  mc_status status = mc_stat(&entry, call_service(call)->cache, message->url, message->cached ? MC_GET_CACHED : 0,
                             timeout_within(call, STAT_MS), &error);
  if (!status) {
    struct entry_message filled;
    struct history history = {.count = 0};
    Modelcache__V1__StatResponse response = MODELCACHE__V1__STAT_RESPONSE__INIT;
    fill_entry(&filled, entry);
    response.entry = &filled.message;
    if (message->cached) {
      mc_history(call_service(call)->cache, message->url, add_former, &history, timeout_within(call, STAT_MS), NULL);
    }
    response.history = history.list;
    response.n_history = history.count;
    call_send(call, &response.base);
    mc_entry_free(entry);
  }
  call_finish(call, status, &error);
}

static void work_check(struct call *call, const ProtobufCMessage *body) {
  const Modelcache__V1__CheckOriginRequest *message = (const Modelcache__V1__CheckOriginRequest *)body;
  Modelcache__V1__CheckOriginResponse response = MODELCACHE__V1__CHECK_ORIGIN_RESPONSE__INIT;
  Modelcache__V1__Validators validators;
  mc_error error = MC_ERROR_INIT;
  mc_origin_check check;
  mc_status status =
      mc_check_origin(&check, call_service(call)->cache, message->url, timeout_within(call, STAT_MS), &error);
  if (!status) {
    fill_validators(&validators, &check.validators);
    response.rule = check.rule;
    response.allowed = check.allowed;
    response.upstream = check.upstream;
    response.endpoint = check.access.endpoint;
    response.credentials = check.access.credentials;
    response.identity = check.access.identity;
    response.expires_at_ms = check.access.expires_at;
    response.revalidate_after_ms = check.revalidate_after_ms;
    response.parallelism = check.parallelism;
    response.bandwidth = check.bandwidth;
    response.pin = check.pin;
    response.status = (char *)mc_status_name(check.error.status);
    response.message = check.error.message;
    response.validators = &validators;
    if (check.size != MC_SIZE_UNKNOWN) {
      response.has_size_case = MODELCACHE__V1__CHECK_ORIGIN_RESPONSE__HAS_SIZE_SIZE;
      response.size = check.size;
    }
    call_send(call, &response.base);
  }
  call_finish(call, status, &error);
}

/* A list on its way, a batch at a time. */
struct listing {
  struct call *call;
  Modelcache__V1__ListResponse response;
  struct entry_message entries[BATCH];
  EntryMessage *entry_list[BATCH];
  struct listed_message listed[BATCH];
  Modelcache__V1__Listed *listed_list[BATCH];
  uint32_t left; /* how many more are wanted; 0: all */
  mc_status cut; /* why it ended before its end */
};

static void forget_batch(struct listing *listing) {
  Modelcache__V1__ListResponse *response = &listing->response;
  for (size_t i = 0; i < response->n_entries; i++) free(listing->entries[i].message.url);
  for (size_t i = 0; i < response->n_listed; i++) free(listing->listed[i].message.path);
  response->n_entries = response->n_listed = 0;
}

static bool flush(struct listing *listing) {
  Modelcache__V1__ListResponse *response = &listing->response;
  bool sent = call_wait(listing->call, BATCHES_AHEAD, SLOW_MS) && call_send(listing->call, &response->base);
  forget_batch(listing);
  if (!sent) listing->cut = MC_RESOURCE_EXHAUSTED;
  return sent;
}

static bool list_entry(void *user, const mc_entry *entry) {
  struct listing *listing = user;
  size_t i = listing->response.n_entries;
  struct entry_message *to = &listing->entries[i];
  fill_entry(to, entry);
  /* The entry is gone when the visit is over: what is sent later has to be copied. */
  size_t url = strlen(entry->url) + 1;
  size_t aligned = (url + 7) & ~(size_t)7;
  char *copy = malloc(aligned + sizeof(mc_validators) + sizeof(mc_digest));
  if (!copy) {
    listing->cut = MC_NO_MEMORY;
    return false;
  }
  mc_validators *validators = (mc_validators *)(void *)(copy + aligned);
  memcpy(copy, entry->url, url);
  *validators = entry->validators;
  to->message.url = copy;
  fill_validators(&to->validators, validators);
  if (entry->has_digest) {
    memcpy(validators + 1, &entry->digest, sizeof(entry->digest));
    to->message.digest.data = (uint8_t *)(validators + 1);
  }
  listing->entry_list[i] = &to->message;
  listing->response.n_entries++;
  bool enough = listing->left && --listing->left == 0;
  return (i + 1 < BATCH || flush(listing)) && !enough;
}

static bool list_listed(void *user, const mc_listed *listed) {
  struct listing *listing = user;
  size_t i = listing->response.n_listed;
  struct listed_message *to = &listing->listed[i];
  fill_listed(to, listed);
  to->message.path = strdup(listed->path);
  if (!to->message.path) {
    listing->cut = MC_NO_MEMORY;
    return false;
  }
  listing->listed_list[i] = &to->message;
  listing->response.n_listed++;
  return i + 1 < BATCH || flush(listing);
}

static void work_list(struct call *call, const ProtobufCMessage *body) {
  const Modelcache__V1__ListRequest *message = (const Modelcache__V1__ListRequest *)body;
  mc_error error = MC_ERROR_INIT;
  mc_cache *cache = call_service(call)->cache;
  struct listing *listing = calloc(1, sizeof(*listing));
  if (!listing) {
    call_refuse(call, MC_NO_MEMORY, "no memory");
    return;
  }
  listing->call = call;
  listing->left = message->limit;
  modelcache__v1__list_response__init(&listing->response);
  listing->response.entries = listing->entry_list;
  listing->response.listed = listing->listed_list;
  int64_t timeout = timeout_within(call, LIST_MS);
  mc_status status = message->origin
                         ? mc_list_upstream(cache, message->prefix, list_listed, listing, timeout, &error)
                         : mc_list(cache, message->prefix, message->after, list_entry, listing, timeout, &error);
  if (!listing->cut) flush(listing);
  if (!status && listing->cut) {
    status = mc_error_set(&error, listing->cut, "control", "%s",
                          listing->cut == MC_NO_MEMORY ? "no memory for a list"
                                                       : "the client reads its list too slowly, or not at all");
  }
  forget_batch(listing);
  free(listing);
  call_finish(call, status, &error);
}

static void work_prefetch(struct call *call, const ProtobufCMessage *body) {
  const Modelcache__V1__PrefetchRequest *message = (const Modelcache__V1__PrefetchRequest *)body;
  Modelcache__V1__PrefetchResponse response = MODELCACHE__V1__PREFETCH_RESPONSE__INIT;
  mc_error error = MC_ERROR_INIT;
  mc_status status = mc_prefetch(call_service(call)->cache, message->url, message->pin, &error);
  if (!status) call_send(call, &response.base);
  call_finish(call, status, &error);
}

static void work_evict(struct call *call, const ProtobufCMessage *body) {
  const Modelcache__V1__EvictRequest *message = (const Modelcache__V1__EvictRequest *)body;
  Modelcache__V1__EvictResponse response = MODELCACHE__V1__EVICT_RESPONSE__INIT;
  mc_error error = MC_ERROR_INIT;
  mc_status status = mc_evict(&response.bytes, call_service(call)->cache, message->url, &error);
  if (!status) call_send(call, &response.base);
  call_finish(call, status, &error);
}

static void work_repair(struct call *call, const ProtobufCMessage *body) {
  const Modelcache__V1__RepairRequest *message = (const Modelcache__V1__RepairRequest *)body;
  Modelcache__V1__RepairResponse response = MODELCACHE__V1__REPAIR_RESPONSE__INIT;
  mc_error error = MC_ERROR_INIT;
  mc_repair_result result;
  mc_status status =
      mc_repair(&result, call_service(call)->cache, message->dry_run, timeout_within(call, REPAIR_MS), &error);
  if (!status) {
    response.records = result.records;
    response.entries = result.entries;
    response.missing = result.missing;
    response.older = result.older;
    response.objects = result.objects;
    call_send(call, &response.base);
  }
  call_finish(call, status, &error);
}

static void work_status(struct call *call, const ProtobufCMessage *body) {
  (void)body;
  Modelcache__V1__StatusResponse response = MODELCACHE__V1__STATUS_RESPONSE__INIT;
  mc_error error = MC_ERROR_INIT;
  char *json = NULL;
  mc_status status = mc_status_json(&json, call_service(call)->cache, &error);
  if (!status) {
    response.json = json;
    call_send(call, &response.base);
  }
  mc_free(json);
  call_finish(call, status, &error);
}

/* ---- Watch, and health's ---- */

struct watch {
  struct call *call;
  mc_watcher *watcher; /* NULL: health's, or it has ended; under the service's lock, as the next two */
  bool health, ended;  /* ended: out of the list, and finished or about to be */
  struct watch *prev, *next;
  struct job job; /* ends one that is too slow: its watcher can't be ended by who is telling it */
  atomic_bool slow;
};

/* Out of the list, and told nothing more; true for the one who has to finish the call. Not from tell_watch. */
static bool watch_leave(struct service *service, struct watch *watch) {
  pthread_mutex_lock(&service->lock);
  bool mine = !watch->ended;
  mc_watcher *watcher = mine ? watch->watcher : NULL;
  if (mine) DL_DELETE(service->watches, watch);
  if (mine) service->watch_count--;
  watch->ended = true;
  pthread_mutex_unlock(&service->lock);
  mc_watch_end(watcher);
  return mine;
}

static void watch_cancel(void *state) {
  struct watch *watch = state;
  if (watch_leave(call_service(watch->call), watch)) call_refuse(watch->call, MC_CANCELLED, "the call was cancelled");
}

static void end_slow(struct job *job) {
  struct watch *watch = (struct watch *)((char *)job - offsetof(struct watch, job));
  struct call *call = watch->call;
  if (watch_leave(call_service(call), watch)) {
    call_refuse(call, MC_RESOURCE_EXHAUSTED, "the client is too slow for the news; list again, then watch again");
  }
  call_release(call);
}

/* The cache has news; from its threads, until watch_leave. */
static void tell_watch(void *user, const mc_entry *entry) {
  struct watch *watch = user;
  struct entry_message filled;
  Modelcache__V1__WatchEvent event = MODELCACHE__V1__WATCH_EVENT__INIT;
  if (entry) fill_entry(&filled, entry);
  if (entry) event.entry = &filled.message;
  if (call_send(watch->call, &event.base) || atomic_exchange(&watch->slow, true)) return;
  watch->job = (struct job){.run = end_slow, .lane = LANE_LOCAL};
  call_hold(watch->call);
  if (call_run(watch->call, &watch->job)) return;
  atomic_store(&watch->slow, false); /* the next news tries again */
  call_release(watch->call);
}

/* Into the list; NULL: the call was refused. */
static struct watch *watch_new(struct call *call, bool health) {
  struct service *service = call_service(call);
  struct watch *watch = calloc(1, sizeof(*watch));
  if (!watch) {
    call_refuse(call, MC_NO_MEMORY, "no memory");
    return NULL;
  }
  watch->call = call;
  watch->health = health;
  pthread_mutex_lock(&service->lock);
  bool draining = service->draining, full = service->watch_count >= MAX_WATCHES;
  if (!draining && !full) {
    DL_APPEND(service->watches, watch);
    service->watch_count++;
  }
  pthread_mutex_unlock(&service->lock);
  if (!draining && !full) return watch;
  free(watch);
  call_refuse(call, draining ? MC_UNAVAILABLE : MC_RESOURCE_EXHAUSTED,
              draining ? "the server is stopping" : "too many calls watch already");
  return NULL;
}

/* `prefix` NULL: health's. */
static void watch_begin(struct call *call, const char *prefix) {
  struct service *service = call_service(call);
  mc_watcher *watcher = NULL;
  mc_error error = MC_ERROR_INIT;
  call_hold(call);
  struct watch *watch = watch_new(call, !prefix);
  mc_status status = watch && prefix ? mc_watch(&watcher, service->cache, prefix, tell_watch, watch, &error) : MC_OK;
  if (watch) {
    pthread_mutex_lock(&service->lock);
    bool ended = watch->ended;
    if (!ended) watch->watcher = watcher;
    pthread_mutex_unlock(&service->lock);
    if (ended) mc_watch_end(watcher);
    call_on(call, watch, watch_cancel, free);
    if (status && watch_leave(service, watch)) call_finish(call, status, &error);
    if (!status && prefix) tell_watch(watch, NULL); /* what changes from now on is told */
  }
  call_release(call);
}

static void handle_watch(struct call *call, const ProtobufCMessage *body) {
  watch_begin(call, ((const Modelcache__V1__WatchRequest *)body)->prefix);
}

enum health { SERVING = 1, NOT_SERVING, SERVICE_UNKNOWN };

/* HealthCheckResponse {status}: one field, two bytes. */
static void send_health(struct call *call, enum health health) {
  const char bytes[2] = {0x08, (char)health};
  call_send_slice(call, grpc_slice_from_copied_buffer(bytes, sizeof(bytes)));
}

static bool is_draining(struct service *service) {
  pthread_mutex_lock(&service->lock);
  bool draining = service->draining;
  pthread_mutex_unlock(&service->lock);
  return draining;
}

/* ---- the service ---- */

static const char *stat_upstream(const ProtobufCMessage *body) {
  const Modelcache__V1__StatRequest *message = (const Modelcache__V1__StatRequest *)body;
  return message->cached ? NULL : message->url;
}

static const char *check_upstream(const ProtobufCMessage *body) {
  return ((const Modelcache__V1__CheckOriginRequest *)body)->url;
}

static const char *list_upstream(const ProtobufCMessage *body) {
  const Modelcache__V1__ListRequest *message = (const Modelcache__V1__ListRequest *)body;
  return message->origin ? message->prefix : NULL;
}

/* A number for the host in a URL (FNV-1a). */
static uint64_t origin_of(const char *url) {
  const char *host = strstr(url, "://");
  uint64_t hash = 0xcbf29ce484222325;
  host = host ? host + 3 : url;
  for (size_t i = 0, length = strcspn(host, "/?#"); i < length; i++) {
    hash = (hash ^ (unsigned char)(host[i] | 0x20)) * 0x100000001b3;
  }
  return hash;
}

static const struct method {
  const char *name;
  const ProtobufCMessageDescriptor *request;
  void (*handle)(struct call *call, const ProtobufCMessage *message); /* at once */
  void (*work)(struct call *call, const ProtobufCMessage *message);   /* by a thread */
  /* The URL of the upstream that the work may wait for; NULL, or none: it does not leave this machine. */
  const char *(*upstream)(const ProtobufCMessage *message);
} methods[] = {
    {"Fetch", &modelcache__v1__fetch_request__descriptor, fetch_handle, NULL},
    {"Stat", &modelcache__v1__stat_request__descriptor, NULL, work_stat, stat_upstream},
    {"List", &modelcache__v1__list_request__descriptor, NULL, work_list, list_upstream},
    {"CheckOrigin", &modelcache__v1__check_origin_request__descriptor, NULL, work_check, check_upstream},
    {"Prefetch", &modelcache__v1__prefetch_request__descriptor, NULL, work_prefetch},
    {"Evict", &modelcache__v1__evict_request__descriptor, NULL, work_evict},
    {"Repair", &modelcache__v1__repair_request__descriptor, NULL, work_repair},
    {"Watch", &modelcache__v1__watch_request__descriptor, handle_watch, NULL},
    {"Status", &modelcache__v1__status_request__descriptor, NULL, work_status},
};

static void start_job(struct call *call, const struct method *method, ProtobufCMessage *message) {
  struct rpc_job *job = malloc(sizeof(*job));
  const char *upstream = method->upstream ? method->upstream(message) : NULL;
  struct job base = {.run = run_job, .lane = LANE_LOCAL};
  if (method->work == work_list) base.lane = LANE_LISTS;
  if (method->work == work_repair) base.lane = LANE_REPAIRS;
  if (upstream) {
    base.lane = LANE_UPSTREAM;
    base.origin = origin_of(upstream);
  }
  if (job) *job = (struct rpc_job){base, call, message, method->work};
  if (job && call_run(call, &job->job)) return;
  free(job);
  protobuf_c_message_free_unpacked(message, NULL);
  call_refuse(call, MC_RESOURCE_EXHAUSTED, "too many calls wait for a thread; try again");
}

/* Whether a HealthCheckRequest {service: 1} asks for this server, or for the one service that it has. */
static bool is_served(const uint8_t *data, size_t size) {
  static const char name[] = "modelcache.v1.ModelCache";
  if (size == 0 || (size == 2 && data[0] == 0x0a && data[1] == 0)) return true;
  return size == sizeof(name) + 1 && data[0] == 0x0a && data[1] == sizeof(name) - 1 &&
         memcmp(data + 2, name, sizeof(name) - 1) == 0;
}

static bool handle_health(struct call *call, const char *method, const void *data, size_t size) {
  bool served = is_served(data, size);
  if (strcmp(method, "Check") == 0) {
    if (served) send_health(call, is_draining(call_service(call)) ? NOT_SERVING : SERVING);
    call_refuse(call, served ? MC_OK : MC_NOT_FOUND, served ? "" : "there is no such service here");
    return true;
  }
  if (strcmp(method, "Watch") != 0) return false;
  send_health(call, !served ? SERVICE_UNKNOWN : is_draining(call_service(call)) ? NOT_SERVING : SERVING);
  watch_begin(call, NULL);
  return true;
}

bool service_handle(struct call *call, const char *path, const void *data, size_t size) {
  static const char ours[] = "/modelcache.v1.ModelCache/", health[] = "/grpc.health.v1.Health/";
  if (strncmp(path, health, sizeof(health) - 1) == 0) {
    return handle_health(call, path + sizeof(health) - 1, data, size);
  }
  if (strncmp(path, ours, sizeof(ours) - 1) != 0) return false;
  for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
    const struct method *method = &methods[i];
    if (strcmp(path + sizeof(ours) - 1, method->name) != 0) continue;
    ProtobufCMessage *message = protobuf_c_message_unpack(method->request, NULL, size, data);
    if (!message) {
      call_refuse(call, MC_INVALID_ARGUMENT, "the message is not one of this method");
    } else if (method->work) {
      start_job(call, method, message);
    } else {
      method->handle(call, message);
      protobuf_c_message_free_unpacked(message, NULL);
    }
    return true;
  }
  return false;
}

void service_begin(struct service *service, mc_cache *cache, const char *data_endpoint) {
  *service = (struct service){.cache = cache};
  snprintf(service->data_endpoint, sizeof(service->data_endpoint), "%s", data_endpoint);
  pthread_mutex_init(&service->lock, NULL);
}

/* Watchers would hold the server for ever: they end now. */
void service_drain(struct service *service) {
  for (;;) {
    pthread_mutex_lock(&service->lock);
    service->draining = true;
    struct watch *watch = service->watches;
    struct call *call = watch ? watch->call : NULL;
    if (call) call_hold(call);
    pthread_mutex_unlock(&service->lock);
    if (!call) return;
    if (watch_leave(service, watch)) {
      if (watch->health) send_health(call, NOT_SERVING);
      call_refuse(call, MC_UNAVAILABLE, "the server is stopping");
    }
    call_release(call);
  }
}

void service_end(struct service *service) {
  pthread_mutex_destroy(&service->lock);
}
