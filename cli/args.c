/* The command line: the library's options by their table, and the command's own flags by a table of the same kind. */
#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define HELP_WIDTH  80
#define HELP_COLUMN 32

#define ROW(flag, member, type, fallback, unit, help)                                                                  \
  [flag] = {#member, NULL, type, offsetof(struct command_line, member), fallback, NULL, 0, 0, unit, help}

static const mc_option_row own_rows[FLAG_COUNT + 1] = {
    ROW(FLAG_OUTPUT, output, MC_OPTION_STRING, "", "PATH",
        "put the file there; a folder for several files; '-' is stdout"),
    [FLAG_TIMEOUT] = {"timeout", NULL, MC_OPTION_DURATION, offsetof(struct command_line, timeout_ms), "never", NULL, 0,
                      INT64_MAX, "DURATION", "give up after this long"},
    ROW(FLAG_REFRESH, refresh, MC_OPTION_BOOL, "false", "",
        "ask the origin whether the copy is current, however young it is"),
    ROW(FLAG_CACHED, cached, MC_OPTION_BOOL, "false", "", "only what is in the cache"),
    ROW(FLAG_NO_STORE, no_store, MC_OPTION_BOOL, "false", "", "with -o: straight to the file, nothing is kept"),
    ROW(FLAG_PIN, pin, MC_OPTION_BOOL, "false", "", "keep it until it is evicted by hand"),
    ROW(FLAG_DIGEST, digest, MC_OPTION_STRING, "", "SHA256",
        "this version of the file, the current one or one of before that is still stored: see 'history'"),
    ROW(FLAG_ALLOW, allow, MC_OPTION_STRING, "", "PATTERN",
        "of a tree, only files whose path below the URL matches, as '*.json' or 'onnx/'; may be repeated"),
    ROW(FLAG_IGNORE, ignore, MC_OPTION_STRING, "", "PATTERN",
        "of a tree, not the files whose path matches; may be repeated"),
    ROW(FLAG_ORIGIN, origin, MC_OPTION_BOOL, "false", "", "list what the origin has below a URL"),
    ROW(FLAG_AFTER, after, MC_OPTION_STRING, "", "URL", "list only what comes after this URL, to go on from there"),
    ROW(FLAG_LIMIT, limit, MC_OPTION_COUNT, "0", "", "list no more than so many; 0: all"),
    ROW(FLAG_DRY_RUN, dry_run, MC_OPTION_BOOL, "false", "", "look, and change nothing"),
    ROW(FLAG_JSON, json, MC_OPTION_BOOL, "false", "", "print JSON, one document a line"),
    ROW(FLAG_QUIET, quiet, MC_OPTION_BOOL, "false", "", "no progress and no warnings"),
    ROW(FLAG_VERBOSE, verbose, MC_OPTION_BOOL, "false", "", "the library's log on stderr"),
};
static const char letters[FLAG_COUNT] = {[FLAG_OUTPUT] = 'o', [FLAG_QUIET] = 'q', [FLAG_VERBOSE] = 'v'};

const char *flag_name(enum flag flag) {
  static const char *const names[FLAG_COUNT] = {
      [FLAG_OUTPUT] = "output",     [FLAG_TIMEOUT] = "timeout", [FLAG_REFRESH] = "refresh", [FLAG_CACHED] = "cached",
      [FLAG_NO_STORE] = "no-store", [FLAG_PIN] = "pin",         [FLAG_DIGEST] = "digest",   [FLAG_ALLOW] = "allow",
      [FLAG_IGNORE] = "ignore",     [FLAG_ORIGIN] = "origin",   [FLAG_AFTER] = "after",     [FLAG_LIMIT] = "limit",
      [FLAG_DRY_RUN] = "dry-run",   [FLAG_JSON] = "json",       [FLAG_QUIET] = "quiet",     [FLAG_VERBOSE] = "verbose"};
  return names[flag];
}

/* ---- names ---- */

/* Whether a flag without its dashes, `size` long, is the row's name written with '-'. */
static bool names(const mc_option_row *row, const char *flag, size_t size) {
  if (strlen(row->name) != size) return false;
  for (size_t i = 0; i < size; i++) {
    if ((row->name[i] == '_' ? '-' : row->name[i]) != flag[i]) return false;
  }
  return true;
}

static const mc_option_row *find(const mc_option_row *rows, const char *flag, size_t size) {
  for (; rows->name; rows++) {
    if (names(rows, flag, size)) return rows;
  }
  return NULL;
}

size_t distance(const char *a, const char *b) {
  size_t row[64], width = strlen(b);
  if (width >= sizeof(row) / sizeof(*row)) return SIZE_MAX;
  for (size_t j = 0; j <= width; j++) row[j] = j;
  for (size_t i = 1; a[i - 1]; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= width; j++) {
      char x = a[i - 1] == '_' ? '-' : a[i - 1], y = b[j - 1] == '_' ? '-' : b[j - 1];
      size_t best = diagonal + (x != y);
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = row[j];
      row[j] = best;
    }
  }
  return row[width];
}

