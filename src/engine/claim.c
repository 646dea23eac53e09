/* Claims while they are held: renewed by a job, one for all, which tells the others how the downloads go; and what the
 * others tell. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/news.h"

#define NEWS_MS 1000 /* how often the others are told */

static int64_t third_of_lease(const struct mc_cache *cache) {
  return cache->options.lease_ms * NS_PER_MS / 3;
}

void claim_keep(struct flight *flight, uint64_t token) {
  pthread_mutex_lock(&flight->lock);
  flight->claim = token;
  flight->renew_at = clock_ns() + third_of_lease(flight->cache);
  if (token) flight->claim_lost = false;
  pthread_mutex_unlock(&flight->lock);
}

bool claim_is_lost(struct flight *flight) {
  pthread_mutex_lock(&flight->lock);
  bool lost = flight->claim_lost;
  pthread_mutex_unlock(&flight->lock);
  return lost;
}

void claim_tell_soon(struct flight *flight) {
  struct mc_cache *cache = flight->cache;
  if (!coordination_is_shared(cache)) return;
  pthread_mutex_lock(&flight->lock);
  flight->renew_at = 0;
  pthread_mutex_unlock(&flight->lock);
  pthread_mutex_lock(&cache->lock);
  engine_kick_clock(cache);
  pthread_mutex_unlock(&cache->lock);
}

int64_t claim_due(struct flight *flight) {
  pthread_mutex_lock(&flight->lock);
  int64_t due = flight->claim ? flight->renew_at : INT64_MAX;
  pthread_mutex_unlock(&flight->lock);
  return due;
}

/* ---- the owner's part ---- */

/* What those who wait elsewhere are told; false: there is nothing to tell yet. */
static bool news_of(struct flight *flight, mc_claim_news *news) {
  struct mc_cache *cache = flight->cache;
  mc_progress progress;
  char reason[REASON_SIZE], endpoint[MC_ENDPOINT_SIZE];
  if (!coordination_is_shared(cache)) return false;
  flight_progress(flight, &progress, reason, endpoint);
  *news = (mc_claim_news){
      .bytes = progress.bytes, .total = progress.total, .rate = progress.rate, .validators = progress.validators};
  memcpy(news->flight, progress.flight, sizeof(news->flight));
  pthread_mutex_lock(&cache->lock);
  strcpy(news->endpoint, cache->endpoint);
  pthread_mutex_unlock(&cache->lock);
  return progress.bytes || progress.total != MC_SIZE_UNKNOWN;
}

/* false: the coordination can't be reached. */
static bool renew(struct flight *flight) {
  struct mc_cache *cache = flight->cache;
  mc_claim_news news;
  bool tells = news_of(flight, &news);
  int64_t now = clock_ns(), pause = third_of_lease(cache);
  if (tells && pause > NEWS_MS * NS_PER_MS) pause = NEWS_MS * NS_PER_MS;
  pthread_mutex_lock(&flight->lock);
  uint64_t token = flight->renew_at <= now ? flight->claim : 0;
  if (token) flight->renew_at = now + pause;
  pthread_mutex_unlock(&flight->lock);
  if (!token) return true;
  mc_status status =
      cache->coordination->ops->renew(cache->coordination, flight->key, token, tells ? &news : NULL, NULL);
  if (status != MC_BUSY) return status != MC_UNAVAILABLE;
  pthread_mutex_lock(&flight->lock);
  if (flight->claim == token) { /* else it was given back meanwhile */
    flight->claim = 0;
    flight->claim_lost = true;
  }
  pthread_mutex_unlock(&flight->lock);
  return true;
}

static void renew_job(struct work_job *job) {
  struct mc_cache *cache = (struct mc_cache *)((char *)job - offsetof(struct mc_cache, renewal));
  size_t count;
  bool reached = true; /* else the rest is left for the clock's next round, as each may take a second to fail */
  pthread_mutex_lock(&cache->lock);
  struct flight **flights = flights_living(cache, &count);
  pthread_mutex_unlock(&cache->lock);
  for (size_t i = 0; i < count; i++) {
    if (reached && claim_due(flights[i]) <= clock_ns()) reached = renew(flights[i]);
    flight_release(flights[i]);
  }
  free(flights);
  pthread_mutex_lock(&cache->lock);
  cache->renewing = false;
  if (cache->renew_again) engine_kick_clock(cache);
  pthread_mutex_unlock(&cache->lock);
}

void claims_renew(struct mc_cache *cache) {
  cache->renew_again = cache->renewing; /* some may have become due behind its back */
  if (cache->renewing) return;
  cache->renewal.run = renew_job;
  cache->renewing = work_submit(cache->claim_pool, &cache->renewal, NULL) == MC_OK;
}

/* ---- the waiters' part ---- */

void claim_hear(void *user, const mc_claim_news *news) {
  struct flight *flight = user;
  pthread_mutex_lock(&flight->lock);
  flight->news = *news;
  flight->elsewhere = true;
  pthread_mutex_unlock(&flight->lock);
  pthread_mutex_lock(&flight->cache->lock);
  if (flight->watched) engine_kick_clock(flight->cache);
  pthread_mutex_unlock(&flight->cache->lock);
}

/* ---- without the coordination ---- */

bool coordination_is_out(const struct mc_cache *cache, mc_status status) {
  return (status == MC_UNAVAILABLE || status == MC_RESOURCE_EXHAUSTED) && coordination_is_shared(cache);
}

void coordination_lost(struct mc_cache *cache, const mc_error *why) {
  news_doubt(cache->news);
  if (atomic_exchange(&cache->told_outage, true)) return;
  log_warn(cache->logger, ORIGIN, "going on without the coordination: %s", why->message);
}

void coordination_found(struct mc_cache *cache) {
  if (!atomic_load_explicit(&cache->told_outage, memory_order_relaxed)) return;
  if (atomic_exchange(&cache->told_outage, false)) log_info(cache->logger, ORIGIN, "the coordination is there again");
}
