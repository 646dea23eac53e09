/* Patterns of trees: what they mean is what Python's fnmatchcase, by which the hub's client chooses, says of them. */
#include "engine/patterns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static bool allows(const char *pattern, const char *path) {
  const char *const list[] = {pattern, NULL};
  struct patterns patterns = {.allow = list};
  assert_int_equal(patterns_check(&patterns, NULL), MC_OK);
  return patterns_pass(&patterns, path);
}

static void a_pattern_matches_as_the_hubs_client_does(void **state) {
  (void)state;
  static const struct {
    const char *pattern, *yes, *no;
  } rows[] = {
      {"config.json", "config.json", "a/config.json"},
      {"config.json", "config.json", "config.jsonl"},
      {"config.json", "config.json", "Config.json"},
      {"*.json", "a/b/config.json", "config.json.bak"},
      {"*", ".hidden/file", NULL},
      {"a*b*c", "a/x/b/y/c", "a/x/c/y/b"},
      {"*ab", "aab", "aba"},
      {"**/x", "a/b/x", "x"},
      {"data/", "data/a/b", "data"},
      {"data/", "data/a", "more/data/a"},
      {"*data/", "more/data/a", "more/data"},
      {"data\\", "data/a", "dat/a"},
      {"a\\b", "a/b", "ab"},
      {"?.bin", "\xc3\xa9.bin", "ab.bin"},
      {"?", "/", "\xc3\xa9\xc3\xa9"},
      {"?", "\xff", "\xff\xff"}, /* no UTF-8 */
      {"\xff", "\xff", "\xfe"},
      {"[a-c]x", "bx", "dx"},
      {"[!a-c]x", "dx", "bx"},
      {"[^a]", "^", "b"},
      {"[\xc3\xa0-\xc3\xa9]", "\xc3\xa8", "e"},
      {"[]]", "]", "["},
      {"[!]]", "x", "]"},
      {"[]-a]", "_", "b"},
      {"[a-]", "-", "b"},
      {"[-a]", "-", "b"},
      {"[a-c-e]", "-", "d"},
      {"[c-a]", NULL, "b"},
      {"[!c-a]", "b", ""},
      {"[--0]", ".", "1"},
      {"a[", "a[", "a"},
      {"[]", "[]", "]"},
      {"[!]", "[!]", "x"},
      {"[[]*", "[x", "x"},
      {"[[:alpha:]]", ":]", "x"},
      {"*[0-9].bin", "m-1.bin", "m-x.bin"},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    if (rows[i].yes && !allows(rows[i].pattern, rows[i].yes)) fail_msg("%s: %s", rows[i].pattern, rows[i].yes);
    if (rows[i].no && allows(rows[i].pattern, rows[i].no)) fail_msg("%s: not %s", rows[i].pattern, rows[i].no);
  }
}

static void allowed_first_then_ignored(void **state) {
  (void)state;
  const char *const allow[] = {"*.json", "onnx/", NULL}, *const ignore[] = {"tmp/", "*.bin", NULL};
  struct patterns patterns = {allow, ignore}, none = {0}, only_ignore = {.ignore = ignore};
  assert_true(patterns_pass(&patterns, "a.json"));
  assert_true(patterns_pass(&patterns, "onnx/model"));
  assert_false(patterns_pass(&patterns, "onnx/model.bin"));
  assert_false(patterns_pass(&patterns, "tmp/a.json"));
  assert_false(patterns_pass(&patterns, "readme"));
  assert_true(patterns_pass(&only_ignore, "readme"));
  assert_true(patterns_pass(&none, "tmp/a.bin"));
}

static void their_number_and_length_are_limited(void **state) {
  (void)state;
  const char *many[1002];
  char longest[1026];
  memset(longest, '*', sizeof(longest));
  longest[1024] = 0;
  for (size_t i = 0; i < 1000; i++) many[i] = longest;
  many[1000] = NULL;
  struct patterns patterns = {.ignore = many};
  assert_int_equal(patterns_check(&patterns, NULL), MC_OK);
  many[1000] = "x";
  many[1001] = NULL;
  assert_int_equal(patterns_check(&patterns, NULL), MC_INVALID_ARGUMENT);
  longest[1024] = '*';
  longest[1025] = 0;
  assert_int_equal(patterns_check(&patterns, NULL), MC_INVALID_ARGUMENT);
}

static void each_choice_has_a_key_of_its_own(void **state) {
  (void)state;
  const char *const a[] = {"a", NULL}, *const ab[] = {"a", "b", NULL}, *const joined[] = {"ab", NULL},
                    *const none[] = {NULL};
  const struct patterns choices[] = {{a, NULL}, {NULL, a}, {a, a}, {ab, NULL}, {joined, NULL}, {NULL, NULL}};
  char keys[6][KEY_SIZE], key[KEY_SIZE];
  for (size_t i = 0; i < 6; i++) {
    assert_true(patterns_key(keys[i], &choices[i], "http://host/"));
    for (size_t j = 0; j < i; j++) assert_string_not_equal(keys[i], keys[j]);
  }
  key_of_url(key, "http://host/");
  assert_string_equal(keys[5], key);
  assert_true(patterns_key(key, &(struct patterns){none, none}, "http://host/"));
  assert_string_equal(keys[5], key);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_pattern_matches_as_the_hubs_client_does),
      cmocka_unit_test(allowed_first_then_ignored),
      cmocka_unit_test(their_number_and_length_are_limited),
      cmocka_unit_test(each_choice_has_a_key_of_its_own),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
