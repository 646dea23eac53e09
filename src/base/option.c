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

static const struct unit sizes[] = {{"", 1},
                                    {"B", 1},
                                    {"k", 1ull << 10},
                                    {"KB", 1ull << 10},
                                    {"KiB", 1ull << 10},
                                    {"m", 1ull << 20},
                                    {"MB", 1ull << 20},
                                    {"MiB", 1ull << 20},
                                    {"g", 1ull << 30},
                                    {"GB", 1ull << 30},
                                    {"GiB", 1ull << 30},
                                    {"t", 1ull << 40},
                                    {"TB", 1ull << 40},
                                    {"TiB", 1ull << 40},
                                    {NULL, 0}};
static const struct unit times[] = {{"ms", 1},       {"s", 1000},    {"m", 60000}, {"h", 3600000},
                                    {"d", 86400000}, {"min", 60000}, {NULL, 0}};
static const struct unit counts[] = {{"", 1}, {NULL, 0}};

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

static bool in_bounds(const mc_option_row *row, int64_t value) {
  return (row->least == 0 && row->most == 0) || (value >= row->least && (row->most == 0 || value <= row->most));
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

mc_status mc_option_parse(const mc_option_row *row, void *options, const char *value, mc_error *err) {
  void *member = (char *)options + row->offset;
  uint64_t number = 0;
  int64_t duration = 0;
  bool good = false, bounded = true;
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
    bounded = in_bounds(row, (int64_t)number);
    if (good && bounded) *(uint32_t *)member = (uint32_t)number;
    break;
  case MC_OPTION_NUMBER:
  case MC_OPTION_SIZE:
    good = parse_number(&number, value, row->type == MC_OPTION_SIZE ? sizes : counts) && number <= INT64_MAX;
    bounded = in_bounds(row, (int64_t)number);
    if (good && bounded) *(uint64_t *)member = number;
    break;
  case MC_OPTION_DURATION:
    good = parse_duration(&duration, value);
    bounded = in_bounds(row, duration);
    if (good && bounded) *(int64_t *)member = duration;
    break;
  }
  if (!good) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, "option", "%s: '%.60s' is not %s", row->name, value,
                        what_it_takes(row));
  }
  if (!bounded) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, "option", "%s: '%.60s' is out of bounds (%lld to %lld)", row->name,
                        value, (long long)row->least, (long long)row->most);
  }
  return MC_OK;
}

static void print_number(char *text, size_t size, uint64_t value, const struct unit *units, const char *const *names) {
  uint64_t factor = 1;
  const char *name = names[0];
  for (const char *const *at = names; *at; at++) {
    for (const struct unit *unit = units; unit->name; unit++) {
      if (strcmp(unit->name, *at) == 0 && value && value % unit->factor == 0 && unit->factor >= factor) {
        factor = unit->factor;
        name = *at;
      }
    }
  }
  snprintf(text, size, "%" PRIu64 "%s", value / factor, name);
}

const char *mc_option_print(const mc_option_row *row, const void *options, char *text, size_t size) {
  static const char *const size_names[] = {"", "KiB", "MiB", "GiB", "TiB", NULL};
  static const char *const time_names[] = {"ms", "s", "m", "h", "d", NULL};
  const void *member = (const char *)options + row->offset;
  switch (row->type) {
  case MC_OPTION_STRING: {
    const char *value = *(const char *const *)member;
    snprintf(text, size, "%s", value ? value : "");
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
    print_number(text, size, *(const uint64_t *)member, sizes, size_names);
    break;
  case MC_OPTION_DURATION: {
    int64_t value = *(const int64_t *)member;
    if (value == 0) {
      snprintf(text, size, "never");
    } else if (value < 0) {
      snprintf(text, size, "forever");
    } else {
      print_number(text, size, (uint64_t)value, times, time_names);
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
