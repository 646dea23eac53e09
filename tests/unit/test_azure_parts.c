/* The azure upstream's parts: URLs, signatures, connection strings, and what is answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "backends/upstream/azure/address.h"
#include "backends/upstream/azure/blobs.h"
#include "backends/upstream/azure/connection.h"
#include "backends/upstream/azure/kinds.h"
#include "backends/upstream/azure/sign.h"
#include "backends/upstream/azure/token.h"
#include "base/buf.h"

#define KEY "dGhlIGtleSBvZiBtb2RlbGNhY2hlJ3MgdGVzdHM="

static void assert_text(char *text, const char *expected) {
  assert_non_null(text);
  assert_string_equal(text, expected);
  free(text);
}

/* ---- URLs ---- */

static void urls_name_an_account_a_container_and_a_blob(void **state) {
  (void)state;
  static const struct {
    const char *url, *suffix, *container, *blob, *version;
  } cases[] = {
      {"as://account/c/a/b.bin", "core.windows.net", "c", "a/b.bin", ""},
      {"as://account.blob.core.windows.net/c/a/b.bin", "core.windows.net", "c", "a/b.bin", ""},
      {"as://account.blob.core.chinacloudapi.cn/c/a", "core.chinacloudapi.cn", "c", "a", ""},
      {"as://account/$root/a", "core.windows.net", "$root", "a", ""},
      {"as://account/c", "core.windows.net", "c", "", ""},
      {"as://account/c/", "core.windows.net", "c", "", ""},
      {"as://account/c/a b%20c%25#+=@", "core.windows.net", "c", "a b c%#+=@", ""},
      {"as://account/c/\xc3\xbc", "core.windows.net", "c", "\xc3\xbc", ""},
      {"as://account/c/a?versionid=2024-05-06T07:08:09.0000000Z", "core.windows.net", "c", "a",
       "versionid=2024-05-06T07:08:09.0000000Z"},
      {"as://account/c/a?Snapshot=2024-05-06T07%3A08%3A09.0000000Z", "core.windows.net", "c", "a",
       "snapshot=2024-05-06T07:08:09.0000000Z"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct azure_address address;
    assert_int_equal(azure_address_parse(&address, cases[i].url, NULL), MC_OK);
    assert_string_equal(address.account, "account");
    assert_string_equal(address.suffix, cases[i].suffix);
    assert_string_equal(address.container, cases[i].container);
    assert_string_equal(address.blob, cases[i].blob);
    assert_string_equal(address.version, cases[i].version);
    azure_address_free(&address);
  }
}

static void urls_that_can_not_be_say_how_one_is_written(void **state) {
  (void)state;
  static const char *const urls[] = {
      "as://",
      "as://account",
      "as://account//a",
      "as:///c/a",
      "as://Account/c/a",
      "as://a_b/c/a",
      "as://account:10000/c/a",
      "as://account.blob.example.com/c/a",
      "as://account.dfs.core.windows.net/c/a",
      "as://account/c/a?",
      "as://account/c/a?sv=2020&sig=hunter2",
      "as://account/c/a?versionid=",
      "as://account/c/a?versionid=x&sig=hunter2",
      "as://account.blob.core.windows.net.example.com/c/a",
      "as://account/c%20d/a",
  };
  for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
    struct azure_address address;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(azure_address_parse(&address, urls[i], &err), MC_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "as://ACCOUNT/CONTAINER/PATH"));
    assert_null(strstr(err.message, "hunter2"));
    assert_null(address.blob);
  }
}

static void what_is_asked(void **state) {
  (void)state;
  struct azure_address address;
  assert_int_equal(azure_address_parse(&address, "as://account/c/a b/%2525+=@\xc3\xbc'*~", NULL), MC_OK);
  assert_text(azure_blob_url("https://h", &address), "https://h/c/a%20b/%2525%2B%3D%40%C3%BC%27%2A~");
  assert_text(azure_list_url("https://h/account", &address, ""),
              "https://h/account/c?restype=container&comp=list&include=metadata&maxresults=5000"
              "&prefix=a%20b%2F%2525%2B%3D%40%C3%BC%27%2A~");
  azure_address_free(&address);
  assert_int_equal(azure_address_parse(&address, "as://account/c/?snapshot=2024-05-06T07:08:09Z", NULL), MC_OK);
  assert_text(azure_blob_url("https://h", &address), "https://h/c/?snapshot=2024-05-06T07%3A08%3A09Z");
  assert_text(azure_list_url("https://h", &address, "2!8&="),
              "https://h/c?restype=container&comp=list&include=metadata&maxresults=5000&marker=2%218%26%3D");
  azure_address_free(&address);
}

