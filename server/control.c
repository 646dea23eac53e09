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
 * References: one for each batch under way, one for whoever will call call_finish. */
#include "control.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>

#define MAX_MESSAGE     (1 << 20) /* of a request */
#define MAX_QUEUED      1024      /* messages of one call that wait to be sent */
#define MAX_THREADS     64
#define WORKERS         8 /* threads for the calls that block on an upstream or a disk */
#define MAX_JOBS        4096
#define MAX_HTTP2_CALLS 100000 /* of one connection: a client may have very many that wait */

struct control {
  grpc_server *server;
  grpc_completion_queue *queues[MAX_THREADS];
  pthread_t threads[MAX_THREADS];
  uint32_t thread_count;
  int port;
  struct service service;
  pthread_t workers[WORKERS];
  uint32_t worker_count;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  struct job *jobs, *last_job;
  uint32_t job_count;
  bool stopping;
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
  pthread_mutex_t lock;
  uint32_t references;
  struct message *outbox, *outbox_end;
  uint32_t queued;
  bool head_sent, writing, finishing, ended;
  grpc_status_code code;
  grpc_slice text;
  void (*on_cancel)(void *state);
  void (*on_end)(void *state);
  void *state;
};

/* ---- references ---- */

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
  grpc_call_details_destroy(&call->details);
  grpc_metadata_array_destroy(&call->metadata);
  pthread_mutex_destroy(&call->lock);
  free(call);
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

static void on_written(struct call *call, bool ok) {
  (void)ok; /* a client that has gone is told of by `closed` */
  pthread_mutex_lock(&call->lock);
  call->writing = false;
  pthread_mutex_unlock(&call->lock);
  pump(call);
}

static void on_finished(struct call *call, bool ok) {
  (void)call;
  (void)ok;
}

