/* The commands. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

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
  case MC_UNAVAILABLE:
  case MC_DEADLINE_EXCEEDED:
  case MC_RESOURCE_EXHAUSTED:
  case MC_BUSY:
  case MC_CHANGED:
    return EXIT_UNAVAILABLE;
  case MC_NO_SPACE:
    return EXIT_NO_SPACE;
  case MC_CORRUPT:
    return EXIT_CORRUPT;
  case MC_CANCELLED:
    return EXIT_INTERRUPTED;
  default:
    return EXIT_FAILED;
  }
}

static int fail(const struct command_line *line, const char *url, const mc_error *error) {
  char shown[300];
  snprintf(shown, sizeof(shown), "%.*s", (int)strcspn(url, "?"), url);
  if (line->json) {
    json_t *json =
        json_pack("{ss ss ss}", "url", shown, "error", mc_status_name(error->status), "message", error->message);
    char *text = json_dumps(json, JSON_COMPACT);
    if (text) printf("%s\n", text);
    free(text);
    json_decref(json);
  }
  fprintf(stderr, "modelcache: %s %s: %s\n", line->words[0], shown, error->message);
  return exit_code_of(error->status);
}

/* The codes of several URLs in one: the first that is not 0. */
static int first_code(int so_far, int code) {
  return so_far ? so_far : code;
}

static int usage(const char *text) {
  fprintf(stderr, "modelcache: usage: modelcache %s\n", text);
  return EXIT_USAGE;
}

static void print_json(json_t *json) {
  char *text = json_dumps(json, JSON_COMPACT);
  if (text) printf("%s\n", text);
  free(text);
  json_decref(json);
}

/* ---- get ---- */

static int copy_to_stdout(mc_file *file, mc_error *err) {
  static char block[1 << 18];
  uint64_t at = 0;
  size_t got = 1;
  while (got) {
    if (mc_file_read(file, at, block, sizeof(block), &got, err)) return exit_code_of(err->status);
    if (got && fwrite(block, 1, got, stdout) != got) {
      mc_error_errno(err, errno, "cli", "can't write to stdout");
      return EXIT_FAILED;
    }
    at += got;
  }
  return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
}

/* Where a URL's file goes: the path that was given, or a name in the folder that was given. malloced, or NULL. */
static char *destination(const struct command_line *line, const char *url) {
  struct stat st;
  char *path = NULL;
  if (!line->output || strcmp(line->output, "-") == 0) return NULL;
  bool folder = line->word_count > 2 || (stat(line->output, &st) == 0 && S_ISDIR(st.st_mode));
  size_t end = strcspn(url, "?#"), start = end;
  while (start > 0 && url[start - 1] != '/') start--;
  int length = folder ? asprintf(&path, "%s/%.*s", line->output, (int)(end - start), url + start)
                      : asprintf(&path, "%s", line->output);
  return length < 0 ? NULL : path;
}

static int get_one(mc_cache *cache, const struct command_line *line, const char *url) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct progress progress;
  mc_error error = MC_ERROR_INIT;
  mc_file *file = NULL;
  char *path = destination(line, url), hex[MC_DIGEST_HEX_SIZE];
  progress_begin(&progress, url, line->quiet);
  options.flags = (line->refresh ? MC_GET_REVALIDATE : 0u) | (line->cached ? MC_GET_CACHED : 0u) |
                  (line->pin ? MC_GET_PIN : 0u) | (line->no_store && path ? MC_GET_DIRECT : 0u);
  options.timeout_ms = line->timeout_ms;
  options.cancel = interrupted;
  options.path = path;
  options.progress = progress_update;
  options.user = &progress;
  mc_status status = mc_get(&file, cache, url, &options, &error);
  progress_end(&progress);
  if (status) {
    free(path);
    int code = fail(line, url, &error);
    if (status == MC_CANCELLED && !line->no_store) {
      fprintf(stderr, "modelcache: interrupted; what has arrived is kept, the next get goes on from there\n");
    }
    return code;
  }
  int code = EXIT_DONE;
  const char *where = path ? path : mc_file_path(file);
  if (line->output && !path) {
    code = copy_to_stdout(file, &error);
    if (code) fail(line, url, &error);
  } else if (line->json) {
    print_json(json_pack("{ss ss* sI ss sb}", "url", url, "path", where, "size", (json_int_t)mc_file_size(file),
                         "digest", mc_digest_hex(hex, mc_file_digest(file)), "cached", mc_file_was_cached(file)));
  } else if (where) {
    printf("%s\n", where);
  }
  mc_file_release(file);
  free(path);
  return code;
}

