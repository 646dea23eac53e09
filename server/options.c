#include "options.h"

#include <string.h>
#include <strings.h>

/* clang-format off */
#define ROW(name, env, type, member, fallback, choices, least, most, unit, help) \
  {#name, "MODELCACHE_" env, type, offsetof(struct settings, member), fallback, choices, least, most, unit, help}
#define TEXT(name, env, fallback, unit, help) ROW(name, env, MC_OPTION_STRING, name, fallback, NULL, 0, 0, unit, help)
#define COUNT(name, env, fallback, least, most, help) \
  ROW(name, env, MC_OPTION_COUNT, name, fallback, NULL, least, most, "", help)
#define SIZE(name, env, fallback, least, most, help) \
  ROW(name, env, MC_OPTION_SIZE, name, fallback, NULL, least, most, "bytes", help)
#define TIME(name, env, fallback, least, most, help) \
  ROW(name, env, MC_OPTION_DURATION, name##_ms, fallback, NULL, least, most, "duration", help)

static const mc_option_row own_rows[] = {
  TEXT(config, "CONFIG", "", "file", "a YAML file of 'option: value' lines; the environment and flags beat it"),
  TEXT(control, "CONTROL", "127.0.0.1:7440", "HOST:PORT", "where the control plane (gRPC) listens; port 0: any"),
  TEXT(data, "DATA", "127.0.0.1:7441", "HOST:PORT", "where the data plane listens"),
  TEXT(web, "WEB", "127.0.0.1:7442", "HOST:PORT",
       "where /healthz, /readyz and /metrics are served; 'none': nowhere"),
  TEXT(advertise, "ADVERTISE", "", "HOST[:PORT]",
       "how clients reach the data plane; by default the address it listens on, or this host's name for all addresses"),
  TEXT(ports_file, "PORTS_FILE", "", "file", "write the addresses in use to this file, as JSON, when ready"),
  ROW(log_format, "LOG_FORMAT", MC_OPTION_CHOICE, log_format, "text", "text|json", 0, 0, "", "how log lines look"),
  ROW(log_level, "LOG_LEVEL", MC_OPTION_CHOICE, log_level, "info", "error|warn|info|debug", 0, 0, "",
      "the least urgent messages that are logged"),
  TIME(drain, "DRAIN", "30s", 0, 0, "when told to stop: how long calls and transfers under way may take to end"),
  COUNT(control_threads, "CONTROL_THREADS", "2", 1, 64, "threads of the control plane; a waiting call needs none"),
  COUNT(max_calls, "MAX_CALLS", "100000", 1, 0, "calls under way at once; more of them are refused"),
  COUNT(max_watches, "MAX_WATCHES", "1000", 1, 100000, "Watch calls under way at once; more of them are refused"),
  COUNT(max_control_connections, "MAX_CONTROL_CONNECTIONS", "10000", 1, 0,
        "connections to the control plane; more of them are closed at once"),
  SIZE(max_message, "MAX_MESSAGE", "1MiB", 65536, 67108864, "the longest request message"),
  SIZE(max_unread, "MAX_UNREAD", "256MiB", 1048576, 0, "answers that wait for slow readers; past this calls fail"),
  COUNT(rpc_workers, "RPC_WORKERS", "8", 1, 256, "threads for calls that may block: Stat, List, Prefetch, Evict, Status"),
  COUNT(rpc_queue, "RPC_QUEUE", "1000", 1, 1000000, "calls that wait for such a thread; more of them are refused"),
  TIME(rpc_timeout, "RPC_TIMEOUT", "60s", 1, 0, "the longest that Stat and List may take"),
  COUNT(data_threads, "DATA_THREADS", "0", 0, 1024, "threads of the data plane; 0: by the number of cores"),
  COUNT(max_data_connections, "MAX_DATA_CONNECTIONS", "10000", 1, 0,
        "connections to the data plane; more of them are refused"),
  COUNT(max_web_connections, "MAX_WEB_CONNECTIONS", "100", 1, 100000, "connections to the web pages"),
  {0},
};
/* clang-format on */

/* What differs between a library in one's own process and a server that others talk to. */
static void adapt(mc_option_row *row) {
  /* A server must not read the files of its host for whoever asks. */
  if (strcmp(row->name, "schemes") == 0) row->fallback = "http,https";
  /* The variable tells clients where the service is; a server that took it might become a client of itself. */
  if (strcmp(row->name, "endpoint") == 0) row->env = NULL;
}

void option_table_init(struct option_table *table) {
  *table = (struct option_table){0};
  for (const mc_option_row *row = own_rows; row->name && table->count < OPTIONS_MAX; row++) {
    table->rows[table->count++] = *row;
  }
  table->own = table->count;
  for (const mc_option_row *row = mc_option_rows(); row->name && table->count < OPTIONS_MAX; row++) {
    adapt(&(table->rows[table->count++] = *row));
  }
}

static bool same_name(const char *known, const char *name, size_t length, bool flag) {
  for (size_t i = 0; i < length; i++) {
    char c = flag && name[i] == '-' ? '_' : name[i];
    if (c != known[i]) return false;
  }
  return known[length] == 0;
}

const mc_option_row *option_table_find(const struct option_table *table, const char *name, size_t length, bool flag) {
  for (const mc_option_row *row = table->rows; row->name; row++) {
    if (same_name(row->name, name, length, flag)) return row;
  }
  return NULL;
}

#define NAME_MAX_COMPARED 40

/* How many letters have to be put in, left out or changed to get from one to the other. */
static size_t distance(const char *a, size_t a_length, const char *b, size_t b_length) {
  size_t row[NAME_MAX_COMPARED + 1];
  for (size_t j = 0; j <= b_length; j++) row[j] = j;
  for (size_t i = 1; i <= a_length; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b_length; j++) {
      size_t change = diagonal + (a[i - 1] != b[j - 1]);
      size_t other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
      diagonal = row[j];
      row[j] = change < other ? change : other;
    }
  }
  return row[b_length];
}

const char *option_table_nearest(const struct option_table *table, const char *name, size_t length) {
  char plain[NAME_MAX_COMPARED];
  if (length > sizeof(plain)) return NULL;
  for (size_t i = 0; i < length; i++) plain[i] = name[i] == '-' ? '_' : name[i];
  const char *nearest = NULL;
  size_t least = length / 3 + 1;
  for (const mc_option_row *row = table->rows; row->name; row++) {
    size_t size = strlen(row->name);
    size_t far = size <= NAME_MAX_COMPARED ? distance(plain, length, row->name, size) : SIZE_MAX;
    if (far > least || (far == least && nearest)) continue;
    least = far;
    nearest = row->name;
  }
  return nearest;
}
