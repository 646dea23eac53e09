/* Starting and stopping the engine, and its clock. */
#include "engine/member.h"
#include "engine/news.h"
#include "engine/promote.h"
#include "engine/refresh.h"

#include <stdlib.h>

#define TICK_MS      250         /* how often waiters are told of progress */
#define IDLE_MS      1000        /* how often the clock looks when nobody waits */
#define SWEEP_MS     (30 * 1000) /* how often tiers are swept */
#define JOB_THREADS  8
#define LOOK_THREADS 8

void engine_kick_clock(struct mc_cache *cache) {
  cache->clock_kicked = true;
  pthread_cond_signal(&cache->clock_wake);
}

static void sweep_job(struct work_job *job) {
  struct mc_cache *cache = (struct mc_cache *)((char *)job - offsetof(struct mc_cache, sweep));
  for (size_t i = 0; i < cache->tier_count; i++) tier_sweep(cache->tiers[i]);
  atomic_store(&cache->sweeping, false);
}

/* By a job, as the clock must not wait for a disk: deadlines and claims would. */
static void sweep(struct mc_cache *cache) {
  if (atomic_exchange(&cache->sweeping, true)) return;
  cache->sweep.run = sweep_job;
  if (work_submit(cache->job_pool, &cache->sweep, NULL)) atomic_store(&cache->sweeping, false);
}

static void *clock_main(void *arg) {
  struct mc_cache *cache = arg;
  int64_t sweep_at = clock_ns() + SWEEP_MS * NS_PER_MS;
  pthread_mutex_lock(&cache->lock);
  while (cache->clock_runs) {
    size_t count;
    int64_t now = clock_ns();
    cache->clock_kicked = false;
    struct flight **flights = flights_living(cache, &count);
    pthread_mutex_unlock(&cache->lock);
    bool renew = false;
    int64_t next = deadline_earlier(now + (count ? TICK_MS : IDLE_MS) * NS_PER_MS, member_tick(cache->member, now));
    for (size_t i = 0; i < count; i++) {
      next = deadline_earlier(next, requests_tick(cache, flights[i], now));
      int64_t due = claim_due(flights[i]);
      if (due > now) next = deadline_earlier(next, due);
      renew |= due <= now;
      flight_release(flights[i]);
    }
    free(flights);
    if (now >= sweep_at) {
      sweep(cache);
      sweep_at = now + SWEEP_MS * NS_PER_MS;
    }
    refresh_tick(cache);
    news_tick(cache->news, now);
    pthread_mutex_lock(&cache->lock);
    if (renew) claims_renew(cache);
    cache->clock_next = next;
    bool in_time = true;
    while (cache->clock_runs && !cache->clock_kicked && in_time) {
      in_time = cond_wait_until(&cache->clock_wake, &cache->lock, next);
    }
    cache->clock_next = 0;
  }
  pthread_mutex_unlock(&cache->lock);
  return NULL;
}

mc_status engine_start(struct mc_cache *cache, mc_error *err) {
  mc_status status = work_new(&cache->flight_pool, cache->options.flights, err);
  if (!status) status = work_new(&cache->job_pool, JOB_THREADS, err);
  if (!status) status = work_new(&cache->claim_pool, 1, err);
  if (!status) status = work_new(&cache->look_pool, LOOK_THREADS, err);
  if (!status && cache->tier_count > 1) status = promoter_new(&cache->promoter, cache, err);
  if (!status) status = member_new(&cache->member, cache, err);
  if (status) return status;
  cache->clock_runs = true;
  int error = pthread_create(&cache->clock, NULL, clock_main, cache);
  if (error) {
    cache->clock_runs = false;
    return mc_error_errno(err, error, ORIGIN, "can't start a thread");
  }
  news_start(cache->news);
  return MC_OK;
}

void engine_stop(struct mc_cache *cache) {
  struct flight *flight;
  pthread_mutex_lock(&cache->lock);
  cache->closing = true;
  DL_FOREACH(cache->flight_list, flight) {
    mc_cancel_trigger(flight->cancel);
  }
  pthread_mutex_unlock(&cache->lock);
  news_stop(cache->news);
  promoter_stop(cache->promoter);
  work_free(cache->look_pool);
  work_free(cache->flight_pool); /* flights end their waiters, with the clock's help */
  pthread_mutex_lock(&cache->lock);
  bool ran = cache->clock_runs;
  cache->clock_runs = false;
  pthread_cond_signal(&cache->clock_wake);
  pthread_mutex_unlock(&cache->lock);
  if (ran) pthread_join(cache->clock, NULL);
  work_free(cache->claim_pool);
  work_free(cache->job_pool); /* nothing submits to it any more */
  promoter_free(cache->promoter);
  struct member *member = cache->member;
  cache->member = NULL;
  member_free(member);
}
