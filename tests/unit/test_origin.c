/* Which rule holds for a URL, and the lookup of credentials. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/origin.h"

static const mc_origin_rule rules[] = {
    {.prefix = "s3://bucket/models"}, {.prefix = "s3://"},
    {.prefix = "s3://bucket/"},       {.prefix = "s3://bucket/models/large/"},
    {.prefix = "hf://org/name"},      {.prefix = "https://host/"},
    {.prefix = "file:///data/x"},
};

static const char *prefix_for(const char *url) {
  const mc_origin_rule *rule = origin_rule(rules, sizeof(rules) / sizeof(*rules), url);
  return rule ? rule->prefix : "";
}

static void the_longest_prefix_wins(void **state) {
  (void)state;
  assert_string_equal(prefix_for("s3://bucket/models/a"), "s3://bucket/models");
  assert_string_equal(prefix_for("s3://bucket/models/large/a"), "s3://bucket/models/large/");
  assert_string_equal(prefix_for("s3://bucket/other"), "s3://bucket/");
  assert_string_equal(prefix_for("s3://bucket2/other"), "s3://");
  assert_null(origin_rule(rules, 0, "s3://bucket/models/a"));
  assert_string_equal(prefix_for("gs://bucket/models/a"), "");
}

static void a_prefix_ends_where_a_part_ends(void **state) {
  (void)state;
  assert_string_equal(prefix_for("s3://bucket/models"), "s3://bucket/models");
  assert_string_equal(prefix_for("s3://bucket/models?versionId=1"), "s3://bucket/models");
  assert_string_equal(prefix_for("s3://bucket/models2/a"), "s3://bucket/");
  assert_string_equal(prefix_for("s3://bucket/models/large"), "s3://bucket/models");
  assert_string_equal(prefix_for("hf://org/name@main/config.json"), "hf://org/name");
  assert_string_equal(prefix_for("hf://org/name/config.json"), "hf://org/name");
  assert_string_equal(prefix_for("hf://org/names/config.json"), "");
  assert_string_equal(prefix_for("https://host:8443/a"), "");
  assert_string_equal(prefix_for("https://hostile/a"), "");
  assert_string_equal(prefix_for("file:///data/x/y"), "file:///data/x");
  assert_string_equal(prefix_for("file:///data/xy"), "");
}

static void check_prefix(const char *text, const char *wanted) {
  char *normal = NULL;
  mc_error error = MC_ERROR_INIT;
  assert_int_equal(origin_prefix(&normal, text, &error), MC_OK);
  assert_string_equal(normal, wanted);
  free(normal);
}

static void refuse_prefix(const char *text) {
  char *normal = NULL;
  mc_error error = MC_ERROR_INIT;
  assert_int_equal(origin_prefix(&normal, text, &error), MC_INVALID_ARGUMENT);
  assert_true(*error.message);
}

static void prefixes_have_one_normal_form(void **state) {
  (void)state;
  check_prefix("s3://", "s3://");
  check_prefix("S3://", "s3://");
  check_prefix("https://", "https://");
  check_prefix("FILE://", "file://");
  check_prefix("s3://Bucket", "s3://Bucket/");
  check_prefix("s3://bucket/models/", "s3://bucket/models/");
  check_prefix("s3://bucket/a b", "s3://bucket/a%20b");
  check_prefix("HTTPS://Host:443/%7ex", "https://host/~x");
  check_prefix("/folder", "file:///folder");
  check_prefix("s3://HTTP://Minio:9000/bucket", "s3://http://minio:9000/bucket");
  check_prefix("s3://https://minio", "s3://https://minio/");
  check_prefix("hf://org/name@main", "hf://org/name@main");
  check_prefix("/odd://", "file:///odd://");
  refuse_prefix("");
  refuse_prefix("bucket/models");
  refuse_prefix("://");
  refuse_prefix("s 3://");
  refuse_prefix("file:x://");
  refuse_prefix("s3://http://");
  refuse_prefix("https://user:secret@host/");
  refuse_prefix("https://host/?token=1");
  refuse_prefix("a-scheme-that-is-far-too-long://");
}

static void credentials_are_found_by_name(void **state) {
  (void)state;
  const mc_setting settings[] = {{"access_key_id", "id"}, {"secret_access_key", "secret"}};
  const mc_credentials list[] = {{"hub", NULL, 0}, {"team", settings, 2}};
  const mc_credentials *team = origin_credentials(list, 2, "team");
  assert_ptr_equal(team, &list[1]);
  assert_string_equal(origin_setting(team, "secret_access_key"), "secret");
  assert_null(origin_setting(team, "secret"));
  assert_null(origin_setting(origin_credentials(list, 2, "hub"), "token"));
  assert_null(origin_credentials(list, 2, "none"));
  assert_null(origin_credentials(list, 2, NULL));
  assert_null(origin_setting(NULL, "token"));
}

/* A secret in a file of `size` bytes: what it is read as, or NULL; then `wrong` is said of it. */
static void check_file(const char *text, size_t size, const char *value, const char *wrong) {
  char path[] = "/tmp/modelcache-secret-XXXXXX", *secret = NULL;
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, size), size);
  close(fd);
  const mc_setting settings[] = {{"region", "r"}, {"token_file", path}};
  const mc_credentials hub = {"hub", settings, 2};
  mc_error err = MC_ERROR_INIT;
  mc_status status = origin_secret(&secret, &hub, "token", &err);
  unlink(path);
  if (value) {
    assert_int_equal(status, MC_OK);
    assert_string_equal(secret, value);
  } else {
    assert_int_equal(status, MC_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, wrong));
  }
  secret_free(secret);
}

static void values_may_be_in_files(void **state) {
  (void)state;
  char large[65537], *secret;
  memset(large, 'x', sizeof(large));
  check_file("a secret\n", 9, "a secret", NULL);
  check_file("line\nline\r\n", 11, "line\nline", NULL);
  check_file("", 0, NULL, "it is empty");
  check_file("\n", 1, NULL, "it is empty");
  check_file("a\0b", 3, NULL, "it has a zero byte");
  check_file(large, 65537, NULL, "it has more than 64 KiB");
  assert_int_equal(secret_read(&secret, "/", NULL), MC_INVALID_ARGUMENT);
  assert_int_equal(secret_read(&secret, "/nowhere/at/all", NULL), MC_INVALID_ARGUMENT);
  const mc_setting settings[] = {{"token", "t"}, {"token_files", "x"}};
  const mc_credentials hub = {"hub", settings, 2};
  assert_int_equal(origin_secret(&secret, &hub, "token", NULL), MC_OK);
  assert_string_equal(secret, "t");
  secret_free(secret);
  assert_int_equal(origin_secret(&secret, &hub, "tok", NULL), MC_OK);
  assert_null(secret);
  assert_int_equal(origin_secret(&secret, NULL, "token", NULL), MC_OK);
  assert_null(secret);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_longest_prefix_wins),       cmocka_unit_test(a_prefix_ends_where_a_part_ends),
      cmocka_unit_test(prefixes_have_one_normal_form), cmocka_unit_test(credentials_are_found_by_name),
      cmocka_unit_test(values_may_be_in_files),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
