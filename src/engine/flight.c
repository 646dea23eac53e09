/* Flights: their life, and what those who wait for them are told. What a flight does is in fly.c and direct.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/url.h"
#include "engine/download.h"
#include "engine/engine.h"
#include "engine/promote.h"
#include "engine/refresh.h"

/* ---- what waiters see ---- */

void flight_set_phase(struct flight *flight, mc_phase phase, const char *reason) {
  pthread_mutex_lock(&flight->lock);
  flight->phase = phase;
  flight->reason = reason;
  flight->upstream_reason[0] = 0;
  flight->elsewhere = false;
  pthread_mutex_unlock(&flight->lock);
  pthread_mutex_lock(&flight->cache->lock);
  if (flight->watched) engine_kick_clock(flight->cache);
  pthread_mutex_unlock(&flight->cache->lock);
}

/* The rate of a download whose bytes are so many now; with the flight's lock held. */
static uint64_t measure(struct flight *flight, uint64_t bytes) {
  int64_t now = clock_ns(), passed = now - flight->rate_at;
  if (flight->rate_at == 0 || bytes < flight->rate_bytes) {
    flight->rate_at = now;
    flight->rate_bytes = bytes;
  } else if (passed > NS_PER_S / 2) {
    uint64_t rate = (uint64_t)((double)(bytes - flight->rate_bytes) * NS_PER_S / (double)passed);
    flight->rate = flight->rate ? (3 * flight->rate + rate) / 4 : rate;
    flight->rate_at = now;
    flight->rate_bytes = bytes;
  }
  return flight->rate;
}

/* What another member told; with the flight's lock held. */
static void progress_elsewhere(const struct flight *flight, mc_progress *progress, char endpoint[MC_ENDPOINT_SIZE]) {
  const mc_claim_news *news = &flight->news;
  progress->bytes = news->bytes;
  progress->total = news->total;
  progress->rate = news->rate;
  progress->validators = news->validators;
  if (!*news->endpoint) return;
  memcpy(progress->flight, news->flight, sizeof(progress->flight));
  memcpy(endpoint, news->endpoint, MC_ENDPOINT_SIZE);
}

void flight_progress(struct flight *flight, mc_progress *progress, char reason[REASON_SIZE],
                     char endpoint[MC_ENDPOINT_SIZE]) {
  *progress = (mc_progress){.total = MC_SIZE_UNKNOWN, .eta_ms = -1, .reason = reason, .endpoint = endpoint};
  *endpoint = 0;
  pthread_mutex_lock(&flight->lock);
  progress->phase = flight->phase;
  snprintf(reason, REASON_SIZE, "%s", flight->upstream_reason[0] ? flight->upstream_reason : flight->reason);
  if (flight->elsewhere) {
    progress_elsewhere(flight, progress, endpoint);
  } else if (flight->shown) {
    progress->bytes = atomic_load_explicit(&flight->download->bytes, memory_order_relaxed);
    progress->total = flight->size;
    progress->validators = flight->validators;
  } else {
    progress->bytes = flight->upstream_bytes;
    progress->total = flight->upstream_total;
  }
  if (flight->listed) memcpy(progress->flight, flight->id, sizeof(progress->flight));
  if (progress->total != MC_SIZE_UNKNOWN && progress->bytes > progress->total) progress->bytes = progress->total;
  if (!flight->elsewhere) progress->rate = measure(flight, progress->bytes);
  if (progress->rate && progress->total != MC_SIZE_UNKNOWN) {
    progress->eta_ms = (int64_t)((double)(progress->total - progress->bytes) * 1000 / (double)progress->rate);
  }
  pthread_mutex_unlock(&flight->lock);
}

void flight_peer_progress(void *user, const mc_upstream_progress *peer) {
  struct flight *flight = user;
  pthread_mutex_lock(&flight->lock);
  flight->upstream_bytes = peer->bytes;
  flight->upstream_total = peer->total;
  snprintf(flight->upstream_reason, sizeof(flight->upstream_reason), "%s", peer->reason ? peer->reason : "");
  pthread_mutex_unlock(&flight->lock);
}

/* ---- what followers see ---- */

/* With cache->lock held, and its own: those who know its id do not find it any more. */
static void unlist(struct flight *flight) {
  if (flight->listed) HASH_DELETE(hh_id, flight->cache->flights_by_id, flight);
  flight->listed = false;
}