/* Send the next message, or the status when there is no more. */
static void pump(struct call *call) {
  grpc_op ops[3];
  size_t count = 0;
  struct tag *tag = NULL;
  struct message *message = NULL;
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
      ops[count].data.send_status_from_server.status = call->code;
      ops[count++].data.send_status_from_server.status_details = &call->text;
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

bool call_send(struct call *call, const ProtobufCMessage *body) {
  size_t size = protobuf_c_message_get_packed_size(body);
  grpc_slice slice = grpc_slice_malloc(size);
  protobuf_c_message_pack(body, GRPC_SLICE_START_PTR(slice));
  return call_send_slice(call, slice);
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

static grpc_status_code code_of(mc_status status) {
  switch (status) {
  case MC_OK:
    return GRPC_STATUS_OK;
  case MC_INVALID_ARGUMENT:
    return GRPC_STATUS_INVALID_ARGUMENT;
  case MC_NOT_FOUND:
    return GRPC_STATUS_NOT_FOUND;
  case MC_PERMISSION_DENIED:
    return GRPC_STATUS_PERMISSION_DENIED;
  case MC_UNAVAILABLE:
    return GRPC_STATUS_UNAVAILABLE;
  case MC_DEADLINE_EXCEEDED:
    return GRPC_STATUS_DEADLINE_EXCEEDED;
  case MC_CANCELLED:
    return GRPC_STATUS_CANCELLED;
  case MC_NO_SPACE:
  case MC_RESOURCE_EXHAUSTED:
  case MC_NO_MEMORY:
    return GRPC_STATUS_RESOURCE_EXHAUSTED;
  case MC_CORRUPT:
    return GRPC_STATUS_DATA_LOSS;
  case MC_CHANGED:
  case MC_BUSY:
    return GRPC_STATUS_ABORTED;
  case MC_UNSUPPORTED:
    return GRPC_STATUS_UNIMPLEMENTED;
  default:
    return GRPC_STATUS_INTERNAL;
  }
}

static void finish_with(struct call *call, grpc_status_code code, const char *text) {
  pthread_mutex_lock(&call->lock);
  bool first = !call->finishing;
  call->finishing = true;
  if (first) {
    call->code = code;
    call->text = grpc_slice_from_copied_string(text);
  }
  pthread_mutex_unlock(&call->lock);
  pump(call);
}

void call_finish(struct call *call, mc_status status, const mc_error *error) {
  finish_with(call, code_of(status), status && error ? error->message : "");
  call_release(call);
}

void call_on(struct call *call, void *state, void (*on_cancel)(void *state), void (*on_end)(void *state)) {
  pthread_mutex_lock(&call->lock);
  call->state = state;
  call->on_cancel = on_cancel;
  call->on_end = on_end;
  bool gone = call->cancelled > 0;
  pthread_mutex_unlock(&call->lock);
  if (gone && on_cancel) on_cancel(state);
}

struct service *call_service(struct call *call) {
  return &call->control->service;
}

int64_t call_timeout_ms(struct call *call) {
  gpr_timespec left = gpr_time_sub(call->details.deadline, gpr_now(call->details.deadline.clock_type));
  int64_t ms = left.tv_sec * 1000 + left.tv_nsec / 1000000;
  if (gpr_time_cmp(call->details.deadline, gpr_inf_future(call->details.deadline.clock_type)) == 0) return 0;
  return ms > 0 ? ms : 1;
}

/* ---- jobs that block ---- */

static void *worker_main(void *arg) {
  struct control *control = arg;
  pthread_mutex_lock(&control->lock);
  for (;;) {
    while (!control->jobs && !control->stopping) pthread_cond_wait(&control->wake, &control->lock);
    struct job *job = control->jobs;
    if (!job) break;
    control->jobs = job->next;
    if (!control->jobs) control->last_job = NULL;
    control->job_count--;
    pthread_mutex_unlock(&control->lock);
    job->run(job);
    pthread_mutex_lock(&control->lock);
  }
  pthread_mutex_unlock(&control->lock);
  return NULL;
}

bool call_run(struct call *call, struct job *job) {
  struct control *control = call->control;
  pthread_mutex_lock(&control->lock);
  bool takes = control->job_count < MAX_JOBS && !control->stopping;
  if (takes) {
    job->next = NULL;
    if (control->last_job) {
      control->last_job->next = job;
    } else {
      control->jobs = job;
    }
    control->last_job = job;
    control->job_count++;
    pthread_cond_signal(&control->wake);
  }
  pthread_mutex_unlock(&control->lock);
  return takes;
}

/* ---- calls coming in ---- */

static void stand_by(struct control *control, grpc_completion_queue *queue);

static void on_closed(struct call *call, bool ok) {
  (void)ok;
  pthread_mutex_lock(&call->lock);
  void (*on_cancel)(void *) = call->cancelled ? call->on_cancel : NULL;
  void *state = call->state;
  pthread_mutex_unlock(&call->lock);
  if (on_cancel) on_cancel(state);
}

static void on_received(struct call *call, bool ok) {
  char name[128];
  grpc_slice method = call->details.method;
  size_t size = GRPC_SLICE_LENGTH(method);
  if (!ok || !call->request) {
    finish_with(call, GRPC_STATUS_INVALID_ARGUMENT, "the request has no message, or one that is too large");
    call_release(call);
    return;
  }
  snprintf(name, sizeof(name), "%.*s", size < sizeof(name) ? (int)size : 0, (const char *)GRPC_SLICE_START_PTR(method));
  grpc_byte_buffer_reader reader;
  if (!grpc_byte_buffer_reader_init(&reader, call->request)) {
    finish_with(call, GRPC_STATUS_INVALID_ARGUMENT, "the request's message can't be read");
    call_release(call);
    return;
  }
  grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
  grpc_byte_buffer_reader_destroy(&reader);
  bool known = service_handle(call, name, GRPC_SLICE_START_PTR(bytes), GRPC_SLICE_LENGTH(bytes));
  grpc_slice_unref(bytes);
  if (!known) {
    finish_with(call, GRPC_STATUS_UNIMPLEMENTED, "there is no such method");
    call_release(call);
  }
}

/* A standing call was matched. */
static void on_requested(struct call *call, bool ok) {
  if (!ok) { /* the server stops */
    call_release(call);
    return;
  }
  stand_by(call->control, call->queue);
  grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
  close.data.recv_close_on_server.cancelled = &call->cancelled;
  start_batch(call, &close, 1, &call->closed);
  grpc_op receive = {.op = GRPC_OP_RECV_MESSAGE};
  receive.data.recv_message.recv_message = &call->request;
  start_batch(call, &receive, 1, &call->received);
}

static void stand_by(struct control *control, grpc_completion_queue *queue) {
  struct call *call = calloc(1, sizeof(*call));
  if (!call) return;
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

mc_status control_start(struct control **out, mc_cache *cache, const char *address, const char *data_endpoint,
                        uint32_t threads, mc_error *err) {
  struct control *control = calloc(1, sizeof(*control));
  if (!control) return mc_error_set(err, MC_NO_MEMORY, "control", "no memory");
  grpc_init();
  grpc_arg args[] = {int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, MAX_MESSAGE),
                     int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, MAX_HTTP2_CALLS), int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0)};
  grpc_channel_args channel = {sizeof(args) / sizeof(*args), args};
  pthread_mutex_init(&control->lock, NULL);
  pthread_cond_init(&control->wake, NULL);
  control->server = grpc_server_create(&channel, NULL);
  control->thread_count = threads == 0 ? 1 : threads < MAX_THREADS ? threads : MAX_THREADS;
  for (uint32_t i = 0; i < control->thread_count; i++) {
    control->queues[i] = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(control->server, control->queues[i], NULL);
  }
  grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
  control->port = grpc_server_add_http2_port(control->server, address, credentials);
  grpc_server_credentials_release(credentials);
  service_begin(&control->service, cache, data_endpoint);
  if (control->port) grpc_server_start(control->server);
  bool started = control->port != 0;
  for (uint32_t i = 0; i < WORKERS && started; i++) {
    started = pthread_create(&control->workers[i], NULL, worker_main, control) == 0;
    if (started) control->worker_count++;
  }
  for (uint32_t i = 0; i < control->thread_count; i++) {
    if (started) {
      for (int standing = 0; standing < 16; standing++) stand_by(control, control->queues[i]);
    }
    pthread_create(&control->threads[i], NULL, queue_main, control->queues[i]);
  }
  if (!started) {
    control_stop(control, 0);
    return mc_error_set(err, MC_UNAVAILABLE, "control", "can't listen on %s for the control plane: is the port in use?",
                        address);
  }
  *out = control;
  return MC_OK;
}

