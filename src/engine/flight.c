#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/url.h"
#include "engine/download.h"
#include "engine/engine.h"

#define MAX_RESTARTS 3 /* when the content changes while it is read */

/* ---- which upstream ---- */

static bool scheme_listed(const char *list, const char *scheme) {
  size_t length = strlen(scheme);
  for (const char *at = list; at && *at;) {
    at += strspn(at, ", ");
    size_t size = strcspn(at, ", ");
    if (size == length && strncmp(at, scheme, size) == 0) return true;
    at += size;
  }
  return false;
}

static bool takes_scheme(const mc_upstream_ops *ops, const char *scheme) {
  for (const char *const *at = ops->schemes; *at; at++) {
    if (strcmp(*at, "*") == 0 || strcmp(*at, scheme) == 0) return true;
  }
  return false;
}

mc_status route(mc_upstream *upstreams[MAX_UPSTREAMS], size_t *count, struct mc_cache *cache, const char *url,
                mc_error *err) {
  char scheme[16] = "";
  memcpy(scheme, url, strcspn(url, ":") < sizeof(scheme) ? strcspn(url, ":") : 0);
  bool allowed = scheme_listed(cache->options.schemes, scheme), known = false;
  *count = 0;
  for (size_t i = 0; i < cache->upstream_count; i++) {
    mc_upstream *upstream = cache->upstreams[i];
    if (!takes_scheme(upstream->ops, scheme)) continue;
    known = true;
    bool is_cache = upstream->ops->flags & MC_UPSTREAM_CACHE;
    if (is_cache || (allowed && (!cache->client || cache->options.fallback))) upstreams[(*count)++] = upstream;
  }
  if (*count) return MC_OK;
  if (known && !allowed) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "URLs with %s:// are not allowed here; the option 'schemes' lists those that are (now: %s)",
                        scheme, cache->options.schemes);
  }
  return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "no upstream takes URLs with %s://", scheme);
}

bool route_goes_on(const mc_upstream *upstream, mc_status status) {
  if (status == MC_CANCELLED || status == MC_DEADLINE_EXCEEDED || status == MC_CHANGED) return false;
  if (mc_status_is_retryable(status)) return true;
  bool is_cache = upstream->ops->flags & MC_UPSTREAM_CACHE;
  return is_cache && (status == MC_NO_SPACE || status == MC_IO || status == MC_CORRUPT || status == MC_PROTOCOL ||
                      status == MC_NO_MEMORY);
}

/* ---- what waiters see ---- */

void flight_set_phase(struct flight *flight, mc_phase phase, const char *reason) {
  pthread_mutex_lock(&flight->lock);
  flight->phase = phase;
  flight->reason = reason;
  pthread_mutex_unlock(&flight->lock);
  pthread_mutex_lock(&flight->cache->lock);
  engine_kick_clock(flight->cache);
  pthread_mutex_unlock(&flight->cache->lock);
}

void flight_progress(struct flight *flight, mc_progress *progress) {
  int64_t now = clock_ns();
  *progress = (mc_progress){.total = MC_SIZE_UNKNOWN, .eta_ms = -1};
  pthread_mutex_lock(&flight->lock);
  progress->phase = flight->phase;
  progress->reason = flight->reason;
  progress->bytes = flight->upstream_bytes;
  progress->total = flight->upstream_total;
  if (flight->shown) {
    progress->bytes = atomic_load_explicit(&flight->download->bytes, memory_order_relaxed);
    progress->total = flight->size;
    progress->validators = flight->validators;
    memcpy(progress->flight, flight->id, sizeof(progress->flight));
  }
  if (progress->total != MC_SIZE_UNKNOWN && progress->bytes > progress->total) progress->bytes = progress->total;
  int64_t passed = now - flight->rate_at;
  if (flight->rate_at == 0 || progress->bytes < flight->rate_bytes) {
    flight->rate_at = now;
    flight->rate_bytes = progress->bytes;
  } else if (passed > NS_PER_S / 2) {
    uint64_t rate = (uint64_t)((double)(progress->bytes - flight->rate_bytes) * NS_PER_S / (double)passed);
    flight->rate = flight->rate ? (3 * flight->rate + rate) / 4 : rate;
    flight->rate_at = now;
    flight->rate_bytes = progress->bytes;
  }
  progress->rate = flight->rate;
  if (flight->rate && progress->total != MC_SIZE_UNKNOWN) {
    progress->eta_ms = (int64_t)((double)(progress->total - progress->bytes) * 1000 / (double)flight->rate);
  }
  pthread_mutex_unlock(&flight->lock);
}

