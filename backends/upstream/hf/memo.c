#include "memo.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/clock.h"
#include "base/hash.h"

void memos_init(struct memos *memos) {
  *memos = (struct memos){0};
  pthread_mutex_init(&memos->lock, NULL);
}

/* Links are as good as credentials, for a while. */
static void clear(struct memo *memo) {
  if (memo->text) OPENSSL_cleanse(memo->text, strlen(memo->text));
  free(memo->text);
  memo->text = NULL;
}

void memos_end(struct memos *memos) {
  for (unsigned i = 0; i < MEMOS; i++) clear(&memos->places[i]);
  pthread_mutex_destroy(&memos->lock);
}

static struct memo *find(struct memos *memos, const mc_hash128 *key) {
  for (unsigned i = 0; i < MEMOS; i++) {
    if (memos->places[i].text && hash128_equal(&memos->places[i].key, key)) return &memos->places[i];
  }
  return NULL;
}

void memos_put(struct memos *memos, const mc_hash128 *key, const char *text, int64_t lives_ms) {
  char *copy = strdup(text);
  if (!copy) return;
  pthread_mutex_lock(&memos->lock);
  struct memo *memo = find(memos, key);
  if (!memo) memo = &memos->places[memos->next++ % MEMOS];
  clear(memo);
  *memo = (struct memo){*key, copy, deadline_in_ms(lives_ms)};
  pthread_mutex_unlock(&memos->lock);
}

char *memos_get(struct memos *memos, const mc_hash128 *key) {
  pthread_mutex_lock(&memos->lock);
  struct memo *memo = find(memos, key);
  if (memo && memo->until <= clock_ns()) clear(memo);
  char *text = memo && memo->text ? strdup(memo->text) : NULL;
  pthread_mutex_unlock(&memos->lock);
  return text;
}

void memos_drop(struct memos *memos, const mc_hash128 *key, const char *text) {
  pthread_mutex_lock(&memos->lock);
  struct memo *memo = find(memos, key);
  if (memo && strcmp(memo->text, text) == 0) clear(memo);
  pthread_mutex_unlock(&memos->lock);
}