int command_get(mc_cache *cache, const struct command_line *line) {
  int code = EXIT_DONE;
  if (line->word_count < 2) return usage("get URL… [-o PATH]");
  if (line->word_count > 2 && line->output && strcmp(line->output, "-") != 0) {
    struct stat st;
    if (stat(line->output, &st) || !S_ISDIR(st.st_mode)) return usage("get URL URL… -o FOLDER (an existing folder)");
  }
  for (int i = 1; i < line->word_count && code != EXIT_INTERRUPTED; i++) {
    code = first_code(code, get_one(cache, line, line->words[i]));
  }
  return code;
}

/* ---- tree ---- */

int command_tree(mc_cache *cache, const struct command_line *line) {
  if (line->word_count != 3) return usage("tree URL DIR");
  mc_tree_options options;
  mc_tree_result result;
  struct progress progress;
  mc_error error = MC_ERROR_INIT;
  char size[32];
  mc_tree_options_init(&options);
  progress_begin(&progress, line->words[1], line->quiet);
  options.flags = (line->refresh ? MC_GET_REVALIDATE : 0u) | (line->pin ? MC_GET_PIN : 0u);
  options.timeout_ms = line->timeout_ms;
  options.cancel = interrupted;
  options.progress = progress_files;
  options.user = &progress;
  mc_status status = mc_get_tree(&result, cache, line->words[1], line->words[2], &options, &error);
  progress_end(&progress);
  if (status) return fail(line, line->words[1], &error);
  if (line->json) {
    print_json(json_pack("{ss ss sI sI sb}", "url", line->words[1], "path", result.path, "files",
                         (json_int_t)result.files, "bytes", (json_int_t)result.bytes, "changed", result.changed));
  } else {
    printf("%s: %" PRIu64 " files, %s%s\n", result.path, result.files, human_size(size, result.bytes),
           result.changed ? "" : " (as before)");
  }
  return EXIT_DONE;
}

/* ---- stat, ls ---- */

static json_t *entry_json(const mc_entry *entry) {
  char hex[MC_DIGEST_HEX_SIZE] = "";
  if (entry->has_digest) mc_digest_hex(hex, &entry->digest);
  json_t *json = json_pack("{ss ss ss ss sI sI sI sb}", "url", entry->url, "digest", hex, "etag",
                           entry->validators.etag, "version", entry->validators.version, "last_modified",
                           (json_int_t)entry->validators.last_modified, "fetched_at_ms", (json_int_t)entry->fetched_at,
                           "checked_at_ms", (json_int_t)entry->checked_at, "pinned", entry->pinned);
  if (entry->size != MC_SIZE_UNKNOWN) json_object_set_new(json, "size", json_integer((json_int_t)entry->size));
  return json;
}

int command_stat(mc_cache *cache, const struct command_line *line) {
  mc_entry *entry;
  mc_error error = MC_ERROR_INIT;
  char hex[MC_DIGEST_HEX_SIZE];
  if (line->word_count != 2) return usage("stat URL");
  if (mc_stat(&entry, cache, line->words[1], line->cached ? MC_GET_CACHED : 0, line->timeout_ms, &error)) {
    return fail(line, line->words[1], &error);
  }
  if (line->json) {
    print_json(entry_json(entry));
  } else {
    printf("url:           %s\n", entry->url);
    if (entry->size != MC_SIZE_UNKNOWN) printf("size:          %" PRIu64 "\n", entry->size);
    if (entry->has_digest) printf("digest:        sha256:%s\n", mc_digest_hex(hex, &entry->digest));
    if (*entry->validators.etag) printf("etag:          %s\n", entry->validators.etag);
    if (*entry->validators.version) printf("version:       %s\n", entry->validators.version);
    if (entry->validators.last_modified) printf("last modified: %" PRId64 "\n", entry->validators.last_modified);
    printf("cached:        %s\n", entry->fetched_at ? "yes" : "no");
  }
  mc_entry_free(entry);
  return EXIT_DONE;
}

static bool print_entry(void *user, const mc_entry *entry) {
  const struct command_line *line = user;
  char hex[MC_DIGEST_HEX_SIZE] = "-", size[32];
  if (line->json) {
    print_json(entry_json(entry));
  } else {
    if (entry->has_digest) mc_digest_hex(hex, &entry->digest);
    printf("%.12s  %10s  %s%s\n", hex, human_size(size, entry->size), entry->url, entry->pinned ? "  (pinned)" : "");
  }
  return !mc_cancel_triggered(interrupted);
}

