/* tcp, the receiving side: a request for a range, then data frames straight into the sink's memory. */
#include "tcp.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/net.h"

#define LOWAT (1 << 20) /* wake the receiver for this much: a third less CPU than waking for each segment */

struct connection {
  mc_connection base;
  int fd;
  int lowat;
};

static struct tcp *tcp_of(struct connection *connection) {
  return (struct tcp *)connection->base.transport;
}

static mc_status tcp_connect(mc_transport *base, const char *endpoint, mc_connection **out, const mc_call *call,
                             mc_error *err) {
  struct tcp *self = (struct tcp *)base;
  char host[HOST_SIZE];
  uint16_t port;
  if (strncmp(endpoint, "tcp://", 6) != 0) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "'%.100s' is not an endpoint of this transport", endpoint);
  }
  mc_status status = net_split(endpoint + 6, host, &port, "data endpoint", err);
  if (status) return status;
  struct connection *connection = calloc(1, sizeof(*connection));
  if (!connection) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a connection");
  connection->base.transport = base;
  connection->lowat = 1;
  status = net_connect(&connection->fd, host, port, self->connect_timeout_ms, call, err);
  if (status) {
    free(connection);
    return status;
  }
  *out = &connection->base;
  return MC_OK;
}

static void tcp_disconnect(mc_connection *base) {
  struct connection *connection = (struct connection *)base;
  close(connection->fd);
  free(connection);
}

static void set_lowat(struct connection *connection, size_t wanted) {
  int lowat = wanted < LOWAT ? (int)wanted : LOWAT;
  if (lowat == connection->lowat) return;
  setsockopt(connection->fd, SOL_SOCKET, SO_RCVLOWAT, &lowat, sizeof(lowat));
  connection->lowat = lowat;
}

static mc_status lost(mc_error *err, const char *how) {
  return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the connection to the pod was lost: %s", how);
}

/* Some bytes, at least one. */
static mc_status receive(struct connection *connection, void *to, size_t size, size_t *got, const mc_call *call,
                         mc_error *err) {
  for (;;) {
    ssize_t count = recv(connection->fd, to, size, MSG_DONTWAIT);
    if (count > 0) {
      *got = (size_t)count;
      return MC_OK;
    }
    if (count == 0) return lost(err, "it was closed");
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return lost(err, strerrordesc_np(errno));
    set_lowat(connection, size);
    mc_status status = net_wait(connection->fd, POLLIN, tcp_of(connection)->stall_timeout_ms, call, ORIGIN, err);
    if (status) return status;
  }
}

static mc_status receive_all(struct connection *connection, void *to, size_t size, const mc_call *call, mc_error *err) {
  uint8_t *at = to;
  while (size) {
    size_t got;
    mc_status status = receive(connection, at, size, &got, call, err);
    if (status) return status;
    at += got;
    size -= got;
  }
  return MC_OK;
}

static mc_status send_all(struct connection *connection, const void *data, size_t size, const mc_call *call,
                          mc_error *err) {
  const uint8_t *at = data;
  while (size) {
    ssize_t count = send(connection->fd, at, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count > 0) {
      at += count;
      size -= (size_t)count;
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) return lost(err, strerrordesc_np(errno));
    mc_status status = net_wait(connection->fd, POLLOUT, tcp_of(connection)->stall_timeout_ms, call, ORIGIN, err);
    if (status) return status;
  }
  return MC_OK;
}

/* The payload of a data frame, received where it belongs. */
static mc_status take_data(struct connection *connection, uint64_t left, mc_sink *sink, const mc_call *call,
                           mc_error *err) {
  while (left) {
    size_t space, got;
    void *to = sink->space(sink, &space);
    mc_status status = receive(connection, to, left < space ? (size_t)left : space, &got, call, err);
    if (!status) status = sink->advance(sink, got, err);
    if (status) return status;
    left -= got;
  }
  return MC_OK;
}

static mc_status take_error(struct connection *connection, const struct frame *frame, const mc_call *call,
                            mc_error *err) {
  char message[FRAME_MESSAGE_MAX + 1];
  mc_status status = receive_all(connection, message, (size_t)frame->length, call, err);
  if (status) return status;
  message[frame->length] = 0;
  return mc_error_set(err, (mc_status)frame->status, ORIGIN, "%s", message);
}

static mc_status broken(mc_error *err) {
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the peer does not speak modelcache's data protocol");
}

static mc_status tcp_read(mc_connection *base, const mc_content *content, mc_sink *sink, const mc_call *call,
                          mc_error *err) {
  struct connection *connection = (struct connection *)base;
  uint8_t bytes[FRAME_SIZE];
  struct frame frame = {.type = FRAME_READ,
                        .kind = (uint8_t)content->kind,
                        .flags = sink->suspect ? FRAME_SUSPECT : 0,
                        .offset = sink->offset,
                        .length = sink->end == MC_SIZE_UNKNOWN ? MC_SIZE_UNKNOWN : sink->end - sink->offset,
                        .size = MC_SIZE_UNKNOWN};
  memcpy(frame.id, content->id, sizeof(frame.id));
  frame_encode(bytes, &frame);
  mc_status status = send_all(connection, bytes, sizeof(bytes), call, err);
  while (!status) {
    status = receive_all(connection, bytes, sizeof(bytes), call, err);
    if (status) return status;
    if (!frame_decode(&frame, bytes)) return broken(err);
    if (frame.type == FRAME_ERROR) return take_error(connection, &frame, call, err);
    if (frame.type == FRAME_WAIT) continue;
    if (frame.type == FRAME_END) {
      bool whole = sink->end == MC_SIZE_UNKNOWN || sink->offset == sink->end;
      return whole ? MC_OK : broken(err);
    }
    if (frame.type != FRAME_DATA || frame.offset != sink->offset || frame.length > sink->end - sink->offset) {
      return broken(err);
    }
    status = take_data(connection, frame.length, sink, call, err);
  }
  return status;
}

/* ---- the ops ---- */

static void tcp_close(mc_transport *self) {
  free(self);
}

static mc_status tcp_open(mc_transport **out, const mc_transport_config *config, mc_error *err);

extern const mc_transport_ops tcp_transport_ops;
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

static mc_status tcp_open(mc_transport **out, const mc_transport_config *config, mc_error *err) {
  struct tcp *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a transport");
  *self = (struct tcp){.base = {&tcp_transport_ops},
                       .connect_timeout_ms = config->connect_timeout_ms,
                       .stall_timeout_ms = config->stall_timeout_ms,
                       .threads = config->threads,
                       .max_connections = config->max_connections,
                       .logger = config->logger};
  *out = &self->base;
  return MC_OK;
}
