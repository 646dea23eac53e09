/* The HTTP client as upstreams on its ground use it: dialects, redirects that credentials do not follow, rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/upstream/http/internal.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"
#include "http_server.h"

#define SECRET "Authorization: Bearer hunter2"
#define OK_4   "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Region: north\r\nX-Long: %s\r\n\r\nbody"

static const mc_call forever = {INT64_MAX, NULL};

/* ---- a dialect that is counted ---- */

struct service {
  struct http_server server, other;
  struct http_client *client;
  struct http_head head;
  mc_error err;
  unsigned aimed, judged, again;
  mc_status judgement;
  char said[256], led[256];
};

static mc_status aim(const struct http_request *request, struct http_target *target, const mc_call *call,
                     mc_error *err) {
  struct service *service = request->self;
  (void)call;
  (void)err;
  service->aimed++;
  target->url = format_str("%s/object?n=%u", service->server.origin, service->aimed);
  return target->url && http_target_header(target, SECRET) ? MC_OK : MC_NO_MEMORY;
}

static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  struct service *service = request->self;
  (void)call;
  service->judged++;
  snprintf(service->said, sizeof(service->said), "%s", body);
  *again = service->again && service->again--;
  return mc_error_set(err, service->judgement, "test", "HTTP %ld", head->status);
}

static void led(const struct http_request *request, const char *to) {
  struct service *service = request->self;
  snprintf(service->led, sizeof(service->led), "%s", to);
}

static const struct http_dialect dialect = {
    .name = "test", .fields = {"x-region", "x-long"}, .aim = aim, .led = led, .judge = judge};

static void begin(struct service *service, const mc_origin_rule *rules, size_t count) {
  mc_upstream_config config = {.struct_size = sizeof(config),
                               .connect_timeout_ms = 5000,
                               .stall_timeout_ms = 5000,
                               .retries = 0,
                               .schemes = "test",
                               .origins = rules,
                               .origin_count = count};
  memset(service, 0, sizeof(*service));
  http_server_start(&service->server);
  http_server_start(&service->other);
  assert_int_equal(http_client_new(&service->client, &config, NULL), MC_OK);
}

static void end(struct service *service) {
  http_client_free(service->client);
  http_server_stop(&service->server);
  http_server_stop(&service->other);
}

static struct http_request request_of(struct service *service) {
  return (struct http_request){.method = "GET", .url = "test://bucket/key", .dialect = &dialect, .self = service};
}

static mc_status ask(struct service *service, const struct http_request *request) {
  service->err = (mc_error)MC_ERROR_INIT;
  return http_ask(service->client, request, &service->head, &forever, &service->err);
}

/* ---- tests ---- */

static void a_dialect_says_where_a_request_goes_and_sees_its_fields(void **state) {
  (void)state;
  struct service s;
  char longer[HTTP_FIELD_SIZE + 1];
  static const char *const headers[] = {"X-Own: 1", NULL};
  memset(longer, 'l', sizeof(longer) - 1);
  longer[sizeof(longer) - 1] = 0;
  begin(&s, NULL, 0);
  http_server_script(&s.server, OK_4, longer);
  struct http_request request = request_of(&s);
  request.headers = headers;
  assert_int_equal(ask(&s, &request), MC_OK);
  const char *sent = http_server_request(&s.server, 0);
  assert_non_null(strstr(sent, "GET /object?n=1 HTTP/1.1\r\n"));
  assert_non_null(strstr(sent, SECRET "\r\n"));
  assert_non_null(strstr(sent, "X-Own: 1\r\n"));
  assert_non_null(strstr(sent, "Accept-Encoding: identity\r\n"));
  assert_string_equal(s.head.fields[0], "north");
  assert_string_equal(s.head.fields[1], "");
  assert_int_equal(s.judged, 0);
  end(&s);
}

/* An endpoint, as signatures have it: libcurl takes no dots out. */
static mc_status aim_at_dots(const struct http_request *request, struct http_target *target, const mc_call *call,
                             mc_error *err) {
  struct service *service = request->self;
  (void)call;
  (void)err;
  target->url = format_str("%s/bucket/a/../b", service->server.origin);
  return target->url ? MC_OK : MC_NO_MEMORY;
}

static void what_was_signed_is_what_is_asked_for(void **state) {
  (void)state;
  static const struct http_dialect dots = {.name = "test", .aim = aim_at_dots};
  struct service s;
  begin(&s, NULL, 0);
  http_server_script(&s.server, OK_4, "");
  struct http_request request = request_of(&s);
  request.dialect = &dots;
  assert_int_equal(ask(&s, &request), MC_OK);
  assert_non_null(strstr(http_server_request(&s.server, 0), "GET /bucket/a/../b HTTP/1.1\r\n"));
  end(&s);
}