static bool print_listed(void *user, const mc_listed *listed) {
  const struct command_line *line = user;
  char size[32] = "-";
  if (line->json) {
    json_t *json = json_pack("{ss sI}", "path", listed->path, "last_modified", (json_int_t)listed->last_modified);
    if (listed->size != MC_SIZE_UNKNOWN) json_object_set_new(json, "size", json_integer((json_int_t)listed->size));
    print_json(json);
  } else {
    if (listed->size != MC_SIZE_UNKNOWN) human_size(size, listed->size);
    printf("%10s  %s\n", size, listed->path);
  }
  return !mc_cancel_triggered(interrupted);
}

int command_ls(mc_cache *cache, const struct command_line *line) {
  mc_error error = MC_ERROR_INIT;
  if (line->word_count > 2 || (line->origin && line->word_count != 2)) return usage("ls [PREFIX], or ls URL --origin");
  const char *prefix = line->word_count == 2 ? line->words[1] : "";
  mc_status status = line->origin
                         ? mc_list_upstream(cache, prefix, print_listed, (void *)line, line->timeout_ms, &error)
                         : mc_list(cache, prefix, print_entry, (void *)line, line->timeout_ms, &error);
  return status ? fail(line, prefix, &error) : EXIT_DONE;
}

/* ---- prefetch, evict, status ---- */

int command_prefetch(mc_cache *cache, const struct command_line *line) {
  int code = EXIT_DONE;
  if (line->word_count < 2) return usage("prefetch URL…");
  if (!line->options.endpoint) return command_get(cache, line); /* nobody goes on when this process ends */
  for (int i = 1; i < line->word_count; i++) {
    mc_error error = MC_ERROR_INIT;
    if (mc_prefetch(cache, line->words[i], line->pin, &error)) {
      code = first_code(code, fail(line, line->words[i], &error));
    }
  }
  return code;
}

int command_evict(mc_cache *cache, const struct command_line *line) {
  int code = EXIT_DONE;
  if (line->word_count < 2) return usage("evict URL…");
  for (int i = 1; i < line->word_count; i++) {
    mc_error error = MC_ERROR_INIT;
    uint64_t bytes = 0;
    char size[32];
    if (mc_evict(&bytes, cache, line->words[i], &error)) {
      code = first_code(code, fail(line, line->words[i], &error));
    } else if (line->json) {
      print_json(json_pack("{ss sI}", "url", line->words[i], "bytes", (json_int_t)bytes));
    } else if (!line->quiet) {
      printf("%s: %s freed\n", line->words[i], human_size(size, bytes));
    }
  }
  return code;
}

static void print_flights(json_t *status) {
  json_t *flight;
  size_t i;
  json_array_foreach(json_object_get(status, "flights"), i, flight) {
    char done[32], total[32] = "?";
    json_t *size = json_object_get(flight, "total");
    if (size) human_size(total, (uint64_t)json_integer_value(size));
    printf("  %s: %s, %s of %s, %lld waiting\n", json_string_value(json_object_get(flight, "url")),
           json_string_value(json_object_get(flight, "phase")),
           human_size(done, (uint64_t)json_integer_value(json_object_get(flight, "bytes"))), total,
           (long long)json_integer_value(json_object_get(flight, "waiters")));
  }
}

int command_status(mc_cache *cache, const struct command_line *line) {
  mc_error error = MC_ERROR_INIT;
  char *text;
  if (mc_status_json(&text, cache, &error))
    return fail(line, line->options.endpoint ? line->options.endpoint : "", &error);
  json_t *status = json_loads(text, 0, NULL), *counters = json_object_get(status, "counters"), *value;
  const char *name;
  if (line->json || !status) {
    printf("%s\n", text);
  } else {
    printf("modelcache %s%s%s\n", json_string_value(json_object_get(status, "version")),
           line->options.endpoint ? " at " : " in this process", line->options.endpoint ? line->options.endpoint : "");
    json_object_foreach(counters, name, value) {
      if (json_integer_value(value)) printf("  %-28s %lld\n", name, (long long)json_integer_value(value));
    }
    print_flights(status);
  }
  json_decref(status);
  mc_free(text);
  return EXIT_DONE;
}