bool resembles(const char *typed, size_t distance) {
  return distance <= 2 && distance < strlen(typed);
}

static bool unknown_flag(const char *flag, size_t size) {
  static const mc_option_row others[] = {{.name = "help"}, {.name = "version"}, {0}};
  const mc_option_row *tables[] = {own_rows, mc_option_rows(), others}, *best = NULL;
  size_t least = SIZE_MAX;
  char typed[64], shown[64];
  snprintf(typed, sizeof(typed), "%.*s", (int)size, flag);
  for (size_t t = 0; t < 3; t++) {
    for (const mc_option_row *row = tables[t]; row->name; row++) {
      size_t away = distance(typed, row->name);
      if (away < least) best = row;
      if (away < least) least = away;
    }
  }
  printable(shown, sizeof(shown), typed);
  if (!best || !resembles(typed, least)) {
    usage("there is no option --%s; see 'modelcache help'", shown);
  } else {
    char name[64];
    snprintf(name, sizeof(name), "%s", best->name);
    for (char *at = name; *at; at++) *at = *at == '_' ? '-' : *at;
    usage("there is no option --%s; did you mean --%s?", shown, name);
  }
  return false;
}

/* ---- reading ---- */

/* `name`: what the user wrote. */
static bool apply(const mc_option_row *row, void *target, const char *value, const char *name) {
  mc_error error = MC_ERROR_INIT;
  if (mc_option_parse(row, target, value, &error) == MC_OK) return true;
  const char *what = error.message; /* it begins with the row's own name */
  if (strncmp(what, row->name, strlen(row->name)) == 0) what += strlen(row->name) + 2;
  usage("%s: %s", name, what);
  return false;
}

static bool read_environment(struct command_line *line) {
  for (const mc_option_row *row = mc_option_rows(); row->name; row++) {
    const char *value = row->env ? getenv(row->env) : NULL;
    if (value && *value && !apply(row, &line->options, value, row->env)) return false;
  }
  return true;
}

/* One of our own or of the library's. `value` NULL: a flag by itself. */
static bool set_flag(struct command_line *line, const mc_option_row *row, const char *value) {
  bool own = row >= own_rows && row < own_rows + FLAG_COUNT;
  char name[64];
  snprintf(name, sizeof(name), "--%s", row->name);
  for (char *at = name; *at; at++) *at = *at == '_' ? '-' : *at;
  if (own) line->given |= 1u << (row - own_rows);
  if (row == &own_rows[FLAG_ALLOW] || row == &own_rows[FLAG_IGNORE]) { /* they add up */
    struct values *values = row == &own_rows[FLAG_ALLOW] ? &line->allow : &line->ignore;
    values->list[values->count++] = value;
    return true;
  }
  return apply(row, own ? (void *)line : (void *)&line->options, value, name);
}

/* "--name", "--name=value", "--name value", "--no-name"; *used: how many words it took. */
static bool read_long(struct command_line *line, const char *flag, const char *next, int *used) {
  size_t size = strcspn(flag, "=");
  const char *value = flag[size] ? flag + size + 1 : NULL;
  const mc_option_row *row = find(own_rows, flag, size);
  if (!row) row = find(mc_option_rows(), flag, size);
  if (!row && size > 3 && strncmp(flag, "no-", 3) == 0 && !value) {
    row = find(mc_option_rows(), flag + 3, size - 3);
    if (row && row->type == MC_OPTION_BOOL) return set_flag(line, row, "false");
    row = NULL;
  }
  if (!row) return unknown_flag(flag, size);
  if (row->type == MC_OPTION_BOOL) return set_flag(line, row, value ? value : "true");
  if (!value && !next) {
    usage("--%s needs a value", flag);
    return false;
  }
  if (!value) *used = 2;
  return set_flag(line, row, value ? value : next);
}

/* "-q", "-qv", "-o PATH", "-oPATH". */
static bool read_short(struct command_line *line, const char *letter, const char *next, int *used) {
  for (; *letter; letter++) {
    const char *at = memchr(letters, *letter, sizeof(letters));
    const mc_option_row *row = at ? &own_rows[at - letters] : NULL;
    if (*letter == 'h') {
      line->help = true;
    } else if (!row) {
      usage("there is no option -%c; see 'modelcache help'", *letter > ' ' && *letter < 0x7f ? *letter : '?');
      return false;
    } else if (row->type == MC_OPTION_BOOL) {
      if (!set_flag(line, row, "true")) return false;
    } else {
      if (!letter[1] && !next) {
        usage("-%c needs a value", *letter);
        return false;
      }
      if (!letter[1]) *used = 2;
      return set_flag(line, row, letter[1] ? letter + 1 : next);
    }
  }
  return true;
}

