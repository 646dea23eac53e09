/* The reading side: one request at a time, its bytes received straight into the sink.
 *
 * The kernel is asked to wake us once for a megabyte (SO_RCVLOWAT), not for every packet. That is only sound with
 * recv(MSG_DONTWAIT) and poll(): a blocking recv() that has taken a part waits for as many bytes once more, and at the
 * end of an answer for ever. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/net.h"
#include "frame.h"
#include "tcp.h"

#define ORIGIN    "tcp"
#define LOW_WATER ((uint64_t)1 << 20)
/* Who follows a download hears at least that it waits: when he hears nothing, another may have taken it over. */
#define FLIGHT_STALL_MS 5000

struct tcp_connection {
  mc_connection connection; /* first */
  int fd;
  int low_water;    /* the socket's SO_RCVLOWAT */
  uint32_t request; /* the last one's number */
  int64_t stall_ms; /* how long its answer may be silent */
  bool broken;      /* an answer was not read to its end: what comes next on the wire is anybody's guess */
  char peer[];      /* "HOST:PORT" */
};

static const mc_transport_config *config_of(const struct tcp_connection *c) {
  return &((const struct tcp_transport *)c->connection.transport)->config;
}

mc_status tcp_connection_new(mc_connection **out, mc_transport *transport, int fd, const char *peer, mc_error *err) {
  struct tcp_connection *c = malloc(sizeof(*c) + strlen(peer) + 1);
  if (!c) {
    close(fd);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a connection");
  }
  *c = (struct tcp_connection){.connection.transport = transport, .fd = fd, .low_water = 1};
  strcpy(c->peer, peer);
  *out = &c->connection;
  return MC_OK;
}

mc_status tcp_connect(mc_transport *self, const char *endpoint, mc_connection **out, const mc_call *call,
                      mc_error *err) {
  static const char scheme[] = "tcp://";
  if (strncmp(endpoint, scheme, strlen(scheme)) != 0) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "'%.100s' is not tcp://HOST:PORT", endpoint);
  }
  const char *address = endpoint + strlen(scheme);
  char host[HOST_SIZE];
  uint16_t port;
  int fd;
  mc_status status = net_split(address, host, &port, "a pod's endpoint", err);
  if (!status) {
    status = net_connect(&fd, host, port, ((struct tcp_transport *)self)->config.connect_timeout_ms, call, err);
  }
  return status ? status : tcp_connection_new(out, self, fd, address, err);
}

void tcp_disconnect(mc_connection *connection) {
  struct tcp_connection *c = (struct tcp_connection *)connection;
  shutdown(c->fd, SHUT_RDWR); /* a child process of our host may have a copy of the descriptor */
  close(c->fd);
  free(c);
}

static mc_status lost(const struct tcp_connection *c, int errnum, mc_error *err) {
  mc_error_errno(err, errnum, ORIGIN, "lost the connection to %s", c->peer);
  if (err) err->status = MC_UNAVAILABLE;
  return MC_UNAVAILABLE;
}

/* Wait until `want` bytes, or as many as the kernel sees fit, can be received. */
static mc_status await(struct tcp_connection *c, uint64_t want, const mc_call *call, mc_error *err) {
  int low_water = (int)(want < LOW_WATER ? want : LOW_WATER);
  if (low_water != c->low_water) {
    if (setsockopt(c->fd, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water))) return lost(c, errno, err);
    c->low_water = low_water;
  }
  return net_wait(c->fd, POLLIN, c->stall_ms, call, ORIGIN, err);
}

