/* Origin rules: what they allow and set, and which of them can't be right. */
#include "tests/fakes/engine_fixture.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/origin.h"
#include "engine/engine.h"

#define SECRET "do-not-print-me"

static mc_origin_rule rules[3];

static void set_rules(struct fixture *fixture, size_t count) {
  fixture->options.origins = rules;
  fixture->options.origin_count = count;
}

static void rule(struct fixture *fixture, mc_origin_rule only) {
  rules[0] = only;
  set_rules(fixture, 1);
}

static mc_origin_rule for_prefix(const char *prefix) {
  mc_origin_rule made = MC_ORIGIN_RULE_INIT;
  made.prefix = prefix;
  return made;
}

/* ---- what they do ---- */

static bool count_listed(void *user, const mc_listed *listed) {
  (void)listed;
  ++*(unsigned *)user;
  return true;
}

static void assert_denied(mc_status status, const mc_error *error) {
  assert_int_equal(status, MC_PERMISSION_DENIED);
  assert_non_null(strstr(error->message, "by the rule for fake://host/"));
}

static void what_is_not_allowed_is_not_asked_for(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1), *other = fake_add(0, "host/open/file", 100, 2);
  mc_error error = MC_ERROR_INIT;
  mc_entry *entry;
  unsigned count = 0;
  char path[256];
  rules[0] = for_prefix("fake://host");
  rules[0].allowed = false;
  rules[1] = for_prefix("fake://host/open/");
  set_rules(fixture, 2);
  open_cache(fixture);
  assert_denied(try_get(fixture, URL, 0, &error), &error);
  assert_denied(mc_stat(&entry, fixture->cache, URL, 0, 0, &error), &error);
  assert_denied(mc_prefetch(fixture->cache, URL, false, &error), &error);
  assert_denied(mc_list_upstream(fixture->cache, "fake://host/", count_listed, &count, 0, &error), &error);
  assert_denied(mc_get_tree(NULL, fixture->cache, "fake://host/", path_in(fixture, path, "tree"), NULL, &error),
                &error);
  assert_int_equal(content->opens + content->stats, 0);
  get_once(fixture, "fake://host/open/file", other); /* the longest prefix wins */
}

static void a_copy_at_hand_is_given_while_it_is_current(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  fixture->options.revalidate_after_ms = 1000;
  open_cache(fixture);
  get_once(fixture, URL, content);
  close_cache(fixture);
  rule(fixture, for_prefix("fake://host/"));
  rules[0].allowed = false;
  open_cache(fixture);
  assert_true(get_once(fixture, URL, content));
  time_passes(1001);
  mc_error error = MC_ERROR_INIT;
  assert_denied(try_get(fixture, URL, 0, &error), &error);
  assert_int_equal(content->opens, 1);
}

static void a_rule_says_how_long_a_copy_is_current(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1), *other = fake_add(0, "other/file", 100, 2);
  fixture->options.revalidate_after_ms = 1000;
  rule(fixture, for_prefix("fake://host/"));
  rules[0].revalidate_after_ms = 5000;
  open_cache(fixture);
  get_once(fixture, URL, content);
  get_once(fixture, "fake://other/file", other);
  time_passes(2000);
  get_once(fixture, URL, content);
  get_once(fixture, "fake://other/file", other);
  assert_int_equal(content->opens, 1);
  assert_int_equal(other->opens, 2);
  time_passes(3001);
  get_once(fixture, URL, content);
  assert_int_equal(content->opens, 2);
}

static void a_rule_says_how_many_ranges_are_read_at_once(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 8 * CHUNK, 1);
  struct pending pending;
  content->stalls = true;
  content->stalls_at = 0;
  fixture->options.parallelism = 1;
  rule(fixture, for_prefix("fake://host/"));
  rules[0].parallelism = 3;
  open_cache(fixture);
  start_get(&pending, fixture, URL, NULL);
  fake_await(&content->stalled, 3);
  assert_int_equal(fake_count(&content->stalled), 3);
  fake_release(content);
  assert_int_equal(finish_get(&pending), MC_OK);
  mc_file_release(pending.file);
}

static bool is_pinned(struct fixture *fixture) {
  mc_entry *entry;
  assert_int_equal(mc_stat(&entry, fixture->cache, URL, MC_GET_CACHED, 0, NULL), MC_OK);
  bool pinned = entry->pinned;
  mc_entry_free(entry);
  return pinned;
}

