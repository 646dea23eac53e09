/* The pool of threads: no more than it may have, in order, and all that was queued is run before it ends. */
#include "tests/fakes/engine_fixture.h"

#include <pthread.h>
#include <unistd.h>

#include "engine/work.h"

struct meter {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  unsigned running, most, done;
  bool hold;
};

struct job {
  struct work_job job; /* first */
  struct meter *meter;
  unsigned number, order;
};

static void run(struct work_job *work_job) {
  struct job *job = (struct job *)work_job;
  struct meter *meter = job->meter;
  pthread_mutex_lock(&meter->lock);
  if (++meter->running > meter->most) meter->most = meter->running;
  pthread_cond_broadcast(&meter->changed);
  while (meter->hold) pthread_cond_wait(&meter->changed, &meter->lock);
  meter->running--;
  job->order = meter->done++;
  pthread_cond_broadcast(&meter->changed);
  pthread_mutex_unlock(&meter->lock);
}

static void let_go(struct meter *meter) {
  pthread_mutex_lock(&meter->lock);
  meter->hold = false;
  pthread_cond_broadcast(&meter->changed);
  pthread_mutex_unlock(&meter->lock);
}

static void await_running(struct meter *meter, unsigned count) {
  pthread_mutex_lock(&meter->lock);
  while (meter->running < count) pthread_cond_wait(&meter->changed, &meter->lock);
  pthread_mutex_unlock(&meter->lock);
}

static void check(uint32_t threads, unsigned count, unsigned together) {
  struct meter meter = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .hold = true};
  struct job jobs[100];
  struct work *work;
  assert_int_equal(work_new(&work, threads, NULL), MC_OK);
  for (unsigned i = 0; i < count; i++) {
    jobs[i] = (struct job){.job = {.run = run}, .meter = &meter, .number = i};
    assert_int_equal(work_submit(work, &jobs[i].job, NULL), MC_OK); /* never blocks */
  }
  await_running(&meter, together);
  let_go(&meter);
  work_free(work); /* runs what is queued */
  assert_int_equal(meter.done, count);
  assert_int_equal(meter.most, together);
  if (threads <= 1) {
    for (unsigned i = 0; i < count; i++) assert_int_equal(jobs[i].order, i);
  }
}

static void one_thread_keeps_the_order(void **state) {
  (void)state;
  check(1, 100, 1);
  check(0, 5, 1); /* none makes no sense: one */
}

static void no_more_than_allowed_run_at_once(void **state) {
  (void)state;
  check(4, 100, 4);
}

static void each_job_gets_a_thread_while_there_are_some(void **state) {
  (void)state;
  check(64, 20, 20);
}

static void an_idle_pool_ends_at_once(void **state) {
  (void)state;
  struct work *work;
  assert_int_equal(work_new(&work, 4, NULL), MC_OK);
  work_free(work);
  work_free(NULL);
  check(2, 0, 0);
}

struct chain {
  struct work_job job, next;
  struct work *work;
  struct meter *meter;
  mc_status status;
};

static void *free_main(void *arg) {
  work_free(arg);
  return NULL;
}

static void chain_run(struct work_job *job) {
  struct chain *self = (struct chain *)job;
  pthread_mutex_lock(&self->meter->lock);
  self->meter->running++;
  pthread_cond_broadcast(&self->meter->changed);
  while (self->meter->hold) pthread_cond_wait(&self->meter->changed, &self->meter->lock);
  pthread_mutex_unlock(&self->meter->lock);
  self->next.run = chain_run;
  self->status = work_submit(self->work, &self->next, NULL);
}

static void a_job_that_outlives_the_pool_is_refused_another(void **state) {
  (void)state;
  struct meter meter = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .hold = true};
  struct chain chain = {.job = {.run = chain_run}, .meter = &meter};
  pthread_t closer;
  assert_int_equal(work_new(&chain.work, 4, NULL), MC_OK);
  assert_int_equal(work_submit(chain.work, &chain.job, NULL), MC_OK);
  await_running(&meter, 1);
  assert_int_equal(pthread_create(&closer, NULL, free_main, chain.work), 0);
  usleep(20000); /* it closes now, and waits for the job */
  let_go(&meter);
  pthread_join(closer, NULL);
  assert_int_equal(chain.status, MC_CANCELLED);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_thread_keeps_the_order),
      cmocka_unit_test(no_more_than_allowed_run_at_once),
      cmocka_unit_test(each_job_gets_a_thread_while_there_are_some),
      cmocka_unit_test(an_idle_pool_ends_at_once),
      cmocka_unit_test(a_job_that_outlives_the_pool_is_refused_another),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
