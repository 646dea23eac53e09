/* The server's options: the library's table and our own rows, from flags, the environment and a YAML file. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "server.h"

#define CONFIG_MAX (1 << 20)

#define ROW(name, member, type, fallback, choices, unit, help)                                                         \
  { #name, "MODELCACHED_" #name, type, offsetof(struct server_options, member), fallback, choices, 0, 0, unit, help }

static const mc_option_row own_rows[] = {
    ROW(control, control, MC_OPTION_STRING, "127.0.0.1:7440", NULL, "HOST:PORT",
        "where the gRPC control plane listens"),
    ROW(data, data, MC_OPTION_STRING, "127.0.0.1:7441", NULL, "HOST:PORT", "where the TCP data plane listens"),
    ROW(web, web, MC_OPTION_STRING, "127.0.0.1:7442", NULL, "HOST:PORT",
        "where /healthz, /readyz and /metrics are served; 'none': nowhere"),
    ROW(advertise, advertise, MC_OPTION_STRING, "", NULL, "HOST[:PORT]",
        "how clients reach the data plane, when that is not the address it listens on"),
    ROW(log_format, log_format, MC_OPTION_CHOICE, "text", "text|json", "", "the form of the log on stderr"),
    ROW(log_level, log_level, MC_OPTION_CHOICE, "info", "error|warn|info|debug", "", "the least urgent messages"),
    ROW(drain, drain_ms, MC_OPTION_DURATION, "30s", NULL, "duration",
        "on SIGTERM, how long calls and transfers under way may take to end"),
    ROW(max_connections, max_connections, MC_OPTION_COUNT, "4096", NULL, "", "connections to the data plane"),
    ROW(data_threads, data_threads, MC_OPTION_COUNT, "0", NULL, "", "threads of the data plane; 0: by the cores"),
    ROW(rpc_threads, rpc_threads, MC_OPTION_COUNT, "2", NULL, "", "threads of the control plane"),
    ROW(ports_file, ports_file, MC_OPTION_STRING, "", NULL, "file",
        "write the addresses that were bound there, as JSON, once the server is ready"),
    ROW(config, config, MC_OPTION_STRING, "", NULL, "file", "a YAML file with these options as keys"),
    ROW(print_config, print_config, MC_OPTION_BOOL, "false", NULL, "",
        "print the configuration in effect as YAML, and end"),
    {0},
};

static void *target_of(struct server_options *options, bool own) {
  return own ? (void *)options : (void *)&options->cache;
}

static bool names(const mc_option_row *row, const char *name, size_t size) {
  if (strlen(row->name) != size) return false;
  for (size_t i = 0; i < size; i++) {
    if (row->name[i] != (name[i] == '-' ? '_' : name[i])) return false;
  }
  return true;
}

static const mc_option_row *find(const char *name, size_t size, bool *own) {
  for (const mc_option_row *row = own_rows; row->name; row++) {
    *own = true;
    if (names(row, name, size)) return row;
  }
  for (const mc_option_row *row = mc_option_rows(); row->name; row++) {
    *own = false;
    if (names(row, name, size)) return row;
  }
  return NULL;
}

/* The option that is spelled most alike, for a hint. */
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

static const char *nearest(const char *name) {
  const char *best = "";
  size_t least = SIZE_MAX;
  const mc_option_row *tables[] = {own_rows, mc_option_rows()};
  for (size_t t = 0; t < 2; t++) {
    for (const mc_option_row *row = tables[t]; row->name; row++) {
      size_t d = distance(name, row->name);
      if (d < least) {
        least = d;
        best = row->name;
      }
    }
  }
  return best;
}

static int complain(const char *where, const char *message) {
  fprintf(stderr, "modelcached: %s%s\n", where, message);
  return 2;
}

static int apply(struct server_options *options, const mc_option_row *row, bool own, const char *value,
                 const char *where) {
  mc_error error = MC_ERROR_INIT;
  return mc_option_parse(row, target_of(options, own), value, &error) ? complain(where, error.message) : -1;
}

