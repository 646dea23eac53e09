/* Requests: from mc_get_start to `done`. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/io.h"
#include "base/url.h"
#include "engine/engine.h"
#include "engine/promote.h"

/* Waiters are told so often though nothing has changed: with each tick of the clock while they are few. */
#define FEW             64
#define PAUSE_OF_FEW_MS 200
#define PAUSE_MS        1000

#define BUFFER_PIECE    ((size_t)64 << 20) /* is read at once: between them it can be cancelled */

void mc_get_options_init(mc_get_options *options) {
  *options = (mc_get_options)MC_GET_OPTIONS_INIT;
}

/* The caller's struct may be an older, shorter one. */
static void copy_options(mc_get_options *to, const mc_get_options *from) {
  memcpy(to, from, from->struct_size < sizeof(*to) ? from->struct_size : sizeof(*to));
}

void mc_request_release(mc_request *request) {
  if (!request || atomic_fetch_sub_explicit(&request->references, 1, memory_order_acq_rel) != 1) return;
  free(request->url);
  free(request->path);
  free(request->hint);
  free(request);
}

void request_end(struct mc_request *request, mc_status status, mc_file *file, const mc_error *error) {
  static const mc_error none = MC_ERROR_INIT;
  if (status) stat_add(request->cache, STAT_ERRORS, 1);
  request->done(request->user, status, file, error ? error : &none);
  mc_request_release(request);
}

/* ---- into a path or a buffer ---- */

/* Whether a request that no flight looks after is to go on. */
static mc_status check(struct mc_request *request, mc_error *err) {
  struct mc_cache *cache = request->cache;
  mc_call call = {request->deadline, request->options.cancel};
  pthread_mutex_lock(&cache->lock);
  bool cancelled = request->cancelled, closing = cache->closing;
  pthread_mutex_unlock(&cache->lock);
  if (cancelled) return mc_error_set(err, MC_CANCELLED, ORIGIN, "the call was cancelled");
  if (closing) return mc_error_set(err, MC_CANCELLED, ORIGIN, "the cache is closing");
  return mc_call_check(&call, err);
}

static bool go_on(void *arg) {
  return check(arg, NULL) == MC_OK;
}

static mc_status copy_to_path(struct mc_request *request, mc_error *err) {
  char *temporary;
  const mc_file *file = request->file;
  const char *path = request->path;
  int fd, error = file_draft(&fd, &temporary, path);
  if (error) return mc_error_errno(err, error, ORIGIN, "can't write %s", path);
  error = copy_fd_while(mc_file_fd(file), fd, mc_file_size(file), go_on, request);
  if (error) {
    file_discard(temporary);
  } else {
    error = file_publish(fd, temporary, path);
  }
  close(fd);
  mc_status status = error == ECANCELED ? check(request, err) : MC_OK;
  if (status || !error) return status;
  return mc_error_errno(err, error, ORIGIN, "can't write %s", path);
}

static mc_status copy_to_buffer(struct mc_request *request, mc_error *err) {
  mc_file *file = request->file;
  uint64_t size = mc_file_size(file);
  if (size > request->options.buffer_size) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "the buffer of %zu bytes is smaller than the file of %llu",
                        request->options.buffer_size, (unsigned long long)size);
  }
  mc_status status = MC_OK;
  for (uint64_t at = 0; at < size && !status;) {
    size_t got, piece = size - at < BUFFER_PIECE ? (size_t)(size - at) : BUFFER_PIECE;
    status = check(request, err);
    if (!status) status = mc_file_read(file, at, (char *)request->options.buffer + at, piece, &got, err);
    at += piece;
  }
  return status;
}

static bool has_destination(const struct mc_request *request) {
  return request->path || request->options.buffer;
}

static struct mc_request *request_of(struct work_job *job) {
  return (struct mc_request *)((char *)job - offsetof(struct mc_request, job));
}

static void deliver_job(struct work_job *job) {
  struct mc_request *request = request_of(job);
  mc_error error = MC_ERROR_INIT;
  mc_file *file = request->file;
  mc_status status = request->path ? copy_to_path(request, &error) : copy_to_buffer(request, &error);
  if (status) mc_file_release(file);
  request_end(request, status, status ? NULL : file, &error);
}

