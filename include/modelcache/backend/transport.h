/* The transport backend: moves object bytes from a pod to a client or another pod.
 *
 * The client side reads ranges of one content into sinks; the serving side ("listener") asks an exporter, which the
 * engine implements, for an open descriptor and for how much of it can be sent now. */
#ifndef MODELCACHE_BACKEND_TRANSPORT_H
#define MODELCACHE_BACKEND_TRANSPORT_H

#include <modelcache/backend/upstream.h>
#include <modelcache/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MC_TRANSPORT_ABI 1

typedef struct mc_transport mc_transport;
typedef struct mc_connection mc_connection;
typedef struct mc_listener mc_listener;

typedef struct mc_transport_config {
  size_t struct_size;
  int64_t connect_timeout_ms;
  /* A peer that moves no byte for this long is given up; one whose download is followed, who tells at least that he
   * waits, may be sooner. */
  int64_t stall_timeout_ms;
  uint32_t threads;         /* of a listener; 0: chosen by the number of cores */
  uint32_t max_connections; /* of a listener; further ones are refused with an error frame */
  const mc_logger *logger;
} mc_transport_config;

/* What bytes are asked for by. */
typedef enum mc_content_kind {
  MC_CONTENT_OBJECT = 1, /* id: the digest of a whole object */
  MC_CONTENT_FLIGHT = 2, /* id: a download under way; its bytes are sent as they land */
} mc_content_kind;

typedef struct mc_content {
  mc_content_kind kind;
  uint8_t id[32];
} mc_content;

/* One content opened for one connection. */
typedef struct mc_export {
  int fd;        /* owned by the export */
  uint64_t size; /* MC_SIZE_UNKNOWN for a flight of unknown size */
  void *state;   /* the exporter's */
} mc_export;

/* Implemented by the engine. Called from a listener's threads; no call blocks for longer than a disk access. */
typedef struct mc_exporter {
  void *user;
  /* MC_NOT_FOUND: the client should ask the control plane again. */
  mc_status (*open)(void *user, const mc_content *content, mc_export *out, mc_error *err);
  void (*close)(void *user, mc_export *export_);
  /* How many bytes from `offset` on can be sent now, in *bytes (at most as many as it was set to). If none yet: 0, and
   * wake(arg) will be called exactly once, from any thread, unless `unwatch` comes first. A failed flight:
   * MC_UNAVAILABLE. */
  mc_status (*ready)(void *user, mc_export *export_, uint64_t offset, uint64_t *bytes, void (*wake)(void *arg),
                     void *arg, mc_error *err);
  /* Forget a wake that was asked for; after it returned, wake is not called. */
  void (*unwatch)(void *user, mc_export *export_, void *arg);
  /* The client says that the chunk at `offset` arrived damaged: check it. MC_OK: the stored bytes are right.
   * MC_CORRUPT: they are not; the repair has begun, the client should ask the control plane again. */
  mc_status (*suspect)(void *user, mc_export *export_, uint64_t offset, mc_error *err);
  /* Count what was sent. */
  void (*sent)(void *user, uint64_t bytes);
} mc_exporter;

typedef struct mc_transport_ops {
  uint32_t abi;     /* MC_TRANSPORT_ABI */
  const char *name; /* also the scheme of its endpoints: "tcp" of "tcp://host:port" */
  uint32_t flags;

  /* Required. No I/O. */
  mc_status (*open)(mc_transport **out, const mc_transport_config *config, mc_error *err);
  void (*close)(mc_transport *self);

  /* Required. Connect to a listener. Blocks, within the call's deadline and the connect timeout. MC_UNAVAILABLE. */
  mc_status (*connect)(mc_transport *self, const char *endpoint, mc_connection **out, const mc_call *call,
                       mc_error *err);
  /* Required. Read [sink->offset, sink->end) of a content. Blocks. One thread at a time for one connection. After any
   * failure the connection is closed by the caller. */
  mc_status (*read)(mc_connection *connection, const mc_content *content, mc_sink *sink, const mc_call *call,
                    mc_error *err);
  /* Required. Frees it. */
  void (*disconnect)(mc_connection *connection);

  /* Optional. Serve on `address` ("HOST:PORT", port 0: any free one) until listener_close. */
  mc_status (*listen)(mc_transport *self, const char *address, const mc_exporter *exporter, mc_listener **out,
                      mc_error *err);
  /* The endpoint to give to clients, with the port that was chosen. Lives as long as the listener. */
  const char *(*listener_endpoint)(mc_listener *listener);
  /* Connections that are open now. */
  uint32_t (*listener_connections)(mc_listener *listener);
  /* Stop accepting; wait up to drain_ms until the requests under way are answered; then close all. */
  void (*listener_close)(mc_listener *listener, int64_t drain_ms);
} mc_transport_ops;

struct mc_transport {
  const mc_transport_ops *ops;
};
struct mc_connection {
  mc_transport *transport;
};
struct mc_listener {
  mc_transport *transport;
};

#ifdef __cplusplus
}
#endif
#endif
