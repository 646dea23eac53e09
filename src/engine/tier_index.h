/* A tier's inside: what tier.c (opening and changing objects) and space.c (budget and time) share. All functions here
 * are called with tier->lock held.
 *
 * The storage's objects are changed by ops that run without the lock. Whoever commits, removes or takes back an object
 * holds a `change` on its digest meanwhile, so that an eviction under way never removes what has just been committed.
 */
#ifndef ENGINE_TIER_INDEX_H
#define ENGINE_TIER_INDEX_H

#include <pthread.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "engine/tier.h"
#include "engine/verify.h"

#define ORIGIN "tier" /* of messages */

struct slot {
  struct object object; /* fd and table only while open */
  struct stamp verified;
  bool is_verified, damaged, doomed;
  bool gone; /* out of the index; freed by the last reader */
  bool idle; /* in tier->idle */
  uint32_t readers;
  int references, pins;     /* of entries: see struct reference */
  int64_t used_at;          /* wall-clock milliseconds */
  uint32_t seen;            /* the rescan that found it last, or in which it came */
  int64_t got_at;           /* see object_got_again; 0: never */
  struct slot *prev, *next; /* tier->idle */
  UT_hash_handle hh;
};

/* How many entries need a digest, also while its object is not there: an entry outlives an object that was evicted, or
 * found damaged, and comes again. */
struct reference {
  mc_digest digest;
  int references, pins;
  UT_hash_handle hh;
};

/* On the stack of the thread that makes it. */
struct change {
  mc_digest digest;
  struct change *next;
};

struct tier {
  mc_storage *storage;
  struct tier_config config;
  pthread_mutex_t lock;
  pthread_cond_t changed; /* a change is over */
  struct slot *slots;     /* by digest */
  struct slot *idle;      /* those that may be evicted: no reader, no pin; the least recently used first */
  struct change *changes;
  struct reference *references; /* by digest */
  uint64_t removals;            /* counts them, for those who looked at the storage without the lock */
  uint64_t bytes, idle_bytes, reserved, open;
  bool shared, ignorant; /* see tier_share: others write to the storage; what is needed is not known yet */
  bool doubted;          /* see tier_doubt */
  uint32_t rescans;
  uint32_t users; /* the owner, those of tier_acquire, and every open slot */
};

struct slot *index_find(struct tier *tier, const mc_digest *digest);
/* NULL: no memory. */
struct slot *index_insert(struct tier *tier, const mc_digest *digest, uint64_t size, int64_t used_at);
/* Count the entries that need a digest. Those of its slot, if it has one, are told, too. */
void index_refer(struct tier *tier, const mc_digest *digest, int references, int pins);
/* NULL: no entry needs it. */
struct reference *index_reference(struct tier *tier, const mc_digest *digest);
/* Out of the index; frees it unless it has readers. */
void index_drop(struct tier *tier, struct slot *slot);
/* Put a slot into the idle list, at its end, or take it out, as its readers and pins want. */
void index_settle(struct tier *tier, struct slot *slot);

/* Put an idle slot where its time of use belongs, from the end. */
void index_place(struct tier *tier, struct slot *slot);

/* What scan would report of an object. Without the lock. */
mc_status storage_look(mc_storage *storage, const mc_digest *digest, mc_stored *out, mc_error *err);

bool change_runs(const struct tier *tier, const mc_digest *digest);
/* Waits for another change of the same digest. */
void change_begin(struct tier *tier, struct change *change, const mc_digest *digest);
void change_end(struct tier *tier, struct change *change);

/* Remove a slot that has no readers, and its bytes. Lets go of the lock meanwhile; no change of its digest runs. */
mc_status index_remove(struct tier *tier, struct slot *slot, mc_error *err);

#endif
