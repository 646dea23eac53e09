/* URLs: the one normal form, what is refused and hidden; paths that stay where they belong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/url.h"

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static void urls_have_one_normal_form(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      /* case, ports */
      {"HTTP://Example.COM", "http://example.com/"},
      {"hTTps://EXAMPLE.com/Path", "https://example.com/Path"},
      {"http://h:80/a", "http://h/a"},
      {"https://h:443", "https://h/"},
      {"https://h:80/", "https://h:80/"},
      {"http://h:443/", "http://h:443/"},
      {"http://h:00080/", "http://h/"},
      {"http://h:08080/", "http://h:8080/"},
      {"http://h:/a", "http://h/a"},
      {"http://h:65535/", "http://h:65535/"},
      {"http://a_b-c.d~/", "http://a_b-c.d~/"},
      /* dots */
      {"http://h/a/./b/../c", "http://h/a/c"},
      {"http://h/a/b/..", "http://h/a/"},
      {"http://h/a/.", "http://h/a/"},
      {"http://h/.", "http://h/"},
      {"http://h/a/..", "http://h/"},
      {"http://h/a/%2e%2E/b", "http://h/b"},
      {"http://h/...", "http://h/..."},
      {"http://h/.a/..b/c.", "http://h/.a/..b/c."},
      {"http://h//a//b/", "http://h//a//b/"},
      {"http://h/a//..", "http://h/a/"},
      {"http://h/a/../../h", NULL},
      {"http://h/..", NULL},
      {"http://h/%2e%2e/a", NULL},
      /* escapes */
      {"http://h/%7ea%41%2d", "http://h/~aA-"},
      {"http://h/a%2fb%3f%23", "http://h/a%2Fb%3F%23"},
      {"http://h/a b\"<>\\^`{|}", "http://h/a%20b%22%3C%3E%5C%5E%60%7B%7C%7D"},
      {"http://h/\xc3\xa9", "http://h/%C3%A9"},
      {"http://h/%c3%A9", "http://h/%C3%A9"},
      {"http://h/!$&'()*+,;=:@", "http://h/!$&'()*+,;=:@"},
      {"http://h/%25%32%35", "http://h/%2525"},
      {"http://h/%", NULL},
      {"http://h/%4", NULL},
      {"http://h/%g0", NULL},
      {"http://h/a%00", NULL},
      /* queries, fragments */
      {"http://h/a?b=C%2f&d=../../e", "http://h/a?b=C%2f&d=../../e"},
      {"http://h/a?b c\xff", "http://h/a?b%20c%FF"},
      {"http://h/a?", "http://h/a?"},
      {"http://h?q", "http://h/?q"},
      {"http://h/a?b?c", "http://h/a?b?c"},
      {"http://h/a#f", "http://h/a"},
      {"http://h#f", "http://h/"},
      {"http://h?q#f?g", "http://h/?q"},
      {"http://h/#f?g", "http://h/"},
      /* object stores: keys are names, not paths of the web */
      {"s3://Bucket/a#b%", "s3://Bucket/a%23b%25"},
      {"s3://b/100%/%41%2b%2F", "s3://b/100%25/A+/"},
      {"gs://b/a%2Fb%40c%3Fd", "gs://b/a/b@c%3Fd"},
      {"as://account/c/a%2F..%2Fb", "as://account/c/b"},
      {"s3://b/a%2f%2e%2E%2F..%2Fother/k", NULL},
      {"hf://org/name@refs%2Fpr%2F1/a%2Bb", "hf://org/name@refs%2Fpr%2F1/a%2Bb"},
      {"gs://b/a#1?generation=2#3", "gs://b/a%231?generation=2"},
      {"hf://org/name@rev/a b", "hf://org/name@rev/a%20b"},
      {"as://account/$web/%zz", "as://account/$web/%25zz"},
      {"s3://HTTP://Host:80/b/k#", "s3://http://host/b/k%23"},
      {"s3://https://Host:9000/b/k", "s3://https://host:9000/b/k"},
      {"s3://Host:9000/b/k", "s3://Host:9000/b/k"},
      {"s3://http://", NULL},
      {"s3://http://user@h/b", NULL},
      {"s3://b/../k", NULL},
      {"gs://http://h/b", "gs://http//h/b"},
      {"s3://b/k%00", NULL},
      /* user info: refused */
      {"http://user@h/", NULL},
      {"http://user:pw@h/", NULL},
      {"http://@h/", NULL},
      {"s3://key:secret@bucket/a", NULL},
      {"http://h/user:pw@x", "http://h/user:pw@x"},
      /* addresses */
      {"http://[::1]:8080/x", "http://[::1]:8080/x"},
      {"http://[::1]:80", "http://[::1]/"},
      {"http://[2001:DB8:0:0:0::1]/", "http://[2001:db8::1]/"},
      {"http://[::FFFF:1.2.3.4]/", "http://[::ffff:1.2.3.4]/"},
      {"http://127.0.0.1:1/", "http://127.0.0.1:1/"},
      {"http://[::1/", NULL},
      {"http://[]/", NULL},
      {"http://[::1]x/", NULL},
      {"http://[::1]]/", NULL},
      {"http://[1.2.3.4]/", NULL},
      {"http://[fe80::1%25eth0]/", NULL},
      {"http://[::1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19:20:21:22]/", NULL},
      {"http://::1/", NULL},
      /* files */
      {"/", "file:///"},
      {"/a b?c#d%41", "file:///a%20b%3Fc%23d%2541"},
      {"/a/../b", "file:///b"},
      {"/..", NULL},
      {"/a/./", "file:///a/"},
      {"FILE:///a", "file:///a"},
      {"file://localhost/a", "file:///a"},
      {"file:///a%20b", "file:///a%20b"},
      {"file://host/a", NULL},
      {"file://localhost:80/a", NULL},
      /* other schemes: a bucket's name keeps its case */
      {"S3://Bucket/Key", "s3://Bucket/Key"},
      {"s3://b", "s3://b/"},
      {"hf://org/model/file", "hf://org/model/file"},
      {"a+b-c.1://x/y", "a+b-c.1://x/y"},
      {"abcdefghijklmno://x/", "abcdefghijklmno://x/"},
      {"abcdefghijklmnop://x/", NULL},
      {"://x", NULL},
      {"1a://x", NULL},
      {"a b://x", NULL},
      {"h\xc3\xa9://x", NULL},
      /* no URLs */
      {"", NULL},
      {"example.com/x", NULL},
      {"http:/h/x", NULL},
      {"http:h", NULL},
      {"http://", NULL},
      {"http:///x", NULL},
      {"http://:80/", NULL},
      {"http://h:0/", NULL},
      {"http://h:65536/", NULL},
      {"http://h:000080/", NULL},
      {"http://h:-1/", NULL},
      {"http://h:8x/", NULL},
      {"http://h:80:80/", NULL},
      {"http://h h/", NULL},
      {"http://h\\x/", NULL},
      {"http://h%41/", NULL},
      {"http://\xc3\xa9/", NULL},
      {"http://h/a\n", NULL},
      {"http://h/\x7f", NULL},
      {"http://h\t/", NULL},
      {"\nhttp://h/", NULL},
      {"http://h/?a\rb", NULL},
      {"/a\x1b", NULL},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    char *normal = NULL, *again = NULL;
    mc_error err = MC_ERROR_INIT;
    mc_status status = url_normalise(&normal, cases[i][0], &err);
    if (!cases[i][1]) {
      if (!status) fail_msg("'%s' is taken as '%s'", cases[i][0], normal);
      assert_int_equal(status, MC_INVALID_ARGUMENT);
      assert_true(err.status == status && err.message[0]);
      continue;
    }
    if (status) fail_msg("'%s' is refused: %s", cases[i][0], err.message);
    assert_string_equal(normal, cases[i][1]);
    assert_int_equal(url_normalise(&again, normal, NULL), MC_OK); /* and stays as it is */
    assert_string_equal(again, normal);
    free(again);
    free(normal);
  }
  char *none = NULL;
  assert_int_equal(url_normalise(&none, NULL, NULL), MC_INVALID_ARGUMENT);
  assert_null(none);
}

