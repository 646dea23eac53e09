/* Heads of HTTP responses, what they stand for, and how long to wait after them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backends/upstream/http/internal.h"
#include "base/clock.h"

#define EMPTY_SHA256 "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

static struct http_head read_head(const char *const lines[]) {
  struct http_head head;
  http_head_init(&head);
  for (size_t i = 0; lines[i]; i++) http_head_line(&head, NULL, lines[i], strlen(lines[i]));
  return head;
}

#define HEAD(...) read_head((const char *const[]){__VA_ARGS__, NULL})

static void nothing_is_known_of_an_empty_head(void **state) {
  (void)state;
  struct http_head head = HEAD("\r\n", "no colon", ":", ": value", "X-Other: 5");
  assert_int_equal(head.length, MC_SIZE_UNKNOWN);
  assert_int_equal(head.total, MC_SIZE_UNKNOWN);
  assert_int_equal(head.retry_after_ms, -1);
  assert_false(head.has_range || head.has_digest || head.chunked || head.takes_ranges);
  assert_string_equal(head.etag, "");
}

static void the_usual_fields(void **state) {
  (void)state;
  struct http_head head =
      HEAD("content-LENGTH:  20 \r\n", "ETag: \"abc\"\r\n", "Last-Modified: Thu, 01 Jan 1970 00:01:40 GMT\r\n",
           "Accept-Ranges: bytes\r\n", "Content-Range: bytes 0-19/200\r\n");
  assert_int_equal(head.length, 20);
  assert_string_equal(head.etag, "\"abc\"");
  assert_int_equal(head.last_modified, 100);
  assert_true(head.takes_ranges && head.has_range);
  assert_int_equal(head.first, 0);
  assert_int_equal(head.last, 19);
  assert_int_equal(head.total, 200);
  assert_false(HEAD("Accept-Ranges: none").takes_ranges);
}

static void lengths_that_are_none(void **state) {
  (void)state;
  static const char *const values[] = {"", "-1", "1x", "1, 1", "0x10", "18446744073709551616", "99999999999999999999"};
  for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
    char line[64];
    snprintf(line, sizeof(line), "Content-Length: %s\r\n", values[i]);
    assert_int_equal(HEAD(line).length, MC_SIZE_UNKNOWN);
  }
}

static void chunks_overrule_a_length(void **state) {
  (void)state;
  assert_int_equal(HEAD("Content-Length: 5", "Transfer-Encoding: chunked").length, MC_SIZE_UNKNOWN);
  assert_int_equal(HEAD("Transfer-Encoding: gzip, Chunked", "Content-Length: 5").length, MC_SIZE_UNKNOWN);
  assert_int_equal(HEAD("Content-Length: 5", "Transfer-Encoding: identity").length, 5);
}

static void ranges(void **state) {
  (void)state;
  struct http_head head = HEAD("Content-Range: bytes 5-9/*");
  assert_true(head.has_range);
  assert_int_equal(head.total, MC_SIZE_UNKNOWN);
  head = HEAD("Content-Range: bytes */200"); /* of a 416 */
  assert_false(head.has_range);
  assert_int_equal(head.total, 200);
  static const char *const bad[] = {
      "bytes 9-5/10",  "bytes 0-10/10", "bytes 0-9",         "bytes 0-9/",
      "bytes 0-9/10x", "items 0-9/10",  "bytes 0-9/-1",      "bytes -9/10",
      "bytes",         "bytes */",      "bytes 0-9/10, 1-2", "bytes 18446744073709551615-18446744073709551615/*",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    char line[128];
    snprintf(line, sizeof(line), "Content-Range: %s", bad[i]);
    head = HEAD(line);
    assert_false(head.has_range);
    assert_int_equal(head.total, MC_SIZE_UNKNOWN);
  }
}

static void etags_are_kept_as_they_are_or_not_at_all(void **state) {
  (void)state;
  char line[400] = "ETag: ";
  assert_string_equal(HEAD("ETag: W/\"a b\"").etag, "W/\"a b\"");
  assert_string_equal(HEAD("ETag: unquoted").etag, "unquoted");
  assert_string_equal(HEAD("ETag: \"a\x01\"").etag, "");
  memset(line + 6, 'x', 255);
  assert_int_equal(strlen(HEAD(line).etag), 255);
  memset(line + 6, 'x', 256);
  assert_string_equal(HEAD(line).etag, "");
}

