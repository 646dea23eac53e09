#include "conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"

#define ORIGIN         "tcp"
#define LINGER_MS      1000   /* for the peer to read our last words and close */
#define KEEP_EXPORT_MS 1000   /* an idle connection keeps no object from being evicted for longer */
#define IDLE_MS        300000 /* clients keep a connection for 30 s; one whose host has died never says so */
#define WAIT_MS        10000  /* between WAIT frames, when neither side has a stall timeout */
#define WAIT_LEAST_MS  5
#define DISCARD_SIZE   16384

static const mc_exporter *exporter_of(const struct tcp_conn *conn) {
  return &conn->worker->listener->exporter;
}

/* ---- what is said ---- */

static void queue_frame(struct tcp_conn *conn, const struct tcp_frame *frame) {
  tcp_frame_encode(conn->out, frame);
  conn->out_at = 0;
  conn->out_size = TCP_FRAME_SIZE;
}

/* `request` 0: these are our last words. */
static void queue_error(struct tcp_conn *conn, uint32_t request, const mc_error *error) {
  size_t length = strnlen(error->message, TCP_FRAME_TEXT_MAX);
  queue_frame(conn, &(struct tcp_frame){.type = TCP_FRAME_ERROR,
                                        .request = request,
                                        .status = (uint32_t)error->status,
                                        .offset = conn->offset,
                                        .length = length});
  memcpy(conn->out + TCP_FRAME_SIZE, error->message, length);
  conn->out_size += (uint32_t)length;
  conn->state = request ? TCP_CONN_IDLE : TCP_CONN_ENDING;
}

/* ---- lifetime ---- */

/* It was counted when it was accepted. */
static void give_place_back(struct tcp_listener *listener, bool refused) {
  atomic_fetch_sub(refused ? &listener->refused : &listener->connections, 1);
}

struct tcp_conn *tcp_conn_new(struct tcp_worker *worker, int fd, bool refused) {
  struct tcp_conn *conn = calloc(1, sizeof(*conn));
  if (!conn) {
    close(fd);
    give_place_back(worker->listener, refused);
    return NULL;
  }
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
  conn->worker = worker;
  conn->fd = fd;
  conn->refused = refused;
  conn->readable = true;
  conn->since = clock_ns();
  if (refused) {
    mc_error error;
    mc_error_set(&error, MC_RESOURCE_EXHAUSTED, ORIGIN, "there are %u connections already, the limit; try again later",
                 worker->listener->max_connections);
    queue_error(conn, 0, &error);
  }
  atomic_fetch_add(&worker->load, 1);
  return conn;
}

/* Afterwards nobody will wake the connection, and nobody has. */
static void unwatch(struct tcp_conn *conn) {
  if (conn->watching) exporter_of(conn)->unwatch(exporter_of(conn)->user, &conn->export_, conn);
  conn->watching = false;
  pthread_mutex_lock(&conn->worker->lock);
  if (conn->is_woken) LL_DELETE2(conn->worker->woken, conn, next_woken);
  conn->is_woken = false;
  pthread_mutex_unlock(&conn->worker->lock);
}

static void close_export(struct tcp_conn *conn) {
  if (conn->exported) exporter_of(conn)->close(exporter_of(conn)->user, &conn->export_);
  conn->exported = false;
}

void tcp_conn_free(struct tcp_conn *conn) {
  unwatch(conn);
  close_export(conn);
  shutdown(conn->fd, SHUT_RDWR); /* a child process of our host may have a copy of the descriptor */
  close(conn->fd);
  give_place_back(conn->worker->listener, conn->refused);
  atomic_fetch_sub(&conn->worker->load, 1);
  free(conn);
}

bool tcp_conn_is_idle(const struct tcp_conn *conn) {
  return conn->state == TCP_CONN_IDLE && conn->out_at == conn->out_size && !conn->payload &&
         conn->in_size < TCP_FRAME_SIZE;
}

/* ---- requests ---- */

/* Receive what there is, up to a full buffer. */
static void fill_input(struct tcp_conn *conn, int64_t now) {
  while (conn->readable && conn->in_size < TCP_FRAME_SIZE) {
    size_t room = sizeof(conn->in) - conn->in_size;
    ssize_t count = recv(conn->fd, conn->in + conn->in_size, room, MSG_DONTWAIT);
    if (count > 0) {
      if (conn->in_size == 0) conn->since = now; /* half a frame has the stall timeout to become a whole one */
      conn->in_size += (uint32_t)count;
      conn->readable = (size_t)count == room;
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else {
      conn->readable = false;
      if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) conn->gone = true;
    }
  }
}

static mc_status open_export(struct tcp_conn *conn, const mc_content *content, mc_error *err) {
  if (conn->exported && conn->content.kind == content->kind &&
      memcmp(conn->content.id, content->id, sizeof(content->id)) == 0) {
    return MC_OK;
  }
  close_export(conn);
  conn->export_ = (mc_export){.fd = -1};
  mc_status status = exporter_of(conn)->open(exporter_of(conn)->user, content, &conn->export_, err);
  conn->exported = !status;
  conn->content = *content;
  return status;
}