static void submit(struct mc_request *request, struct work *pool, void (*run)(struct work_job *job)) {
  mc_error error = MC_ERROR_INIT;
  request->job.run = run;
  mc_status status = work_submit(pool, &request->job, &error);
  if (!status) return;
  mc_file_release(request->file);
  request_end(request, status, NULL, &error);
}

void request_deliver(struct mc_request *request, mc_file *file) {
  if (!has_destination(request)) {
    request_end(request, MC_OK, file, NULL);
    return;
  }
  request->file = file;
  submit(request, request->cache->job_pool, deliver_job);
}

/* Straight to the caller's place, keeping nothing. */
static void go_direct(struct mc_request *request) {
  mc_error error = MC_ERROR_INIT;
  mc_status status = flight_start_direct(request, &error);
  if (status) request_end(request, status, NULL, &error);
}

void request_finish(struct mc_request *request, mc_status status, mc_file *file, const mc_error *error) {
  if (status == MC_NO_SPACE && has_destination(request) && !request->direct) {
    go_direct(request);
  } else if (status || request->direct) {
    request_end(request, status, file, status ? error : NULL);
  } else {
    request_deliver(request, file);
  }
}

/* ---- starting ---- */

static mc_status open_current(mc_file **out, struct mc_request *request, const mc_call *call, mc_error *err) {
  struct mc_cache *cache = request->cache;
  mc_entry *entry = NULL;
  struct tier *damaged = NULL;
  mc_status status = entry_load(&entry, cache, request->key, err);
  if (!status && !entry->has_digest) status = MC_NOT_FOUND;
  if (!status) status = file_open(out, cache, entry, true, &damaged, call, err);
  free(entry);
  if (status != MC_NOT_FOUND && status != MC_CORRUPT) return status;
  return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "it is not in the cache, and only the cache was asked");
}

/* Only what is here: looked up by a job, as that may read records and verify. */
static void cached_job(struct work_job *job) {
  struct mc_request *request = request_of(job);
  struct mc_cache *cache = request->cache;
  mc_error error = MC_ERROR_INIT;
  mc_file *file = NULL;
  mc_call call = {request->deadline, request->options.cancel};
  const mc_digest *digest = request->options.digest;
  mc_status status = check(request, &error);
  if (!status) {
    status = digest ? version_open(&file, cache, request->url, digest, &call, &error)
                    : open_current(&file, request, &call, &error);
  }
  if (!status) file_count_hits(file, cache, 1);
  if (!status) promote_consider(cache, file);
  if (status) {
    request_end(request, status, NULL, &error);
  } else if (has_destination(request)) {
    request->file = file;
    deliver_job(job);
  } else {
    request_end(request, MC_OK, file, NULL);
  }
}

/* Whether a copy at hand may be all that it takes. */
static bool may_be_at_hand(const struct mc_request *request) {
  uint32_t flags = request->options.flags;
  if (request->options.digest || flags & (MC_GET_PIN | MC_GET_UNPIN)) return false;
  return !(flags & MC_GET_REVALIDATE) || request->hint;
}

/* What needs no upstream, and no thread but where a look-up may block: true if the request has ended. */
static bool try_at_hand(struct mc_request *request) {
  struct mc_cache *cache = request->cache;
  uint32_t flags = request->options.flags;
  mc_entry *entry = NULL;
  mc_file *file = NULL;
  struct tier *damaged = NULL;
  mc_error error = MC_ERROR_INIT;
  bool ended = false;
  if (coordination_is_shared(cache)
          ? entry_load(&entry, cache, request->key, NULL)
          : cache->coordination->ops->lookup(cache->coordination, request->key, &entry, NULL)) {
    return false;
  }
  enum hint_says says = hint_judge(request->hint, entry);
  bool fresh = entry_is_fresh(cache, entry) && !(flags & MC_GET_REVALIDATE) && says != HINT_OTHER && says != HINT_DOUBT;
  bool stale = !fresh && cache->options.stale_while_revalidate && entry->has_digest && !request->hint;
  if (says == HINT_SAME && !request->hint->from) fresh = true; /* enough for this caller, and no news for others */
  if (entry->missing && fresh && !request->hint) {
    mc_error_set(&error, MC_NOT_FOUND, ORIGIN, "the upstream said a moment ago that it does not exist");
    request_end(request, MC_NOT_FOUND, NULL, &error);
    ended = true;
  } else if ((fresh || stale) && !entry->missing &&
             file_open(&file, cache, entry, true, &damaged, NULL, &error) == MC_OK) {
    file_count_hits(file, cache, 1);
    if (stale) {
      stat_add(cache, STAT_STALE, 1);
      flight_join(cache, request->url, request->key, NULL, 0, NULL);
    }
    promote_consider(cache, file);
    request_deliver(request, file);
    ended = true;
  }
  free(entry);
  return ended;
}