static void peer_progress(void *user, const mc_upstream_progress *peer) {
  struct flight *flight = user;
  pthread_mutex_lock(&flight->lock);
  flight->upstream_bytes = peer->bytes;
  flight->upstream_total = peer->total;
  pthread_mutex_unlock(&flight->lock);
}

/* ---- lifetime ---- */

static void flight_job(struct work_job *job);

struct flight_work {
  struct work_job job;
  struct flight *flight;
};

struct flight *flight_acquire(struct flight *flight) {
  atomic_fetch_add_explicit(&flight->references, 1, memory_order_relaxed);
  return flight;
}

void flight_release(struct flight *flight) {
  if (atomic_fetch_sub_explicit(&flight->references, 1, memory_order_acq_rel) != 1) return;
  struct mc_cache *cache = flight->cache;
  pthread_mutex_lock(&cache->lock);
  DL_DELETE(cache->flight_list, flight);
  pthread_mutex_unlock(&cache->lock);
  download_free(flight->download);
  mc_cancel_free(flight->cancel);
  pthread_mutex_destroy(&flight->lock);
  pthread_cond_destroy(&flight->changed);
  free(flight->url);
  free(flight);
}

static struct flight *flight_new(struct mc_cache *cache, const char *url, const char *key, mc_error *err) {
  struct flight *flight = calloc(1, sizeof(*flight));
  if (flight) flight->url = strdup(url);
  if (!flight || !flight->url || mc_cancel_new(&flight->cancel, err)) {
    if (flight) free(flight->url);
    free(flight);
    mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory, or no descriptor, for a flight");
    return NULL;
  }
  atomic_init(&flight->references, 1);
  flight->cache = cache;
  memcpy(flight->key, key, KEY_SIZE);
  random_bytes(flight->id, sizeof(flight->id));
  flight->call = (mc_call){INT64_MAX, flight->cancel};
  flight->phase = MC_PHASE_QUEUED;
  flight->reason = "waiting for a free place among the downloads";
  flight->size = flight->upstream_total = MC_SIZE_UNKNOWN;
  pthread_mutex_init(&flight->lock, NULL);
  cond_init(&flight->changed);
  return flight;
}

mc_status flight_join(struct mc_cache *cache, const char *url, const char *key, struct mc_request *request,
                      uint32_t flags, mc_error *err) {
  mc_status status = MC_OK;
  struct flight *flight = NULL;
  struct flight_work *work = NULL;
  pthread_mutex_lock(&cache->lock);
  if (cache->closing) status = mc_error_set(err, MC_CANCELLED, ORIGIN, "the cache is closing");
  if (!status && request && cache->waiting >= cache->options.waiters) {
    status = mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "%u calls wait already, the limit; raise 'waiters'",
                          cache->waiting);
  }
  if (!status) HASH_FIND_STR(cache->flights, key, flight);
  if (!status && !flight) {
    flight = flight_new(cache, url, key, err);
    work = flight ? malloc(sizeof(*work)) : NULL;
    if (!work) status = MC_NO_MEMORY;
    if (work) {
      *work = (struct flight_work){.job = {.run = flight_job}, .flight = flight};
      status = work_submit(cache->flight_pool, &work->job, err);
    }
    if (!status) {
      HASH_ADD_STR(cache->flights, key, flight);
      DL_APPEND(cache->flight_list, flight);
      flight->joinable = true;
      stat_add(cache, STAT_FLIGHTS, 1);
    } else if (flight) {
      free(work);
      mc_cancel_free(flight->cancel);
      free(flight->url);
      free(flight);
    }
  }
  if (!status) {
    flight->revalidate |= (flags & MC_GET_REVALIDATE) != 0;
    flight->pin |= (flags & MC_GET_PIN) != 0;
    flight->unpin |= (flags & MC_GET_UNPIN) != 0;
    flight->detached |= !request;
    if (request) {
      request->flight = flight;
      DL_APPEND(flight->waiters, request);
      cache->waiting++;
      if (request->deadline < cache->clock_next || request->options.cancel) engine_kick_clock(cache);
    }
  }
  pthread_mutex_unlock(&cache->lock);
  return status;
}

