#include "keys.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/origin.h"

#define RENEW_MS  300000 /* before they expire; or a quarter of their time, if that is less */
#define FAILED_MS 3000   /* an error is everybody's for this long */
#define REFUSE_MS 1000   /* between two that are dropped */
#define LOOK_MS   50     /* how often who waits for another looks at its own call */

struct holder {
  struct keys keys;
  atomic_uint references;
};

/* ---- keys ---- */

static bool copy(char **out, const char *text) {
  *out = text ? strdup(text) : NULL;
  return *out || !text;
}

struct keys *keys_new(const char *where, const char *id, const char *secret, const char *token, int64_t expires_at) {
  struct holder *holder = calloc(1, sizeof(*holder));
  if (!holder) return NULL;
  struct keys *keys = &holder->keys;
  atomic_init(&holder->references, 1);
  keys->expires_at = expires_at;
  if (copy(&keys->where, where) && copy(&keys->id, id) && copy(&keys->secret, secret) && copy(&keys->token, token)) {
    return keys;
  }
  keys_release(keys);
  return NULL;
}

struct keys *keys_acquire(struct keys *keys) {
  if (keys) atomic_fetch_add(&((struct holder *)keys)->references, 1);
  return keys;
}

void keys_release(struct keys *keys) {
  if (!keys || atomic_fetch_sub(&((struct holder *)keys)->references, 1) != 1) return;
  free(keys->where);
  free(keys->id);
  secret_free(keys->secret);
  secret_free(keys->token);
  free(keys);
}

/* ---- rings ---- */

struct keyring {
  keyring_get get;
  void *user;
  bool lasting;
  pthread_mutex_t lock; /* a leaf */
  pthread_cond_t changed;
  bool had;          /* keys that show something */
  bool getting;      /* a thread is at it, without the lock */
  struct keys *keys; /* or NULL */
  int64_t renew_at;  /* wall clock */
  mc_status status;  /* of the last failure, */
  mc_error error;
  int64_t failed_until; /* which counts until then */
  int64_t refusable_after;
};

struct keyring *keyring_new(keyring_get get, void *user, bool lasting) {
  struct keyring *ring = calloc(1, sizeof(*ring));
  if (!ring) return NULL;
  ring->get = get;
  ring->user = user;
  ring->lasting = lasting;
  pthread_mutex_init(&ring->lock, NULL);
  cond_init(&ring->changed);
  return ring;
}

void keyring_free(struct keyring *ring) {
  if (!ring) return;
  keys_release(ring->keys);
  pthread_cond_destroy(&ring->changed);
  pthread_mutex_destroy(&ring->lock);
  free(ring);
}

static bool usable(const struct keys *keys) {
  return keys && (!keys->expires_at || clock_wall_ms() < keys->expires_at);
}

static bool is_due(const struct keyring *ring) {
  return ring->keys->expires_at && clock_wall_ms() >= ring->renew_at && clock_ns() >= ring->failed_until;
}

/* What was got, which may be that there are none. */
static mc_status look_at(struct keyring *ring, const struct keys *keys, mc_error *err) {
  bool some = keys->secret || keys->token;
  if (ring->lasting && ring->had && !some) {
    return mc_error_set(err, MC_UNAVAILABLE, "keys", "there were credentials, and now none are found: %.200s",
                        keys->where);
  }
  ring->had |= some;
  return MC_OK;
}

/* With the lock held, which is given up meanwhile. */
static void renew(struct keyring *ring, const mc_call *call) {
  struct keys *keys = NULL;
  mc_error error = MC_ERROR_INIT;
  ring->getting = true;
  pthread_mutex_unlock(&ring->lock);
  mc_status status = ring->get(ring->user, &keys, call, &error);
  pthread_mutex_lock(&ring->lock);
  if (!status && (status = look_at(ring, keys, &error))) keys_release(keys);
  ring->getting = false;
  ring->status = status;
  ring->error = error;
  if (!status) {
    keys_release(ring->keys);
    ring->keys = keys;
    int64_t left = keys->expires_at - clock_wall_ms();
    ring->renew_at = keys->expires_at - (left / 4 < RENEW_MS ? left / 4 : RENEW_MS);
    ring->failed_until = 0;
  } else if (status != MC_CANCELLED && status != MC_DEADLINE_EXCEEDED) { /* which are of this call alone */
    ring->failed_until = deadline_in_ms(FAILED_MS);
  }
  pthread_cond_broadcast(&ring->changed);
}

mc_status keyring_keys(struct keyring *ring, struct keys **out, const mc_call *call, mc_error *err) {
  mc_status status = MC_OK;
  bool renewed = false;
  pthread_mutex_lock(&ring->lock);
  for (;;) {
    bool good = usable(ring->keys);
    if (good && (ring->getting || renewed || !is_due(ring))) break;
    if (!ring->getting && (clock_ns() < ring->failed_until || (renewed && ring->status))) {
      status = ring->status;
      if (err) *err = ring->error;
      break;
    }
    if (ring->getting) {
      cond_wait_until(&ring->changed, &ring->lock, deadline_in_ms(LOOK_MS));
      status = mc_call_check(call, err);
      if (status) break;
    } else if (renewed) { /* what was got has expired already */
      status = mc_error_set(err, MC_PERMISSION_DENIED, "keys", "the credentials that were got have expired: %.200s",
                            ring->keys->where);
      break;
    } else {
      renew(ring, call);
      renewed = true;
    }
  }
  if (!status) *out = keys_acquire(ring->keys);
  pthread_mutex_unlock(&ring->lock);
  return status;
}

bool keyring_refuse(struct keyring *ring, const struct keys *keys) {
  int64_t now = clock_ns();
  pthread_mutex_lock(&ring->lock);
  bool others = ring->keys != keys;
  if (!others && now >= ring->refusable_after) {
    keys_release(ring->keys);
    ring->keys = NULL;
    ring->refusable_after = now + REFUSE_MS * NS_PER_MS;
    others = true;
  }
  pthread_mutex_unlock(&ring->lock);
  return others;
}
