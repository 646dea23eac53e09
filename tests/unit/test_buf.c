/* Buffers that grow up to a maximum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static void appends_are_followed_by_a_zero(void **state) {
  (void)state;
  struct buf buf;
  buf_init(&buf, 100);
  assert_null(buf.data);
  assert_true(buf_append_str(&buf, "one"));
  assert_true(buf_append(&buf, " two!", 4));
  assert_string_equal(buf.data, "one two");
  assert_true(buf_printf(&buf, " %s %d", "three", 4));
  assert_string_equal(buf.data, "one two three 4");
  assert_int_equal(buf.size, strlen(buf.data));
  assert_true(buf_append(&buf, NULL, 0));
  buf_free(&buf);
  assert_null(buf.data);
  assert_int_equal(buf.max, 100);
}

static void nothing_passes_the_maximum(void **state) {
  (void)state;
  struct buf buf;
  char text[64];
  memset(text, 'x', sizeof(text));
  buf_init(&buf, 100);
  assert_true(buf_append(&buf, text, 64));
  assert_true(buf_append(&buf, text, 36));
  assert_int_equal(buf.size, 100);
  assert_true(buf.capacity <= 101);
  assert_false(buf_append(&buf, text, 1));
  assert_true(buf.failed);
  assert_int_equal(buf.size, 100);
  assert_false(buf_append(&buf, text, 0)); /* a failure stays, so that one look at the end is enough */
  assert_false(buf_printf(&buf, "x"));
  assert_null(buf_room(&buf, 0));
  assert_null(buf_take(&buf));
  buf_clear(&buf);
  assert_false(buf.failed);
  assert_int_equal(buf.size, 0);
  assert_string_equal(buf.data, "");
  assert_false(buf_printf(&buf, "%101s", ""));
  buf_free(&buf);
}

static void sizes_near_the_end_of_numbers_fail(void **state) {
  (void)state;
  struct buf buf;
  buf_init(&buf, SIZE_MAX);
  assert_true(buf_append_str(&buf, "x"));
  assert_null(buf_room(&buf, SIZE_MAX));
  assert_true(buf.failed);
  buf_clear(&buf);
  assert_true(buf_append_str(&buf, "x"));
  assert_null(buf_room(&buf, SIZE_MAX - 1));
  buf_free(&buf);
}

static void room_becomes_content_when_it_was_filled(void **state) {
  (void)state;
  struct buf buf;
  buf_init(&buf, 1000);
  char *room = buf_room(&buf, 500);
  assert_non_null(room);
  memcpy(room, "abc", 3);
  assert_int_equal(buf.size, 0);
  buf_added(&buf, 3);
  assert_string_equal(buf.data, "abc");
  buf_free(&buf);
}

static void consuming_keeps_the_rest(void **state) {
  (void)state;
  struct buf buf;
  buf_init(&buf, 1000);
  buf_consume(&buf, 0);
  buf_consume(&buf, 7);
  buf_append_str(&buf, "abcdef");
  buf_consume(&buf, 2);
  assert_string_equal(buf.data, "cdef");
  buf_consume(&buf, 5);
  assert_int_equal(buf.size, 0);
  assert_string_equal(buf.data, "");
  buf_free(&buf);
}

static void taking_leaves_it_empty_and_usable(void **state) {
  (void)state;
  struct buf buf;
  buf_init(&buf, 1000);
  char *empty = buf_take(&buf);
  assert_string_equal(empty, "");
  free(empty);
  buf_append_str(&buf, "abc");
  char *text = buf_take(&buf);
  assert_string_equal(text, "abc");
  free(text);
  assert_null(buf.data);
  assert_true(buf_append_str(&buf, "again"));
  assert_string_equal(buf.data, "again");
  buf_free(&buf);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(appends_are_followed_by_a_zero),     cmocka_unit_test(nothing_passes_the_maximum),
      cmocka_unit_test(sizes_near_the_end_of_numbers_fail), cmocka_unit_test(room_becomes_content_when_it_was_filled),
      cmocka_unit_test(consuming_keeps_the_rest),           cmocka_unit_test(taking_leaves_it_empty_and_usable),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
