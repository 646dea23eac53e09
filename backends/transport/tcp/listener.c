/* The serving side: workers that accept connections, share them out, and give each its turn.
 *
 * A connection is served by one thread all its life; none of them ever blocks on a socket. Edge-triggered events only
 * mark what a connection may do; it does it when its turn comes, one frame at a time. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/net.h"
#include "conn.h"

#define ORIGIN          "tcp"
#define BACKLOG         1024
#define EVENTS          64
#define MAX_CONNECTIONS 4096 /* when the configuration names no number */
#define MAX_REFUSED     64   /* connections that are being told that they are too many */
#define ACCEPT_AGAIN_MS 100  /* after a want of descriptors or memory */

/* ---- what reaches a worker from other threads ---- */

static void signal_worker(struct tcp_worker *worker) {
  uint64_t one = 1;
  while (write(worker->event, &one, sizeof(one)) < 0 && errno == EINTR) continue;
}

void tcp_conn_wake(void *arg) {
  struct tcp_conn *conn = arg;
  struct tcp_worker *worker = conn->worker;
  pthread_mutex_lock(&worker->lock);
  /* One signal for all that are in the list: take_news empties it. Given with the lock held, as without it the
   * connection may be gone, and the worker with it. */
  if (!worker->woken) signal_worker(worker);
  if (!conn->is_woken) LL_PREPEND2(worker->woken, conn, next_woken);
  conn->is_woken = true;
  pthread_mutex_unlock(&worker->lock);
}

static void run(struct tcp_conn *conn) {
  if (conn->is_running) return;
  conn->is_running = true;
  DL_APPEND2(conn->worker->running, conn, prev_running, next_running);
}

static void stop_running(struct tcp_conn *conn) {
  if (!conn->is_running) return;
  conn->is_running = false;
  DL_DELETE2(conn->worker->running, conn, prev_running, next_running);
}

static void drop(struct tcp_conn *conn) {
  stop_running(conn);
  DL_DELETE(conn->worker->conns, conn);
  epoll_ctl(conn->worker->epoll, EPOLL_CTL_DEL, conn->fd, NULL); /* closing would not do if a child has a copy of it */
  tcp_conn_free(conn);
}

static void adopt(struct tcp_worker *worker, struct tcp_conn *conn) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
  if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, conn->fd, &event)) {
    log_warn(worker->listener->logger, ORIGIN, "can't watch a connection: error %d", errno);
    tcp_conn_free(conn);
    return;
  }
  DL_APPEND(worker->conns, conn);
  run(conn);
}

/* Take what others left for this worker. */
static void take_news(struct tcp_worker *worker) {
  uint64_t count;
  while (read(worker->event, &count, sizeof(count)) < 0 && errno == EINTR) continue;
  pthread_mutex_lock(&worker->lock);
  struct tcp_conn *inbox = worker->inbox, *conn, *next;
  worker->inbox = NULL;
  LL_FOREACH_SAFE2(worker->woken, conn, next, next_woken) {
    conn->is_woken = false;
    conn->watching = false;
    if (conn->state == TCP_CONN_PARKED) conn->state = TCP_CONN_SENDING;
    run(conn);
  }
  worker->woken = NULL;
  pthread_mutex_unlock(&worker->lock);
  LL_FOREACH_SAFE(inbox, conn, next) {
    adopt(worker, conn);
  }
}

/* ---- accepting ---- */

static struct tcp_worker *least_loaded(struct tcp_listener *listener) {
  struct tcp_worker *best = &listener->workers[0];
  for (uint32_t i = 1; i < listener->worker_count; i++) {
    if (atomic_load(&listener->workers[i].load) < atomic_load(&best->load)) best = &listener->workers[i];
  }
  return best;
}

static void watch_listener(struct tcp_worker *worker, bool on) {
  if (on == worker->accepting) return;
  struct tcp_listener *listener = worker->listener;
  struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = listener};
  int failed = epoll_ctl(worker->epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listener->fd, &event);
  worker->accepting = on && !failed;
  worker->accept_again = on && !failed ? INT64_MAX : deadline_in_ms(ACCEPT_AGAIN_MS);
}

