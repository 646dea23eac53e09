/* hf: addresses, what a hub's answers say, and what is remembered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/upstream/hf/hf.h"
#include "base/buf.h"
#include "base/io.h"
#include "base/url.h"

#define OID "0123456789abcdef0123456789abcdef01234567"
#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void addresses_are_what_their_file_system_writes(void **state) {
  (void)state;
  static const struct {
    const char *url, *type, *repo, *revision, *path, *request;
  } rows[] = {
      {"hf://org/name/a/b.bin", "models", "org/name", "main", "a/b.bin", "/org/name/resolve/main/a/b.bin"},
      {"hf://models/org/name/x", "models", "org/name", "main", "x", "/org/name/resolve/main/x"},
      {"hf://datasets/org/name@v1/x y", "datasets", "org/name", "v1", "x y", "/datasets/org/name/resolve/v1/x%20y"},
      {"hf://spaces/org/na.me-1/#%3F", "spaces", "org/na.me-1", "main", "#?",
       "/spaces/org/na.me-1/resolve/main/%23%3F"},
      {"hf://org/name@feature%2Fx/y", "models", "org/name", "feature/x", "y", "/org/name/resolve/feature%2Fx/y"},
      {"hf://org/name@refs/pr/12/y", "models", "org/name", "refs/pr/12", "y", "/org/name/resolve/refs%2Fpr%2F12/y"},
      {"hf://org/name@refs/convert/parquet/y", "models", "org/name", "refs/convert/parquet", "y", NULL},
      {"hf://org/name@refs/other/y", "models", "org/name", "refs", "other/y", NULL},
      {"hf://org/name@refs/pr/x/y", "models", "org/name", "refs", "pr/x/y", NULL},
      {"hf://org/name@main", "models", "org/name", "main", "", NULL},
      {"hf://org/name/", "models", "org/name", "main", "", NULL},
      {"hf://org/name/a/", "models", "org/name", "main", "a/", NULL},
      {"hf://org/name/a@b", "models", "org/name", "main", "a@b", "/org/name/resolve/main/a%40b"},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    struct hf_address address;
    struct buf out;
    char *url = NULL;
    assert_int_equal(url_normalise(&url, rows[i].url, NULL), MC_OK);
    assert_int_equal(hf_address_parse(&address, url, NULL), MC_OK);
    assert_string_equal(address.type, rows[i].type);
    assert_string_equal(address.repo, rows[i].repo);
    assert_string_equal(address.revision, rows[i].revision);
    assert_string_equal(address.path, rows[i].path);
    buf_init(&out, 1000);
    hf_address_file(&out, &address, NULL);
    if (rows[i].request) assert_string_equal(out.data, rows[i].request);
    buf_free(&out);
    hf_address_free(&address);
    free(url);
  }
}

static void other_addresses_are_told_how_they_are_written(void **state) {
  (void)state;
  static const char *const urls[] = {
      "hf://gpt2/",      "hf://org/",        "hf://datasets/squad", "hf://org/na%20me/x",
      "hf://org/../x",   "hf://org/name@/x", "hf://org/name/x?a=b", "hf://buckets/org/name/x",
      "hf://org/n/a//b", "s3://org/name/x",  "hf://org/n@v/a%0Ab"};
  for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
    struct hf_address address;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(hf_address_parse(&address, urls[i], &err), MC_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "ORG/NAME[@REVISION]/PATH"));
  }
}

static void tags_are_digests_or_gits_checksums(void **state) {
  (void)state;
  mc_info info = {0};
  hf_take_tag("W/\"" SHA "\"", &info);
  assert_true(info.has_digest);
  assert_string_equal(info.validators.etag, "\"" SHA "\"");
  info = (mc_info){0};
  hf_take_tag("\"" OID "\"", &info);
  assert_false(info.has_digest);
  assert_int_equal(info.checksum.kind, MC_CHECKSUM_GIT);
  assert_int_equal(info.checksum.bytes[1], 0x23);
  info = (mc_info){0};
  hf_take_tag("other", &info);
  assert_true(!info.has_digest && info.checksum.kind == MC_CHECKSUM_NONE);
  assert_string_equal(info.validators.etag, "\"other\"");
}

static mc_status note(void *user, const mc_listed *listed, bool folder, mc_error *err) {
  (void)err;
  if (!folder) *(mc_listed *)user = (mc_listed){.size = listed->size, .has_digest = listed->has_digest};
  return MC_OK;
}

static mc_status read_page(mc_listed *last, const char *text) {
  return hf_page_parse(text, strlen(text), note, last, NULL);
}

static void pages_tell_files_with_their_digests(void **state) {
  (void)state;
  mc_listed last = {0};
  assert_int_equal(read_page(&last, "[]"), MC_OK);
  assert_int_equal(read_page(&last,
                             "[{\"type\":\"directory\",\"path\":\"a\"},{\"type\":\"file\",\"path\":\"a/b\",\"size\":"
                             "7,\"oid\":\"" OID "\",\"lfs\":{\"oid\":\"" SHA "\"}}]"),
                   MC_OK);
  assert_true(last.size == 7 && last.has_digest);
  assert_int_equal(read_page(&last, "[{\"type\":\"file\",\"path\":\"../b\"}]"), MC_PROTOCOL);
  assert_int_equal(read_page(&last, "[{\"type\":\"file\",\"path\":\"b\"}"), MC_PROTOCOL);
  assert_int_equal(read_page(&last, "{\"error\":\"x\"}"), MC_PROTOCOL);
}

static void the_next_page_is_where_its_query_says(void **state) {
  (void)state;
  char query[40];
  assert_true(hf_page_next(query, sizeof(query), "<http://evil/x?cursor=1>; rel=\"next\""));
  assert_string_equal(query, "cursor=1");
  assert_true(hf_page_next(query, sizeof(query), "<http://a/?b>; rel=\"last\", <http://a/?c=2>; rel=\"next\""));
  assert_string_equal(query, "c=2");
  assert_false(hf_page_next(query, sizeof(query), "<http://a/?b>; rel=\"last\""));
  assert_false(hf_page_next(query, sizeof(query), "<http://a/>; rel=\"next\""));
  assert_false(hf_page_next(query, sizeof(query), "<http://a/?b c>; rel=\"next\""));
  assert_false(hf_page_next(query, 3, "<http://a/?c=2>; rel=\"next\""));
}

static void memos_are_few_and_end(void **state) {
  (void)state;
  struct memos memos;
  mc_hash128 keys[MEMOS + 1] = {0};
  memos_init(&memos);
  for (unsigned i = 0; i <= MEMOS; i++) {
    keys[i].bytes[0] = (uint8_t)i;
    memos_put(&memos, &keys[i], i ? "text" : "first", 100000);
  }
  assert_null(memos_get(&memos, &keys[0])); /* the last one took its place */
  char *text = memos_get(&memos, &keys[1]);
  assert_string_equal(text, "text");
  free(text);
  memos_drop(&memos, &keys[1], "other"); /* another has come meanwhile */
  free(memos_get(&memos, &keys[1]));
  memos_drop(&memos, &keys[1], "text");
  assert_null(memos_get(&memos, &keys[1]));
  memos_end(&memos);
}

