/* The parts of the s3 upstream that ask nobody: signatures, addresses, listings, profiles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/upstream/s3/address.h"
#include "backends/upstream/s3/page.h"
#include "backends/upstream/s3/profile.h"
#include "backends/upstream/s3/regions.h"
#include "backends/upstream/s3/sign.h"
#include "base/buf.h"
#include "base/url.h"

/* ---- signatures: the examples of Amazon's documentation ---- */

static void the_published_examples_are_signed_as_published(void **state) {
  static const struct {
    const char *path, *query, *range, *signature;
  } examples[] = {
      {"/test.txt", "", "bytes=0-9", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
      {"/", "lifecycle=", NULL, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
      {"/", "max-keys=2&prefix=J", NULL, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
  };
  char empty[S3_SHA256_HEX];
  (void)state;
  s3_sha256(empty, "", 0);
  assert_string_equal(empty, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  for (size_t i = 0; i < sizeof(examples) / sizeof(*examples); i++) {
    struct s3_header headers[4];
    size_t count = 0;
    headers[count++] = (struct s3_header){"host", "examplebucket.s3.amazonaws.com"};
    if (examples[i].range) headers[count++] = (struct s3_header){"range", examples[i].range};
    headers[count++] = (struct s3_header){"x-amz-content-sha256", empty};
    headers[count++] = (struct s3_header){"x-amz-date", "20130524T000000Z"};
    struct s3_signing signing = {.method = "GET",
                                 .path = examples[i].path,
                                 .query = examples[i].query,
                                 .headers = headers,
                                 .header_count = count,
                                 .payload = empty,
                                 .region = "us-east-1",
                                 .service = "s3",
                                 .id = "AKIAIOSFODNN7EXAMPLE",
                                 .secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                 .time = 1369353600};
    char *value = s3_authorization(&signing);
    assert_non_null(value);
    assert_string_equal(strstr(value, "Signature=") + 10, examples[i].signature);
    assert_non_null(strstr(value, "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"));
    free(value);
  }
}

static void a_request_is_signed_with_the_session_token(void **state) {
  (void)state;
  struct http_target target = {.url = strdup("https://b.s3.eu-west-1.amazonaws.com/a%20b?versionId=1")};
  struct http_request request = {.method = "GET"};
  struct s3_header header = {"x-amz-checksum-mode", "ENABLED"};
  struct keys *keys = keys_new("test", "ID", "SECRET", "TOKEN", 0);
  bool token = false, host = false, names = false;
  assert_true(s3_sign(&target, &request, &header, "eu-west-1", "s3", keys));
  for (struct curl_slist *one = target.headers; one; one = one->next) {
    token |= strcmp(one->data, "x-amz-security-token: TOKEN") == 0;
    host |= strncmp(one->data, "host", 4) == 0;
    names |= strstr(one->data, "SignedHeaders=host;x-amz-checksum-mode;x-amz-content-sha256;x-amz-date;"
                               "x-amz-security-token,") != NULL;
    assert_null(strstr(one->data, "SECRET"));
  }
  assert_true(token && !host && names);
  curl_slist_free_all(target.headers);
  free(target.url);
  keys_release(keys);
}

static void texts_are_escaped_as_signatures_want_it(void **state) {
  struct buf out;
  (void)state;
  buf_init(&out, 1000);
  s3_escape(&out, "a b+c=@%/~-._ü", true);
  assert_string_equal(out.data, "a%20b%2Bc%3D%40%25/~-._%C3%BC");
  buf_clear(&out);
  s3_escape(&out, "a/b&", false);
  assert_string_equal(out.data, "a%2Fb%26");
  buf_free(&out);
}

/* ---- addresses ---- */

static void urls_are_read_as_triton_reads_them(void **state) {
  static const struct {
    const char *url, *endpoint, *bucket, *key, *version;
  } examples[] = {
      {"s3://bucket/a/b.bin", NULL, "bucket", "a/b.bin", NULL},
      {"s3://bucket", NULL, "bucket", "", NULL},
      {"s3://bucket/", NULL, "bucket", "", NULL},
      {"s3://bucket/folder/", NULL, "bucket", "folder/", NULL},
      {"s3://host:9000/bucket/a", "http://host:9000", "bucket", "a", NULL},
      {"s3://http://host:9000/bucket/a", "http://host:9000", "bucket", "a", NULL},
      {"s3://https://host:9000/bucket/a", "https://host:9000", "bucket", "a", NULL},
      {"s3://https://Host.example:443/bucket/a", "https://host.example", "bucket", "a", NULL},
      {"s3://https://host/bucket", "https://host", "bucket", "", NULL},
      {"s3://Host:80/bucket/a", "http://host", "bucket", "a", NULL},
      {"s3://[::1]:9000/bucket/a", "http://[::1]:9000", "bucket", "a", NULL},
      {"s3://bucket/a b+c=d@e%25f#g", NULL, "bucket", "a b+c=d@e%f#g", NULL},
      {"s3://bucket/a%3Fb", NULL, "bucket", "a?b", NULL},
      {"s3://bucket/\xc3\xbc", NULL, "bucket", "\xc3\xbc", NULL},
      {"s3://bucket/100%", NULL, "bucket", "100%", NULL},
      {"s3://bucket/a//b", NULL, "bucket", "a//b", NULL},
      {"s3://bucket/a?versionId=x%2By.z", NULL, "bucket", "a", "x+y.z"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof(examples) / sizeof(*examples); i++) {
    struct s3_address address;
    char *url;
    assert_int_equal(url_normalise(&url, examples[i].url, NULL), MC_OK);
    assert_int_equal(s3_address_parse(&address, url, NULL), MC_OK);
    assert_string_equal(address.bucket, examples[i].bucket);
    assert_string_equal(address.key, examples[i].key);
    assert_int_equal(!address.endpoint, !examples[i].endpoint);
    if (address.endpoint) assert_string_equal(address.endpoint, examples[i].endpoint);
    assert_int_equal(!address.version, !examples[i].version);
    if (address.version) assert_string_equal(address.version, examples[i].version);
    s3_address_free(&address);
    free(url);
  }
}

static void a_bad_url_is_an_error_that_says_how_it_is_written(void **state) {
  static const char *const urls[] = {"s3:///key",
                                     "s3://host:9000/",
                                     "s3://b/a?versionId=",
                                     "s3://b/a?x=1",
                                     "s3://b/a?versionId=1&x=2",
                                     "s3://http://host:80/",
                                     "s3://b/a?versionId=%zz"};
  (void)state;
  for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
    struct s3_address address;
    mc_error err = MC_ERROR_INIT;
    char *url;
    assert_int_equal(url_normalise(&url, urls[i], NULL), MC_OK);
    assert_int_equal(s3_address_parse(&address, url, &err), MC_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "write s3://BUCKET/KEY"));
    s3_address_free(&address);
    free(url);
  }
}

static void buckets_are_hosts_or_paths(void **state) {
  static const struct {
    const char *bucket, *endpoint, *region;
    enum s3_style style;
    const char *url;
  } examples[] = {
      {"bucket", NULL, "eu-west-1", S3_STYLE_AUTO, "https://bucket.s3.eu-west-1.amazonaws.com/a%20b/c"},
      {"bucket", NULL, "cn-north-1", S3_STYLE_AUTO, "https://bucket.s3.cn-north-1.amazonaws.com.cn/a%20b/c"},
      {"with.dots", NULL, "eu-west-1", S3_STYLE_AUTO, "https://s3.eu-west-1.amazonaws.com/with.dots/a%20b/c"},
      {"Upper_Case", NULL, "us-east-1", S3_STYLE_AUTO, "https://s3.us-east-1.amazonaws.com/Upper_Case/a%20b/c"},
      {"bucket", NULL, "us-east-1", S3_STYLE_PATH, "https://s3.us-east-1.amazonaws.com/bucket/a%20b/c"},
      {"bucket", "http://h:9000", "x", S3_STYLE_AUTO, "http://h:9000/bucket/a%20b/c"},
      {"bucket", "http://h:9000", "x", S3_STYLE_VIRTUAL, "http://bucket.h:9000/a%20b/c"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof(examples) / sizeof(*examples); i++) {
    struct s3_address address = {.bucket = strdup(examples[i].bucket)};
    char *url = s3_address_url(&address, "a b/c", examples[i].endpoint, examples[i].region, examples[i].style);
    assert_string_equal(url, examples[i].url);
    free(url);
    s3_address_free(&address);
  }
}

static void endpoints_have_one_form(void **state) {
  static const char *const bad[] = {"host:9000", "ftp://host", "https://host/path", "https://host?query", "https://"};
  char *endpoint;
  (void)state;
  assert_int_equal(s3_endpoint_parse(&endpoint, "HTTPS://Host:443/", "test", NULL), MC_OK);
  assert_string_equal(endpoint, "https://host");
  free(endpoint);
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    assert_int_equal(s3_endpoint_parse(&endpoint, bad[i], "test", NULL), MC_INVALID_ARGUMENT);
    assert_null(endpoint);
  }
}

/* ---- answers ---- */

#define LISTING(inside) "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3\">" inside "</ListBucketResult>"
#define OBJECT(key)                                                                                                    \
  "<Contents><Key>" key "</Key><Size>12</Size><ETag>&quot;e&quot;</ETag>"                                              \
  "<LastModified>2009-10-12T17:50:30.000Z</LastModified></Contents>"

static void a_page_is_read(void **state) {
  struct s3_page page;
  (void)state;
  const char *text = LISTING("<IsTruncated>true</IsTruncated><NextContinuationToken>t/=</NextContinuationToken>" OBJECT(
      "a+b%2Bc") "<Contents><Key>d</Key><ETag>bare</ETag></Contents><EncodingType>url</EncodingType>");
  assert_int_equal(s3_page_parse(&page, text, strlen(text), NULL), MC_OK);
  assert_int_equal(page.count, 2);
  assert_string_equal(page.next, "t/=");
  assert_string_equal(page.objects[0].key, "a b+c");
  assert_string_equal(page.objects[0].etag, "\"e\"");
  assert_int_equal(page.objects[0].size, 12);
  assert_int_equal(page.objects[0].modified, 1255369830);
  assert_string_equal(page.objects[1].etag, "\"bare\"");
  assert_true(page.objects[1].size == MC_SIZE_UNKNOWN);
  s3_page_free(&page);
  text = LISTING(OBJECT("a+b%2B"));
  assert_int_equal(s3_page_parse(&page, text, strlen(text), NULL), MC_OK);
  assert_string_equal(page.objects[0].key, "a+b%2B"); /* it does not say that it is encoded */
  assert_null(page.next);
  s3_page_free(&page);
}

static void a_page_that_is_none_is_an_error(void **state) {
  static const char *const texts[] = {
      "",
      "<ListBucketResult>",
      "<Other></Other>",
      LISTING("<IsTruncated>true</IsTruncated>"),
      LISTING("<Contents><Size>1</Size></Contents>"),
      LISTING("<Contents><Key>a</Key><Size>-1</Size></Contents>"),
      LISTING("<Contents><Key>a</Key><Size>99999999999999999999</Size></Contents>"),
      LISTING("<EncodingType>url</EncodingType><Contents><Key>%zz</Key></Contents>"),
      "<!DOCTYPE a [<!ENTITY x \"xxxx\">]><ListBucketResult><Contents><Key>&x;</Key></Contents></ListBucketResult>",
  };
  (void)state;
  for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
    struct s3_page page;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(s3_page_parse(&page, texts[i], strlen(texts[i]), &err), MC_PROTOCOL);
    assert_null(page.objects);
  }
}

static void errors_and_credentials_are_read(void **state) {
  struct s3_error error;
  struct s3_keys_text keys;
  (void)state;
  const char *text =
      "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>eu-x</Region></Error>";
  s3_error_parse(&error, text, strlen(text));
  assert_string_equal(error.code, "AuthorizationHeaderMalformed");
  assert_string_equal(error.region, "eu-x");
  text = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
  s3_error_parse(&error, text, strlen(text));
  assert_string_equal(error.code, "AccessDenied");
  s3_error_parse(&error, "<html>no</html>", 15);
  assert_string_equal(error.code, "");
  text = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>I</AccessKeyId><SecretAccessKey>S"
         "</SecretAccessKey><SessionToken>T</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials>"
         "</AssumeRoleResult></AssumeRoleResponse>";
  assert_int_equal(s3_keys_parse(&keys, text, strlen(text), NULL), MC_OK);
  assert_string_equal(keys.id, "I");
  assert_string_equal(keys.secret, "S");
  assert_string_equal(keys.token, "T");
  assert_int_equal(s3_time(keys.expiration), 1893456000);
  assert_int_equal(s3_keys_parse(&keys, "<a></a>", 7, NULL), MC_PROTOCOL);
  assert_int_equal(s3_time("yesterday"), 0);
}

/* ---- regions ---- */

static void regions_are_remembered_and_bounded(void **state) {
  static struct s3_regions regions;
  char region[S3_REGION_SIZE], bucket[32];
  (void)state;
  s3_regions_init(&regions);
  assert_false(s3_regions_find(&regions, region, NULL, "bucket"));
  s3_regions_add(&regions, "eu-west-1", NULL, "bucket");
  s3_regions_add(&regions, "eu-west-2", "http://h", "bucket");
  s3_regions_add(&regions, "eu-west-3", NULL, "bucket");
  assert_true(s3_regions_find(&regions, region, NULL, "bucket"));
  assert_string_equal(region, "eu-west-3");
  for (int i = 0; i < S3_REGIONS; i++) {
    snprintf(bucket, sizeof(bucket), "bucket-%d", i);
    s3_regions_add(&regions, "x", NULL, bucket);
  }
  assert_false(s3_regions_find(&regions, region, NULL, "bucket"));
  assert_true(s3_regions_find(&regions, region, NULL, bucket));
  s3_regions_end(&regions);
}

/* ---- profiles ---- */

static void profiles_are_read_as_the_aws_tools_read_them(void **state) {
  static const char credentials[] = "# comment\n[default]\naws_access_key_id = ID ; comment\n"
                                    "aws_secret_access_key=a#b;c\r\n\n[other]\nAWS_ACCESS_KEY_ID=ID2\n";
  static const char config[] = "[default]\nregion = eu-west-1\ns3 =\n  addressing_style = virtual\n"
                               "  endpoint_url = http://old:1\noutput = json\n  ignored = 1\n"
                               "[profile other]\nservices = local\nregion=us-west-2\n[bare]\nregion = x\n"
                               "[profile \"two words\"]\nregion = y\n"
                               "[services local]\ns3 =\n  endpoint_url = http://new:2\n";
  (void)state;
  struct s3_profiles *p = s3_profiles_new();
  assert_int_equal(s3_profiles_add(p, S3_CREDENTIALS, "c", credentials, strlen(credentials), NULL), MC_OK);
  assert_int_equal(s3_profiles_add(p, S3_CONFIG, "c", config, strlen(config), NULL), MC_OK);
  assert_string_equal(s3_profiles_value(p, "default", "aws_access_key_id"), "ID");
  assert_string_equal(s3_profiles_value(p, "default", "aws_secret_access_key"), "a#b;c");
  assert_string_equal(s3_profiles_value(p, "default", "region"), "eu-west-1");
  assert_string_equal(s3_profiles_value(p, "default", "s3.addressing_style"), "virtual");
  assert_string_equal(s3_profiles_value(p, "default", "output"), "json");
  assert_null(s3_profiles_value(p, "default", "ignored"));
  assert_string_equal(s3_profiles_endpoint(p, "default", "s3"), "http://old:1");
  assert_null(s3_profiles_endpoint(p, "default", "sts"));
  assert_string_equal(s3_profiles_value(p, "other", "aws_access_key_id"), "ID2");
  assert_string_equal(s3_profiles_endpoint(p, "other", "s3"), "http://new:2");
  assert_string_equal(s3_profiles_value(p, "two words", "region"), "y");
  assert_false(s3_profiles_have(p, "bare"));
  assert_true(s3_profiles_have(p, "other"));
  s3_profiles_free(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_published_examples_are_signed_as_published),
      cmocka_unit_test(a_request_is_signed_with_the_session_token),
      cmocka_unit_test(texts_are_escaped_as_signatures_want_it),
      cmocka_unit_test(urls_are_read_as_triton_reads_them),
      cmocka_unit_test(a_bad_url_is_an_error_that_says_how_it_is_written),
      cmocka_unit_test(buckets_are_hosts_or_paths),
      cmocka_unit_test(endpoints_have_one_form),
      cmocka_unit_test(a_page_is_read),
      cmocka_unit_test(a_page_that_is_none_is_an_error),
      cmocka_unit_test(errors_and_credentials_are_read),
      cmocka_unit_test(regions_are_remembered_and_bounded),
      cmocka_unit_test(profiles_are_read_as_the_aws_tools_read_them),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
