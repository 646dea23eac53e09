/* The guard of calls that depend on their clients alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <semaphore.h>
#include <time.h>

#include "../../server/control.h"

static sem_t ended;
static struct guarded *last;

static void end(struct guarded *guarded) {
  last = guarded;
  sem_post(&ended);
}

static bool one_ends(int64_t ms) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  int64_t at = until.tv_sec * 1000 + until.tv_nsec / 1000000 + ms;
  until = (struct timespec){at / 1000, at % 1000 * 1000000};
  return sem_timedwait(&ended, &until) == 0;
}

static void who_takes_too_long_is_ended_once(void **state) {
  (void)state;
  struct guarded quick = {0}, slow = {0}, patient = {0};
  struct guard *guard = guard_new(end);
  assert_non_null(guard);
  guard_enter(guard, &patient, 600000, false);
  guard_enter(guard, &slow, 20, false);
  guard_enter(guard, &quick, 600000, true);
  guard_leave(guard, &quick);
  assert_true(one_ends(20000));
  assert_ptr_equal(last, &slow);
  assert_false(one_ends(50));
  guard_leave(guard, &slow);
  guard_enter(guard, &slow, 20, true); /* it can be used again */
  assert_true(one_ends(20000));
  assert_ptr_equal(last, &slow);
  guard_leave(guard, &patient);
  guard_leave(guard, &patient); /* not in it: fine */
  guard_free(guard);
}

static void who_takes_too_much_is_ended(void **state) {
  (void)state;
  const size_t size = (size_t)256 << 20;
  struct guarded counted = {0}, uncounted = {0};
  struct guard *guard = guard_new(end);
  assert_non_null(guard);
  guard_enter(guard, &uncounted, 600000, false);
  guard_enter(guard, &counted, 600000, true);
  assert_false(one_ends(50)); /* it has looked, and nothing has grown */
  char *memory = malloc(size);
  assert_non_null(memory);
  memset(memory, 1, size);
  assert_true(one_ends(20000));
  assert_ptr_equal(last, &counted);
  struct guarded later = {0};
  guard_enter(guard, &later, 600000, true); /* what was taken before is not its doing */
  assert_false(one_ends(100));
  guard_leave(guard, &later);
  guard_leave(guard, &uncounted);
  free(memory);
  guard_free(guard);
  guard_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(who_takes_too_long_is_ended_once),
      cmocka_unit_test(who_takes_too_much_is_ended),
  };
  sem_init(&ended, 0, 0);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
