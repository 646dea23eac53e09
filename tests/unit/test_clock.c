/* Deadlines, and waiting until one. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

static void clocks_go_on(void **state) {
  (void)state;
  int64_t a = clock_ns(), b = clock_ns();
  assert_true(a > 0 && b >= a);
  int64_t wall = clock_wall_ms();
  int64_t seconds = (int64_t)time(NULL);
  assert_in_range(wall, (seconds - 5) * 1000, (seconds + 5) * 1000);
}

static void deadlines_have_edges(void **state) {
  (void)state;
  assert_true(deadline_in_ms(0) == INT64_MAX);
  assert_true(deadline_in_ms(-1) == INT64_MAX);
  assert_true(deadline_in_ms(INT64_MIN) == INT64_MAX);
  assert_true(deadline_in_ms(INT64_MAX) == INT64_MAX);
  assert_true(deadline_in_ms(INT64_MAX / NS_PER_MS) == INT64_MAX);
  int64_t before = clock_ns(), deadline = deadline_in_ms(1000), after = clock_ns();
  assert_true(deadline >= before + NS_PER_S && deadline <= after + NS_PER_S);
  assert_true(deadline_earlier(1, 2) == 1 && deadline_earlier(2, 1) == 1);
  assert_true(deadline_earlier(INT64_MAX, 5) == 5 && deadline_earlier(INT64_MAX, INT64_MAX) == INT64_MAX);
}

static void what_is_left_is_rounded_up(void **state) {
  (void)state;
  assert_int_equal(deadline_poll_ms(INT64_MAX), -1);
  assert_int_equal(deadline_poll_ms(0), 0);
  assert_int_equal(deadline_poll_ms(-5), 0);
  assert_int_equal(deadline_poll_ms(INT64_MIN), 0);
  assert_int_equal(deadline_poll_ms(clock_ns()), 0);
  assert_int_equal(deadline_poll_ms(INT64_MAX - 1), INT_MAX);
  assert_in_range(deadline_poll_ms(clock_ns() + NS_PER_S), 1, 1000);
  /* While anything is left it is not 0: who polls for 0 spins. */
  for (int i = 0; i < 1000; i++) {
    int64_t deadline = clock_ns() + NS_PER_MS;
    int left = deadline_poll_ms(deadline);
    assert_true(left == 1 || (left == 0 && clock_ns() >= deadline));
  }
}

static void a_wait_ends_at_its_deadline(void **state) {
  (void)state;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t cond;
  assert_int_equal(cond_init(&cond), 0);
  pthread_mutex_lock(&mutex);
  assert_false(cond_wait_until(&cond, &mutex, clock_ns() - NS_PER_S));
  assert_false(cond_wait_until(&cond, &mutex, 0));
  int64_t deadline = deadline_in_ms(20);
  while (cond_wait_until(&cond, &mutex, deadline)) continue; /* it may wake for nothing */
  assert_true(clock_ns() >= deadline);
  pthread_mutex_unlock(&mutex);
  pthread_cond_destroy(&cond);
}

struct meeting {
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  bool said;
};

static void *say(void *arg) {
  struct meeting *meeting = arg;
  pthread_mutex_lock(&meeting->mutex);
  meeting->said = true;
  pthread_cond_signal(&meeting->cond);
  pthread_mutex_unlock(&meeting->mutex);
  return NULL;
}

static void a_wait_ends_with_the_news(void **state) {
  (void)state;
  const int64_t deadlines[] = {INT64_MAX, deadline_in_ms(60000)};
  for (int i = 0; i < 2; i++) {
    struct meeting meeting = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;
    assert_int_equal(cond_init(&meeting.cond), 0);
    pthread_mutex_lock(&meeting.mutex);
    assert_int_equal(pthread_create(&thread, NULL, say, &meeting), 0);
    while (!meeting.said) assert_true(cond_wait_until(&meeting.cond, &meeting.mutex, deadlines[i]));
    pthread_mutex_unlock(&meeting.mutex);
    pthread_join(thread, NULL);
    pthread_cond_destroy(&meeting.cond);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(clocks_go_on),
      cmocka_unit_test(deadlines_have_edges),
      cmocka_unit_test(what_is_left_is_rounded_up),
      cmocka_unit_test(a_wait_ends_at_its_deadline),
      cmocka_unit_test(a_wait_ends_with_the_news),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
