/* Many clients of services in one process, for tests that need hundreds of them, or ones that live for long.
 *
 * Each line on the standard input is an order:
 *
 *   open CLIENT ENDPOINT [NAME=VALUE…]       a client: a cache of its own that keeps nothing, with these options
 *   get ID CLIENT HOW TIMEOUT_MS MOST URL    get the URL into memory, at most MOST bytes
 *
 * HOW is letters: 's' into memory that all such gets share, which says nothing of their bytes (for hundreds of clients
 * of a file of which hundreds would not fit; the library verifies them all the same); 'p' into its own, which is
 * hashed; 'r' to have the origin asked.
 *
 * A get ends with {"id", "status", "ms", "message", "size", "digest", "sha256", "head"}: `digest` is what the library
 * says, `sha256` what the bytes say, `head` the first bytes in hex. While it waits there are {"id", "phase", "bytes",
 * "total", "endpoint"}. An `open` that failed: {"client", "status", "message"}. It ends with its input. */
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/hash.h"
#include <modelcache/modelcache.h>

#define MAX_CLIENTS 1024
#define HEAD        64

struct get {
  uint64_t id;
  void *buffer;
  uint64_t most;
  bool shared;
  int64_t began;           /* clock_ns */
  struct get *prev, *next; /* under way */
  struct get *done_next;   /* ended, not yet told */
  mc_status status;
  mc_file *file;
  char message[MC_ERROR_MESSAGE_SIZE];
};

static mc_cache *clients[MAX_CLIENTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static struct get *under_way, *done_first, **done_last = &done_first;
static bool over;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...) {
  va_list args;
  va_start(args, format);
  flockfile(stdout);
  vprintf(format, args);
  putchar('\n');
  fflush(stdout);
  funlockfile(stdout);
  va_end(args);
}

/* The text as it can stand within quotes: what JSON would have escaped is left out. */
static void plain(char *out, size_t size, const char *text) {
  size_t at = 0;
  for (; *text && at + 1 < size; text++) {
    if ((unsigned char)*text >= ' ' && *text != '"' && *text != '\\') out[at++] = *text;
  }
  out[at] = 0;
}

/* ---- memory ---- */

/* What the gets that share it have: it only grows, and is never given back. */
static void *shared_memory(size_t size) {
  static void *memory;
  static size_t have;
  if (have < size) {
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    have = memory == MAP_FAILED ? 0 : size;
  }
  return have ? memory : NULL;
}

static void get_free(struct get *get) {
  if (get->buffer && !get->shared) munmap(get->buffer, get->most ? get->most : 1);
  free(get);
}

/* ---- the end of a get ---- */

static void tell(struct get *get) {
  char digest[MC_DIGEST_HEX_SIZE] = "", sha256[MC_DIGEST_HEX_SIZE] = "", head[2 * HEAD + 1] = "",
       message[MC_ERROR_MESSAGE_SIZE];
  uint64_t size = 0;
  if (get->status == MC_OK) {
    size = mc_file_size(get->file);
    mc_digest_hex(digest, mc_file_digest(get->file));
    if (!get->shared) {
      mc_digest real;
      sha256_of(&real, get->buffer, size);
      mc_digest_hex(sha256, &real);
    }
    const uint8_t *bytes = get->buffer;
    for (size_t i = 0; i < HEAD && i < size; i++) sprintf(head + 2 * i, "%02x", bytes[i]);
  }
  plain(message, sizeof(message), get->message);
  say("{\"id\": %" PRIu64 ", \"status\": \"%s\", \"ms\": %" PRId64 ", \"message\": \"%s\", \"size\": %" PRIu64
      ", \"digest\": \"%s\", \"sha256\": \"%s\", \"head\": \"%s\"}",
      get->id, mc_status_name(get->status), (clock_ns() - get->began) / 1000000, message, size, digest, sha256, head);
  mc_file_release(get->file);
}

