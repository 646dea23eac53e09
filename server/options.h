/* modelcached's settings, and the table that says how each is called: the library's options and the server's own. */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <modelcache/modelcache.h>

enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct settings {
  mc_options cache; /* the first member: the library's rows hold for this struct as they are */
  const char *config, *ports_file;
  const char *control, *data, *web, *advertise;
  int log_format, log_level; /* enum log_format, mc_log_level */
  int64_t drain_ms, rpc_timeout_ms;
  uint32_t control_threads, rpc_workers, rpc_queue, max_calls, max_watches;
  uint32_t max_control_connections, max_data_connections, max_web_connections;
  uint32_t data_threads;
  uint64_t max_message, max_unread;
};

#define OPTIONS_MAX 96

struct option_table {
  mc_option_row rows[OPTIONS_MAX + 1]; /* ended by a row without a name */
  size_t own;                          /* the first so many are the server's own */
  size_t count;
};

void option_table_init(struct option_table *table);
/* The row of this name, in which '-' stands for '_' too when `flag` is set; or NULL. */
const mc_option_row *option_table_find(const struct option_table *table, const char *name, size_t length, bool flag);
/* The name that looks most like `name`, or NULL if none does. */
const char *option_table_nearest(const struct option_table *table, const char *name, size_t length);

#endif
