#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "base/hash.h"
#include "engine/sketch.h"

static mc_digest digest_of(unsigned number) {
  struct sha256 *sha = sha256_new();
  mc_digest digest;
  assert_non_null(sha);
  sha256_update(sha, &number, sizeof(number));
  sha256_final(sha, &digest);
  sha256_free(sha);
  return digest;
}

static void gets_are_counted_up_to_a_limit(void **state) {
  (void)state;
  struct sketch *sketch = sketch_new();
  mc_digest one = digest_of(1), two = digest_of(2);
  for (unsigned i = 0; i < 40; i++) {
    assert_int_equal(sketch_count(sketch, &one), i < 15 ? i : 15);
    sketch_add(sketch, &one);
  }
  assert_int_equal(sketch_count(sketch, &two), 0);
  sketch_free(sketch);
}

static void neighbours_do_not_touch_each_other(void **state) {
  (void)state;
  struct sketch *sketch = sketch_new();
  mc_digest even = {{0, 2, 0, 4, 0, 6, 0, 8}}, odd = {{0, 3, 0, 5, 0, 7, 0, 9}}; /* the halves of the same bytes */
  for (int i = 0; i < 20; i++) sketch_add(sketch, &even);
  for (int i = 0; i < 3; i++) sketch_add(sketch, &odd);
  assert_int_equal(sketch_count(sketch, &even), 15);
  assert_int_equal(sketch_count(sketch, &odd), 3);
  sketch_age(sketch);
  assert_int_equal(sketch_count(sketch, &even), 7);
  assert_int_equal(sketch_count(sketch, &odd), 1);
  sketch_free(sketch);
}

static void many_others_change_little(void **state) {
  (void)state;
  struct sketch *sketch = sketch_new();
  mc_digest hot = digest_of(0);
  for (int i = 0; i < 10; i++) sketch_add(sketch, &hot);
  unsigned wrong = 0;
  for (unsigned i = 1; i <= 20000; i++) {
    mc_digest other = digest_of(i);
    sketch_add(sketch, &other);
    wrong += sketch_count(sketch, &other) != 1;
  }
  assert_true(sketch_count(sketch, &hot) >= 10); /* never too low */
  assert_true(wrong < 20000 / 20);
  sketch_free(sketch);
}

static void what_was_got_long_ago_is_forgotten(void **state) {
  (void)state;
  struct sketch *sketch = sketch_new();
  mc_digest old = digest_of(1), now = digest_of(2);
  for (int i = 0; i < 15; i++) sketch_add(sketch, &old);
  for (int i = 0; i < 4; i++) sketch_age(sketch);
  assert_int_equal(sketch_count(sketch, &old), 0);
  for (int i = 0; i < 15; i++) sketch_add(sketch, &old);
  for (int i = 0; i < 3000000; i++) sketch_add(sketch, &now); /* by gets of others alone */
  assert_int_equal(sketch_count(sketch, &old), 0);
  sketch_free(sketch);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gets_are_counted_up_to_a_limit),
      cmocka_unit_test(neighbours_do_not_touch_each_other),
      cmocka_unit_test(many_others_change_little),
      cmocka_unit_test(what_was_got_long_ago_is_forgotten),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