/* The same: it gets an id under which it is found. */
static void list(struct flight *flight) {
  struct mc_cache *cache = flight->cache;
  unsigned before = HASH_CNT(hh_id, cache->flights_by_id);
  random_bytes(flight->id, sizeof(flight->id));
  HASH_ADD(hh_id, cache->flights_by_id, id, sizeof(flight->id), flight);
  flight->listed = HASH_CNT(hh_id, cache->flights_by_id) > before;
}

void flight_show(struct flight *flight) {
  struct download *download = flight->download;
  pthread_mutex_lock(&flight->cache->lock);
  pthread_mutex_lock(&flight->lock);
  if (flight->version != download->version) unlist(flight); /* an id names one content */
  flight->version = download->version;
  flight->size = download->size;
  flight->validators = download->validators;
  flight->shown = true;
  if (!flight->listed && !flight->direct && !download->fleeting && download->size != MC_SIZE_UNKNOWN) list(flight);
  pthread_mutex_unlock(&flight->lock);
  pthread_mutex_unlock(&flight->cache->lock);
  flight_set_phase(flight, MC_PHASE_DOWNLOADING, "downloading");
  claim_tell_soon(flight);
}

void flight_set_download(struct flight *flight, struct download *download) {
  pthread_mutex_lock(&flight->lock);
  flight->download = download;
  pthread_mutex_unlock(&flight->lock);
}

void flight_hide(struct flight *flight) {
  pthread_mutex_lock(&flight->cache->lock);
  pthread_mutex_lock(&flight->lock);
  unlist(flight);
  flight->shown = false;
  pthread_mutex_unlock(&flight->lock);
  pthread_mutex_unlock(&flight->cache->lock);
}

/* With cache->lock held. */
static bool try_acquire(struct flight *flight) {
  unsigned references = atomic_load(&flight->references);
  while (references && !atomic_compare_exchange_weak(&flight->references, &references, references + 1)) continue;
  return references > 0; /* else its last reference is being given up, and it is on its way out of the tables */
}

struct flight *flight_find(struct mc_cache *cache, const uint8_t id[32]) {
  struct flight *flight;
  pthread_mutex_lock(&cache->lock);
  HASH_FIND(hh_id, cache->flights_by_id, id, 32, flight);
  if (flight && !try_acquire(flight)) flight = NULL;
  pthread_mutex_unlock(&cache->lock);
  return flight;
}

struct flight **flights_living(struct mc_cache *cache, size_t *count) {
  struct flight *flight, **all;
  size_t most = 0;
  *count = 0;
  DL_COUNT(cache->flight_list, flight, most);
  all = most ? malloc(most * sizeof(struct flight *)) : NULL;
  if (!all) return NULL;
  DL_FOREACH(cache->flight_list, flight) {
    if (try_acquire(flight)) all[(*count)++] = flight;
  }
  return all;
}

/* ---- lifetime ---- */

struct flight *flight_acquire(struct flight *flight) {
  atomic_fetch_add_explicit(&flight->references, 1, memory_order_relaxed);
  return flight;
}

static void flight_free(struct flight *flight) {
  download_free(flight->download);
  mc_cancel_free(flight->cancel);
  free(flight->hint);
  mc_request_release(flight->request);
  pthread_mutex_destroy(&flight->lock);
  free(flight->url);
  free(flight);
}

void flight_release(struct flight *flight) {
  if (atomic_fetch_sub_explicit(&flight->references, 1, memory_order_acq_rel) != 1) return;
  struct mc_cache *cache = flight->cache;
  pthread_mutex_lock(&cache->lock);
  DL_DELETE(cache->flight_list, flight);
  unlist(flight);
  pthread_mutex_unlock(&cache->lock);
  flight_free(flight);
}

static mc_status flight_new(struct flight **out, struct mc_cache *cache, const char *url, const char *key,
                            mc_error *err) {
  struct flight *flight = calloc(1, sizeof(*flight));
  if (!flight) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a flight");
  pthread_mutex_init(&flight->lock, NULL);
  mc_status status = mc_cancel_new(&flight->cancel, err);
  if (!status && !(flight->url = strdup(url))) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  if (status) {
    flight_free(flight);
    return status;
  }
  atomic_init(&flight->references, 1);
  flight->cache = cache;
  memcpy(flight->key, key, KEY_SIZE);
  flight->call = (mc_call){INT64_MAX, flight->cancel};
  flight->phase = MC_PHASE_QUEUED;
  flight->reason = "waiting for a free place among the downloads";
  flight->size = flight->upstream_total = MC_SIZE_UNKNOWN;
  flight->due = INT64_MAX;
  *out = flight;
  return MC_OK;
}

