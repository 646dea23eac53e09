/* How the fakes wait for what they count: a minute, then the test has failed. */
#ifndef FAKE_AWAIT_H
#define FAKE_AWAIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <time.h>

/* Wait until a counter, which changes under `lock` and with a signal of `changed`, is at least so much. */
static inline void await_counter(const unsigned *counter, unsigned least, pthread_mutex_t *lock,
                                 pthread_cond_t *changed) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 60;
  int error = 0;
  pthread_mutex_lock(lock);
  while (*counter < least && !error) error = pthread_cond_timedwait(changed, lock, &until);
  pthread_mutex_unlock(lock);
  assert_int_equal(error, 0);
}

#endif