static void a_rules_token_may_be_in_a_file(void **state) {
  (void)state;
  static const struct {
    const char *text, *token, *why;
  } rows[] = {{"hf_one\n", "hf_one", NULL},
              {" hf_two \n", "hf_two", NULL},
              {"hf three", NULL, "is no token"},
              {" \n", NULL, "have nothing but space"},
              {"", NULL, "token_file: "}};
  char path[] = "/tmp/modelcache-hf.XXXXXX";
  close(mkstemp(path));
  const mc_setting setting = {"token_file", path};
  const mc_credentials credentials = {.name = "team", .settings = &setting, .count = 1};
  mc_origin_rule rule = MC_ORIGIN_RULE_INIT;
  rule.prefix = "hf://org/";
  rule.credentials = "team";
  mc_upstream_config config = {.struct_size = sizeof(config), .origins = &rule, .origin_count = 1};
  config.credentials = &credentials;
  config.credentials_count = 1;
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    struct tokens *tokens;
    struct keys *keys = NULL;
    mc_error error = MC_ERROR_INIT;
    mc_call call = {INT64_MAX, NULL};
    assert_int_equal(file_replace(path, rows[i].text, strlen(rows[i].text), 0600, false), 0);
    assert_int_equal(tokens_new(&tokens, &config, NULL), MC_OK);
    mc_status status = tokens_get(tokens, &keys, "hf://org/name/file", &call, &error);
    assert_int_equal(status, rows[i].token ? MC_OK : MC_INVALID_ARGUMENT);
    if (!status) assert_string_equal(keys->token, rows[i].token);
    if (!status) assert_true(keys->expires_at > 0); /* it is read again */
    if (status) assert_non_null(strstr(error.message, "'team'"));
    if (status) assert_non_null(strstr(error.message, rows[i].why));
    keys_release(keys);
    tokens_free(tokens);
  }
  unlink(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(addresses_are_what_their_file_system_writes),
      cmocka_unit_test(other_addresses_are_told_how_they_are_written),
      cmocka_unit_test(tags_are_digests_or_gits_checksums),
      cmocka_unit_test(pages_tell_files_with_their_digests),
      cmocka_unit_test(the_next_page_is_where_its_query_says),
      cmocka_unit_test(memos_are_few_and_end),
      cmocka_unit_test(a_rules_token_may_be_in_a_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
