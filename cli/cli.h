/* What the command's files share: main.c knows the commands, args.c reads the command line, commands_get.c and
 * commands_cache.c, commands_versions.c, commands_origins.c and commands_status.c do the work, progress.c shows how far
 * it is, output.c writes. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <jansson.h>
#include <modelcache/modelcache.h>

/* ---- exit codes, which scripts rely on ---- */

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

/* ---- args.c ---- */

/* The command's own flags, beside the library's options. */
enum flag {
  FLAG_OUTPUT,
  FLAG_TIMEOUT,
  FLAG_REFRESH,
  FLAG_CACHED,
  FLAG_NO_STORE,
  FLAG_PIN,
  FLAG_DIGEST,
  FLAG_ALLOW,
  FLAG_IGNORE,
  FLAG_ORIGIN,
  FLAG_AFTER,
  FLAG_LIMIT,
  FLAG_DRY_RUN,
  FLAG_JSON,
  FLAG_QUIET,
  FLAG_VERBOSE,
  FLAG_COUNT,
};

/* The values of a flag that may be given several times; a NULL behind the last one. */
struct values {
  const char **list;
  size_t count;
};

struct command_line {
  mc_options options; /* of the library */
  const char *output, *digest, *after;
  uint32_t limit;
  struct values allow, ignore;
  int64_t timeout_ms;
  bool refresh, cached, no_store, pin, origin, dry_run, json, quiet, verbose;
  uint32_t given; /* 1u << enum flag, of those on the command line */
  bool help, version;
  const char *command; /* NULL: none */
  const char **words;  /* what it works on */
  int word_count;
};
/* Environment first, then flags. Points into `argv` and the environment. false: what is wrong went to stderr. */
bool command_line_read(struct command_line *line, int argc, char **argv);
void command_line_free(struct command_line *line);
const char *flag_name(enum flag flag);
/* The flags in `mask` with their help; and the library's options. */
void print_flags(uint32_t mask);
void print_library_options(void);
/* A row of two columns, the second one of as many lines as it takes in a terminal of 80 columns. */
void print_wrapped(const char *left, const char *text);
/* How many letters to change, add or drop to make one of the other. */
size_t distance(const char *a, const char *b);
/* Whether two words at that distance may be the same one, mistyped. */
bool resembles(const char *typed, size_t distance);

/* ---- output.c ---- */

/* One line on stderr, "modelcache: …". Any thread. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for an operation that failed: "modelcache: get URL: message", and with --json a document on stdout too.
 * Returns the exit code. `what` may be "". */
int fail(const struct command_line *line, const char *what, const mc_error *error);
int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The library's logger. */
void log_line(void *user, mc_log_level level, const char *origin, const char *message);
/* The line at the bottom of a terminal, drawn over the one before; NULL takes it away. What `say` writes goes above
 * it. */
void status_line(const char *text);
unsigned terminal_width(void);

/* One compact line on stdout. Takes over `json`; NULL (no memory) fails the write. */
void print_json(json_t *json);
/* A string of any bytes; those that are no UTF-8 become U+FFFD. */
json_t *json_text(const char *text);
json_t *json_text_or_null(const char *text); /* null for "" */
json_t *json_time_or_null(int64_t time);     /* null for 0 */
json_t *json_size(uint64_t size);            /* null for MC_SIZE_UNKNOWN */
/* false: stdout does not take what was written, so far. */
bool output_works(void);
/* The last word on stdout: `code`, or EXIT_FAILED with a message if it could not be written. */
int output_end(int code);

/* For people: without control characters, in `text`, which is returned. */
const char *printable(char *text, size_t size, const char *from);
/* A URL, also without its user, password and query. */
const char *printable_url(char *text, size_t size, const char *url);
#define SHORT_TEXT 32
const char *human_size(char text[SHORT_TEXT], uint64_t bytes); /* "12.3 MiB", "?" if unknown */
const char *human_span(char text[SHORT_TEXT], int64_t ms);     /* "1.4 s", "2 min", "3 h 20 min" */
const char *human_time(char text[SHORT_TEXT], int64_t ms_since_1970);
#define PRINTABLE_URL 300

int64_t now_ms(void);  /* monotonic */
int64_t wall_ms(void); /* since 1970 */

/* ---- progress.c ---- */

struct progress {
  char name[PRINTABLE_URL];
  bool quiet, terminal;
  int64_t begun_at, said_at;
};
/* `number` of `count`, when there are several. */
void progress_begin(struct progress *progress, const char *url, int number, int count, bool quiet);
void progress_update(void *progress, const mc_progress *news);
void progress_files(void *progress, uint64_t files, uint64_t all, uint64_t bytes, uint64_t total);
void progress_end(struct progress *progress);

/* ---- commands ---- */

/* Triggered by SIGINT and SIGTERM. */
extern mc_cancel *interrupted;

int command_get(mc_cache *cache, const struct command_line *line);
int command_tree(mc_cache *cache, const struct command_line *line);
int command_prefetch(mc_cache *cache, const struct command_line *line);
int command_stat(mc_cache *cache, const struct command_line *line);
int command_ls(mc_cache *cache, const struct command_line *line);
int command_evict(mc_cache *cache, const struct command_line *line);
int command_repair(mc_cache *cache, const struct command_line *line);
int command_origins(mc_cache *cache, const struct command_line *line);
int command_status(mc_cache *cache, const struct command_line *line);
int command_history(mc_cache *cache, const struct command_line *line);
int command_watch(mc_cache *cache, const struct command_line *line);

json_t *entry_json(const mc_entry *entry); /* an entry's document */

#endif
