/* Get one model file through a cache, and read it in place.   get URL [HOST:PORT]
 *
 * Without HOST:PORT the cache works in this process; with it, this is a client of the modelcached there. */
#include <inttypes.h>
#include <stdio.h>

#include <modelcache/modelcache.h>

static void show(void *user, const mc_progress *progress) {
  (void)user;
  fprintf(stderr, "%" PRIu64 " bytes, %s\n", progress->bytes, progress->reason);
}

int main(int argc, char **argv) {
  mc_cache *cache = NULL;
  mc_file *file = NULL;
  mc_error error = MC_ERROR_INIT;
  mc_get_options options = MC_GET_OPTIONS_INIT;
  char hex[MC_DIGEST_HEX_SIZE];
  const void *bytes;
  size_t size;
  if (argc < 2) return 2;
  options.progress = show;
  options.timeout_ms = 10 * 60 * 1000;
  if (mc_open(&cache, argc > 2 ? argv[2] : NULL, &error) || mc_get(&file, cache, argv[1], &options, &error) ||
      mc_file_map(file, &bytes, &size, &error)) {
    fprintf(stderr, "%s: %s\n", mc_status_name(error.status), error.message);
  } else { /* `bytes` is the file, whole and verified, until its release */
    printf("%zu bytes, sha256 %s, %s\n", size, mc_digest_hex(hex, mc_file_digest(file)), mc_file_path(file));
  }
  mc_file_release(file);
  mc_close(cache);
  return error.status ? 1 : 0;
}
