#include "calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>

#include "bench.h"

static void die(const char *message) {
  fprintf(stderr, "calls: %s\n", message);
  exit(1);
}

void calls_open(struct calls *calls) {
  grpc_init();
  *calls = (struct calls){.queue = grpc_completion_queue_create_for_next(NULL), .request = grpc_empty_slice()};
}

void calls_close(struct calls *calls) {
  calls_disconnect(calls);
  grpc_slice_unref(calls->request);
  grpc_completion_queue_shutdown(calls->queue);
  while (grpc_completion_queue_next(calls->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
         GRPC_QUEUE_SHUTDOWN)
    ;
  grpc_completion_queue_destroy(calls->queue);
  grpc_shutdown();
}

void calls_connect(struct calls *calls, char *const *targets, size_t target_count, size_t count) {
  grpc_arg settings[] = {
      {.type = GRPC_ARG_INTEGER, .key = (char *)"grpc.use_local_subchannel_pool", .value.integer = 1},
      {.type = GRPC_ARG_INTEGER, .key = (char *)"grpc.max_receive_message_length", .value.integer = -1},
  };
  grpc_channel_args args = {.num_args = sizeof settings / sizeof *settings, .args = settings};
  size_t total = calls->channel_count + count;
  calls->channels = realloc(calls->channels, total * sizeof *calls->channels);
  if (!calls->channels) die("no memory");
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  for (size_t i = 0; i < count; i++) {
    calls->channels[calls->channel_count++] = grpc_channel_create(targets[i % target_count], credentials, &args);
  }
  grpc_channel_credentials_release(credentials);
}

void calls_disconnect(struct calls *calls) {
  for (size_t i = 0; i < calls->channel_count; i++) grpc_channel_destroy(calls->channels[i]);
  free(calls->channels);
  calls->channels = NULL;
  calls->channel_count = 0;
}

void calls_ask_for(struct calls *calls, char *url, bool follow) {
  Modelcache__V1__FetchRequest request = MODELCACHE__V1__FETCH_REQUEST__INIT;
  request.url = url;
  request.follow = follow;
  uint8_t bytes[8300];
  if (modelcache__v1__fetch_request__get_packed_size(&request) > sizeof bytes) die("the URL is too long");
  grpc_slice_unref(calls->request);
  calls->request = grpc_slice_from_copied_buffer((char *)bytes, modelcache__v1__fetch_request__pack(&request, bytes));
}

static void batch(struct rpc *rpc, enum step step, const grpc_op *ops, size_t count) {
  rpc->tags[step] = (struct tag){rpc, step};
  if (grpc_call_start_batch(rpc->call, ops, count, &rpc->tags[step], NULL) != GRPC_CALL_OK) die("a batch is refused");
  rpc->pending++;
}

static void rpc_read(struct rpc *rpc) {
  grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &rpc->message};
  batch(rpc, STEP_MESSAGE, &op, 1);
}

void rpc_start(struct calls *calls, struct rpc *rpc, size_t channel) {
  memset(rpc, 0, sizeof *rpc);
  grpc_metadata_array_init(&rpc->initial);
  grpc_metadata_array_init(&rpc->trailing);
  rpc->begun = now();
  rpc->call = grpc_channel_create_call(calls->channels[channel % calls->channel_count], NULL, GRPC_PROPAGATE_DEFAULTS,
                                       calls->queue, grpc_slice_from_static_string("/modelcache.v1.ModelCache/Fetch"),
                                       NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  rpc->request = grpc_raw_byte_buffer_create(&calls->request, 1);
  const grpc_op start[] = {
      {.op = GRPC_OP_SEND_INITIAL_METADATA, .flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY},
      {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = rpc->request},
      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
      {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &rpc->initial},
  };
  batch(rpc, STEP_START, start, sizeof start / sizeof *start);
  const grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                          .data.recv_status_on_client = {.trailing_metadata = &rpc->trailing,
                                                         .status = &rpc->status,
                                                         .status_details = &rpc->details}};
  batch(rpc, STEP_STATUS, &status, 1);
  rpc_read(rpc);
}

static void rpc_end(struct calls *calls, struct rpc *rpc) {
  calls->ended++;
  if (rpc->status != GRPC_STATUS_OK && calls->failed++ == 0) {
    snprintf(calls->error, sizeof calls->error, "status %d: %.*s", (int)rpc->status,
             (int)GRPC_SLICE_LENGTH(rpc->details), (const char *)GRPC_SLICE_START_PTR(rpc->details));
  }
  grpc_slice_unref(rpc->details);
  grpc_metadata_array_destroy(&rpc->initial);
  grpc_metadata_array_destroy(&rpc->trailing);
  grpc_byte_buffer_destroy(rpc->request);
  grpc_call_unref(rpc->call);
  rpc->call = NULL;
}

static void tell(const struct calls *calls, struct rpc *rpc) {
  grpc_byte_buffer_reader reader;
  if (!grpc_byte_buffer_reader_init(&reader, rpc->message)) die("a message can't be read");
  grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
  grpc_byte_buffer_reader_destroy(&reader);
  Modelcache__V1__FetchEvent *event =
      modelcache__v1__fetch_event__unpack(NULL, GRPC_SLICE_LENGTH(bytes), GRPC_SLICE_START_PTR(bytes));
  grpc_slice_unref(bytes);
  if (!event) die("a message is none");
  calls->event(rpc, event);
  modelcache__v1__fetch_event__free_unpacked(event, NULL);
}

struct rpc *calls_step(struct calls *calls, int milliseconds) {
  gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(milliseconds, GPR_TIMESPAN));
  grpc_event event = grpc_completion_queue_next(calls->queue, deadline, NULL);
  if (event.type != GRPC_OP_COMPLETE) return NULL;
  struct tag *tag = event.tag;
  struct rpc *rpc = tag->rpc;
  rpc->pending--;
  if (tag->step == STEP_MESSAGE && rpc->message) {
    rpc->messages++;
    if (calls->event) tell(calls, rpc);
    grpc_byte_buffer_destroy(rpc->message);
    rpc->message = NULL;
    rpc_read(rpc);
  }
  if (rpc->pending > 0) return NULL;
  rpc_end(calls, rpc);
  return rpc;
}
