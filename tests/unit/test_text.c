/* Characters: hex digits, ASCII without a locale, and what may be shown to people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"

static void digits_and_letters(void **state) {
  (void)state;
  static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
  for (int c = -128; c < 128; c++) {
    const char *at = c ? strchr(lower, c) : NULL, *up = c ? strchr(upper, c) : NULL;
    int expected = at ? (int)(at - lower) : up ? (int)(up - upper) : -1;
    assert_int_equal(hex_value((char)c), expected);
    assert_int_equal(ascii_lower((char)c), c >= 'A' && c <= 'Z' ? c + 32 : c);
  }
}

static void what_cannot_be_shown_becomes_a_question_mark(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"", ""},
      {"plain ~", "plain ~"},
      {"a\tb\nc\rd\x1b\x7f\x01", "a?b?c?d???"},
      {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"}, /* 2, 3 and 4 bytes */
      {"\xc2\x80\xc2\x9f", "????"},                                                     /* control characters */
      {"\xc2\xa0", "\xc2\xa0"},
      {"\x80\xbf", "??"}, /* no beginning */
      {"\xc3", "?"},      /* no end */
      {"\xe2\x82", "??"},
      {"\xf0\x9f\x98", "???"},
      {"\xc3(", "?("},
      {"\xe2\x82z", "??z"},
      {"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf", "?????????"}, /* longer than they need to be */
      {"\xed\xa0\x80", "???"},                               /* half a surrogate pair */
      {"\xee\x80\x80", "\xee\x80\x80"},
      {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"}, /* the last there is */
      {"\xf4\x90\x80\x80", "????"},
      {"\xf8\x88\x80\x80\x80\xff\xfe", "???????"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    char text[64];
    snprintf(text, sizeof(text), "%s", cases[i][0]);
    text_clean(text);
    assert_string_equal(text, cases[i][1]);
    text_clean(text);
    assert_string_equal(text, cases[i][1]);
  }
}

static void characters_one_by_one(void **state) {
  (void)state;
  static const uint32_t expected[] = {'a', 0xe9, 0x20ac, 0x1f600, 0x80, 0xdcff, 0xdcc3, '(', 0xdce2, 0xdc82};
  const char *at = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xc2\x80\xff\xc3(\xe2\x82";
  for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++) assert_int_equal(text_next(&at), expected[i]);
  const char *end = at;
  assert_int_equal(text_next(&at), 0);
  assert_ptr_equal(at, end);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(characters_one_by_one),
      cmocka_unit_test(digits_and_letters),
      cmocka_unit_test(what_cannot_be_shown_becomes_a_question_mark),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
