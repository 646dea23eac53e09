/* What other members do reaches this one as events, from a thread of the coordination's that must not be kept: what
 * might block is a job.
 *
 *   the coordination is …   means                                      becomes
 *   trusted                 it knows each URL as well as its record    in doubt, by a gap: it was out of reach, or lost
 *   in doubt                who looks a URL up reads its record, too   trusted, once all records have been compared
 *
 * A gap in the middle of that begins it anew; what fails is tried again later. */
#include "engine/news.h"

#include <stdlib.h>
#include <string.h>

#include "engine/ledger.h"
#include "engine/member.h"
#include "engine/reconcile.h"

#define RETRY_MS      1000 /* after a failure; twice as much after each further one, up to: */
#define RETRY_MOST_MS (60 * 1000)
#define RESCAN_MS     (3 * 60 * 1000) /* between two looks through the storage, but at least: */
#define RESCAN_SHARE  10              /* times as long as the last one took */
#define SIGHTS_MOST   10000

/* An object that another member brought or dropped. */
struct sight {
  mc_digest digest;
  bool dropped;
};

struct news {
  struct mc_cache *cache;
  atomic_bool doubt, stopped;
  atomic_uint gaps;     /* counts them */
  unsigned gaps_seen;   /* by the reconciling under way; its own */
  pthread_mutex_t lock; /* of what is below */
  bool runs;            /* jobs may be submitted */
  bool wanted;          /* to reconcile */
  bool records, fill;   /* the records, too; as all entries were lost */
  bool reconciling, looking, rescanning;
  int64_t retry_at, retry_ms, rescan_at;
  struct sight *sights; /* SIGHTS_MOST, or NULL; more than that are left to the next rescan */
  size_t sight_count;
  struct work_job reconcile_job, look_job, rescan_job;
};

mc_status news_new(struct news **out, struct mc_cache *cache, mc_error *err) {
  struct news *news = calloc(1, sizeof(*news));
  if (!news) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for news");
  news->cache = cache;
  news->wanted = cache->home != NULL; /* what its entries need is to be listed once */
  pthread_mutex_init(&news->lock, NULL);
  *out = news;
  return MC_OK;
}

void news_free(struct news *news) {
  if (!news) return;
  free(news->sights);
  pthread_mutex_destroy(&news->lock);
  free(news);
}

bool news_in_doubt(const struct news *news) {
  return news && atomic_load(&news->doubt);
}

/* With the lock held. */
static void begin(struct news *news, bool *under_way, struct work_job *job, void (*run)(struct work_job *job)) {
  if (!news->runs || *under_way) return;
  job->run = run;
  *under_way = work_submit(news->cache->job_pool, job, NULL) == MC_OK; /* else the clock tries again */
}

/* ---- reconciling ---- */

static bool reconciling_goes_on(void *user) {
  struct news *news = user;
  return !atomic_load(&news->stopped) && atomic_load(&news->gaps) == news->gaps_seen;
}

static void tell_result(struct news *news, mc_status status, const mc_repair_result *found, const mc_error *error) {
  const mc_logger *logger = news->cache->logger;
  if (!status) coordination_found(news->cache);
  if (!status && found->records) {
    log_info(logger, ORIGIN,
             "the coordination was compared with the storage: of %llu records it lacked %llu, and had older entries of "
             "%llu",
             (unsigned long long)found->records, (unsigned long long)found->missing, (unsigned long long)found->older);
  } else if (coordination_is_out(news->cache, status)) {
    coordination_lost(news->cache, error);
  } else if (status && status != MC_CANCELLED) {
    log_warn(logger, ORIGIN, "the coordination can't be compared with the storage, which is tried again: %s",
             error->message);
  }
}

