/* tcp, the serving side: threads with an epoll loop each, sendfile, and connections that never wait for one another.
 *
 *   a connection …   means                                     becomes
 *   reading          its next request is awaited               sending, once 64 bytes are there
 *   sending          frames go out as the socket takes them    reading at the request's end; parked
 *   parked           the flight has not landed the next bytes  sending, when it is woken
 *   closing          its last frame goes out                   closed
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/net.h"
#include "tcp.h"

#define MAX_THREADS 64
#define TURN_BYTES  ((uint64_t)16 << 20) /* what one connection sends before the next gets its turn */
#define MAX_DEFAULT 4096                 /* connections, where no limit was set */

enum state { READING, SENDING, PARKED, CLOSING };

struct peer {
  int fd;
  struct loop *loop;
  enum state state;
  uint8_t request[FRAME_SIZE];
  size_t request_size;
  /* what goes out next: a head (with an error's message behind it), then payload */
  uint8_t head[FRAME_SIZE + FRAME_MESSAGE_MAX];
  size_t head_size, head_sent;
  uint64_t payload; /* bytes of the data frame that are still to be sent */
  bool ends;        /* the head is the request's last frame */
  bool open;        /* `export_` is */
  bool wakes;       /* a wake was asked for */
  mc_content content;
  mc_export export_;
  uint64_t offset, end;
  int64_t moved_at, told_at;
  struct peer *prev, *next;
  _Atomic bool woken;
};

struct loop {
  struct listener *listener;
  pthread_t thread;
  int epoll, event;
  struct peer *peers;
};

struct listener {
  mc_listener base;
  mc_exporter exporter;
  int fd;
  char endpoint[300];
  uint32_t most, loop_count;
  int64_t stall_ms;
  _Atomic uint32_t connections, busy;
  _Atomic bool accepting, stopping;
  struct loop loops[MAX_THREADS];
};

static const mc_exporter *exporter_of(struct peer *peer) {
  return &peer->loop->listener->exporter;
}

/* ---- a peer's life ---- */

static void want(struct peer *peer, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = peer};
  epoll_ctl(peer->loop->epoll, EPOLL_CTL_MOD, peer->fd, &event);
}

static void close_export(struct peer *peer) {
  const mc_exporter *exporter = exporter_of(peer);
  if (peer->wakes) exporter->unwatch(exporter->user, &peer->export_, peer);
  peer->wakes = false;
  if (peer->open) exporter->close(exporter->user, &peer->export_);
  peer->open = false;
}

static void set_state(struct peer *peer, enum state state) {
  struct listener *listener = peer->loop->listener;
  if ((peer->state == READING) != (state == READING)) {
    atomic_fetch_add(&listener->busy, state == READING ? UINT32_MAX : 1);
  }
  peer->state = state;
}

static void peer_close(struct peer *peer) {
  struct loop *loop = peer->loop;
  close_export(peer);
  set_state(peer, READING);
  DL_DELETE(loop->peers, peer);
  close(peer->fd);
  atomic_fetch_sub(&loop->listener->connections, 1);
  free(peer);
}

/* ---- frames out ---- */

static void put_head(struct peer *peer, const struct frame *frame, const char *message) {
  frame_encode(peer->head, frame);
  if (message) memcpy(peer->head + FRAME_SIZE, message, (size_t)frame->length);
  peer->head_size = FRAME_SIZE + (message ? (size_t)frame->length : 0);
  peer->head_sent = 0;
}

static void put_error(struct peer *peer, mc_status status, const char *message) {
  size_t length = strlen(message);
  struct frame frame = {.type = FRAME_ERROR,
                        .status = (uint8_t)status,
                        .length = length < FRAME_MESSAGE_MAX ? length : FRAME_MESSAGE_MAX};
  put_head(peer, &frame, message);
  peer->ends = true;
  close_export(peer);
}

/* A flight has landed what a parked peer waits for; from any thread. */
static void wake_peer(void *arg) {
  struct peer *peer = arg;
  uint64_t one = 1;
  int event = peer->loop->event;
  atomic_store(&peer->woken, true);
  while (write(event, &one, sizeof(one)) < 0 && errno == EINTR) continue;
}

