/* The HTTP client against a scripted server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/upstream/http/internal.h"
#include "base/clock.h"
#include "http_server.h"

#define OK_HEAD "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
#define OK_4    OK_HEAD "\r\nbody"

static const mc_call forever = {INT64_MAX, NULL};

/* ---- a test's server and client ---- */

struct fixture {
  struct http_server server;
  struct http_client *client;
  struct http_head head;
  mc_error err;
  char body[1024];
  size_t body_size;
};

static mc_upstream_config usual(void) {
  return (mc_upstream_config){.struct_size = sizeof(mc_upstream_config),
                              .connect_timeout_ms = 5000,
                              .stall_timeout_ms = 300,
                              .retries = 2,
                              .user_agent = "test/1"};
}

static const char *const variables[] = {"http_proxy",     "HTTP_PROXY",    "https_proxy", "HTTPS_PROXY",
                                        "all_proxy",      "ALL_PROXY",     "no_proxy",    "NO_PROXY",
                                        "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"};

static int clear_variables(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) unsetenv(variables[i]);
  return 0;
}

static void begin(struct fixture *fixture) {
  mc_upstream_config config = usual();
  memset(fixture, 0, sizeof(*fixture));
  http_server_start(&fixture->server);
  assert_int_equal(http_client_new(&fixture->client, &config, NULL), MC_OK);
}

static void end(struct fixture *fixture) {
  http_client_free(fixture->client);
  http_server_stop(&fixture->server);
}

static mc_status take(void *user, const void *data, size_t size, mc_error *err) {
  struct fixture *fixture = user;
  if (size > sizeof(fixture->body) - 1 - fixture->body_size) return mc_error_set(err, MC_NO_SPACE, "test", "full");
  memcpy(fixture->body + fixture->body_size, data, size);
  fixture->body_size += size;
  fixture->body[fixture->body_size] = 0;
  return MC_OK;
}

/* One attempt at a URL: a path of the server, or a whole one. */
static mc_status ask(struct fixture *fixture, const char *method, const char *path) {
  char url[4096];
  snprintf(url, sizeof(url), "%s%s", *path == '/' ? fixture->server.origin : "", path);
  struct http_request request = {.method = method, .url = url, .on_body = take, .user = fixture};
  fixture->body_size = 0;
  fixture->body[0] = 0;
  fixture->err = (mc_error)MC_ERROR_INIT;
  mc_status status = http_perform(fixture->client, &request, &fixture->head, &forever, &fixture->err);
  assert_int_equal(status, fixture->err.status);
  return status;
}

/* ---- tests ---- */

static void what_is_sent_and_what_is_not(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  http_server_script(&f.server, OK_HEAD "Set-Cookie: a=b; Path=/\r\n\r\nbody");
  http_server_script(&f.server, OK_4);
  assert_int_equal(ask(&f, "GET", "/a?q=1"), MC_OK);
  assert_string_equal(f.body, "body");
  assert_int_equal(f.head.status, 200);
  assert_int_equal(ask(&f, "GET", "/b"), MC_OK);
  for (int i = 0; i < 2; i++) {
    const char *text = http_server_request(&f.server, i);
    assert_non_null(strstr(text, i ? "GET /b HTTP/1.1\r\n" : "GET /a?q=1 HTTP/1.1\r\n"));
    assert_non_null(strstr(text, "User-Agent: test/1\r\n"));
    assert_non_null(strstr(text, "Accept-Encoding: identity\r\n"));
    assert_null(strcasestr(text, "cookie"));
    assert_null(strcasestr(text, "authorization"));
    assert_null(strcasestr(text, "referer"));
    assert_null(strcasestr(text, "range"));
  }
  end(&f);
}

