#include "base/clock.h"

#include <limits.h>
#include <time.h>

int64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t clock_wall_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / NS_PER_MS;
}

int64_t deadline_in_ms(int64_t timeout_ms) {
  int64_t ns, deadline;
  if (timeout_ms <= 0 || __builtin_mul_overflow(timeout_ms, NS_PER_MS, &ns)) return INT64_MAX;
  return __builtin_add_overflow(clock_ns(), ns, &deadline) ? INT64_MAX : deadline;
}

int deadline_poll_ms(int64_t deadline) {
  if (deadline == INT64_MAX) return -1;
  int64_t now = clock_ns();
  if (deadline <= now) return 0;
  int64_t left = (deadline - now - 1) / NS_PER_MS + 1;
  return left > INT_MAX ? INT_MAX : (int)left;
}

int64_t deadline_earlier(int64_t a, int64_t b) {
  return a < b ? a : b;
}

int cond_init(pthread_cond_t *cond) {
  pthread_condattr_t attributes;
  int error = pthread_condattr_init(&attributes);
  if (error) return error;
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  error = pthread_cond_init(cond, &attributes);
  pthread_condattr_destroy(&attributes);
  return error;
}

bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline) {
  if (deadline == INT64_MAX) return pthread_cond_wait(cond, mutex) == 0;
  struct timespec until = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
  return pthread_cond_timedwait(cond, mutex, &until) == 0;
}
