#include "grpc_peer.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CONNECTIONS 256
#define FRAME_MAX       16384

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

struct connection {
  struct peer *peer;
  int fd;
  pthread_t thread;
};

struct peer {
  int fd;
  uint16_t port;
  char address[32];
  peer_handler handler;
  void *user;
  pthread_t thread;
  pthread_mutex_t lock;
  bool stopping;
  int count, calls;
  struct connection connections[MAX_CONNECTIONS];
};

struct peer_call {
  struct connection *connection;
  uint32_t stream;
  uint8_t *body; /* frames of the request */
  size_t body_size;
  bool headed, hang_up;
};

static bool write_whole(int fd, const void *data, size_t size) {
  const char *at = data;
  while (size) {
    ssize_t wrote = send(fd, at, size, MSG_NOSIGNAL);
    if (wrote <= 0) return false;
    at += wrote;
    size -= (size_t)wrote;
  }
  return true;
}

static bool read_whole(int fd, void *data, size_t size) {
  return size == 0 || recv(fd, data, size, MSG_WAITALL) == (ssize_t)size;
}

static bool write_frame(int fd, int type, int flags, uint32_t stream, const void *data, size_t size) {
  uint8_t head[9] = {(uint8_t)(size >> 16),   (uint8_t)(size >> 8),   (uint8_t)size,
                     (uint8_t)type,           (uint8_t)flags,         (uint8_t)(stream >> 24),
                     (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
  return write_whole(fd, head, sizeof(head)) && write_whole(fd, data, size);
}

struct frame {
  int type, flags;
  uint32_t stream;
  size_t size;
  uint8_t data[FRAME_MAX];
};

static bool read_frame(int fd, struct frame *frame) {
  uint8_t head[9];
  if (!read_whole(fd, head, sizeof(head))) return false;
  frame->size = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
  frame->type = head[3];
  frame->flags = head[4];
  frame->stream = (uint32_t)(head[5] & 127) << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
  if (frame->size > sizeof(frame->data) || !read_whole(fd, frame->data, frame->size)) return false;
  if (frame->type == SETTINGS && !(frame->flags & ACK)) return write_frame(fd, SETTINGS, ACK, 0, "", 0);
  if (frame->type == PING && !(frame->flags & ACK)) return write_frame(fd, PING, ACK, 0, frame->data, frame->size);
  return frame->type != GOAWAY;
}

/* So many bytes of the connection's window, of 64 KiB in all, are free again. A stream's own is never used up. */
static bool give_room(int fd, size_t size) {
  uint8_t increment[4] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
  return size == 0 || write_frame(fd, WINDOW_UPDATE, 0, 0, increment, sizeof(increment));
}

static void serve(struct connection *connection) {
  char preface[24];
  struct frame *frame = malloc(sizeof(*frame));
  struct peer_call call = {.connection = connection};
  struct peer *peer = connection->peer;
  bool good =
      read_whole(connection->fd, preface, sizeof(preface)) && write_frame(connection->fd, SETTINGS, 0, 0, "", 0);
  while (good && !call.hang_up && read_frame(connection->fd, frame)) {
    if (frame->type != HEADERS && frame->type != DATA) continue;
    if (frame->stream != call.stream) {
      free(call.body);
      call = (struct peer_call){.connection = connection, .stream = frame->stream};
    }
    if (frame->type == DATA) {
      call.body = realloc(call.body, call.body_size + frame->size + 1);
      memcpy(call.body + call.body_size, frame->data, frame->size);
      call.body_size += frame->size;
      good = give_room(connection->fd, frame->size);
    }
    if (!(frame->flags & END_STREAM)) continue;
    pthread_mutex_lock(&peer->lock);
    peer->calls++;
    pthread_mutex_unlock(&peer->lock);
    peer->handler(&call, peer->user);
  }
  free(call.body);
  free(frame);
}

static void *connection_main(void *arg) {
  struct connection *connection = arg;
  serve(connection);
  shutdown(connection->fd, SHUT_RDWR); /* closed by peer_stop, so that the number is not used again */
  return NULL;
}

static void *accept_main(void *arg) {
  struct peer *peer = arg;
  int fd, one = 1;
  while ((fd = accept4(peer->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    pthread_mutex_lock(&peer->lock);
    assert(peer->count < MAX_CONNECTIONS);
    struct connection *connection = &peer->connections[peer->count];
    *connection = (struct connection){.peer = peer, .fd = fd};
    if (peer->stopping || pthread_create(&connection->thread, NULL, connection_main, connection)) {
      close(fd);
    } else {
      peer->count++;
    }
    pthread_mutex_unlock(&peer->lock);
  }
  return NULL;
}

struct peer *peer_start(uint16_t port, peer_handler handler, void *user) {
  struct peer *peer = calloc(1, sizeof(*peer));
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  socklen_t length = sizeof(address);
  int one = 1;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  peer->handler = handler;
  peer->user = user;
  pthread_mutex_init(&peer->lock, NULL);
  peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(peer->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  bool good = bind(peer->fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(peer->fd, 64) == 0 &&
              getsockname(peer->fd, (struct sockaddr *)&address, &length) == 0;
  peer->port = ntohs(address.sin_port);
  snprintf(peer->address, sizeof(peer->address), "127.0.0.1:%u", peer->port);
  good = good && pthread_create(&peer->thread, NULL, accept_main, peer) == 0;
  assert(good);
  return peer;
}

void peer_cut(struct peer *peer) {
  pthread_mutex_lock(&peer->lock);
  for (int i = 0; i < peer->count; i++) shutdown(peer->connections[i].fd, SHUT_RDWR);
  pthread_mutex_unlock(&peer->lock);
}

void peer_stop(struct peer *peer) {
  pthread_mutex_lock(&peer->lock);
  peer->stopping = true;
  pthread_mutex_unlock(&peer->lock);
  shutdown(peer->fd, SHUT_RDWR);
  pthread_join(peer->thread, NULL);
  close(peer->fd);
  peer_cut(peer);
  for (int i = 0; i < peer->count; i++) {
    pthread_join(peer->connections[i].thread, NULL);
    close(peer->connections[i].fd);
  }
  pthread_mutex_destroy(&peer->lock);
  free(peer);
}

const char *peer_address(const struct peer *peer) {
  return peer->address;
}

uint16_t peer_port(const struct peer *peer) {
  return peer->port;
}

int peer_connections(struct peer *peer) {
  pthread_mutex_lock(&peer->lock);
  int count = peer->count;
  pthread_mutex_unlock(&peer->lock);
  return count;
}

int peer_calls(struct peer *peer) {
  pthread_mutex_lock(&peer->lock);
  int calls = peer->calls;
  pthread_mutex_unlock(&peer->lock);
  return calls;
}

/* ---- in a handler ---- */

const uint8_t *peer_message(const struct peer_call *call, size_t *size) {
  assert(call->body_size >= 5);
  *size = call->body_size - 5;
  return call->body + 5;
}

/* Header fields as literals that nobody has to remember. */
struct fields {
  uint8_t data[2048];
  size_t size;
};

static void add_text(struct fields *fields, const char *text) {
  size_t length = strlen(text);
  assert(length < 4096 && fields->size + length + 3 <= sizeof(fields->data));
  if (length < 127) {
    fields->data[fields->size++] = (uint8_t)length;
  } else {
    fields->data[fields->size++] = 127;
    fields->data[fields->size++] = (uint8_t)((length - 127) % 128) | (length - 127 >= 128 ? 128 : 0);
    if (length - 127 >= 128) fields->data[fields->size++] = (uint8_t)((length - 127) / 128);
  }
  memcpy(fields->data + fields->size, text, length);
  fields->size += length;
}

static void add_field(struct fields *fields, const char *name, const char *value) {
  fields->data[fields->size++] = 0;
  add_text(fields, name);
  add_text(fields, value);
}

static void send_fields(struct peer_call *call, const struct fields *fields, bool end) {
  write_frame(call->connection->fd, HEADERS, END_HEADERS | (end ? END_STREAM : 0), call->stream, fields->data,
              fields->size);
  call->headed = true;
}

void peer_headers(struct peer_call *call, int http_status, const char *type, bool end) {
  struct fields fields = {.size = 0};
  char status[8];
  snprintf(status, sizeof(status), "%d", http_status);
  add_field(&fields, ":status", status);
  add_field(&fields, "content-type", type ? type : "application/grpc");
  send_fields(call, &fields, end);
}

void peer_send_raw(struct peer_call *call, const void *data, size_t size) {
  const uint8_t *at = data;
  if (!call->headed) peer_headers(call, 200, NULL, false);
  while (size) {
    size_t piece = size < FRAME_MAX ? size : FRAME_MAX;
    write_frame(call->connection->fd, DATA, 0, call->stream, at, piece);
    at += piece;
    size -= piece;
  }
}

void peer_send(struct peer_call *call, const void *message, size_t size) {
  uint8_t head[5] = {0, (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
  peer_send_raw(call, head, sizeof(head));
  peer_send_raw(call, message, size);
}

void peer_finish(struct peer_call *call, int code, const char *message) {
  peer_finish_named(call, code, message, NULL);
}

void peer_finish_named(struct peer_call *call, int code, const char *message, const char *status) {
  struct fields fields = {.size = 0};
  char text[16];
  snprintf(text, sizeof(text), "%d", code);
  if (!call->headed) {
    add_field(&fields, ":status", "200");
    add_field(&fields, "content-type", "application/grpc");
  }
  add_field(&fields, "grpc-status", text);
  if (message) add_field(&fields, "grpc-message", message);
  if (status) add_field(&fields, "modelcache-status", status);
  send_fields(call, &fields, true);
}

void peer_end(struct peer_call *call) {
  write_frame(call->connection->fd, DATA, END_STREAM, call->stream, "", 0);
}

void peer_hang_up(struct peer_call *call) {
  call->hang_up = true;
}

void peer_wait_cancelled(struct peer_call *call) {
  struct frame *frame = malloc(sizeof(*frame));
  while (read_frame(call->connection->fd, frame) && frame->type != RST_STREAM) continue;
  call->hang_up = true;
  free(frame);
}