static void flight_set_claim(struct flight *flight, uint64_t token) {
  pthread_mutex_lock(&flight->lock);
  flight->claim = token;
  flight->renewed_at = clock_ns();
  pthread_mutex_unlock(&flight->lock);
}

void flight_renew(struct flight *flight, int64_t now) {
  struct mc_cache *cache = flight->cache;
  pthread_mutex_lock(&flight->lock);
  uint64_t token = flight->claim;
  bool due = token && now - flight->renewed_at > cache->options.lease_ms * NS_PER_MS / 3;
  if (due) flight->renewed_at = now;
  pthread_mutex_unlock(&flight->lock);
  if (due) cache->coordination->ops->renew(cache->coordination, flight->key, token, NULL);
}

/* The result is known: nobody can join any more; everybody is told. Takes over `file`. */
static void flight_end(struct flight *flight, mc_status status, mc_file *file, const mc_error *error) {
  struct mc_cache *cache = flight->cache;
  pthread_mutex_lock(&cache->lock);
  if (flight->joinable) HASH_DEL(cache->flights, flight);
  flight->joinable = false;
  struct mc_request *waiters = NULL, *request, *next;
  DL_FOREACH_SAFE(flight->waiters, request, next) {
    DL_DELETE(flight->waiters, request);
    request->flight = NULL;
    cache->waiting--;
    if (request->in_callback) { /* the clock ends it */
      request->completed = true;
      request->status = status;
      request->file = file ? mc_file_acquire(file) : NULL;
      if (error) request->error = *error;
    } else {
      request->state = REQUEST_DONE;
      DL_APPEND(waiters, request);
    }
  }
  pthread_mutex_unlock(&cache->lock);
  DL_FOREACH_SAFE(waiters, request, next) {
    DL_DELETE(waiters, request);
    if (status) {
      request_fail(request, status, error);
    } else {
      request_deliver(request, mc_file_acquire(file));
    }
  }
  mc_file_release(file);
}

/* ---- the algorithm ---- */

/* Everything that one run of it works with. */
struct run {
  struct flight *flight;
  struct mc_cache *cache;
  mc_entry *entry; /* what is known, or NULL */
  mc_file *file;   /* the copy at hand, verified, or NULL */
  mc_claim claim;
};

/* Publish an entry and tell the tier what refers to what. Takes over `entry`. */
static mc_status publish(struct run *run, mc_entry *entry, bool record, mc_error *err) {
  struct mc_cache *cache = run->cache;
  struct flight *flight = run->flight;
  bool changed = !run->entry || run->entry->missing != entry->missing || run->entry->has_digest != entry->has_digest ||
                 (entry->has_digest && !mc_digest_equal(&run->entry->digest, &entry->digest));
  mc_status status = record ? entry_record(cache, flight->key, entry, err) : MC_OK;
  if (!status) {
    status = cache->coordination->ops->publish(cache->coordination, flight->key, run->claim.token, entry, err);
    run->claim.granted = false;
  }
  if (status) {
    free(entry);
    return status;
  }
  if (cache->home && run->entry && run->entry->has_digest) {
    tier_refer(cache->home, &run->entry->digest, -1, -(int)run->entry->pinned);
  }
  if (cache->home && entry->has_digest) tier_refer(cache->home, &entry->digest, 1, entry->pinned);
  if (changed && run->entry && run->entry->has_digest) stat_add(cache, STAT_CHANGES, 1);
  if (changed) entry_announce(cache, entry);
  free(run->entry);
  run->entry = entry;
  return MC_OK;
}

