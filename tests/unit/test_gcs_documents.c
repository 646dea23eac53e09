/* URLs of Google Cloud Storage, and what its JSON API answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "backends/upstream/gcs/account.h"
#include "backends/upstream/gcs/address.h"
#include "backends/upstream/gcs/documents.h"
#include "base/clock.h"
#include "base/url.h"

/* ---- addresses ---- */

static void an_address_is_a_bucket_and_an_object(void **state) {
  (void)state;
  static const struct {
    const char *url, *bucket, *object, *generation, *asked;
  } rows[] = {
      {"gs://bucket/a/b.bin", "bucket", "a/b.bin", "", "a%2Fb.bin"},
      {"gs://my.bucket_1/a b+=@#%%zz&.bin", "my.bucket_1", "a b+=@#%%zz&.bin", "", "a%20b%2B%3D%40%23%25%25zz%26.bin"},
      {"gs://bucket/what%3F?generation=123", "bucket", "what?", "123", "what%3F"},
      {"gs://bucket/\xC3\xBCn\xC3\xAF", "bucket", "\xC3\xBCn\xC3\xAF", "", "%C3%BCn%C3%AF"},
      {"gs://bucket/folder/", "bucket", "folder/", "", "folder%2F"},
      {"gs://bucket", "bucket", "", "", ""},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    struct gcs_address address;
    char *normal, expected[200];
    assert_int_equal(url_normalise(&normal, rows[i].url, NULL), MC_OK);
    assert_int_equal(gcs_address_parse(&address, normal, NULL), MC_OK);
    assert_string_equal(address.bucket, rows[i].bucket);
    assert_string_equal(address.object, rows[i].object);
    assert_string_equal(address.generation, rows[i].generation);
    char *url = gcs_media_url("http://h", &address, address.generation);
    snprintf(expected, sizeof(expected), "http://h/download/storage/v1/b/%s/o/%s?alt=media%s%s", rows[i].bucket,
             rows[i].asked, *rows[i].generation ? "&generation=" : "", rows[i].generation);
    assert_string_equal(url, expected);
    free(url);
    gcs_address_free(&address);
    free(normal);
  }
}

static void an_address_that_is_none_says_how_it_is_written(void **state) {
  (void)state;
  static const char *const urls[] = {
      "gs:///object",
      "gs://B/object",
      "gs://UPPER/object",
      "gs://bucket:80/object",
      "gs://.bucket/object",
      "gs://bucket/o?versionId=1",
      "gs://bucket/o?",
      "gs://bucket/o?generation",
      "gs://bucket/o?generation=",
      "gs://bucket/o?generation=x",
      "gs://bucket/o?generation=1&x=secret",
      "s3://bucket/o",
      "gs://bucket/o?generation=1234567890123456789012345",
  };
  for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
    struct gcs_address address;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(gcs_address_parse(&address, urls[i], &err), MC_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "gs://bucket/object"));
    assert_null(strstr(err.message, "secret"));
    assert_null(address.object);
  }
}

/* ---- documents ---- */

static mc_status object(struct gcs_object *out, const char *text) {
  return gcs_object_parse(out, text, strlen(text), NULL);
}

static void an_object_is_read(void **state) {
  (void)state;
  static const uint8_t crc[] = {0xe3, 0x06, 0x92, 0x83}; /* of "123456789" */
  struct gcs_object one;
  assert_int_equal(object(&one,
                          "{\"name\": \"a/b\", \"size\": \"9\", \"generation\": \"1795511891180900\", \"crc32c\": "
                          "\"4waSgw==\", \"md5Hash\": \"JfnnlDI7RTiF9RgfGz+uYQ==\", \"updated\": "
                          "\"2024-05-06T07:08:09.123Z\"}"),
                   MC_OK);
  assert_string_equal(one.name, "a/b");
  assert_int_equal(one.size, 9);
  assert_string_equal(one.validators.version, "1795511891180900");
  assert_int_equal(one.validators.last_modified, 1714979289);
  assert_int_equal(one.checksum.kind, MC_CHECKSUM_CRC32C);
  assert_memory_equal(one.checksum.bytes, crc, 4);
  gcs_object_free(&one);
  assert_int_equal(object(&one, "{\"name\": \"a\", \"size\": 9, \"generation\": 5, \"crc32c\": \"    AA==\"}"), MC_OK);
  assert_int_equal(one.checksum.kind, MC_CHECKSUM_NONE);
  gcs_object_free(&one);
  /* Numbers as such, and no more than there has to be. */
  assert_int_equal(object(&one, "{\"name\": \"a\", \"size\": 9, \"generation\": 5, \"crc32c\": \"?\", \"updated\": 1}"),
                   MC_OK);
  assert_int_equal(one.checksum.kind, MC_CHECKSUM_NONE);
  assert_int_equal(one.validators.last_modified, 0);
  gcs_object_free(&one);
  assert_int_equal(
      object(&one,
             "{\"name\": \"a\", \"size\": \"0\", \"generation\": \"5\", \"md5Hash\": \"JfnnlDI7RTiF9RgfGz+uYQ==\"}"),
      MC_OK);
  assert_int_equal(one.checksum.kind, MC_CHECKSUM_MD5);
  assert_int_equal(one.checksum.bytes[0], 0x25);
  gcs_object_free(&one);
}

