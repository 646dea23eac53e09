/* A tier whose storage others write to, too: the index learns what came and what has gone.
 *
 * It is a picture of a little while ago. Whoever opens what it lacks finds it all the same, and who evicts looks at his
 * victim first, so that nothing depends on it but the sums. */
#include <stdlib.h>
#include <unistd.h>

#include "engine/tier_index.h"

#define LOOK_MOST 4096 /* objects looked after at a time */

void tier_share(struct tier *tier) {
  tier->shared = tier->ignorant = true;
}

void tier_know(struct tier *tier) {
  pthread_mutex_lock(&tier->lock);
  tier->ignorant = false;
  pthread_mutex_unlock(&tier->lock);
}

void tier_doubt(struct tier *tier, bool doubt) {
  pthread_mutex_lock(&tier->lock);
  tier->doubted = doubt;
  pthread_mutex_unlock(&tier->lock);
}

bool tier_knows(struct tier *tier) {
  pthread_mutex_lock(&tier->lock);
  bool knows = !tier->ignorant;
  pthread_mutex_unlock(&tier->lock);
  return knows;
}

mc_status storage_look(mc_storage *storage, const mc_digest *digest, mc_stored *out, mc_error *err) {
  if (storage->ops->look) return storage->ops->look(storage, digest, out, err);
  int fd;
  *out = (mc_stored){.digest = *digest}; /* when it was used is not known */
  mc_status status = storage->ops->open_object(storage, digest, &fd, &out->size, err);
  if (!status) close(fd);
  return status;
}

/* With the lock held. What is removed or committed at this moment, or was removed since the storage was looked at
 * (`removals` tells), is left as it is: who does that tells the index. */
static void note(struct tier *tier, const mc_stored *stored, mc_status status, uint64_t removals) {
  struct slot *slot = index_find(tier, &stored->digest);
  if (slot) slot->seen = tier->rescans;
  if (change_runs(tier, &stored->digest)) return;
  if (status == MC_NOT_FOUND && slot && !slot->readers) {
    index_drop(tier, slot);
  } else if (!status && slot && !slot->readers && stored->used_at > slot->used_at) {
    slot->used_at = stored->used_at; /* its place is mended once it is its turn: see space.c */
  } else if (!status && !slot && tier->removals == removals) {
    slot = index_insert(tier, &stored->digest, stored->size, stored->used_at);
    if (slot && slot->idle) index_place(tier, slot);
  }
}

void tier_look(struct tier *tier, const mc_digest *digest) {
  mc_stored stored;
  pthread_mutex_lock(&tier->lock);
  uint64_t removals = tier->removals;
  pthread_mutex_unlock(&tier->lock);
  mc_status status = storage_look(tier->storage, digest, &stored, NULL);
  stored.digest = *digest;
  pthread_mutex_lock(&tier->lock);
  note(tier, &stored, status, removals);
  pthread_mutex_unlock(&tier->lock);
}

struct rescan {
  struct tier *tier;
  uint64_t removals; /* when it began */
  bool (*go_on)(void *user);
  void *user;
  bool cut;
};

static bool note_scanned(void *user, const mc_stored *stored) {
  struct rescan *rescan = user;
  struct tier *tier = rescan->tier;
  pthread_mutex_lock(&tier->lock);
  bool late = tier->removals != rescan->removals && !index_find(tier, &stored->digest);
  if (!late) note(tier, stored, MC_OK, rescan->removals);
  pthread_mutex_unlock(&tier->lock);
  if (late) tier_look(tier, &stored->digest); /* it may be what was removed meanwhile */
  rescan->cut = !rescan->go_on(rescan->user);
  return !rescan->cut;
}

/* Some of those that the scan did not find; each is told once. With the lock held. */
static size_t take_unseen(struct tier *tier, mc_digest *list, uint32_t scan) {
  size_t count = 0;
  for (struct slot *slot = tier->slots; slot && count < LOOK_MOST; slot = slot->hh.next) {
    if (slot->seen >= scan || slot->readers) continue;
    slot->seen = scan;
    list[count++] = slot->object.digest;
  }
  return count;
}

mc_status tier_rescan(struct tier *tier, bool (*go_on)(void *user), void *user, mc_error *err) {
  struct rescan rescan = {.tier = tier, .go_on = go_on, .user = user};
  mc_digest *list = malloc(LOOK_MOST * sizeof(*list));
  if (!list) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to look through the storage");
  pthread_mutex_lock(&tier->lock);
  uint32_t scan = ++tier->rescans;
  rescan.removals = tier->removals;
  pthread_mutex_unlock(&tier->lock);
  mc_status status = tier->storage->ops->scan(tier->storage, note_scanned, &rescan, err);
  for (size_t count = LOOK_MOST; count == LOOK_MOST && !status && !rescan.cut;) {
    pthread_mutex_lock(&tier->lock);
    count = take_unseen(tier, list, scan);
    pthread_mutex_unlock(&tier->lock);
    for (size_t i = 0; i < count && !rescan.cut; i++) {
      tier_look(tier, &list[i]);
      rescan.cut = !go_on(user);
    }
  }
  free(list);
  if (!status && rescan.cut) status = mc_error_set(err, MC_CANCELLED, ORIGIN, "the storage was not looked through");
  return status;
}
