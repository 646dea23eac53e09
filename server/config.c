/* The server's options: the library's table and our own rows, from flags, the environment and a YAML file. */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#define CONFIG_MAX (1 << 20)
#define USAGE      2

#define ROW(name, env, member, type, fallback, choices, least, most, unit, help)                                       \
  {                                                                                                                    \
#name, "MODELCACHED_" env, type, offsetof(struct server_options, member), fallback, choices, least, most, unit,    \
        help                                                                                                           \
  }

/* clang-format off */
static const mc_option_row own_rows[] = {
    ROW(control, "CONTROL", control, MC_OPTION_STRING, "127.0.0.1:7440", NULL, 0, 0, "HOST:PORT",
        "where the gRPC control plane listens; port 0: any free one"),
    ROW(data, "DATA", data, MC_OPTION_STRING, "127.0.0.1:7441", NULL, 0, 0, "HOST:PORT",
        "where the TCP data plane listens"),
    ROW(web, "WEB", web, MC_OPTION_STRING, "127.0.0.1:7442", NULL, 0, 0, "HOST:PORT",
        "where /healthz, /readyz and /metrics are served; 'none': nowhere"),
    ROW(advertise, "ADVERTISE", advertise, MC_OPTION_STRING, "", NULL, 0, 0, "HOST[:PORT]",
        "how clients reach the data plane, when that is not the address it listens on"),
    ROW(log_format, "LOG_FORMAT", log_format, MC_OPTION_CHOICE, "text", "text|json", 0, 0, "",
        "the form of the log on stderr"),
    ROW(log_level, "LOG_LEVEL", log_level, MC_OPTION_CHOICE, "info", "error|warn|info|debug", 0, 0, "",
        "the least urgent messages that are logged"),
    ROW(drain, "DRAIN", drain_ms, MC_OPTION_DURATION, "30s", NULL, 0, 7 * 86400000LL, "duration",
        "on SIGTERM, how long calls and transfers under way may take to end"),
    ROW(max_connections, "MAX_CONNECTIONS", max_connections, MC_OPTION_COUNT, "4096", NULL, 1, 0, "",
        "connections to the data plane"),
    ROW(data_threads, "DATA_THREADS", data_threads, MC_OPTION_COUNT, "0", NULL, 0, 256, "",
        "threads of the data plane; 0: by the cores"),
    ROW(rpc_threads, "RPC_THREADS", rpc_threads, MC_OPTION_COUNT, "2", NULL, 1, 64, "",
        "threads of the control plane"),
    ROW(ports_file, "PORTS_FILE", ports_file, MC_OPTION_STRING, "", NULL, 0, 0, "file",
        "write the addresses that were bound there, as JSON, once the server is ready"),
    ROW(config, "CONFIG", config, MC_OPTION_STRING, "", NULL, 0, 0, "file",
        "a YAML file with these options as keys"),
    ROW(print_config, "PRINT_CONFIG", print_config, MC_OPTION_BOOL, "false", NULL, 0, 0, "",
        "print the configuration in effect as YAML, and end"),
    {0},
};
/* clang-format on */

const mc_option_row *config_rows(void) {
  return own_rows;
}

bool is_setting(const mc_option_row *row) {
  return strcmp(row->name, "config") != 0 && strcmp(row->name, "print_config") != 0;
}

/* ---- finding rows ---- */

#define MAX_ROWS (sizeof(((struct server_options *)0)->texts) / sizeof(char *))

/* Where the row stands, in one row of both tables. */
static size_t place_of(const mc_option_row *row) {
  size_t own = sizeof(own_rows) / sizeof(*own_rows);
  return row >= own_rows && row < own_rows + own ? (size_t)(row - own_rows) : own + (size_t)(row - mc_option_rows());
}

static void *target_of(struct server_options *options, const mc_option_row *row) {
  bool own = row >= own_rows && row < own_rows + sizeof(own_rows) / sizeof(*own_rows);
  return own ? (void *)options : (void *)&options->cache;
}

/* Every row of both tables, one after the other; NULL begins, and ends. */
static const mc_option_row *next_row(const mc_option_row *row) {
  if (!row) return own_rows;
  row++;
  if (row == own_rows + sizeof(own_rows) / sizeof(*own_rows) - 1) row = mc_option_rows();
  return row->name ? row : NULL;
}