static int64_t wait_ms(const struct tcp_conn *conn, uint32_t patience_ms) {
  int64_t stall_ms = conn->worker->listener->stall_ms;
  if (stall_ms == 0 || (patience_ms && patience_ms < stall_ms)) stall_ms = patience_ms;
  if (stall_ms == 0) return WAIT_MS;
  return stall_ms / 3 > WAIT_LEAST_MS ? stall_ms / 3 : WAIT_LEAST_MS;
}

static mc_status begin(struct tcp_conn *conn, const struct tcp_frame *frame, mc_error *err) {
  mc_content content = {.kind = (mc_content_kind)frame->kind};
  memcpy(content.id, frame->id, sizeof(content.id));
  mc_status status = open_export(conn, &content, err);
  if (status) return status;
  uint64_t size = conn->export_.size; /* MC_SIZE_UNKNOWN is larger than all */
  if (frame->offset > size || (frame->length != MC_SIZE_UNKNOWN && frame->length > size - frame->offset)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the content has %llu bytes, fewer than were asked for",
                        (unsigned long long)size);
  }
  if (frame->flags & TCP_FRAME_SUSPECT) {
    status = exporter_of(conn)->suspect(exporter_of(conn)->user, &conn->export_, frame->offset, err);
    if (status) return status;
  }
  conn->wait_ms = wait_ms(conn, frame->patience_ms);
  conn->offset = frame->offset;
  conn->open_ended = frame->length == MC_SIZE_UNKNOWN;
  conn->end = conn->open_ended ? size : frame->offset + frame->length;
  conn->state = TCP_CONN_SENDING;
  return MC_OK;
}

/* If a request has come, begin with it. */
static void take_request(struct tcp_conn *conn, int64_t now) {
  fill_input(conn, now);
  if (conn->in_size < TCP_FRAME_SIZE) return;
  struct tcp_frame frame;
  mc_error error = MC_ERROR_INIT;
  mc_status status = tcp_frame_decode(&frame, conn->in, &error);
  if (!status && frame.type != TCP_FRAME_REQUEST) {
    status = mc_error_set(&error, MC_PROTOCOL, ORIGIN, "a client sends requests, nothing else");
  }
  if (status) {
    queue_error(conn, 0, &error);
    return;
  }
  conn->in_size -= TCP_FRAME_SIZE;
  memmove(conn->in, conn->in + TCP_FRAME_SIZE, conn->in_size);
  conn->since = now;
  conn->request = frame.request;
  if (begin(conn, &frame, &error)) queue_error(conn, conn->request, &error);
}

/* ---- answers ---- */

/* Queue the next frame of the answer; or park; or find that it is whole. */
static void next_frame(struct tcp_conn *conn, int64_t now) {
  const mc_exporter *exporter = exporter_of(conn);
  mc_error error = MC_ERROR_INIT;
  uint64_t bytes = MC_CHUNK_SIZE - conn->offset % MC_CHUNK_SIZE;
  if (bytes > conn->end - conn->offset) bytes = conn->end - conn->offset;
  if (bytes) {
    conn->watching = true; /* the wake may come before `ready` has returned */
    mc_status status =
        exporter->ready(exporter->user, &conn->export_, conn->offset, &bytes, tcp_conn_wake, conn, &error);
    conn->watching = !status && bytes == 0 && conn->offset < conn->export_.size;
    if (status) {
      queue_error(conn, conn->request, &error);
      return;
    }
  }
  if (bytes) {
    queue_frame(conn, &(struct tcp_frame){
                          .type = TCP_FRAME_DATA, .request = conn->request, .offset = conn->offset, .length = bytes});
    conn->position = conn->offset;
    conn->payload = bytes;
    conn->offset += bytes;
  } else if (conn->watching) {
    conn->state = TCP_CONN_PARKED;
    conn->since = now;
  } else if (conn->open_ended) {
    queue_frame(conn, &(struct tcp_frame){.type = TCP_FRAME_END, .request = conn->request, .offset = conn->offset});
    conn->state = TCP_CONN_IDLE;
  } else if (conn->offset < conn->end) {
    mc_error_set(&error, MC_CHANGED, ORIGIN, "the content turned out to have %llu bytes, fewer than were asked for",
                 (unsigned long long)conn->offset);
    queue_error(conn, conn->request, &error);
  } else {
    conn->state = TCP_CONN_IDLE;
  }
}

/* ---- sending ---- */

/* The content could not be read: the frame's header is out, so that only hanging up tells the client. Let the exporter
 * look at its copy. */