static void a_connection_is_used_for_everything(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  http_server_script(&f.server, OK_HEAD "\r\n"); /* of HEAD */
  http_server_script(&f.server, OK_4);
  http_server_script(&f.server, "HTTP/1.1 404 Gone\r\nContent-Length: 5\r\n\r\nsorry");
  http_server_script(&f.server, "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 5\r\n\r\nthere");
  http_server_script(&f.server, OK_4);
  http_server_script(&f.server, "HTTP/1.1 100 Continue\r\n\r\n" OK_4);
  http_server_script(&f.server,
                     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nETag: \"late\"\r\n\r\n");
  assert_int_equal(ask(&f, "HEAD", "/"), MC_OK);
  assert_int_equal(f.head.length, 4);
  assert_int_equal(ask(&f, "GET", "/"), MC_OK);
  assert_int_equal(ask(&f, "GET", "/"), MC_OK);
  assert_int_equal(f.head.status, 404);
  assert_string_equal(f.body, "");
  assert_int_equal(ask(&f, "GET", "/here"), MC_OK);
  assert_non_null(strstr(http_server_request(&f.server, 4), "GET /there "));
  assert_string_equal(f.body, "body");
  assert_int_equal(ask(&f, "GET", "/"), MC_OK);
  assert_int_equal(f.head.status, 200);
  assert_int_equal(ask(&f, "GET", "/"), MC_OK);
  assert_string_equal(f.body, "abc");
  assert_string_equal(f.head.etag, ""); /* trailers say nothing */
  assert_int_equal(http_server_connections(&f.server), 1);
  end(&f);
}

static void a_body_that_nobody_wants_is_cut_off(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  http_server_script(&f.server, "HTTP/1.1 500 Oops\r\n\r\n…an error without an end, ");
  http_server_script(&f.server, "HTTP/1.1 500 Oops\r\nContent-Length: 9999999\r\n\r\n……");
  http_server_script(&f.server, "HTTP/1.1 503 Oops\r\nRetry-After: 7\r\nContent-Length: 100\r\n\r\nstalls……");
  http_server_script(&f.server, "HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n…over there, ");
  http_server_script(&f.server, OK_4);
  assert_int_equal(ask(&f, "GET", "/"), MC_OK);
  assert_int_equal(f.head.status, 500);
  assert_int_equal(ask(&f, "GET", "/"), MC_OK);
  assert_int_equal(f.head.status, 500);
  assert_int_equal(ask(&f, "GET", "/"), MC_OK);
  assert_int_equal(f.head.status, 503);
  assert_int_equal(f.head.retry_after_ms, 7000);
  assert_int_equal(ask(&f, "GET", "/"), MC_OK);
  assert_string_equal(f.body, "body");
  end(&f);
}