/* Count one more, unless there are `limit` already. Several workers accept at once: a look before would not do. */
static bool take_place(atomic_uint *count, unsigned limit) {
  unsigned now = atomic_load(count);
  while (now < limit && !atomic_compare_exchange_weak(count, &now, now + 1)) continue;
  return now < limit;
}

static void accept_one(struct tcp_worker *worker) {
  struct tcp_listener *listener = worker->listener;
  int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      log_warn(listener->logger, ORIGIN, "can't accept a connection: %s; raise the limit of open files",
               errno == EMFILE || errno == ENFILE ? "no descriptor is left" : "no memory is left");
      watch_listener(worker, false);
    }
    return;
  }
  bool refused = !take_place(&listener->connections, listener->max_connections);
  if (refused && !take_place(&listener->refused, MAX_REFUSED)) {
    close(fd);
    return;
  }
  struct tcp_worker *target = least_loaded(listener);
  struct tcp_conn *conn = tcp_conn_new(target, fd, refused);
  if (!conn) return;
  if (target == worker) {
    adopt(worker, conn);
    return;
  }
  pthread_mutex_lock(&target->lock);
  LL_PREPEND(target->inbox, conn);
  signal_worker(target);
  pthread_mutex_unlock(&target->lock);
}

/* ---- a worker ---- */

static void take_events(struct tcp_worker *worker, const struct epoll_event *events, int count) {
  for (int i = 0; i < count; i++) {
    struct tcp_conn *conn = events[i].data.ptr;
    uint32_t what = events[i].events;
    if (!conn) {
      take_news(worker);
    } else if (events[i].data.ptr == worker->listener) {
      accept_one(worker);
    } else {
      if (what & EPOLLIN) conn->readable = true;
      if (what & EPOLLOUT) conn->blocked = false;
      if (what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) conn->gone = true;
      run(conn);
    }
  }
}

static void after_turn(struct tcp_conn *conn, enum tcp_turn turn) {
  struct tcp_worker *worker = conn->worker;
  stop_running(conn);
  if (turn == TCP_TURN_OVER) {
    drop(conn);
    return;
  }
  if (turn == TCP_TURN_MORE) run(conn);
  worker->next_deadline = deadline_earlier(worker->next_deadline, tcp_conn_deadline(conn));
}

/* One turn for each that can go on. */
static void run_round(struct tcp_worker *worker, int64_t now) {
  struct tcp_conn *last = worker->running ? worker->running->prev_running : NULL;
  for (bool more = last != NULL; more;) {
    struct tcp_conn *conn = worker->running;
    more = conn != last;
    after_turn(conn, tcp_conn_turn(conn, now));
  }
}

static void expire(struct tcp_worker *worker, int64_t now) {
  if (now >= worker->accept_again && !atomic_load(&worker->listener->draining)) watch_listener(worker, true);
  if (now < worker->next_deadline) return;
  struct tcp_conn *conn, *next;
  worker->next_deadline = INT64_MAX;
  DL_FOREACH_SAFE(worker->conns, conn, next) {
    if (now >= tcp_conn_deadline(conn)) {
      after_turn(conn, tcp_conn_expire(conn, now));
    } else {
      worker->next_deadline = deadline_earlier(worker->next_deadline, tcp_conn_deadline(conn));
    }
  }
}

/* false: there is nothing left to wait for. */
static bool drain(struct tcp_worker *worker, int64_t now) {
  struct tcp_conn *conn, *next;
  if (worker->accepting) watch_listener(worker, false);
  worker->accept_again = INT64_MAX;
  DL_FOREACH_SAFE(worker->conns, conn, next) {
    if (tcp_conn_is_idle(conn)) drop(conn);
  }
  return worker->conns && now < worker->listener->drain_until;
}

static void *work(void *arg) {
  struct tcp_worker *worker = arg;
  struct tcp_listener *listener = worker->listener;
  struct epoll_event events[EVENTS];
  bool going = true;
  while (going) {
    int64_t until = deadline_earlier(worker->next_deadline, worker->accept_again);
    if (atomic_load(&listener->draining)) until = deadline_earlier(until, listener->drain_until);
    int count = epoll_wait(worker->epoll, events, EVENTS, worker->running ? 0 : deadline_poll_ms(until));
    int64_t now = clock_ns();
    if (count > 0) take_events(worker, events, count);
    expire(worker, now);
    run_round(worker, now);
    if (atomic_load(&listener->draining)) going = drain(worker, now);
  }
  while (worker->conns) drop(worker->conns);
  return NULL;
}

