/* Options: what each type takes, its bounds, and how it is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <modelcache/options.h>

struct values {
  const char *string;
  bool flag;
  uint32_t count;
  uint64_t number, size;
  int64_t duration;
  int choice;
};

#define ROW(name, type, choices, least, most)                                                                          \
  { #name, NULL, type, offsetof(struct values, name), "", choices, least, most, "", "" }
static const mc_option_row string = ROW(string, MC_OPTION_STRING, NULL, 0, 0);
static const mc_option_row flag = ROW(flag, MC_OPTION_BOOL, NULL, 0, 0);
static const mc_option_row count = ROW(count, MC_OPTION_COUNT, NULL, 0, 0);
static const mc_option_row number = ROW(number, MC_OPTION_NUMBER, NULL, 0, 0);
static const mc_option_row size = ROW(size, MC_OPTION_SIZE, NULL, 0, 0);
static const mc_option_row duration = ROW(duration, MC_OPTION_DURATION, NULL, -1, 0);
static const mc_option_row choice = ROW(choice, MC_OPTION_CHOICE, "off|on|auto", 0, 0);
static const mc_option_row percent = ROW(count, MC_OPTION_COUNT, NULL, 1, 100);
static const mc_option_row small_size = ROW(size, MC_OPTION_SIZE, NULL, 4096, 1 << 30);
static const mc_option_row timeout = ROW(duration, MC_OPTION_DURATION, NULL, 100, 60000);
static const mc_option_row ttl = ROW(duration, MC_OPTION_DURATION, NULL, 0, 0);

/* What a text becomes, printed again; NULL: it's refused. */
static const struct {
  const mc_option_row *row;
  const char *value, *printed;
} cases[] = {
    {&string, "text", "text"},
    {&string, "", ""},
    {&flag, "true", "true"},
    {&flag, "YES", "true"},
    {&flag, "On", "true"},
    {&flag, "1", "true"},
    {&flag, "false", "false"},
    {&flag, "no", "false"},
    {&flag, "off", "false"},
    {&flag, "0", "false"},
    {&flag, "", NULL},
    {&flag, "2", NULL},
    {&flag, "tru", NULL},
    {&flag, "true ", NULL},
    {&count, "0", "0"},
    {&count, "007", "7"},
    {&count, "4294967295", "4294967295"},
    {&count, "4294967296", NULL},
    {&count, "18446744073709551616", NULL},
    {&count, "", NULL},
    {&count, "-1", NULL},
    {&count, "+1", NULL},
    {&count, " 1", NULL},
    {&count, "1 ", NULL},
    {&count, "1k", NULL},
    {&count, "0x10", NULL},
    {&count, "1.5", NULL},
    {&count, "1e3", NULL},
    {&number, "18446744073709551615", "18446744073709551615"},
    {&number, "18446744073709551616", NULL},
    {&number, "99999999999999999999999", NULL},
    {&size, "0", "0"},
    {&size, "1", "1"},
    {&size, "1B", "1"},
    {&size, "1024", "1KiB"},
    {&size, "1k", "1KiB"},
    {&size, "1K", "1KiB"},
    {&size, "1KB", "1KiB"},
    {&size, "1kib", "1KiB"},
    {&size, "1536", "1536"},
    {&size, "2m", "2MiB"},
    {&size, "2MB", "2MiB"},
    {&size, "512MiB", "512MiB"},
    {&size, "1024MiB", "1GiB"},
    {&size, "3g", "3GiB"},
    {&size, "4GiB", "4GiB"},
    {&size, "5TB", "5TiB"},
    {&size, "16777215TiB", "16777215TiB"},
    {&size, "16777216TiB", NULL}, /* 2^64 */
    {&size, "18446744073709551615k", NULL},
    {&size, "1 MiB", NULL},
    {&size, "1PiB", NULL},
    {&size, "MiB", NULL},
    {&size, "1.5GiB", NULL},
    {&size, "-1MiB", NULL},
    {&duration, "250ms", "250ms"},
    {&duration, "1000ms", "1s"},
    {&duration, "10s", "10s"},
    {&duration, "90s", "90s"},
    {&duration, "60s", "1m"},
    {&duration, "5m", "5m"},
    {&duration, "5min", "5m"},
    {&duration, "2H", "2h"},
    {&duration, "24h", "1d"},
    {&duration, "7d", "7d"},
    {&duration, "0", "never"},
    {&duration, "0s", "never"},
    {&duration, "never", "never"},
    {&duration, "Forever", "forever"},
    {&duration, "106751991167d", "106751991167d"},
    {&duration, "106751991168d", NULL}, /* past 2^63 ms */
    {&duration, "10", NULL},
    {&duration, "1w", NULL},
    {&duration, "-1s", NULL},
    {&duration, "", NULL},
    {&duration, "s", NULL},
    {&choice, "off", "off"},
    {&choice, "ON", "on"},
    {&choice, "auto", "auto"},
    {&choice, "", NULL},
    {&choice, "o", NULL},
    {&choice, "of", NULL},
    {&choice, "offf", NULL},
    {&choice, "off|on", NULL},
    {&choice, "|", NULL},
    {&choice, "autos", NULL},
    {&percent, "1", "1"},
    {&percent, "100", "100"},
    {&percent, "0", NULL},
    {&percent, "101", NULL},
    {&small_size, "4k", "4KiB"},
    {&small_size, "1g", "1GiB"},
    {&small_size, "4095", NULL},
    {&small_size, "1025m", NULL},
    {&timeout, "100ms", "100ms"},
    {&timeout, "1m", "1m"},
    {&timeout, "99ms", NULL},
    {&timeout, "61s", NULL},
    {&timeout, "never", NULL},
    {&timeout, "forever", NULL},
    {&ttl, "never", "never"},
    {&ttl, "forever", NULL},
};