static void a_header_is_one_line(void **state) {
  (void)state;
  static const char *const headers[] = {"X-Own: 1\r\nX-Other: hunter3", NULL};
  struct service s;
  begin(&s, NULL, 0);
  struct http_request request = request_of(&s);
  request.headers = headers;
  assert_int_equal(ask(&s, &request), MC_INVALID_ARGUMENT);
  assert_null(strstr(s.err.message, "hunter"));
  assert_int_equal(http_server_asked(&s.server), 0);
  end(&s);
}

static void what_was_learnt_is_asked_with_at_once_but_not_for_ever(void **state) {
  (void)state;
  struct service s;
  begin(&s, NULL, 0);
  struct http_request request = request_of(&s);
  s.again = 1;
  s.judgement = MC_PERMISSION_DENIED;
  http_server_script(&s.server, "HTTP/1.1 403 No\r\nContent-Length: 7\r\n\r\nexpired");
  http_server_script(&s.server, OK_4, "");
  assert_int_equal(ask(&s, &request), MC_OK);
  assert_string_equal(s.said, "expired");
  assert_int_equal(s.aimed, 2); /* signed anew */

  s.again = 100;
  for (int i = 0; i < 3; i++) http_server_script(&s.server, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(ask(&s, &request), MC_PERMISSION_DENIED);
  assert_string_equal(s.said, "");
  assert_int_equal(s.aimed, 5);
  end(&s);
}

static void credentials_do_not_follow_to_another_site(void **state) {
  (void)state;
  struct service s;
  begin(&s, NULL, 0);
  struct http_request request = request_of(&s);
  http_server_script(&s.server, "HTTP/1.1 302 F\r\nLocation: /near\r\nContent-Length: 0\r\n\r\n");
  http_server_script(&s.server, "HTTP/1.1 302 F\r\nLocation: %s/far\r\nContent-Length: 0\r\n\r\n", s.other.origin);
  http_server_script(&s.other, OK_4, "");
  assert_int_equal(ask(&s, &request), MC_OK);
  assert_non_null(strstr(s.led, s.other.origin)); /* and not of what is near */
  assert_non_null(strstr(s.led, "/far"));
  assert_non_null(strstr(http_server_request(&s.server, 1), "GET /near "));
  assert_non_null(strstr(http_server_request(&s.server, 1), SECRET));
  assert_non_null(strstr(http_server_request(&s.other, 0), "GET /far "));
  assert_null(strstr(http_server_request(&s.other, 0), "hunter2"));
  assert_non_null(strstr(http_server_request(&s.other, 0), "Accept-Encoding: identity\r\n"));
  end(&s);
}

static void redirects_are_followed_as_far_as_is_wanted(void **state) {
  (void)state;
  struct service s;
  begin(&s, NULL, 0);
  struct http_request request = request_of(&s);
  request.follow = HTTP_FOLLOW_SITE;
  s.judgement = MC_OK;
  http_server_script(&s.server, "HTTP/1.1 307 T\r\nLocation: /moved\r\nContent-Length: 0\r\n\r\n");
  http_server_script(&s.server, "HTTP/1.1 302 F\r\nLocation: %s/far\r\nX-Region: south\r\nContent-Length: 0\r\n\r\n",
                     s.other.origin);
  assert_int_equal(ask(&s, &request), MC_OK);
  assert_int_equal(s.head.status, 302);
  assert_string_equal(s.head.fields[0], "south");
  assert_int_equal(http_server_asked(&s.other), 0);

  request.follow = HTTP_FOLLOW_NONE;
  s.judgement = MC_UNAVAILABLE;
  http_server_script(&s.server, "HTTP/1.1 307 T\r\nLocation: /moved\r\nContent-Length: 3\r\n\r\nwhy");
  assert_int_equal(ask(&s, &request), MC_UNAVAILABLE);
  assert_int_equal(s.head.status, 307);
  assert_string_equal(s.said, "why");
  end(&s);
}

static void other_methods_send_a_body_and_follow_nowhere(void **state) {
  (void)state;
  struct service s;
  begin(&s, NULL, 0);
  struct http_request request = {.method = "POST", .url = s.server.origin, .body = "a=b", .body_size = 3};
  http_server_script(&s.server, "HTTP/1.1 302 F\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n");
  assert_int_not_equal(ask(&s, &request), MC_OK);
  assert_int_equal(http_server_asked(&s.server), 1);
  request.method = "PUT";
  request.body = NULL;
  request.body_size = 0;
  http_server_script(&s.server, OK_4, "");
  assert_int_equal(ask(&s, &request), MC_OK);
  assert_non_null(strstr(http_server_request(&s.server, 0), "POST / HTTP/1.1\r\n"));
  assert_non_null(strstr(http_server_request(&s.server, 0), "Content-Length: 3\r\n"));
  assert_non_null(strstr(http_server_request(&s.server, 1), "PUT / HTTP/1.1\r\n"));
  assert_non_null(strstr(http_server_request(&s.server, 1), "Content-Length: 0\r\n"));
  end(&s);
}

static void a_text_has_a_limit(void **state) {
  (void)state;
  struct service s;
  struct buf text;
  begin(&s, NULL, 0);
  struct http_request request = request_of(&s);
  buf_init(&text, 4);
  http_server_script(&s.server, OK_4, "");
  assert_int_equal(http_fetch_text(s.client, &request, &text, &forever, &s.err), MC_OK);
  assert_string_equal(text.data, "body");
  http_server_script(&s.server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(http_fetch_text(s.client, &request, &text, &forever, &s.err), MC_OK);
  assert_string_equal(text.data, "");
  http_server_script(&s.server, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
  assert_int_equal(http_fetch_text(s.client, &request, &text, &forever, &s.err), MC_PROTOCOL);
  buf_free(&text);
  end(&s);
}

static void rules_hold_for_the_url_that_was_asked_for(void **state) {
  (void)state;
  struct service s;
  static mc_origin_rule rules[] = {
      {.prefix = "test://bucket/", .allowed = true, .proxy = NULL, .bandwidth = 100000},
      {.prefix = NULL, .allowed = false},
  };
  char forbidden[80];
  begin(&s, NULL, 0);
  snprintf(forbidden, sizeof(forbidden), "%s/far", s.other.origin);
  rules[1].prefix = forbidden;
  http_client_free(s.client);
  mc_upstream_config config = {.struct_size = sizeof(config),
                               .connect_timeout_ms = 5000,
                               .stall_timeout_ms = 100, /* waiting for bandwidth is no stall */
                               .origins = rules,
                               .origin_count = 2};
  assert_int_equal(http_client_new(&s.client, &config, NULL), MC_OK);
  struct http_request request = request_of(&s);
  assert_ptr_equal(http_client_rule(s.client, request.url), &rules[0]);
  http_server_script(&s.server, "HTTP/1.1 302 F\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", forbidden);
  assert_int_equal(ask(&s, &request), MC_PERMISSION_DENIED);
  assert_non_null(strstr(s.err.message, "redirects to where the rule for"));
  assert_int_equal(http_server_asked(&s.other), 0);

  struct buf text;
  char *large = malloc(30001);
  memset(large, 'x', 30000);
  large[30000] = 0;
  buf_init(&text, 1 << 20);
  int64_t began = clock_ns();
  for (int i = 0; i < 3; i++) {
    http_server_script(&s.server, "HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n%s", large);
    assert_int_equal(http_fetch_text(s.client, &request, &text, &forever, &s.err), MC_OK);
  }
  /* The last is paid for by who comes next; the two before took 0.6 s but for what is forgiven. */
  assert_true(clock_ns() - began >= 500 * NS_PER_MS);
  buf_free(&text);
  free(large);

  static mc_origin_rule proxied = {.prefix = "test://", .allowed = true};
  proxied.proxy = s.other.origin;
  http_client_free(s.client);
  config.origins = &proxied;
  config.origin_count = 1;
  config.stall_timeout_ms = 5000;
  assert_int_equal(http_client_new(&s.client, &config, NULL), MC_OK);
  http_server_script(&s.other, OK_4, "");
  assert_int_equal(ask(&s, &request), MC_OK);
  assert_non_null(strstr(http_server_request(&s.other, 0), "GET http://127.0.0.1:"));
  end(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_dialect_says_where_a_request_goes_and_sees_its_fields),
      cmocka_unit_test(what_was_signed_is_what_is_asked_for),
      cmocka_unit_test(a_header_is_one_line),
      cmocka_unit_test(what_was_learnt_is_asked_with_at_once_but_not_for_ever),
      cmocka_unit_test(credentials_do_not_follow_to_another_site),
      cmocka_unit_test(redirects_are_followed_as_far_as_is_wanted),
      cmocka_unit_test(other_methods_send_a_body_and_follow_nowhere),
      cmocka_unit_test(a_text_has_a_limit),
      cmocka_unit_test(rules_hold_for_the_url_that_was_asked_for),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
