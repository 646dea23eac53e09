/* The control plane on the gRPC C core: completion queues, and a state machine for each call.
 *
 * Every method arrives through the one generic request (a method that is asked for by name and has nobody standing by
 * would hang instead of being refused). A call's life:
 *
 *   a call is …   means                                       becomes
 *   standing      waits to be matched with a client's call    receiving
 *   receiving     its request message is awaited              open
 *   open          its handler answers, now or from callbacks  finished, by call_finish
 *   finished      what is queued goes out, then the status    gone, with its last reference
 *
 * The guard watches it while it is receiving and while it is finished: then it depends on its client alone. While it is
 * open its handler bounds it.
 *
 * References: one for each batch under way, one for whoever will call call_finish.
 *
 * Locks, in order: the service's or the control's, a call's; the guard's and the jobs' are leaves. */
#include "control.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>

#define MAX_MESSAGE     (64 << 10) /* of a request: a URL has 8 KiB at most */
#define MAX_QUEUED      1024       /* messages of one call that wait to be sent */
#define MAX_THREADS     64
#define MAX_HTTP2_CALLS 100000 /* of one connection: a client may have very many that wait */
#define RECEIVE_MS      10000  /* for a request's message to come, once its head is there */
#define SEND_MS         60000  /* for a client to read the end of its answer */
#define KEEPALIVE_MS    60000  /* a client that vanished without a word is found out by a ping */
#define READ_CHUNK      1024   /* of each connection's buffer: requests are small */
#define STANDING        16     /* calls that wait to be matched, of each queue */

struct control {
  grpc_server *server;
  grpc_completion_queue *queues[MAX_THREADS];
  pthread_t threads[MAX_THREADS];
  uint32_t thread_count, started;
  int port;
  struct acceptor *acceptor;
  grpc_server_credentials *credentials;
  struct service service;
  _Atomic uint64_t calls, errors, ended;
  struct jobs *jobs;
  struct guard *guard;
  pthread_mutex_t lock;
  pthread_cond_t room; /* a message of a call that somebody waits for was sent; or the last call is gone */
  atomic_uint alive;   /* struct calls, standing ones included */
};

/* What a completion means: the tag of a batch. */
struct tag {
  struct call *call;
  void (*done)(struct call *call, bool ok);
};

struct message {
  grpc_byte_buffer *bytes;
  struct message *next;
};

struct call {
  struct control *control;
  grpc_completion_queue *queue;
  grpc_call *core;
  grpc_call_details details;
  grpc_metadata_array metadata;
  grpc_byte_buffer *request;
  struct tag requested, received, closed, written, finished;
  int cancelled;
  gpr_timespec deadline;
  struct guarded guarded;
  pthread_mutex_t lock;
  uint32_t references;
  struct message *outbox, *outbox_end;
  uint32_t queued;
  bool head_sent, writing, finishing, ended, gone, waited_for;
  mc_status status;
  grpc_slice text;
  void (*on_cancel)(void *state);
  void (*on_end)(void *state);
  void *state;
};

/* ---- references ---- */

static void forget_head(struct call *call) {
  grpc_call_details_destroy(&call->details);
  grpc_metadata_array_destroy(&call->metadata);
  grpc_call_details_init(&call->details);
  grpc_metadata_array_init(&call->metadata);
}

void call_hold(struct call *call) {
  pthread_mutex_lock(&call->lock);
  call->references++;
  pthread_mutex_unlock(&call->lock);
}

void call_release(struct call *call) {
  pthread_mutex_lock(&call->lock);
  bool last = --call->references == 0;
  pthread_mutex_unlock(&call->lock);
  if (!last) return;
  if (call->on_end) call->on_end(call->state);
  while (call->outbox) {
    struct message *next = call->outbox->next;
    grpc_byte_buffer_destroy(call->outbox->bytes);
    free(call->outbox);
    call->outbox = next;
  }
  if (call->request) grpc_byte_buffer_destroy(call->request);
  if (call->core) grpc_call_unref(call->core);
  grpc_slice_unref(call->text);
  forget_head(call);
  pthread_mutex_destroy(&call->lock);
  struct control *control = call->control;
  free(call);
  pthread_mutex_lock(&control->lock); /* held to the end: with the last call the control may go */
  if (atomic_fetch_sub(&control->alive, 1) == 1) pthread_cond_broadcast(&control->room);
  pthread_mutex_unlock(&control->lock);
}

