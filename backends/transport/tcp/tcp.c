#include "tcp.h"

#include <stdlib.h>

static mc_status tcp_open(mc_transport **out, const mc_transport_config *config, mc_error *err) {
  struct tcp_transport *tcp = calloc(1, sizeof(*tcp));
  if (!tcp) return mc_error_set(err, MC_NO_MEMORY, "tcp", "no memory for a transport");
  tcp->transport.ops = &tcp_transport_ops;
  tcp->config = *config;
  *out = &tcp->transport;
  return MC_OK;
}

static void tcp_close(mc_transport *self) {
  free(self);
}

const mc_transport_ops tcp_transport_ops = {
    .abi = MC_TRANSPORT_ABI,
    .name = "tcp",
    .open = tcp_open,
    .close = tcp_close,
    .connect = tcp_connect,
    .read = tcp_read,
    .disconnect = tcp_disconnect,
    .listen = tcp_listen,
    .listener_endpoint = tcp_listener_endpoint,
    .listener_connections = tcp_listener_connections,
    .listener_close = tcp_listener_close,
};