/* By a flight. */
static void fetch(struct mc_request *request) {
  struct mc_cache *cache = request->cache;
  bool direct = request->options.flags & MC_GET_DIRECT || (!cache->home && has_destination(request));
  if (request->options.digest && !cache->client) direct = false; /* it is here, or nowhere */
  if (direct) {
    go_direct(request);
  } else {
    mc_error error = MC_ERROR_INIT;
    mc_status status = flight_join(cache, request->url, request->key, request, request->options.flags, &error);
    if (status) request_end(request, status, NULL, &error);
  }
}

/* Each request looks for itself before it joins: a flight that asks, or downloads, makes nobody wait for whom the copy
 * at hand will do. What has to be verified first is left to the flight, which does it once. */
static void look_job(struct work_job *job) {
  struct mc_request *request = request_of(job);
  mc_error error = MC_ERROR_INIT;
  mc_status status = check(request, &error);
  if (status) {
    request_end(request, status, NULL, &error);
  } else if (flight_is_bare(request->cache, request->key) || !try_at_hand(request)) {
    fetch(request);
  }
}

/* It is of one version: another key than the URL's, and nothing that is for the current one. */
static mc_status take_digest(struct mc_request *request, mc_error *err) {
  request->digest = *request->options.digest;
  request->options.digest = &request->digest;
  version_key(request->key, request->url, &request->digest);
  if (!(request->options.flags & (MC_GET_REVALIDATE | MC_GET_PIN | MC_GET_UNPIN))) return MC_OK;
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a version by its digest can't be revalidated or pinned");
}

static mc_status request_new(struct mc_request **out, struct mc_cache *cache, const char *url,
                             const mc_get_options *options, mc_done done, void *user, mc_error *err) {
  struct mc_request *request = calloc(1, sizeof(*request));
  if (!request) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
  atomic_init(&request->references, 2);
  request->cache = cache;
  mc_get_options_init(&request->options);
  if (options) copy_options(&request->options, options);
  request->deadline = deadline_in_ms(request->options.timeout_ms);
  request->done = done;
  request->user = user;
  request->options.listed = NULL; /* was copied, if it is looked at */
  mc_status status = url_normalise(&request->url, url, err);
  if (!status) key_of_url(request->key, request->url);
  if (!status && request->options.digest) status = take_digest(request, err);
  if (!status && request->options.path && request->options.buffer) {
    status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a get goes into a path or a buffer, not both");
  }
  if (!status && request->options.flags & MC_GET_DIRECT && !request->options.path && !request->options.buffer) {
    status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a direct get needs a path or a buffer");
  }
  if (!status && request->options.path && !(request->path = strdup(request->options.path))) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
  }
  if (status) {
    free(request->url);
    free(request->path);
    free(request);
    return status;
  }
  *out = request;
  return MC_OK;
}

