#include "engine/refresh.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/url.h"

#define MOST_URLS    65536 /* further ones are checked only when they are asked for */
#define MOST_FLIGHTS 4     /* at once; and a quarter of all */
#define MOST_LOOKS   64    /* by one job, which others may wait behind */

/* One that is looked after. */
struct tended {
  int64_t next; /* when it is due: wall-clock milliseconds */
  UT_hash_handle hh;
  char text[];
};

struct refresher {
  struct mc_cache *cache;
  pthread_mutex_t lock; /* a leaf */
  struct tended *urls;  /* those that were looked at last come last */
  int64_t due;          /* when the first one is; INT64_MAX: none */
  bool told_full;
  bool runs;   /* the job is queued, or runs */
  bool kicked; /* since it began */
  struct work_job job;
};

/* How long after a check the next one is due; negative: never. */
static int64_t period_of(const struct mc_cache *cache, const char *url) {
  int64_t period = cache->options.refresh_ms, least = route_rule(cache, url).revalidate_after_ms;
  if (period <= 0 || least < 0) return -1;
  return least > period ? least : period;
}

/* A tenth of the period is chance: neither all URLs nor all processes are due at once. */
static int64_t jitter(int64_t period) {
  uint32_t random;
  random_bytes(&random, sizeof(random));
  return period / 10 ? random % (period / 10) : 0;
}

/* ---- the table ---- */

/* With the lock held. */
static struct tended *find(struct refresher *refresher, const char *text) {
  struct tended *url;
  HASH_FIND(hh, refresher->urls, text, strlen(text), url);
  return url;
}

/* With the lock held: false if it is full. */
static bool add(struct refresher *refresher, const char *text, int64_t next) {
  if (HASH_COUNT(refresher->urls) >= MOST_URLS) return false;
  size_t length = strlen(text);
  struct tended *url = malloc(sizeof(*url) + length + 1);
  if (!url) return false;
  memcpy(url->text, text, length + 1);
  url->next = next;
  unsigned before = HASH_COUNT(refresher->urls);
  HASH_ADD(hh, refresher->urls, text[0], length, url);
  if (HASH_COUNT(refresher->urls) > before) {
    if (next < refresher->due) refresher->due = next;
    return true;
  }
  free(url);
  return false;
}

static void drop(struct refresher *refresher, const char *text) {
  pthread_mutex_lock(&refresher->lock);
  struct tended *url = find(refresher, text);
  if (url) HASH_DEL(refresher->urls, url);
  pthread_mutex_unlock(&refresher->lock);
  free(url);
}

static void put_off(struct refresher *refresher, const char *text, int64_t next) {
  pthread_mutex_lock(&refresher->lock);
  struct tended *url = find(refresher, text);
  if (url) url->next = next;
  pthread_mutex_unlock(&refresher->lock);
}

/* A copy of a URL that is due, which isn't from now on and comes last; NULL: none is, and refresher->due is when. */
static char *take_due(struct refresher *refresher, int64_t now) {
  struct tended *url, *next;
  char *text = NULL;
  pthread_mutex_lock(&refresher->lock);
  refresher->due = INT64_MAX;
  HASH_ITER(hh, refresher->urls, url, next) {
    if (url->next <= now) break;
    if (url->next < refresher->due) refresher->due = url->next;
  }
  if (url) {
    size_t length = strlen(url->text);
    text = strdup(url->text);
    refresher->due = now;
    url->next = now + refresher->cache->options.refresh_ms;
    HASH_DEL(refresher->urls, url);
    unsigned before = HASH_COUNT(refresher->urls);
    HASH_ADD(hh, refresher->urls, text[0], length, url);
    if (HASH_COUNT(refresher->urls) == before) free(url);
  }
  pthread_mutex_unlock(&refresher->lock);
  return text;
}

/* false: there is no room for it. */
static bool note(struct mc_cache *cache, const mc_entry *entry) {
  struct refresher *refresher = cache->refresher;
  if (!refresher || !cache->home || !(entry->pinned || entry_is_watched(cache, entry->url))) return true;
  int64_t period = period_of(cache, entry->url), now = clock_wall_ms(), next = entry->checked_at + period;
  if (period < 0) return true;
  pthread_mutex_lock(&refresher->lock);
  bool there = find(refresher, entry->url) || add(refresher, entry->url, (next > now ? next : now) + jitter(period));
  bool tell = !there && !refresher->told_full;
  if (tell) refresher->told_full = true;
  pthread_mutex_unlock(&refresher->lock);
  if (tell) {
    log_warn(cache->logger, ORIGIN, "more than %d URLs are pinned or watched: the others are checked when asked for",
             MOST_URLS);
  }
  return there;
}

void refresh_note(struct mc_cache *cache, const mc_entry *entry) {
  note(cache, entry);
}