static void a_rule_pins_what_is_fetched(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  fixture->options.revalidate_after_ms = 0;
  rule(fixture, for_prefix("fake://"));
  rules[0].pin = true;
  open_cache(fixture);
  get_once(fixture, URL, content);
  assert_true(is_pinned(fixture));
  assert_int_equal(try_get(fixture, URL, MC_GET_UNPIN, NULL), MC_OK);
  assert_false(is_pinned(fixture)); /* by hand */
  get_once(fixture, URL, content);
  assert_false(is_pinned(fixture)); /* and nothing was fetched since */
  fake_change(content, 100, 2);
  get_once(fixture, URL, content);
  assert_true(is_pinned(fixture));
}

static void the_upstreams_are_told(void **state) {
  struct fixture *fixture = *state;
  char prefix[] = "FAKE://host/a b", name[] = "team", value[] = SECRET;
  mc_setting settings[] = {{"token", value}};
  mc_credentials credentials[] = {{name, settings, 1}};
  rule(fixture, for_prefix(prefix));
  rules[0].credentials = name;
  rules[0].endpoint = "HTTPS://Minio.example:443/";
  rules[0].proxy = "socks5h://proxy.example:1080";
  fixture->options.credentials = credentials;
  fixture->options.credentials_count = 1;
  open_cache(fixture);
  memset(prefix, 'x', sizeof(prefix) - 1); /* what the caller has is the caller's */
  memset(name, 'x', sizeof(name) - 1);
  memset(value, 'x', sizeof(value) - 1);
  const mc_options *own = &fixture->cache->options;
  const mc_origin_rule *found = origin_rule(own->origins, own->origin_count, "fake://host/a%20b/c");
  assert_non_null(found);
  assert_string_equal(found->endpoint, "https://minio.example");
  assert_string_equal(found->proxy, "socks5h://proxy.example:1080");
  const mc_credentials *team = origin_credentials(own->credentials, own->credentials_count, found->credentials);
  assert_string_equal(origin_setting(team, "token"), SECRET);
}

/* ---- checking ---- */

static void check(struct fixture *fixture, mc_origin_check *out, mc_status wanted) {
  mc_error error = MC_ERROR_INIT;
  memset(out, 0xee, sizeof(*out));
  assert_int_equal(mc_check_origin(out, fixture->cache, URL, 0, &error), MC_OK);
  assert_int_equal(out->error.status, wanted);
  assert_true(!*out->error.message == !wanted);
}

static void a_check_tells_how_an_origin_is_asked(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  mc_origin_check found;
  fixture->options.revalidate_after_ms = 1000;
  fixture->options.parallelism = 5;
  open_cache(fixture);
  check(fixture, &found, MC_OK);
  assert_string_equal(found.rule, "");
  assert_true(found.allowed);
  assert_string_equal(found.upstream, "fake");
  assert_string_equal(found.access.endpoint, "fake://host");
  assert_string_equal(found.access.credentials, "FAKE_TOKEN");
  assert_string_equal(found.access.identity, "somebody");
  assert_true(found.access.expires_at == FAKE_EXPIRES_AT);
  assert_int_equal(found.revalidate_after_ms, 1000);
  assert_int_equal(found.parallelism, 5);
  assert_int_equal(found.bandwidth, 0);
  assert_false(found.pin);
  assert_int_equal(found.size, 100);
  assert_string_equal(found.validators.etag, content->validators.etag);
  content->missing = true;
  check(fixture, &found, MC_NOT_FOUND);
  assert_string_equal(found.access.credentials, "FAKE_TOKEN"); /* as far as it came */
  content->explain_fails = MC_UNAVAILABLE;
  check(fixture, &found, MC_UNAVAILABLE);
  assert_string_equal(found.error.message, "told to have no credentials");
  assert_int_equal(content->stats, 2);
  assert_int_equal(mc_check_origin(&found, fixture->cache, "no url", 0, NULL), MC_INVALID_ARGUMENT);
}

static void a_check_tells_what_a_rule_says(void **state) {
  struct fixture *fixture = *state;
  struct fake_content *content = fake_add(0, FILE_NAME, 100, 1);
  mc_origin_check found;
  rule(fixture, for_prefix("fake://host"));
  rules[0].revalidate_after_ms = -1;
  rules[0].parallelism = 7;
  rules[0].bandwidth = 4096;
  rules[0].pin = true;
  open_cache(fixture);
  check(fixture, &found, MC_OK);
  assert_string_equal(found.rule, "fake://host/");
  assert_int_equal(found.revalidate_after_ms, -1);
  assert_int_equal(found.parallelism, 7);
  assert_int_equal(found.bandwidth, 4096);
  assert_true(found.pin);
  close_cache(fixture);
  rules[0].allowed = false;
  open_cache(fixture);
  check(fixture, &found, MC_PERMISSION_DENIED);
  assert_false(found.allowed);
  assert_string_equal(found.upstream, "");
  assert_string_equal(found.access.credentials, "");
  assert_int_equal(content->stats, 1);
}

/* ---- which can't be right ---- */

