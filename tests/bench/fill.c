/* Put many entries into a shared coordination, through its vtable, as a cache would that has downloaded as many files.
 *
 *   fill LOCATION BEGIN END THREADS    entries [BEGIN, END)
 *
 * Prints one line of JSON. The URLs are http://models.example/team-NN/model-NNNNN/NNNNNNN.safetensors, in an order that
 * is that of their numbers; each has a digest of its own, and an ETag. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <modelcache/backend/coordination.h>

#include "backends/builtin.h"
#include "base/hash.h"
#include "bench.h"

#define MOST_THREADS 64
#define SINCE_MS     INT64_C(1700000000000)

struct share {
  mc_coordination *coordination;
  uint64_t begin, end;
  pthread_t thread;
};

static void die(const char *what, const char *why) {
  fprintf(stderr, "fill: %s: %s\n", what, why);
  exit(1);
}

static void *fill(void *arg) {
  const struct share *share = arg;
  mc_error err = MC_ERROR_INIT;
  for (uint64_t i = share->begin; i < share->end; i++) {
    char url[128], key[KEY_SIZE];
    int length = snprintf(url, sizeof(url),
                          "http://models.example/team-%02" PRIu64 "/model-%05" PRIu64 "/%07" PRIu64 ".safetensors",
                          i / 100000, i / 100, i);
    mc_entry entry = {.struct_size = sizeof(entry), .url = url, .holders = "", .has_digest = true};
    entry.size = UINT64_C(5000000000) + i;
    entry.fetched_at = entry.checked_at = SINCE_MS + (int64_t)i;
    entry.revision = (uint64_t)entry.fetched_at * 1000;
    entry.validators.last_modified = SINCE_MS / 1000;
    snprintf(entry.validators.etag, sizeof(entry.validators.etag), "\"%016" PRIx64 "-%" PRIx64 "\"", i, entry.size);
    sha256_of(&entry.digest, url, (size_t)length);
    key_of_url(key, url);
    if (share->coordination->ops->publish(share->coordination, key, 0, &entry, &err)) die(url, err.message);
  }
  return NULL;
}

static const mc_coordination_ops *ops_for(const char *location) {
  size_t scheme = strcspn(location, ":+");
  for (const mc_coordination_ops *const *ops = builtin_coordinations; *ops; ops++) {
    if (strncmp((*ops)->name, location, scheme) == 0 && (*ops)->name[scheme] == 0) return *ops;
  }
  die(location, "no coordination has that name in this build");
  return NULL;
}

int main(int count, char **args) {
  unsigned long threads = count == 5 ? strtoul(args[4], NULL, 10) : 0;
  if (threads == 0 || threads > MOST_THREADS) {
    fprintf(stderr, "usage: fill LOCATION BEGIN END THREADS\n");
    return 2;
  }
  uint64_t begin = strtoull(args[2], NULL, 10), end = strtoull(args[3], NULL, 10), total = end - begin;
  const mc_coordination_ops *ops = ops_for(args[1]);
  mc_coordination_config config = {
      .struct_size = sizeof(config), .location = args[1], .member_id = "fill", .lease_ms = 30000};
  mc_coordination *coordination;
  mc_error err = MC_ERROR_INIT;
  if (ops->open(&coordination, &config, &err)) die(args[1], err.message);
  struct share shares[MOST_THREADS];
  double begun = now();
  for (unsigned long i = 0; i < threads; i++) {
    shares[i] = (struct share){coordination, begin + total * i / threads, begin + total * (i + 1) / threads, 0};
    if (pthread_create(&shares[i].thread, NULL, fill, &shares[i])) die("a thread", "can't be started");
  }
  for (unsigned long i = 0; i < threads; i++) pthread_join(shares[i].thread, NULL);
  double seconds = now() - begun;
  /* Else whoever comes would take what is here for what is left of more. */
  if (ops->filled && ops->filled(coordination, &err)) die(args[1], err.message);
  printf("{\"entries\": %" PRIu64 ", \"seconds\": %.6f}\n", total, seconds);
  ops->close(coordination);
  return 0;
}
