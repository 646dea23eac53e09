/* Credentials of web servers: what a rule names is sent to the site that it is for, and nowhere else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <modelcache/backend/upstream.h>

#include "base/io.h"
#include "http_server.h"

extern const mc_upstream_ops http_upstream_ops;

#define FOUND  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nAccept-Ranges: bytes\r\nETag: \"one\"\r\n\r\n"
#define REFUSE "HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n"
#define BEARER "Authorization: Bearer hunter2\r\n"

static const mc_call forever = {INT64_MAX, NULL};

static struct fixture {
  struct http_server server, other;
  mc_upstream *upstream;
  char prefix[100], url[128];
  mc_setting settings[4];
  mc_credentials team;
  mc_origin_rule rule;
  mc_error err;
} f;

/* With credentials of up to four keys. The rule is for what is below /in. */
static mc_status open_with(const char *const pairs[]) {
  if (f.upstream) http_upstream_ops.close(f.upstream);
  f.upstream = NULL;
  f.team = (mc_credentials){"team", f.settings, 0};
  for (size_t i = 0; pairs[2 * i]; i++) f.settings[f.team.count++] = (mc_setting){pairs[2 * i], pairs[2 * i + 1]};
  f.rule = (mc_origin_rule)MC_ORIGIN_RULE_INIT;
  f.rule.prefix = f.prefix;
  f.rule.credentials = "team";
  mc_upstream_config config = {.struct_size = sizeof(config),
                               .connect_timeout_ms = 5000,
                               .stall_timeout_ms = 5000,
                               .origins = &f.rule,
                               .origin_count = 1,
                               .credentials = &f.team,
                               .credentials_count = 1};
  f.err = (mc_error)MC_ERROR_INIT;
  return http_upstream_ops.open(&f.upstream, &config, &f.err);
}

#define OPEN(...) open_with((const char *const[]){__VA_ARGS__, NULL, NULL})

static int set_up(void **state) {
  (void)state;
  memset(&f, 0, sizeof(f));
  http_server_start(&f.server);
  http_server_start(&f.other);
  snprintf(f.prefix, sizeof(f.prefix), "%s/in/", f.server.origin);
  snprintf(f.url, sizeof(f.url), "%s/in/model.bin", f.server.origin);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  if (f.upstream) http_upstream_ops.close(f.upstream);
  assert_int_equal(http_server_asked(&f.server), f.server.scripted);
  assert_int_equal(http_server_asked(&f.other), f.other.scripted);
  http_server_stop(&f.server);
  http_server_stop(&f.other);
  return 0;
}

static mc_status stat_of(const char *url) {
  mc_info info;
  f.err = (mc_error)MC_ERROR_INIT;
  return http_upstream_ops.stat(f.upstream, url, &info, &forever, &f.err);
}

static void assert_sent(unsigned index, const char *what) {
  assert_non_null(strstr(http_server_request(&f.server, index), what));
}

static void each_kind_is_sent(void **state) {
  (void)state;
  assert_int_equal(OPEN("token", "hunter2"), MC_OK);
  http_server_script(&f.server, FOUND);
  assert_int_equal(stat_of(f.url), MC_OK);
  assert_sent(0, BEARER);
  assert_int_equal(OPEN("user", "me", "password", "hunter2:x"), MC_OK);
  http_server_script(&f.server, FOUND);
  assert_int_equal(stat_of(f.url), MC_OK);
  assert_sent(1, "Authorization: Basic bWU6aHVudGVyMjp4\r\n");
  assert_int_equal(OPEN("header", "X-Api-Key: hunter2", "token", "hunter2"), MC_OK);
  http_server_script(&f.server, FOUND);
  assert_int_equal(stat_of(f.url), MC_OK);
  assert_sent(2, "X-Api-Key: hunter2\r\n");
  assert_sent(2, BEARER);
}

static bool visit(void *user, const mc_listed *listed) {
  (void)user;
  (void)listed;
  return true;
}

static void a_list_is_asked_for_with_them(void **state) {
  (void)state;
  assert_int_equal(OPEN("token", "hunter2"), MC_OK);
  http_server_script(&f.server, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<a href=\"a\">a<a");
  assert_int_equal(http_upstream_ops.list(f.upstream, f.prefix, 10, visit, NULL, &forever, NULL), MC_OK);
  assert_sent(0, BEARER);
}