static void refused(struct fixture *fixture, const char *what) {
  mc_error error = MC_ERROR_INIT;
  mc_cache *cache = NULL;
  assert_int_equal(mc_open_options(&cache, &fixture->options, &error), MC_INVALID_ARGUMENT);
  assert_null(cache);
  if (!strstr(error.message, what)) fail_msg("'%s' has no '%s'", error.message, what);
  assert_null(strstr(error.message, SECRET));
}

static void rules_that_can_not_be_right(void **state) {
  struct fixture *fixture = *state;
  char folder[256];
  rule(fixture, for_prefix(NULL));
  refused(fixture, "an origin rule has no prefix");
  rule(fixture, for_prefix("host/file"));
  refused(fixture, "the origin rule for host/file: prefix: ");
  rule(fixture, for_prefix("https://user:" SECRET "@host/"));
  refused(fixture, "the origin rule for https://host/: prefix: ");
  rule(fixture, for_prefix("s3://b/"));
  rules[0].credentials = "team";
  refused(fixture, "the origin rule for s3://b/: credentials: there are none named 'team'");
  rule(fixture, for_prefix("s3://b/"));
  rules[0].endpoint = "minio:9000";
  refused(fixture, "the origin rule for s3://b/: endpoint: ");
  rules[0].endpoint = "ftp://minio:9000";
  refused(fixture, "endpoint: it has to be http://HOST:PORT");
  rules[0].endpoint = "https://minio:9000/?x=" SECRET;
  refused(fixture, "endpoint: it has to be http://HOST:PORT");
  rules[0].endpoint = "https://user:" SECRET "@minio:9000/";
  refused(fixture, "endpoint: ");
  rule(fixture, for_prefix("s3://b/"));
  rules[0].proxy = "proxy:3128";
  refused(fixture, "proxy: ");
  rules[0].proxy = "none";
  rules[0].ca_file = path_in(fixture, folder, "nothing.pem");
  refused(fixture, "the origin rule for s3://b/: ca_file: ");
  rules[0].ca_file = fixture->folder;
  refused(fixture, "ca_file: it is not a file");
  rule(fixture, for_prefix("s3://b/"));
  rules[0].parallelism = 65;
  refused(fixture, "the origin rule for s3://b/: parallelism: '65' is out of bounds: at least 0, at most 64");
  rules[0] = for_prefix("s3://b");
  rules[1] = for_prefix("s3://b/");
  set_rules(fixture, 2);
  refused(fixture, "the origin rule for s3://b/: there are two of them");
  set_rules(fixture, 100000);
  refused(fixture, "more than 1024 origin rules");
}

static void credentials_that_can_not_be_right(void **state) {
  struct fixture *fixture = *state;
  mc_setting settings[] = {{"token", SECRET}, {"token", SECRET}};
  mc_credentials credentials[] = {{"team", settings, 2}, {"team", settings, 1}};
  fixture->options.credentials = credentials;
  fixture->options.credentials_count = 2;
  refused(fixture, "the credentials 'team': token is there twice");
  credentials[0].count = 1;
  refused(fixture, "there are credentials named 'team' twice");
  credentials[1].name = "none";
  refused(fixture, "credentials need a name, which is not 'none'");
  credentials[1].name = NULL;
  refused(fixture, "credentials need a name");
  credentials[1].name = "other";
  settings[0].value = "";
  refused(fixture, "the credentials 'team': token is empty");
  settings[0] = (mc_setting){NULL, SECRET};
  refused(fixture, "the credentials 'team' have a value without a key");
}

static void schemes_that_are_not_there(void **state) {
  struct fixture *fixture = *state;
  mc_error error = MC_ERROR_INIT;
  fixture->options.schemes = "fake,htps";
  refused(fixture, "schemes: there is no scheme 'htps'; there is: fake, http, https, ");
  fixture->options.schemes = "fake";
  open_cache(fixture);
  assert_int_equal(try_get(fixture, "gopher://host/x", 0, &error), MC_UNSUPPORTED);
  assert_non_null(strstr(error.message, "no upstream takes URLs with gopher://; there is: fake, http, https, "));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(what_is_not_allowed_is_not_asked_for),
      TEST(a_copy_at_hand_is_given_while_it_is_current),
      TEST(a_rule_says_how_long_a_copy_is_current),
      TEST(a_rule_says_how_many_ranges_are_read_at_once),
      TEST(a_rule_pins_what_is_fetched),
      TEST(the_upstreams_are_told),
      TEST(a_check_tells_how_an_origin_is_asked),
      TEST(a_check_tells_what_a_rule_says),
      TEST(rules_that_can_not_be_right),
      TEST(credentials_that_can_not_be_right),
      TEST(schemes_that_are_not_there),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
