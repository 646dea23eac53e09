/* A circuit breaker: remembers for a short while that something can't be reached, so that not every call pays for
 * finding that out again, and lets one call at a time see whether it can be by now.
 *
 *   up        calls go there; failures are counted, and too many of them for too long take it down
 *   down      calls fail at once until retry_at
 *   probing   one call tries, the others fail at once; then it is up, or down again for longer
 *
 * It has no lock: its owner's is held around each of these. */
#ifndef CLUSTER_BREAKER_H
#define CLUSTER_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum breaker_state { BREAKER_UP, BREAKER_DOWN, BREAKER_PROBING };

struct breaker {
  enum breaker_state state;
  unsigned failures;  /* one after the other */
  int64_t since;      /* when the first of them began */
  int64_t counted_at; /* when the last of them was counted */
  int64_t down_ms;    /* how long it is left alone after the next failure */
  int64_t retry_at;
};

/* All zero is up as well. */
void breaker_init(struct breaker *breaker);
/* UP: go on, and say how it went. PROBING: the same, and nobody else is let in before. DOWN: don't; *wait_ms is how
 * long it will stay so, 0 while another call is probing. */
enum breaker_state breaker_admit(struct breaker *breaker, int64_t *wait_ms);
/* It was reached. true: that is news. */
bool breaker_succeeded(struct breaker *breaker);
/* It could not be reached by a call that began at `began`. Borne are `most` failures before this one, of several calls
 * that fail together one counting, and any number of them within the first `most_ms`. The longer the call took, the
 * longer nobody tries again, so that even a host that swallows every packet costs only a share of the time. true: it
 * was up until now. */
bool breaker_failed(struct breaker *breaker, int64_t began, unsigned most, int64_t most_ms);
/* A probe that found nothing out, as its caller had no more time: the next call may try. */
void breaker_undecided(struct breaker *breaker);

#endif