/* Whether it has to be done once more, at once. */
static bool reconcile_once(struct news *news) {
  mc_repair_result found = {0};
  mc_error error = MC_ERROR_INIT;
  struct reconcile how = {.go_on = reconciling_goes_on, .user = news, .deadline = INT64_MAX};
  pthread_mutex_lock(&news->lock);
  news->gaps_seen = atomic_load(&news->gaps);
  how.records = how.announce = news->records;
  how.fill = news->fill;
  pthread_mutex_unlock(&news->lock);
  mc_status status = reconcile(news->cache, &how, &found, &error);
  tell_result(news, status, &found, &error);
  if (!status && how.announce) entry_announce(news->cache, NULL); /* what went meanwhile nobody has told */
  pthread_mutex_lock(&news->lock);
  /* While it is out of reach that would fail at once, again and again; and that it is has counted as a gap. */
  bool out = coordination_is_out(news->cache, status);
  bool again = !out && atomic_load(&news->gaps) != news->gaps_seen && !atomic_load(&news->stopped);
  if (!again && !status) {
    news->wanted = news->records = news->fill = false;
    news->retry_ms = 0;
    atomic_store(&news->doubt, false);
  } else if (!again) {
    int64_t next = news->retry_ms ? 2 * news->retry_ms : RETRY_MS;
    news->retry_ms = next < RETRY_MOST_MS ? next : RETRY_MOST_MS;
    news->retry_at = clock_ns() + news->retry_ms * NS_PER_MS;
  }
  news->reconciling = again;
  pthread_mutex_unlock(&news->lock);
  return again;
}

static void reconcile_job(struct work_job *job) {
  struct news *news = (struct news *)((char *)job - offsetof(struct news, reconcile_job));
  while (reconcile_once(news)) continue;
}

/* ---- objects ---- */

/* What nobody needs any more takes no memory; and the home tier counts what its storage has. */
static void see(struct mc_cache *cache, const struct sight *sight) {
  if (sight->dropped && tier_is_referred(cache->home, &sight->digest)) return;
  for (size_t i = 0; i + 1 < cache->tier_count && sight->dropped; i++) {
    uint64_t bytes;
    tier_remove(cache->tiers[i], &sight->digest, &bytes, NULL);
    member_kick(cache->member);
  }
  tier_look(cache->home, &sight->digest);
}

static void look_job(struct work_job *job) {
  struct news *news = (struct news *)((char *)job - offsetof(struct news, look_job));
  pthread_mutex_lock(&news->lock);
  while (news->sight_count && !atomic_load(&news->stopped)) {
    struct sight *sights = news->sights;
    size_t count = news->sight_count;
    news->sights = NULL;
    news->sight_count = 0;
    pthread_mutex_unlock(&news->lock);
    for (size_t i = 0; i < count && !atomic_load(&news->stopped); i++) see(news->cache, &sights[i]);
    free(sights);
    pthread_mutex_lock(&news->lock);
  }
  news->looking = false;
  pthread_mutex_unlock(&news->lock);
}

/* With the lock held. */
static void add_sight(struct news *news, const mc_digest *digest, bool dropped) {
  if (!news->sights) news->sights = malloc(SIGHTS_MOST * sizeof(*news->sights));
  if (!news->sights || news->sight_count == SIGHTS_MOST) return;
  news->sights[news->sight_count++] = (struct sight){*digest, dropped};
  begin(news, &news->looking, &news->look_job, look_job);
}

static bool rescan_goes_on(void *user) {
  return !atomic_load(&((struct news *)user)->stopped);
}

static void rescan_job(struct work_job *job) {
  struct news *news = (struct news *)((char *)job - offsetof(struct news, rescan_job));
  mc_error error = MC_ERROR_INIT;
  int64_t begun = clock_ns();
  mc_status status = tier_rescan(news->cache->home, rescan_goes_on, news, &error);
  if (status && status != MC_CANCELLED) {
    log_warn(news->cache->logger, ORIGIN, "what others stored is not counted yet: %s", error.message);
  }
  int64_t now = clock_ns(), pause = RESCAN_SHARE * (now - begun);
  pthread_mutex_lock(&news->lock);
  news->rescan_at = now + (pause > RESCAN_MS * NS_PER_MS ? pause : RESCAN_MS * NS_PER_MS);
  news->rescanning = false;
  pthread_mutex_unlock(&news->lock);
}

