/* The http upstream against a scripted server: what it believes, what it reads, and when it says that all is another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <modelcache/backend/upstream.h>

#include "http_server.h"

extern const mc_upstream_ops http_upstream_ops;

/* A file of ten bytes, and the heads of its answers. */
#define CONTENT "0123456789"
#define SIZE    10
#define TAG     "ETag: \"one\"\r\n"
#define RANGES  "Accept-Ranges: bytes\r\n"
#define WHOLE   "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n"
#define FOUND   WHOLE RANGES TAG "\r\n" /* of HEAD */
/* first, last, and the length of what is between: the body follows */
#define PART(headers) "HTTP/1.1 206 Part\r\n" headers "Content-Range: bytes %d-%d/10\r\nContent-Length: %d\r\n\r\n"

static const mc_call forever = {INT64_MAX, NULL};

struct fixture {
  struct http_server server;
  mc_upstream *upstream;
  mc_source *source;
  mc_info info;
  char url[128];
  mc_sink sink; /* writes to `got` */
  char got[64];
  bool refuses;
  mc_error err;
};

static struct fixture f;

static mc_status sink_write(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  if (f.refuses) return mc_error_set(err, MC_UNAVAILABLE, "test", "the sink takes no more");
  assert_true(size > 0 && sink->offset + size < sizeof(f.got));
  memcpy(f.got + sink->offset, data, size);
  sink->offset += size;
  return MC_OK;
}

static void start(uint32_t retries) {
  mc_upstream_config config = {
      .struct_size = sizeof(config), .connect_timeout_ms = 5000, .stall_timeout_ms = 2000, .retries = retries};
  memset(&f, 0, sizeof(f));
  http_server_start(&f.server);
  snprintf(f.url, sizeof(f.url), "%s/model.bin", f.server.origin);
  assert_int_equal(http_upstream_ops.open(&f.upstream, &config, NULL), MC_OK);
}

static void stop(void) {
  if (f.source) http_upstream_ops.source_close(f.source);
  http_upstream_ops.close(f.upstream);
  assert_int_equal(http_server_asked(&f.server), f.server.scripted); /* neither more nor less than was expected */
  http_server_stop(&f.server);
}

#define script(...) http_server_script(&f.server, __VA_ARGS__)

static void script_part(int first, int last) {
  script(PART(TAG) "%.*s", first, last, last - first + 1, last - first + 1, &CONTENT[first]);
}

static mc_status open_source(void) {
  mc_open_args args = {.url = f.url};
  if (f.source) http_upstream_ops.source_close(f.source);
  f.source = NULL;
  f.err = (mc_error)MC_ERROR_INIT;
  return http_upstream_ops.source_open(f.upstream, &args, &f.source, &f.info, &forever, &f.err);
}

static mc_status read_source(uint64_t first, uint64_t end) {
  memset(f.got, 0, sizeof(f.got));
  memcpy(f.got, CONTENT, first); /* is there */
  f.sink = (mc_sink){.offset = first, .end = end, .write = sink_write};
  f.err = (mc_error)MC_ERROR_INIT;
  mc_status status = http_upstream_ops.source_read(f.source, &f.sink, &forever, &f.err);
  if (status) assert_int_equal(status, f.err.status); /* else it may be that of an attempt that was not the last */
  return status;
}

static mc_status finish(void) {
  mc_open_args args = {.url = f.url};
  return http_upstream_ops.source_finish(f.source, &f.info, &args, &forever, NULL);
}

static void assert_asked(unsigned index, const char *what) {
  assert_non_null(strstr(http_server_request(&f.server, index), what));
}

/* ---- what is there ---- */

static void head_is_enough_where_it_says_all(void **state) {
  (void)state;
  start(0);
  script(FOUND);
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(f.info.size, SIZE);
  assert_true(f.info.ranges);
  assert_string_equal(f.info.validators.etag, "\"one\"");
  assert_asked(0, "HEAD /model.bin ");
  script(WHOLE "\r\n"); /* no ranges, and none are tried */
  assert_int_equal(open_source(), MC_OK);
  assert_false(f.info.ranges);
  script("HTTP/1.1 404 -\r\nContent-Length: 5\r\n\r\n");
  assert_int_equal(open_source(), MC_NOT_FOUND);
  assert_null(f.source);
  stop();
}

