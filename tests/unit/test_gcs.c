/* The gcs upstream against a scripted server: what it asks, what it believes, what it says. */
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

extern const mc_upstream_ops gcs_upstream_ops;

#define SECRET   "ya29.hunter2"
#define OBJECT   "{\"name\": \"%s\", \"size\": \"10\", \"generation\": \"%d\", \"crc32c\": \"4waSgw==\"}"
#define JSON(n)  "HTTP/1.1 %d Well\r\nContent-Length: %zu\r\n\r\n%s", n
#define CONTENT  "0123456789"
#define MEDIA(h) "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-Goog-Generation: 7\r\n" h "\r\n" CONTENT

static const mc_call forever = {INT64_MAX, NULL};

static struct fixture {
  struct http_server server;
  mc_upstream *upstream;
  mc_origin_rule rule;
  mc_info info;
  char got[64];
  char paths[16][64];
  unsigned listed;
  mc_listed first;
  mc_error err;
} f;

static const mc_setting settings[] = {{"token", SECRET}, {"quota_project", "payer"}};
static const mc_credentials team = {"team", settings, 2};

static void start(const char *credentials) {
  mc_upstream_config config = {.struct_size = sizeof(config),
                               .connect_timeout_ms = 5000,
                               .stall_timeout_ms = 5000,
                               .retries = 1,
                               .origins = &f.rule,
                               .origin_count = 1,
                               .credentials = &team,
                               .credentials_count = 1};
  memset(&f, 0, sizeof(f));
  http_server_start(&f.server);
  f.rule = (mc_origin_rule)MC_ORIGIN_RULE_INIT;
  f.rule.prefix = "gs://";
  f.rule.endpoint = f.server.origin;
  f.rule.credentials = credentials;
  assert_int_equal(gcs_upstream_ops.open(&f.upstream, &config, NULL), MC_OK);
}

static void stop(void) {
  gcs_upstream_ops.close(f.upstream);
  assert_int_equal(http_server_asked(&f.server), f.server.scripted); /* neither more nor less than was expected */
  http_server_stop(&f.server);
}

static void script_json(int status, const char *text) {
  http_server_script(&f.server, JSON(status), strlen(text), text);
}

static void script_object(const char *name, int generation) {
  char text[300];
  snprintf(text, sizeof(text), OBJECT, name, generation);
  script_json(200, text);
}

static mc_status stat_of(const char *url) {
  f.err = (mc_error)MC_ERROR_INIT;
  return gcs_upstream_ops.stat(f.upstream, url, &f.info, &forever, &f.err);
}

static void assert_asked(unsigned index, const char *what) {
  assert_non_null(strstr(http_server_request(&f.server, index), what));
}

static void assert_not_asked(unsigned index, const char *what) {
  assert_null(strcasestr(http_server_request(&f.server, index), what));
}

/* ---- objects ---- */

static void an_object_is_told_by_its_resource(void **state) {
  (void)state;
  start("none");
  script_object("a/b c", 7);
  assert_int_equal(stat_of("gs://bucket/a/b%20c"), MC_OK);
  assert_asked(0, "GET /storage/v1/b/bucket/o/a%2Fb%20c?fields=");
  assert_not_asked(0, "authorization");
  assert_not_asked(0, "generation=");
  assert_int_equal(f.info.size, 10);
  assert_string_equal(f.info.validators.version, "7");
  assert_int_equal(f.info.checksum.kind, MC_CHECKSUM_CRC32C);
  assert_true(f.info.ranges);
  script_object("o", 5);
  assert_int_equal(stat_of("gs://bucket/o?generation=5"), MC_OK);
  assert_asked(1, "&generation=5 HTTP");
  stop();
}

static mc_status sink_write(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  (void)err;
  assert_true(sink->offset + size < sizeof(f.got));
  memcpy(f.got + sink->offset, data, size);
  sink->offset += size;
  return MC_OK;
}

static mc_source *open_object(const mc_listed *listed) {
  mc_open_args args = {.url = "gs://bucket/o", .listed = listed};
  mc_source *source = NULL;
  assert_int_equal(gcs_upstream_ops.source_open(f.upstream, &args, &source, &f.info, &forever, NULL), MC_OK);
  return source;
}

static mc_status read_object(mc_source *source, uint64_t from, uint64_t end) {
  mc_sink sink = {.offset = from, .end = end, .write = sink_write};
  f.err = (mc_error)MC_ERROR_INIT;
  return gcs_upstream_ops.source_read(source, &sink, &forever, &f.err);
}

static void bytes_come_as_they_are_stored(void **state) {
  (void)state;
  start("team");
  script_object("o", 7);
  http_server_script(&f.server, MEDIA("Content-Encoding: gzip\r\nX-Goog-Stored-Content-Encoding: gzip\r\n"));
  mc_source *source = open_object(NULL);
  assert_int_equal(read_object(source, 0, 10), MC_OK);
  assert_string_equal(f.got, CONTENT);
  assert_asked(1, "GET /download/storage/v1/b/bucket/o/o?alt=media&generation=7 HTTP");
  assert_asked(1, "Accept-Encoding: gzip\r\n");
  assert_not_asked(1, "identity");
  for (unsigned i = 0; i < 2; i++) {
    assert_asked(i, "Authorization: Bearer " SECRET "\r\n");
    assert_asked(i, "X-Goog-User-Project: payer\r\n");
  }
  gcs_upstream_ops.source_close(source);
  stop();
}

