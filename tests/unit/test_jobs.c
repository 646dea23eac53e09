/* The server's threads for what blocks: lanes, an origin's share, and a stop that does not wait for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>

#include "../../server/jobs.h"

#define SECOND 1000000000ll

/* A job that says that it runs, and ends when it is told to. */
struct work {
  struct job job;
  sem_t *begun, *may_end;
};

static void run_work(struct job *job) {
  struct work *work = (struct work *)job;
  sem_post(work->begun);
  while (sem_wait(work->may_end)) continue;
}

static int64_t after(int64_t ns) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * SECOND + now.tv_nsec + ns;
}

static bool begins(sem_t *begun, int64_t ns) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  int64_t at = until.tv_sec * SECOND + until.tv_nsec + ns;
  until = (struct timespec){at / SECOND, at % SECOND};
  return sem_timedwait(begun, &until) == 0;
}

static void submit(struct jobs *jobs, struct work *work, enum lane lane, uint64_t origin, sem_t *begun,
                   sem_t *may_end) {
  *work = (struct work){.job = {.run = run_work, .lane = lane, .origin = origin}, .begun = begun, .may_end = may_end};
  assert_true(jobs_submit(jobs, &work->job));
}

static void an_origin_gets_a_share(void **state) {
  (void)state;
  enum { SHARE = 8, DEAD = 100 };
  static struct work dead[DEAD], other, local, list;
  sem_t dead_begun, begun, may_end, at_once;
  sem_init(&dead_begun, 0, 0);
  sem_init(&begun, 0, 0);
  sem_init(&may_end, 0, 0);
  sem_init(&at_once, 0, 100);
  struct jobs *jobs = jobs_new();
  for (int i = 0; i < DEAD; i++) submit(jobs, &dead[i], LANE_UPSTREAM, 1, &dead_begun, &may_end);
  for (int i = 0; i < SHARE; i++) assert_true(begins(&dead_begun, 20 * SECOND));
  submit(jobs, &other, LANE_UPSTREAM, 2, &begun, &at_once);
  submit(jobs, &local, LANE_LOCAL, 0, &begun, &at_once);
  submit(jobs, &list, LANE_LISTS, 0, &begun, &at_once);
  for (int i = 0; i < 3; i++) assert_true(begins(&begun, 20 * SECOND));
  assert_false(begins(&dead_begun, SECOND / 20)); /* no more than the share */
  sem_post(&may_end);
  assert_true(begins(&dead_begun, 20 * SECOND)); /* one for one */
  for (int i = 0; i < DEAD; i++) sem_post(&may_end);
  assert_true(jobs_stop(jobs, after(60 * SECOND))); /* what waited has run */
  int ran = 0;
  while (sem_trywait(&dead_begun) == 0) ran++;
  assert_int_equal(ran, DEAD - SHARE - 1);
  jobs_free(jobs);
}

/* Whoever calls for repairs again and again takes no thread from others. */
static void repairs_go_one_by_one(void **state) {
  (void)state;
  static struct work repairs[20], list;
  sem_t repair_begun, begun, may_end, at_once;
  sem_init(&repair_begun, 0, 0);
  sem_init(&begun, 0, 0);
  sem_init(&may_end, 0, 0);
  sem_init(&at_once, 0, 1);
  struct jobs *jobs = jobs_new();
  for (int i = 0; i < 20; i++) submit(jobs, &repairs[i], LANE_REPAIRS, 0, &repair_begun, &may_end);
  submit(jobs, &list, LANE_LISTS, 0, &begun, &at_once);
  assert_true(begins(&begun, 20 * SECOND));
  assert_true(begins(&repair_begun, 20 * SECOND));
  assert_false(begins(&repair_begun, SECOND / 20));
  for (int i = 0; i < 20; i++) sem_post(&may_end);
  assert_true(jobs_stop(jobs, after(60 * SECOND)));
  jobs_free(jobs);
}

static void run_freed(struct job *job) {
  free(job);
}

/* For the sanitizers: what is gone is not looked at when the next ones are chosen. */
static void a_job_may_free_itself(void **state) {
  (void)state;
  struct jobs *jobs = jobs_new();
  for (int i = 0; i < 2000; i++) {
    struct job *job = malloc(sizeof(*job));
    assert_non_null(job);
    *job = (struct job){.run = run_freed, .lane = LANE_UPSTREAM, .origin = (uint64_t)i % 3};
    if (!jobs_submit(jobs, job)) free(job);
  }
  assert_true(jobs_stop(jobs, after(60 * SECOND)));
  jobs_free(jobs);
}

static void there_is_a_limit(void **state) {
  (void)state;
  enum { MOST = 5000 };
  static struct work works[MOST];
  sem_t begun, may_end;
  sem_init(&begun, 0, 0);
  sem_init(&may_end, 0, 0);
  struct jobs *jobs = jobs_new();
  int taken = 0;
  for (int i = 0; i < MOST; i++) {
    works[i] = (struct work){.job = {.run = run_work, .lane = LANE_LOCAL}, .begun = &begun, .may_end = &may_end};
    taken += jobs_submit(jobs, &works[i].job);
  }
  assert_true(taken >= 4096 && taken <= 4096 + 4);
  for (int i = 0; i < taken; i++) sem_post(&may_end);
  assert_true(jobs_stop(jobs, after(60 * SECOND)));
  assert_false(jobs_submit(jobs, &works[0].job));
  jobs_free(jobs);
}

static void a_stop_has_a_deadline(void **state) {
  (void)state;
  static struct work stuck;
  sem_t begun, may_end;
  sem_init(&begun, 0, 0);
  sem_init(&may_end, 0, 0);
  struct jobs *jobs = jobs_new();
  submit(jobs, &stuck, LANE_UPSTREAM, 1, &begun, &may_end);
  assert_true(begins(&begun, 20 * SECOND));
  assert_false(jobs_stop(jobs, after(SECOND / 20)));
  sem_post(&may_end);
  assert_true(jobs_stop(jobs, after(60 * SECOND)));
  jobs_free(jobs);
}

static void nothing_to_do_is_fine(void **state) {
  (void)state;
  struct jobs *jobs = jobs_new();
  assert_true(jobs_stop(jobs, after(0)));
  jobs_free(jobs);
  jobs_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_origin_gets_a_share), cmocka_unit_test(repairs_go_one_by_one),
      cmocka_unit_test(a_job_may_free_itself),  cmocka_unit_test(there_is_a_limit),
      cmocka_unit_test(a_stop_has_a_deadline),  cmocka_unit_test(nothing_to_do_is_fine),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
