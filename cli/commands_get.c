/* The commands that get files: get, tree, prefetch. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

#define BLOCK_SIZE ((size_t)1 << 20)

/* The codes of several URLs in one: the first that is not 0. */
static int first_code(int so_far, int code) {
  return so_far ? so_far : code;
}

static bool keeps_nothing(const struct command_line *line) {
  return line->no_store || (line->options.storage && strcmp(line->options.storage, "none") == 0);
}

/* After a get that was interrupted. How much has arrived is no answer: several pieces come at once, and those that are
 * not whole go. */
static void say_what_is_kept(const struct command_line *line) {
  if (!keeps_nothing(line)) say("interrupted; each whole 4 MiB piece is kept, and the same command goes on from there");
}

/* ---- where files go ---- */

/* The file's name in a URL: the last part of its path, decoded where that gives a plain name. malloced; NULL with a
 * message when there is none. */
static char *name_in(const char *url) {
  size_t end = strcspn(url, "?#"), start = end;
  while (start > 0 && url[start - 1] != '/') start--;
  char *name = strndup(url + start, end - start), *decoded = calloc(1, end - start + 1);
  bool plain = name && decoded;
  size_t used = 0;
  for (const char *at = name; plain && *at; at++) {
    char byte = *at, digits[3] = {0};
    if (*at == '%' && at[1] && at[2]) {
      char *rest;
      memcpy(digits, at + 1, 2);
      byte = (char)strtoul(digits, &rest, 16);
      if (*rest || digits[0] == '+' || digits[0] == '-') plain = false;
      at += 2;
    }
    if ((unsigned char)byte < 0x20 || byte == 0x7f || byte == '/') plain = false;
    decoded[used++] = byte;
  }
  if (plain && strcmp(decoded, ".") != 0 && strcmp(decoded, "..") != 0) {
    char *swap = name;
    name = decoded;
    decoded = swap;
  }
  free(decoded);
  if (name && *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) return name;
  free(name);
  return NULL;
}

/* A folder and those above it. 0, or an errno. */
static int make_folder(const char *path) {
  char *copy = strdup(path);
  int error = copy ? 0 : ENOMEM;
  for (char *at = copy; !error && at && *at;) {
    at += strspn(at, "/");
    at += strcspn(at, "/");
    char end = *at;
    *at = 0;
    if (*copy && mkdir(copy, 0777) && errno != EEXIST) error = errno;
    *at = end;
  }
  struct stat st;
  if (!error && stat(path, &st)) error = errno;
  if (!error && !S_ISDIR(st.st_mode)) error = ENOTDIR;
  free(copy);
  return error;
}