mc_status request_start(mc_request **out, struct mc_cache *cache, const char *url, const mc_get_options *options,
                        struct hint *hint, mc_done done, void *user, mc_error *err) {
  struct mc_request *request = NULL;
  mc_status status = request_new(&request, cache, url, options, done, user, err);
  if (status) {
    free(hint);
    return status;
  }
  request->hint = hint;
  stat_add(cache, STAT_GETS, 1);
  if (out) {
    *out = request;
  } else {
    atomic_fetch_sub(&request->references, 1);
  }
  uint32_t flags = request->options.flags;
  bool shared = coordination_is_shared(cache);
  if (flags & MC_GET_CACHED) {
    submit(request, cache->job_pool, cached_job);
  } else if (!may_be_at_hand(request) || (shared && flight_is_bare(cache, request->key))) {
    fetch(request);
  } else if (shared) { /* a look-up may block */
    submit(request, cache->look_pool, look_job);
  } else if (!try_at_hand(request)) {
    fetch(request);
  }
  return MC_OK;
}

mc_status mc_get_start(mc_request **out, mc_cache *cache, const char *url, const mc_get_options *options, mc_done done,
                       void *user, mc_error *err) {
  struct hint *hint = NULL;
  mc_get_options own;
  mc_get_options_init(&own);
  if (options) copy_options(&own, options);
  if (own.listed && !(hint = hint_new(own.listed, NULL, 0))) {
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
  }
  return request_start(out, cache, url, &own, hint, done, user, err);
}

/* ---- leaving ---- */

/* Take a waiting request out of its flight, which ends with its last one. With cache->lock held. */
static void leave_flight(struct mc_request *request) {
  struct flight *flight = request->flight;
  struct mc_cache *cache = request->cache;
  DL_DELETE(flight->waiters, request);
  request->flight = NULL;
  cache->waiting--;
  if (flight->waiters || flight->detached || !(flight->joinable || flight->direct)) return;
  if (flight->joinable) HASH_DEL(cache->flights, flight);
  flight->joinable = false;
  mc_cancel_trigger(flight->cancel);
}

/* End a request that waits for a flight, or have its own flight end. */
static void request_stop(struct mc_request *request, mc_status why, const char *message) {
  struct mc_cache *cache = request->cache;
  mc_error error = MC_ERROR_INIT;
  mc_error_set(&error, why, ORIGIN, "%s", message);
  pthread_mutex_lock(&cache->lock);
  bool waits = request->flight && !request->flight->writes, end = false;
  request->cancelled |= why == MC_CANCELLED; /* for a flight that is about to be started for it */
  if (request->flight && !waits) {
    mc_cancel_trigger(request->flight->cancel); /* it still writes to the caller's memory: its end is the request's */
  } else if (waits) {
    leave_flight(request);
    end = !request->in_callback;
    if (end) request->state = REQUEST_DONE;
    request->completed = !end;
    request->status = why;
    request->error = error;
  }
  pthread_mutex_unlock(&cache->lock);
  if (end) request_end(request, why, NULL, &error);
}

void mc_request_cancel(mc_request *request) {
  request_stop(request, MC_CANCELLED, "the call was cancelled");
}

/* ---- the clock's part ---- */

/* Tell one waiter how it goes; with cache->lock held, which is let go of meanwhile. */
static void report(struct mc_cache *cache, struct mc_request *request, const mc_progress *progress) {
  request->in_callback = true;
  pthread_mutex_unlock(&cache->lock);
  request->options.progress(request->options.user, progress);
  pthread_mutex_lock(&cache->lock);
  request->in_callback = false;
  if (!request->completed) return;
  request->completed = false; /* it may go on to wait for a direct flight, and be reported to again */
  request->state = REQUEST_DONE;
  mc_file *file = request->file;
  request->file = NULL;
  pthread_mutex_unlock(&cache->lock);
  request_finish(request, request->status, file, &request->error);
  pthread_mutex_lock(&cache->lock);
}

/* Whether there is something to tell. With cache->lock held. */
static bool has_news(struct flight *flight, const mc_progress *now_is, int64_t now) {
  int64_t pause_ms = flight->cache->waiting <= FEW ? PAUSE_OF_FEW_MS : PAUSE_MS;
  const mc_progress *told = &flight->told;
  bool news = now_is->phase != told->phase || strcmp(now_is->reason, flight->told_reason) != 0 ||
              now_is->bytes != told->bytes || now_is->total != told->total ||
              memcmp(now_is->flight, told->flight, sizeof(told->flight)) != 0;
  if (!news && now - flight->told_at < pause_ms * NS_PER_MS) return false;
  flight->told = *now_is;
  snprintf(flight->told_reason, sizeof(flight->told_reason), "%s", now_is->reason);
  flight->told_at = now;
  return true;
}

