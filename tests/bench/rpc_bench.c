/* Time the Fetch RPC, and hold many of them, with the gRPC C core as a client.
 *
 *   rpc_bench HOST:PORT URL latency COUNT            one after the other
 *   rpc_bench HOST:PORT URL rate SECONDS DEPTH       DEPTH under way at any time
 *   rpc_bench HOST:PORT URL wait COUNT CONNECTIONS   COUNT at once, which must not end: until the standard input does
 *
 * Prints one line of JSON; `wait` prints it once every call has been begun.
 *
 * A call's life: started (three batches under way) -> its messages are read one by one -> the status and the end of
 * the messages are there, in either order -> measured, and perhaps started again. */
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>

#include "modelcache.pb-c.h"

struct rpc;

enum step { STEP_START, STEP_MESSAGE, STEP_STATUS, STEP_COUNT };

/* What a completion is about: the tag of its batch. */
struct tag {
  struct rpc *rpc;
  enum step step;
};

struct rpc {
  struct tag tags[STEP_COUNT];
  grpc_call *call;
  int pending; /* batches under way */
  double begun;
  grpc_byte_buffer *request, *message;
  grpc_metadata_array initial, trailing;
  grpc_status_code status;
  grpc_slice details;
  uint64_t messages;
};

struct bench {
  grpc_completion_queue *queue;
  grpc_channel **channels;
  size_t channel_count;
  grpc_slice request; /* the encoded FetchRequest */
  uint64_t ended, failed;
  char error[256];
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void die(const char *message) {
  fprintf(stderr, "rpc_bench: %s\n", message);
  exit(1);
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

static void rpc_start(struct bench *bench, struct rpc *rpc, size_t number) {
  memset(rpc, 0, sizeof *rpc);
  grpc_metadata_array_init(&rpc->initial);
  grpc_metadata_array_init(&rpc->trailing);
  rpc->begun = now();
  rpc->call = grpc_channel_create_call(bench->channels[number % bench->channel_count], NULL, GRPC_PROPAGATE_DEFAULTS,
                                       bench->queue, grpc_slice_from_static_string("/modelcache.v1.ModelCache/Fetch"),
                                       NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  rpc->request = grpc_raw_byte_buffer_create(&bench->request, 1);
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

static void rpc_end(struct bench *bench, struct rpc *rpc) {
  bench->ended++;
  if (rpc->status != GRPC_STATUS_OK && bench->failed++ == 0) {
    snprintf(bench->error, sizeof bench->error, "status %d: %.*s", (int)rpc->status,
             (int)GRPC_SLICE_LENGTH(rpc->details), (const char *)GRPC_SLICE_START_PTR(rpc->details));
  }
  grpc_slice_unref(rpc->details);
  grpc_metadata_array_destroy(&rpc->initial);
  grpc_metadata_array_destroy(&rpc->trailing);
  grpc_byte_buffer_destroy(rpc->request);
  grpc_call_unref(rpc->call);
  rpc->call = NULL;
}

/* Handle one completion, waiting for it for up to `milliseconds`. Returns the call that has ended by it, or NULL. */
static struct rpc *step(struct bench *bench, int milliseconds) {
  gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(milliseconds, GPR_TIMESPAN));
  grpc_event event = grpc_completion_queue_next(bench->queue, deadline, NULL);
  if (event.type != GRPC_OP_COMPLETE) return NULL;
  struct tag *tag = event.tag;
  struct rpc *rpc = tag->rpc;
  rpc->pending--;
  if (tag->step == STEP_MESSAGE && rpc->message) {
    rpc->messages++;
    grpc_byte_buffer_destroy(rpc->message);
    rpc->message = NULL;
    rpc_read(rpc);
  }
  if (rpc->pending > 0) return NULL;
  rpc_end(bench, rpc);
  return rpc;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_times(struct bench *bench, double *times, size_t count, double seconds) {
  qsort(times, count, sizeof *times, compare);
  printf("{\"calls\": %zu, \"failed\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"rate\": %.1f}\n",
         count, (unsigned long long)bench->failed, seconds, times[count / 2] * 1e6, times[count * 99 / 100] * 1e6,
         (double)count / seconds);
}

static void measure_latency(struct bench *bench, size_t count) {
  double *times = malloc(count * sizeof *times), begin = 0;
  if (!times) die("no memory");
  /* The first calls pay for the connection. */
  const size_t warm_up = 50;
  for (size_t i = 0; i < warm_up + count; i++) {
    if (i == warm_up) begin = now();
    struct rpc rpc;
    rpc_start(bench, &rpc, 0);
    while (!step(bench, 10000))
      ;
    if (i >= warm_up) times[i - warm_up] = now() - rpc.begun;
  }
  print_times(bench, times, count, now() - begin);
  free(times);
}

static void measure_rate(struct bench *bench, double seconds, size_t depth) {
  const size_t most = (size_t)(seconds * 200000);
  double *times = malloc(most * sizeof *times);
  struct rpc *rpcs = calloc(depth, sizeof *rpcs);
  if (!times || !rpcs) die("no memory");
  double begin = now(), end = begin + seconds;
  size_t count = 0, under_way = depth;
  for (size_t i = 0; i < depth; i++) rpc_start(bench, &rpcs[i], i);
  while (under_way > 0) {
    struct rpc *rpc = step(bench, 10000);
    if (!rpc) continue;
    if (now() < end && count < most) {
      times[count++] = now() - rpc->begun;
      rpc_start(bench, rpc, (size_t)(rpc - rpcs));
    } else {
      under_way--;
    }
  }
  print_times(bench, times, count, seconds);
  free(rpcs);
  free(times);
}

static void hold(struct bench *bench, size_t count) {
  struct rpc *rpcs = calloc(count, sizeof *rpcs);
  if (!rpcs) die("no memory");
  for (size_t i = 0; i < count; i++) {
    rpc_start(bench, &rpcs[i], i);
    /* Not faster than the server accepts. */
    if (i % 64 == 63) step(bench, 0);
  }
  printf("{\"waiting\": %zu}\n", count);
  fflush(stdout);
  struct pollfd input = {.fd = 0, .events = POLLIN};
  while (poll(&input, 1, 0) == 0 && bench->ended == 0) step(bench, 100);
  if (bench->ended) fprintf(stderr, "rpc_bench: a call ended: %s\n", bench->error);
  for (size_t i = 0; i < count; i++) {
    if (rpcs[i].call) grpc_call_cancel(rpcs[i].call, NULL);
  }
  bench->error[0] = 0;
  bool early = bench->ended > 0;
  while (bench->ended < count) step(bench, 1000);
  /* Cancelled, as they should be; what ended before is a failure. */
  bench->failed = early ? 1 : 0;
  free(rpcs);
}

static void connect_all(struct bench *bench, const char *target, size_t count) {
  grpc_arg settings[] = {
      {.type = GRPC_ARG_INTEGER, .key = (char *)"grpc.use_local_subchannel_pool", .value.integer = 1},
      {.type = GRPC_ARG_INTEGER, .key = (char *)"grpc.max_receive_message_length", .value.integer = -1},
  };
  grpc_channel_args args = {.num_args = sizeof settings / sizeof *settings, .args = settings};
  bench->channels = calloc(count, sizeof *bench->channels);
  if (!bench->channels) die("no memory");
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  for (size_t i = 0; i < count; i++) bench->channels[i] = grpc_channel_create(target, credentials, &args);
  grpc_channel_credentials_release(credentials);
  bench->channel_count = count;
}

static void encode_request(struct bench *bench, char *url) {
  Modelcache__V1__FetchRequest request = MODELCACHE__V1__FETCH_REQUEST__INIT;
  request.url = url;
  uint8_t bytes[8300];
  if (modelcache__v1__fetch_request__get_packed_size(&request) > sizeof bytes) die("the URL is too long");
  bench->request = grpc_slice_from_copied_buffer((char *)bytes, modelcache__v1__fetch_request__pack(&request, bytes));
}

int main(int count, char **args) {
  const char *mode = count > 3 ? args[3] : "";
  bool latency = strcmp(mode, "latency") == 0 && count == 5;
  bool rate = strcmp(mode, "rate") == 0 && count == 6;
  bool wait = strcmp(mode, "wait") == 0 && count == 6;
  if (!latency && !rate && !wait) {
    fprintf(stderr, "usage: rpc_bench HOST:PORT URL latency COUNT|rate SECONDS DEPTH|wait COUNT CONNECTIONS\n");
    return 2;
  }
  grpc_init();
  struct bench bench = {.queue = grpc_completion_queue_create_for_next(NULL)};
  connect_all(&bench, args[1], wait ? strtoul(args[5], NULL, 10) : 1);
  encode_request(&bench, args[2]);
  if (latency) measure_latency(&bench, strtoul(args[4], NULL, 10));
  if (rate) measure_rate(&bench, strtod(args[4], NULL), strtoul(args[5], NULL, 10));
  if (wait) hold(&bench, strtoul(args[4], NULL, 10));
  if (bench.failed)
    fprintf(stderr, "rpc_bench: %llu calls failed: %s\n", (unsigned long long)bench.failed, bench.error);
  grpc_slice_unref(bench.request);
  for (size_t i = 0; i < bench.channel_count; i++) grpc_channel_destroy(bench.channels[i]);
  free(bench.channels);
  grpc_completion_queue_shutdown(bench.queue);
  while (grpc_completion_queue_next(bench.queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type != GRPC_QUEUE_SHUTDOWN)
    ;
  grpc_completion_queue_destroy(bench.queue);
  grpc_shutdown();
  return bench.failed ? 1 : 0;
}
