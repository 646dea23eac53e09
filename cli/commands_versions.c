/* The commands about versions: history, watch. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* ---- history ---- */

static bool print_former(void *user, const mc_former *former) {
  const struct command_line *line = user;
  char digest[8 + MC_DIGEST_HEX_SIZE] = "sha256:", size[SHORT_TEXT], time[SHORT_TEXT];
  char *hex = digest + strlen(digest);
  mc_digest_hex(hex, &former->digest);
  if (line->json) {
    print_json(json_pack("{so so so so so so so so sb}", "url", json_text(line->words[0]), "digest", json_text(digest),
                         "size", json_size(former->size), "etag", json_text_or_null(former->validators.etag), "version",
                         json_text_or_null(former->validators.version), "last_modified",
                         json_time_or_null(former->validators.last_modified), "fetched_at_ms",
                         json_time_or_null(former->fetched_at), "replaced_at_ms",
                         json_time_or_null(former->replaced_at), "stored", former->stored));
  } else {
    printf("%s  %10s  until %s  %s\n", hex, human_size(size, former->size), human_time(time, former->replaced_at),
           former->stored ? "stored" : "gone");
  }
  return output_works();
}

int command_history(mc_cache *cache, const struct command_line *line) {
  mc_error error = MC_ERROR_INIT;
  const char *url = line->words[0];
  mc_status status = mc_history(cache, url, print_former, (void *)line, line->timeout_ms, &error);
  return status && output_works() ? fail(line, url, &error) : EXIT_DONE;
}

/* ---- watch ---- */

struct watching {
  const struct command_line *line;
  atomic_bool begun;
};

static void print_event(const struct command_line *line, const char *event, const char *text) {
  if (line->json) {
    print_json(json_pack("{ss}", "event", event));
  } else if (!line->quiet) {
    say("watch: %s", text);
  }
  fflush(stdout);
}

static void print_change(void *user, const mc_entry *entry) {
  struct watching *watching = user;
  const struct command_line *line = watching->line;
  char hex[MC_DIGEST_HEX_SIZE] = "-", size[SHORT_TEXT], url[4096];
  if (!entry && !atomic_exchange(&watching->begun, true)) {
    print_event(line, "began", "it has begun");
  } else if (!entry) {
    print_event(line, "gap", "the connection was lost: changes may have been missed");
  } else if (line->json) {
    json_t *json = entry_json(entry);
    if (json) json_object_set_new(json, "event", json_string(entry->missing ? "missing" : "changed"));
    print_json(json);
  } else {
    if (entry->has_digest) mc_digest_hex(hex, &entry->digest);
    printf("%-12.12s  %10s  %s\n", hex, entry->missing ? "missing" : human_size(size, entry->size),
           printable_url(url, sizeof(url), entry->url));
  }
  fflush(stdout);
}

int command_watch(mc_cache *cache, const struct command_line *line) {
  struct watching watching = {.line = line};
  mc_watcher *watcher;
  mc_error error = MC_ERROR_INIT;
  const char *prefix = line->word_count ? line->words[0] : "";
  if (mc_watch(&watcher, cache, prefix, print_change, &watching, &error)) return fail(line, prefix, &error);
  if (!line->options.endpoint) print_change(&watching, NULL); /* a client's has begun once the service says so */
  /* Until a signal comes, or whoever reads has gone. */
  struct pollfd fds[2] = {{.fd = mc_cancel_fd(interrupted), .events = POLLIN}, {.fd = STDOUT_FILENO}};
  int ready;
  do {
    ready = poll(fds, 2, -1);
  } while ((ready < 0 && errno == EINTR) || (ready > 0 && !fds[0].revents && !(fds[1].revents & (POLLERR | POLLHUP))));
  mc_watch_end(watcher);
  return mc_cancel_triggered(interrupted) ? EXIT_INTERRUPTED : EXIT_DONE;
}
