/* modelcache, the command: model files from a cache service, or through a cache in this process. */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

mc_cancel *interrupted;

#define BIT(flag) (1u << (flag))
#define COMMON    (BIT(FLAG_JSON) | BIT(FLAG_QUIET) | BIT(FLAG_VERBOSE))

static const struct command {
  const char *name;
  int (*run)(mc_cache *cache, const struct command_line *line);
  const char *arguments, *help;
  int least, most; /* arguments */
  uint32_t flags;  /* that it takes */
  bool can_cancel; /* it gives `interrupted` to every call that blocks */
} commands[] = {
    {"get", command_get, "URL… [-o PATH]", "get files; without -o print where they are in the cache", 1, INT_MAX,
     COMMON | BIT(FLAG_OUTPUT) | BIT(FLAG_TIMEOUT) | BIT(FLAG_REFRESH) | BIT(FLAG_CACHED) | BIT(FLAG_NO_STORE) |
         BIT(FLAG_PIN) | BIT(FLAG_DIGEST),
     true},
    {"tree", command_tree, "URL DIR", "get all files below a URL; DIR becomes a link to one whole version", 2, 2,
     COMMON | BIT(FLAG_TIMEOUT) | BIT(FLAG_REFRESH) | BIT(FLAG_PIN) | BIT(FLAG_ALLOW) | BIT(FLAG_IGNORE), true},
    {"stat", command_stat, "URL", "what the origin has there, and what is cached of it", 1, 1,
     COMMON | BIT(FLAG_TIMEOUT) | BIT(FLAG_CACHED), false},
    {"ls", command_ls, "[PREFIX]", "what the cache holds; with --origin what the origin has", 0, 1,
     COMMON | BIT(FLAG_TIMEOUT) | BIT(FLAG_ORIGIN) | BIT(FLAG_AFTER) | BIT(FLAG_LIMIT), false},
    {"history", command_history, "URL", "what was there before, and which versions are still stored", 1, 1,
     COMMON | BIT(FLAG_TIMEOUT), false},
    {"watch", command_watch, "[PREFIX]", "a line for each change of a URL, or below a prefix that ends in '/'", 0, 1,
     COMMON, true},
    {"prefetch", command_prefetch, "URL…", "have the service get files, and don't wait for them", 1, INT_MAX,
     COMMON | BIT(FLAG_TIMEOUT) | BIT(FLAG_PIN), true},
    {"evict", command_evict, "URL…", "forget files, here and on the service", 1, INT_MAX, COMMON, false},
    {"repair", command_repair, "", "compare what the service knows with what it has stored, and mend that", 0, 0,
     COMMON | BIT(FLAG_TIMEOUT) | BIT(FLAG_DRY_RUN), false},
    {"origins", command_origins, "check URL", "how an origin is asked, by which rule and credentials; and ask it", 2, 2,
     COMMON | BIT(FLAG_TIMEOUT), false},
    {"status", command_status, "", "how the cache is doing", 0, 0, COMMON, false},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(*commands))

/* ---- help ---- */

static void print_exit_codes(void) {
  printf("\nExit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 permission denied,\n"
         "5 unavailable or timed out (try again), 6 no space, 7 corrupt, 130 interrupted\n"
         "(each whole 4 MiB piece is kept, the next get goes on from there). Of several\n"
         "URLs that failed, the first one's code.\n");
}

static int print_help(void) {
  printf("modelcache: model files from a cache service, or through a cache in this process\n\n"
         "Usage: modelcache COMMAND [OPTION]...\n\n");
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    char left[64];
    snprintf(left, sizeof(left), "  %s %s ", commands[i].name, commands[i].arguments);
    print_wrapped(left, commands[i].help);
  }
  print_wrapped("  help [COMMAND]", "this, or one command's options");
  print_wrapped("  version", "which version this is");
  printf("\nOptions:\n");
  print_flags(BIT(FLAG_COUNT) - 1);
  printf("\nOptions of the cache, each also an environment variable: --storage-ttl is\n"
         "MODELCACHE_STORAGE_TTL.\n");
  print_library_options();
  print_exit_codes();
  return EXIT_DONE;
}

