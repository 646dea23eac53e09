/* Serving: the exporter through which a transport hands out objects and flights. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/download.h"
#include "engine/member.h"

struct mc_server {
  struct mc_cache *cache;
  mc_exporter exporter;
  mc_transport *transport;
  mc_listener *listener;
};

/* An export is either. */
struct exported {
  struct object *object;
  struct flight *flight;
  uint32_t version; /* of the flight's content */
};

static mc_status export_flight(struct mc_cache *cache, const uint8_t id[32], mc_export *out, struct exported *exported,
                               mc_error *err) {
  struct flight *flight = flight_find(cache, id);
  int fd = -1;
  if (flight) {
    pthread_mutex_lock(&flight->lock);
    /* Its id may have been given to another content since it was found. */
    if (flight->listed && memcmp(flight->id, id, sizeof(flight->id)) == 0) {
      fd = download_view(flight->download, &exported->version);
      if (fd >= 0 && exported->version != flight->version) {
        close(fd);
        fd = -1;
      }
    }
    out->size = flight->size;
    pthread_mutex_unlock(&flight->lock);
  }
  if (fd < 0) {
    if (flight) flight_release(flight);
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "there is no such download (any more); ask again");
  }
  out->fd = fd;
  exported->flight = flight;
  return MC_OK;
}

static mc_status export_object(struct mc_cache *cache, const mc_digest *digest, mc_export *out,
                               struct exported *exported, mc_error *err) {
  mc_status status = MC_NOT_FOUND;
  for (size_t i = 0; i < cache->tier_count && status; i++) {
    status = tier_open(&exported->object, cache->tiers[i], digest, false, NULL, err);
  }
  if (status) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "there is no such object here (any more); ask again");
  out->fd = exported->object->fd;
  out->size = exported->object->size;
  return MC_OK;
}

static mc_status export_open(void *user, const mc_content *content, mc_export *out, mc_error *err) {
  struct mc_cache *cache = user;
  struct exported *exported = calloc(1, sizeof(*exported));
  if (!exported) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to serve an object");
  mc_digest digest;
  memcpy(digest.bytes, content->id, sizeof(digest.bytes));
  mc_status status = content->kind == MC_CONTENT_FLIGHT ? export_flight(cache, content->id, out, exported, err)
                                                        : export_object(cache, &digest, out, exported, err);
  if (status) free(exported);
  if (!status) out->state = exported;
  return status;
}

static void export_close(void *user, mc_export *out) {
  (void)user;
  struct exported *exported = out->state;
  if (exported->object) object_release(exported->object);
  if (exported->flight) {
    close(out->fd);
    flight_release(exported->flight);
  }
  free(exported);
}

static mc_status export_ready(void *user, mc_export *out, uint64_t offset, uint64_t *bytes, void (*wake)(void *arg),
                              void *arg, mc_error *err) {
  (void)user;
  struct exported *exported = out->state;
  if (exported->flight) {
    return download_ready(exported->flight->download, exported->version, offset, bytes, wake, arg, err);
  }
  uint64_t left = offset < out->size ? out->size - offset : 0;
  if (*bytes > left) *bytes = left;
  return MC_OK;
}

static void export_unwatch(void *user, mc_export *out, void *arg) {
  (void)user;
  struct exported *exported = out->state;
  if (exported->flight) download_unwatch(exported->flight->download, arg);
}

static mc_status export_suspect(void *user, mc_export *out, uint64_t offset, mc_error *err) {
  struct mc_cache *cache = user;
  struct exported *exported = out->state;
  if (!exported->object) return MC_OK;
  mc_status status = object_check(exported->object, offset, err);
  if (status == MC_CORRUPT) {
    stat_add(cache, STAT_CORRUPT_CHUNKS, 1);
    log_warn(cache->logger, ORIGIN, "a reader found a stored object damaged; it will be mended: %s",
             err ? err->message : "");
  }
  return status;
}

static void export_sent(void *user, uint64_t bytes) {
  stat_add(user, STAT_SERVED_BYTES, bytes);
}

void mc_serve_options_init(mc_serve_options *options) {
  *options = (mc_serve_options){.struct_size = sizeof(*options), .transport = "tcp", .address = "127.0.0.1:0"};
}

static const mc_transport_ops *find_transport(struct mc_cache *cache, const char *name) {
  for (size_t i = 0; i < cache->transport_count; i++) {
    if (strcmp(cache->transports[i]->ops->name, name) == 0) return cache->transports[i]->ops;
  }
  return NULL;
}

mc_status mc_serve(mc_server **out, mc_cache *cache, const mc_serve_options *options, mc_error *err) {
  mc_serve_options own; /* the caller's struct may be an older, shorter one */
  mc_serve_options_init(&own);
  memcpy(&own, options, options->struct_size < sizeof(own) ? options->struct_size : sizeof(own));
  const mc_transport_ops *ops = find_transport(cache, own.transport);
  if (!ops || !ops->listen) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "no transport named '%s' that can serve", own.transport);
  }
  mc_server *server = calloc(1, sizeof(*server));
  if (!server) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a server");
  server->cache = cache;
  server->exporter = (mc_exporter){.user = cache,
                                   .open = export_open,
                                   .close = export_close,
                                   .ready = export_ready,
                                   .unwatch = export_unwatch,
                                   .suspect = export_suspect,
                                   .sent = export_sent};
  mc_transport_config config = {.struct_size = sizeof(config),
                                .connect_timeout_ms = cache->options.connect_timeout_ms,
                                .stall_timeout_ms = cache->options.stall_timeout_ms,
                                .threads = own.threads,
                                .max_connections = own.max_connections,
                                .logger = cache->logger};
  mc_status status = ops->open(&server->transport, &config, err);
  if (!status) status = ops->listen(server->transport, own.address, &server->exporter, &server->listener, err);
  if (status) {
    if (server->transport) ops->close(server->transport);
    free(server);
    return status;
  }
  *out = server;
  return MC_OK;
}

mc_status mc_advertise(mc_cache *cache, const char *data, const char *control, mc_error *err) {
  const char *told[] = {data ? data : "", control ? control : ""};
  for (size_t i = 0; i < 2; i++) {
    if (strlen(told[i]) >= MC_ENDPOINT_SIZE || strpbrk(told[i], " \t\r\n")) {
      return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "'%.100s' is no endpoint such as tcp://HOST:PORT", told[i]);
    }
  }
  pthread_mutex_lock(&cache->lock);
  strcpy(cache->endpoint, told[0]);
  strcpy(cache->control, told[1]);
  pthread_mutex_unlock(&cache->lock);
  member_beat(cache->member);
  return MC_OK;
}

const char *mc_server_endpoint(const mc_server *server) {
  return server->transport->ops->listener_endpoint(server->listener);
}

uint32_t mc_server_connections(const mc_server *server) {
  return server->transport->ops->listener_connections(server->listener);
}

void mc_server_close(mc_server *server, int64_t drain_ms) {
  if (!server) return;
  server->transport->ops->listener_close(server->listener, drain_ms);
  server->transport->ops->close(server->transport);
  free(server);
}
