/* What is printed of the tables: the help, the configuration in effect, the pages in docs/. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

#define WIDTH   80
#define LEFT    30   /* columns of the flags */
#define LONGEST 8400 /* of what is in a rule: a longer URL is refused */

/* Words from column LEFT on, where the cursor is; ends the line. ASCII alone. */
static void print_wrapped(const char *text) {
  int column = LEFT;
  while (*text) {
    int word = (int)strcspn(text, " ");
    if (column > LEFT && column + 1 + word > WIDTH) {
      printf("\n%*s", LEFT, "");
      column = LEFT;
    }
    column += printf("%s%.*s", column > LEFT ? " " : "", word, text);
    text += word + (text[word] == ' ');
  }
  putchar('\n');
}

static const char *fallback_of(const mc_option_row *row) {
  if (strcmp(row->name, "storage") == 0) return "$XDG_CACHE_HOME/modelcached, ~/.cache/modelcached";
  return strcmp(row->name, "schemes") == 0 ? SERVER_SCHEMES : row->fallback;
}

static const char *help_of(const mc_option_row *row) {
  if (strcmp(row->name, "storage") == 0) return "the folder where objects are kept; 'none' keeps nothing";
  return row->help;
}

static void print_flags(const mc_option_row *row) {
  for (; row->name; row++) {
    char flag[100], text[400];
    bool on = row->type == MC_OPTION_BOOL && strcmp(row->fallback, "true") == 0;
    const char *fallback = row->type == MC_OPTION_BOOL && !on ? "" : fallback_of(row);
    flag_of(row, true, flag, sizeof(flag));
    snprintf(text, sizeof(text), "%s%s%s%s", help_of(row), *fallback ? " [" : "", on ? "on" : fallback,
             *fallback ? "]" : "");
    int used = on ? printf("  --[no-]%s", flag + 2) : printf("  %s", flag);
    printf(used > LEFT - 2 ? "\n%*s" : "%*s", used > LEFT - 2 ? LEFT : LEFT - used, "");
    print_wrapped(text);
  }
}

void print_help(void) {
  printf("modelcached: serve model files from one cache to many clients\n\n"
         "Usage: modelcached [OPTION]...\n\n"
         "Each option is also an environment variable and a key of the YAML file that\n"
         "--config names: --log-level is MODELCACHED_LOG_LEVEL and log_level,\n"
         "--storage-ttl, one of the cache's, is MODELCACHE_STORAGE_TTL and storage_ttl.\n"
         "A flag goes before the environment, and that before the file, which alone has\n"
         "rules for origins, and credentials: docs/options.md.\n\n"
         "Options of the server:\n");
  print_flags(config_rows());
  printf("  --help, --version\n\nOptions of the cache:\n");
  print_flags(mc_option_rows());
  printf("\nA SIZE is 512MiB or 4GiB, a DURATION 250ms, 10s, 5m, 2h or 7d.\n"
         "SIGTERM and SIGINT end the server once what is under way has ended; a second one\n"
         "ends it at once. Exit codes: 0 stopped, 1 it could not start, 2 usage.\n");
}

static void print_quoted(const char *text) {
  putchar('"');
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    if (c < 0x20 || c == 0x7f) {
      printf("\\x%02x", c);
    } else {
      printf(c == '"' || c == '\\' ? "\\%c" : "%c", c);
    }
  }
  putchar('"');
}

static void print_rows(const mc_option_row *row, const void *target) {
  char text[4200];
  for (; row->name; row++) {
    if (!is_setting(row)) continue;
    const char *value = mc_option_print(row, target, text, sizeof(text));
    printf("%s%s: ", *value ? "" : "# ", row->name);
    print_quoted(value);
    putchar('\n');
  }
}

/* What it says, as far as that is not the default. */
static void print_rule(const mc_origin_rule *rule) {
  static const mc_origin_rule fallback = MC_ORIGIN_RULE_INIT;
  char text[LONGEST], usual[64];
  const char *before = "  - ";
  for (const mc_option_row *row = mc_origin_rule_rows(); row->name; row++) {
    mc_option_print(row, rule, text, sizeof(text));
    if (strcmp(text, mc_option_print(row, &fallback, usual, sizeof(usual))) == 0) continue;
    printf("%s%s: ", before, row->name);
    print_quoted(text);
    putchar('\n');
    before = "    ";
  }
}