static void heads_are_bounded(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  http_server_script(&f.server, "HTTP/1.1 200 OK\r\n…X-More: and more and more and more\r\n");
  http_server_script(&f.server, "HTTP/1.1 200 OK\r\n…xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
  http_server_script(&f.server, "…HTTP/1.1 100 Continue\r\n\r\n");
  http_server_script(&f.server, "HTTP/1.1 200 OK\r\nContent-Le……");
  assert_int_equal(ask(&f, "GET", "/"), MC_PROTOCOL);
  assert_non_null(strstr(f.err.message, "headers"));
  assert_int_not_equal(ask(&f, "GET", "/"), MC_OK);
  assert_int_equal(ask(&f, "GET", "/"), MC_PROTOCOL);
  int64_t since = clock_ns();
  assert_int_equal(ask(&f, "GET", "/"), MC_UNAVAILABLE);
  assert_in_range((clock_ns() - since) / NS_PER_MS, 300, 5000);
  end(&f);
}

static void answers_that_are_none(void **state) {
  (void)state;
  static const struct {
    const char *answer;
    mc_status status;
  } cases[] = {
      {"this is not HTTP\r\n\r\n", MC_PROTOCOL},
      {"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-3/9\r\nContent-Length: 4\r\n\r\nbody", MC_PROTOCOL},
      {"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", MC_PROTOCOL},
      {"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x\r\nContent-Length: 0\r\n\r\n", MC_PERMISSION_DENIED},
      {"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", MC_PERMISSION_DENIED},
      {"HTTP/1.1 302 Found\r\nLocation: http://１６９.254.169.254/\r\nContent-Length: 0\r\n\r\n", MC_PROTOCOL},
      {"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n", MC_PROTOCOL},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", MC_UNAVAILABLE},
      {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstalls……", MC_UNAVAILABLE},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct fixture f;
    begin(&f);
    http_server_script(&f.server, "%s", cases[i].answer);
    assert_int_equal(ask(&f, "GET", "/path?token=SECRET"), cases[i].status);
    assert_non_null(strstr(f.err.message, "/path"));
    assert_null(strstr(f.err.message, "SECRET"));
    end(&f);
  }
}

static void redirects(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  http_server_script(&f.server, "HTTP/1.1 301 -\r\nLocation: ../up?x=%%41\r\nContent-Length: 0\r\n\r\n");
  /* With a port of another name, a space, and user information, which is not ours to send. */
  http_server_script(&f.server,
                     "HTTP/1.1 307 -\r\nLocation: http://user:password@localhost:%s/a b?x=%%2f#part\r\n"
                     "Content-Length: 0\r\nConnection: close\r\n\r\n…",
                     strrchr(f.server.origin, ':') + 1);
  http_server_script(&f.server, OK_4);
  assert_int_equal(ask(&f, "GET", "/dir/sub/here"), MC_OK);
  assert_non_null(strstr(http_server_request(&f.server, 1), "GET /dir/up?x=%41 HTTP/1.1\r\n"));
  assert_non_null(strstr(http_server_request(&f.server, 2), "GET /a%20b?x=%2f HTTP/1.1\r\n"));
  assert_non_null(strstr(http_server_request(&f.server, 2), "Host: localhost:"));
  assert_null(strstr(http_server_request(&f.server, 2), "Authorization"));
  end(&f);
  begin(&f);
  for (int i = 0; i < 20; i++)
    http_server_script(&f.server, "HTTP/1.1 302 -\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(ask(&f, "HEAD", "/loop"), MC_PROTOCOL);
  assert_int_equal(http_server_asked(&f.server), 11);
  end(&f);
}

static void redirects_lead_to_schemes_that_are_allowed(void **state) {
  (void)state;
  struct fixture f;
  for (int i = 0; i < 2; i++) {
    mc_upstream_config config = usual();
    config.schemes = i ? "file, http" : "https,file";
    begin(&f);
    http_client_free(f.client);
    assert_int_equal(http_client_new(&f.client, &config, NULL), MC_OK);
    http_server_script(&f.server, "HTTP/1.1 302 -\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n");
    http_server_script(&f.server, OK_4);
    assert_int_equal(ask(&f, "GET", "/"), i ? MC_OK : MC_PERMISSION_DENIED);
    assert_int_equal(http_server_asked(&f.server), i + 1);
    end(&f);
  }
}

static const char *const refused[] = {
    "http://169.254.169.254/latest/",
    "http://169.254.0.1/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[fe80::1]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://100.100.100.200/",
    "http://169.254.169.254./",
    "http://0xa9fea9fe./",
    "http://[fe80::1%25lo]/",
    "http://%31%36%39.254.169.254/",
    "http://[::169.254.169.254]/",
    "https://169.254.169.254:8443/",
    "http://168.63.129.16/",
};

static void link_local_addresses_are_refused(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
    assert_int_equal(ask(&f, "GET", refused[i]), MC_PERMISSION_DENIED);
    http_server_script(&f.server, "HTTP/1.1 302 -\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", refused[i]);
    assert_int_equal(ask(&f, "GET", "/"), MC_PERMISSION_DENIED);
    assert_non_null(strstr(f.err.message, "link-local"));
    assert_int_equal(http_server_asked(&f.server), i + 1);
  }
  end(&f);
}

static sem_t answers; /* of the resolver, about slow.test */

/* In the place of libc's, for libcurl: names of such addresses. */
__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **out) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
  if (name && strcmp(name, "metadata.test") == 0) name = "169.254.169.254";
  if (name && strcmp(name, "metadata6.test") == 0) name = "fd00:ec2::254";
  if (name && strcmp(name, "slow.test") == 0) {
    while (sem_wait(&answers)) continue;
    sem_post(&answers);
    name = "127.0.0.1";
  }
  return real(name, service, hints, out);
}