static void lines_that_are_too_long_or_have_zeros_are_not_read(void **state) {
  (void)state;
  struct http_head head;
  char line[5000];
  http_head_init(&head);
  memset(line, ' ', sizeof(line));
  memcpy(line, "Content-Length: 5", 17);
  line[sizeof(line) - 1] = '5';
  http_head_line(&head, NULL, line, sizeof(line));
  assert_int_equal(head.length, MC_SIZE_UNKNOWN);
  http_head_line(&head, NULL, "Content-Length: 5\0", 18);
  assert_int_equal(head.length, MC_SIZE_UNKNOWN);
  http_head_line(&head, NULL, "Content-Length: 5\r\n", 17); /* not the zero behind it, nor what follows */
  assert_int_equal(head.length, 5);
}

static void waits_in_seconds_and_until_dates(void **state) {
  (void)state;
  char line[100] = "Retry-After: ";
  assert_int_equal(HEAD("Retry-After: 0").retry_after_ms, 0);
  assert_int_equal(HEAD("Retry-After: 120").retry_after_ms, 120000);
  assert_int_equal(HEAD("Retry-After: 99999999999").retry_after_ms, 86400000);
  assert_int_equal(HEAD("Retry-After: -5").retry_after_ms, -1);
  assert_int_equal(HEAD("Retry-After: soon").retry_after_ms, -1);
  assert_int_equal(HEAD("Retry-After: Thu, 01 Jan 1970 00:00:10 GMT").retry_after_ms, 0);
  time_t then = (time_t)(clock_wall_ms() / 1000) + 30;
  struct tm parts;
  gmtime_r(&then, &parts);
  strftime(line + 13, sizeof(line) - 13, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  assert_in_range(HEAD(line).retry_after_ms, 25000, 30000);
}

static void digests(void **state) {
  (void)state;
  static const char *const good[] = {
      "x-amz-checksum-sha256: " EMPTY_SHA256,
      "Repr-Digest: sha-256=:" EMPTY_SHA256 ":",
      "Repr-Digest: sha-512=:AAAA:, sha-256=:" EMPTY_SHA256 ":",
      "Digest: SHA-512=AAAA,SHA-256=" EMPTY_SHA256,
  };
  static const char *const bad[] = {
      "x-amz-checksum-sha256: " EMPTY_SHA256 "-3", /* of the digests of three parts */
      "x-amz-checksum-sha256: AAAA",
      "Repr-Digest: sha-512=:" EMPTY_SHA256 ":",
      "Repr-Digest: sha-256=:" EMPTY_SHA256,
      "Digest: sha-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF==",
      "Digest: sha-256=47DEQpj8HBSa*/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
      "Content-Digest: sha-256=:" EMPTY_SHA256 ":", /* of this message's body, perhaps a part */
  };
  char hex[MC_DIGEST_HEX_SIZE];
  for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
    struct http_head head = HEAD(good[i]);
    assert_true(head.has_digest);
    mc_digest_hex(hex, &head.digest);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  }
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) assert_false(HEAD(bad[i]).has_digest);
}

static void every_status_stands_for_something(void **state) {
  (void)state;
  static const struct {
    long http;
    mc_status status;
  } cases[] = {
      {200, MC_OK},
      {206, MC_OK},
      {201, MC_PROTOCOL},
      {204, MC_PROTOCOL},
      {300, MC_PROTOCOL},
      {304, MC_PROTOCOL},
      {400, MC_PROTOCOL},
      {401, MC_PERMISSION_DENIED},
      {403, MC_PERMISSION_DENIED},
      {407, MC_PERMISSION_DENIED},
      {404, MC_NOT_FOUND},
      {410, MC_NOT_FOUND},
      {408, MC_UNAVAILABLE},
      {429, MC_UNAVAILABLE},
      {412, MC_CHANGED},
      {416, MC_CHANGED},
      {500, MC_UNAVAILABLE},
      {501, MC_PROTOCOL},
      {503, MC_UNAVAILABLE},
      {505, MC_PROTOCOL},
      {599, MC_UNAVAILABLE},
      {0, MC_PROTOCOL},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct http_head head;
    mc_error err = MC_ERROR_INIT;
    http_head_init(&head);
    head.status = cases[i].http;
    assert_int_equal(http_status(&head, "https://host/model?X-Signature=secret", &err), cases[i].status);
    assert_int_equal(err.status, cases[i].status);
    assert_null(strstr(err.message, "secret"));
    if (cases[i].status) assert_non_null(strstr(err.message, "https://host/model"));
  }
}

