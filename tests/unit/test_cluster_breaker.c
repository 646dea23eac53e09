/* The circuit breaker by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backends/upstream/cluster/breaker.h"
#include "base/clock.h"

static void the_first_failure_takes_it_down(void **state) {
  (void)state;
  struct breaker breaker = {0};
  int64_t wait_ms;
  assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_UP);
  assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_UP);
  assert_false(breaker_succeeded(&breaker));
  assert_true(breaker_failed(&breaker, clock_ns(), 0, 0));
  assert_false(breaker_failed(&breaker, clock_ns(), 0, 0)); /* that is no news */
  assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_DOWN);
  assert_in_range(wait_ms, 1, 500);
}

static void failures_are_borne_if_they_do_not_follow_each_other(void **state) {
  (void)state;
  struct breaker breaker = {0};
  for (int i = 0; i < 10; i++) {
    assert_false(breaker_failed(&breaker, clock_ns(), 2, 0));
    assert_false(breaker_failed(&breaker, clock_ns(), 2, 0));
    assert_false(breaker_succeeded(&breaker));
  }
  int64_t began = clock_ns();
  for (int i = 0; i < 10; i++) assert_false(breaker_failed(&breaker, began, 2, 0)); /* calls that failed together */
  assert_false(breaker_failed(&breaker, clock_ns(), 2, 0));
  assert_true(breaker_failed(&breaker, clock_ns(), 2, 0));
}

/* Many readers that try again each for itself fail often within a short time. */
static void failures_within_a_short_time_are_borne(void **state) {
  (void)state;
  struct breaker breaker = {0};
  for (int i = 0; i < 100; i++) assert_false(breaker_failed(&breaker, clock_ns(), 2, 60000));
  breaker.since -= 60 * NS_PER_S; /* as if the first had been so long ago */
  assert_true(breaker_failed(&breaker, clock_ns(), 2, 60000));
  assert_true(breaker_succeeded(&breaker));
  assert_false(breaker_failed(&breaker, clock_ns(), 2, 60000));
}

/* As if so much time had passed. */
static void be_due(struct breaker *breaker) {
  breaker->retry_at = clock_ns();
}

static void one_call_at_a_time_tries_again(void **state) {
  (void)state;
  struct breaker breaker = {0};
  int64_t wait_ms;
  breaker_failed(&breaker, clock_ns(), 0, 0);
  be_due(&breaker);
  assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_PROBING);
  assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_DOWN);
  assert_int_equal(wait_ms, 0);
  breaker_undecided(&breaker);
  assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_PROBING);
  assert_true(breaker_succeeded(&breaker));
  assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_UP);
  breaker_undecided(&breaker); /* which is of no concern by now */
  assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_UP);
}

static void it_is_left_alone_for_longer_each_time_but_not_for_long(void **state) {
  (void)state;
  struct breaker breaker = {0};
  int64_t wait_ms, before = 0;
  for (int i = 0; i < 20; i++) {
    assert_true(breaker_failed(&breaker, clock_ns(), 0, 0) == (i == 0)); /* an outage is news once */
    assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_DOWN);
    assert_in_range(wait_ms, 100, 6500);
    if (i == 0) before = wait_ms;
    be_due(&breaker);
    assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_PROBING);
  }
  breaker_failed(&breaker, clock_ns(), 0, 0);
  breaker_admit(&breaker, &wait_ms);
  assert_true(wait_ms > before);
}

static void what_takes_long_to_fail_is_tried_less_often(void **state) {
  (void)state;
  struct breaker breaker = {0};
  int64_t wait_ms;
  breaker_failed(&breaker, clock_ns() - NS_PER_S, 0, 0);
  assert_int_equal(breaker_admit(&breaker, &wait_ms), BREAKER_DOWN);
  assert_in_range(wait_ms, 2500, 5500);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_first_failure_takes_it_down),
      cmocka_unit_test(failures_are_borne_if_they_do_not_follow_each_other),
      cmocka_unit_test(failures_within_a_short_time_are_borne),
      cmocka_unit_test(one_call_at_a_time_tries_again),
      cmocka_unit_test(it_is_left_alone_for_longer_each_time_but_not_for_long),
      cmocka_unit_test(what_takes_long_to_fail_is_tried_less_often),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