static bool wants_pin(struct flight *flight, bool pinned) {
  pthread_mutex_lock(&flight->cache->lock);
  bool pin = flight->pin || (pinned && !flight->unpin);
  pthread_mutex_unlock(&flight->cache->lock);
  return pin;
}

/* The copy at hand is current. */
static mc_status confirm(struct run *run, const mc_validators *validators, mc_error *err) {
  mc_entry *entry = entry_copy(run->entry);
  if (!entry) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an entry");
  entry->checked_at = clock_wall_ms();
  entry->pinned = wants_pin(run->flight, entry->pinned);
  if (validators->version[0] || validators->etag[0] || validators->last_modified) entry->validators = *validators;
  stat_add(run->cache, STAT_REVALIDATIONS, 1);
  return publish(run, entry, true, err);
}

/* The upstream says that it does not exist. */
static void remember_missing(struct run *run) {
  mc_entry *entry = entry_new(run->flight->url);
  if (!entry) return;
  entry->missing = true;
  entry->checked_at = clock_wall_ms();
  mc_storage *storage = run->cache->home ? tier_storage(run->cache->home) : NULL;
  if (storage && storage->ops->record_remove) storage->ops->record_remove(storage, run->flight->key, NULL);
  publish(run, entry, false, NULL);
}

static mc_entry *entry_of(struct run *run, const struct download *download, const mc_digest *digest) {
  mc_entry *entry = entry_new(run->flight->url);
  if (!entry) return NULL;
  entry->size = download->size;
  entry->validators = download->validators;
  entry->has_digest = true;
  entry->digest = *digest;
  entry->fetched_at = entry->checked_at = clock_wall_ms();
  entry->pinned = wants_pin(run->flight, run->entry && run->entry->pinned);
  return entry;
}

/* Let followers see the download. */
static void show(struct flight *flight, struct download *download) {
  pthread_mutex_lock(&flight->lock);
  flight->size = download->size;
  flight->validators = download->validators;
  flight->shown = download->size != MC_SIZE_UNKNOWN;
  pthread_mutex_unlock(&flight->lock);
  flight_set_phase(flight, MC_PHASE_DOWNLOADING, "downloading");
}

static void hide(struct flight *flight) {
  pthread_mutex_lock(&flight->lock);
  flight->shown = false;
  pthread_mutex_unlock(&flight->lock);
}

/* Read all from an open source, facts that come late included. */
static mc_status fetch_all(struct download *download, mc_upstream *upstream, mc_source *source, mc_info *info,
                           const mc_open_args *args, const mc_call *call, mc_digest *digest, mc_error *err) {
  bool trusted = upstream->ops->flags & MC_UPSTREAM_CACHE;
  mc_status status = download_run(download, source, info, err);
  bool late = !info->has_digest || !info->chunks.hashes || info->size == MC_SIZE_UNKNOWN;
  if (!status && late && upstream->ops->source_finish) {
    status = upstream->ops->source_finish(source, info, args, call, err);
    for (int tries = 0; !status && info->chunks.hashes && tries < 3; tries++) {
      if (download_check(download, &info->chunks) == 0) break;
      status = tries < 2 ? download_run(download, source, info, err)
                         : mc_error_set(err, MC_CORRUPT, ORIGIN, "chunks keep arriving damaged");
    }
  }
  if (!status) status = download_digest(download, digest, info, trusted, err);
  return status;
}

