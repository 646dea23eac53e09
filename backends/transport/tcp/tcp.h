/* The TCP transport: sendfile() on one side, recv() straight into the sink on the other. */
#ifndef TCP_TCP_H
#define TCP_TCP_H

#include <modelcache/backend/transport.h>

struct tcp_transport {
  mc_transport transport; /* first */
  mc_transport_config config;
};

extern const mc_transport_ops tcp_transport_ops;

/* client.c */
mc_status tcp_connect(mc_transport *self, const char *endpoint, mc_connection **out, const mc_call *call,
                      mc_error *err);
mc_status tcp_read(mc_connection *connection, const mc_content *content, mc_sink *sink, const mc_call *call,
                   mc_error *err);
void tcp_disconnect(mc_connection *connection);
/* A connection over a connected, non-blocking stream socket, which is its own from then on, also when this fails. */
mc_status tcp_connection_new(mc_connection **out, mc_transport *transport, int fd, const char *peer, mc_error *err);

/* listener.c */
mc_status tcp_listen(mc_transport *self, const char *address, const mc_exporter *exporter, mc_listener **out,
                     mc_error *err);
const char *tcp_listener_endpoint(mc_listener *listener);
uint32_t tcp_listener_connections(mc_listener *listener);
void tcp_listener_close(mc_listener *listener, int64_t drain_ms);

#endif
