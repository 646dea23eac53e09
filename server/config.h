/* Between config.c, which reads the options, and reference.c, which prints them. */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "server.h"

/* The server's own table; the other one is the library's, mc_option_rows. */
const mc_option_row *config_rows(void);
/* "--name-of-it", "--name-of-it VALUE" in `text`. */
const char *flag_of(const mc_option_row *row, bool with_value, char *text, size_t size);
/* NULL for what is said where the configuration is read, and not a part of it: --config, --print-config. */
bool is_setting(const mc_option_row *row);

/* reference.c, all on stdout. */
void print_help(void);
void print_values(const struct server_options *options);
/* "options" or "metrics": the page in docs/. Returns the exit code. */
int print_reference(const char *page);

#endif
