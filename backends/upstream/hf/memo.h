/* What is remembered for a while: a few texts by their keys. */
#ifndef UPSTREAM_HF_MEMO_H
#define UPSTREAM_HF_MEMO_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <modelcache/types.h>

#define MEMOS 64

struct memo {
  mc_hash128 key;
  char *text; /* NULL: an empty place */
  int64_t until;
};

struct memos {
  pthread_mutex_t lock; /* a leaf */
  struct memo places[MEMOS];
  unsigned next;
};

void memos_init(struct memos *memos);
void memos_end(struct memos *memos);
/* In the place of what was there, or of the one that was put longest ago. Without memory nothing is remembered. */
void memos_put(struct memos *memos, const mc_hash128 *key, const char *text, int64_t lives_ms);
/* malloced; NULL: there is none. */
char *memos_get(struct memos *memos, const mc_hash128 *key);
/* Forget it, if it still is `text`. */
void memos_drop(struct memos *memos, const mc_hash128 *key, const char *text);

#endif