static int unknown(const char *where, const char *name) {
  char message[200];
  snprintf(message, sizeof(message), "there is no option '%.60s'; the nearest is '%s'", name, nearest(name));
  return complain(where, message);
}

static void set_defaults(struct server_options *options) {
  memset(options, 0, sizeof(*options));
  mc_options_init(&options->cache);
  for (const mc_option_row *row = own_rows; row->name; row++) mc_option_parse(row, options, row->fallback, NULL);
  options->cache.schemes = "http,https"; /* files of this machine only where they are asked for */
}

static int load_environment(struct server_options *options) {
  for (const mc_option_row *row = own_rows; row->name; row++) {
    char name[64], *at = name;
    snprintf(name, sizeof(name), "%s", row->env);
    for (; *at; at++) {
      if (*at >= 'a' && *at <= 'z') *at = (char)(*at - 'a' + 'A');
    }
    const char *value = getenv(name);
    int code = value && *value ? apply(options, row, true, value, "environment: ") : -1;
    if (code >= 0) return code;
  }
  for (const mc_option_row *row = mc_option_rows(); row->name; row++) {
    const char *value = row->env ? getenv(row->env) : NULL;
    int code = value && *value ? apply(options, row, false, value, "environment: ") : -1;
    if (code >= 0) return code;
  }
  return -1;
}

/* One flag; *used: how many words it took. */
static int take_flag(struct server_options *options, const char *flag, const char *next, int *used) {
  size_t size = strcspn(flag, "=");
  bool own = false, off = false;
  const char *value = flag[size] ? flag + size + 1 : NULL;
  const mc_option_row *row = find(flag, size, &own);
  if (!row && strncmp(flag, "no-", 3) == 0) {
    row = find(flag + 3, size - 3, &own);
    off = row && row->type == MC_OPTION_BOOL;
  }
  if (!row) return unknown("", flag);
  *used = 1;
  bool alone = row->type == MC_OPTION_BOOL && !value && (!next || next[0] == '-'); /* "--name" is "--name yes" */
  if (alone) return apply(options, row, own, off ? "false" : "true", "");
  if (!value && !next) return complain("a value is missing after --", flag);
  if (!value) *used = 2;
  return apply(options, row, own, value ? value : next, "");
}

/* ---- YAML ---- */

static int take_pair(struct server_options *options, const char *file, const yaml_event_t *key, const char *value) {
  char where[300];
  bool own;
  const char *name = (const char *)key->data.scalar.value;
  snprintf(where, sizeof(where), "%s:%zu: ", file, key->start_mark.line + 1);
  const mc_option_row *row = find(name, strlen(name), &own);
  if (!row) return unknown(where, name);
  char *copy = strdup(value); /* strings point into it, for the life of the process */
  int code = copy ? apply(options, row, own, copy, where) : complain(where, "no memory");
  if (row->type != MC_OPTION_STRING || code >= 0) free(copy);
  return code;
}

static int parse_yaml(struct server_options *options, const char *file, yaml_parser_t *parser) {
  yaml_event_t event, key;
  bool has_key = false, done = false;
  int depth = 0, code = -1;
  char where[300];
  while (!done && code < 0) {
    if (!yaml_parser_parse(parser, &event)) {
      snprintf(where, sizeof(where), "%s:%zu: ", file, parser->problem_mark.line + 1);
      code = complain(where, parser->problem ? parser->problem : "this is not YAML");
      break;
    }
    snprintf(where, sizeof(where), "%s:%zu: ", file, event.start_mark.line + 1);
    bool keep = false;
    switch (event.type) {
    case YAML_MAPPING_START_EVENT:
      if (++depth > 1) code = complain(where, "options are 'name: value' lines, not nested");
      break;
    case YAML_SCALAR_EVENT:
      if (depth == 0) {
        code = complain(where, "options are 'name: value' lines");
      } else if (!has_key) {
        key = event;
        has_key = keep = true;
      } else {
        code = take_pair(options, file, &key, (const char *)event.data.scalar.value);
        yaml_event_delete(&key);
        has_key = false;
      }
      break;
    case YAML_SEQUENCE_START_EVENT:
    case YAML_ALIAS_EVENT:
      code = complain(where, "an option has one plain value");
      break;
    case YAML_STREAM_END_EVENT:
      done = true;
      break;
    default:
      break;
    }
    if (!keep) yaml_event_delete(&event);
  }
  if (has_key) yaml_event_delete(&key);
  return code;
}