/* One attempt with one upstream. */
static mc_status attempt(struct run *run, struct download *download, mc_upstream *upstream, mc_error *err) {
  struct flight *flight = run->flight;
  struct mc_cache *cache = run->cache;
  bool at_hand = run->file != NULL;
  mc_open_args args = {.url = flight->url, .progress = peer_progress, .progress_user = flight};
  if (at_hand) {
    args.known = &run->entry->validators;
    args.known_size = run->entry->size;
    args.known_digest = &run->entry->digest;
  }
  mc_source *source = NULL;
  mc_info info = {.size = MC_SIZE_UNKNOWN};
  flight_set_phase(flight, MC_PHASE_ASKING, "asking the upstream");
  mc_status status = upstream->ops->source_open(upstream, &args, &source, &info, &flight->call, err);
  if (status) return status;
  if (info.unchanged && at_hand) return confirm(run, &info.validators, err);

  mc_file *file = NULL;
  mc_digest digest;
  if (info.has_digest) { /* perhaps it is here already, under another URL */
    mc_entry known = {.has_digest = true, .digest = info.digest, .size = info.size, .validators = info.validators};
    struct tier *damaged = NULL;
    if (file_open(&file, cache, &known, true, true, &damaged, NULL) == MC_OK) {
      digest = info.digest;
      download->size = info.size;
      download->validators = info.validators;
    }
  }
  if (!file) {
    status = download_begin(download, flight->key, &info, err);
    if (!status) {
      show(flight, download);
      status = fetch_all(download, upstream, source, &info, &args, &flight->call, &digest, err);
    }
    if (!status) flight_set_phase(flight, MC_PHASE_VERIFYING, "making it durable");
  }
  upstream->ops->source_close(source);
  if (status) return status;
  mc_entry *entry = entry_of(run, download, &digest);
  if (!entry) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an entry");
  if (!status && !file) {
    status = entry_record(cache, flight->key, entry, err); /* first: see entry.c */
    if (!status) status = download_commit(download, &digest, err);
    if (!status) {
      stat_add(cache, STAT_DOWNLOADS, 1);
      struct tier *damaged = NULL;
      status = file_open(&file, cache, entry, true, false, &damaged, err);
    }
  }
  if (status) {
    free(entry);
    return status;
  }
  mc_file_release(run->file);
  run->file = file;
  status = publish(run, entry, file == NULL || mc_file_was_cached(file), err);
  return status;
}

/* Ask the upstreams in turn, until one has given what is current now. */
static mc_status bring_up_to_date(struct run *run, struct download *download, mc_error *err) {
  mc_upstream *upstreams[MAX_UPSTREAMS];
  size_t count;
  mc_status status = route(upstreams, &count, run->cache, run->flight->url, err);
  if (status) return status;
  int restarts = 0;
  for (size_t i = 0; i < count;) {
    status = attempt(run, download, upstreams[i], err);
    if (status == MC_CHANGED && restarts++ < MAX_RESTARTS) {
      stat_add(run->cache, STAT_RESTARTS, 1);
      hide(run->flight);
      download_reset(download);
      continue;
    }
    if (status == MC_OK || !route_goes_on(upstreams[i], status) || ++i == count) break;
    stat_add(run->cache, STAT_FALLBACKS, 1);
    char url[256];
    log_info(run->cache->logger, ORIGIN, "%s: %s; going to the origin",
             url_printable(url, sizeof(url), run->flight->url), err->message);
  }
  return status;
}

/* Whether the copy at hand may be served although it could not be revalidated. */
static bool stale_will_do(struct run *run, mc_status status) {
  if (!status || !run->file || status == MC_NOT_FOUND || status == MC_PERMISSION_DENIED || status == MC_CANCELLED)
    return false;
  int64_t limit = run->cache->options.stale_if_error_ms;
  return limit < 0 || clock_wall_ms() - run->entry->checked_at < limit;
}

