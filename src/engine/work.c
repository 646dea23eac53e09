#include "engine/work.h"

#include <pthread.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"

#define IDLE_MS 10000

/* A thread's slot. Ended ones stay in the list until another start, or the end, joins them. */
struct worker {
  pthread_t thread;
  bool ended;
  struct worker *next;
};

struct work {
  pthread_mutex_t lock;
  pthread_cond_t wake;
  struct work_job *queue;
  struct worker *workers;
  uint32_t threads, most, idle, queued;
  bool closing;
};

struct worker_start {
  struct work *work;
  struct worker *worker;
};

static void *worker_main(void *arg) {
  struct worker_start *start = arg;
  struct work *work = start->work;
  struct worker *self = start->worker;
  free(start);
  pthread_mutex_lock(&work->lock);
  for (;;) {
    int64_t idle_until = clock_ns() + IDLE_MS * NS_PER_MS;
    bool in_time = true;
    work->idle++;
    while (!work->queue && !work->closing && in_time) in_time = cond_wait_until(&work->wake, &work->lock, idle_until);
    work->idle--;
    struct work_job *job = work->queue;
    if (!job) break;
    DL_DELETE(work->queue, job);
    work->queued--;
    pthread_mutex_unlock(&work->lock);
    job->run(job);
    pthread_mutex_lock(&work->lock);
  }
  work->threads--;
  self->ended = true;
  pthread_mutex_unlock(&work->lock);
  return NULL;
}

mc_status work_new(struct work **out, uint32_t threads, mc_error *err) {
  struct work *work = calloc(1, sizeof(*work));
  if (!work) return mc_error_set(err, MC_NO_MEMORY, "engine", "no memory for a thread pool");
  work->most = threads ? threads : 1;
  pthread_mutex_init(&work->lock, NULL);
  cond_init(&work->wake);
  *out = work;
  return MC_OK;
}

/* Join the workers that have ended. With the lock held; an ended worker holds no lock any more but this one. */
static struct worker *take_ended(struct work *work) {
  struct worker *ended = NULL, *worker, *next;
  LL_FOREACH_SAFE(work->workers, worker, next) {
    if (!worker->ended) continue;
    LL_DELETE(work->workers, worker);
    LL_PREPEND(ended, worker);
  }
  return ended;
}

static void join_workers(struct worker *list) {
  struct worker *worker, *next;
  LL_FOREACH_SAFE(list, worker, next) {
    pthread_join(worker->thread, NULL);
    free(worker);
  }
}

/* With the lock held. */
static bool add_worker(struct work *work) {
  struct worker *worker = calloc(1, sizeof(*worker));
  struct worker_start *start = malloc(sizeof(*start));
  if (worker && start) {
    *start = (struct worker_start){work, worker};
    if (pthread_create(&worker->thread, NULL, worker_main, start) == 0) {
      LL_PREPEND(work->workers, worker);
      work->threads++;
      return true;
    }
  }
  free(worker);
  free(start);
  return false;
}

mc_status work_submit(struct work *work, struct work_job *job, mc_error *err) {
  mc_status status = MC_OK;
  pthread_mutex_lock(&work->lock);
  struct worker *ended = take_ended(work);
  bool closing = work->closing; /* a thread that is started now would be joined by nobody */
  if (!closing && work->queued >= work->idle && work->threads < work->most) add_worker(work);
  if (closing) {
    status = mc_error_set(err, MC_CANCELLED, "engine", "the cache is closing");
  } else if (work->threads == 0) {
    status = mc_error_set(err, MC_RESOURCE_EXHAUSTED, "engine", "can't start a thread: raise the limit of threads");
  } else {
    DL_APPEND(work->queue, job);
    work->queued++;
    pthread_cond_signal(&work->wake);
  }
  pthread_mutex_unlock(&work->lock);
  join_workers(ended);
  return status;
}

void work_free(struct work *work) {
  if (!work) return;
  pthread_mutex_lock(&work->lock);
  work->closing = true;
  pthread_cond_broadcast(&work->wake);
  struct worker *workers = work->workers;
  work->workers = NULL;
  pthread_mutex_unlock(&work->lock);
  join_workers(workers);
  pthread_mutex_destroy(&work->lock);
  pthread_cond_destroy(&work->wake);
  free(work);
}