/* The values may be secrets: none is printed, but where one is a file's name. */
static void print_credentials(const mc_credentials *credentials) {
  printf("  ");
  print_quoted(credentials->name);
  printf(credentials->count ? ":\n" : ": {}\n");
  for (size_t i = 0; i < credentials->count; i++) {
    printf("    ");
    const mc_setting *setting = &credentials->settings[i];
    const char *end = strrchr(setting->key, '_');
    print_quoted(setting->key);
    printf(": ");
    print_quoted(end && strcmp(end, "_file") == 0 ? setting->value : "***");
    putchar('\n');
  }
}

void print_values(const struct server_options *options) {
  const mc_options *cache = &options->cache;
  print_rows(config_rows(), options);
  print_rows(mc_option_rows(), cache);
  if (cache->origin_count) printf("origins:\n");
  for (size_t i = 0; i < cache->origin_count; i++) print_rule(&cache->origins[i]);
  if (cache->credentials_count) printf("credentials:\n");
  for (size_t i = 0; i < cache->credentials_count; i++) print_credentials(&cache->credentials[i]);
}

/* ---- the pages in docs/ ---- */

/* A cell of a table: '|' would end it. */
static void print_cell(const char *text) {
  printf("| ");
  for (; *text; text++) printf(*text == '|' ? "\\|" : "%c", *text);
  putchar(' ');
}

static void print_code(const char *text) {
  char code[200];
  snprintf(code, sizeof(code), "`%s`", text);
  print_cell(*text ? code : "");
}

static void print_table(const char *title, const mc_option_row *row) {
  printf("\n## %s\n\n| flag | key | environment | default | what it does |\n|---|---|---|---|---|\n", title);
  for (; row->name; row++) {
    char flag[100];
    print_code(flag_of(row, true, flag, sizeof(flag)));
    print_code(is_setting(row) ? row->name : "");
    print_code(row->env ? row->env : "");
    print_code(fallback_of(row));
    print_cell(help_of(row));
    printf("|\n");
  }
}

static void print_options(void) {
  printf(
      "# Options of modelcached\n\n"
      "Printed by `modelcached --print-reference options`.\n\n"
      "A flag goes before the environment, and that before the file that `--config` names. The file is YAML, with\n"
      "`key: value` lines. Sizes are `512MiB` or `4GiB`, durations `250ms`, `10s`, `5m`, `2h` or `7d`. What is on or\n"
      "off takes `--name`, `--no-name`, `--name=no`. `modelcached --print-config` shows what is in effect.\n\n"
      "The command `modelcache` and the library take the options of the cache, too; their `schemes` and `storage`\n"
      "are `file," SERVER_SCHEMES "` and `~/.cache/modelcache` by default.\n");
  print_table("Of the server", config_rows());
  print_table("Of the cache", mc_option_rows());
  printf(
      "\n## Of origins\n\n"
      "Only in the file: a list under `origins`, each a rule with these keys, and under `credentials` what the rules\n"
      "name; see [operating.md](operating.md#origins).\n\n"
      "| key | default | what it does |\n|---|---|---|\n");
  for (const mc_option_row *row = mc_origin_rule_rows(); row->name; row++) {
    print_code(row->name);
    print_code(row->fallback);
    print_cell(row->help);
    printf("|\n");
  }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
  (void)st;
  (void)type;
  (void)at;
  return remove(path);
}

static int print_metrics(void) {
  mc_stat_row rows[MAX_STATS];
  mc_options options = MC_OPTIONS_INIT;
  mc_cache *cache;
  mc_error error = MC_ERROR_INIT;
  char folder[] = "/tmp/modelcached-XXXXXX";
  if (!mkdtemp(folder)) return 1;
  options.storage = folder; /* with both tiers, so that each has its rows */
  options.memory_capacity = 1 << 20;
  if (mc_open_options(&cache, &options, &error) == MC_OK) {
    printf("# Metrics of modelcached\n\n"
           "Printed by `modelcached --print-reference metrics`. At `/metrics` of the web address, in Prometheus' text\n"
           "format, each with the prefix `modelcache_`. Those of the memory tier are there when it is.\n\n"
           "| metric | type | unit | what it counts |\n|---|---|---|---|\n");
    web_stats(rows, cache, NULL, NULL);
    for (const mc_stat_row *row = rows; row->name; row++) {
      printf("| `modelcache_%s` | %s | %s | %s |\n", row->name, row->gauge ? "gauge" : "counter", row->unit, row->help);
    }
    mc_close(cache);
  }
  nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
  return error.status ? 1 : 0;
}

int print_reference(const char *page) {
  if (strcmp(page, "metrics") == 0) return print_metrics();
  if (strcmp(page, "options") == 0) {
    print_options();
    return 0;
  }
  fprintf(stderr, "modelcached: --print-reference takes 'options' or 'metrics'\n");
  return 2;
}