/* Receive from 1 to `size` bytes. `coming`: how many the peer is bound to send. */
static mc_status receive(struct tcp_connection *c, void *data, size_t size, uint64_t coming, size_t *got,
                         const mc_call *call, mc_error *err) {
  mc_status status = MC_OK;
  for (;;) {
    ssize_t count = recv(c->fd, data, size, MSG_DONTWAIT);
    if (count > 0) {
      *got = (size_t)count;
      return MC_OK;
    }
    if (count == 0) {
      return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s closed the connection before its answer was whole", c->peer);
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return lost(c, errno, err);
    /* The wait has failed, and not even a few bytes below the low-water mark were there. */
    if (status) return status;
    status = await(c, coming, call, err);
    if (status && status != MC_UNAVAILABLE) return status;
  }
}

static mc_status receive_all(struct tcp_connection *c, void *data, size_t size, const mc_call *call, mc_error *err) {
  mc_status status = MC_OK;
  for (size_t have = 0, got = 0; have < size && !status; have += got) {
    status = receive(c, (uint8_t *)data + have, size - have, size - have, &got, call, err);
  }
  return status;
}

static mc_status send_request(struct tcp_connection *c, const mc_content *content, const mc_sink *sink,
                              const mc_call *call, mc_error *err) {
  int64_t stall_ms = c->stall_ms;
  struct tcp_frame frame = {
      .type = TCP_FRAME_REQUEST,
      .flags = sink->suspect ? TCP_FRAME_SUSPECT : 0,
      .kind = (uint8_t)content->kind,
      .request = c->request,
      .patience_ms = stall_ms > 0 && stall_ms < UINT32_MAX ? (uint32_t)stall_ms : 0,
      .offset = sink->offset,
      .length = sink->end == MC_SIZE_UNKNOWN ? MC_SIZE_UNKNOWN : sink->end - sink->offset,
  };
  memcpy(frame.id, content->id, sizeof(frame.id));
  uint8_t bytes[TCP_FRAME_SIZE];
  tcp_frame_encode(bytes, &frame);
  for (size_t sent = 0; sent < sizeof(bytes);) {
    ssize_t count = send(c->fd, bytes + sent, sizeof(bytes) - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      sent += (size_t)count;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      mc_status status = net_wait(c->fd, POLLOUT, stall_ms, call, ORIGIN, err);
      if (status) return status;
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return MC_OK; /* its last words, why it closed, may be there to be read */
    } else if (errno != EINTR) {
      return lost(c, errno, err);
    }
  }
  return MC_OK;
}

/* The status for our caller that stands for the peer's: what befell the peer, its disk and its own deadlines, is not
 * what befell us. */
static mc_status status_of_peer(uint32_t status) {
  switch (status) {
  case MC_CANCELLED:
  case MC_DEADLINE_EXCEEDED:
  case MC_NO_SPACE:
  case MC_NO_MEMORY:
  case MC_IO:
    return MC_UNAVAILABLE;
  default:
    return status < (uint32_t)MC_STATUS_COUNT ? (mc_status)status : MC_UNAVAILABLE;
  }
}

static mc_status receive_error(struct tcp_connection *c, const struct tcp_frame *frame, const mc_call *call,
                               mc_error *err) {
  char text[TCP_FRAME_TEXT_MAX + 1];
  mc_status status = receive_all(c, text, (size_t)frame->length, call, err);
  if (status) return status;
  text[frame->length] = 0;
  c->broken = frame->request == 0;
  status = status_of_peer(frame->status);
  return mc_error_set(err, status, ORIGIN, "%s: %s", c->peer, *text ? text : mc_status_name(status));
}

/* Move the payload of a DATA frame into the sink. */
static mc_status receive_data(struct tcp_connection *c, const struct tcp_frame *frame, mc_sink *sink,
                              const mc_call *call, mc_error *err) {
  mc_status status = MC_OK;
  uint64_t left = frame->length;
  while (left && !status) {
    size_t space = (size_t)left, got = 0;
    void *data = sink->space(sink, &space);
    status = receive(c, data, space < left ? space : (size_t)left, left, &got, call, err);
    if (!status) status = sink->advance(sink, got, err);
    left -= got;
  }
  return status;
}

/* Read one frame of the answer. *done: it was the last. */
static mc_status receive_frame(struct tcp_connection *c, mc_sink *sink, bool *done, const mc_call *call,
                               mc_error *err) {
  uint8_t bytes[TCP_FRAME_SIZE];
  struct tcp_frame frame;
  mc_status status = receive_all(c, bytes, sizeof(bytes), call, err);
  if (!status) status = tcp_frame_decode(&frame, bytes, err);
  if (status) return status;
  bool ours = frame.request == c->request;
  if (frame.type == TCP_FRAME_ERROR && (ours || frame.request == 0)) {
    *done = true;
    return receive_error(c, &frame, call, err);
  }
  if (frame.type == TCP_FRAME_WAIT && ours) return MC_OK;
  if (frame.type == TCP_FRAME_DATA && ours && frame.offset == sink->offset &&
      frame.length <= sink->end - sink->offset) {
    status = receive_data(c, &frame, sink, call, err);
    *done = sink->offset == sink->end;
    return status;
  }
  if (frame.type == TCP_FRAME_END && ours && frame.offset == sink->offset && sink->end == MC_SIZE_UNKNOWN) {
    *done = true;
    return MC_OK;
  }
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s sent something else than was asked for", c->peer);
}

mc_status tcp_read(mc_connection *connection, const mc_content *content, mc_sink *sink, const mc_call *call,
                   mc_error *err) {
  struct tcp_connection *c = (struct tcp_connection *)connection;
  if (c->broken) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the connection to %s has failed before; connect again", c->peer);
  }
  if (sink->offset == sink->end) return MC_OK;
  if (++c->request == 0) c->request = 1;
  c->broken = true;
  c->stall_ms = config_of(c)->stall_timeout_ms;
  if (content->kind == MC_CONTENT_FLIGHT && (c->stall_ms <= 0 || c->stall_ms > FLIGHT_STALL_MS)) {
    c->stall_ms = FLIGHT_STALL_MS;
  }
  bool done = false;
  mc_status status = send_request(c, content, sink, call, err);
  while (!status && !done) {
    status = mc_call_check(call, err);
    if (!status) status = receive_frame(c, sink, &done, call, err);
  }
  /* receive_error has decided for itself. */
  if (!status) c->broken = false;
  return status;
}
