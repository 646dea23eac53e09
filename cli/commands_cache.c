/* The commands that look into a cache and manage it: stat, ls, evict, repair. */
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

json_t *entry_json(const mc_entry *entry) {
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

/* A list for `ls`. */
struct printing {
  const struct command_line *line;
  uint32_t left; /* how many more are wanted; 0: all */
};

static bool print_entry(void *user, const mc_entry *entry) {
  struct printing *printing = user;
  const struct command_line *line = printing->line;
  char hex[MC_DIGEST_HEX_SIZE] = "-", size[SHORT_TEXT], url[4096];
  if (line->json) {
    print_json(entry_json(entry));
  } else {
    if (entry->has_digest) mc_digest_hex(hex, &entry->digest);
    printf("%-12.12s  %10s  %s%s\n", hex, human_size(size, entry->size), printable_url(url, sizeof(url), entry->url),
           entry->pinned ? "  (pinned)" : "");
  }
  bool enough = printing->left && --printing->left == 0;
  return output_works() && !enough;
}

static bool print_listed(void *user, const mc_listed *listed) {
  struct printing *printing = user;
  const struct command_line *line = printing->line;
  char size[SHORT_TEXT], path[4096];
  if (line->json) {
    print_json(json_pack("{so so so}", "path", json_text(listed->path), "size", json_size(listed->size),
                         "last_modified", json_time_or_null(listed->validators.last_modified)));
  } else {
    printf("%10s  %s\n", human_size(size, listed->size), printable(path, sizeof(path), listed->path));
  }
  bool enough = printing->left && --printing->left == 0;
  return output_works() && !enough;
}

int command_ls(mc_cache *cache, const struct command_line *line) {
  mc_error error = MC_ERROR_INIT;
  const char *prefix = line->word_count ? line->words[0] : "";
  struct printing printing = {line, line->limit};
  if (line->origin && !line->word_count) return usage("ls: --origin needs a URL");
  if (line->origin && *line->after) return usage("ls: --after is of what is cached: an origin's list has no order");
  mc_status status = line->origin
                         ? mc_list_upstream(cache, prefix, print_listed, &printing, line->timeout_ms, &error)
                         : mc_list(cache, prefix, line->after, print_entry, &printing, line->timeout_ms, &error);
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

/* ---- repair ---- */

static void print_repair(const mc_repair_result *found, bool dry_run) {
  uint64_t behind = found->missing + found->older;
  printf("records      %" PRIu64 " in the storage, %" PRIu64 " of them with their file\n", found->records,
         found->objects);
  printf("entries      %" PRIu64 " in the coordination\n", found->entries);
  if (!behind) {
    printf("nothing to mend: the coordination knows all that is stored\n");
    return;
  }
  printf("missing      %" PRIu64 " record%s of which it knew nothing\n", found->missing,
         found->missing == 1 ? "" : "s");
  printf("older        %" PRIu64 " record%s of which it knew something older\n", found->older,
         found->older == 1 ? "" : "s");
  printf(dry_run ? "nothing was changed: without --dry-run it would be told of these %" PRIu64 "\n"
                 : "it was told of these %" PRIu64 "\n",
         behind);
}

int command_repair(mc_cache *cache, const struct command_line *line) {
  mc_error error = MC_ERROR_INIT;
  mc_repair_result found;
  if (mc_repair(&found, cache, line->dry_run, line->timeout_ms, &error)) return fail(line, "", &error);
  if (line->json) {
    print_json(json_pack("{sI sI sI sI sI sb}", "records", (json_int_t)found.records, "entries",
                         (json_int_t)found.entries, "missing", (json_int_t)found.missing, "older",
                         (json_int_t)found.older, "objects", (json_int_t)found.objects, "dry_run", line->dry_run));
  } else if (!line->quiet) {
    print_repair(&found, line->dry_run);
  }
  return EXIT_DONE;
}