/* ---- the job ---- */

static bool note_listed(void *user, const mc_entry *entry) {
  return note(user, entry);
}

/* What is there already below prefixes that are watched since. */
static void look_through_prefixes(struct mc_cache *cache) {
  mc_coordination *coordination = cache->coordination;
  for (char *prefix; (prefix = watch_next_prefix(cache));) {
    mc_error error = MC_ERROR_INIT;
    if (coordination->ops->list(coordination, prefix, NULL, note_listed, cache, &error)) {
      log_info(cache->logger, ORIGIN, "what is watched can't be listed: %s", error.message);
    }
    free(prefix);
  }
}

static bool has_room(struct mc_cache *cache) {
  uint32_t quarter = cache->options.flights / 4, most = quarter < MOST_FLIGHTS ? quarter : MOST_FLIGHTS;
  pthread_mutex_lock(&cache->lock);
  bool room = cache->refreshing < (most ? most : 1) && !cache->closing;
  pthread_mutex_unlock(&cache->lock);
  return room;
}

/* Look at one that may be due. What is not stored any more is not brought back for those who only watch. */
static void check(struct mc_cache *cache, const char *url) {
  struct refresher *refresher = cache->refresher;
  char key[KEY_SIZE];
  mc_entry *entry;
  key_of_url(key, url);
  mc_status status = entry_load(&entry, cache, key, NULL);
  if (status == MC_NOT_FOUND) drop(refresher, url);
  if (status) return; /* later */
  int64_t period = period_of(cache, url), now = clock_wall_ms(), age = now - entry->checked_at;
  if (period < 0 || !(entry->pinned || entry_is_watched(cache, url))) {
    drop(refresher, url);
  } else if (age >= 0 && age < period) {
    put_off(refresher, url, entry->checked_at + period + jitter(period));
  } else {
    put_off(refresher, url, now + period + jitter(period));
    if (entry->pinned || entry->missing || (entry->has_digest && version_is_stored(cache, &entry->digest))) {
      flight_join(cache, url, key, NULL, FLIGHT_REFRESH, NULL);
    }
  }
  free(entry);
}

static void refresh_job(struct work_job *job) {
  struct refresher *refresher = (struct refresher *)((char *)job - offsetof(struct refresher, job));
  struct mc_cache *cache = refresher->cache;
  int64_t now = clock_wall_ms();
  bool room = true;
  pthread_mutex_lock(&refresher->lock);
  refresher->kicked = false;
  pthread_mutex_unlock(&refresher->lock);
  look_through_prefixes(cache);
  for (int i = 0; i < MOST_LOOKS && (room = has_room(cache)); i++) {
    char *url = take_due(refresher, now);
    if (!url) break;
    check(cache, url);
    free(url);
  }
  pthread_mutex_lock(&refresher->lock);
  if (!room) refresher->due = INT64_MAX; /* the end of a flight kicks */
  refresher->runs = false;
  pthread_mutex_unlock(&refresher->lock);
}

void refresh_tick(struct mc_cache *cache) {
  struct refresher *refresher = cache->refresher;
  if (!refresher) return;
  pthread_mutex_lock(&refresher->lock);
  bool due = !refresher->runs && (refresher->kicked || refresher->due <= clock_wall_ms());
  refresher->runs |= due;
  pthread_mutex_unlock(&refresher->lock);
  if (!due || work_submit(cache->job_pool, &refresher->job, NULL) == MC_OK) return;
  pthread_mutex_lock(&refresher->lock);
  refresher->runs = false;
  pthread_mutex_unlock(&refresher->lock);
}

void refresh_kick(struct mc_cache *cache) {
  struct refresher *refresher = cache->refresher;
  if (!refresher) return;
  pthread_mutex_lock(&refresher->lock);
  refresher->kicked = true;
  pthread_mutex_unlock(&refresher->lock);
  pthread_mutex_lock(&cache->lock);
  engine_kick_clock(cache);
  pthread_mutex_unlock(&cache->lock);
}

/* ---- lifetime ---- */

mc_status refresher_new(struct refresher **out, struct mc_cache *cache, mc_error *err) {
  if (cache->options.refresh_ms <= 0) return MC_OK;
  struct refresher *refresher = calloc(1, sizeof(*refresher));
  if (!refresher) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a refresher");
  pthread_mutex_init(&refresher->lock, NULL);
  refresher->cache = cache;
  refresher->due = INT64_MAX;
  refresher->job.run = refresh_job;
  *out = refresher;
  return MC_OK;
}

void refresher_free(struct refresher *refresher) {
  if (!refresher) return;
  struct tended *url, *next;
  HASH_ITER(hh, refresher->urls, url, next) {
    HASH_DEL(refresher->urls, url);
    free(url);
  }
  pthread_mutex_destroy(&refresher->lock);
  free(refresher);
}
