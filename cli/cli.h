/* What the command's files share. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <modelcache/modelcache.h>

/* Exit codes that scripts can rely on. */
enum exit_code {
  EXIT_DONE = 0,
  EXIT_FAILED = 1,
  EXIT_USAGE = 2,
  EXIT_NOT_FOUND = 3,
  EXIT_DENIED = 4,
  EXIT_UNAVAILABLE = 5, /* another try may succeed */
  EXIT_NO_SPACE = 6,
  EXIT_CORRUPT = 7,
  EXIT_INTERRUPTED = 130,
};
int exit_code_of(mc_status status);

/* What the command line says. */
struct command_line {
  mc_options options; /* of the library */
  const char *output;
  int64_t timeout_ms;
  bool json, quiet, verbose, refresh, cached, no_store, pin, origin;
  const char **words; /* the command and what it works on */
  int word_count;
};
/* Environment first, then flags. false: the message went to stderr. */
bool command_line_parse(struct command_line *line, int argc, char **argv);
void print_help(void);

/* A progress line on stderr: redrawn on a terminal, now and then a plain line elsewhere. */
struct progress {
  const char *what;
  bool shown, terminal, quiet;
  int64_t said_at;
};
void progress_begin(struct progress *progress, const char *what, bool quiet);
void progress_update(void *progress, const mc_progress *news);
void progress_files(void *progress, uint64_t files, uint64_t all, uint64_t bytes, uint64_t total);
void progress_end(struct progress *progress);
/* "12.3 MiB" */
const char *human_size(char text[32], uint64_t bytes);

/* Triggered by SIGINT and SIGTERM. */
extern mc_cancel *interrupted;

int command_get(mc_cache *cache, const struct command_line *line);
int command_tree(mc_cache *cache, const struct command_line *line);
int command_stat(mc_cache *cache, const struct command_line *line);
int command_ls(mc_cache *cache, const struct command_line *line);
int command_prefetch(mc_cache *cache, const struct command_line *line);
int command_evict(mc_cache *cache, const struct command_line *line);
int command_status(mc_cache *cache, const struct command_line *line);

#endif
