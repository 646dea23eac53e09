/* What the suites of the transport contract stand on: a listener over a fake exporter, and reads into memory. */
#ifndef TESTS_TRANSPORT_WORLD_H
#define TESTS_TRANSPORT_WORLD_H

/* What cmocka.h wants to be there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>

#include "fake_exporter.h"

#define SIZE        (3 * MC_CHUNK_SIZE + 12345)
#define STALL_MS    150 /* of the tests in which somebody stalls */
#define PATIENCE_MS 20000

extern const mc_call no_limits;

struct world {
  const mc_transport_ops *ops;
  mc_transport_config config;
  mc_transport *transport;
  mc_listener *listener;
  struct fake_exporter fake;
  struct fake_content *object; /* SIZE bytes */
  unsigned files, threads;     /* that were there before */
};

/* Before and after each test: what it opened must be closed by then. */
int world_set_up(void **state);
int world_tear_down(void **state);
/* Begin to serve, once a test has set the configuration as it wants it. */
void serve(struct world *world);
void stop(struct world *world, int64_t drain_ms);
mc_connection *dial(struct world *world);
mc_connection *dial_to(struct world *world, const char *endpoint);
void hang_up(struct world *world, mc_connection *connection);

/* A read and the sink it fills. */
struct get {
  mc_sink sink; /* first */
  struct world *world;
  mc_connection *connection;
  mc_content content;
  mc_call call;
  uint64_t begin;
  uint8_t *buffer; /* `room` bytes, where `begin` goes; beyond them bytes are counted and lost */
  uint64_t room;
  size_t most;      /* that `space` gives at once */
  uint64_t hook_at; /* when the offset reaches it, `hook` is called, once */
  void (*hook)(void *arg);
  void *hook_arg;
  uint64_t fail_at; /* `advance` fails from there on */
  uint8_t scrap[4096];
  pthread_t thread;
  mc_status status;
  mc_error err;
};

/* Of [begin, end) of a content; end MC_SIZE_UNKNOWN: as far as it goes. */
struct get *get_new(struct world *world, mc_connection *connection, const struct fake_content *content, uint64_t begin,
                    uint64_t end);
void get_free(struct get *get);
/* Read here, or in a thread of its own. */
mc_status get_run(struct get *get);
void get_start(struct get *get);
/* Whether the read ends within so many milliseconds. */
bool get_ends(struct get *get, int64_t ms);
mc_status get_join(struct get *get);

/* What has been read is what the content has. */
void assert_bytes(const struct get *get, const struct fake_content *content);
/* Read a range and check it. `most`: how much the sink takes at once. */
void assert_reads(struct world *world, mc_connection *connection, const struct fake_content *content, uint64_t begin,
                  uint64_t end, size_t most);
void assert_fails(struct world *world, const struct fake_content *content, uint64_t begin, uint64_t end,
                  mc_status status);

/* One test of a suite. */
#define TEST(name) cmocka_unit_test_prestate_setup_teardown(name, world_set_up, world_tear_down, world)

/* transport_peers.c: those that fail, cut, stall and talk nonsense. Returns how many tests failed. */
int transport_peers(struct world *world);

#endif