/* Prepare the next frame of the request. false: nothing can be sent yet, the peer is parked. */
static bool next_frame(struct peer *peer) {
  const mc_exporter *exporter = exporter_of(peer);
  struct frame frame = {.offset = peer->offset, .size = peer->export_.size};
  uint64_t size = peer->export_.size;
  uint64_t end = peer->end < size ? peer->end : size;
  if (peer->offset >= end) {
    frame.type = FRAME_END;
    put_head(peer, &frame, NULL);
    peer->ends = true;
    return true;
  }
  uint64_t chunk_end = (peer->offset / MC_CHUNK_SIZE + 1) * MC_CHUNK_SIZE;
  uint64_t bytes = (chunk_end < end ? chunk_end : end) - peer->offset;
  mc_error error = MC_ERROR_INIT;
  atomic_store(&peer->woken, false);
  peer->wakes = true;
  mc_status status = exporter->ready(exporter->user, &peer->export_, peer->offset, &bytes, wake_peer, peer, &error);
  if (status || bytes) peer->wakes = false;
  if (status) {
    put_error(peer, status, error.message);
    return true;
  }
  if (!bytes) {
    peer->told_at = clock_ns();
    set_state(peer, PARKED);
    want(peer, EPOLLRDHUP);
    return false;
  }
  frame.type = FRAME_DATA;
  frame.length = peer->payload = bytes;
  put_head(peer, &frame, NULL);
  return true;
}

/* ---- requests in ---- */

static void begin_request(struct peer *peer) {
  const mc_exporter *exporter = exporter_of(peer);
  struct frame frame;
  mc_error error = MC_ERROR_INIT;
  mc_status status = MC_OK;
  peer->request_size = 0;
  peer->ends = false;
  set_state(peer, SENDING);
  if (!frame_decode(&frame, peer->request) || frame.type != FRAME_READ) {
    put_error(peer, MC_PROTOCOL, "this port speaks modelcache's data protocol; that was not a request of it");
    set_state(peer, CLOSING);
    return;
  }
  bool same = peer->open && peer->content.kind == (mc_content_kind)frame.kind &&
              memcmp(peer->content.id, frame.id, sizeof(frame.id)) == 0;
  if (!same) {
    close_export(peer);
    peer->content.kind = (mc_content_kind)frame.kind;
    memcpy(peer->content.id, frame.id, sizeof(frame.id));
    status = exporter->open(exporter->user, &peer->content, &peer->export_, &error);
    peer->open = !status;
  }
  if (!status && frame.flags & FRAME_SUSPECT && frame.offset < peer->export_.size) {
    status = exporter->suspect(exporter->user, &peer->export_, frame.offset, &error);
  }
  peer->offset = frame.offset;
  peer->end = frame.length == MC_SIZE_UNKNOWN ? MC_SIZE_UNKNOWN : frame.offset + frame.length;
  if (!status && peer->end != MC_SIZE_UNKNOWN && peer->end > peer->export_.size) {
    status = mc_error_set(&error, MC_INVALID_ARGUMENT, ORIGIN, "the range ends behind the content's end");
  }
  if (status) put_error(peer, status, error.message);
}

