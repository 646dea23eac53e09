/* redis: coordination among pods by one Redis.
 *
 *   pool.c      connections for ops, and whether Redis can be reached
 *   news.c      the thread that listens: it connects, finds out that Redis has gone, and dispatches what is told
 *   wait.c      waiting for a claim to end
 *   redis.c     the other ops
 *   scripts.c   what Redis does in one step
 *   messages.c  news and events as JSON
 *
 * What keeps an op from a connection:
 *   trying      nothing is known yet: ops wait for the first try
 *   up          nothing does
 *   doubted     a reply didn't come in time: ops fail until the listener has heard from Redis, or knows it's gone
 *   down        the listener has no connection: ops fail with what it was told */
#ifndef REDIS_REDIS_H
#define REDIS_REDIS_H

#include <pthread.h>

#include <uthash.h>

#include "address.h"
#include "base/hash.h"
#include "link.h"
#include "scripts.h"
#include <modelcache/backend/coordination.h>

#define REDIS_ORIGIN "redis"
#define POOL_SIZE    16

enum redis_state { REDIS_TRYING, REDIS_UP, REDIS_DOUBTED, REDIS_DOWN };

/* A connection of the pool's, made when the listener had connected for that time. */
struct pooled {
  redisContext *link;
  unsigned generation;
};

/* One who waits for a claim to end; on its thread's stack. All but `event` under the lock. */
struct waiter {
  int event;
  uint64_t token;
  int64_t lease_end;
  unsigned heard; /* counts what the claim's owner told since */
  bool ended;
  struct waiter *prev, *next;
};

/*   a key's channel is …  means                                     becomes
 *   wanted                somebody waits                            asked, once the listener gets to it
 *   asked                 SUBSCRIBE was sent                        heard, by its reply
 *   heard                 what is told arrives                      leaving, when nobody waits any more
 *   leaving               UNSUBSCRIBE was sent                      none, by its reply; wanted, if somebody waits again
 * With the connection all are wanted again, or none. */
struct channel {
  char key[KEY_SIZE];
  enum { CHANNEL_WANTED, CHANNEL_ASKED, CHANNEL_HEARD, CHANNEL_LEAVING } state;
  unsigned times;      /* it came to be heard: what was told before that may have been missed */
  mc_claim_news *news; /* what was told last, or NULL */
  uint64_t token;      /* by the owner of that claim */
  unsigned told;       /* counts it */
  struct waiter *waiters;
  UT_hash_handle hh;
};

struct redis {
  mc_coordination base; /* first: callers see no more */
  char member[sizeof(((mc_claim *)0)->owner)];
  int64_t lease_ms;
  struct redis_address address;
  const mc_logger *logger;
  void (*event)(void *user, const mc_coordination_event *event);
  void *user;
  pthread_t thread;
  int wake; /* an eventfd: there is something for the listener to do */

  pthread_mutex_t lock; /* for all that follows; held over nothing that waits */
  pthread_cond_t changed;
  enum redis_state state;
  mc_error why; /* it is down */
  struct link_target target;
  unsigned generation; /* of connections: those of before are not used again */
  struct pooled idle[POOL_SIZE];
  unsigned idle_count, links;
  char shas[SCRIPT_COUNT][41]; /* of scripts; known once it was up */
  bool stop, check, reconnect; /* for the listener: end; see if Redis is there; connect again */
  bool filled;                 /* whether Redis said that it is */
  uint64_t born;               /* when what it knows began, as it said last; 0: it didn't yet */
  bool emptied;                /* it has lost that, which is to be told */
  struct channel *channels;
  bool due; /* some are to be asked for, or left */
};

static inline struct redis *redis_of(mc_coordination *coordination) {
  return (struct redis *)coordination;
}

/* ---- pool.c ---- */

/* Run a script with texts that end with a NULL. *out is its reply, for freeReplyObject. */
mc_status pool_run(redisReply **out, struct redis *self, enum redis_script script, const char *const *args,
                   mc_error *err);
/* Any command. */
mc_status pool_ask(redisReply **out, struct redis *self, const char *const *args, mc_error *err);
/* The state, as the listener finds it; NULL: up. Connections of before are closed. */
void pool_set(struct redis *self, const mc_error *why);
void pool_close(struct redis *self);

/* ---- news.c ---- */

mc_status subscriber_start(struct redis *self, mc_error *err);
void subscriber_stop(struct redis *self);
void subscriber_wake(struct redis *self);
void news_wake_waiter(const struct waiter *waiter);
/* Wait on a key's channel; with the lock held. NULL: no memory. */
struct channel *subscriber_join(struct redis *self, const char *key, struct waiter *waiter);
void subscriber_leave(struct redis *self, struct channel *channel, struct waiter *waiter);

/* ---- wait.c ---- */

mc_status redis_wait(mc_coordination *coordination, const char *key, uint64_t token,
                     void (*news)(void *user, const mc_claim_news *news), void *user, const mc_call *call,
                     mc_error *err);

#endif