/* With cache->lock held. */
static mc_status may_start(struct mc_cache *cache, struct mc_request *request, mc_error *err) {
  if (cache->closing) return mc_error_set(err, MC_CANCELLED, ORIGIN, "the cache is closing");
  if (request && request->cancelled) return mc_error_set(err, MC_CANCELLED, ORIGIN, "the call was cancelled");
  if (request && cache->waiting >= cache->options.waiters) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "%u calls wait already, the limit; raise 'waiters'",
                        cache->waiting);
  }
  return MC_OK;
}

/* With cache->lock held. */
static void enlist(struct flight *flight, struct mc_request *request) {
  struct mc_cache *cache = flight->cache;
  int64_t due = request->deadline;
  if (request->options.cancel) due = deadline_earlier(due, clock_ns() + WATCH_MS * NS_PER_MS);
  request->flight = flight;
  request->round = 0;
  DL_APPEND(flight->waiters, request);
  cache->waiting++;
  /* A clock that is at work now has not seen it, and looks again. */
  if (due < cache->clock_next || (due < INT64_MAX && !cache->clock_next)) engine_kick_clock(cache);
  if (request->options.progress) flight->watched = true;
  if (request->options.progress) due = 0; /* is to be told with the next tick */
  flight->due = deadline_earlier(flight->due, due);
}

/* A flight that others may join, and that takes over the request's hint. With cache->lock held. */
static mc_status start_shared(struct flight **out, struct mc_cache *cache, const char *url, const char *key,
                              struct mc_request *request, mc_error *err) {
  struct flight *flight;
  if (HASH_COUNT(cache->flights) >= cache->options.waiters) { /* prefetches: nobody waits, but each has a descriptor */
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "%u downloads are queued already, the limit; see 'waiters'",
                        HASH_COUNT(cache->flights));
  }
  mc_status status = flight_new(&flight, cache, url, key, err);
  if (status) return status;
  unsigned before = HASH_COUNT(cache->flights);
  HASH_ADD_STR(cache->flights, key, flight);
  flight->joinable = HASH_COUNT(cache->flights) > before;
  if (!flight->joinable) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a flight");
  bool by_digest = request && request->options.digest;
  if (by_digest) flight->digest = *request->options.digest;
  flight->job.run = by_digest ? version_job : fly_job;
  if (request) flight->hint = request->hint;
  if (request) request->hint = NULL;
  if (!status) status = work_submit(cache->flight_pool, &flight->job, err);
  if (status) {
    if (flight->joinable) HASH_DEL(cache->flights, flight);
    flight_free(flight);
    return status;
  }
  DL_APPEND(cache->flight_list, flight);
  stat_add(cache, STAT_FLIGHTS, 1);
  *out = flight;
  return MC_OK;
}

void flight_seal(struct flight *flight) {
  if (flight->joinable) HASH_DEL(flight->cache->flights, flight);
  flight->joinable = false;
}

mc_status flight_join(struct mc_cache *cache, const char *url, const char *key, struct mc_request *request,
                      uint32_t flags, mc_error *err) {
  struct flight *flight = NULL;
  pthread_mutex_lock(&cache->lock);
  mc_status status = may_start(cache, request, err);
  if (!status) HASH_FIND_STR(cache->flights, key, flight);
  bool same = flight && request && request->hint && flight->hint && hint_same(request->hint, flight->hint);
  uint32_t late = flight && flight->settled ? MC_GET_REVALIDATE | MC_GET_PIN | MC_GET_UNPIN : 0;
  if (flight && flight->dated && !same) late |= MC_GET_REVALIDATE;
  if (flags & late) {
    flight_seal(flight); /* it would end without doing so */
    flight = NULL;
  }
  if (flight && !same) flight->unlisted = true;
  if (flight) flight->joined = true;
  if (!status && !flight) status = start_shared(&flight, cache, url, key, request, err);
  if (!status) {
    flight->revalidate |= (flags & MC_GET_REVALIDATE) != 0;
    flight->pin |= (flags & MC_GET_PIN) != 0;
    flight->unpin |= (flags & MC_GET_UNPIN) != 0;
    flight->detached |= !request;
    if (flags & FLIGHT_REFRESH && !flight->refreshes) cache->refreshing++;
    flight->refreshes |= (flags & FLIGHT_REFRESH) != 0;
    if (request) enlist(flight, request);
  }
  pthread_mutex_unlock(&cache->lock);
  return status;
}

