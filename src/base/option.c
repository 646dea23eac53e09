#include <modelcache/options.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
  const char *name;
  uint64_t factor;
};

/* In growing order; the first name of each factor is the one that is printed. */
/* clang-format off */
static const struct unit sizes[] = {
    {"", 1}, {"B", 1},
    {"KiB", 1ull << 10}, {"KB", 1ull << 10}, {"k", 1ull << 10},
    {"MiB", 1ull << 20}, {"MB", 1ull << 20}, {"m", 1ull << 20},
    {"GiB", 1ull << 30}, {"GB", 1ull << 30}, {"g", 1ull << 30},
    {"TiB", 1ull << 40}, {"TB", 1ull << 40}, {"t", 1ull << 40},
    {NULL, 0},
};
static const struct unit times[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0},
};
static const struct unit counts[] = {{"", 1}, {NULL, 0}};
/* clang-format on */

static bool parse_number(uint64_t *out, const char *text, const struct unit *units) {
  char *end;
  if (*text < '0' || *text > '9') return false;
  errno = 0;
  uint64_t number = strtoull(text, &end, 10);
  if (errno) return false;
  for (const struct unit *unit = units; unit->name; unit++) {
    if (strcasecmp(end, unit->name) == 0) return !__builtin_mul_overflow(number, unit->factor, out);
  }
  return false;
}

static bool parse_bool(bool *out, const char *text) {
  static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
  for (size_t i = 0; i < 8; i++) {
    if (strcasecmp(text, words[i]) == 0) {
      *out = i % 2;
      return true;
    }
  }
  return false;
}

static bool parse_choice(int *out, const char *choices, const char *text) {
  size_t length = strlen(text);
  for (int i = 0; length; i++) {
    const char *bar = strchr(choices, '|');
    size_t size = bar ? (size_t)(bar - choices) : strlen(choices);
    if (size == length && strncasecmp(choices, text, size) == 0) {
      *out = i;
      return true;
    }
    if (!bar) break;
    choices = bar + 1;
  }
  return false;
}

static bool in_bounds(const mc_option_row *row, uint64_t value) {
  return (row->least <= 0 || value >= (uint64_t)row->least) && (row->most <= 0 || value <= (uint64_t)row->most);
}

static bool parse_duration(int64_t *out, const char *value) {
  uint64_t number;
  if (strcasecmp(value, "never") == 0 || strcmp(value, "0") == 0) {
    *out = 0;
  } else if (strcasecmp(value, "forever") == 0) {
    *out = -1;
  } else if (parse_number(&number, value, times) && number <= INT64_MAX) {
    *out = (int64_t)number;
  } else {
    return false;
  }
  return true;
}

static const char *what_it_takes(const mc_option_row *row) {
  switch (row->type) {
  case MC_OPTION_STRING:
    return "a text";
  case MC_OPTION_BOOL:
    return "true or false";
  case MC_OPTION_COUNT:
  case MC_OPTION_NUMBER:
    return "a number";
  case MC_OPTION_SIZE:
    return "a size such as 512MiB or 4GiB";
  case MC_OPTION_DURATION:
    return "a duration such as 250ms, 10s, 5m or 2h";
  case MC_OPTION_CHOICE:
    return row->choices;
  }
  return "something else";
}

static const struct unit *units_of(mc_option_type type) {
  return type == MC_OPTION_SIZE ? sizes : type == MC_OPTION_DURATION ? times : counts;
}

static void print_number(char *text, size_t size, uint64_t value, const struct unit *units) {
  const struct unit *best = units;
  for (const struct unit *unit = units; unit->name; unit++) {
    if (value && value % unit->factor == 0 && unit->factor > best->factor) best = unit;
  }
  snprintf(text, size, "%" PRIu64 "%s", value / best->factor, best->name);
}