/* Start a batch, which holds a reference until its tag comes back. */
static void start_batch(struct call *call, const grpc_op *ops, size_t count, struct tag *tag) {
  call_hold(call);
  if (grpc_call_start_batch(call->core, ops, count, tag, NULL) != GRPC_CALL_OK) {
    tag->done(call, false);
    call_release(call);
  }
}

/* ---- writing ---- */

static void pump(struct call *call);

static void tell_room(struct control *control) {
  pthread_mutex_lock(&control->lock);
  pthread_cond_broadcast(&control->room);
  pthread_mutex_unlock(&control->lock);
}

static void on_written(struct call *call, bool ok) {
  (void)ok; /* a client that has gone is told of by `closed` */
  pthread_mutex_lock(&call->lock);
  call->writing = false;
  bool waited_for = call->waited_for;
  pthread_mutex_unlock(&call->lock);
  pump(call);
  if (waited_for) tell_room(call->control);
}

static void on_finished(struct call *call, bool ok) {
  (void)ok;
  guard_leave(call->control->guard, &call->guarded);
}

/* Send the next message, or the status when there is no more. */
static void pump(struct call *call) {
  grpc_op ops[3];
  size_t count = 0;
  struct tag *tag = NULL;
  struct message *message = NULL;
  grpc_metadata name;
  memset(ops, 0, sizeof(ops));
  pthread_mutex_lock(&call->lock);
  if (!call->writing && !call->ended && (call->outbox || call->finishing)) {
    if (!call->head_sent) ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    call->head_sent = true;
    message = call->outbox;
    if (message) {
      call->outbox = message->next;
      if (!call->outbox) call->outbox_end = NULL;
      call->queued--;
      ops[count].op = GRPC_OP_SEND_MESSAGE;
      ops[count++].data.send_message.send_message = message->bytes;
      tag = &call->written;
      call->writing = true;
    }
    if (!call->outbox && call->finishing) { /* the last message and the status go together */
      ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
      ops[count].data.send_status_from_server.status = code_of(call->status);
      ops[count].data.send_status_from_server.status_details = &call->text;
      if (call->status) { /* gRPC has fewer codes than we */
        name = (grpc_metadata){.key = grpc_slice_from_static_string("modelcache-status"),
                               .value = grpc_slice_from_static_string(mc_status_name(call->status))};
        ops[count].data.send_status_from_server.trailing_metadata = &name;
        ops[count].data.send_status_from_server.trailing_metadata_count = 1;
      }
      count++;
      tag = &call->finished;
      call->ended = true;
    }
  }
  pthread_mutex_unlock(&call->lock);
  if (tag) start_batch(call, ops, count, tag);
  if (message) {
    grpc_byte_buffer_destroy(message->bytes);
    free(message);
  }
}

grpc_slice call_pack(const ProtobufCMessage *body) {
  grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(body));
  protobuf_c_message_pack(body, GRPC_SLICE_START_PTR(slice));
  return slice;
}

bool call_send(struct call *call, const ProtobufCMessage *body) {
  return call_send_slice(call, call_pack(body));
}

bool call_send_slice(struct call *call, grpc_slice slice) {
  struct message *message = malloc(sizeof(*message));
  if (message) *message = (struct message){grpc_raw_byte_buffer_create(&slice, 1), NULL};
  grpc_slice_unref(slice);
  if (!message) return false;
  pthread_mutex_lock(&call->lock);
  bool takes = !call->finishing && call->queued < MAX_QUEUED;
  if (takes) {
    if (call->outbox_end) {
      call->outbox_end->next = message;
    } else {
      call->outbox = message;
    }
    call->outbox_end = message;
    call->queued++;
  }
  pthread_mutex_unlock(&call->lock);
  if (takes) {
    pump(call);
  } else {
    grpc_byte_buffer_destroy(message->bytes);
    free(message);
  }
  return takes;
}

bool call_is_idle(struct call *call) {
  pthread_mutex_lock(&call->lock);
  bool idle = !call->writing && !call->outbox && !call->finishing;
  pthread_mutex_unlock(&call->lock);
  return idle;
}

bool call_is_gone(struct call *call) {
  pthread_mutex_lock(&call->lock);
  bool gone = call->gone;
  pthread_mutex_unlock(&call->lock);
  return gone;
}