/* Look at what is known and at hand. A damaged object becomes the download's stage. */
static mc_status look(struct run *run, struct download *download, mc_error *err) {
  struct mc_cache *cache = run->cache;
  struct tier *damaged = NULL;
  free(run->entry);
  run->entry = NULL;
  mc_status status = entry_load(&run->entry, cache, run->flight->key, err);
  if (status == MC_NOT_FOUND || status) return status == MC_NOT_FOUND ? MC_OK : status;
  if (!run->entry->has_digest) return MC_OK;
  flight_set_phase(run->flight, MC_PHASE_VERIFYING, "verifying the stored copy");
  status = file_open(&run->file, cache, run->entry, true, true, &damaged, err);
  if (status == MC_CORRUPT && damaged == cache->home && !download->stage) {
    mc_stage *stage;
    void *meta = NULL;
    size_t size = 0;
    mc_chunk_table *table = NULL;
    mc_storage *storage = tier_storage(cache->home);
    if (storage->ops->read_meta(storage, &run->entry->digest, &meta, &size, (size_t)256 << 20, NULL) == MC_OK &&
        chunk_table_decode(&table, &run->entry->digest, meta, size, NULL) == MC_OK &&
        tier_restage(cache->home, &run->entry->digest, run->flight->key, &stage, NULL) == MC_OK) {
      download_adopt(download, stage, run->entry, table);
    }
    free(meta);
    free(table);
    return MC_OK;
  }
  return status == MC_NOT_FOUND || status == MC_CORRUPT ? MC_OK : status;
}

static mc_status fly(struct run *run, struct download *download, mc_error *err) {
  struct mc_cache *cache = run->cache;
  struct flight *flight = run->flight;
  for (;;) {
    mc_status status = look(run, download, err);
    if (status) return status;
    pthread_mutex_lock(&cache->lock);
    bool revalidate = flight->revalidate;
    bool pins = flight->pin || flight->unpin;
    pthread_mutex_unlock(&cache->lock);
    if (run->entry && !revalidate && !pins && entry_is_fresh(cache, run->entry)) {
      if (run->file) return MC_OK;
      if (run->entry->missing) {
        return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "the upstream said a moment ago that it does not exist");
      }
    }
    status = cache->coordination->ops->claim(cache->coordination, flight->key, &run->claim, err);
    if (status || run->claim.granted) {
      if (!status) {
        flight_set_claim(flight, run->claim.token);
        status = bring_up_to_date(run, download, err);
        flight_set_claim(flight, 0);
      }
      if (status == MC_NOT_FOUND) {
        mc_file_release(run->file);
        run->file = NULL;
        remember_missing(run);
      }
      return status;
    }
    flight_set_phase(flight, MC_PHASE_WAITING, "another process downloads it");
    mc_file_release(run->file);
    run->file = NULL;
    status = cache->coordination->ops->wait(cache->coordination, flight->key, run->claim.token, &flight->call, err);
    if (status) return status;
  }
}

static void flight_job(struct work_job *job) {
  struct flight *flight = ((struct flight_work *)job)->flight;
  free(job);
  struct mc_cache *cache = flight->cache;
  struct run run = {.flight = flight, .cache = cache};
  mc_error error = MC_ERROR_INIT;
  struct download *download = NULL;
  mc_status status = mc_call_check(&flight->call, &error);
  if (!status) status = download_new(&download, cache, &flight->call, &error);
  if (!status) {
    download->tier = cache->home;
    pthread_mutex_lock(&flight->lock);
    flight->download = download; /* freed with the flight */
    pthread_mutex_unlock(&flight->lock);
    if (!cache->home) {
      status = mc_error_set(&error, MC_UNSUPPORTED, ORIGIN,
                            "this cache keeps nothing (storage is 'none'): get it into a path or a buffer");
    } else {
      status = fly(&run, download, &error);
    }
    if (stale_will_do(&run, status)) {
      char url[256];
      log_warn(cache->logger, ORIGIN, "%s: serving the copy of before: %s",
               url_printable(url, sizeof(url), flight->url), error.message);
      stat_add(cache, STAT_STALE, 1);
      status = MC_OK;
    }
    if (run.claim.granted) cache->coordination->ops->abandon(cache->coordination, flight->key, run.claim.token);
    download_close(download);
  }
  mc_file *file = status ? NULL : run.file;
  if (status) mc_file_release(run.file);
  if (!status) stat_add(cache, mc_file_was_cached(file) ? STAT_HITS : STAT_MISSES, 1);
  flight_end(flight, status, file, &error);
  free(run.entry);
  flight_release(flight);
}

