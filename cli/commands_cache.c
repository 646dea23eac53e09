/* The commands that look into a cache and manage it: stat, ls, evict. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

int exit_code_of(mc_status status) {
  switch (status) {
  case MC_OK:
    return EXIT_DONE;
  case MC_INVALID_ARGUMENT:
    return EXIT_USAGE;
  case MC_NOT_FOUND:
    return EXIT_NOT_FOUND;
  case MC_PERMISSION_DENIED:
    return EXIT_DENIED;
  case MC_NO_SPACE:
    return EXIT_NO_SPACE;
  case MC_CORRUPT:
    return EXIT_CORRUPT;
  case MC_CANCELLED:
    return EXIT_INTERRUPTED;
  default:
    return mc_status_is_retryable(status) ? EXIT_UNAVAILABLE : EXIT_FAILED;
  }
}

/* ---- stat, ls ---- */

static json_t *entry_json(const mc_entry *entry) {
  char digest[8 + MC_DIGEST_HEX_SIZE] = "sha256:";
  if (entry->has_digest) mc_digest_hex(digest + strlen(digest), &entry->digest);
  return json_pack("{so so so so so so so so sb}", "url", json_text(entry->url), "size", json_size(entry->size),
                   "digest", json_text_or_null(entry->has_digest ? digest : ""), "etag",
                   json_text_or_null(entry->validators.etag), "version", json_text_or_null(entry->validators.version),
                   "last_modified", json_time_or_null(entry->validators.last_modified), "fetched_at_ms",
                   json_time_or_null(entry->fetched_at), "checked_at_ms", json_time_or_null(entry->checked_at),
                   "pinned", entry->pinned);
}

static void print_stat(const mc_entry *entry) {
  char hex[MC_DIGEST_HEX_SIZE], text[600], size[SHORT_TEXT], time[SHORT_TEXT];
  printf("url            %s\n", printable_url(text, sizeof(text), entry->url));
  if (entry->size != MC_SIZE_UNKNOWN) {
    printf("size           %" PRIu64 " (%s)\n", entry->size, human_size(size, entry->size));
  }
  if (entry->has_digest) printf("sha256         %s\n", mc_digest_hex(hex, &entry->digest));
  if (*entry->validators.etag) printf("etag           %s\n", printable(text, sizeof(text), entry->validators.etag));
  if (*entry->validators.version) {
    printf("version        %s\n", printable(text, sizeof(text), entry->validators.version));
  }
  if (entry->validators.last_modified) {
    printf("last modified  %s\n", human_time(time, entry->validators.last_modified * 1000));
  }
  if (entry->checked_at) printf("checked        %s\n", human_time(time, entry->checked_at));
  printf("downloaded     %s\n", entry->fetched_at ? human_time(time, entry->fetched_at) : "no");
  if (entry->pinned) printf("pinned         yes\n");
}

int command_stat(mc_cache *cache, const struct command_line *line) {
  mc_entry *entry;
  mc_error error = MC_ERROR_INIT;
  if (mc_stat(&entry, cache, line->words[0], line->cached ? MC_GET_CACHED : 0, line->timeout_ms, &error)) {
    return fail(line, line->words[0], &error);
  }
  if (line->json) {
    print_json(entry_json(entry));
  } else {
    print_stat(entry);
  }
  mc_entry_free(entry);
  return EXIT_DONE;
}

static bool print_entry(void *user, const mc_entry *entry) {
  const struct command_line *line = user;
  char hex[MC_DIGEST_HEX_SIZE] = "-", size[SHORT_TEXT], url[4096];
  if (line->json) {
    print_json(entry_json(entry));
  } else {
    if (entry->has_digest) mc_digest_hex(hex, &entry->digest);
    printf("%-12.12s  %10s  %s%s\n", hex, human_size(size, entry->size), printable_url(url, sizeof(url), entry->url),
           entry->pinned ? "  (pinned)" : "");
  }
  return output_works();
}

static bool print_listed(void *user, const mc_listed *listed) {
  const struct command_line *line = user;
  char size[SHORT_TEXT], path[4096];
  if (line->json) {
    print_json(json_pack("{so so so}", "path", json_text(listed->path), "size", json_size(listed->size),
                         "last_modified", json_time_or_null(listed->validators.last_modified)));
  } else {
    printf("%10s  %s\n", human_size(size, listed->size), printable(path, sizeof(path), listed->path));
  }
  return output_works();
}

int command_ls(mc_cache *cache, const struct command_line *line) {
  mc_error error = MC_ERROR_INIT;
  const char *prefix = line->word_count ? line->words[0] : "";
  void *user = (void *)line;
  if (line->origin && !line->word_count) return usage("ls: --origin needs a URL");
  mc_status status = line->origin ? mc_list_upstream(cache, prefix, print_listed, user, line->timeout_ms, &error)
                                  : mc_list(cache, prefix, print_entry, user, line->timeout_ms, &error);
  return status && output_works() ? fail(line, prefix, &error) : EXIT_DONE;
}

/* ---- evict ---- */

int command_evict(mc_cache *cache, const struct command_line *line) {
  int code = EXIT_DONE;
  for (int i = 0; i < line->word_count && output_works(); i++) {
    const char *url = line->words[i];
    mc_error error = MC_ERROR_INIT;
    uint64_t bytes = 0;
    char size[SHORT_TEXT], shown[PRINTABLE_URL];
    if (mc_evict(&bytes, cache, url, &error)) {
      int failed = fail(line, url, &error);
      code = code ? code : failed;
    } else if (line->json) {
      print_json(json_pack("{so sI}", "url", json_text(url), "bytes", (json_int_t)bytes));
    } else if (!line->quiet) {
      printf("%s: %s freed\n", printable_url(shown, sizeof(shown), url), human_size(size, bytes));
    }
  }
  return code;
}