bool call_wait(struct call *call, uint32_t most, int64_t ms) {
  struct control *control = call->control;
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += ms / 1000;
  bool has_room = false, gone = false, in_time = true;
  while (!has_room && !gone && in_time) {
    pthread_mutex_lock(&control->lock); /* first, so that no news is missed between the look and the wait */
    pthread_mutex_lock(&call->lock);
    has_room = call->queued < most;
    gone = call->gone;
    call->waited_for = !has_room && !gone;
    pthread_mutex_unlock(&call->lock);
    if (!has_room && !gone) in_time = pthread_cond_timedwait(&control->room, &control->lock, &until) == 0;
    pthread_mutex_unlock(&control->lock);
  }
  return has_room && !gone;
}

void call_finish(struct call *call, mc_status status, const mc_error *error) {
  atomic_fetch_add_explicit(&call->control->ended, 1, memory_order_relaxed);
  if (status) atomic_fetch_add_explicit(&call->control->errors, 1, memory_order_relaxed);
  guard_enter(call->control->guard, &call->guarded, SEND_MS, false);
  pthread_mutex_lock(&call->lock);
  call->finishing = true;
  call->status = status;
  if (status && error) call->text = grpc_slice_from_copied_string(error->message);
  pthread_mutex_unlock(&call->lock);
  pump(call);
  call_release(call);
}

void call_refuse(struct call *call, mc_status status, const char *message) {
  mc_error error = MC_ERROR_INIT;
  mc_error_set(&error, status, "control", "%s", message);
  call_finish(call, status, &error);
}

void call_on(struct call *call, void *state, void (*on_cancel)(void *state), void (*on_end)(void *state)) {
  pthread_mutex_lock(&call->lock);
  call->state = state;
  call->on_cancel = on_cancel;
  call->on_end = on_end;
  bool gone = call->gone;
  pthread_mutex_unlock(&call->lock);
  if (gone && on_cancel) on_cancel(state);
}

struct service *call_service(struct call *call) {
  return &call->control->service;
}

int64_t call_timeout_ms(struct call *call) {
  if (gpr_time_cmp(call->deadline, gpr_inf_future(call->deadline.clock_type)) == 0) return 0;
  gpr_timespec left = gpr_time_sub(call->deadline, gpr_now(call->deadline.clock_type));
  int64_t ms = left.tv_sec * 1000 + left.tv_nsec / 1000000;
  return ms > 0 ? ms : 1;
}

bool call_run(struct call *call, struct job *job) {
  return jobs_submit(call->control->jobs, job);
}

/* ---- calls coming in ---- */

static void stand_by(struct control *control, grpc_completion_queue *queue);

static void on_closed(struct call *call, bool ok) {
  (void)ok;
  pthread_mutex_lock(&call->lock);
  call->gone = call->cancelled;
  void (*on_cancel)(void *) = call->gone ? call->on_cancel : NULL;
  void *state = call->state;
  bool waited_for = call->waited_for;
  pthread_mutex_unlock(&call->lock);
  if (on_cancel) on_cancel(state);
  if (waited_for) tell_room(call->control);
}

static void on_received(struct call *call, bool ok) {
  char name[128];
  grpc_slice method = call->details.method;
  size_t size = GRPC_SLICE_LENGTH(method);
  guard_leave(call->control->guard, &call->guarded);
  snprintf(name, sizeof(name), "%.*s", size < sizeof(name) ? (int)size : 0, (const char *)GRPC_SLICE_START_PTR(method));
  grpc_byte_buffer *request = ok ? call->request : NULL;
  grpc_byte_buffer_reader reader;
  call->request = NULL;
  forget_head(call); /* it may wait for long */
  if (!request) {
    call_refuse(call, MC_INVALID_ARGUMENT, "the request has no message, or one that is too large");
  } else if (!grpc_byte_buffer_reader_init(&reader, request)) {
    call_refuse(call, MC_INVALID_ARGUMENT, "the request's message can't be read");
  } else {
    grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    if (!service_handle(call, name, GRPC_SLICE_START_PTR(bytes), GRPC_SLICE_LENGTH(bytes))) {
      call_refuse(call, MC_UNSUPPORTED, "there is no such method");
    }
    grpc_slice_unref(bytes);
  }
  if (request) grpc_byte_buffer_destroy(request);
}