static void endpoints(void **state) {
  (void)state;
  char account[AZURE_ACCOUNT_SIZE];
  assert_text(azure_endpoint("http://127.0.0.1:10000", "account"), "http://127.0.0.1:10000/account");
  assert_text(azure_endpoint("http://127.0.0.1:10000/other/", "account"), "http://127.0.0.1:10000/other");
  assert_text(azure_endpoint("http://[::1]:10000/", "account"), "http://[::1]:10000/account");
  assert_text(azure_endpoint("http://azurite:10000", "account"), "http://azurite:10000/account");
  assert_text(azure_endpoint("https://account.blob.example.com/", "account"), "https://account.blob.example.com");
  assert_true(azure_endpoint_account(account, "http://127.0.0.1:10000/devstoreaccount1"));
  assert_string_equal(account, "devstoreaccount1");
  assert_true(azure_endpoint_account(account, "https://one.blob.core.windows.net/"));
  assert_string_equal(account, "one");
  assert_false(azure_endpoint_account(account, "https://storage.example.com"));
  assert_false(azure_endpoint_account(account, "http://127.0.0.1:10000"));
  assert_true(azure_is_endpoint("https://h:1/a"));
  static const char *const bad[] = {"h:1", "ftp://h", "https://", "https://user@h", "https://h/?sig=x", "https://h h"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) assert_false(azure_is_endpoint(bad[i]));
}

/* ---- signatures ---- */

static void a_date_is_as_http_has_it(void **state) {
  (void)state;
  char text[AZURE_DATE_SIZE];
  azure_date(text, 1435361952);
  assert_string_equal(text, "Fri, 26 Jun 2015 23:39:12 GMT");
  azure_date(text, 0);
  assert_string_equal(text, "Thu, 01 Jan 1970 00:00:00 GMT");
}

/* As in the service's own description of it. */
static void what_is_signed_is_as_the_service_describes_it(void **state) {
  (void)state;
  struct azure_signing signing = {.method = "GET",
                                  .account = "myaccount",
                                  .if_match = "",
                                  .range = "",
                                  .date = "Fri, 26 Jun 2015 23:39:12 GMT",
                                  .version = "2015-02-21"};
  static const char *const urls[][2] = {
      {"https://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=metadata&timeout=20",
       "/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"},
      {"http://127.0.0.1:10000/devstoreaccount1/mycontainer/my%20blob?Snapshot=2011-03-09T01%3A42%3A34Z",
       "/myaccount/devstoreaccount1/mycontainer/my%20blob\nsnapshot:2011-03-09T01:42:34Z"},
      {"https://myaccount.blob.core.windows.net/", "/myaccount/"},
  };
  for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
    struct buf out;
    char expected[500] = "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\n"
                         "x-ms-version:2015-02-21\n";
    buf_init(&out, 10000);
    signing.url = urls[i][0];
    assert_true(azure_string_to_sign(&out, &signing));
    assert_string_equal(out.data, strcat(expected, urls[i][1]));
    buf_free(&out);
  }
  signing.url = "https://host";
  assert_null(azure_sign(&signing, KEY));
}

static void a_signature(void **state) {
  (void)state;
  struct azure_signing signing = {.method = "GET",
                                  .url = "https://h/mycontainer/a%20b",
                                  .account = "myaccount",
                                  .if_match = "\"0x8D\"",
                                  .range = "bytes=0-9",
                                  .date = "Fri, 26 Jun 2015 23:39:12 GMT",
                                  .version = "2020-10-02"};
  assert_text(azure_sign(&signing, KEY), "SharedKey myaccount:ki09p/T1MB01xDEvd5Pibi1if1+JPv6UKShyeA9WYKA=");
  static const char *const keys[] = {"", "=", "====", "abc", "ab=c", "not base64!!", "hunter2"};
  for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
    assert_false(azure_is_key(keys[i]));
    assert_null(azure_sign(&signing, keys[i]));
  }
}

/* ---- credentials ---- */

