/* This cache as one of several that share a coordination: what it tells the others of itself.
 *
 * Every beat, which is a third of a lease, and two seconds at most, it tells the coordination its document and renews
 * what is known of its memory: that it holds an object is believed for three beats. What came into memory since is told
 * at once, and so is what left it. A thread of its own does that, as a coordination that hangs must hold up nobody. */
#ifndef ENGINE_MEMBER_H
#define ENGINE_MEMBER_H

#include <jansson.h>

#include "engine/engine.h"

#define DOCUMENT_MAX ((size_t)64 << 10) /* what a coordination takes of a member */

struct member;

/* NULL *out: the coordination is not shared. */
mc_status member_new(struct member **out, struct mc_cache *cache, mc_error *err);
/* Leave: nothing is held any more, and the others see this member no longer. NULL is fine. */
void member_free(struct member *member);
/* Whether a beat is due; returns when the next one is. By the clock. NULL is fine, as in all that follows. */
int64_t member_tick(struct member *member, int64_t now);
/* Something has come into memory, or left it. Never blocks. */
void member_kick(struct member *member);
/* The next beat is now. */
void member_beat(struct member *member);

struct member_state {
  bool reachable;   /* the coordination, at the last beat */
  int64_t lost_at;  /* milliseconds since 1970: since when it is not */
  uint64_t members; /* how many there were when they were counted last */
};
void member_state(struct member *member, struct member_state *state);

/* ---- report.c: what is told ---- */

/* The document of this member: see docs/protocol.md. NULL: no memory. */
json_t *report_member(struct mc_cache *cache);
/* The flights that can be joined, at most `most` of them. */
json_t *report_flights(struct mc_cache *cache, size_t most);
/* All members as the coordination knows them, this one too, each with "id" and "age_ms"; *state says how that went. */
json_t *report_members(struct mc_cache *cache, struct member_state *state);

#endif
