/* What tests of the engine share: a cache on fakes in a folder of its own, calls that must succeed, calls that wait. */
#ifndef TESTS_ENGINE_FIXTURE_H
#define TESTS_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <modelcache/modelcache.h>

#include "base/hash.h"
#include "fake_coordination.h"
#include "fake_storage.h"
#include "fake_upstream.h"

#define MIB       ((uint64_t)1 << 20)
#define CHUNK     MC_CHUNK_SIZE
#define URL       "fake://host/file"
#define FILE_NAME "host/file"

struct fixture {
  char folder[64]; /* "/tmp/…", removed at the end */
  char storage[96];
  mc_options options; /* for `open_cache`; a test changes them before */
  mc_cache *cache;
};

/* For cmocka's setup and teardown: *state is the fixture. Nothing is open yet. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
/* Ask fake_second_upstream, too, after fake_upstream. */
void use_two_upstreams(struct fixture *fixture);
void open_cache(struct fixture *fixture);
void close_cache(struct fixture *fixture); /* NULL it, too */

/* Wall-clock time as the library sees it goes on by so much. */
void time_passes(int64_t ms);

/* A get that must succeed, and have the content's bytes. */
mc_file *get(struct fixture *fixture, const char *url, const struct fake_content *content);
/* The same, releasing the file. Whether it was cached. */
bool get_once(struct fixture *fixture, const char *url, const struct fake_content *content);
/* Files of 1 MiB each, "fake://host/0" and on: make so many; the URL of one; get it. */
extern struct fake_content *small_files[16];
void add_small_files(int count);
const char *small_url(char url[64], int i);
void get_small_file(struct fixture *fixture, int i);
/* A get's status. With flags. */
mc_status try_get(struct fixture *fixture, const char *url, uint32_t flags, mc_error *err);
void assert_is(mc_file *file, const struct fake_content *content);
uint64_t stat_of(struct fixture *fixture, const char *name);
void await_stat(struct fixture *fixture, const char *name, uint64_t least);
void key_of(char key[KEY_SIZE], const char *url);
/* A path inside the fixture's folder. */
const char *path_in(struct fixture *fixture, char path[256], const char *name);
void write_byte(const char *path, uint64_t offset, uint8_t flip);
/* The stored object's path. */
const char *object_file(struct fixture *fixture, char path[256], const struct fake_content *content);
/* How many names a folder has. */
unsigned names_in(const char *folder);
void assert_file_is(const char *path, const struct fake_content *content);

/* A call of mc_get_start. */
struct pending {
  mc_request *request;
  bool done;
  mc_status status;
  mc_file *file;
  mc_error error;
  /* What progress told. */
  unsigned reports;
  bool reported; /* since await_reports */
  bool saw_phase[MC_PHASE_VERIFYING + 1];
  bool follows; /* the last one named a download that can be followed */
  mc_progress last;
  char reason[128], endpoint[300];
};

void start_get(struct pending *pending, struct fixture *fixture, const char *url, const mc_get_options *options);
/* The same with progress. */
void start_get_watched(struct pending *pending, struct fixture *fixture, const char *url,
                       const mc_get_options *options);
/* A get as a tree does it, which had this from the listing of the first upstream just now. */
void start_get_listed(struct pending *pending, struct fixture *fixture, const char *url, const mc_listed *listed,
                      uint32_t flags);
/* Wait until it is done, and release the handle; the file stays the caller's. */
mc_status finish_get(struct pending *pending);
bool is_done(struct pending *pending);
/* Wait until progress was told in this phase. */
void await_phase(struct pending *pending, mc_phase phase);
/* Wait until progress is told once more. */
void await_reports(struct pending *pending);
/* Wait until progress names a download that can be followed. */
void await_flight(struct pending *pending);
/* What was told last; its reason is `reason`, of 128 bytes. */
mc_progress last_progress(struct pending *pending, char *reason);

#endif