/* ---- events ---- */

static bool same_content(const mc_entry *a, const mc_entry *b) {
  if (a->missing || b->missing) return a->missing == b->missing;
  if (!a->has_digest || !b->has_digest) return a->has_digest == b->has_digest;
  return mc_digest_equal(&a->digest, &b->digest);
}

/* Tell watchers of what they can get from now on, or not any more. */
static void announce(struct mc_cache *cache, const mc_entry *before, const mc_entry *now) {
  mc_entry gone = before ? *before : *now;
  gone.missing = true;
  gone.has_digest = false;
  if (!same_content(before ? before : &gone, now ? now : &gone)) entry_announce(cache, now ? now : &gone);
}

static void hear_entry(struct news *news, const mc_entry *before, const mc_entry *now) {
  struct mc_cache *cache = news->cache;
  char key[KEY_SIZE];
  if (!before && !now) return;
  key_of_url(key, now ? now->url : before->url);
  bool other = true; /* else it was known already */
  if (cache->ledger) {
    other = now ? entry_refer(cache, key, now) : ledger_forget(cache->ledger, key, before->revision);
  }
  if (other) announce(cache, before, now);
  if (!cache->home) return;
  pthread_mutex_lock(&news->lock);
  if (now && now->has_digest) add_sight(news, &now->digest, false);
  if (before && before->has_digest && !(now && now->has_digest)) add_sight(news, &before->digest, true);
  pthread_mutex_unlock(&news->lock);
}

static void hear_gap(struct news *news, bool empty) {
  coordination_found(news->cache); /* it is told once it is over */
  if (!news->cache->home) return;
  pthread_mutex_lock(&news->lock);
  atomic_fetch_add(&news->gaps, 1);
  atomic_store(&news->doubt, true);
  news->wanted = news->records = true;
  news->fill |= empty;
  news->retry_at = news->retry_ms = 0;
  begin(news, &news->reconciling, &news->reconcile_job, reconcile_job);
  pthread_mutex_unlock(&news->lock);
}

void news_doubt(struct news *news) {
  if (!news || !news->cache->home) return;
  pthread_mutex_lock(&news->lock);
  atomic_fetch_add(&news->gaps, 1); /* what runs now may have come to this URL already */
  atomic_store(&news->doubt, true);
  if (!news->wanted) news->retry_at = clock_ns() + RETRY_MS * NS_PER_MS;
  news->wanted = news->records = true;
  pthread_mutex_unlock(&news->lock);
}

void news_hear(void *user, const mc_coordination_event *event) {
  if (event->kind == MC_EVENT_ENTRY) {
    hear_entry(user, event->before, event->now);
  } else {
    hear_gap(user, event->kind == MC_EVENT_EMPTY);
  }
}

/* ---- with the engine ---- */

void news_tick(struct news *news, int64_t now) {
  if (!news) return;
  pthread_mutex_lock(&news->lock);
  if (news->wanted && now >= news->retry_at) {
    begin(news, &news->reconciling, &news->reconcile_job, reconcile_job);
  }
  if (news->sight_count) begin(news, &news->looking, &news->look_job, look_job);
  if (news->cache->home && now >= news->rescan_at) begin(news, &news->rescanning, &news->rescan_job, rescan_job);
  pthread_mutex_unlock(&news->lock);
}

void news_start(struct news *news) {
  if (!news) return;
  pthread_mutex_lock(&news->lock);
  news->runs = true;
  news->rescan_at = clock_ns() + RESCAN_MS * NS_PER_MS; /* the index was read a moment ago */
  pthread_mutex_unlock(&news->lock);
  news_tick(news, clock_ns());
}

void news_stop(struct news *news) {
  if (!news) return;
  atomic_store(&news->stopped, true);
  pthread_mutex_lock(&news->lock);
  news->runs = false;
  pthread_mutex_unlock(&news->lock);
}