/* ---- direct ---- */

static mc_status direct_from(struct mc_request *request, struct download *download, mc_upstream *upstream,
                             const mc_call *call, mc_digest *digest, mc_error *err) {
  mc_open_args args = {.url = request->url};
  mc_source *source = NULL;
  mc_info info = {.size = MC_SIZE_UNKNOWN};
  mc_status status = upstream->ops->source_open(upstream, &args, &source, &info, call, err);
  if (status) return status;
  if (request->options.buffer && info.size != MC_SIZE_UNKNOWN && info.size > request->options.buffer_size) {
    status =
        mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "the buffer of %zu bytes is smaller than the file of %llu",
                     request->options.buffer_size, (unsigned long long)info.size);
  }
  if (!status) status = download_begin(download, request->key, &info, err);
  if (!status) status = fetch_all(download, upstream, source, &info, &args, call, digest, err);
  upstream->ops->source_close(source);
  return status;
}

mc_status flight_direct(mc_file **out, struct mc_request *request, mc_error *err) {
  struct mc_cache *cache = request->cache;
  mc_call call = {request->deadline, request->cancel};
  mc_upstream *upstreams[MAX_UPSTREAMS];
  size_t count;
  struct download *download;
  mc_digest digest;
  char *temporary = NULL;
  mc_status status = route(upstreams, &count, cache, request->url, err);
  if (!status) status = download_new(&download, cache, &call, err);
  if (status) return status;
  if (request->options.buffer) {
    download->memory = request->options.buffer;
    download->memory_size = request->options.buffer_size;
  } else {
    int error = file_draft(&download->fd, &temporary, request->path);
    if (error) status = mc_error_errno(err, error, ORIGIN, "can't write %s", request->path);
  }
  int restarts = 0;
  for (size_t i = 0; i < count && !status;) {
    status = direct_from(request, download, upstreams[i], &call, &digest, err);
    if (status == MC_OK) break;
    bool again = status == MC_CHANGED && restarts++ < MAX_RESTARTS;
    if (again) download_reset(download);
    if (!again && (!route_goes_on(upstreams[i], status) || ++i == count)) break;
    status = MC_OK;
  }
  bool drafted = request->path && download->fd >= 0;
  if (!status && drafted && ftruncate(download->fd, (off_t)download->size)) {
    status = mc_error_errno(err, errno, ORIGIN, "can't set the size of %s", request->path);
  }
  if (!status && drafted) {
    int error = file_publish(download->fd, temporary, request->path);
    if (error) status = mc_error_errno(err, error, ORIGIN, "can't write %s", request->path);
  } else {
    file_discard(temporary);
  }
  int fd = download->fd;
  if (!status) {
    stat_add(cache, STAT_DOWNLOADS, 1);
    stat_add(cache, STAT_MISSES, 1);
    mc_entry entry = {.size = download->size, .has_digest = true, .digest = digest, .validators = download->validators};
    *out = file_of_destination(fd, request->options.buffer, &entry, download_table(download), request->path);
    if (!*out) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a file");
  } else if (fd >= 0) {
    close(fd);
  }
  download_close(download);
  download_free(download);
  return status;
}
