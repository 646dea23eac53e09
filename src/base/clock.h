/* Time: monotonic nanoseconds for deadlines, wall-clock milliseconds for what is written down. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <modelcache/types.h>

#define NS_PER_MS 1000000LL
#define NS_PER_S  1000000000LL

int64_t clock_ns(void);      /* CLOCK_MONOTONIC */
int64_t clock_wall_ms(void); /* since 1970, UTC */
/* The deadline `timeout_ms` from now; INT64_MAX for 0 (none) and on overflow. */
int64_t deadline_in_ms(int64_t timeout_ms);
/* Milliseconds left, rounded up, for poll(): 0 when it has passed, -1 for INT64_MAX, at most INT_MAX. */
int deadline_poll_ms(int64_t deadline);
int64_t deadline_earlier(int64_t a, int64_t b);

/* A condition variable on CLOCK_MONOTONIC, and a wait until a deadline: false when the deadline passed. */
int cond_init(pthread_cond_t *cond);
bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline);

#endif
