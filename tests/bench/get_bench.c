/* Time gets through the public API: one cache, one destination that has been touched before, many gets.
 *
 *   get_bench ENDPOINT URL PARALLELISM buffer SIZE
 *   get_bench ENDPOINT URL PARALLELISM file PATH
 *
 * ENDPOINT "-" is a cache in this process; PARALLELISM is the number of ranges read at once. Each line on the standard
 * input makes it get the URL once, keeping nothing; it answers with a line of JSON, so that whoever runs it can
 * interleave what is compared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include <modelcache/modelcache.h>

static int fail(const char *what, const mc_error *err) {
  fprintf(stderr, "get_bench: %s: %s\n", what, err->message);
  return 1;
}

static void log_line(void *user, mc_log_level level, const char *origin, const char *message) {
  (void)user;
  (void)level;
  fprintf(stderr, "get_bench: %s: %s\n", origin, message);
}

/* One get and its line. */
static mc_status get_once(mc_cache *cache, const char *url, const mc_get_options *options, mc_error *err) {
  struct run run = run_begin(0);
  mc_file *file = NULL;
  mc_status status = mc_get(&file, cache, url, options, err);
  if (status != MC_OK) return status;
  char hex[MC_DIGEST_HEX_SIZE];
  run_end(&run, mc_file_size(file), mc_digest_hex(hex, mc_file_digest(file)));
  mc_file_release(file);
  return MC_OK;
}

int main(int count, char **args) {
  if (count != 6 || (strcmp(args[4], "buffer") != 0 && strcmp(args[4], "file") != 0)) {
    fprintf(stderr, "usage: get_bench ENDPOINT|- URL PARALLELISM buffer SIZE|file PATH\n");
    return 2;
  }
  mc_get_options get = MC_GET_OPTIONS_INIT;
  get.flags = MC_GET_DIRECT;
  if (strcmp(args[4], "buffer") == 0) {
    get.buffer_size = (size_t)strtoull(args[5], NULL, 10);
    get.buffer = mmap(NULL, get.buffer_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (get.buffer == MAP_FAILED) {
      perror("get_bench: mmap");
      return 1;
    }
  } else {
    get.path = args[5];
  }

  mc_options options = MC_OPTIONS_INIT;
  options.endpoint = strcmp(args[1], "-") == 0 ? NULL : args[1];
  options.storage = "none";
  options.fallback = false;
  options.parallelism = (uint32_t)strtoul(args[3], NULL, 10);
  options.logger = (mc_logger){log_line, NULL, MC_LOG_WARN};
  mc_error err = MC_ERROR_INIT;
  mc_cache *cache = NULL;
  if (mc_open_options(&cache, &options, &err) != MC_OK) return fail("can't open the cache", &err);
  char line[16];
  int code = 0;
  while (code == 0 && fgets(line, sizeof line, stdin)) {
    if (get.buffer) destination_touch(get.buffer, get.buffer_size);
    if (get_once(cache, args[2], &get, &err) != MC_OK) code = fail(args[2], &err);
    if (get.buffer) destination_give_back(get.buffer, get.buffer_size);
  }
  mc_close(cache);
  return code;
}