static void *teller(void *arg) {
  (void)arg;
  pthread_mutex_lock(&lock);
  while (!over || under_way || done_first) {
    struct get *get = done_first;
    if (!get) {
      pthread_cond_wait(&wake, &lock);
      continue;
    }
    done_first = get->done_next;
    if (!done_first) done_last = &done_first;
    if (get->prev) get->prev->next = get->next;
    if (get->next) get->next->prev = get->prev;
    if (under_way == get) under_way = get->next;
    pthread_mutex_unlock(&lock);
    tell(get);
    get_free(get);
    pthread_mutex_lock(&lock);
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

static void end_get(struct get *get, mc_status status, mc_file *file, const char *message) {
  pthread_mutex_lock(&lock);
  get->status = status;
  get->file = file;
  snprintf(get->message, sizeof(get->message), "%s", message);
  *done_last = get;
  done_last = &get->done_next;
  pthread_cond_signal(&wake);
  pthread_mutex_unlock(&lock);
}

static void done(void *user, mc_status status, mc_file *file, const mc_error *error) {
  end_get(user, status, file, status == MC_OK ? "" : error->message);
}

static void progressed(void *user, const mc_progress *progress) {
  const struct get *get = user;
  uint64_t total = progress->total == MC_SIZE_UNKNOWN ? 0 : progress->total;
  say("{\"id\": %" PRIu64 ", \"phase\": %d, \"bytes\": %" PRIu64 ", \"total\": %" PRIu64 ", \"endpoint\": \"%s\"}",
      get->id, (int)progress->phase, progress->bytes, total, progress->endpoint ? progress->endpoint : "");
}

/* ---- orders ---- */

static void log_line(void *user, mc_log_level level, const char *origin, const char *message) {
  (void)level;
  fprintf(stderr, "getter: client %d: %s: %s\n", (int)(intptr_t)user, origin, message);
}

static mc_status set_option(mc_options *options, char *setting, mc_error *err) {
  char *value = strchr(setting, '=');
  if (!value) return mc_error_set(err, MC_INVALID_ARGUMENT, "getter", "'%s' is no NAME=VALUE", setting);
  *value++ = 0;
  for (const mc_option_row *row = mc_option_rows(); row->name; row++) {
    if (strcmp(row->name, setting) == 0) return mc_option_parse(row, options, value, err);
  }
  return mc_error_set(err, MC_INVALID_ARGUMENT, "getter", "there is no option '%s'", setting);
}

static void open_client(char *rest) {
  char *next, *word = strtok_r(rest, " ", &next), *endpoint = strtok_r(NULL, " ", &next);
  int client = word ? atoi(word) : -1;
  if (!endpoint || client < 0 || client >= MAX_CLIENTS || clients[client]) {
    say("{\"client\": %d, \"status\": \"invalid_argument\", \"message\": \"which client?\"}", client);
    return;
  }
  mc_options options = MC_OPTIONS_INIT;
  options.endpoint = endpoint;
  options.storage = "none";
  options.fallback = false;
  options.logger = (mc_logger){log_line, (void *)(intptr_t)client, MC_LOG_ERROR};
  mc_error err = MC_ERROR_INIT;
  mc_status status = MC_OK;
  while (!status && (word = strtok_r(NULL, " ", &next))) status = set_option(&options, word, &err);
  if (!status) status = mc_open_options(&clients[client], &options, &err);
  char message[MC_ERROR_MESSAGE_SIZE];
  plain(message, sizeof(message), status ? err.message : "");
  if (status) say("{\"client\": %d, \"status\": \"%s\", \"message\": \"%s\"}", client, mc_status_name(status), message);
}

static void start_get(const char *rest) {
  struct get *get = calloc(1, sizeof(*get));
  int client, timeout;
  char how[8], url[4096];
  if (!get) abort();
  if (sscanf(rest, "%" SCNu64 " %d %7s %d %" SCNu64 " %4095s", &get->id, &client, how, &timeout, &get->most, url) !=
          6 ||
      client < 0 || client >= MAX_CLIENTS || !clients[client]) {
    fprintf(stderr, "getter: not an order: get %s\n", rest);
    exit(2);
  }
  get->shared = strchr(how, 's') != NULL;
  get->buffer = get->shared
                    ? shared_memory(get->most)
                    : mmap(NULL, get->most ? get->most : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!get->buffer || get->buffer == MAP_FAILED) {
    perror("getter: mmap");
    exit(1);
  }
  get->began = clock_ns();
  pthread_mutex_lock(&lock);
  get->next = under_way;
  if (under_way) under_way->prev = get;
  under_way = get;
  pthread_mutex_unlock(&lock);

  mc_get_options options = MC_GET_OPTIONS_INIT;
  options.flags = MC_GET_DIRECT | (strchr(how, 'r') ? MC_GET_REVALIDATE : 0);
  options.timeout_ms = timeout;
  options.buffer = get->buffer;
  options.buffer_size = get->most;
  options.progress = progressed;
  options.user = get;
  mc_error err = MC_ERROR_INIT;
  mc_request *request = NULL;
  mc_status status = mc_get_start(&request, clients[client], url, &options, done, get, &err);
  if (status) end_get(get, status, NULL, err.message);
  mc_request_release(request);
}

int main(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, teller, NULL)) return 1;
  char line[8192];
  while (fgets(line, sizeof(line), stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (strncmp(line, "open ", 5) == 0) {
      open_client(line + 5);
    } else if (strncmp(line, "get ", 4) == 0) {
      start_get(line + 4);
    } else {
      fprintf(stderr, "getter: not an order: %s\n", line);
      return 2;
    }
  }
  for (int i = 0; i < MAX_CLIENTS; i++) mc_close(clients[i]);
  pthread_mutex_lock(&lock);
  over = true;
  pthread_cond_signal(&wake);
  pthread_mutex_unlock(&lock);
  pthread_join(thread, NULL);
  return 0;
}