bool flight_is_bare(struct mc_cache *cache, const char *key) {
  struct flight *flight;
  pthread_mutex_lock(&cache->lock);
  HASH_FIND_STR(cache->flights, key, flight);
  bool bare = flight && flight->bare;
  pthread_mutex_unlock(&cache->lock);
  return bare;
}

void flight_set_bare(struct flight *flight) {
  pthread_mutex_lock(&flight->cache->lock);
  flight->bare = true;
  pthread_mutex_unlock(&flight->cache->lock);
}

mc_status flight_start_direct(struct mc_request *request, mc_error *err) {
  struct mc_cache *cache = request->cache;
  struct flight *flight = NULL;
  pthread_mutex_lock(&cache->lock);
  mc_status status = may_start(cache, request, err);
  if (!status) status = flight_new(&flight, cache, request->url, request->key, err);
  if (!status) {
    flight->direct = true;
    flight->request = request;
    atomic_fetch_add(&request->references, 1);
    flight->call.deadline = request->deadline;
    flight->job.run = direct_job;
    status = work_submit(cache->flight_pool, &flight->job, err);
    if (status) flight_free(flight);
  }
  if (!status) {
    request->direct = true;
    DL_APPEND(cache->flight_list, flight);
    enlist(flight, request);
    stat_add(cache, STAT_FLIGHTS, 1);
  }
  pthread_mutex_unlock(&cache->lock);
  return status;
}

mc_status flight_begin_direct(struct flight *flight, mc_error *err) {
  pthread_mutex_lock(&flight->cache->lock);
  mc_status status = mc_call_check(&flight->call, err); /* it is cancelled when its caller leaves */
  flight->writes = !status;
  pthread_mutex_unlock(&flight->cache->lock);
  return status;
}

/* ---- its end ---- */

/* Take the waiters off; those in a callback are left to the clock. With cache->lock held. */
static struct mc_request *take_waiters(struct flight *flight, mc_status status, mc_file *file, const mc_error *error,
                                       uint64_t *count) {
  struct mc_request *taken = NULL, *request, *next;
  *count = 0;
  DL_FOREACH_SAFE(flight->waiters, request, next) {
    DL_DELETE(flight->waiters, request);
    request->flight = NULL;
    flight->cache->waiting--;
    ++*count;
    if (request->in_callback) {
      request->completed = true;
      request->status = status;
      request->file = file ? mc_file_acquire(file) : NULL;
      request->error = *error;
    } else {
      request->state = REQUEST_DONE;
      DL_APPEND(taken, request);
    }
  }
  return taken;
}

/* A prefetch has nobody else to tell, and whoever runs a server sees no client's messages; what he has to mend is a
 * warning. */
static void say_failed(const struct flight *flight, mc_status status, const mc_error *error) {
  char url[256];
  const char *why = error && *error->message ? error->message : mc_status_name(status);
  url_printable(url, sizeof(url), flight->url);
  if (status == MC_NO_SPACE) {
    log_warn(flight->cache->logger, ORIGIN, "%s can't be kept: %s", url, why);
  } else if (status == MC_IO || status == MC_NO_MEMORY) {
    log_warn(flight->cache->logger, ORIGIN, "%s is not to be had: %s", url, why);
  } else {
    log_info(flight->cache->logger, ORIGIN, "%s is not to be had: %s", url, why);
  }
}

void flight_end(struct flight *flight, mc_status status, mc_file *file, const mc_error *error) {
  struct mc_cache *cache = flight->cache;
  struct mc_request *request, *next;
  uint64_t count;
  pthread_mutex_lock(&cache->lock);
  flight_seal(flight);
  flight->ended = true;
  if (flight->refreshes) cache->refreshing--;
  struct mc_request *waiters = take_waiters(flight, status, file, error, &count);
  pthread_mutex_unlock(&cache->lock);
  if (status && status != MC_CANCELLED) say_failed(flight, status, error);
  if (!status && mc_file_was_cached(file)) file_count_hits(file, cache, count);
  if (!status && !mc_file_was_cached(file)) stat_add(cache, STAT_MISSES, count);
  if (!status && count) promote_consider(cache, file);
  DL_FOREACH_SAFE(waiters, request, next) {
    DL_DELETE(waiters, request);
    mc_file *given = waiters && file ? mc_file_acquire(file) : file; /* the last one gets our own reference */
    if (!waiters) file = NULL;
    request_finish(request, status, given, error);
  }
  mc_file_release(file);
  if (flight->refreshes) refresh_kick(cache);
}