static void connection_strings(void **state) {
  (void)state;
  static const struct {
    const char *text, *account, *key, *sas, *endpoint;
  } cases[] = {
      {"DefaultEndpointsProtocol=https;AccountName=one;AccountKey=" KEY ";EndpointSuffix=core.usgovcloudapi.net", "one",
       KEY, NULL, "https://one.blob.core.usgovcloudapi.net"},
      {"AccountName=one;AccountKey=" KEY, "one", KEY, NULL, NULL},
      {" accountname=one ; ACCOUNTKEY=" KEY ";\n", "one", KEY, NULL, NULL},
      {"AccountName=one;AccountKey=" KEY ";BlobEndpoint=http://127.0.0.1:10000/one/;", "one", KEY, NULL,
       "http://127.0.0.1:10000/one"},
      {"BlobEndpoint=https://two.blob.core.windows.net;SharedAccessSignature=sv=1&sig=a%3D", "two", NULL,
       "sv=1&sig=a%3D", "https://two.blob.core.windows.net"},
      {"UseDevelopmentStorage=true", "devstoreaccount1",
       "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==", NULL,
       "http://127.0.0.1:10000/devstoreaccount1"},
      {"UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://emulator", "devstoreaccount1",
       "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==", NULL,
       "http://emulator:10000/devstoreaccount1"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct azure_connection connection;
    assert_int_equal(azure_connection_parse(&connection, cases[i].text, "X", NULL), MC_OK);
    assert_string_equal(connection.account, cases[i].account);
    const char *const got[] = {connection.key, connection.sas, connection.endpoint};
    const char *const expected[] = {cases[i].key, cases[i].sas, cases[i].endpoint};
    for (int k = 0; k < 3; k++) {
      assert_int_equal(got[k] == NULL, expected[k] == NULL);
      if (got[k]) assert_string_equal(got[k], expected[k]);
    }
    azure_connection_end(&connection);
  }
  static const char *const bad[] = {
      "",
      "hunter2",
      "AccountKey=" KEY,
      "AccountName=one;AccountKey=hunter2",
      "AccountName=;AccountKey=" KEY,
      "AccountName=one;BlobEndpoint=one.example.com/hunter2",
      "BlobEndpoint=https://hunter2.example.com",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    struct azure_connection connection;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(azure_connection_parse(&connection, bad[i], "THE VARIABLE", &err), MC_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "THE VARIABLE"));
    assert_null(strstr(err.message, "hunter2"));
  }
}

static void when_a_sas_ends(void **state) {
  (void)state;
  assert_int_equal(azure_sas_end("sv=1&se=2015-06-26T23%3A39%3A12Z&sig=x"), 1435361952000);
  assert_int_equal(azure_sas_end("se=2015-06-26T23:39Z"), 1435361940000);
  assert_int_equal(azure_sas_end("?se=1970-01-02&sv=1"), 86400000);
  assert_int_equal(azure_sas_end("sv=1&sse=2015-06-26"), 0);
  assert_int_equal(azure_sas_end("se=never"), 0);
  assert_int_equal(azure_sas_end("se=%"), 0);
  assert_int_equal(azure_sas_end(""), 0);
}

static void tokens(void **state) {
  (void)state;
  static const struct azure_identity identity = {.where = "here", .client_id = "me"};
  struct keys *keys;
  static const struct {
    const char *text;
    int64_t expires_at;
  } good[] = {
      {"{\"access_token\": \"eyJ.a.b\", \"expires_in\": 3599, \"token_type\": \"Bearer\"}", 3600000},
      {"{\"access_token\": \"eyJ.a.b\", \"expires_in\": \"3599\"}", 3600000},
      {"{\"access_token\": \"eyJ.a.b\", \"expires_in\": \"3599\", \"expires_on\": \"5000\"}", 5000000},
  };
  for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
    assert_int_equal(azure_token_parse(&keys, &identity, good[i].text, strlen(good[i].text), 1000, NULL), MC_OK);
    assert_string_equal(keys->token, "eyJ.a.b");
    assert_string_equal(keys->id, "me");
    assert_int_equal(keys->expires_at, good[i].expires_at);
    keys_release(keys);
  }
  static const char *const bad[] = {
      "",
      "[]",
      "{}",
      "{\"access_token\": \"hunter2\"}",
      "{\"access_token\": \"\", \"expires_in\": 1}",
      "{\"access_token\": \"a b\", \"expires_in\": 1}",
      "{\"access_token\": \"a\\r\\nb: c\", \"expires_in\": 1}",
      "{\"access_token\": \"?sig=a\", \"expires_in\": 1}",
      "{\"access_token\": \"hunter2\", \"expires_in\": -1}",
      "{\"access_token\": \"hunter2\", \"expires_on\": 9223372036854775807}",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(azure_token_parse(&keys, &identity, bad[i], strlen(bad[i]), 1000, &err), MC_PROTOCOL);
    assert_null(strstr(err.message, "hunter2"));
  }
}

static void refusals_of_tokens_tell_codes_alone(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"{\"error\": \"invalid_client\", \"error_description\": \"AADSTS7000215: Invalid hunter2\"}",
       "invalid_client, AADSTS7000215"},
      {"{\"error\": \"invalid_client\"}", "invalid_client"},
      {"{\"error\": \"hunter2 is wrong\", \"error_description\": \"AADSTS: x\"}", "no reason is told"},
      {"<html>", "no reason is told"},
      {"", "no reason is told"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    char text[100];
    azure_token_refusal(text, sizeof(text), cases[i][0]);
    assert_string_equal(text, cases[i][1]);
  }
}