static void a_refusal_tells_no_secret(void **state) {
  (void)state;
  static const char *const cases[] = {"http://user:hunter2@h/", "http://h:hunter2/", "http://h/%hunter2", "hunter2",
                                      "http://h/..?hunter2"};
  for (size_t i = 0; i < COUNT(cases); i++) {
    char *none;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(url_normalise(&none, cases[i], &err), MC_INVALID_ARGUMENT);
    assert_null(strstr(err.message, "hunter2"));
  }
}

static mc_status parse_long(const char *begin, char filler, size_t length) {
  char *text = malloc(length + 1), *normal = NULL;
  assert_non_null(text);
  memset(text, filler, length);
  memcpy(text, begin, strlen(begin));
  text[length] = 0;
  mc_status status = url_normalise(&normal, text, NULL);
  if (!status) assert_true(strlen(normal) <= URL_MAX);
  free(normal);
  free(text);
  return status;
}

static void lengths_have_bounds(void **state) {
  (void)state;
  assert_int_equal(parse_long("http://h/", 'a', URL_MAX), MC_OK);
  assert_int_equal(parse_long("http://h/", 'a', URL_MAX + 1), MC_INVALID_ARGUMENT);
  assert_int_equal(parse_long("http://h/", 'a', 1 << 20), MC_INVALID_ARGUMENT);
  assert_int_equal(parse_long("http://h/?", 'a', URL_MAX), MC_OK);
  assert_int_equal(parse_long("http://", 'a', URL_MAX - 1), MC_OK); /* its '/' is added */
  assert_int_equal(parse_long("http://", 'a', URL_MAX), MC_INVALID_ARGUMENT);
  assert_int_equal(parse_long("http://h/", ' ', 2000), MC_OK);
  assert_int_equal(parse_long("http://h/", ' ', 3000), MC_INVALID_ARGUMENT); /* three bytes each */
  assert_int_equal(parse_long("http://h/?", ' ', URL_MAX), MC_INVALID_ARGUMENT);
  assert_int_equal(parse_long("/", ' ', URL_MAX), MC_INVALID_ARGUMENT);
  assert_int_equal(parse_long("", 'a', 4000), MC_INVALID_ARGUMENT);
  assert_int_equal(parse_long("http://h:", '1', 4000), MC_INVALID_ARGUMENT);
}