static void an_object_that_can_not_be_one(void **state) {
  (void)state;
  static const char *const texts[] = {
      "",
      "[]",
      "{",
      "{\"size\": \"9\", \"generation\": \"1\"}",
      "{\"name\": \"\", \"size\": \"9\", \"generation\": \"1\"}",
      "{\"name\": \"a\", \"generation\": \"1\"}",
      "{\"name\": \"a\", \"size\": \"-9\", \"generation\": \"1\"}",
      "{\"name\": \"a\", \"size\": -9, \"generation\": \"1\"}",
      "{\"name\": \"a\", \"size\": \"18446744073709551616\", \"generation\": \"1\"}",
      "{\"name\": \"a\", \"size\": \"18446744073709551615\", \"generation\": \"1\"}",
      "{\"name\": \"a\", \"size\": \"9\"}",
      "{\"name\": \"a\", \"size\": \"9\", \"generation\": \"1; x\"}",
  };
  struct gcs_object one;
  for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) assert_int_equal(object(&one, texts[i]), MC_PROTOCOL);
}

static void checksums_of_heads(void **state) {
  (void)state;
  static const struct {
    const char *value;
    mc_checksum_kind kind;
  } rows[] = {
      {"crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfGz+uYQ==", MC_CHECKSUM_CRC32C},
      {"md5=JfnnlDI7RTiF9RgfGz+uYQ==, crc32c=4waSgw==", MC_CHECKSUM_CRC32C},
      {"md5=JfnnlDI7RTiF9RgfGz+uYQ==", MC_CHECKSUM_MD5},
      {"crc32c=4waSg===", MC_CHECKSUM_NONE},
      {"crc32c=4waSgwAA", MC_CHECKSUM_NONE},
      {"crc32c=====4wa", MC_CHECKSUM_NONE},
      {"crc32c", MC_CHECKSUM_NONE},
      {"", MC_CHECKSUM_NONE},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    mc_checksum checksum;
    gcs_checksum_parse(&checksum, rows[i].value);
    assert_int_equal(checksum.kind, rows[i].kind);
  }
}

static void times(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t seconds; /* -1: none */
  } rows[] = {{"1970-01-01T00:00:00Z", 0},
              {"2024-05-06T07:08:09Z", 1714979289},
              {"2024-05-06T07:08:09.123456789Z", 1714979289},
              {"2024-05-06T09:08:09+02:00", 1714979289},
              {"2024-05-06T06:38:09.5-00:30", 1714979289},
              {"2024-13-06T07:08:09Z", -1},
              {"2024-05-06T07:08:09", -1},
              {"2024-05-06T07:08:09Zx", -1},
              {"1969-05-06T07:08:09Z", -1},
              {"yesterday", -1},
              {"", -1}};
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    int64_t seconds = -1;
    assert_int_equal(gcs_time_parse(&seconds, rows[i].text), rows[i].seconds >= 0);
    assert_int_equal(seconds, rows[i].seconds);
  }
}

static void failures_are_words(void **state) {
  (void)state;
  static const struct {
    const char *body, *reason;
    bool no_bucket, payer;
  } rows[] = {
      {"{\"error\": {\"errors\": [{\"reason\": \"forbidden\"}], \"code\": 403, \"message\": \"x\"}}", "forbidden",
       false, false},
      {"{\"error\": {\"code\": 403, \"status\": \"PERMISSION_DENIED\"}}", "PERMISSION_DENIED", false, false},
      {"{\"error\": \"invalid_grant\", \"error_description\": \"Bad Request\"}", "invalid_grant", false, false},
      {"{\"error\": {\"errors\": [{\"reason\": \"has ya29.token\"}]}}", "", false, false},
      {"{\"error\": {\"message\": \"The specified bucket does not exist.\"}}", "", true, false},
      {"{\"error\": {\"message\": \"Bucket is a requester pays bucket but no user project provided.\"}}", "", false,
       true},
      {"{\"error\": {\"errors\": 5, \"message\": []}}", "", false, false},
      {"Not Found", "", false, false},
      {"", "", false, false},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    struct gcs_failure failure;
    gcs_failure_parse(&failure, rows[i].body);
    assert_string_equal(failure.reason, rows[i].reason);
    assert_int_equal(failure.no_bucket, rows[i].no_bucket);
    assert_int_equal(failure.payer, rows[i].payer);
  }
}

