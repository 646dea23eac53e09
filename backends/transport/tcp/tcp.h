/* What the tcp transport's files share: tcp.c (the client and the ops) and listener.c (the serving side). */
#ifndef TRANSPORT_TCP_TCP_H
#define TRANSPORT_TCP_TCP_H

#include "frame.h"

#define ORIGIN "tcp"

struct tcp {
  mc_transport base;
  int64_t connect_timeout_ms, stall_timeout_ms;
  uint32_t threads, max_connections;
  const mc_logger *logger;
};

mc_status tcp_listen(mc_transport *self, const char *address, const mc_exporter *exporter, mc_listener **out,
                     mc_error *err);
const char *tcp_listener_endpoint(mc_listener *listener);
uint32_t tcp_listener_connections(mc_listener *listener);
void tcp_listener_close(mc_listener *listener, int64_t drain_ms);

#endif