static void another_generation_is_never_taken(void **state) {
  (void)state;
  start("none");
  script_object("o", 8);
  http_server_script(&f.server, MEDIA(""));
  mc_source *source = open_object(NULL);
  assert_int_equal(read_object(source, 0, 10), MC_CHANGED);
  script_json(404, "Not Found");
  assert_int_equal(read_object(source, 0, 10), MC_CHANGED);
  gcs_upstream_ops.source_close(source);
  stop();
}

static void what_is_listed_needs_no_question(void **state) {
  (void)state;
  start("none");
  const mc_listed listed = {.path = "o", .size = 10, .validators.version = "7"};
  http_server_script(&f.server, MEDIA("X-Goog-Hash: crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfGz+uYQ==\r\n"));
  mc_source *source = open_object(&listed);
  mc_open_args args = {.url = "gs://bucket/o", .listed = &listed};
  assert_int_equal(f.info.checksum.kind, MC_CHECKSUM_NONE);
  assert_int_equal(read_object(source, 0, 10), MC_OK);
  assert_int_equal(gcs_upstream_ops.source_finish(source, &f.info, &args, &forever, NULL), MC_OK);
  assert_int_equal(f.info.checksum.kind, MC_CHECKSUM_CRC32C);
  gcs_upstream_ops.source_close(source);
  stop();
}

/* ---- what is refused ---- */

static void refusals_say_why_and_no_secret(void **state) {
  (void)state;
  static const struct {
    int http;
    const char *body;
    mc_status status;
    const char *says;
  } rows[] = {
      {401, "{\"error\": {\"errors\": [{\"reason\": \"authError\"}]}}", MC_PERMISSION_DENIED, "'team', by the rule"},
      {403, "{\"error\": {\"errors\": [{\"reason\": \"forbidden\"}], \"message\": \"" SECRET "\"}}",
       MC_PERMISSION_DENIED, "forbidden"},
      {400, "{\"error\": {\"message\": \"Bucket is a requester pays bucket but no user project provided.\"}}",
       MC_PERMISSION_DENIED, "GOOGLE_CLOUD_QUOTA_PROJECT"},
      {404, "{\"error\": {\"message\": \"The specified bucket does not exist.\"}}", MC_NOT_FOUND, "no such bucket"},
      {404, "{\"error\": {\"message\": \"No such object: bucket/o\"}}", MC_NOT_FOUND, "gs://bucket/o does not exist"},
      {500, SECRET, MC_UNAVAILABLE, "gs://bucket/o"},
      {403, "{\"error\": {\"errors\": [{\"reason\": \"rateLimitExceeded\"}]}}", MC_UNAVAILABLE, "rateLimitExceeded"},
      {302, "", MC_PROTOCOL, "gs://bucket/o"},
      {200, "{\"name\": \"" SECRET "\"}", MC_PROTOCOL, "size"},
      {200, "<html>", MC_PROTOCOL, "JSON"},
  };
  start("team");
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    script_json(rows[i].http, rows[i].body);
    if (rows[i].status == MC_UNAVAILABLE) script_json(rows[i].http, rows[i].body); /* is tried again */
    assert_int_equal(stat_of("gs://bucket/o"), rows[i].status);
    assert_non_null(strstr(f.err.message, rows[i].says));
    assert_null(strstr(f.err.message, SECRET));
  }
  assert_int_equal(stat_of("gs://bucket/"), MC_NOT_FOUND);
  assert_int_equal(stat_of("gs://bucket/o?versionId=3"), MC_INVALID_ARGUMENT);
  stop();
}

static void an_emulator_that_is_none_is_named_and_its_password_is_not(void **state) {
  (void)state;
  static const char *const values[] = {"ftp://host", ("http://user:" SECRET "@host"), ("host:4443/?a=" SECRET),
                                       "http://"};
  mc_upstream_config config = {.struct_size = sizeof(config), .connect_timeout_ms = 5000, .stall_timeout_ms = 5000};
  mc_access access;
  memset(&f, 0, sizeof(f));
  for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
    setenv("STORAGE_EMULATOR_HOST", values[i], 1);
    assert_int_equal(gcs_upstream_ops.open(&f.upstream, &config, NULL), MC_OK);
    assert_int_equal(stat_of("gs://bucket/o"), MC_INVALID_ARGUMENT);
    assert_non_null(strstr(f.err.message, "STORAGE_EMULATOR_HOST"));
    assert_null(strstr(f.err.message, SECRET));
    assert_int_equal(gcs_upstream_ops.explain(f.upstream, "gs://bucket/o", &access, &forever, NULL),
                     MC_INVALID_ARGUMENT);
    assert_string_equal(access.endpoint, "");
    gcs_upstream_ops.close(f.upstream);
  }
  unsetenv("STORAGE_EMULATOR_HOST");
}