static int print_command_help(const struct command *command) {
  printf("Usage: modelcache %s%s%s\n\n%s\n\nOptions, beside those of the cache ('modelcache help'):\n", command->name,
         *command->arguments ? " " : "", command->arguments, command->help);
  print_flags(command->flags);
  print_exit_codes();
  return EXIT_DONE;
}

/* ---- which command ---- */

static const struct command *find_command(const char *name) {
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    if (strcmp(commands[i].name, name) == 0) return &commands[i];
  }
  return NULL;
}

static int unknown_command(const char *name) {
  const char *best = NULL;
  size_t least = SIZE_MAX;
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    size_t away = distance(name, commands[i].name);
    if (away < least) best = commands[i].name;
    if (away < least) least = away;
  }
  if (best && resembles(name, least)) return usage("there is no command '%s'; did you mean '%s'?", name, best);
  return usage("there is no command '%s'; see 'modelcache help'", name);
}

/* Whether the words and flags are what the command takes. */
static int check(const struct command *command, const struct command_line *line) {
  if (line->word_count < command->least || line->word_count > command->most) {
    return usage("usage: modelcache %s %s", command->name, command->arguments);
  }
  for (int flag = 0; flag < FLAG_COUNT; flag++) {
    if (line->given & ~command->flags & BIT(flag)) {
      return usage("'%s' does not take --%s; see 'modelcache help %s'", command->name, flag_name((enum flag)flag),
                   command->name);
    }
  }
  return EXIT_DONE;
}

/* ---- running ---- */

static sigset_t end_signals;
static bool can_cancel;

/* A call that can be cancelled is, and ends in its own time; a second signal, or any other call, ends the process: what
 * is stored survives that. */
static void *wait_for_signals(void *arg) {
  int signal;
  (void)arg;
  sigwait(&end_signals, &signal);
  mc_cancel_trigger(interrupted);
  if (can_cancel) sigwait(&end_signals, &signal);
  status_line(NULL);
  _exit(EXIT_INTERRUPTED);
}

static mc_status start_signals(mc_error *err) {
  pthread_t thread;
  sigemptyset(&end_signals);
  sigaddset(&end_signals, SIGINT);
  sigaddset(&end_signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &end_signals, NULL);
  signal(SIGPIPE, SIG_IGN); /* a connection that breaks is an error of one call */
  mc_status status = mc_cancel_new(&interrupted, err);
  int error = status ? 0 : pthread_create(&thread, NULL, wait_for_signals, NULL);
  if (error) return mc_error_errno(err, error, "cli", "can't start a thread");
  if (!status) pthread_detach(thread);
  return status;
}

static int run(const struct command *command, struct command_line *line) {
  mc_cache *cache;
  mc_error error = MC_ERROR_INIT;
  int code = check(command, line);
  if (code) return code;
  can_cancel = command->can_cancel;
  line->options.logger = (mc_logger){.log = log_line,
                                     .level = line->verbose ? MC_LOG_DEBUG
                                              : line->quiet ? MC_LOG_ERROR
                                                            : MC_LOG_WARN};
  if (start_signals(&error) || mc_open_options(&cache, &line->options, &error)) return fail(line, "", &error);
  code = command->run(cache, line);
  mc_close(cache);
  return code;
}

static int dispatch(struct command_line *line) {
  const char *name = line->command;
  bool help = line->help || (name && strcmp(name, "help") == 0);
  if (name && strcmp(name, "help") == 0) name = line->word_count ? line->words[0] : NULL;
  if (line->version || (name && strcmp(name, "version") == 0)) {
    printf("modelcache %s\n", mc_version());
    return EXIT_DONE;
  }
  if (!name) return help ? print_help() : usage("what shall be done? See 'modelcache help'");
  const struct command *command = find_command(name);
  if (!command) return unknown_command(name);
  return help ? print_command_help(command) : run(command, line);
}

int main(int argc, char **argv) {
  struct command_line line;
  int code = command_line_read(&line, argc, argv) ? dispatch(&line) : EXIT_USAGE;
  command_line_free(&line);
  return output_end(code);
}
