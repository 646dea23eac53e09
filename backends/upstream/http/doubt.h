/* Doubts: origins that said what wasn't so, each about one URL, remembered for a while. */
#ifndef UPSTREAM_HTTP_DOUBT_H
#define UPSTREAM_HTTP_DOUBT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <modelcache/types.h>

#define DOUBTS 64

struct doubt {
  mc_hash128 url;
  int64_t until;     /* 0: an empty place */
  bool head, ranges; /* of what HEAD said; of its ranges */
};

struct doubts {
  pthread_mutex_t lock; /* a leaf */
  struct doubt places[DOUBTS];
  unsigned next;
};

void doubts_init(struct doubts *doubts);
void doubts_end(struct doubts *doubts);
struct doubt doubts_about(struct doubts *doubts, const char *url);
/* Of HEAD, and perhaps of ranges. */
void doubts_add(struct doubts *doubts, const char *url, bool ranges);

#endif