static void waits_double_up_to_a_limit(void **state) {
  (void)state;
  for (uint32_t failures = 1; failures < 100; failures++) {
    int64_t base = failures < 8 ? (int64_t)100 << (failures - 1) : 10000;
    for (int i = 0; i < 20; i++) assert_in_range(http_backoff_ms(failures, -1), base / 2, base + base / 2);
  }
}

static void what_was_asked_for_is_waited_for(void **state) {
  (void)state;
  for (int i = 0; i < 100; i++) {
    assert_in_range(http_backoff_ms(1, 20000), 20000, 25000);
    assert_in_range(http_backoff_ms(1, 0), 50, 150);
    assert_true(http_backoff_ms(20, 10) >= 5000); /* a short one shortens nothing */
  }
}

static void a_limit_that_is_reached_says_when_to_come_back(void **state) {
  (void)state;
  assert_int_equal(HEAD("RateLimit: \"resolvers\";r=0;t=172").retry_after_ms, 172000);
  assert_int_equal(HEAD("RateLimit: \"resolvers\";r=0;t=172", "Retry-After: 2").retry_after_ms, 2000);
  assert_int_equal(HEAD("Retry-After: 2", "RateLimit: \"resolvers\";r=0;t=172").retry_after_ms, 2000);
  assert_int_equal(HEAD("RateLimit: \"resolvers\";r=2999;t=172").retry_after_ms, -1);
  assert_int_equal(HEAD("RateLimit: \"resolvers\";r=0;t=").retry_after_ms, -1);
  assert_int_equal(HEAD("RateLimit: \"resolvers\";r=0;t=99999999999999999999").retry_after_ms, -1);
}

static void a_dialects_field_that_is_too_long_is_told(void **state) {
  (void)state;
  static const struct http_dialect dialect = {.fields = {"x-short", "x-long"}};
  static char line[HTTP_FIELD_SIZE * 4];
  for (int size = HTTP_FIELD_SIZE - 1; size < HTTP_FIELD_SIZE * 3; size += HTTP_FIELD_SIZE) {
    struct http_head head;
    http_head_init(&head);
    int length = snprintf(line, sizeof(line), "X-Long: %0*d\r\n", size, 7);
    http_head_line(&head, &dialect, line, (size_t)length);
    http_head_line(&head, &dialect, "X-Short: 1\r\n", 12);
    bool fits = size < HTTP_FIELD_SIZE;
    assert_int_equal(head.cut, fits ? 0 : 2);
    assert_int_equal(strlen(head.fields[1]), fits ? size : 0);
    assert_string_equal(head.fields[0], "1");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_is_known_of_an_empty_head),
      cmocka_unit_test(the_usual_fields),
      cmocka_unit_test(lengths_that_are_none),
      cmocka_unit_test(chunks_overrule_a_length),
      cmocka_unit_test(ranges),
      cmocka_unit_test(etags_are_kept_as_they_are_or_not_at_all),
      cmocka_unit_test(lines_that_are_too_long_or_have_zeros_are_not_read),
      cmocka_unit_test(waits_in_seconds_and_until_dates),
      cmocka_unit_test(digests),
      cmocka_unit_test(every_status_stands_for_something),
      cmocka_unit_test(waits_double_up_to_a_limit),
      cmocka_unit_test(what_was_asked_for_is_waited_for),
      cmocka_unit_test(a_limit_that_is_reached_says_when_to_come_back),
      cmocka_unit_test(a_dialects_field_that_is_too_long_is_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
