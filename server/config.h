/* Between config.c, which reads the options, config_origins.c, which reads rules and credentials, and reference.c,
 * which prints all of it. */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "server.h"

#define SERVER_SCHEMES "http,https,s3,gs,as,hf" /* files of this machine only where they are asked for */

/* The server's own table; the other one is the library's, mc_option_rows. */
const mc_option_row *config_rows(void);
/* "--name-of-it", "--name-of-it VALUE" in `text`. */
const char *flag_of(const mc_option_row *row, bool with_value, char *text, size_t size);
/* NULL for what is said where the configuration is read, and not a part of it: --config, --print-config. */
bool is_setting(const mc_option_row *row);

/* What goes wrong while they are read goes into `message`, as one line. */
struct reading {
  struct server_options *options;
  char *message;
  size_t size;
};
/* Returns the exit code. */
int complain(struct reading *reading, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* config_origins.c: the keys of the file whose values are not plain. */
extern const char *const config_sections[];
/* Read the value that comes next. -1, or the exit code. */
struct yaml_parser_s;
int config_read_section(struct reading *reading, const char *section, const char *path, struct yaml_parser_s *parser);
void config_free_sections(struct server_options *options);

/* reference.c, all on stdout. */
void print_help(void);
void print_values(const struct server_options *options);
/* "options" or "metrics": the page in docs/. Returns the exit code. */
int print_reference(const char *page);

#endif