/* Read what is there of the next request. false: the peer was closed. */
static bool read_request(struct peer *peer) {
  while (peer->state == READING) {
    ssize_t got = recv(peer->fd, peer->request + peer->request_size, FRAME_SIZE - peer->request_size, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return true;
    if (got <= 0) {
      peer_close(peer);
      return false;
    }
    peer->request_size += (size_t)got;
    peer->moved_at = clock_ns();
    if (peer->request_size == FRAME_SIZE) begin_request(peer);
  }
  return true;
}

/* ---- sending ---- */

enum sent { SENT_ALL, SENT_FULL, SENT_FAILED };

/* Push the head and the payload that belongs to it. */
static enum sent push(struct peer *peer, uint64_t *budget) {
  while (peer->head_sent < peer->head_size) {
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (peer->payload ? MSG_MORE : 0);
    ssize_t put = send(peer->fd, peer->head + peer->head_sent, peer->head_size - peer->head_sent, flags);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno == EAGAIN ? SENT_FULL : SENT_FAILED;
    peer->head_sent += (size_t)put;
  }
  while (peer->payload) {
    off_t at = (off_t)peer->offset;
    ssize_t put = sendfile(peer->fd, peer->export_.fd, &at, (size_t)peer->payload);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno == EAGAIN ? SENT_FULL : SENT_FAILED;
    if (put == 0) return SENT_FAILED; /* the file became shorter below us */
    peer->payload -= (uint64_t)put;
    peer->offset += (uint64_t)put;
    *budget -= (uint64_t)put < *budget ? (uint64_t)put : *budget;
    exporter_of(peer)->sent(exporter_of(peer)->user, (uint64_t)put);
    peer->moved_at = clock_ns();
  }
  return SENT_ALL;
}

/* Go on with a peer as far as it goes. false: it was closed. */
static bool run_peer(struct peer *peer) {
  uint64_t budget = TURN_BYTES;
  for (;;) {
    if (peer->state == READING) {
      if (!read_request(peer)) return false;
      if (peer->state == READING) {
        want(peer, EPOLLIN | EPOLLRDHUP);
        return true;
      }
    }
    if (peer->head_sent == peer->head_size && !peer->payload && !peer->ends && !next_frame(peer)) return true;
    enum sent sent = push(peer, &budget);
    if (sent == SENT_FAILED || (sent == SENT_ALL && peer->state == CLOSING)) {
      peer_close(peer);
      return false;
    }
    if (sent == SENT_FULL || budget == 0) {
      want(peer, EPOLLOUT | EPOLLRDHUP);
      return true;
    }
    if (peer->ends) {
      peer->head_size = peer->head_sent = 0;
      peer->ends = false;
      set_state(peer, READING);
    }
  }
}

/* ---- loops ---- */

static void accept_peers(struct loop *loop) {
  struct listener *listener = loop->listener;
  for (;;) {
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), one = 1;
    if (fd < 0) return; /* none left, or none that can be taken now */
    struct peer *peer = calloc(1, sizeof(*peer));
    if (!peer) {
      close(fd);
      return;
    }
    *peer = (struct peer){.fd = fd, .loop = loop, .moved_at = clock_ns()};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = peer};
    DL_APPEND(loop->peers, peer);
    bool full = atomic_fetch_add(&listener->connections, 1) >= listener->most;
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event)) {
      peer_close(peer);
    } else if (full) {
      put_error(peer, MC_RESOURCE_EXHAUSTED, "this pod has as many connections as it may have; try another, or later");
      set_state(peer, CLOSING);
      run_peer(peer);
    }
  }
}