static void names_of_link_local_addresses_are_refused(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  assert_int_equal(ask(&f, "GET", "http://metadata.test/latest"), MC_PERMISSION_DENIED);
  assert_int_equal(ask(&f, "GET", "http://metadata6.test/latest"), MC_PERMISSION_DENIED);
  assert_non_null(strstr(f.err.message, "link-local"));
  http_server_script(&f.server, "HTTP/1.1 302 -\r\nLocation: http://metadata.test/\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(ask(&f, "HEAD", "/"), MC_PERMISSION_DENIED);
  end(&f);
}

static void a_name_is_not_waited_for_longer_than_asked(void **state) {
  (void)state;
  struct fixture f;
  struct http_request request = {.method = "GET", .url = "http://slow.test:9/"};
  mc_call hurried = {0, NULL};
  sem_init(&answers, 0, 0);
  begin(&f);
  for (int i = 0; i < 3; i++) {
    hurried.deadline = deadline_in_ms(50);
    assert_int_equal(http_perform(f.client, &request, &f.head, &hurried, &f.err), MC_DEADLINE_EXCEEDED);
  }
  assert_int_equal(ask(&f, "GET", "http://slow.test:9/"), MC_UNAVAILABLE); /* the stall timeout */
  http_server_script(&f.server, OK_4);
  assert_int_equal(ask(&f, "GET", "/"), MC_OK);
  sem_post(&answers);
  http_client_free(f.client); /* which waits for libcurl's threads */
  while (sem_wait(&answers)) continue;
  mc_upstream_config config = usual();
  config.stall_timeout_ms = 60000;
  config.connect_timeout_ms = 50;
  assert_int_equal(http_client_new(&f.client, &config, NULL), MC_OK);
  assert_int_equal(ask(&f, "GET", "http://slow.test:9/"), MC_UNAVAILABLE);
  assert_non_null(strstr(f.err.message, "not found in time"));
  sem_post(&answers);
  end(&f);
  sem_destroy(&answers);
}

/* The proxy would connect to them for us. */
static void also_behind_a_proxy(void **state) {
  (void)state;
  struct fixture f;
  struct http_server proxy;
  mc_upstream_config config = usual();
  http_server_start(&proxy);
  setenv("http_proxy", proxy.origin, 1);
  setenv("https_proxy", proxy.origin, 1);
  memset(&f, 0, sizeof(f));
  assert_int_equal(http_client_new(&f.client, &config, NULL), MC_OK);
  for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
    assert_int_equal(ask(&f, "GET", refused[i]), MC_PERMISSION_DENIED);
  }
  assert_int_equal(http_server_connections(&proxy), 0);
  http_server_script(&proxy, "HTTP/1.1 302 -\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(ask(&f, "GET", "http://somewhere.invalid/"), MC_PERMISSION_DENIED);
  assert_int_equal(http_server_asked(&proxy), 1);
  http_client_free(f.client);

  config.allow_link_local = true;
  assert_int_equal(http_client_new(&f.client, &config, NULL), MC_OK);
  http_server_script(&proxy, OK_4);
  assert_int_equal(ask(&f, "GET", "http://169.254.169.254/"), MC_OK);
  http_client_free(f.client);
  http_server_stop(&proxy);
}

static void each_redirect_takes_its_own_proxy(void **state) {
  (void)state;
  struct fixture f;
  struct http_server proxy;
  mc_upstream_config config = usual();
  http_server_start(&proxy);
  setenv("https_proxy", proxy.origin, 1);
  memset(&f, 0, sizeof(f));
  http_server_start(&f.server);
  assert_int_equal(http_client_new(&f.client, &config, NULL), MC_OK);
  unsetenv("https_proxy"); /* it was read once */
  http_server_script(&f.server, "HTTP/1.1 302 -\r\nLocation: https://somewhere.invalid/x\r\nContent-Length: 0\r\n\r\n");
  http_server_script(&proxy, "HTTP/1.1 407 -\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(ask(&f, "GET", "/"), MC_PERMISSION_DENIED);
  assert_non_null(strstr(f.err.message, "proxy"));
  assert_non_null(strstr(http_server_request(&proxy, 0), "CONNECT somewhere.invalid:443 "));
  assert_null(strstr(http_server_request(&f.server, 0), "http://")); /* that one went without */
  http_client_free(f.client);
  http_server_stop(&f.server);
  http_server_stop(&proxy);
}

static void variables_are_those_of_curl(void **state) {
  (void)state;
  struct http_settings settings;
  mc_upstream_config config = usual();
  setenv("http_proxy", "", 1); /* as good as none */
  setenv("HTTP_PROXY", "http://cgi", 1);
  setenv("all_proxy", "http://all", 1);
  setenv("HTTPS_PROXY", "http://upper", 1);
  setenv("NO_PROXY", "a,b", 1);
  setenv("SSL_CERT_FILE", "/file", 1);
  setenv("SSL_CERT_DIR", "/folder", 1);
  assert_true(http_settings_read(&settings, &config));
  assert_string_equal(settings.proxy, "http://all");
  assert_string_equal(settings.secure_proxy, "http://upper");
  assert_string_equal(settings.no_proxy, "a,b");
  assert_string_equal(settings.ca_file, "/file");
  assert_string_equal(settings.ca_folder, "/folder");
  http_settings_free(&settings);
  setenv("https_proxy", "http://lower", 1);
  setenv("CURL_CA_BUNDLE", "/bundle", 1);
  assert_true(http_settings_read(&settings, &config));
  assert_string_equal(settings.secure_proxy, "http://lower");
  assert_string_equal(settings.ca_file, "/bundle");
  http_settings_free(&settings);
  clear_variables(NULL);
  config.user_agent = NULL;
  assert_true(http_settings_read(&settings, &config));
  assert_string_equal(settings.user_agent, "modelcache");
  assert_string_equal(settings.proxy, "");
  assert_null(settings.ca_file);
  assert_null(settings.ca_folder);
  http_settings_free(&settings);
}

static mc_status fetch(struct fixture *f, int64_t timeout_ms, mc_cancel *cancel) {
  char url[100];
  mc_call call = {deadline_in_ms(timeout_ms), cancel};
  snprintf(url, sizeof(url), "%s/x", f->server.origin);
  struct http_request request = {.method = "GET", .url = url, .on_body = take, .user = f};
  f->body_size = 0;
  f->err = (mc_error)MC_ERROR_INIT;
  return http_fetch(f->client, &request, &f->head, &call, &f->err);
}

#define BUSY(headers) "HTTP/1.1 503 -\r\nContent-Length: 0\r\n" headers "\r\n"

static void a_fetch_tries_again_as_often_as_it_may(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  http_server_script(&f.server, BUSY(""));
  http_server_script(&f.server, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\ncut…");
  http_server_script(&f.server, OK_4);
  assert_int_equal(fetch(&f, 0, NULL), MC_OK);
  assert_int_equal(http_server_asked(&f.server), 3);
  for (int i = 0; i < 3; i++) http_server_script(&f.server, BUSY(""));
  assert_int_equal(fetch(&f, 0, NULL), MC_UNAVAILABLE);
  assert_non_null(strstr(f.err.message, "503"));
  assert_int_equal(http_server_asked(&f.server), 6); /* one, and two retries */
  http_server_script(&f.server, "HTTP/1.1 404 -\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(fetch(&f, 0, NULL), MC_NOT_FOUND);
  assert_int_equal(http_server_asked(&f.server), 7);
  end(&f);
}

static void a_wait_that_is_asked_for(void **state) {
  (void)state;
  struct fixture f;
  mc_cancel *cancel;
  begin(&f);
  http_server_script(&f.server, BUSY("Retry-After: 1\r\n"));
  http_server_script(&f.server, OK_4);
  int64_t since = clock_ns();
  assert_int_equal(fetch(&f, 0, NULL), MC_OK);
  assert_in_range((clock_ns() - since) / NS_PER_MS, 1000, 8000);
  /* Longer than the call has, than anybody waits, or than the caller likes: the origin's own words, at once. */
  http_server_script(&f.server, BUSY("Retry-After: 50\r\n"));
  since = clock_ns();
  assert_int_equal(fetch(&f, 20000, NULL), MC_UNAVAILABLE);
  assert_non_null(strstr(f.err.message, "50 s"));
  http_server_script(&f.server, BUSY("Retry-After: 3600\r\n"));
  assert_int_equal(fetch(&f, 0, NULL), MC_UNAVAILABLE);
  assert_non_null(strstr(f.err.message, "3600 s"));
  assert_in_range((clock_ns() - since) / NS_PER_MS, 0, 10000);
  assert_int_equal(mc_cancel_new(&cancel, NULL), MC_OK);
  mc_cancel_trigger(cancel);
  assert_int_equal(fetch(&f, 0, cancel), MC_CANCELLED);
  mc_cancel_free(cancel);
  end(&f);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, clear_variables, clear_variables)
  const struct CMUnitTest tests[] = {
      TEST(what_is_sent_and_what_is_not),
      TEST(a_connection_is_used_for_everything),
      TEST(a_body_that_nobody_wants_is_cut_off),
      TEST(heads_are_bounded),
      TEST(answers_that_are_none),
      TEST(redirects),
      TEST(redirects_lead_to_schemes_that_are_allowed),
      TEST(link_local_addresses_are_refused),
      TEST(names_of_link_local_addresses_are_refused),
      TEST(a_name_is_not_waited_for_longer_than_asked),
      TEST(also_behind_a_proxy),
      TEST(each_redirect_takes_its_own_proxy),
      TEST(variables_are_those_of_curl),
      TEST(a_fetch_tries_again_as_often_as_it_may),
      TEST(a_wait_that_is_asked_for),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