/* ---- listings ---- */

#define PAGE(blobs, more)                                                                                              \
  "<?xml version=\"1.0\"?><EnumerationResults><Blobs>" blobs "</Blobs>" more "</EnumerationResults>"

static void a_page(void **state) {
  (void)state;
  struct azure_page page;
  static const char text[] = PAGE(
      "<Blob><Name>a &amp; b</Name><Deleted/><Properties><Last-Modified>Fri, 26 Jun 2015 23:39:12 GMT"
      "</Last-Modified><Etag>0x8D</Etag><Content-Length>12</Content-Length></Properties><Metadata/></Blob>"
      "<Blob><Name>b</Name><Properties><Etag>\"0x9\"</Etag><ResourceType>directory</ResourceType></Properties></Blob>"
      "<Blob><Name>c</Name><Properties><Content-Length>0</Content-Length></Properties>"
      "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata></Blob>",
      "<NextMarker>2!8</NextMarker>");
  assert_int_equal(azure_page_parse(&page, text, strlen(text), NULL), MC_OK);
  assert_int_equal(page.count, 3);
  assert_string_equal(page.next, "2!8");
  assert_string_equal(page.blobs[0].name, "a & b");
  assert_int_equal(page.blobs[0].size, 12);
  assert_string_equal(page.blobs[0].validators.etag, "\"0x8D\"");
  assert_int_equal(page.blobs[0].validators.last_modified, 1435361952);
  assert_false(page.blobs[0].is_folder);
  assert_true(page.blobs[1].size == MC_SIZE_UNKNOWN && page.blobs[1].is_folder);
  assert_string_equal(page.blobs[1].validators.etag, "\"0x9\"");
  assert_true(page.blobs[2].size == 0 && page.blobs[2].is_folder);
  azure_page_free(&page);
  static const char last[] = PAGE("", "<NextMarker/>");
  assert_int_equal(azure_page_parse(&page, last, strlen(last), NULL), MC_OK);
  assert_int_equal(page.count, 0);
  assert_null(page.next);
  azure_page_free(&page);
}

static void pages_that_can_not_be(void **state) {
  (void)state;
  static const char *const bad[] = {
      "",
      "<html></html>",
      PAGE("<Blob></Blob>", ""),
      PAGE("<Blob><Name></Name></Blob>", ""),
      PAGE("<Blob><Name>a</Name><Properties><Content-Length>-1</Content-Length></Properties></Blob>", ""),
      PAGE("<Blob><Name>a</Name><Properties><Content-Length>99999999999999999999</Content-Length></Properties></Blob>",
           ""),
      "<EnumerationResults><Blobs><Blob><Name>a</Name></Blob>",
      "<!DOCTYPE a [<!ENTITY b \"c\">]><EnumerationResults/>",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    struct azure_page page;
    assert_int_equal(azure_page_parse(&page, bad[i], strlen(bad[i]), NULL), MC_PROTOCOL);
    assert_int_equal(page.count, 0);
  }
}

static void checksums(void **state) {
  (void)state;
  mc_checksum checksum;
  azure_md5_parse(&checksum, "1B2M2Y8AsgTpgAmY7PhCfg==");
  assert_int_equal(checksum.kind, MC_CHECKSUM_MD5);
  assert_memory_equal(checksum.bytes, "\xd4\x1d\x8c\xd9\x8f\x00\xb2\x04\xe9\x80\x09\x98\xec\xf8\x42\x7e", 16);
  static const char *const bad[] = {"",
                                    "1B2M2Y8AsgTpgAmY7PhCfg=", "1B2M2Y8AsgTpgAmY7PhC!g==", "1B2M2Y8AsgTpgAmY7PhCf==="};
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    azure_md5_parse(&checksum, bad[i]);
    assert_int_equal(checksum.kind, MC_CHECKSUM_NONE);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(urls_name_an_account_a_container_and_a_blob),
      cmocka_unit_test(urls_that_can_not_be_say_how_one_is_written),
      cmocka_unit_test(what_is_asked),
      cmocka_unit_test(endpoints),
      cmocka_unit_test(a_date_is_as_http_has_it),
      cmocka_unit_test(what_is_signed_is_as_the_service_describes_it),
      cmocka_unit_test(a_signature),
      cmocka_unit_test(connection_strings),
      cmocka_unit_test(when_a_sas_ends),
      cmocka_unit_test(tokens),
      cmocka_unit_test(refusals_of_tokens_tell_codes_alone),
      cmocka_unit_test(a_page),
      cmocka_unit_test(pages_that_can_not_be),
      cmocka_unit_test(checksums),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