static bool names(const mc_option_row *row, const char *name, size_t size) {
  if (strlen(row->name) != size) return false;
  for (size_t i = 0; i < size; i++) {
    if (row->name[i] != (name[i] == '-' ? '_' : name[i])) return false;
  }
  return true;
}

static const mc_option_row *find(const char *name, size_t size) {
  for (const mc_option_row *row = next_row(NULL); row; row = next_row(row)) {
    if (names(row, name, size)) return row;
  }
  return NULL;
}

/* How many letters to change, add or drop to make one of the other; '-' is '_'. */
static size_t distance(const char *a, const char *b) {
  size_t row[64], n = strlen(b) < 63 ? strlen(b) : 63;
  for (size_t j = 0; j <= n; j++) row[j] = j;
  for (size_t i = 1; a[i - 1]; i++) {
    size_t before = row[0];
    row[0] = i;
    for (size_t j = 1; j <= n; j++) {
      size_t keep = row[j], change = before + (a[i - 1] != b[j - 1] && !(a[i - 1] == '-' && b[j - 1] == '_'));
      row[j] = change < row[j] + 1 ? change : row[j] + 1;
      if (row[j - 1] + 1 < row[j]) row[j] = row[j - 1] + 1;
      before = keep;
    }
  }
  return row[n];
}

/* The option that was meant, or NULL. */
static const mc_option_row *nearest(const char *name) {
  const mc_option_row *best = NULL;
  size_t least = 4; /* further away it is another word */
  for (const mc_option_row *row = next_row(NULL); row; row = next_row(row)) {
    size_t d = distance(name, row->name);
    if (d < least && d < strlen(name)) {
      least = d;
      best = row;
    }
  }
  return best;
}

const char *flag_of(const mc_option_row *row, bool with_value, char *text, size_t size) {
  static const char *const values[] = {
      [MC_OPTION_COUNT] = "N", [MC_OPTION_NUMBER] = "N", [MC_OPTION_SIZE] = "SIZE", [MC_OPTION_DURATION] = "DURATION"};
  snprintf(text, size, "--%s", row->name);
  for (char *at = text; *at; at++) *at = *at == '_' ? '-' : *at;
  size_t used = strlen(text);
  const char *value = row->type == MC_OPTION_STRING   ? (*row->unit ? row->unit : "NAME")
                      : row->type == MC_OPTION_CHOICE ? row->choices
                      : row->type == MC_OPTION_BOOL   ? NULL
                                                      : values[row->type];
  if (!with_value || !value) return text;
  snprintf(text + used, size - used, " %s", value);
  for (char *at = text + used; *at && row->type == MC_OPTION_STRING; at++) {
    if (*at >= 'a' && *at <= 'z') *at = (char)(*at - 'a' + 'A');
  }
  return text;
}

/* ---- setting ---- */

int complain(struct reading *reading, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(reading->message, reading->size, format, args);
  va_end(args);
  for (char *at = reading->message; *at; at++) {
    if ((unsigned char)*at < 0x20 || *at == 0x7f) *at = '?';
  }
  return USAGE;
}

/* `where` and `name`: what the user wrote, and where. */
static int apply(struct reading *reading, const mc_option_row *row, const char *value, const char *where,
                 const char *name) {
  mc_error error = MC_ERROR_INIT;
  if (mc_option_parse(row, target_of(reading->options, row), value, &error) == MC_OK) return -1;
  const char *what = error.message; /* it begins with the row's own name */
  if (strncmp(what, row->name, strlen(row->name)) == 0) what += strlen(row->name) + 2;
  return complain(reading, "%s%s: %s", where, name, what);
}

static int unknown(struct reading *reading, const char *where, const char *name, bool flag) {
  const mc_option_row *meant = nearest(flag ? name + 2 : name);
  char text[80];
  if (!meant) {
    return complain(reading, "%sthere is no option '%.60s'; 'modelcached --help' lists them", where, name);
  }
  return complain(reading, "%sthere is no option '%.60s'; did you mean '%s'?", where, name,
                  flag ? flag_of(meant, false, text, sizeof(text)) : meant->name);
}

static void set_defaults(struct server_options *options) {
  memset(options, 0, sizeof(*options));
  mc_options_init(&options->cache);
  for (const mc_option_row *row = own_rows; row->name; row++) mc_option_parse(row, options, row->fallback, NULL);
  options->cache.schemes = SERVER_SCHEMES;
}

static int load_environment(struct reading *reading) {
  for (const mc_option_row *row = next_row(NULL); row; row = next_row(row)) {
    const char *value = row->env ? getenv(row->env) : NULL;
    int code = value && *value ? apply(reading, row, value, "", row->env) : -1;
    if (code >= 0) return code;
  }
  return -1;
}