/* Parked peers that were woken, or must be told that we live; peers that have not moved for too long. */
static void look_after(struct loop *loop) {
  struct listener *listener = loop->listener;
  struct peer *peer, *next;
  int64_t now = clock_ns();
  DL_FOREACH_SAFE(loop->peers, peer, next) {
    if (peer->state == PARKED && atomic_load(&peer->woken)) {
      peer->wakes = false;
      set_state(peer, SENDING);
      run_peer(peer);
    } else if (peer->state == PARKED && now - peer->told_at > listener->stall_ms * NS_PER_MS / 3) {
      struct frame frame = {.type = FRAME_WAIT};
      uint8_t bytes[FRAME_SIZE];
      frame_encode(bytes, &frame);
      peer->told_at = now;
      if (send(peer->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof(bytes)) peer_close(peer);
    } else if ((peer->state == SENDING || peer->state == CLOSING || peer->request_size) &&
               now - peer->moved_at > listener->stall_ms * NS_PER_MS) {
      peer_close(peer);
    }
  }
}

static void *loop_main(void *arg) {
  struct loop *loop = arg;
  struct listener *listener = loop->listener;
  struct epoll_event events[64];
  int tick = (int)(listener->stall_ms / 4 < 1000 ? listener->stall_ms / 4 + 1 : 1000);
  while (!atomic_load(&listener->stopping)) {
    int count = epoll_wait(loop->epoll, events, 64, tick);
    for (int i = 0; i < count; i++) {
      uint64_t value;
      if (events[i].data.ptr == listener) {
        if (atomic_load(&listener->accepting)) accept_peers(loop);
      } else if (events[i].data.ptr == loop) {
        while (read(loop->event, &value, sizeof(value)) < 0 && errno == EINTR) continue;
      } else {
        struct peer *peer = events[i].data.ptr;
        bool gone =
            events[i].events & (EPOLLERR | EPOLLHUP) || (events[i].events & EPOLLRDHUP && peer->state == PARKED);
        if (gone) {
          peer_close(peer);
        } else if (peer->state != PARKED) {
          run_peer(peer);
        }
      }
    }
    look_after(loop);
  }
  struct peer *peer, *next;
  DL_FOREACH_SAFE(loop->peers, peer, next) {
    peer_close(peer);
  }
  return NULL;
}

/* ---- the listener ---- */

static mc_status start_loop(struct listener *listener, mc_error *err) {
  struct loop *loop = &listener->loops[listener->loop_count];
  *loop = (struct loop){.listener = listener, .epoll = epoll_create1(EPOLL_CLOEXEC)};
  loop->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct epoll_event accepts = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = listener};
  struct epoll_event wakes = {.events = EPOLLIN, .data.ptr = loop};
  int error = 0;
  if (loop->epoll < 0 || loop->event < 0 || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, listener->fd, &accepts) ||
      epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->event, &wakes)) {
    error = errno;
  } else {
    error = pthread_create(&loop->thread, NULL, loop_main, loop);
  }
  if (!error) {
    listener->loop_count++;
    return MC_OK;
  }
  if (loop->epoll >= 0) close(loop->epoll);
  if (loop->event >= 0) close(loop->event);
  return mc_error_errno(err, error, ORIGIN, "can't start a serving thread");
}

mc_status tcp_listen(mc_transport *base, const char *address, const mc_exporter *exporter, mc_listener **out,
                     mc_error *err) {
  struct tcp *self = (struct tcp *)base;
  struct listener *listener = calloc(1, sizeof(*listener));
  if (!listener) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a listener");
  listener->base.transport = base;
  listener->exporter = *exporter;
  listener->most = self->max_connections ? self->max_connections : MAX_DEFAULT;
  listener->stall_ms = self->stall_timeout_ms > 0 ? self->stall_timeout_ms : 30000;
  atomic_store(&listener->accepting, true);
  mc_status status = net_listen(&listener->fd, address, 1024, "the data plane", err);
  if (status) {
    free(listener);
    return status;
  }
  strcpy(listener->endpoint, "tcp://");
  status = net_local_address(listener->fd, listener->endpoint + 6, sizeof(listener->endpoint) - 6, err);
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  uint32_t threads = self->threads ? self->threads : cores > 2 ? (uint32_t)cores : 2;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  for (uint32_t i = 0; i < threads && !status; i++) status = start_loop(listener, err);
  if (status) {
    tcp_listener_close(&listener->base, 0);
    return status;
  }
  *out = &listener->base;
  return MC_OK;
}

const char *tcp_listener_endpoint(mc_listener *listener) {
  return ((struct listener *)listener)->endpoint;
}

uint32_t tcp_listener_connections(mc_listener *listener) {
  return atomic_load(&((struct listener *)listener)->connections);
}

void tcp_listener_close(mc_listener *base, int64_t drain_ms) {
  struct listener *listener = (struct listener *)base;
  atomic_store(&listener->accepting, false);
  int64_t until = clock_ns() + drain_ms * NS_PER_MS;
  while (atomic_load(&listener->busy) && clock_ns() < until) usleep(10000);
  atomic_store(&listener->stopping, true);
  for (uint32_t i = 0; i < listener->loop_count; i++) {
    uint64_t one = 1;
    while (write(listener->loops[i].event, &one, sizeof(one)) < 0 && errno == EINTR) continue;
  }
  for (uint32_t i = 0; i < listener->loop_count; i++) {
    pthread_join(listener->loops[i].thread, NULL);
    close(listener->loops[i].epoll);
    close(listener->loops[i].event);
  }
  close(listener->fd);
  free(listener);
}