/* By the guard, which only knows calls that have a reference. */
static void end_guarded(struct guarded *guarded) {
  struct call *call = (struct call *)((char *)guarded - offsetof(struct call, guarded));
  const char *why = guarded->counts ? "the request's message is too large, or does not come"
                                    : "the client does not read what it asked for";
  grpc_call_cancel_with_status(call->core, GRPC_STATUS_RESOURCE_EXHAUSTED, why, NULL);
}

/* A standing call was matched. */
static void on_requested(struct call *call, bool ok) {
  if (!ok) { /* the server stops */
    call_release(call);
    return;
  }
  stand_by(call->control, call->queue);
  atomic_fetch_add_explicit(&call->control->calls, 1, memory_order_relaxed);
  call->deadline = call->details.deadline;
  grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
  close.data.recv_close_on_server.cancelled = &call->cancelled;
  start_batch(call, &close, 1, &call->closed);
  guard_enter(call->control->guard, &call->guarded, RECEIVE_MS, true);
  grpc_op receive = {.op = GRPC_OP_RECV_MESSAGE};
  receive.data.recv_message.recv_message = &call->request;
  start_batch(call, &receive, 1, &call->received);
}

static void stand_by(struct control *control, grpc_completion_queue *queue) {
  struct call *call = calloc(1, sizeof(*call));
  if (!call) return;
  atomic_fetch_add(&control->alive, 1);
  call->control = control;
  call->queue = queue;
  call->references = 2; /* the request's tag, and whoever calls call_finish */
  call->text = grpc_empty_slice();
  call->requested = (struct tag){call, on_requested};
  call->received = (struct tag){call, on_received};
  call->closed = (struct tag){call, on_closed};
  call->written = (struct tag){call, on_written};
  call->finished = (struct tag){call, on_finished};
  pthread_mutex_init(&call->lock, NULL);
  grpc_call_details_init(&call->details);
  grpc_metadata_array_init(&call->metadata);
  if (grpc_server_request_call(control->server, &call->core, &call->details, &call->metadata, queue, queue,
                               &call->requested) != GRPC_CALL_OK) {
    call_release(call);
    call_release(call);
  }
}

static void *queue_main(void *arg) {
  grpc_completion_queue *queue = arg;
  for (;;) {
    grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    if (event.type == GRPC_QUEUE_SHUTDOWN) return NULL;
    struct tag *tag = event.tag;
    if (!tag) continue; /* the server's own shutdown */
    struct call *call = tag->call;
    tag->done(call, event.success);
    call_release(call);
  }
}

/* ---- the server ---- */

static grpc_arg int_arg(const char *key, int value) {
  grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)key};
  arg.value.integer = value;
  return arg;
}

/* gRPC writes by itself only what is wrong. */
static void log_core(gpr_log_func_args *args) {
  log_write(NULL, args->severity == GPR_LOG_SEVERITY_ERROR ? MC_LOG_WARN : MC_LOG_DEBUG, "grpc", args->message);
}

void control_prepare(void) {
  gpr_set_log_function(log_core);
  /* With this experiment, which Debian's build has on, each connection holds a read buffer of 8 KiB, whatever
   * GRPC_ARG_TCP_READ_CHUNK_SIZE says: a quarter of what a waiting client costs. */
  setenv("GRPC_EXPERIMENTS", "-tcp_read_chunks", 0);
}

static void room_init(pthread_cond_t *room) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(room, &attributes);
  pthread_condattr_destroy(&attributes);
}

static void take_connection(void *user, int fd) {
  struct control *control = user;
  grpc_server_add_channel_from_fd(control->server, fd, control->credentials);
}

static mc_status start_listening(struct control *control, const char *address, mc_error *err) {
  int fd;
  mc_status status = listen_on(&fd, &control->port, "control", address, err);
  if (status) return status;
  status = acceptor_start(&control->acceptor, fd, take_connection, control, err);
  if (status) close(fd);
  return status;
}