/* One flag; *used: how many words it took. */
static int take_flag(struct reading *reading, const char *flag, const char *next, int *used) {
  size_t size = strcspn(flag + 2, "=");
  bool off = false;
  const char *value = flag[2 + size] ? flag + 2 + size + 1 : NULL;
  const mc_option_row *row = find(flag + 2, size);
  char name[80];
  snprintf(name, sizeof(name), "%.*s", (int)(size + 2), flag);
  if (!row && strncmp(flag, "--no-", 5) == 0 && !value) {
    row = find(flag + 5, size - 3);
    off = row && row->type == MC_OPTION_BOOL;
    if (!off) row = NULL;
  }
  if (!row) return unknown(reading, "", name, true);
  *used = 1;
  /* "--name" is "--name yes" */
  bool alone = row->type == MC_OPTION_BOOL && !value && (off || !next || next[0] == '-');
  if (alone) return apply(reading, row, off ? "false" : "true", "", name);
  if (!value && !next) return complain(reading, "%s needs a value", name);
  if (!value) *used = 2;
  return apply(reading, row, value ? value : next, "", name);
}

/* ---- YAML ---- */

struct file {
  struct reading *reading;
  const char *path;
  const mc_option_row *row; /* whose value comes next, or NULL */
  const char *section;      /* the same of a key that is in no table */
  size_t lines[MAX_ROWS];   /* where each row was set; 0: it was not */
  size_t section_lines[2];
};

static int wrong(struct file *file, size_t line, const char *text) {
  return complain(file->reading, "%s:%zu: %s%s%s", file->path, line, file->row ? file->row->name : "",
                  file->row ? ": " : "", text);
}

static int take_key(struct file *file, const char *name, size_t line) {
  char where[300];
  size_t *before = NULL;
  snprintf(where, sizeof(where), "%.200s:%zu: ", file->path, line);
  for (size_t i = 0; config_sections[i]; i++) {
    if (strcmp(name, config_sections[i]) != 0) continue;
    file->section = config_sections[i];
    before = &file->section_lines[i];
  }
  if (!file->section) {
    file->row = find(name, strlen(name));
    if (!file->row) return unknown(file->reading, where, name, false);
    if (!is_setting(file->row)) return wrong(file, line, "it can't be set in a file");
    before = &file->lines[place_of(file->row)];
  }
  if (*before) {
    return complain(file->reading, "%s%s: it is set twice; the first time in line %zu", where,
                    file->section ? file->section : file->row->name, *before);
  }
  *before = line;
  return -1;
}

static int take_value(struct file *file, const yaml_event_t *event, size_t line) {
  const char *value = (const char *)event->data.scalar.value;
  bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  char where[300];
  if (event->data.scalar.length != strlen(value)) return wrong(file, line, "a zero byte is no part of a value");
  if (plain && (!*value || strcmp(value, "~") == 0 || strcmp(value, "null") == 0)) {
    return wrong(file, line, "it has no value; leave the line out for the default");
  }
  snprintf(where, sizeof(where), "%.200s:%zu: ", file->path, line);
  char *copy = strdup(value); /* strings point into it */
  if (!copy) return wrong(file, line, "no memory");
  file->reading->options->texts[place_of(file->row)] = copy;
  int code = apply(file->reading, file->row, copy, where, file->row->name);
  file->row = NULL;
  return code;
}

static int take_event(struct file *file, const yaml_event_t *event, int *depth) {
  size_t line = event->start_mark.line + 1;
  switch (event->type) {
  case YAML_DOCUMENT_START_EVENT:
    return *depth < 0 ? wrong(file, line, "a configuration is one document") : -1;
  case YAML_DOCUMENT_END_EVENT:
    *depth = -1;
    return -1;
  case YAML_MAPPING_START_EVENT:
    if (file->row) return wrong(file, line, "it takes one plain value, not keys of its own");
    return ++*depth > 1 ? wrong(file, line, "a key is a plain name") : -1;
  case YAML_MAPPING_END_EVENT:
    --*depth;
    return -1;
  case YAML_SCALAR_EVENT:
    if (*depth == 0 && !*event->data.scalar.value) return -1; /* an empty document */
    if (*depth == 0) return wrong(file, line, "options are 'name: value' lines");
    return file->row ? take_value(file, event, line) : take_key(file, (const char *)event->data.scalar.value, line);
  case YAML_SEQUENCE_START_EVENT:
    return wrong(file, line,
                 file->row ? "it takes one plain value; a list is written with commas: a,b"
                           : "options are 'name: value' lines, not a list");
  case YAML_ALIAS_EVENT:
    return wrong(file, line, "it takes one plain value, not an alias");
  default:
    return -1;
  }
}

