#include "service.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/net.h"
#include "breaker.h"
#include "messages.h"

#define ORIGIN      "cluster"

#define MAX_SERVERS 16
#define MAX_REQUEST ((size_t)64 << 10) /* an encoded request: a URL and little else */
#define PROBE_MS    2000               /* a server that is down is not waited for as long as one that is up */

struct server {
  struct rpc_channel *channel;
  struct breaker breaker; /* under the service's lock */
};

struct service {
  const mc_logger *logger;
  pthread_mutex_t lock; /* a leaf */
  size_t count, preferred;
  struct server servers[MAX_SERVERS];
};

/* ---- opening ---- */

static mc_status add_server(struct service *service, const char *address, const mc_upstream_config *config,
                            mc_error *err) {
  if (service->count == MAX_SERVERS) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the endpoint names more than %d servers", MAX_SERVERS);
  }
  struct rpc_channel_config channel = {.address = address,
                                       .connect_timeout_ms = config->connect_timeout_ms,
                                       .stall_timeout_ms = config->stall_timeout_ms,
                                       .user_agent = config->user_agent};
  struct server *server = &service->servers[service->count];
  mc_status status = rpc_channel_open(&server->channel, &channel, err);
  if (status) return status;
  breaker_init(&server->breaker);
  service->count++;
  return MC_OK;
}

mc_status service_open(struct service **out, const mc_upstream_config *config, mc_error *err) {
  struct service *service = calloc(1, sizeof(*service));
  if (!service) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a service");
  service->logger = config->logger;
  pthread_mutex_init(&service->lock, NULL);
  mc_status status = MC_OK;
  const char *at = config->endpoint ? config->endpoint : "";
  do {
    char address[HOST_SIZE + 16];
    size_t size = strcspn(at, ",");
    if (size >= sizeof(address)) {
      status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the endpoint '%.100s' is too long", at);
      break;
    }
    memcpy(address, at, size);
    address[size] = 0;
    status = add_server(service, address, config, err);
    at += size;
  } while (!status && *at++ == ',');
  if (status) {
    service_close(service);
    return status;
  }
  *out = service;
  return MC_OK;
}

void service_close(struct service *service) {
  if (!service) return;
  for (size_t i = 0; i < service->count; i++) rpc_channel_close(service->servers[i].channel);
  pthread_mutex_destroy(&service->lock);
  free(service);
}

/* ---- which are up ---- */

static void report_up(struct service *service, struct server *server) {
  pthread_mutex_lock(&service->lock);
  bool news = breaker_succeeded(&server->breaker);
  pthread_mutex_unlock(&service->lock);
  if (news) log_info(service->logger, ORIGIN, "the service at %s answers again", rpc_channel_address(server->channel));
}

static void report_down(struct service *service, struct server *server, int64_t began, const char *why) {
  pthread_mutex_lock(&service->lock);
  bool news = breaker_failed(&server->breaker, began, 0, 0);
  pthread_mutex_unlock(&service->lock);
  if (news) log_warn(service->logger, ORIGIN, "%s; it counts as down until it answers", why);
}

static void report_nothing(struct service *service, struct server *server) {
  pthread_mutex_lock(&service->lock);
  breaker_undecided(&server->breaker);
  pthread_mutex_unlock(&service->lock);
}

static bool callers_own(mc_status status) {
  return status == MC_CANCELLED || status == MC_DEADLINE_EXCEEDED || status == MC_NO_MEMORY;
}

/* Whether a call may go to this server. */
static mc_status knock(struct service *service, struct server *server, const mc_call *call, mc_error *err) {
  int64_t wait_ms, began = clock_ns();
  pthread_mutex_lock(&service->lock);
  enum breaker_state state = breaker_admit(&server->breaker, &wait_ms);
  pthread_mutex_unlock(&service->lock);
  if (state == BREAKER_UP) return MC_OK;
  if (state == BREAKER_DOWN) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the service at %s is down; it is tried again in %lld ms",
                        rpc_channel_address(server->channel), (long long)wait_ms);
  }
  mc_error why = MC_ERROR_INIT;
  mc_status status = rpc_channel_probe(server->channel, PROBE_MS, call, &why);
  if (!status) {
    report_up(service, server);
  } else if (callers_own(status)) {
    report_nothing(service, server);
  } else {
    report_down(service, server, began, why.message);
  }
  if (status && err) *err = why;
  return status;
}

/* ---- calls ---- */

static mc_status call_server(struct rpc_stream **out, struct service *service, struct server *server, const char *path,
                             const struct buf *message, const mc_call *call, mc_error *err) {
  struct rpc_stream *stream;
  mc_error why = MC_ERROR_INIT;
  int64_t began = clock_ns();
  mc_status status = rpc_stream_open(&stream, server->channel, path, message->data, message->size, call, &why);
  if (!status) {
    status = rpc_stream_wait(stream, call, &why);
    if (rpc_stream_answered(stream)) {
      report_up(service, server);
    } else if (status == MC_UNAVAILABLE) {
      report_down(service, server, began, why.message);
    }
    if (status) rpc_stream_close(stream, false);
  }
  if (status && err) *err = why;
  if (!status) *out = stream;
  return status;
}

mc_status service_call(struct rpc_stream **out, struct service *service, const char *method,
                       const ProtobufCMessage *request, const mc_call *call, mc_error *err) {
  char *path = format_str("/modelcache.v1.ModelCache/%s", method);
  struct buf message;
  buf_init(&message, MAX_REQUEST);
  mc_status status = path ? message_pack(&message, request, err)
                          : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a call of the service");
  pthread_mutex_lock(&service->lock);
  size_t first = service->preferred;
  pthread_mutex_unlock(&service->lock);
  if (!status) status = MC_UNAVAILABLE;
  for (size_t i = 0; i < service->count && status == MC_UNAVAILABLE; i++) {
    size_t index = (first + i) % service->count;
    struct server *server = &service->servers[index];
    status = knock(service, server, call, err);
    if (!status) status = call_server(out, service, server, path, &message, call, err);
    if (status) continue;
    pthread_mutex_lock(&service->lock);
    service->preferred = index;
    pthread_mutex_unlock(&service->lock);
  }
  buf_free(&message);
  free(path);
  return status;
}

mc_status service_unary(void **answer, const ProtobufCMessageDescriptor *type, struct service *service,
                        const char *method, const ProtobufCMessage *request, const mc_call *call, mc_error *err) {
  struct rpc_stream *stream;
  mc_status status = service_call(&stream, service, method, request, call, err);
  if (status) return status;
  const void *data;
  size_t size;
  void *message = NULL;
  status = rpc_stream_next(stream, &data, &size, call, err);
  if (!status && !data) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service answered %s with nothing", method);
  }
  if (!status) status = message_unpack(&message, type, data, size, err);
  if (!status) status = rpc_stream_next(stream, &data, &size, call, err);
  if (!status && data) status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service answered %s twice", method);
  rpc_stream_close(stream, false);
  if (status) {
    message_free(message);
  } else {
    *answer = message;
  }
  return status;
}