static mc_status out_of_bounds(const mc_option_row *row, const char *value, mc_error *err) {
  char least[32], most[32];
  print_number(least, sizeof(least), row->least > 0 ? (uint64_t)row->least : 0, units_of(row->type));
  print_number(most, sizeof(most), row->most > 0 ? (uint64_t)row->most : 0, units_of(row->type));
  return mc_error_set(err, MC_INVALID_ARGUMENT, "option", "%s: '%.60s' is out of bounds: at least %s%s%s", row->name,
                      value, least, row->most > 0 ? ", at most " : "", row->most > 0 ? most : "");
}

mc_status mc_option_parse(const mc_option_row *row, void *options, const char *value, mc_error *err) {
  void *member = (char *)options + row->offset;
  uint64_t number = 0;
  int64_t duration = 0;
  bool good = false, bounded;
  switch (row->type) {
  case MC_OPTION_STRING:
    *(const char **)member = *value ? value : NULL;
    return MC_OK;
  case MC_OPTION_BOOL:
    good = parse_bool(member, value);
    break;
  case MC_OPTION_CHOICE:
    good = parse_choice(member, row->choices, value);
    break;
  case MC_OPTION_COUNT:
    good = parse_number(&number, value, counts) && number <= UINT32_MAX;
    if (good && !in_bounds(row, number)) return out_of_bounds(row, value, err);
    if (good) *(uint32_t *)member = (uint32_t)number;
    break;
  case MC_OPTION_NUMBER:
  case MC_OPTION_SIZE:
    good = parse_number(&number, value, units_of(row->type));
    if (good && !in_bounds(row, number)) return out_of_bounds(row, value, err);
    if (good) *(uint64_t *)member = number;
    break;
  case MC_OPTION_DURATION:
    good = parse_duration(&duration, value);
    bounded = duration < 0 ? row->least < 0 : in_bounds(row, (uint64_t)duration);
    if (good && !bounded) return out_of_bounds(row, value, err);
    if (good) *(int64_t *)member = duration;
    break;
  }
  if (good) return MC_OK;
  return mc_error_set(err, MC_INVALID_ARGUMENT, "option", "%s: '%.60s' is not %s", row->name, value,
                      what_it_takes(row));
}

/* But not the password of a "scheme://user:password@…", however odd it is. */
static void print_string(char *text, size_t size, const char *value) {
  const char *user = strstr(value, "://"), *end = user ? strrchr(user, '@') : NULL;
  const char *password = end ? memchr(user + 3, ':', (size_t)(end - user - 3)) : NULL;
  if (password) {
    snprintf(text, size, "%.*s:*%s", (int)(password - value), value, end);
  } else {
    snprintf(text, size, "%s", value);
  }
}

const char *mc_option_print(const mc_option_row *row, const void *options, char *text, size_t size) {
  const void *member = (const char *)options + row->offset;
  switch (row->type) {
  case MC_OPTION_STRING: {
    const char *value = *(const char *const *)member;
    print_string(text, size, value ? value : "");
    break;
  }
  case MC_OPTION_BOOL:
    snprintf(text, size, "%s", *(const bool *)member ? "true" : "false");
    break;
  case MC_OPTION_COUNT:
    snprintf(text, size, "%" PRIu32, *(const uint32_t *)member);
    break;
  case MC_OPTION_NUMBER:
    snprintf(text, size, "%" PRIu64, *(const uint64_t *)member);
    break;
  case MC_OPTION_SIZE:
    print_number(text, size, *(const uint64_t *)member, sizes);
    break;
  case MC_OPTION_DURATION: {
    int64_t value = *(const int64_t *)member;
    if (value == MC_INHERIT) {
      snprintf(text, size, "%s", "");
    } else if (value == 0) {
      snprintf(text, size, "never");
    } else if (value < 0) {
      snprintf(text, size, "forever");
    } else {
      print_number(text, size, (uint64_t)value, times);
    }
    break;
  }
  case MC_OPTION_CHOICE: {
    const char *at = row->choices;
    for (int i = *(const int *)member; i > 0 && at; i--) {
      at = strchr(at, '|');
      if (at) at++;
    }
    snprintf(text, size, "%.*s", at ? (int)strcspn(at, "|") : 0, at ? at : "");
    break;
  }
  }
  return text;
}
