/* Values that calls and backends exchange: digests, cancelling, a call's end, log messages. Chunk tables are in
 * test_hash.c. */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"

/* ---- digests ---- */

static void digests_are_read_and_written(void **state) {
  (void)state;
  static const char lower[] = "00ff102030405060708090a0b0c0d0e0f0123456789abcdef0011223344556ab";
  static const char upper[] = "00FF102030405060708090A0B0C0D0E0F0123456789ABCDEF0011223344556AB";
  mc_digest a, b;
  char hex[MC_DIGEST_HEX_SIZE];
  assert_int_equal(mc_digest_parse(&a, lower, NULL), MC_OK);
  assert_int_equal(a.bytes[1], 0xff);
  assert_int_equal(a.bytes[31], 0xab);
  assert_ptr_equal(mc_digest_hex(hex, &a), hex);
  assert_string_equal(hex, lower);
  assert_int_equal(mc_digest_parse(&b, upper, NULL), MC_OK);
  assert_true(mc_digest_equal(&a, &b));
  for (size_t i = 0; i < sizeof(b.bytes); i++) {
    b.bytes[i] ^= 1;
    assert_false(mc_digest_equal(&a, &b));
    b.bytes[i] ^= 1;
  }
}

static void digests_that_are_none_are_refused(void **state) {
  (void)state;
  static const char *const bad[] = {
      NULL,
      "",
      "00",
      "00ff102030405060708090a0b0c0d0e0f0123456789abcdef0011223344556a",   /* 63 */
      "00ff102030405060708090a0b0c0d0e0f0123456789abcdef0011223344556abc", /* 65 */
      "00ff102030405060708090a0b0c0d0e0f0123456789abcdef0011223344556ag",
      "0xff102030405060708090a0b0c0d0e0f0123456789abcdef0011223344556ab",
      " 0ff102030405060708090a0b0c0d0e0f0123456789abcdef0011223344556ab",
      "-0ff102030405060708090a0b0c0d0e0f0123456789abcdef0011223344556ab",
  };
  mc_digest digest = {{7}};
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(mc_digest_parse(&digest, bad[i], &err), MC_INVALID_ARGUMENT);
    assert_true(err.status == MC_INVALID_ARGUMENT && err.message[0]);
    assert_int_equal(digest.bytes[0], 7); /* as it was */
  }
}

/* ---- cancelling ---- */

static bool is_readable(int fd) {
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  return poll(&poller, 1, 0) == 1;
}

static void cancelling_is_for_good(void **state) {
  (void)state;
  mc_cancel *cancel = NULL;
  assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
  assert_false(mc_cancel_triggered(cancel));
  assert_true(mc_cancel_fd(cancel) >= 0);
  assert_false(is_readable(mc_cancel_fd(cancel)));
  for (int i = 0; i < 3; i++) {
    mc_cancel_trigger(cancel);
    assert_true(mc_cancel_triggered(cancel));
    assert_true(is_readable(mc_cancel_fd(cancel)));
  }
  mc_cancel_free(cancel);
  mc_cancel_free(NULL);
  assert_false(mc_cancel_triggered(NULL));
  assert_int_equal(mc_cancel_fd(NULL), -1);
}

static void *trigger(void *arg) {
  mc_cancel_trigger(arg);
  return NULL;
}

static void any_thread_may_cancel(void **state) {
  (void)state;
  mc_cancel *cancel = NULL;
  pthread_t threads[4];
  assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, trigger, cancel), 0);
  struct pollfd poller = {.fd = mc_cancel_fd(cancel), .events = POLLIN};
  assert_int_equal(poll(&poller, 1, 20000), 1);
  assert_true(mc_cancel_triggered(cancel)); /* before it can be polled */
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  mc_cancel_free(cancel);
}

static void a_call_ends(void **state) {
  (void)state;
  mc_cancel *cancel = NULL;
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
  assert_int_equal(mc_call_check(&(mc_call){INT64_MAX, NULL}, &err), MC_OK);
  assert_int_equal(mc_call_check(&(mc_call){deadline_in_ms(60000), cancel}, &err), MC_OK);
  assert_int_equal(err.status, MC_OK);
  assert_int_equal(mc_call_check(&(mc_call){clock_ns(), cancel}, &err), MC_DEADLINE_EXCEEDED);
  assert_int_equal(err.status, MC_DEADLINE_EXCEEDED);
  assert_int_equal(mc_call_check(&(mc_call){0, NULL}, NULL), MC_DEADLINE_EXCEEDED);
  mc_cancel_trigger(cancel);
  assert_int_equal(mc_call_check(&(mc_call){INT64_MAX, cancel}, &err), MC_CANCELLED);
  assert_int_equal(mc_call_check(&(mc_call){0, cancel}, &err), MC_CANCELLED); /* the caller's own will goes first */
  assert_int_equal(err.status, MC_CANCELLED);
  mc_cancel_free(cancel);
}

/* ---- log messages ---- */

struct logged {
  unsigned count;
  mc_log_level level;
  char origin[16], message[2048];
};

static void keep(void *user, mc_log_level level, const char *origin, const char *message) {
  struct logged *logged = user;
  logged->count++;
  logged->level = level;
  strncpy(logged->origin, origin, sizeof(logged->origin) - 1);
  strncpy(logged->message, message, sizeof(logged->message) - 1);
}

static void only_what_is_wanted_is_logged(void **state) {
  (void)state;
  static const mc_log_level levels[] = {MC_LOG_ERROR, MC_LOG_WARN, MC_LOG_INFO, MC_LOG_DEBUG};
  for (size_t i = 0; i < 4; i++) {
    struct logged logged = {0};
    mc_logger logger = {keep, &logged, levels[i]};
    log_error(&logger, "a", "x");
    log_warn(&logger, "b", "x");
    log_info(&logger, "c", "x");
    log_debug(&logger, "d", "x");
    assert_int_equal(logged.count, i + 1);
    assert_int_equal(logged.level, levels[i]);
    assert_int_equal(logged.origin[0], 'a' + (char)i);
  }
  mc_logger silent = {NULL, NULL, MC_LOG_DEBUG};
  log_error(&silent, "a", "x");
  log_error(NULL, "a", "x");
}

static void log_messages_are_one_clean_line(void **state) {
  (void)state;
  struct logged logged = {0};
  mc_logger logger = {keep, &logged, MC_LOG_DEBUG};
  char text[3000];
  log_info(&logger, "a", "%d\n%s", 1, "\x1b[0m");
  assert_string_equal(logged.message, "1??[0m");
  memset(text, 'a', sizeof(text));
  text[sizeof(text) - 1] = 0;
  log_info(&logger, "a", "%s", text);
  assert_int_equal(strlen(logged.message), 1023);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(digests_are_read_and_written),
      cmocka_unit_test(digests_that_are_none_are_refused),
      cmocka_unit_test(cancelling_is_for_good),
      cmocka_unit_test(any_thread_may_cancel),
      cmocka_unit_test(a_call_ends),
      cmocka_unit_test(only_what_is_wanted_is_logged),
      cmocka_unit_test(log_messages_are_one_clean_line),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
