/* Time the Fetch RPC, and hold many of them, with the gRPC C core as a client.
 *
 *   rpc_bench HOST:PORT URL latency COUNT            one after the other
 *   rpc_bench HOST:PORT URL rate SECONDS DEPTH       DEPTH under way at any time
 *   rpc_bench HOST:PORT URL wait COUNT CONNECTIONS   COUNT at once, which must not end: until the standard input does
 *
 * Prints one line of JSON; `wait` prints it once every call has been begun. */
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "calls.h"

static void die(const char *message) {
  fprintf(stderr, "rpc_bench: %s\n", message);
  exit(1);
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_times(struct calls *calls, double *times, size_t count, double seconds) {
  qsort(times, count, sizeof *times, compare);
  printf("{\"calls\": %zu, \"failed\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"rate\": %.1f}\n",
         count, (unsigned long long)calls->failed, seconds, times[count / 2] * 1e6, times[count * 99 / 100] * 1e6,
         (double)count / seconds);
}

static void measure_latency(struct calls *calls, size_t count) {
  double *times = malloc(count * sizeof *times), begin = 0;
  if (!times) die("no memory");
  /* The first calls pay for the connection. */
  const size_t warm_up = 50;
  for (size_t i = 0; i < warm_up + count; i++) {
    if (i == warm_up) begin = now();
    struct rpc rpc;
    rpc_start(calls, &rpc, 0);
    while (!calls_step(calls, 10000))
      ;
    if (i >= warm_up) times[i - warm_up] = now() - rpc.begun;
  }
  print_times(calls, times, count, now() - begin);
  free(times);
}

static void measure_rate(struct calls *calls, double seconds, size_t depth) {
  const size_t most = (size_t)(seconds * 200000);
  double *times = malloc(most * sizeof *times);
  struct rpc *rpcs = calloc(depth, sizeof *rpcs);
  if (!times || !rpcs) die("no memory");
  double begin = now(), end = begin + seconds;
  size_t count = 0, under_way = depth;
  for (size_t i = 0; i < depth; i++) rpc_start(calls, &rpcs[i], i);
  while (under_way > 0) {
    struct rpc *rpc = calls_step(calls, 10000);
    if (!rpc) continue;
    if (now() < end && count < most) {
      times[count++] = now() - rpc->begun;
      rpc_start(calls, rpc, (size_t)(rpc - rpcs));
    } else {
      under_way--;
    }
  }
  print_times(calls, times, count, seconds);
  free(rpcs);
  free(times);
}

static void hold(struct calls *calls, size_t count) {
  struct rpc *rpcs = calloc(count, sizeof *rpcs);
  if (!rpcs) die("no memory");
  for (size_t i = 0; i < count; i++) {
    rpc_start(calls, &rpcs[i], i);
    /* Not faster than the server accepts. */
    if (i % 64 == 63) calls_step(calls, 0);
  }
  printf("{\"waiting\": %zu}\n", count);
  fflush(stdout);
  struct pollfd input = {.fd = 0, .events = POLLIN};
  while (poll(&input, 1, 0) == 0 && calls->ended == 0) calls_step(calls, 100);
  if (calls->ended) fprintf(stderr, "rpc_bench: a call ended: %s\n", calls->error);
  for (size_t i = 0; i < count; i++) {
    if (rpcs[i].call) grpc_call_cancel(rpcs[i].call, NULL);
  }
  calls->error[0] = 0;
  bool early = calls->ended > 0;
  while (calls->ended < count) calls_step(calls, 1000);
  /* Cancelled, as they should be; what ended before is a failure. */
  calls->failed = early ? 1 : 0;
  free(rpcs);
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
  struct calls calls;
  calls_open(&calls);
  calls_connect(&calls, &args[1], 1, wait ? strtoul(args[5], NULL, 10) : 1);
  calls_ask_for(&calls, args[2], false);
  if (latency) measure_latency(&calls, strtoul(args[4], NULL, 10));
  if (rate) measure_rate(&calls, strtod(args[4], NULL), strtoul(args[5], NULL, 10));
  if (wait) hold(&calls, strtoul(args[4], NULL, 10));
  uint64_t failed = calls.failed;
  if (failed) fprintf(stderr, "rpc_bench: %llu calls failed: %s\n", (unsigned long long)failed, calls.error);
  calls_close(&calls);
  return failed ? 1 : 0;
}
