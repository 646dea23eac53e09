/* Statuses and errors: names, what may be tried again, messages that are cut and cleaned, errno. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <modelcache/error.h>

static void every_status_has_a_name_of_its_own(void **state) {
  (void)state;
  for (int i = 0; i < MC_STATUS_COUNT; i++) {
    const char *name = mc_status_name((mc_status)i);
    assert_true(*name && strspn(name, "abcdefghijklmnopqrstuvwxyz_") == strlen(name));
    assert_string_not_equal(name, "unknown");
    for (int j = 0; j < i; j++) assert_string_not_equal(name, mc_status_name((mc_status)j));
  }
  assert_string_equal(mc_status_name(MC_OK), "ok");
  assert_string_equal(mc_status_name(MC_NOT_FOUND), "not_found");
  assert_string_equal(mc_status_name(MC_BUSY), "busy");
  static const int others[] = {-1, MC_STATUS_COUNT, 1000, -1000};
  for (size_t i = 0; i < 4; i++) {
    assert_string_equal(mc_status_name((mc_status)others[i]), "unknown");
    assert_false(mc_status_is_retryable((mc_status)others[i]));
  }
}

static void some_may_be_tried_again(void **state) {
  (void)state;
  for (int i = 0; i < MC_STATUS_COUNT; i++) {
    bool again = i == MC_UNAVAILABLE || i == MC_DEADLINE_EXCEEDED || i == MC_RESOURCE_EXHAUSTED || i == MC_CHANGED ||
                 i == MC_BUSY;
    assert_int_equal(mc_status_is_retryable((mc_status)i), again);
  }
}

static void an_error_may_be_left_out(void **state) {
  (void)state;
  assert_int_equal(mc_error_set(NULL, MC_IO, "x", "%s", "y"), MC_IO);
  assert_int_equal(mc_error_errno(NULL, ENOSPC, "x", "%s", "y"), MC_NO_SPACE);
}

static void an_error_says_what_where_and_why(void **state) {
  (void)state;
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(mc_error_set(&err, MC_CORRUPT, "here", "%d of %s", 3, "them"), MC_CORRUPT);
  assert_int_equal(err.status, MC_CORRUPT);
  assert_string_equal(err.origin, "here");
  assert_string_equal(err.message, "3 of them");
  assert_int_equal(mc_error_errno(&err, EACCES, "there", "can't open %s", "/x"), MC_PERMISSION_DENIED);
  assert_string_equal(err.origin, "there");
  assert_string_equal(err.message, "can't open /x: Permission denied");
}

static void messages_are_cut_and_clean(void **state) {
  (void)state;
  char text[1000];
  mc_error err = MC_ERROR_INIT;
  memset(text, 'a', sizeof(text));
  text[sizeof(text) - 1] = 0;
  mc_error_set(&err, MC_IO, text, "%s", text);
  assert_int_equal(strlen(err.message), MC_ERROR_MESSAGE_SIZE - 1);
  assert_int_equal(strlen(err.origin), MC_ERROR_ORIGIN_SIZE - 1);
  mc_error_errno(&err, ENOSPC, "x", "%s", text);
  assert_int_equal(strlen(err.message), MC_ERROR_MESSAGE_SIZE - 1);
  text[MC_ERROR_MESSAGE_SIZE - 10] = 0; /* the reason has room in part */
  mc_error_errno(&err, ENOSPC, "x", "%s", text);
  assert_int_equal(strlen(err.message), MC_ERROR_MESSAGE_SIZE - 1);
  assert_memory_equal(err.message + MC_ERROR_MESSAGE_SIZE - 10, ": No spac", 9);
  memcpy(text + MC_ERROR_MESSAGE_SIZE - 2, "\xc3\xa9", 3);
  memset(text, 'a', MC_ERROR_MESSAGE_SIZE - 2);
  mc_error_set(&err, MC_IO, "x", "%s", text); /* a character that is cut in two */
  assert_int_equal(err.message[MC_ERROR_MESSAGE_SIZE - 2], '?');
  mc_error_set(&err, MC_IO, "x", "%s", "one\r\ntwo\x1b[31m\xff \xc3\xa9");
  assert_string_equal(err.message, "one??two?[31m? \xc3\xa9");
  mc_error_set(&err, MC_IO, "x", "%s", "");
  assert_string_equal(err.message, "");
}

static void every_errno_has_a_status(void **state) {
  (void)state;
  static const struct {
    int errnum;
    mc_status status;
  } cases[] = {
      {ENOSPC, MC_NO_SPACE},
      {EDQUOT, MC_NO_SPACE},
      {EACCES, MC_PERMISSION_DENIED},
      {EPERM, MC_PERMISSION_DENIED},
      {EROFS, MC_PERMISSION_DENIED},
      {ENOENT, MC_NOT_FOUND},
      {ENOTDIR, MC_NOT_FOUND},
      {EMFILE, MC_RESOURCE_EXHAUSTED},
      {ENFILE, MC_RESOURCE_EXHAUSTED},
      {ENOBUFS, MC_RESOURCE_EXHAUSTED},
      {ENOMEM, MC_NO_MEMORY},
      {ECONNREFUSED, MC_UNAVAILABLE},
      {ECONNRESET, MC_UNAVAILABLE},
      {EPIPE, MC_UNAVAILABLE},
      {EHOSTUNREACH, MC_UNAVAILABLE},
      {ENETUNREACH, MC_UNAVAILABLE},
      {ETIMEDOUT, MC_UNAVAILABLE},
      {EBUSY, MC_BUSY},
      {EADDRINUSE, MC_BUSY},
      {EIO, MC_IO},
      {EINVAL, MC_IO},
      {0, MC_IO},
      {-1, MC_IO},
      {99999, MC_IO},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(mc_error_errno(&err, cases[i].errnum, "x", "y"), cases[i].status);
    assert_int_equal(err.status, cases[i].status);
    assert_true(strncmp(err.message, "y: ", 3) == 0 && err.message[3]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_status_has_a_name_of_its_own), cmocka_unit_test(some_may_be_tried_again),
      cmocka_unit_test(an_error_may_be_left_out),           cmocka_unit_test(an_error_says_what_where_and_why),
      cmocka_unit_test(messages_are_cut_and_clean),         cmocka_unit_test(every_errno_has_a_status),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
