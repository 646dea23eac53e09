/* The command line: the library's options by their table, and the command's own. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define ROW(flag, member, type, fallback, help)                                                                        \
  { flag, NULL, type, offsetof(struct command_line, member), fallback, NULL, 0, 0, "", help }

static const mc_option_row own_rows[] = {
    ROW("output", output, MC_OPTION_STRING, "", "get: where the file goes; a folder for several; '-' is stdout (-o)"),
    ROW("timeout", timeout_ms, MC_OPTION_DURATION, "never", "give up after this long"),
    ROW("json", json, MC_OPTION_BOOL, "false", "print JSON"),
    ROW("quiet", quiet, MC_OPTION_BOOL, "false", "no progress (-q)"),
    ROW("verbose", verbose, MC_OPTION_BOOL, "false", "the library's log on stderr (-v)"),
    ROW("refresh", refresh, MC_OPTION_BOOL, "false", "ask the origin whether the copy is current, however young it is"),
    ROW("cached", cached, MC_OPTION_BOOL, "false", "only what is in the cache"),
    ROW("no_store", no_store, MC_OPTION_BOOL, "false", "get -o: straight to the file, keep nothing"),
    ROW("pin", pin, MC_OPTION_BOOL, "false", "get, prefetch: never evict it by itself"),
    ROW("origin", origin, MC_OPTION_BOOL, "false", "ls: what the origin has below the URL"),
    {0},
};

/* Whether a flag, without its dashes, is the row's name written with '-'. */
static bool names(const mc_option_row *row, const char *flag, size_t size) {
  if (strlen(row->name) != size) return false;
  for (size_t i = 0; i < size; i++) {
    if (row->name[i] != (flag[i] == '-' ? '_' : flag[i])) return false;
  }
  return true;
}

static const mc_option_row *find(const mc_option_row *rows, const char *flag, size_t size) {
  for (; rows->name; rows++) {
    if (names(rows, flag, size)) return rows;
  }
  return NULL;
}

static bool complain(const char *message, const char *what) {
  fprintf(stderr, "modelcache: %s%s; see 'modelcache help'\n", message, what);
  return false;
}

static bool apply(const mc_option_row *row, void *target, const char *value) {
  mc_error error = MC_ERROR_INIT;
  if (mc_option_parse(row, target, value, &error) == MC_OK) return true;
  fprintf(stderr, "modelcache: %s\n", error.message);
  return false;
}

/* One "--name", "--name=value", "--no-name"; *used: how many words it took. */
static bool take_flag(struct command_line *line, const char *flag, const char *next, int *used) {
  size_t size = strcspn(flag, "=");
  const char *value = flag[size] ? flag + size + 1 : NULL;
  void *target = line;
  const mc_option_row *row = find(own_rows, flag, size);
  if (!row) {
    row = find(mc_option_rows(), flag, size);
    target = &line->options;
  }
  bool off = !row && strncmp(flag, "no-", 3) == 0;
  if (off) {
    row = find(mc_option_rows(), flag + 3, size - 3);
    off = row && row->type == MC_OPTION_BOOL;
  }
  if (!row || (!off && strncmp(flag, "no-", 3) == 0 && !find(own_rows, flag, size))) {
    return complain("there is no option --", flag);
  }
  *used = 1;
  if (row->type == MC_OPTION_BOOL && !value) return apply(row, target, off ? "false" : "true");
  if (!value) {
    if (!next) return complain("a value is missing after --", flag);
    value = next;
    *used = 2;
  }
  return apply(row, target, value);
}

static const char *long_form(char letter) {
  switch (letter) {
  case 'o':
    return "output";
  case 'q':
    return "quiet";
  case 'v':
    return "verbose";
  case 'h':
    return "help";
  default:
    return NULL;
  }
}

static bool take_environment(struct command_line *line) {
  for (const mc_option_row *row = mc_option_rows(); row->name; row++) {
    const char *value = row->env ? getenv(row->env) : NULL;
    if (value && *value && !apply(row, &line->options, value)) return false;
  }
  return true;
}

bool command_line_parse(struct command_line *line, int argc, char **argv) {
  *line = (struct command_line){.words = calloc((size_t)argc + 1, sizeof(char *))};
  mc_options_init(&line->options);
  if (!line->words || !take_environment(line)) return false;
  bool flags = true;
  for (int i = 1, used; i < argc; i += used) {
    const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
    used = 1;
    if (flags && strcmp(word, "--") == 0) {
      flags = false;
    } else if (flags && (strcmp(word, "--help") == 0 || strcmp(word, "--version") == 0)) {
      line->words[line->word_count++] = word + 2;
    } else if (flags && word[0] == '-' && word[1] == '-') {
      if (!take_flag(line, word + 2, next, &used)) return false;
    } else if (flags && word[0] == '-' && word[1] && !word[2] && long_form(word[1])) {
      if (word[1] == 'h') {
        line->words[line->word_count++] = "help";
      } else if (!take_flag(line, long_form(word[1]), next, &used)) {
        return false;
      }
    } else if (flags && word[0] == '-' && word[1]) {
      return complain("there is no option ", word);
    } else {
      line->words[line->word_count++] = word;
    }
  }
  return true;
}

static void print_rows(const mc_option_row *rows) {
  for (; rows->name; rows++) {
    char flag[64];
    snprintf(flag, sizeof(flag), "--%s%s", rows->name, rows->type == MC_OPTION_BOOL ? "" : " VALUE");
    for (char *at = flag; *at; at++) {
      if (*at == '_') *at = '-';
    }
    printf("  %-32s %s%s%s%s\n", flag, rows->help, *rows->fallback ? " [" : "", rows->fallback,
           *rows->fallback ? "]" : "");
  }
}

void print_help(void) {
  printf("modelcache: get model files from a cache, or through one in this process\n\n"
         "  modelcache get URL… [-o PATH]    get files; without -o print where they are in the cache\n"
         "  modelcache tree URL DIR          get all files below a URL; DIR becomes a link to one whole version\n"
         "  modelcache stat URL              what is there\n"
         "  modelcache ls [PREFIX]           what the cache holds; with --origin what the origin has\n"
         "  modelcache prefetch URL…         have the cache get files\n"
         "  modelcache evict URL…            have the cache forget files\n"
         "  modelcache status                the state of the cache\n"
         "  modelcache help, version\n\n"
         "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 permission denied, 5 unavailable or too late\n"
         "(try again), 6 no space, 7 corrupt, 130 interrupted (what has arrived is kept, the next get goes on).\n\n"
         "Options:\n");
  print_rows(own_rows);
  printf("\nOptions of the cache (each also as an environment variable, MODELCACHE_NAME):\n");
  print_rows(mc_option_rows());
}
