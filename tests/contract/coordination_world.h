/* What the suites of the coordination contract stand on: two members of one coordination, and what they are told. */
#ifndef TESTS_COORDINATION_WORLD_H
#define TESTS_COORDINATION_WORLD_H

/* What cmocka.h wants to be there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/hash.h"
#include <modelcache/backend/coordination.h>

#define LONG_MS     (60 * 1000) /* a lease that does not run out while a test runs */
#define SHORT_MS    250         /* one that does */
#define PATIENCE_MS (20 * 1000) /* what passes it has been forgotten */
#define THREADS     8
#define URL_SIZE    128

struct place {
  const char *name;
  const mc_coordination_ops *ops;
  const char *location;
  int redis; /* enum redis_place, or -1 */
};

/* What a member was told: how often each kind, and the last entry. */
struct recorder {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  unsigned counts[MC_EVENT_EMPTY + 1];
  mc_entry *before, *now;
};

struct world {
  const struct place *place;
  const mc_coordination_ops *ops;
  mc_coordination *a, *b; /* two members; the same where there is only one process */
  struct recorder told_a, told_b;
  unsigned serial, files;
};

struct waiter {
  mc_coordination *member;
  const char *key;
  uint64_t token;
  mc_call call;
  mc_status status;
  atomic_bool returned;
  pthread_t thread;
};

/* Before and after each test: what it opened must be closed by then. */
int world_set_up(void **state);
int world_tear_down(void **state);
mc_status try_open(mc_coordination **out, const struct world *world, struct recorder *recorder, const char *member,
                   int64_t lease_ms, uint64_t max_entries);
void open_members(struct world *world, int64_t lease_ms, uint64_t max_entries);

/* For mc_coordination_config; how often it was told so far; until it was told so often. */
void record_event(void *user, const mc_coordination_event *event);
unsigned told(struct recorder *recorder, mc_coordination_event_kind kind);
void await_told(struct recorder *recorder, mc_coordination_event_kind kind, unsigned count);

const char *url_of(char url[URL_SIZE], const struct world *world, const char *name);
const char *key_of(char key[KEY_SIZE], const struct world *world, const char *name);
mc_entry entry_of(const char *url, uint64_t size);
bool entry_is(const mc_entry *entry, const char *url, uint64_t size);
mc_status publish(mc_coordination *member, const struct world *world, const char *name, uint64_t token, uint64_t size);
/* The size in the entry, or 0 if there is none. */
uint64_t known_size(mc_coordination *member, const struct world *world, const char *name);
mc_claim claim(mc_coordination *member, const char *key);
mc_call patient(void);
mc_status wait_for(mc_coordination *member, const char *key, uint64_t token);
void waiter_start(struct waiter *waiter);
mc_status waiter_end(struct waiter *waiter);
/* Let time pass: a wait that ends by its deadline. */
void pass(mc_coordination *member, const char *key, uint64_t token, int64_t ms);

/* The other suites: for all, for those that other processes take part in, for one that can be lost. */
int run_news(const struct place *place);
int run_shared(const struct place *place);
int run_lost(const struct place *place);

#endif