/* ---- tokens and accounts ---- */

static void a_token_can_be_sent(void **state) {
  (void)state;
  static const char *const bad[] = {"",
                                    "{}",
                                    "{\"access_token\": 5}",
                                    "{\"access_token\": \"\"}",
                                    "{\"access_token\": \"a b\"}",
                                    "{\"access_token\": \"a\\r\\nX: y\"}"};
  struct gcs_token token;
  static const char good[] = "{\"access_token\": \"ya29.x\", \"expires_in\": 3599}",
                    until[] = "{\"accessToken\": \"ya29.y\", \"expireTime\": \"2030-01-01T00:00:00Z\"}",
                    huge[] = "{\"access_token\": \"ya29.z\", \"expires_in\": \"18446744073709551615\"}";
  int64_t now = clock_wall_ms();
  assert_int_equal(gcs_token_parse(&token, good, strlen(good), NULL), MC_OK);
  assert_string_equal(token.text, "ya29.x");
  assert_true(token.expires_at >= now + 3599000 && token.expires_at < now + 3700000);
  gcs_token_free(&token);
  assert_int_equal(gcs_token_parse(&token, until, strlen(until), NULL), MC_OK);
  assert_int_equal(token.expires_at, 1893456000000);
  gcs_token_free(&token);
  assert_int_equal(gcs_token_parse(&token, huge, strlen(huge), NULL), MC_OK);
  assert_true(token.expires_at > now);
  gcs_token_free(&token);
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    assert_int_equal(gcs_token_parse(&token, bad[i], strlen(bad[i]), NULL), MC_PROTOCOL);
    assert_null(token.text);
  }
}

static void an_account_says_what_it_lacks(void **state) {
  (void)state;
  static const struct {
    const char *text, *says;
    mc_status status;
  } rows[] = {
      {"hunter2", "no JSON", MC_INVALID_ARGUMENT},
      {"{\"type\": \"hunter\"}", "type 'hunter'", MC_UNSUPPORTED},
      {"{}", "type ''", MC_UNSUPPORTED},
      {"{\"type\": \"service_account\", \"client_email\": \"a@b\"}", "private_key", MC_INVALID_ARGUMENT},
      {"{\"type\": \"authorized_user\", \"client_id\": \"a\", \"client_secret\": \"hunter2\"}", "refresh_token",
       MC_INVALID_ARGUMENT},
      {"{\"type\": \"external_account\", \"audience\": \"a\", \"subject_token_type\": \"b\", \"token_url\": "
       "\"https://t\"}",
       "credential_source", MC_INVALID_ARGUMENT},
      {"{\"type\": \"external_account\", \"audience\": \"a\", \"subject_token_type\": \"b\", \"token_url\": "
       "\"ftp://t\"}",
       "token_url", MC_INVALID_ARGUMENT},
      {"{\"type\": \"external_account\", \"audience\": \"a\", \"subject_token_type\": \"b\", \"token_url\": "
       "\"https://t\", "
       "\"credential_source\": {\"environment_id\": \"aws1\"}}",
       "AWS", MC_UNSUPPORTED},
      {"{\"type\": \"external_account\", \"audience\": \"a\", \"subject_token_type\": \"b\", \"token_url\": "
       "\"https://t\", "
       "\"credential_source\": {\"file\": \"/f\", \"format\": {\"type\": \"json\"}}}",
       "subject_token_field_name", MC_INVALID_ARGUMENT},
      {"{\"type\": \"impersonated_service_account\", \"service_account_impersonation_url\": \"https://i\"}", "type ''",
       MC_UNSUPPORTED},
      {"{\"type\": \"impersonated_service_account\", \"service_account_impersonation_url\": \"https://i\", "
       "\"source_credentials\": {\"type\": \"impersonated_service_account\", \"service_account_impersonation_url\": "
       "\"https://i\"}}",
       "impersonated_service_account", MC_UNSUPPORTED},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    json_t *account;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(gcs_account_parse(&account, rows[i].text, strlen(rows[i].text), &err), rows[i].status);
    assert_non_null(strstr(err.message, rows[i].says));
    assert_null(strstr(err.message, "hunter2"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_address_is_a_bucket_and_an_object),
      cmocka_unit_test(an_address_that_is_none_says_how_it_is_written),
      cmocka_unit_test(an_object_is_read),
      cmocka_unit_test(an_object_that_can_not_be_one),
      cmocka_unit_test(checksums_of_heads),
      cmocka_unit_test(times),
      cmocka_unit_test(failures_are_words),
      cmocka_unit_test(a_token_can_be_sent),
      cmocka_unit_test(an_account_says_what_it_lacks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