static void it_explains_itself(void **state) {
  (void)state;
  mc_access access;
  start("team");
  assert_int_equal(gcs_upstream_ops.explain(f.upstream, "gs://bucket/o", &access, &forever, NULL), MC_OK);
  assert_string_equal(access.endpoint, f.server.origin);
  assert_non_null(strstr(access.credentials, "'team'"));
  assert_null(strstr(access.credentials, SECRET));
  assert_int_equal(access.expires_at, 0);
  stop();
  start("none");
  assert_int_equal(gcs_upstream_ops.explain(f.upstream, "gs://bucket/o", &access, &forever, NULL), MC_OK);
  assert_int_equal(strncmp(access.credentials, "none: ", 6), 0);
  stop();
}

/* ---- listings ---- */

static bool visit(void *user, const mc_listed *listed) {
  (void)user;
  assert_true(f.listed < 16);
  snprintf(f.paths[f.listed], sizeof(f.paths[0]), "%s", listed->path);
  if (f.listed++ == 0) f.first = *listed;
  return true;
}

static mc_status list_of(const char *url, size_t max) {
  f.err = (mc_error)MC_ERROR_INIT;
  f.listed = 0;
  return gcs_upstream_ops.list(f.upstream, url, max, visit, NULL, &forever, &f.err);
}

#define ITEM(name) "{\"name\": \"" name "\", \"size\": \"10\", \"generation\": \"7\"}"

static void listings_have_pages(void **state) {
  (void)state;
  start("team");
  script_json(200, "{\"nextPageToken\": \"a/b+c=\", \"items\": [" ITEM("d e/") ", " ITEM("d e/1") "]}");
  script_json(200, "{\"nextPageToken\": \"2\"}"); /* a page may be empty, and not the last */
  script_json(200, "{\"items\": [" ITEM("d e/x/2 \\u00fc") ", " ITEM("d e/x/") "]}");
  assert_int_equal(list_of("gs://bucket/d%20e/", 2), MC_OK);
  assert_int_equal(f.listed, 2);
  assert_string_equal(f.paths[0], "1");
  assert_string_equal(f.paths[1], "x/2 \xC3\xBC");
  assert_int_equal(f.first.size, 10);
  assert_string_equal(f.first.validators.version, "7");
  assert_asked(0, "GET /storage/v1/b/bucket/o?maxResults=1000&fields=");
  assert_asked(0, "&prefix=d%20e%2F HTTP");
  assert_asked(1, "&pageToken=a%2Fb%2Bc%3D HTTP");
  assert_asked(2, "&pageToken=2 HTTP");
  assert_asked(2, "Authorization: Bearer " SECRET "\r\n");
  stop();
}

static void listings_that_lie(void **state) {
  (void)state;
  static const struct {
    const char *pages[2];
    mc_status status;
  } rows[] = {
      {{"{}"}, MC_NOT_FOUND},
      {{"{\"items\": [" ITEM("d/") "]}"}, MC_OK}, /* a folder of nothing */
      {{"{\"items\": [" ITEM("elsewhere") "]}"}, MC_PROTOCOL},
      {{"{\"items\": [" ITEM("d/../../etc/passwd") "]}"}, MC_PROTOCOL},
      {{"{\"items\": [" ITEM("d//x") "]}"}, MC_PROTOCOL},
      {{"{\"items\": [{\"name\": \"d/x\"}]}"}, MC_PROTOCOL},
      {{"{\"items\": {}}"}, MC_PROTOCOL},
      {{"{\"nextPageToken\": 5}"}, MC_PROTOCOL},
      {{"{\"nextPageToken\": \"1\"}", "{\"nextPageToken\": \"1\"}"}, MC_PROTOCOL},
      {{"{\"items\": [" ITEM("d/1") "," ITEM("d/2") "," ITEM("d/3") "]}"}, MC_RESOURCE_EXHAUSTED},
  };
  start("none");
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    for (size_t k = 0; k < 2 && rows[i].pages[k]; k++) script_json(200, rows[i].pages[k]);
    assert_int_equal(list_of("gs://bucket/d/", 2), rows[i].status);
  }
  script_json(404, "{\"error\": {\"message\": \"The specified bucket does not exist.\"}}");
  assert_int_equal(list_of("gs://bucket/", 2), MC_NOT_FOUND);
  assert_int_equal(list_of("gs://bucket/d/?generation=5", 2), MC_INVALID_ARGUMENT);
  assert_int_equal(list_of("gs://bucket/d", 2), MC_INVALID_ARGUMENT);
  stop();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_object_is_told_by_its_resource),
      cmocka_unit_test(bytes_come_as_they_are_stored),
      cmocka_unit_test(another_generation_is_never_taken),
      cmocka_unit_test(what_is_listed_needs_no_question),
      cmocka_unit_test(refusals_say_why_and_no_secret),
      cmocka_unit_test(an_emulator_that_is_none_is_named_and_its_password_is_not),
      cmocka_unit_test(it_explains_itself),
      cmocka_unit_test(listings_have_pages),
      cmocka_unit_test(listings_that_lie),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