static bool add_word(struct command_line *line, const char *word) {
  if (line->command) {
    line->words[line->word_count++] = word;
  } else {
    line->command = word;
  }
  return true;
}

static bool read_word(struct command_line *line, const char *word, const char *next, int *used) {
  if (word[0] != '-' || !word[1]) return add_word(line, word);
  if (word[1] != '-') return read_short(line, word + 1, next, used);
  if (strcmp(word, "--help") == 0) return line->help = true;
  if (strcmp(word, "--version") == 0) return line->version = true;
  return read_long(line, word + 2, next, used);
}

bool command_line_read(struct command_line *line, int argc, char **argv) {
  *line = (struct command_line){.after = "", .words = calloc((size_t)argc + 1, sizeof(char *))};
  line->allow.list = calloc((size_t)argc + 1, sizeof(char *));
  line->ignore.list = calloc((size_t)argc + 1, sizeof(char *));
  mc_options_init(&line->options);
  if (!line->words || !line->allow.list || !line->ignore.list || !read_environment(line)) return false;
  for (int i = 1, used; i < argc; i += used) {
    used = 1;
    if (strcmp(argv[i], "--") == 0) {
      while (++i < argc) add_word(line, argv[i]);
      break;
    }
    if (!read_word(line, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used)) return false;
  }
  return true;
}

void command_line_free(struct command_line *line) {
  free(line->words);
  free(line->allow.list);
  free(line->ignore.list);
}

/* ---- help ---- */

/* What stands for a row's value in the help. */
static const char *placeholder(const mc_option_row *row, char *text, size_t size) {
  switch (row->type) {
  case MC_OPTION_BOOL:
    return "";
  case MC_OPTION_SIZE:
    return "SIZE";
  case MC_OPTION_DURATION:
    return "DURATION";
  case MC_OPTION_COUNT:
  case MC_OPTION_NUMBER:
    return "N";
  case MC_OPTION_CHOICE:
    return row->choices;
  case MC_OPTION_STRING:
    break;
  }
  snprintf(text, size, "%s", *row->unit ? row->unit : "name");
  for (char *at = text; *at; at++) *at = (char)toupper((unsigned char)*at);
  return text;
}

void print_wrapped(const char *left, const char *text) {
  int column = printf("%s", left);
  for (const char *at = left; *at; at++) column -= ((unsigned char)*at & 0xc0) == 0x80; /* columns are not bytes */
  if (column >= HELP_COLUMN) {
    putchar('\n');
    column = 0;
  }
  printf("%*s", HELP_COLUMN - column, "");
  column = HELP_COLUMN;
  while (*text) {
    int word = (int)strcspn(text, " ");
    bool first = column == HELP_COLUMN;
    if (!first && column + 1 + word > HELP_WIDTH) {
      printf("\n%*s", HELP_COLUMN, "");
      column = HELP_COLUMN;
      first = true;
    }
    column += printf("%s%.*s", first ? "" : " ", word, text);
    text += word + (text[word] == ' ');
  }
  putchar('\n');
}

static void print_row(const mc_option_row *row, char letter) {
  char left[160], name[64], text[400], value_text[32], short_form[8] = "    ";
  bool plain = row->type == MC_OPTION_BOOL, can_be_off = plain && strcmp(row->fallback, "true") == 0;
  const char *value = placeholder(row, value_text, sizeof(value_text));
  const char *fallback = can_be_off ? "on" : plain ? "" : row->fallback;
  if (letter) snprintf(short_form, sizeof(short_form), "-%c, ", letter);
  snprintf(name, sizeof(name), "%s", row->name);
  for (char *at = name; *at; at++) *at = *at == '_' ? '-' : *at;
  snprintf(left, sizeof(left), "  %s--%s%s%s%s ", short_form, can_be_off ? "[no-]" : "", name, *value ? " " : "",
           value);
  snprintf(text, sizeof(text), "%s%s%s%s", row->help, *fallback ? " [" : "", fallback, *fallback ? "]" : "");
  print_wrapped(left, text);
}

void print_flags(uint32_t mask) {
  for (int flag = 0; flag < FLAG_COUNT; flag++) {
    if (mask & 1u << flag) print_row(&own_rows[flag], letters[flag]);
  }
}

void print_library_options(void) {
  for (const mc_option_row *row = mc_option_rows(); row->name; row++) {
    if (!find(own_rows, row->name, strlen(row->name)))
      print_row(row, 0); /* else the flag is another: the variable sets it */
  }
}