static void a_file_is_read_anew(void **state) {
  (void)state;
  char path[] = "/tmp/modelcache-token-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0 && write(fd, "hunter0", 7) == 7);
  close(fd);
  assert_int_equal(OPEN("token_file", path), MC_OK);
  static const char *const tokens[] = {"hunter1\n", "hunter2"};
  for (unsigned i = 0; i < 2; i++) {
    assert_int_equal(file_replace(path, tokens[i], strlen(tokens[i]), 0600, false), 0);
    http_server_script(&f.server, FOUND);
    assert_int_equal(stat_of(f.url), MC_OK);
    assert_sent(i, i ? BEARER : "Authorization: Bearer hunter1\r\n");
  }
  static const char *const bad[] = {"", "\n", "hun\nter2"};
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(file_replace(path, bad[i], strlen(bad[i]), 0600, false), 0);
    assert_int_equal(stat_of(f.url), MC_INVALID_ARGUMENT);
    assert_null(strstr(f.err.message, "ter2"));
  }
  unlink(path);
  assert_int_equal(stat_of(f.url), MC_INVALID_ARGUMENT);
  assert_non_null(strstr(f.err.message, path));
}

static void nobody_else_gets_them(void **state) {
  (void)state;
  char url[128];
  assert_int_equal(OPEN("token", "hunter2", "header", "X-Api-Key: hunter2"), MC_OK);
  /* Near, which is the same site, then far. */
  http_server_script(&f.server, "HTTP/1.1 302 F\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
  http_server_script(&f.server, "HTTP/1.1 302 F\r\nLocation: %s/far\r\nContent-Length: 0\r\n\r\n", f.other.origin);
  http_server_script(&f.other, FOUND);
  assert_int_equal(stat_of(f.url), MC_OK);
  assert_sent(1, BEARER);
  assert_null(strstr(http_server_request(&f.other, 0), "hunter2"));
  /* What the rule is not for: beside it, and another site. */
  http_server_script(&f.server, FOUND);
  snprintf(url, sizeof(url), "%s/inner/model.bin", f.server.origin);
  assert_int_equal(stat_of(url), MC_OK);
  assert_null(strstr(http_server_request(&f.server, 2), "hunter2"));
  http_server_script(&f.other, FOUND);
  snprintf(url, sizeof(url), "%s/in/model.bin", f.other.origin);
  assert_int_equal(stat_of(url), MC_OK);
  assert_null(strstr(http_server_request(&f.other, 1), "hunter2"));
}

static void a_refusal_names_them_and_tells_nothing(void **state) {
  (void)state;
  mc_access access;
  char endpoint[64];
  assert_int_equal(OPEN("user", "me", "password", "hunter2"), MC_OK);
  for (int i = 0; i < 2; i++) http_server_script(&f.server, REFUSE, 401 + 2 * i);
  http_server_script(&f.server, REFUSE, 403); /* HEAD alone may be refused */
  assert_int_equal(stat_of(f.url), MC_PERMISSION_DENIED);
  assert_non_null(strstr(f.err.message, "(HTTP 401); the credentials: 'team', by the rule for "));
  assert_int_equal(stat_of(f.url), MC_PERMISSION_DENIED);
  assert_non_null(strstr(f.err.message, "(HTTP 403)"));
  assert_null(strstr(f.err.message, "hunter2"));
  strcpy(endpoint, f.server.origin);
  assert_int_equal(http_upstream_ops.explain(f.upstream, f.url, &access, &forever, NULL), MC_OK);
  assert_string_equal(access.endpoint, endpoint);
  assert_int_equal(strncmp(access.credentials, "'team', by the rule", 19), 0);
  assert_string_equal(access.identity, "me");
  assert_int_equal(http_upstream_ops.explain(f.upstream, "https://host:8/x?y", &access, &forever, NULL), MC_OK);
  assert_string_equal(access.endpoint, "https://host:8");
  assert_string_equal(access.credentials, "none: no rule names any");
}

static void what_can_not_be_sent_is_an_error_at_the_start(void **state) {
  (void)state;
  static const char *const bad[][5] = {
      {"access_key_id", "hunter2", NULL},
      {"token", "hun\r\nter2", NULL},
      {"token", "", NULL},
      {"token", "hunter2", "user", "me", NULL},
      {"user", "hunter2", NULL},
      {"password", "hunter2", NULL},
      {"user", "hun:ter2", "password", "hunter2", NULL},
      {"header", "hunter2", NULL},
      {"header", "X-Key:hunter2", NULL},
      {"header", "X-Key: hunter2\r\nX-Other: 1", NULL},
      {"header", "Host: hunter2", NULL},
      {"header", "range: hunter2", NULL},
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    const char *pairs[6] = {NULL};
    memcpy(pairs, bad[i], sizeof(bad[i]));
    assert_int_equal(open_with(pairs), MC_INVALID_ARGUMENT);
    assert_non_null(strstr(f.err.message, "'team'"));
    assert_null(strstr(f.err.message, "ter2"));
    assert_null(f.upstream);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(each_kind_is_sent),
      TEST(a_list_is_asked_for_with_them),
      TEST(a_file_is_read_anew),
      TEST(nobody_else_gets_them),
      TEST(a_refusal_names_them_and_tells_nothing),
      TEST(what_can_not_be_sent_is_an_error_at_the_start),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
