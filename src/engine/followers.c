/* Following a download: those who read its bytes while they land. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "engine/download.h"

/* Somebody who waits for a chunk. */
struct follower {
  uint32_t chunk;
  void (*wake)(void *arg);
  void *arg;
  struct follower *next;
};

struct follower *followers_take(struct download *d, uint32_t chunk) {
  struct follower *taken = NULL, *follower, *next;
  LL_FOREACH_SAFE(d->followers, follower, next) {
    if (chunk != UINT32_MAX && follower->chunk != chunk) continue;
    LL_DELETE(d->followers, follower);
    LL_PREPEND(taken, follower);
  }
  if (taken) d->waking++;
  return taken;
}

void followers_wake(struct download *d, struct follower *taken) {
  if (!taken) return;
  struct follower *follower, *next;
  LL_FOREACH_SAFE(taken, follower, next) {
    follower->wake(follower->arg);
    free(follower);
  }
  pthread_mutex_lock(&d->lock);
  d->waking--;
  pthread_cond_broadcast(&d->changed);
  pthread_mutex_unlock(&d->lock);
}

int download_view(struct download *d, uint32_t *version) {
  pthread_mutex_lock(&d->lock);
  int fd = d->ended || d->view < 0 ? -1 : fcntl(d->view, F_DUPFD_CLOEXEC, 0);
  *version = d->version;
  pthread_mutex_unlock(&d->lock);
  return fd;
}

mc_status download_ready(struct download *d, uint32_t version, uint64_t offset, uint64_t *bytes,
                         void (*wake)(void *arg), void *arg, mc_error *err) {
  mc_status status = MC_OK;
  uint64_t most = *bytes, end = offset;
  *bytes = 0;
  pthread_mutex_lock(&d->lock);
  while (version == d->version && end - offset < most && end / MC_CHUNK_SIZE < d->count &&
         download_state(d, (uint32_t)(end / MC_CHUNK_SIZE)) == CHUNK_LANDED) {
    end = (end / MC_CHUNK_SIZE + 1) * MC_CHUNK_SIZE;
  }
  if (d->size != MC_SIZE_UNKNOWN && end > d->size) end = d->size;
  if (version != d->version) {
    status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the content changed while it was downloaded; ask again");
  } else if (end > offset) {
    *bytes = end - offset < most ? end - offset : most;
  } else if (d->ended && !d->succeeded) {
    status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the download has failed; ask again");
  } else if (!d->ended) {
    struct follower *follower = malloc(sizeof(*follower));
    if (follower) {
      *follower = (struct follower){(uint32_t)(offset / MC_CHUNK_SIZE), wake, arg, NULL};
      LL_PREPEND(d->followers, follower);
    } else {
      status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to follow a download");
    }
  }
  pthread_mutex_unlock(&d->lock);
  return status;
}

void download_unwatch(struct download *d, void *arg) {
  struct follower *follower, *next;
  pthread_mutex_lock(&d->lock);
  bool found = false;
  LL_FOREACH_SAFE(d->followers, follower, next) {
    if (follower->arg != arg) continue;
    LL_DELETE(d->followers, follower);
    free(follower);
    found = true;
  }
  while (!found && d->waking) pthread_cond_wait(&d->changed, &d->lock);
  pthread_mutex_unlock(&d->lock);
}
