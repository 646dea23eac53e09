#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <utlist.h>

#include "control.h"

#define TICK_NS    (10 * 1000000ll) /* between two looks, while there is something to look at */
#define MAX_GROWTH ((uint64_t)32 << 20)
#define CALL_COST  ((uint64_t)32 << 10) /* of each honest call that began meanwhile, when thousands come at once */

struct guard {
  void (*end)(struct guarded *guarded);
  pthread_mutex_t lock;
  pthread_cond_t wake;
  pthread_t thread;
  struct guarded *list;
  uint64_t begun; /* that count, so far */
  bool stopping, idle;
  int statm;
};

/* Bytes of the process's own memory: without mapped files and the memory tier. */
static uint64_t memory_in_use(struct guard *guard) {
  char text[128] = "";
  unsigned long long resident = 0, shared = 0;
  if (guard->statm < 0 || pread(guard->statm, text, sizeof(text) - 1, 0) <= 0) return 1;
  if (sscanf(text, "%*u %llu %llu", &resident, &shared) != 2 || shared > resident) return 1;
  return (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) + 1;
}

/* With the lock held. Returns what the process uses now; `before`: at the last look. */
static uint64_t look(struct guard *guard, uint64_t before) {
  struct guarded *guarded, *next;
  uint64_t memory = memory_in_use(guard);
  int64_t now = monotonic_ns();
  DL_FOREACH_SAFE(guard->list, guarded, next) {
    if (!guarded->memory) guarded->memory = before; /* what it was when it began, or a moment earlier */
    uint64_t most = guarded->memory + MAX_GROWTH + (guard->begun - guarded->begun) * CALL_COST;
    bool grows = guarded->counts && memory > most;
    if (!grows && now < guarded->until) continue;
    DL_DELETE(guard->list, guarded);
    guarded->listed = false;
    guard->end(guarded);
  }
  return memory;
}

static void *guard_main(void *arg) {
  struct guard *guard = arg;
  pthread_mutex_lock(&guard->lock);
  while (!guard->stopping) {
    guard->idle = true;
    while (!guard->list && !guard->stopping) pthread_cond_wait(&guard->wake, &guard->lock);
    guard->idle = false;
    uint64_t memory = memory_in_use(guard);
    while (guard->list && !guard->stopping) {
      int64_t at = monotonic_ns() + TICK_NS;
      struct timespec until = {at / 1000000000, at % 1000000000};
      pthread_cond_timedwait(&guard->wake, &guard->lock, &until);
      memory = look(guard, memory);
    }
  }
  pthread_mutex_unlock(&guard->lock);
  return NULL;
}

struct guard *guard_new(void (*end)(struct guarded *guarded)) {
  struct guard *guard = calloc(1, sizeof(*guard));
  pthread_condattr_t attributes;
  if (!guard) return NULL;
  guard->end = end;
  guard->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_mutex_init(&guard->lock, NULL);
  pthread_cond_init(&guard->wake, &attributes);
  pthread_condattr_destroy(&attributes);
  if (pthread_create(&guard->thread, NULL, guard_main, guard) == 0) return guard;
  guard->thread = 0;
  guard_free(guard);
  return NULL;
}

void guard_enter(struct guard *guard, struct guarded *guarded, int64_t ms, bool counts) {
  pthread_mutex_lock(&guard->lock);
  guarded->until = monotonic_ns() + ms * 1000000;
  guarded->memory = 0;
  guarded->counts = counts;
  guard->begun += counts;
  guarded->begun = guard->begun;
  if (!guarded->listed) DL_APPEND(guard->list, guarded);
  guarded->listed = true;
  if (guard->idle) pthread_cond_signal(&guard->wake);
  pthread_mutex_unlock(&guard->lock);
}

void guard_leave(struct guard *guard, struct guarded *guarded) {
  pthread_mutex_lock(&guard->lock);
  if (guarded->listed) DL_DELETE(guard->list, guarded);
  guarded->listed = false;
  pthread_mutex_unlock(&guard->lock);
}

void guard_free(struct guard *guard) {
  if (!guard) return;
  pthread_mutex_lock(&guard->lock);
  guard->stopping = true;
  pthread_cond_signal(&guard->wake);
  pthread_mutex_unlock(&guard->lock);
  if (guard->thread) pthread_join(guard->thread, NULL);
  if (guard->statm >= 0) close(guard->statm);
  pthread_mutex_destroy(&guard->lock);
  pthread_cond_destroy(&guard->wake);
  free(guard);
}