int control_port(const struct control *control) {
  return control->port;
}

void control_drain(struct control *control) {
  service_drain(&control->service);
}

void control_stop(struct control *control, int64_t drain_ms) {
  control_drain(control);
  grpc_completion_queue *end = grpc_completion_queue_create_for_pluck(NULL);
  grpc_server_shutdown_and_notify(control->server, end, control);
  gpr_timespec until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(drain_ms, GPR_TIMESPAN));
  if (grpc_completion_queue_pluck(end, control, until, NULL).type != GRPC_OP_COMPLETE) {
    grpc_server_cancel_all_calls(control->server);
    grpc_completion_queue_pluck(end, control, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  }
  grpc_completion_queue_shutdown(end);
  grpc_completion_queue_destroy(end);
  pthread_mutex_lock(&control->lock);
  control->stopping = true;
  pthread_cond_broadcast(&control->wake);
  pthread_mutex_unlock(&control->lock);
  for (uint32_t i = 0; i < control->worker_count; i++) pthread_join(control->workers[i], NULL);
  service_end(&control->service); /* its watcher, before the queues go */
  for (uint32_t i = 0; i < control->thread_count; i++) {
    grpc_completion_queue_shutdown(control->queues[i]);
    pthread_join(control->threads[i], NULL);
    grpc_completion_queue_destroy(control->queues[i]);
  }
  grpc_server_destroy(control->server);
  grpc_shutdown();
  pthread_mutex_destroy(&control->lock);
  pthread_cond_destroy(&control->wake);
  free(control);
}