static void values_are_taken_or_refused(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct values values, before;
    char text[64];
    mc_error err = MC_ERROR_INIT;
    memset(&values, 0, sizeof(values));
    before = values;
    mc_status status = mc_option_parse(cases[i].row, &values, cases[i].value, &err);
    if (cases[i].printed) {
      if (status) fail_msg("%s: '%s' is refused: %s", cases[i].row->name, cases[i].value, err.message);
      assert_ptr_equal(mc_option_print(cases[i].row, &values, text, sizeof(text)), text);
      assert_string_equal(text, cases[i].printed);
      continue;
    }
    if (!status) fail_msg("%s: '%s' is taken", cases[i].row->name, cases[i].value);
    assert_int_equal(status, MC_INVALID_ARGUMENT);
    assert_int_equal(err.status, MC_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, cases[i].row->name));
    assert_memory_equal(&values, &before, sizeof(values)); /* and nothing has changed */
  }
}

static void members_get_their_units(void **state) {
  (void)state;
  struct values values;
  memset(&values, 0, sizeof(values));
  assert_int_equal(mc_option_parse(&size, &values, "3GiB", NULL), MC_OK);
  assert_true(values.size == (uint64_t)3 << 30);
  assert_int_equal(mc_option_parse(&duration, &values, "2h", NULL), MC_OK);
  assert_true(values.duration == 7200000);
  assert_int_equal(mc_option_parse(&duration, &values, "forever", NULL), MC_OK);
  assert_true(values.duration == -1);
  assert_int_equal(mc_option_parse(&choice, &values, "auto", NULL), MC_OK);
  assert_int_equal(values.choice, 2);
  const char *text = "kept as it is";
  assert_int_equal(mc_option_parse(&string, &values, text, NULL), MC_OK);
  assert_ptr_equal(values.string, text);
  assert_int_equal(mc_option_parse(&string, &values, "", NULL), MC_OK);
  assert_null(values.string);
}

static void what_is_wrong_is_said_with_the_bounds(void **state) {
  (void)state;
  struct values values;
  mc_error err = MC_ERROR_INIT;
  mc_option_parse(&timeout, &values, "2m", &err);
  assert_string_equal(err.message, "duration: '2m' is out of bounds: at least 100ms, at most 1m");
  mc_option_parse(&small_size, &values, "1", &err);
  assert_string_equal(err.message, "size: '1' is out of bounds: at least 4KiB, at most 1GiB");
  mc_option_parse(&choice, &values, "maybe", &err);
  assert_string_equal(err.message, "choice: 'maybe' is not off|on|auto");
  char large[500];
  memset(large, '9', sizeof(large));
  large[sizeof(large) - 1] = 0;
  assert_int_equal(mc_option_parse(&count, &values, large, &err), MC_INVALID_ARGUMENT);
  assert_true(strlen(err.message) < 120); /* not all of it is repeated */
}

static void printing_shows_no_password(void **state) {
  (void)state;
  static const char *const texts[][2] = {
      {"redis://user:hunter2@host:6379/0?prefix=a", "redis://user:*@host:6379/0?prefix=a"},
      {"redis://:hun:t@/er2@host", "redis://:*@host"},
      {"redis://user@host:6379", "redis://user@host:6379"},
      {"redis://host:6379/0", "redis://host:6379/0"},
      {"/a:b@c", "/a:b@c"},
  };
  char text[64];
  for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
    struct values values = {.string = texts[i][0]};
    assert_string_equal(mc_option_print(&string, &values, text, sizeof(text)), texts[i][1]);
  }
}

static void printing_stays_in_its_buffer(void **state) {
  (void)state;
  struct values values = {.string = "a long text", .size = UINT64_MAX, .choice = 9};
  char text[8];
  assert_string_equal(mc_option_print(&string, &values, text, sizeof(text)), "a long ");
  assert_int_equal(strlen(mc_option_print(&size, &values, text, sizeof(text))), 7);
  assert_string_equal(mc_option_print(&choice, &values, text, sizeof(text)), ""); /* no choice of the table */
  values.string = NULL;
  assert_string_equal(mc_option_print(&string, &values, text, sizeof(text)), "");
}

/* The library's own table: every default is one that may be written, and comes back when it is printed. */
static void every_default_can_be_written(void **state) {
  (void)state;
  mc_options defaults, parsed;
  mc_options_init(&defaults);
  for (const mc_option_row *row = mc_option_rows(); row->name; row++) {
    char text[256], again[256];
    mc_error err = MC_ERROR_INIT;
    mc_options_init(&parsed);
    assert_true(row->help[0] && strchr(row->name, '-') == NULL);
    assert_int_equal(row->type == MC_OPTION_CHOICE, row->choices != NULL);
    if (mc_option_parse(row, &parsed, row->fallback, &err)) fail_msg("%s", err.message);
    mc_option_print(row, &parsed, text, sizeof(text));
    assert_string_equal(mc_option_print(row, &defaults, again, sizeof(again)), text);
    assert_int_equal(mc_option_parse(row, &parsed, text, &err), MC_OK);
    assert_string_equal(mc_option_print(row, &parsed, again, sizeof(again)), text);
    for (const mc_option_row *other = mc_option_rows(); other != row; other++) {
      assert_string_not_equal(other->name, row->name);
      assert_true(!other->env || !row->env || strcmp(other->env, row->env) != 0);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(values_are_taken_or_refused),           cmocka_unit_test(members_get_their_units),
      cmocka_unit_test(what_is_wrong_is_said_with_the_bounds), cmocka_unit_test(printing_shows_no_password),
      cmocka_unit_test(printing_stays_in_its_buffer),          cmocka_unit_test(every_default_can_be_written),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