/* ---- the listener ---- */

static mc_status worker_init(struct tcp_worker *worker, struct tcp_listener *listener, mc_error *err) {
  worker->listener = listener;
  worker->next_deadline = worker->accept_again = INT64_MAX;
  pthread_mutex_init(&worker->lock, NULL);
  worker->epoll = epoll_create1(EPOLL_CLOEXEC);
  worker->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (worker->epoll < 0 || worker->event < 0 || epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->event, &event)) {
    return mc_error_errno(err, errno, ORIGIN, "can't make a worker's epoll set");
  }
  watch_listener(worker, true);
  return MC_OK;
}

/* Signals are the host's business, and sendfile() to a closed socket raises one. */
static mc_status worker_start(struct tcp_worker *worker, mc_error *err) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&worker->thread, NULL, work, worker);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return error ? mc_error_errno(err, error, ORIGIN, "can't start a thread") : MC_OK;
}

/* End the first `started` workers, then free all. */
static void listener_free(struct tcp_listener *listener, uint32_t started) {
  struct tcp_conn *conn, *next;
  for (uint32_t i = 0; i < started; i++) signal_worker(&listener->workers[i]);
  for (uint32_t i = 0; i < started; i++) pthread_join(listener->workers[i].thread, NULL);
  for (uint32_t i = 0; i < listener->worker_count; i++) {
    struct tcp_worker *worker = &listener->workers[i];
    LL_FOREACH_SAFE(worker->inbox, conn, next) {
      tcp_conn_free(conn);
    }
    if (worker->epoll >= 0) close(worker->epoll);
    if (worker->event >= 0) close(worker->event);
    pthread_mutex_destroy(&worker->lock);
  }
  if (listener->fd >= 0) close(listener->fd);
  free(listener);
}

static uint32_t core_count(void) {
  cpu_set_t cores;
  int count = sched_getaffinity(0, sizeof(cores), &cores) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&cores);
  return count > 2 ? (uint32_t)count : 2;
}

mc_status tcp_listen(mc_transport *self, const char *address, const mc_exporter *exporter, mc_listener **out,
                     mc_error *err) {
  const mc_transport_config *config = &((struct tcp_transport *)self)->config;
  uint32_t threads = config->threads ? config->threads : core_count(), started = 0;
  struct tcp_listener *listener = calloc(1, sizeof(*listener) + threads * sizeof(listener->workers[0]));
  if (!listener) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a listener");
  listener->listener.transport = self;
  listener->exporter = *exporter;
  listener->stall_ms = config->stall_timeout_ms > 0 ? config->stall_timeout_ms : 0;
  listener->max_connections = config->max_connections ? config->max_connections : MAX_CONNECTIONS;
  listener->logger = config->logger;
  listener->fd = -1;
  strcpy(listener->endpoint, "tcp://");
  mc_status status = net_listen(&listener->fd, address, BACKLOG, "the data plane", err);
  if (!status) {
    size_t used = strlen(listener->endpoint);
    status = net_local_address(listener->fd, listener->endpoint + used, sizeof(listener->endpoint) - used, err);
  }
  while (!status && listener->worker_count < threads) {
    status = worker_init(&listener->workers[listener->worker_count++], listener, err);
  }
  while (!status && started < threads) {
    status = worker_start(&listener->workers[started], err);
    if (!status) started++;
  }
  if (status) {
    atomic_store(&listener->draining, true);
    listener_free(listener, started);
    return status;
  }
  *out = &listener->listener;
  return MC_OK;
}

const char *tcp_listener_endpoint(mc_listener *listener) {
  return ((struct tcp_listener *)listener)->endpoint;
}

uint32_t tcp_listener_connections(mc_listener *listener) {
  return atomic_load(&((struct tcp_listener *)listener)->connections);
}

void tcp_listener_close(mc_listener *self, int64_t drain_ms) {
  struct tcp_listener *listener = (struct tcp_listener *)self;
  listener->drain_until = drain_ms > 0 ? deadline_in_ms(drain_ms) : 0;
  atomic_store(&listener->draining, true);
  listener_free(listener, listener->worker_count);
}