static int load_file(struct server_options *options, const char *path) {
  FILE *file = fopen(path, "re");
  yaml_parser_t parser;
  if (!file) return complain(path, ": can't read the configuration file");
  char *text = malloc(CONFIG_MAX + 1);
  size_t size = text ? fread(text, 1, CONFIG_MAX + 1, file) : 0;
  fclose(file);
  int code = -1;
  if (!text || size > CONFIG_MAX) {
    code = complain(path, ": a configuration has at most 1 MiB");
  } else if (yaml_parser_initialize(&parser)) {
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    code = parse_yaml(options, path, &parser);
    yaml_parser_delete(&parser);
  }
  free(text);
  return code;
}

/* ---- printing ---- */

static void print_flags(const mc_option_row *row) {
  for (; row->name; row++) {
    char flag[80];
    snprintf(flag, sizeof(flag), "--%s%s", row->name, row->type == MC_OPTION_BOOL ? "" : " VALUE");
    for (char *at = flag; *at; at++) *at = *at == '_' ? '-' : *at;
    printf("  %-30s %s%s%s%s\n", flag, row->help, *row->fallback ? " [" : "", row->fallback, *row->fallback ? "]" : "");
  }
}

static void print_values(const mc_option_row *row, const void *target) {
  char text[4096];
  for (; row->name; row++) {
    if (strcmp(row->name, "print_config") == 0 || strcmp(row->name, "config") == 0) continue;
    const char *value = mc_option_print(row, target, text, sizeof(text));
    printf("%s%s: \"", *value ? "" : "# ", row->name);
    for (; *value; value++) printf(*value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
    printf("\"\n");
  }
}

static int print_reference(void) {
  const mc_option_row *tables[] = {own_rows, mc_option_rows()};
  printf("| option | flag | default | what it does |\n|---|---|---|---|\n");
  for (size_t t = 0; t < 2; t++) {
    for (const mc_option_row *row = tables[t]; row->name; row++) {
      printf("| `%s` | `--", row->name);
      for (const char *at = row->name; *at; at++) putchar(*at == '_' ? '-' : *at);
      printf("` | %s | %s |\n", *row->fallback ? row->fallback : "-", row->help);
    }
  }
  return 0;
}

int config_load(struct server_options *options, int argc, char **argv) {
  set_defaults(options);
  const char *file = NULL;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      printf("modelcached: serve model files from one cache to many clients\n\nUsage: modelcached [OPTION]…\n\n");
      print_flags(own_rows);
      printf("\nOptions of the cache:\n");
      print_flags(mc_option_rows());
      return 0;
    }
    if (strcmp(argv[i], "--version") == 0) return printf("modelcached %s\n", mc_version()) < 0;
    if (strcmp(argv[i], "--print-options-reference") == 0) return print_reference();
    if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) file = argv[i + 1];
    if (strncmp(argv[i], "--config=", 9) == 0) file = argv[i] + 9;
  }
  if (!file) file = getenv("MODELCACHED_CONFIG");
  int code = file && *file ? load_file(options, file) : -1;
  if (code < 0) code = load_environment(options);
  for (int i = 1, used = 1; i < argc && code < 0; i += used) {
    if (strncmp(argv[i], "--", 2) != 0) return complain("it takes options only, not ", argv[i]);
    code = take_flag(options, argv[i] + 2, i + 1 < argc ? argv[i + 1] : NULL, &used);
  }
  if (code < 0 && options->print_config) {
    print_values(own_rows, options);
    print_values(mc_option_rows(), &options->cache);
    return 0;
  }
  return code;
}
