/* modelcache, the command: model files from a cache service, or through a cache in this process. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

mc_cancel *interrupted;

static const struct command {
  const char *name;
  int (*run)(mc_cache *cache, const struct command_line *line);
} commands[] = {
    {"get", command_get},           {"tree", command_tree},   {"stat", command_stat},     {"ls", command_ls},
    {"prefetch", command_prefetch}, {"evict", command_evict}, {"status", command_status},
};

static void log_line(void *user, mc_log_level level, const char *origin, const char *message) {
  (void)user;
  (void)level;
  fprintf(stderr, "modelcache: %s: %s\n", origin, message);
}

/* Signals go to a thread of their own, which cancels; a second one ends the process at once. */
static void *wait_for_signals(void *arg) {
  sigset_t *signals = arg;
  int signal;
  sigwait(signals, &signal);
  mc_cancel_trigger(interrupted);
  sigwait(signals, &signal);
  _exit(EXIT_INTERRUPTED);
}

static int start_signals(void) {
  static sigset_t signals;
  pthread_t thread;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  if (mc_cancel_new(&interrupted, NULL) || pthread_create(&thread, NULL, wait_for_signals, &signals)) return -1;
  pthread_detach(thread);
  return 0;
}

static int unknown_command(const char *name) {
  fprintf(stderr, "modelcache: there is no command '%s'; there are:", name);
  for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) fprintf(stderr, " %s", commands[i].name);
  fprintf(stderr, " help version\n");
  return EXIT_USAGE;
}

static int run(const struct command *command, struct command_line *line) {
  mc_cache *cache;
  mc_error error = MC_ERROR_INIT;
  line->options.logger = (mc_logger){.log = log_line, .level = line->verbose ? MC_LOG_DEBUG : MC_LOG_WARN};
  if (start_signals()) {
    fprintf(stderr, "modelcache: can't start a thread\n");
    return EXIT_FAILED;
  }
  if (mc_open_options(&cache, &line->options, &error)) {
    fprintf(stderr, "modelcache: %s\n", error.message);
    return exit_code_of(error.status);
  }
  int code = command->run(cache, line);
  mc_close(cache);
  return code;
}

int main(int argc, char **argv) {
  struct command_line line;
  if (!command_line_parse(&line, argc, argv)) return EXIT_USAGE;
  const char *name = line.word_count ? line.words[0] : NULL;
  int code = EXIT_USAGE;
  if (!name) {
    fprintf(stderr, "modelcache: what shall be done? See 'modelcache help'\n");
  } else if (strcmp(name, "help") == 0) {
    print_help();
    code = EXIT_DONE;
  } else if (strcmp(name, "version") == 0) {
    printf("modelcache %s\n", mc_version());
    code = EXIT_DONE;
  } else {
    const struct command *command = NULL;
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
      if (strcmp(commands[i].name, name) == 0) command = &commands[i];
    }
    code = command ? run(command, &line) : unknown_command(name);
  }
  free(line.words);
  return code;
}