static void head_that_is_refused_or_of_no_use_is_followed_by_get(void **state) {
  (void)state;
  static const char *const heads[] = {
      "HTTP/1.1 405 -\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 403 -\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 501 -\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" TAG "\r\n",
      "HTTP/1.1 200 OK\r\n" RANGES TAG "\r\n",       WHOLE RANGES "\r\n",
  };
  start(0);
  for (unsigned i = 0; i < sizeof(heads) / sizeof(*heads); i++) {
    script("%s", heads[i]);
    script_part(0, 0);
    assert_int_equal(open_source(), MC_OK);
    assert_int_equal(f.info.size, SIZE);
    assert_true(f.info.ranges);
    assert_string_equal(f.info.validators.etag, "\"one\"");
    assert_asked(2 * i + 1, "Range: bytes=0-0\r\n");
  }
  assert_int_equal(http_server_connections(&f.server), 1);
  /* Get refuses it, too */
  script("HTTP/1.1 403 -\r\nContent-Length: 0\r\n\r\n");
  script("HTTP/1.1 403 -\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(open_source(), MC_PERMISSION_DENIED);
  /* A part without validators could be of another version than the next one. */
  script(WHOLE RANGES "\r\n");
  script(PART("") "0", 0, 0, 1);
  assert_int_equal(open_source(), MC_OK);
  assert_false(f.info.ranges);
  /* A part that is not the one */
  script("HTTP/1.1 405 -\r\nContent-Length: 0\r\n\r\n");
  script_part(1, 1);
  assert_int_equal(open_source(), MC_PROTOCOL);
  stop();
}

static void an_empty_file(void **state) {
  (void)state;
  start(0);
  for (int i = 0; i < 2; i++) {
    script("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" RANGES TAG "\r\n");
    script(i ? "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" TAG "\r\n"
             : "HTTP/1.1 416 -\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(open_source(), MC_OK);
    assert_int_equal(f.info.size, 0);
    assert_string_equal(f.info.validators.etag, "\"one\"");
    assert_int_equal(read_source(0, 0), MC_OK);
  }
  stop();
}

static void a_range_that_is_refused_does_not_make_a_file_empty(void **state) {
  (void)state;
  start(0);
  script("HTTP/1.1 200 OK\r\n" RANGES TAG "\r\n");
  script("HTTP/1.1 416 -\r\nContent-Length: 0\r\n\r\n");
  script(WHOLE TAG "\r\n" CONTENT);
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(f.info.size, MC_SIZE_UNKNOWN);
  assert_false(f.info.ranges);
  assert_int_equal(read_source(0, MC_SIZE_UNKNOWN), MC_OK);
  assert_string_equal(f.got, CONTENT);
  stop();
}

static void a_version_that_is_known(void **state) {
  (void)state;
  static const struct {
    mc_validators known;
    uint64_t size;
    bool unchanged;
  } cases[] = {
      {{.etag = "\"one\""}, SIZE, true},
      {{.etag = "W/\"one\""}, SIZE, true},
      {{.etag = "\"two\"", .last_modified = 100}, SIZE, false},
      {{.etag = "\"one\"", .last_modified = 99}, SIZE, true}, /* the ETag is what counts */
      {{.etag = "\"one\""}, SIZE + 1, false},
      {{.last_modified = 100}, SIZE, true},
      {{.last_modified = 99}, SIZE, false},
      {{.etag = ""}, SIZE, false},
  };
  start(0);
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    mc_open_args args = {.url = f.url, .known = &cases[i].known, .known_size = cases[i].size};
    script(WHOLE RANGES TAG "Last-Modified: Thu, 01 Jan 1970 00:01:40 GMT\r\n\r\n");
    assert_int_equal(http_upstream_ops.source_open(f.upstream, &args, &f.source, &f.info, &forever, NULL), MC_OK);
    assert_int_equal(f.info.unchanged, cases[i].unchanged);
    assert_int_equal(f.source == NULL, cases[i].unchanged);
    if (f.source) http_upstream_ops.source_close(f.source);
    f.source = NULL;
  }
  stop();
}

/* ---- ranges ---- */

static void a_range_and_the_rest_of_one_that_was_cut_short(void **state) {
  (void)state;
  start(2);
  script(FOUND);
  script_part(2, 5);
  script("HTTP/1.1 206 Part\r\n" TAG "Content-Range: bytes 0-9/10\r\nContent-Length: 10\r\n\r\n0123…");
  script("HTTP/1.1 503 -\r\nContent-Length: 0\r\n\r\n");
  script_part(4, 9);
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(read_source(2, 6), MC_OK);
  assert_memory_equal(f.got, CONTENT, 6);
  assert_asked(1, "Range: bytes=2-5\r\n");
  assert_int_equal(read_source(0, SIZE), MC_OK);
  assert_string_equal(f.got, CONTENT);
  assert_asked(2, "Range: bytes=0-9\r\n");
  assert_asked(3, "Range: bytes=4-9\r\n");
  assert_asked(4, "Range: bytes=4-9\r\n");
  assert_int_equal(finish(), MC_OK);
  stop();
}

static void what_the_sink_says_is_final(void **state) {
  (void)state;
  start(5);
  script(FOUND);
  script_part(0, 9);
  assert_int_equal(open_source(), MC_OK);
  f.refuses = true;
  assert_int_equal(read_source(0, SIZE), MC_UNAVAILABLE);
  assert_string_equal(f.err.message, "the sink takes no more");
  stop();
}

static void parts_that_are_smaller_than_asked_for_are_no_failures(void **state) {
  (void)state;
  start(0);
  script(FOUND);
  for (int i = 0; i < 5; i++) script_part(2 * i, 2 * i + 1);
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(read_source(0, SIZE), MC_OK);
  assert_string_equal(f.got, CONTENT);
  stop();
}

static void answers_that_end_a_read(void **state) {
  (void)state;
  static const struct {
    const char *answer;
    mc_status status;
  } cases[] = {
      {"HTTP/1.1 206 -\r\nETag: \"two\"\r\nContent-Range: bytes 2-5/10\r\nContent-Length: 4\r\n\r\nABCD", MC_CHANGED},
      {"HTTP/1.1 206 -\r\n" TAG "Content-Range: bytes 2-5/11\r\nContent-Length: 4\r\n\r\nABCD", MC_CHANGED},
      {"HTTP/1.1 404 -\r\nContent-Length: 0\r\n\r\n", MC_CHANGED},
      {"HTTP/1.1 412 -\r\nContent-Length: 0\r\n\r\n", MC_CHANGED},
      {"HTTP/1.1 416 -\r\nContent-Length: 0\r\n\r\n", MC_CHANGED},
      {WHOLE TAG "\r\n" CONTENT "…", MC_CHANGED}, /* though ranges were announced */
      {"HTTP/1.1 206 -\r\n" TAG "Content-Range: bytes 3-6/10\r\nContent-Length: 4\r\n\r\nABCD", MC_PROTOCOL},
      {"HTTP/1.1 206 -\r\n" TAG "Content-Range: bytes 2-6/10\r\nContent-Length: 5\r\n\r\nABCDE", MC_PROTOCOL},
      {"HTTP/1.1 206 -\r\n" TAG "Content-Range: bytes 2-5/10\r\nContent-Length: 5\r\n\r\nABCDE", MC_PROTOCOL},
      {"HTTP/1.1 206 -\r\n" TAG "Content-Length: 4\r\n\r\nABCD", MC_PROTOCOL},
      {"HTTP/1.1 204 -\r\n" TAG "\r\n", MC_PROTOCOL},
      {"HTTP/1.1 401 -\r\nContent-Length: 0\r\n\r\n", MC_PERMISSION_DENIED},
      {"HTTP/1.1 206 -\r\n" TAG "Content-Range: bytes 2-5/10\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       MC_UNAVAILABLE},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    start(0);
    script(FOUND);
    script("%s", cases[i].answer);
    assert_int_equal(open_source(), MC_OK);
    assert_int_equal(read_source(2, 6), cases[i].status);
    assert_true(f.err.message[0]);
    assert_int_equal(f.sink.offset, 2);
    stop();
  }
}

static void ranges_that_do_not_work_are_not_asked_for_again(void **state) {
  (void)state;
  start(0);
  script(FOUND);
  script(WHOLE TAG "\r\n" CONTENT);
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(read_source(5, SIZE), MC_CHANGED);
  script(WHOLE TAG "\r\n" CONTENT); /* GET now, since HEAD said what was not so */
  assert_int_equal(open_source(), MC_OK);
  assert_asked(2, "GET ");
  assert_false(f.info.ranges);
  assert_int_equal(f.info.size, SIZE);
  script(WHOLE TAG "\r\n" CONTENT);
  assert_int_equal(read_source(0, SIZE), MC_OK);
  assert_string_equal(f.got, CONTENT);
  assert_null(strstr(http_server_request(&f.server, 3), "Range:"));
  stop();
}

static void a_head_that_lies_is_not_asked_again(void **state) {
  (void)state;
  start(0);
  script("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n" RANGES TAG "\r\n");
  script_part(0, 9);
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(read_source(0, 11), MC_CHANGED);
  script_part(0, 0);
  script_part(0, 9);
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(f.info.size, SIZE);
  assert_int_equal(read_source(0, SIZE), MC_OK);
  assert_string_equal(f.got, CONTENT);
  stop();
}

static void the_whole_will_do_where_all_was_asked_for(void **state) {
  (void)state;
  start(0);
  script(FOUND);
  script(WHOLE TAG "\r\n" CONTENT);
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(read_source(0, SIZE), MC_OK);
  assert_string_equal(f.got, CONTENT);
  stop();
}

/* ---- without ranges ---- */

static void a_whole_that_was_cut_short_is_read_on(void **state) {
  (void)state;
  start(1);
  script(WHOLE TAG "\r\n");
  script(WHOLE TAG "\r\n"
                   "0123…");
  script(WHOLE TAG "\r\n"
                   "01…"); /* less than is there */
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(read_source(0, SIZE), MC_UNAVAILABLE);
  script(WHOLE TAG "\r\n"
                   "0123…");
  script(WHOLE TAG "\r\n" CONTENT);
  assert_int_equal(read_source(0, SIZE), MC_OK);
  assert_string_equal(f.got, CONTENT);
  assert_asked(4, "Range: bytes=4-\r\n");
  script(WHOLE TAG "\r\n"
                   "0123…");
  script_part(4, 9); /* it can, after all */
  assert_int_equal(read_source(0, SIZE), MC_OK);
  assert_string_equal(f.got, CONTENT);
  stop();
}

static void what_can_not_be_told_from_other_versions_is_not_read_on(void **state) {
  (void)state;
  start(1);
  script(WHOLE "\r\n");
  script(WHOLE "\r\n"
               "0123…");
  script(WHOLE "\r\n"
               "ABCDEFGHIJ");
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(read_source(0, SIZE), MC_CHANGED);
  assert_string_equal(f.got, "0123");
  stop();
}

#define CHUNKS "HTTP/1.1 200 OK\r\n" TAG "Transfer-Encoding: chunked\r\n\r\n"

static void a_stream_of_unknown_size(void **state) {
  (void)state;
  start(1);
  script(CHUNKS);
  script(CHUNKS "4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n");
  assert_int_equal(open_source(), MC_OK);
  assert_int_equal(f.info.size, MC_SIZE_UNKNOWN);
  assert_false(f.info.ranges);
  assert_int_equal(read_source(0, MC_SIZE_UNKNOWN), MC_OK);
  assert_int_equal(f.sink.offset, SIZE);
  script(CHUNKS "4\r\n0123\r\n6\r\n45…"); /* an end that isn't one */
  script(CHUNKS "a\r\n0123456789\r\n0\r\n\r\n");
  assert_int_equal(read_source(0, MC_SIZE_UNKNOWN), MC_OK);
  assert_string_equal(f.got, CONTENT);
  script("HTTP/1.1 200 OK\r\n" TAG "\r\n" CONTENT "…"); /* the connection's end is the body's */
  assert_int_equal(read_source(0, MC_SIZE_UNKNOWN), MC_OK);
  assert_string_equal(f.got, CONTENT);
  stop();
}

/* ---- late doubts ---- */

static void answers_without_validators_are_confirmed_in_the_end(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) {
    start(0);
    script(FOUND);
    script(PART("") CONTENT, 0, 9, 10);
    assert_int_equal(open_source(), MC_OK);
    assert_int_equal(read_source(0, SIZE), MC_OK);
    script("%s", i == 0   ? FOUND
                 : i == 1 ? WHOLE RANGES "ETag: \"two\"\r\n\r\n"
                          : "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n" RANGES TAG "\r\n");
    assert_int_equal(finish(), i == 0 ? MC_OK : MC_CHANGED);
    assert_asked(2, "HEAD ");
    stop();
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(head_is_enough_where_it_says_all),
      cmocka_unit_test(head_that_is_refused_or_of_no_use_is_followed_by_get),
      cmocka_unit_test(an_empty_file),
      cmocka_unit_test(a_range_that_is_refused_does_not_make_a_file_empty),
      cmocka_unit_test(a_version_that_is_known),
      cmocka_unit_test(a_range_and_the_rest_of_one_that_was_cut_short),
      cmocka_unit_test(what_the_sink_says_is_final),
      cmocka_unit_test(parts_that_are_smaller_than_asked_for_are_no_failures),
      cmocka_unit_test(answers_that_end_a_read),
      cmocka_unit_test(ranges_that_do_not_work_are_not_asked_for_again),
      cmocka_unit_test(a_head_that_lies_is_not_asked_again),
      cmocka_unit_test(the_whole_will_do_where_all_was_asked_for),
      cmocka_unit_test(a_whole_that_was_cut_short_is_read_on),
      cmocka_unit_test(what_can_not_be_told_from_other_versions_is_not_read_on),
      cmocka_unit_test(a_stream_of_unknown_size),
      cmocka_unit_test(answers_without_validators_are_confirmed_in_the_end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
