/* How long after the end of a download those who wait for it at another pod have their complete tickets.
 *
 *   wakeup OWNER WAITERS COUNT    the control planes of two pods, HOST:PORT
 *
 * For each URL on the standard input: one Fetch at OWNER begins the download; when it is under way COUNT calls follow
 * at WAITERS, each on a connection of its own. Once all of them have been told that they wait a line {"waiting": COUNT}
 * says that the download may end. When all have ended another line tells the times at which the complete tickets came,
 * of CLOCK_MONOTONIC: the owner's, and those of the waiters in their order. One thread takes them all: what it needs
 * for each is part of the times. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "calls.h"

struct waiter {
  struct rpc rpc; /* first */
  bool waits;
  double ready; /* when the complete ticket came; 0: it has not */
};

static void die(const char *what) {
  fprintf(stderr, "wakeup: %s\n", what);
  exit(1);
}

static void take_event(struct rpc *rpc, const Modelcache__V1__FetchEvent *event) {
  struct waiter *waiter = (struct waiter *)rpc;
  if (event->event_case == MODELCACHE__V1__FETCH_EVENT__EVENT_TICKET) {
    if (event->ticket->complete) waiter->ready = now();
  } else if (event->event_case == MODELCACHE__V1__FETCH_EVENT__EVENT_PROGRESS) {
    waiter->waits |= event->progress->phase >= MODELCACHE__V1__PROGRESS__PHASE__WAITING;
  }
}

static void step(struct calls *calls) {
  calls_step(calls, 60000);
  if (calls->failed) die(calls->error);
}

/* Waiter 0 is the owner. */
static void run(struct calls *calls, struct waiter *waiters, size_t count) {
  calls->ended = 0;
  memset(waiters, 0, (count + 1) * sizeof(*waiters));
  rpc_start(calls, &waiters[0].rpc, 0);
  while (!waiters[0].waits) step(calls);
  for (size_t i = 1; i <= count; i++) rpc_start(calls, &waiters[i].rpc, i);
  for (size_t i = 1; i <= count; i++) {
    while (!waiters[i].waits && !waiters[i].ready) step(calls);
    if (waiters[i].ready) die("a waiter did not wait");
  }
  printf("{\"waiting\": %zu}\n", count);
  fflush(stdout);
  while (calls->ended < count + 1) step(calls);
  printf("{\"owner\": %.9f, \"waiters\": [", waiters[0].ready);
  for (size_t i = 1; i <= count; i++) printf("%s%.9f", i > 1 ? ", " : "", waiters[i].ready);
  printf("]}\n");
  fflush(stdout);
}

int main(int count, char **args) {
  size_t waiter_count = count == 4 ? strtoul(args[3], NULL, 10) : 0;
  if (waiter_count == 0) {
    fprintf(stderr, "usage: wakeup OWNER WAITERS COUNT\n");
    return 2;
  }
  struct waiter *waiters = calloc(waiter_count + 1, sizeof(*waiters));
  if (!waiters) die("no memory");
  struct calls calls;
  calls_open(&calls);
  calls.event = take_event;
  calls_connect(&calls, &args[1], 1, 1);
  calls_connect(&calls, &args[2], 1, waiter_count);
  char url[4096];
  while (fgets(url, sizeof(url), stdin)) {
    url[strcspn(url, "\n")] = 0;
    calls_ask_for(&calls, url, false);
    run(&calls, waiters, waiter_count);
  }
  calls_close(&calls);
  free(waiters);
  return 0;
}