mc_status control_start(struct control **out, mc_cache *cache, const char *address, const char *data_endpoint,
                        uint32_t threads, mc_error *err) {
  struct control *control = calloc(1, sizeof(*control));
  if (!control) return mc_error_set(err, MC_NO_MEMORY, "control", "no memory");
  grpc_init();
  grpc_arg args[] = {int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, MAX_MESSAGE),
                     int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, MAX_HTTP2_CALLS),
                     int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0), /* nobody asks it, and it counts every call */
                     int_arg(GRPC_ARG_HTTP2_BDP_PROBE, 0),
                     int_arg(GRPC_ARG_TCP_READ_CHUNK_SIZE, READ_CHUNK),
                     int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
                     int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_MS / 3),
                     int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
                     int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
                     int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000)};
  grpc_channel_args channel = {sizeof(args) / sizeof(*args), args};
  pthread_mutex_init(&control->lock, NULL);
  room_init(&control->room);
  control->server = grpc_server_create(&channel, NULL);
  control->thread_count = threads == 0 ? 1 : threads < MAX_THREADS ? threads : MAX_THREADS;
  for (uint32_t i = 0; i < control->thread_count; i++) {
    control->queues[i] = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(control->server, control->queues[i], NULL);
  }
  control->credentials = grpc_insecure_server_credentials_create();
  service_begin(&control->service, cache, data_endpoint);
  control->jobs = jobs_new();
  control->guard = guard_new(end_guarded);
  mc_status status = MC_OK;
  if (!control->jobs || !control->guard) {
    status = mc_error_set(err, MC_NO_MEMORY, "control", "no memory, or no thread, for the control plane");
  }
  if (!status) grpc_server_start(control->server);
  for (uint32_t i = 0; i < control->thread_count && !status; i++) {
    for (int standing = 0; standing < STANDING; standing++) stand_by(control, control->queues[i]);
    int error = pthread_create(&control->threads[i], NULL, queue_main, control->queues[i]);
    if (error) status = mc_error_errno(err, error, "control", "can't start a thread");
    control->started += !error;
  }
  if (!status) status = start_listening(control, address, err);
  if (status) {
    if (control_stop(control, 0)) control_free(control);
    return status;
  }
  *out = control;
  return MC_OK;
}

int control_port(const struct control *control) {
  return control->port;
}

void control_stats(const struct control *control, uint64_t *calls, uint64_t *errors, uint64_t *open) {
  *calls = atomic_load(&control->calls);
  *errors = atomic_load(&control->errors);
  *open = *calls - atomic_load(&control->ended);
}

void control_drain(struct control *control) {
  service_drain(&control->service);
}

/* A queue must not be shut down before the last batch of its calls has begun. */
static bool wait_for_calls(struct control *control, int64_t deadline) {
  struct timespec until = {deadline / 1000000000, deadline % 1000000000};
  int error = 0;
  pthread_mutex_lock(&control->lock);
  while (atomic_load(&control->alive) && !error) {
    error = pthread_cond_timedwait(&control->room, &control->lock, &until);
  }
  bool gone = atomic_load(&control->alive) == 0;
  pthread_mutex_unlock(&control->lock);
  return gone;
}

bool control_stop(struct control *control, int64_t drain_ms) {
  int64_t deadline = monotonic_ns() + drain_ms * 1000000;
  control_drain(control);
  acceptor_stop(control->acceptor);
  grpc_completion_queue *end = grpc_completion_queue_create_for_pluck(NULL);
  grpc_server_shutdown_and_notify(control->server, end, control);
  gpr_timespec until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(drain_ms, GPR_TIMESPAN));
  if (grpc_completion_queue_pluck(end, control, until, NULL).type != GRPC_OP_COMPLETE) {
    grpc_server_cancel_all_calls(control->server);
    grpc_completion_queue_pluck(end, control, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  }
  grpc_completion_queue_shutdown(end);
  grpc_completion_queue_destroy(end);
  /* Every call has ended for its client. A thread that still waits for an upstream has a moment to notice. */
  int64_t moment = monotonic_ns() + 1000000000;
  if (deadline < moment) deadline = moment;
  if (control->jobs && !jobs_stop(control->jobs, deadline)) return false;
  if (!wait_for_calls(control, deadline)) return false;
  service_end(&control->service); /* its watcher, before the queues go */
  for (uint32_t i = 0; i < control->thread_count; i++) {
    grpc_completion_queue_shutdown(control->queues[i]);
    if (i < control->started) {
      pthread_join(control->threads[i], NULL);
    } else {
      queue_main(control->queues[i]); /* its thread never started */
    }
    grpc_completion_queue_destroy(control->queues[i]);
  }
  grpc_server_destroy(control->server);
  grpc_server_credentials_release(control->credentials);
  grpc_shutdown();
  return true;
}

void control_free(struct control *control) {
  if (!control) return;
  guard_free(control->guard);
  jobs_free(control->jobs);
  pthread_mutex_destroy(&control->lock);
  pthread_cond_destroy(&control->room);
  free(control);
}