static void pieces_point_into_the_text(void **state) {
  (void)state;
  struct url url;
  assert_int_equal(url_parse(&url, "HTTPS://Host:8443/a/./b?c=d#e", NULL), MC_OK);
  assert_string_equal(url.text, "https://host:8443/a/b?c=d");
  assert_string_equal(url.scheme, "https");
  assert_int_equal(url.authority_size, 9);
  assert_memory_equal(url.authority, "host:8443", 9);
  assert_int_equal(url.path_size, 4);
  assert_memory_equal(url.path, "/a/b", 4);
  assert_string_equal(url.query, "c=d");
  url_free(&url);
  assert_null(url.text);
  url_free(&url);
  assert_int_equal(url_parse(&url, "/a", NULL), MC_OK);
  assert_string_equal(url.scheme, "file");
  assert_int_equal(url.authority_size, 0);
  assert_null(url.query);
  url_free(&url);
  assert_int_equal(url_parse(&url, "http://h/?", NULL), MC_OK);
  assert_string_equal(url.query, "");
  url_free(&url);
}

static void what_is_printed_has_no_secret(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"https://h/a", "https://h/a"},
      {"https://h/a?X-Signature=s3cret", "https://h/a?…"},
      {"https://h/a?", "https://h/a?…"},
      {"https://h/a#s3cret", "https://h/a"},
      {"https://h/a#s3cret?x", "https://h/a"},
      {"https://h/a?b#s3cret", "https://h/a?…"},
      {"https://user:s3cret@h/a", "https://h/a"},
      {"https://s3cret@h", "https://h"},
      {"https://a@s3cret@h/", "https://h/"},
      {"https://user:s3cret@h?s3cret", "https://h?…"},
      {"https://h/u@x", "https://h/u@x"},
      {"user:s3cret@h/x", "h/x"},
      {"http:/user:s3cret@h/x", "http:/h/x"},
      {"http:user:s3cret@h/x", "h/x"},
      {"http:\\\\user:s3cret@h", "http:\\\\h"},
      {"http:///user:s3cret@h", "http:///h"},
      {"/a/b@c", "/a/b@c"},
      {"", ""},
      {"a\x1b[31m\n", "a?[31m?"},
      {"a\xff\xc3", "a??"},
      {"https://h/\xc3\xa9", "https://h/\xc3\xa9"},
  };
  char text[200];
  for (size_t i = 0; i < COUNT(cases); i++) {
    assert_ptr_equal(url_printable(text, sizeof(text), cases[i][0]), text);
    assert_string_equal(text, cases[i][1]);
  }
  assert_string_equal(url_printable(text, 10, "https://user:pw@host/path"), "https://h");
  assert_string_equal(url_printable(text, 1, "https://host"), "");
  assert_string_equal(url_printable(text, 4, "ab\xc3\xa9"), "ab?"); /* a character that is cut in two */
}