static bool is_folder(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Whether a file can be put there, asked before anything is downloaded for it. Returns an exit code. */
static int check_place(const struct command_line *line, const char *path) {
  char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
  if (slash) slash[slash == folder] = 0;
  const char *where = slash ? folder : ".";
  struct stat st;
  int error = !folder                      ? ENOMEM
              : stat(where, &st)           ? errno
              : !S_ISDIR(st.st_mode)       ? ENOTDIR
              : access(where, W_OK | X_OK) ? errno
                                           : 0;
  if (error == ENOENT) {
    say("%s: there is no folder %s for %s", line->command, where, path);
  } else if (error) {
    say("%s: can't write into %s: %s", line->command, where, strerror(error));
  }
  free(folder);
  return !error ? EXIT_DONE : error == EACCES || error == EPERM || error == EROFS ? EXIT_DENIED : EXIT_FAILED;
}

/* One place for each URL, malloced; all NULL where nothing is to be put anywhere. Returns an exit code. */
static int find_places(char **places, const struct command_line *line) {
  const char *output = line->output;
  if (!output || strcmp(output, "-") == 0) return EXIT_DONE;
  size_t length = strlen(output);
  if (line->word_count == 1 && output[length - 1] != '/' && !is_folder(output)) {
    places[0] = strdup(output);
    return check_place(line, output);
  }
  int error = make_folder(output);
  if (error) {
    say("%s: can't use %s as a folder: %s", line->command, output, strerror(error));
    return error == EACCES || error == EPERM || error == EROFS ? EXIT_DENIED : EXIT_FAILED;
  }
  for (int i = 0; i < line->word_count; i++) {
    char shown[PRINTABLE_URL];
    printable_url(shown, sizeof(shown), line->words[i]);
    char *name = name_in(line->words[i]);
    if (!name) return usage("%s names no file: use 'modelcache tree' for a folder, or -o FILE", shown);
    bool slash = output[length - 1] == '/';
    if (asprintf(&places[i], "%s%s%s", output, slash ? "" : "/", name) < 0) places[i] = NULL;
    free(name);
    for (int k = 0; k < i; k++) {
      if (places[i] && places[k] && strcmp(places[i], places[k]) == 0) {
        return usage("two of the URLs are to go to %s: get them one by one", places[i]);
      }
    }
  }
  return EXIT_DONE;
}

/* ---- get ---- */

static int copy_to_stdout(mc_file *file, mc_error *err) {
  char *block = malloc(BLOCK_SIZE);
  mc_status status = block ? MC_OK : mc_error_set(err, MC_NO_MEMORY, "cli", "no memory for a block");
  size_t got = 1;
  for (uint64_t at = 0; !status && got; at += got) {
    status = mc_file_read(file, at, block, BLOCK_SIZE, &got, err);
    if (!status && mc_cancel_triggered(interrupted)) {
      status = mc_error_set(err, MC_CANCELLED, "cli", "the call was cancelled");
    }
    if (!status && fwrite(block, 1, got, stdout) != got) break; /* output_end says why */
  }
  free(block);
  return status;
}

static void print_got(const struct command_line *line, const char *url, const char *path, const mc_file *file,
                      int64_t took_ms, bool terminal) {
  char digest[8 + MC_DIGEST_HEX_SIZE] = "sha256:", size[SHORT_TEXT], span[SHORT_TEXT];
  mc_digest_hex(digest + strlen(digest), mc_file_digest(file));
  if (line->json) {
    print_json(json_pack("{so so so ss sb sf}", "url", json_text(url), "path", path ? json_text(path) : json_null(),
                         "size", json_size(mc_file_size(file)), "digest", digest, "cached", mc_file_was_cached(file),
                         "seconds", (double)took_ms / 1000));
  } else if (!line->output && path) {
    puts(path);
  } else if (terminal && line->output && !line->quiet) {
    say("%s: %s in %s%s", strcmp(line->output, "-") == 0 ? "stdout" : path, human_size(size, mc_file_size(file)),
        human_span(span, took_ms), mc_file_was_cached(file) ? ", from the cache" : "");
  }
}

/* With or without the "sha256:" that --json writes. */
static mc_status digest_of(mc_digest *digest, const char *text, mc_error *err) {
  static const char prefix[] = "sha256:";
  size_t skip = strncmp(text, prefix, sizeof(prefix) - 1) == 0 ? sizeof(prefix) - 1 : 0;
  return mc_digest_parse(digest, text + skip, err);
}

/* Get one into `place`, or NULL. */
static int get_one(mc_cache *cache, const struct command_line *line, int number, const char *place, bool direct) {
  const char *url = line->words[number];
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct progress progress;
  mc_error error = MC_ERROR_INIT;
  mc_file *file = NULL;
  bool to_stdout = line->output && strcmp(line->output, "-") == 0;
  int64_t begun = now_ms();
  mc_digest digest;
  if (line->digest && digest_of(&digest, line->digest, &error)) return fail(line, url, &error);
  if (line->digest) options.digest = &digest;
  progress_begin(&progress, url, number + 1, line->word_count, line->quiet);
  options.flags = (line->refresh ? MC_GET_REVALIDATE : 0u) | (line->cached ? MC_GET_CACHED : 0u) |
                  (line->pin ? MC_GET_PIN : 0u) | (direct ? MC_GET_DIRECT : 0u);
  options.timeout_ms = line->timeout_ms;
  options.cancel = interrupted;
  options.path = place;
  options.progress = progress_update;
  options.user = &progress;
  mc_status status = mc_get(&file, cache, url, &options, &error);
  if (!status && to_stdout) status = copy_to_stdout(file, &error);
  progress_end(&progress);
  if (status == MC_CANCELLED && mc_cancel_triggered(interrupted)) say_what_is_kept(line);
  int code = EXIT_DONE;
  if (status) {
    code = status == MC_CANCELLED ? EXIT_INTERRUPTED : fail(line, url, &error);
  } else {
    print_got(line, url,
              place && !to_stdout ? place
              : to_stdout         ? NULL
                                  : mc_file_path(file),
              file, now_ms() - begun, progress.terminal);
  }
  mc_file_release(file);
  return code;
}

/* To stdout from a cache that keeps nothing: by way of a file that is gone before it ends. */
static int get_through_a_file(mc_cache *cache, const struct command_line *line) {
  char *folder, *place = NULL;
  const char *base = getenv("TMPDIR");
  if (asprintf(&folder, "%s/modelcache-XXXXXX", base && *base ? base : "/tmp") < 0) return EXIT_FAILED;
  int code = EXIT_FAILED;
  if (!mkdtemp(folder)) {
    say("get: can't make a temporary folder %s: %s", folder, strerror(errno));
  } else {
    if (asprintf(&place, "%s/file", folder) >= 0) code = get_one(cache, line, 0, place, true);
    if (place) unlink(place);
    rmdir(folder);
  }
  free(place);
  free(folder);
  return code;
}

int command_get(mc_cache *cache, const struct command_line *line) {
  bool to_stdout = line->output && strcmp(line->output, "-") == 0, nothing = keeps_nothing(line);
  if (line->digest && line->word_count > 1) return usage("get: --digest takes one URL");
  if (line->digest && (line->refresh || line->pin)) {
    return usage("get: --refresh and --pin are for the current version, not for one by its digest");
  }
  if (to_stdout && line->word_count > 1) return usage("get: '-o -' takes one URL");
  if (to_stdout && line->json) return usage("get: --json and '-o -' both want stdout");
  if (nothing && !line->output) return usage("get: nothing is kept here, so say with -o where the file goes");
  if (to_stdout && nothing) return get_through_a_file(cache, line);
  char **places = calloc((size_t)line->word_count, sizeof(char *));
  int code = places ? find_places(places, line) : EXIT_FAILED;
  if (code == EXIT_DONE) {
    for (int i = 0; i < line->word_count && !mc_cancel_triggered(interrupted) && output_works(); i++) {
      code = first_code(code, get_one(cache, line, i, places[i], line->no_store));
    }
  }
  if (mc_cancel_triggered(interrupted)) code = EXIT_INTERRUPTED;
  for (int i = 0; places && i < line->word_count; i++) free(places[i]);
  free(places);
  return code;
}

/* ---- tree ---- */

int command_tree(mc_cache *cache, const struct command_line *line) {
  const char *url = line->words[0], *path = line->words[1];
  mc_tree_options options;
  mc_tree_result result = {.struct_size = sizeof(result)};
  struct progress progress;
  mc_error error = MC_ERROR_INIT;
  char size[SHORT_TEXT];
  mc_tree_options_init(&options);
  progress_begin(&progress, url, 1, 1, line->quiet);
  options.flags = (line->refresh ? MC_GET_REVALIDATE : 0u) | (line->pin ? MC_GET_PIN : 0u);
  options.timeout_ms = line->timeout_ms;
  options.cancel = interrupted;
  options.progress = progress_files;
  options.user = &progress;
  options.allow = line->allow.list;
  options.ignore = line->ignore.list;
  mc_status status = mc_get_tree(&result, cache, url, path, &options, &error);
  progress_end(&progress);
  if (status == MC_CANCELLED && mc_cancel_triggered(interrupted)) {
    say_what_is_kept(line);
    return EXIT_INTERRUPTED;
  }
  if (status) return fail(line, url, &error);
  if (line->json) {
    print_json(json_pack("{so so sI sI sb}", "url", json_text(url), "path", json_text(result.path), "files",
                         (json_int_t)result.files, "bytes", (json_int_t)result.bytes, "changed", result.changed));
  } else if (!line->quiet) {
    printf("%s: %" PRIu64 " file%s, %s%s\n", result.path, result.files, result.files == 1 ? "" : "s",
           human_size(size, result.bytes), result.changed ? "" : ", as before");
  }
  return EXIT_DONE;
}

/* ---- prefetch ---- */

/* Without a service nobody goes on when this process ends: wait until it is here. */
static mc_status prefetch_here(mc_cache *cache, const struct command_line *line, int number, mc_error *err) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  struct progress progress;
  mc_file *file = NULL;
  progress_begin(&progress, line->words[number], number + 1, line->word_count, line->quiet);
  options.flags = line->pin ? MC_GET_PIN : 0u;
  options.timeout_ms = line->timeout_ms;
  options.cancel = interrupted;
  options.progress = progress_update;
  options.user = &progress;
  mc_status status = mc_get(&file, cache, line->words[number], &options, err);
  progress_end(&progress);
  mc_file_release(file);
  if (status == MC_CANCELLED) say_what_is_kept(line);
  return status;
}

int command_prefetch(mc_cache *cache, const struct command_line *line) {
  int code = EXIT_DONE;
  bool here = !line->options.endpoint;
  for (int i = 0; i < line->word_count && output_works(); i++) {
    const char *url = line->words[i];
    mc_error error = MC_ERROR_INIT;
    mc_status status = here ? prefetch_here(cache, line, i, &error) : mc_prefetch(cache, url, line->pin, &error);
    if (mc_cancel_triggered(interrupted)) return EXIT_INTERRUPTED;
    if (status) {
      code = first_code(code, fail(line, url, &error));
    } else if (line->json) {
      print_json(json_pack("{so ss}", "url", json_text(url), "state", here ? "done" : "started"));
    }
  }
  return code;
}
