#include "engine/ledger.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/clock.h"
#include "engine/tier.h"

#define KEY_BYTES      16    /* of a key's 32: enough that no two URLs have the same */
#define FORGOTTEN_MOST 65536 /* remembered, so that what was told before comes too late; then all are dropped */

/* What is known of a URL, in 128 bytes of memory. */
struct known {
  uint8_t key[KEY_BYTES];
  mc_digest digest;
  uint64_t revision;
  uint32_t count; /* the recount in which it was told last */
  bool refers, pinned;
  bool forgotten;
  UT_hash_handle hh;
};

struct ledger {
  struct tier *tier;
  pthread_mutex_t lock;
  pthread_cond_t ended; /* a recount */
  struct known *known;
  uint32_t count, forgotten;
  bool counting;
};

mc_status ledger_new(struct ledger **out, struct tier *tier, mc_error *err) {
  struct ledger *ledger = calloc(1, sizeof(*ledger));
  if (!ledger) return mc_error_set(err, MC_NO_MEMORY, "engine", "no memory for entries");
  ledger->tier = tier;
  pthread_mutex_init(&ledger->lock, NULL);
  cond_init(&ledger->ended);
  *out = ledger;
  return MC_OK;
}

void ledger_free(struct ledger *ledger) {
  struct known *known, *next;
  if (!ledger) return;
  HASH_ITER(hh, ledger->known, known, next) {
    HASH_DEL(ledger->known, known);
    free(known);
  }
  pthread_mutex_destroy(&ledger->lock);
  pthread_cond_destroy(&ledger->ended);
  free(ledger);
}

/* ---- all with the lock held ---- */

static int nibble(char digit) {
  return digit <= '9' ? digit - '0' : digit - 'a' + 10;
}

static struct known *find(struct ledger *ledger, uint8_t bytes[KEY_BYTES], const char *key) {
  struct known *known;
  for (int i = 0; i < KEY_BYTES; i++) bytes[i] = (uint8_t)(nibble(key[2 * i]) << 4 | nibble(key[2 * i + 1]));
  HASH_FIND(hh, ledger->known, bytes, KEY_BYTES, known);
  return known;
}

/* NULL: no memory. */
static struct known *find_or_add(struct ledger *ledger, const char *key) {
  uint8_t bytes[KEY_BYTES];
  struct known *known = find(ledger, bytes, key);
  if (known) return known;
  known = calloc(1, sizeof(*known));
  if (!known) return NULL;
  memcpy(known->key, bytes, KEY_BYTES);
  known->count = ledger->count - 1; /* anything is newer */
  unsigned before = HASH_COUNT(ledger->known);
  HASH_ADD(hh, ledger->known, key, KEY_BYTES, known);
  if (HASH_COUNT(ledger->known) > before) return known;
  free(known);
  return NULL;
}

/* It needs this object from now on, or none. The new one first: it may be the same. */
static void point(struct ledger *ledger, struct known *known, const mc_digest *digest, bool pinned) {
  mc_digest before = known->digest;
  bool referred = known->refers, was_pinned = known->pinned;
  known->refers = digest != NULL;
  known->pinned = digest && pinned;
  if (digest) {
    known->digest = *digest;
    tier_refer(ledger->tier, digest, 1, pinned);
  }
  if (referred) tier_refer(ledger->tier, &before, -1, -(int)was_pinned);
}

static void drop(struct ledger *ledger, struct known *known) {
  point(ledger, known, NULL, false);
  ledger->forgotten -= known->forgotten;
  HASH_DEL(ledger->known, known);
  free(known);
}

/* What was told in another recount, and what is not newer, gives way. */
static bool gives_way(const struct ledger *ledger, const struct known *known, uint64_t revision) {
  return known->count != ledger->count || known->revision <= revision;
}

static void tell(struct ledger *ledger, struct known *known, uint64_t revision, bool forgotten) {
  ledger->forgotten += forgotten - known->forgotten;
  known->forgotten = forgotten;
  known->revision = revision;
  known->count = ledger->count;
}

static void drop_forgotten(struct ledger *ledger) {
  struct known *known, *next;
  HASH_ITER(hh, ledger->known, known, next) {
    if (known->forgotten) drop(ledger, known);
  }
}

/* ---- what is known ---- */

bool ledger_set(struct ledger *ledger, const char *key, const mc_entry *entry) {
  bool other = false;
  pthread_mutex_lock(&ledger->lock);
  struct known *known = find_or_add(ledger, key);
  if (known && gives_way(ledger, known, entry->revision)) {
    other =
        known->refers != entry->has_digest || (entry->has_digest && !mc_digest_equal(&known->digest, &entry->digest));
    tell(ledger, known, entry->revision, false);
    point(ledger, known, entry->has_digest ? &entry->digest : NULL, entry->pinned);
  }
  /* Without memory to take it back later: rather kept too long than lost. */
  if (!known && entry->has_digest) tier_refer(ledger->tier, &entry->digest, 1, 0);
  pthread_mutex_unlock(&ledger->lock);
  return other;
}

bool ledger_forget(struct ledger *ledger, const char *key, uint64_t revision) {
  bool other = false;
  pthread_mutex_lock(&ledger->lock);
  struct known *known = find_or_add(ledger, key);
  if (known && gives_way(ledger, known, revision)) {
    other = known->refers;
    tell(ledger, known, revision, true);
    point(ledger, known, NULL, false);
  }
  if (ledger->forgotten > FORGOTTEN_MOST && !ledger->counting) drop_forgotten(ledger);
  pthread_mutex_unlock(&ledger->lock);
  return other;
}

/* ---- recounts ---- */

bool ledger_begin(struct ledger *ledger, int64_t deadline) {
  bool in_time = true;
  pthread_mutex_lock(&ledger->lock);
  while (ledger->counting && in_time) in_time = cond_wait_until(&ledger->ended, &ledger->lock, deadline);
  bool begun = !ledger->counting;
  if (begun) {
    ledger->counting = true;
    ledger->count++;
  }
  pthread_mutex_unlock(&ledger->lock);
  return begun;
}

void ledger_end(struct ledger *ledger, bool whole) {
  struct known *known, *next;
  pthread_mutex_lock(&ledger->lock);
  HASH_ITER(hh, ledger->known, known, next) {
    if (whole && (known->count != ledger->count || known->forgotten)) drop(ledger, known);
  }
  ledger->counting = false;
  pthread_cond_broadcast(&ledger->ended);
  pthread_mutex_unlock(&ledger->lock);
}

enum ledger_says ledger_compare(struct ledger *ledger, const char *key, const mc_entry *entry) {
  uint8_t bytes[KEY_BYTES];
  enum ledger_says says = LEDGER_NOTHING;
  pthread_mutex_lock(&ledger->lock);
  const struct known *known = find(ledger, bytes, key);
  if (known && known->count == ledger->count) says = known->revision < entry->revision ? LEDGER_OLDER : LEDGER_SAME;
  pthread_mutex_unlock(&ledger->lock);
  return says;
}