static void decoding_takes_escapes_out(void **state) {
  (void)state;
  static const char *const cases[][2] = {{"", ""},        {"a%20b", "a b"}, {"%41%7a", "Az"}, {"%C3%a9", "\xc3\xa9"},
                                         {"+", "+"},      {"%", NULL},      {"%4", NULL},     {"a%4", NULL},
                                         {"%zz", NULL},   {"%00", NULL},    {"%2", NULL},     {"%25", "%"},
                                         {"%2541", "%41"}};
  char to[16];
  for (size_t i = 0; i < COUNT(cases); i++) {
    assert_int_equal(url_decode(to, cases[i][0], strlen(cases[i][0])), cases[i][1] != NULL);
    if (cases[i][1]) assert_string_equal(to, cases[i][1]);
  }
  assert_true(url_decode(to, "abc%4", 3)); /* no further than it was told */
  assert_string_equal(to, "abc");
  assert_false(url_decode(to, "%41", 2));
  assert_false(url_decode(to, "a\0b", 3));
}

static void joining_escapes_what_it_must(void **state) {
  (void)state;
  static const char *const cases[][3] = {
      {"https://h/a/", "b", "https://h/a/b"},         {"https://h/a/", "b c/d%e", "https://h/a/b%20c/d%25e"},
      {"https://h/a/", "?#", "https://h/a/%3F%23"},   {"https://h/a/?sig=1", "b", "https://h/a/b?sig=1"},
      {"https://h/", "\xc3\xa9", "https://h/%C3%A9"}, {"s3://b/k/", "a+b&c", "s3://b/k/a+b&c"},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    char *joined = url_join(cases[i][0], cases[i][1]);
    assert_non_null(joined);
    assert_string_equal(joined, cases[i][2]);
    free(joined);
  }
}

static void only_paths_below_are_safe(void **state) {
  (void)state;
  static const char *const good[] = {"a",   "a/b",      "a/b/c.txt", ".a", "..a", "a..",    "a/...", "...",
                                     "a b", "\xc3\xa9", "a/.b/c",    "~",  "a:b", "%2e%2e", "a%2f"};
  static const char *const bad[] = {"",     "/",     "/a",     "a/",    "a//b",   ".",   "..",   "./a",
                                    "../a", "a/..",  "a/../b", "a/./b", "a/.",    "//",  "a\\b", "..\\a",
                                    "a\nb", "a\x7f", "\x01",   "a/\tb", "a/b/..", "/..", "\\"};
  char text[4200];
  for (size_t i = 0; i < COUNT(good); i++) {
    if (!path_is_safe(good[i])) fail_msg("'%s' is not safe", good[i]);
  }
  for (size_t i = 0; i < COUNT(bad); i++) {
    if (path_is_safe(bad[i])) fail_msg("'%s' is safe", bad[i]);
  }
  memset(text, 'a', sizeof(text));
  text[255] = 0;
  assert_true(path_is_safe(text));
  text[255] = 'a';
  text[256] = 0;
  assert_false(path_is_safe(text)); /* one part is too long */
  text[256] = 'a';
  for (size_t i = 100; i < sizeof(text); i += 100) text[i] = '/';
  text[4096] = 0;
  assert_true(path_is_safe(text));
  text[4096] = 'a';
  text[4097] = 0;
  assert_false(path_is_safe(text));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(urls_have_one_normal_form),     cmocka_unit_test(a_refusal_tells_no_secret),
      cmocka_unit_test(lengths_have_bounds),           cmocka_unit_test(pieces_point_into_the_text),
      cmocka_unit_test(what_is_printed_has_no_secret), cmocka_unit_test(decoding_takes_escapes_out),
      cmocka_unit_test(joining_escapes_what_it_must),  cmocka_unit_test(only_paths_below_are_safe),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