/* Look after one waiter; with cache->lock held, which is let go of meanwhile. */
static void look_after(struct mc_cache *cache, struct mc_request *request, const mc_progress *progress, bool news,
                       int64_t now) {
  struct flight *flight = request->flight;
  bool cancelled = mc_cancel_triggered(request->options.cancel);
  if (cancelled || (request->deadline <= now && !flight->writes)) { /* else the flight has the deadline itself */
    pthread_mutex_unlock(&cache->lock);
    request_stop(request, cancelled ? MC_CANCELLED : MC_DEADLINE_EXCEEDED,
                 cancelled ? "the call was cancelled" : "the call's deadline has passed");
    pthread_mutex_lock(&cache->lock);
    return;
  }
  int64_t due = request->options.cancel ? now + WATCH_MS * NS_PER_MS : INT64_MAX;
  if (!flight->writes) due = deadline_earlier(due, request->deadline);
  flight->due = deadline_earlier(flight->due, due);
  if (!request->options.progress || (!news && request->told)) return;
  request->told = true;
  report(cache, request, progress);
}

int64_t requests_tick(struct mc_cache *cache, struct flight *flight, int64_t now) {
  mc_progress progress;
  char reason[REASON_SIZE], endpoint[MC_ENDPOINT_SIZE];
  flight_progress(flight, &progress, reason, endpoint);
  pthread_mutex_lock(&cache->lock);
  bool news = has_news(flight, &progress, now);
  struct mc_request *request;
  if (news || flight->due <= now) {
    flight->due = INT64_MAX;
    flight->round++;
    while ((request = flight->waiters) && request->round != flight->round) {
      request->round = flight->round;
      DL_DELETE(flight->waiters, request); /* to the end: the list is a ring, while others come and go */
      DL_APPEND(flight->waiters, request);
      atomic_fetch_add(&request->references, 1);
      look_after(cache, request, &progress, news, now);
      mc_request_release(request);
    }
  }
  int64_t next = flight->due;
  pthread_mutex_unlock(&cache->lock);
  return next;
}

/* ---- blocking ---- */

struct blocking {
  mc_status status;
  mc_file *file;
  mc_error error;
  int event;
};

static void blocking_done(void *user, mc_status status, mc_file *file, const mc_error *error) {
  struct blocking *call = user;
  uint64_t one = 1;
  call->status = status;
  call->file = file;
  call->error = *error;
  while (write(call->event, &one, sizeof(one)) < 0 && errno == EINTR) continue;
}

mc_status mc_get(mc_file **out, mc_cache *cache, const char *url, const mc_get_options *options, mc_error *err) {
  struct blocking call = {.event = eventfd(0, EFD_CLOEXEC)};
  mc_request *request;
  mc_get_options own;
  mc_get_options_init(&own);
  if (options) copy_options(&own, options);
  mc_cancel *cancel = own.cancel;
  own.cancel = NULL; /* this thread looks after it */
  if (call.event < 0) return mc_error_errno(err, errno, ORIGIN, "can't make an eventfd");
  mc_status status = mc_get_start(&request, cache, url, &own, blocking_done, &call, err);
  if (status) {
    close(call.event);
    return status;
  }
  struct pollfd fds[2] = {{.fd = call.event, .events = POLLIN}, {.fd = mc_cancel_fd(cancel), .events = POLLIN}};
  while (!(fds[0].revents & POLLIN)) {
    if (poll(fds, 2, -1) > 0 && fds[1].revents) {
      mc_request_cancel(request);
      fds[1].fd = -1;
      fds[1].revents = 0;
    }
  }
  uint64_t count;
  while (read(call.event, &count, sizeof(count)) < 0 && errno == EINTR) continue; /* after the callback's write ended */
  mc_request_release(request);
  close(call.event);
  if (call.status) {
    if (err) *err = call.error;
  } else if (out) {
    *out = call.file;
  } else {
    mc_file_release(call.file);
  }
  return call.status;
}
