#include "jobs.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include <utlist.h>

#define MAX_WAITING    4096 /* of one lane */
#define MAX_PER_ORIGIN 8    /* of the upstream lane's threads: a dead origin holds no more than these */
#define MAX_THREADS    32

static const uint32_t lane_threads[LANE_COUNT] = {
    [LANE_LOCAL] = 4, [LANE_LISTS] = 8, [LANE_REPAIRS] = 1, [LANE_UPSTREAM] = MAX_THREADS};

struct lane_state {
  pthread_cond_t wake;
  struct job *waiting;
  uint32_t count;
  bool busy[MAX_THREADS];       /* by thread */
  uint64_t origin[MAX_THREADS]; /* of its job, which may be gone before the thread says so */
  pthread_t threads[MAX_THREADS];
  uint32_t thread_count, idle;
};

struct jobs {
  pthread_mutex_t lock;
  pthread_cond_t ended;
  struct lane_state lanes[LANE_COUNT];
  uint32_t alive; /* threads that have not ended */
  bool stopping;
};

struct start {
  struct jobs *jobs;
  enum lane lane;
  uint32_t number;
};

struct jobs *jobs_new(void) {
  struct jobs *jobs = calloc(1, sizeof(*jobs));
  pthread_condattr_t attributes;
  if (!jobs) return NULL;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_mutex_init(&jobs->lock, NULL);
  for (int lane = 0; lane < LANE_COUNT; lane++) pthread_cond_init(&jobs->lanes[lane].wake, NULL);
  pthread_cond_init(&jobs->ended, &attributes);
  pthread_condattr_destroy(&attributes);
  return jobs;
}

/* Whether the job's origin has its share of the threads already. */
static bool must_wait(const struct lane_state *lane, const struct job *job) {
  uint32_t same = 0;
  if (job->lane != LANE_UPSTREAM) return false;
  for (uint32_t i = 0; i < lane->thread_count; i++) same += lane->busy[i] && lane->origin[i] == job->origin;
  return same >= MAX_PER_ORIGIN;
}

/* The first job that may run now, or NULL. */
static struct job *take(struct lane_state *lane) {
  struct job *job;
  DL_FOREACH(lane->waiting, job) {
    if (must_wait(lane, job)) continue;
    DL_DELETE(lane->waiting, job);
    lane->count--;
    return job;
  }
  return NULL;
}

static void *thread_main(void *arg) {
  struct start start = *(struct start *)arg;
  struct jobs *jobs = start.jobs;
  struct lane_state *lane = &jobs->lanes[start.lane];
  free(arg);
  pthread_mutex_lock(&jobs->lock);
  for (;;) {
    struct job *job = take(lane);
    if (job) {
      lane->busy[start.number] = true;
      lane->origin[start.number] = job->origin;
      pthread_mutex_unlock(&jobs->lock);
      job->run(job);
      pthread_mutex_lock(&jobs->lock);
      lane->busy[start.number] = false;
      continue;
    }
    if (jobs->stopping && !lane->waiting) break;
    lane->idle++;
    pthread_cond_wait(&lane->wake, &jobs->lock);
    lane->idle--;
  }
  pthread_cond_broadcast(&lane->wake); /* the others look whether they may end */
  jobs->alive--;
  pthread_cond_signal(&jobs->ended);
  pthread_mutex_unlock(&jobs->lock);
  return NULL;
}

/* With the lock held. */
static void add_thread(struct jobs *jobs, enum lane name) {
  struct lane_state *lane = &jobs->lanes[name];
  struct start *start = malloc(sizeof(*start));
  if (!start) return;
  *start = (struct start){jobs, name, lane->thread_count};
  if (pthread_create(&lane->threads[lane->thread_count], NULL, thread_main, start)) {
    free(start);
    return;
  }
  lane->thread_count++;
  jobs->alive++;
}

bool jobs_submit(struct jobs *jobs, struct job *job) {
  pthread_mutex_lock(&jobs->lock);
  struct lane_state *lane = &jobs->lanes[job->lane];
  bool takes = lane->count < MAX_WAITING && !jobs->stopping;
  if (takes && lane->idle <= lane->count && lane->thread_count < lane_threads[job->lane]) add_thread(jobs, job->lane);
  takes = takes && lane->thread_count > 0;
  if (takes) {
    DL_APPEND(lane->waiting, job);
    lane->count++;
    pthread_cond_signal(&lane->wake);
  }
  pthread_mutex_unlock(&jobs->lock);
  return takes;
}

bool jobs_stop(struct jobs *jobs, int64_t deadline) {
  struct timespec until = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
  pthread_mutex_lock(&jobs->lock);
  jobs->stopping = true;
  for (int lane = 0; lane < LANE_COUNT; lane++) pthread_cond_broadcast(&jobs->lanes[lane].wake);
  int error = 0;
  while (jobs->alive && !error) error = pthread_cond_timedwait(&jobs->ended, &jobs->lock, &until);
  bool ended = jobs->alive == 0;
  pthread_mutex_unlock(&jobs->lock);
  for (int lane = 0; ended && lane < LANE_COUNT; lane++) {
    for (uint32_t i = 0; i < jobs->lanes[lane].thread_count; i++) pthread_join(jobs->lanes[lane].threads[i], NULL);
  }
  return ended;
}

void jobs_free(struct jobs *jobs) {
  if (!jobs) return;
  pthread_mutex_destroy(&jobs->lock);
  for (int lane = 0; lane < LANE_COUNT; lane++) pthread_cond_destroy(&jobs->lanes[lane].wake);
  pthread_cond_destroy(&jobs->ended);
  free(jobs);
}
