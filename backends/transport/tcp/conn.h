/* The serving side's inner parts: what a worker and its connections know of each other.
 *
 * A worker is a thread with an epoll set; a connection belongs to one worker from its first to its last moment and
 * nothing but its worker's thread touches it, except `next_woken`, which the worker's lock guards.
 *
 *  state    | meaning                                                  | left
 *  ---------|----------------------------------------------------------|------------------------------------------------
 *  IDLE     | no request is under way                                  | a request comes: SENDING; a bad one: ENDING;
 *           |                                                          | none for IDLE_MS: closed
 *  SENDING  | the answer's frames are made and sent                    | whole, or a clean error: IDLE; the content is
 *           |                                                          | not there yet: PARKED
 *  PARKED   | the exporter will wake us; WAIT frames until then        | woken: SENDING
 *  ENDING   | the last words are written, then what the peer sends is  | the peer closes, or LINGER_MS passes
 *           | thrown away, lest a reset outruns them                   |
 *
 * In every state: the peer hangs up, or takes no byte of what is queued for the stall timeout: closed. */
#ifndef TCP_CONN_H
#define TCP_CONN_H

#include <pthread.h>
#include <stdatomic.h>

#include "frame.h"
#include "tcp.h"

struct tcp_conn;

struct tcp_worker {
  struct tcp_listener *listener;
  pthread_t thread;
  int epoll, event;         /* event: an eventfd, for what others put into `inbox` and `woken` */
  bool accepting;           /* the listening socket is in the epoll set */
  int64_t accept_again;     /* when to put it back */
  int64_t next_deadline;    /* no connection's deadline is earlier */
  struct tcp_conn *conns;   /* all of this worker's */
  struct tcp_conn *running; /* those that can go on at once */
  atomic_uint load;         /* how many connections it has or is about to get */
  pthread_mutex_t lock;
  struct tcp_conn *inbox; /* guarded by lock: connections that another worker accepted for this one */
  struct tcp_conn *woken; /* guarded by lock: parked ones whose content has come */
};

struct tcp_listener {
  mc_listener listener; /* first */
  mc_exporter exporter;
  int64_t stall_ms; /* 0: none */
  uint32_t max_connections;
  const mc_logger *logger;
  int fd;
  char endpoint[128];
  atomic_uint connections; /* those that were not refused */
  atomic_uint refused;     /* those that were, and are still being told so */
  atomic_bool draining;
  int64_t drain_until; /* written before `draining` */
  uint32_t worker_count;
  struct tcp_worker workers[];
};

enum tcp_conn_state { TCP_CONN_IDLE, TCP_CONN_SENDING, TCP_CONN_PARKED, TCP_CONN_ENDING };

/* How many requests of one client are read before they are answered; further ones wait in the socket. */
#define TCP_PIPELINE 8

struct tcp_conn {
  struct tcp_worker *worker;
  struct tcp_conn *prev, *next;                 /* in worker->conns, or alone by `next` in its inbox */
  struct tcp_conn *prev_running, *next_running; /* in worker->running */
  struct tcp_conn *next_woken;
  bool is_running, is_woken;
  bool refused;
  int fd;
  enum tcp_conn_state state;
  bool readable; /* there may be something to receive */
  bool blocked;  /* the socket takes no more: wait for EPOLLOUT */
  bool gone;     /* the peer hung up */
  bool silent;   /* ENDING: our side is shut down */
  bool watching; /* the exporter may call wake */
  bool exported; /* `out` of the exporter is open */
  int64_t since; /* when the state began, or bytes moved last */

  /* The request under way. */
  mc_export export_; /* kept open while requests ask for the same content */
  mc_content content;
  uint32_t request;
  int64_t wait_ms;      /* between WAIT frames */
  uint64_t offset, end; /* what is not yet framed; end MC_SIZE_UNKNOWN: as far as it goes */
  bool open_ended;      /* the client waits for an END frame */

  /* On the way out: [out_at, out_size), then `payload` bytes of the export from `position`. */
  uint32_t out_at, out_size;
  uint64_t position, payload;
  uint32_t in_size;
  uint8_t out[TCP_FRAME_SIZE + TCP_FRAME_TEXT_MAX];
  uint8_t in[TCP_PIPELINE * TCP_FRAME_SIZE];
};

/* Take over a connected socket, which is counted in `connections` or `refused` of the listener. NULL: no memory; the
 * socket is closed and no longer counted. `refused`: only say so, then close. */
struct tcp_conn *tcp_conn_new(struct tcp_worker *worker, int fd, bool refused);
void tcp_conn_free(struct tcp_conn *conn);
/* Let it go on: at most one frame, so that its neighbours get their turn. */
enum tcp_turn {
  TCP_TURN_MORE, /* it can go on at once */
  TCP_TURN_WAIT, /* something must happen first */
  TCP_TURN_OVER, /* free it */
};
enum tcp_turn tcp_conn_turn(struct tcp_conn *conn, int64_t now);
/* When tcp_conn_expire is due; INT64_MAX: never. */
int64_t tcp_conn_deadline(const struct tcp_conn *conn);
enum tcp_turn tcp_conn_expire(struct tcp_conn *conn, int64_t now);
/* Nothing is under way, nothing queued, nothing received. */
bool tcp_conn_is_idle(const struct tcp_conn *conn);
/* listener.c: the exporter's wake. */
void tcp_conn_wake(void *arg);

#endif