static int parse_yaml(struct file *file, yaml_parser_t *parser) {
  bool done = false;
  int depth = 0, code = -1;
  while (!done && code < 0) {
    yaml_event_t event;
    if (!yaml_parser_parse(parser, &event)) {
      file->row = NULL;
      return wrong(file, parser->problem_mark.line + 1, parser->problem ? parser->problem : "this is not YAML");
    }
    done = event.type == YAML_STREAM_END_EVENT;
    code = take_event(file, &event, &depth);
    yaml_event_delete(&event);
    if (code < 0 && file->section) code = config_read_section(file->reading, file->section, file->path, parser);
    file->section = NULL;
  }
  return code;
}

static int load_file(struct reading *reading, const char *path) {
  struct file file = {.reading = reading, .path = path};
  yaml_parser_t parser;
  FILE *stream = fopen(path, "re");
  char *text = stream ? malloc(CONFIG_MAX + 1) : NULL;
  errno = stream && !text ? ENOMEM : errno;
  size_t size = text ? fread(text, 1, CONFIG_MAX + 1, stream) : 0;
  bool failed = !text || ferror(stream);
  int error = errno, code = -1;
  if (stream) fclose(stream);
  if (failed) {
    code = complain(reading, "can't read the configuration %s: %s", path, strerror(error));
  } else if (size > CONFIG_MAX) {
    code = complain(reading, "%s: a configuration has at most 1 MiB", path);
  } else if (!yaml_parser_initialize(&parser)) {
    code = complain(reading, "%s: no memory", path);
  } else {
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    code = parse_yaml(&file, &parser);
    yaml_parser_delete(&parser);
  }
  if (text) explicit_bzero(text, size); /* there may be secrets in it */
  free(text);
  return code;
}

/* ---- all of it ---- */

/* A folder of the server's own: the command's cache is not to be one of two processes' by accident. */
static void set_storage(struct server_options *options) {
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  bool has_cache = cache && *cache == '/';
  if (options->cache.storage || (!has_cache && (!home || *home != '/'))) return;
  int length = snprintf(options->default_storage, sizeof(options->default_storage), "%s%s/modelcached",
                        has_cache ? cache : home, has_cache ? "" : "/.cache");
  if (length > 0 && (size_t)length < sizeof(options->default_storage)) {
    options->cache.storage = options->default_storage;
  }
}

int config_read(struct server_options *options, int argc, char **argv, char *message, size_t size) {
  struct reading reading = {options, message, size};
  const char *file = NULL;
  set_defaults(options);
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) file = argv[i + 1];
    if (strncmp(argv[i], "--config=", 9) == 0) file = argv[i] + 9;
  }
  if (!file) file = getenv("MODELCACHED_CONFIG");
  int code = file && *file ? load_file(&reading, file) : -1;
  if (code < 0) code = load_environment(&reading);
  for (int i = 1, used = 1; i < argc && code < 0; i += used) {
    if (strncmp(argv[i], "--", 2) != 0 || !argv[i][2]) {
      return complain(&reading, "it takes options only, not '%.100s'; see 'modelcached --help'", argv[i]);
    }
    code = take_flag(&reading, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used);
  }
  if (code < 0) set_storage(options);
  return code;
}

void config_free(struct server_options *options) {
  for (size_t i = 0; i < MAX_ROWS; i++) free(options->texts[i]);
  config_free_sections(options);
}

int config_load(struct server_options *options, int argc, char **argv) {
  char message[1024];
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      print_help();
      return 0;
    }
    if (strcmp(argv[i], "--version") == 0) return printf("modelcached %s\n", mc_version()) < 0;
    if (strcmp(argv[i], "--print-reference") == 0) return print_reference(i + 1 < argc ? argv[i + 1] : "");
  }
  int code = config_read(options, argc, argv, message, sizeof(message));
  if (code >= 0) {
    fprintf(stderr, "modelcached: %s\n", message);
  } else if (options->print_config) {
    print_values(options);
    code = 0;
  }
  if (code >= 0) config_free(options);
  return code;
}