static bool source_failed(struct tcp_conn *conn, const char *why) {
  mc_error error = MC_ERROR_INIT;
  log_warn(conn->worker->listener->logger, ORIGIN, "can't read what is being sent, at offset %llu: %s",
           (unsigned long long)conn->position, why);
  exporter_of(conn)->suspect(exporter_of(conn)->user, &conn->export_, conn->position, &error);
  conn->gone = true;
  return false;
}

static bool is_of_network(int errnum) {
  switch (errnum) {
  case EPIPE:
  case ECONNRESET:
  case ECONNABORTED:
  case ECONNREFUSED:
  case ETIMEDOUT:
  case EHOSTUNREACH:
  case ENETUNREACH:
  case ENETDOWN:
  case ENOTCONN:
    return true;
  default:
    return false;
  }
}

/* Send what is queued. false: the socket takes no more, or is dead (`gone`). */
static bool flush(struct tcp_conn *conn, int64_t now) {
  while (conn->out_at < conn->out_size || conn->payload) {
    ssize_t count;
    bool header = conn->out_at < conn->out_size;
    if (header) {
      int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (conn->payload ? MSG_MORE : 0);
      count = send(conn->fd, conn->out + conn->out_at, conn->out_size - conn->out_at, flags);
    } else {
      off_t position = (off_t)conn->position;
      count = sendfile(conn->fd, conn->export_.fd, &position, (size_t)conn->payload);
      if (count == 0) return source_failed(conn, "the file is shorter than it was");
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      conn->blocked = true;
      return false;
    }
    if (count < 0) {
      char text[64];
      if (!header && !is_of_network(errno)) return source_failed(conn, strerror_r(errno, text, sizeof(text)));
      conn->gone = true;
      return false;
    }
    conn->since = now;
    if (header) {
      conn->out_at += (uint32_t)count;
    } else {
      conn->position += (uint64_t)count;
      conn->payload -= (uint64_t)count;
      exporter_of(conn)->sent(exporter_of(conn)->user, (uint64_t)count);
    }
  }
  return true;
}

/* ENDING, and everything is said: hear the peer out. */
static enum tcp_turn linger(struct tcp_conn *conn, int64_t now) {
  char scrap[DISCARD_SIZE];
  if (!conn->silent) {
    shutdown(conn->fd, SHUT_WR);
    conn->silent = true;
    conn->since = now;
  }
  ssize_t count = recv(conn->fd, scrap, sizeof(scrap), MSG_DONTWAIT);
  if (count > 0 || (count < 0 && errno == EINTR)) return TCP_TURN_MORE;
  return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? TCP_TURN_WAIT : TCP_TURN_OVER;
}

/* ---- turns ---- */

enum tcp_turn tcp_conn_turn(struct tcp_conn *conn, int64_t now) {
  bool clear = !conn->gone && !conn->blocked && flush(conn, now);
  if (clear && conn->state == TCP_CONN_SENDING) next_frame(conn, now);
  if (clear && conn->state == TCP_CONN_IDLE && conn->out_at == conn->out_size) {
    take_request(conn, now);
    if (conn->state == TCP_CONN_SENDING) next_frame(conn, now);
  }
  bool queued = conn->out_at < conn->out_size;
  if (clear && queued) clear = flush(conn, now);
  if (conn->gone) return TCP_TURN_OVER;
  if (clear && conn->state == TCP_CONN_ENDING) return linger(conn, now);
  return clear && queued ? TCP_TURN_MORE : TCP_TURN_WAIT;
}

int64_t tcp_conn_deadline(const struct tcp_conn *conn) {
  int64_t stall_ms = conn->worker->listener->stall_ms, ms = 0;
  if (conn->blocked) {
    ms = stall_ms;
  } else if (conn->state == TCP_CONN_ENDING) {
    ms = LINGER_MS;
  } else if (conn->state == TCP_CONN_PARKED) {
    ms = conn->wait_ms;
  } else if (conn->state == TCP_CONN_IDLE && conn->exported) {
    ms = KEEP_EXPORT_MS;
  } else if (conn->state == TCP_CONN_IDLE) {
    ms = conn->in_size ? stall_ms : IDLE_MS;
  }
  return ms ? conn->since + ms * NS_PER_MS : INT64_MAX;
}

enum tcp_turn tcp_conn_expire(struct tcp_conn *conn, int64_t now) {
  if (conn->blocked || conn->state == TCP_CONN_ENDING) return TCP_TURN_OVER;
  if (conn->state == TCP_CONN_PARKED) {
    conn->since = now;
    queue_frame(conn, &(struct tcp_frame){.type = TCP_FRAME_WAIT, .request = conn->request, .offset = conn->offset});
  } else if (conn->exported) {
    close_export(conn);
  } else if (!conn->in_size) {
    return TCP_TURN_OVER;
  } else {
    mc_error error;
    mc_error_set(&error, MC_PROTOCOL, ORIGIN, "half a request, and then nothing");
    queue_error(conn, 0, &error);
  }
  return TCP_TURN_MORE;
}
