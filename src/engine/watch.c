/* Watchers: those of this process's cache are told by whoever publishes; a client's have a thread each, which has the
 * service tell it. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "engine/engine.h"
#include "engine/refresh.h"

#define FIRST_PAUSE_MS 100 /* before a service that was lost is called again; doubles */
#define MOST_PAUSE_MS  10000

struct mc_watcher {
  struct mc_cache *cache;
  void (*changed)(void *user, const mc_entry *entry);
  void *user;
  /* of a client's: */
  mc_cancel *cancel;
  pthread_t thread;
  bool told; /* since the service was called: the thread's own */
  /* of the others, under watch_lock: */
  bool listed; /* what is there already is known to the refresher */
  struct mc_watcher *prev, *next;
  char prefix[];
};

static bool watches(const struct mc_watcher *watcher, const char *url) {
  size_t length = strlen(watcher->prefix);
  if (strncmp(url, watcher->prefix, length) != 0) return false;
  return length == 0 || watcher->prefix[length - 1] == '/' || url[length] == 0;
}

void entry_announce(struct mc_cache *cache, const mc_entry *entry) {
  struct mc_watcher *watcher;
  pthread_mutex_lock(&cache->watch_lock);
  DL_FOREACH(cache->watchers, watcher) {
    if (!entry || watches(watcher, entry->url)) watcher->changed(watcher->user, entry);
  }
  pthread_mutex_unlock(&cache->watch_lock);
}

bool entry_is_watched(struct mc_cache *cache, const char *url) {
  struct mc_watcher *watcher;
  pthread_mutex_lock(&cache->watch_lock);
  DL_FOREACH(cache->watchers, watcher) {
    if (watches(watcher, url)) break;
  }
  pthread_mutex_unlock(&cache->watch_lock);
  return watcher != NULL;
}

char *watch_next_prefix(struct mc_cache *cache) {
  struct mc_watcher *watcher;
  char *prefix = NULL;
  pthread_mutex_lock(&cache->watch_lock);
  DL_FOREACH(cache->watchers, watcher) {
    if (!watcher->listed) break;
  }
  if (watcher) prefix = strdup(watcher->prefix);
  if (prefix) watcher->listed = true;
  pthread_mutex_unlock(&cache->watch_lock);
  return prefix;
}

/* ---- a client's ---- */

static void pass_on(void *user, const mc_entry *entry) {
  struct mc_watcher *watcher = user;
  watcher->told = true;
  watcher->changed(watcher->user, entry);
}

/* Between a half and the whole of it: those who lost the same server come back one by one. */
static void pause_for(const struct mc_watcher *watcher, int64_t ms) {
  uint32_t random;
  random_bytes(&random, sizeof(random));
  int64_t until = deadline_in_ms(ms / 2 + random % (ms / 2 + 1));
  struct pollfd cancelled = {.fd = mc_cancel_fd(watcher->cancel), .events = POLLIN};
  while (clock_ns() < until && !mc_cancel_triggered(watcher->cancel)) poll(&cancelled, 1, deadline_poll_ms(until));
}

static void *client_main(void *arg) {
  struct mc_watcher *watcher = arg;
  mc_upstream *service = watcher->cache->upstreams[0];
  mc_call call = {INT64_MAX, watcher->cancel};
  int64_t pause_ms = FIRST_PAUSE_MS;
  while (!mc_cancel_triggered(watcher->cancel)) {
    mc_error error = MC_ERROR_INIT;
    watcher->told = false;
    service->ops->cache->watch(service, watcher->prefix, pass_on, watcher, &call, &error);
    if (watcher->told) pause_ms = FIRST_PAUSE_MS;
    if (mc_cancel_triggered(watcher->cancel)) break;
    log_info(watcher->cache->logger, ORIGIN, "watching is interrupted: %s", error.message);
    pause_for(watcher, pause_ms);
    if ((pause_ms *= 2) > MOST_PAUSE_MS) pause_ms = MOST_PAUSE_MS;
  }
  return NULL;
}

static mc_status start_client(struct mc_watcher *watcher, mc_error *err) {
  mc_upstream *service = watcher->cache->upstreams[0];
  if (!service->ops->cache->watch) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "%s does not tell of changes", service->ops->name);
  }
  mc_status status = mc_cancel_new(&watcher->cancel, err);
  if (status) return status;
  int error = pthread_create(&watcher->thread, NULL, client_main, watcher);
  if (!error) return MC_OK;
  mc_cancel_free(watcher->cancel);
  return mc_error_errno(err, error, ORIGIN, "can't start a thread");
}

/* ---- both ---- */

mc_status mc_watch(mc_watcher **out, mc_cache *cache, const char *prefix,
                   void (*changed)(void *user, const mc_entry *entry), void *user, mc_error *err) {
  size_t size = strlen(prefix) + 1;
  struct mc_watcher *watcher = calloc(1, sizeof(*watcher) + size);
  if (!watcher) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a watcher");
  watcher->cache = cache;
  watcher->changed = changed;
  watcher->user = user;
  memcpy(watcher->prefix, prefix, size);
  mc_status status = cache->client ? start_client(watcher, err) : MC_OK;
  if (status) {
    free(watcher);
    return status;
  }
  if (!cache->client) {
    pthread_mutex_lock(&cache->watch_lock);
    DL_APPEND(cache->watchers, watcher);
    pthread_mutex_unlock(&cache->watch_lock);
    refresh_kick(cache);
  }
  *out = watcher;
  return MC_OK;
}

void mc_watch_end(mc_watcher *watcher) {
  if (!watcher) return;
  struct mc_cache *cache = watcher->cache;
  if (watcher->cancel) {
    mc_cancel_trigger(watcher->cancel);
    pthread_join(watcher->thread, NULL);
    mc_cancel_free(watcher->cancel);
  } else {
    pthread_mutex_lock(&cache->watch_lock);
    DL_DELETE(cache->watchers, watcher);
    pthread_mutex_unlock(&cache->watch_lock);
  }
  free(watcher);
}
