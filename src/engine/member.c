#include "engine/member.h"

#include <stdlib.h>
#include <string.h>

#include "engine/news.h"

#define MOST_BEAT_MS 2000
#define BELIEVED     3   /* beats for which it is known that an object is held */
#define BATCH        512 /* digests told at once */
#define COUNT_BEATS  5   /* the members are counted every so many beats: each document comes along */

struct member {
  struct mc_cache *cache;
  struct work *pool; /* of one thread */
  struct work_job job;
  int64_t beat_ms;
  pthread_mutex_t lock; /* a leaf */
  /* under lock: */
  bool queued; /* the job is, or it runs */
  bool again;  /* it is to look once more */
  bool due;    /* and that is a beat */
  int64_t beat_at;
  struct member_state state;
  /* the job's: */
  mc_digest *held; /* what the others know, in order */
  size_t held_count;
  char endpoint[MC_ENDPOINT_SIZE]; /* under which; "": none is held */
  unsigned beats;
};

/* ---- holders ---- */

static int by_digest(const void *a, const void *b) {
  return memcmp(a, b, sizeof(mc_digest));
}

static mc_status tell_held(struct member *self, const mc_digest *digests, size_t count, int64_t ms, mc_error *err) {
  mc_coordination *coordination = self->cache->coordination;
  mc_status status = MC_OK;
  for (size_t at = 0; at < count && !status; at += BATCH) {
    size_t batch = count - at < BATCH ? count - at : BATCH;
    status = coordination->ops->hold(coordination, digests + at, batch, self->endpoint, ms, err);
  }
  return status;
}

/* Those of `a` that are not in `b`, both in order, moved to the front of a list of a's size. */
static size_t only_in(mc_digest *out, const mc_digest *a, size_t a_count, const mc_digest *b, size_t b_count) {
  size_t count = 0, k = 0;
  for (size_t i = 0; i < a_count; i++) {
    while (k < b_count && by_digest(&b[k], &a[i]) < 0) k++;
    if (k == b_count || by_digest(&b[k], &a[i])) out[count++] = a[i];
  }
  return count;
}

static mc_status withdraw(struct member *self, const mc_digest *now, size_t count, mc_error *err) {
  mc_digest *gone = malloc((self->held_count + 1) * sizeof(*gone));
  if (!gone) return MC_OK; /* they run out */
  mc_status status = tell_held(self, gone, only_in(gone, self->held, self->held_count, now, count), 0, err);
  free(gone);
  return status;
}

/* What is in memory now, in order. NULL: there is none, or no memory to tell. */
static mc_digest *in_memory(struct mc_cache *cache, size_t *count) {
  *count = 0;
  if (!cache->tier_count || tier_storage(cache->tiers[0])->ops->flags & MC_STORAGE_PERSISTENT) return NULL;
  mc_digest *digests = tier_digests(cache->tiers[0], count);
  if (digests) qsort(digests, *count, sizeof(*digests), by_digest);
  return digests;
}

/* Tell what has changed since, or all. What could not be told comes with the next beat, or runs out. */
static mc_status tell_holders(struct member *self, bool all, mc_error *err) {
  char endpoint[MC_ENDPOINT_SIZE];
  size_t count;
  mc_status status = MC_OK;
  pthread_mutex_lock(&self->cache->lock);
  strcpy(endpoint, self->cache->endpoint);
  pthread_mutex_unlock(&self->cache->lock);
  mc_digest *now = *endpoint ? in_memory(self->cache, &count) : NULL;
  if (!now) count = 0;
  bool moved = strcmp(endpoint, self->endpoint) != 0;
  if (self->held_count) status = withdraw(self, now, moved ? 0 : count, err);
  strcpy(self->endpoint, endpoint);
  mc_digest *news = count ? malloc(count * sizeof(*news)) : NULL;
  if (news && !status) {
    size_t some = all || moved ? count : only_in(news, now, count, self->held, self->held_count);
    status = tell_held(self, all || moved ? now : news, some, BELIEVED * self->beat_ms, err);
  }
  free(news);
  free(self->held);
  self->held = now;
  self->held_count = count;
  return status;
}

/* ---- beats ---- */

static void note(struct member *self, mc_status status) {
  pthread_mutex_lock(&self->lock);
  bool was = self->state.reachable;
  self->state.reachable = !status;
  if (was && status) self->state.lost_at = clock_wall_ms();
  pthread_mutex_unlock(&self->lock);
  if (was && status) news_doubt(self->cache->news);
}

static mc_status present(struct member *self, mc_error *err) {
  mc_coordination *coordination = self->cache->coordination;
  json_t *document = report_member(self->cache);
  char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;
  if (text && strlen(text) >= DOCUMENT_MAX) { /* URLs that are mostly escapes */
    free(text);
    json_object_del(document, "flights");
    text = json_dumps(document, JSON_COMPACT);
  }
  mc_status status = text ? coordination->ops->present(coordination, text, err) : MC_OK;
  free(text);
  json_decref(document);
  return status;
}

static bool count_member(void *user, const char *id, const char *document, int64_t age_ms) {
  (void)id;
  (void)document;
  (void)age_ms;
  ++*(uint64_t *)user;
  return true;
}

static void beat(struct member *self) {
  mc_coordination *coordination = self->cache->coordination;
  mc_error error = MC_ERROR_INIT;
  uint64_t count = 0;
  mc_status status = present(self, &error);
  note(self, status);
  if (!status) status = tell_holders(self, true, &error);
  if (!status && self->beats++ % COUNT_BEATS == 0) {
    status = coordination->ops->members(coordination, count_member, &count, &error);
    pthread_mutex_lock(&self->lock);
    if (!status) self->state.members = count;
    pthread_mutex_unlock(&self->lock);
  }
  if (status) log_debug(self->cache->logger, ORIGIN, "the other members can't be told: %s", error.message);
}

static void member_job(struct work_job *job) {
  struct member *self = (struct member *)((char *)job - offsetof(struct member, job));
  pthread_mutex_lock(&self->lock);
  while (self->again) {
    bool due = self->due;
    self->again = self->due = false;
    pthread_mutex_unlock(&self->lock);
    if (due) {
      beat(self);
    } else {
      tell_holders(self, false, NULL);
    }
    pthread_mutex_lock(&self->lock);
  }
  self->queued = false;
  pthread_mutex_unlock(&self->lock);
}

static void ask(struct member *self, bool due) {
  pthread_mutex_lock(&self->lock);
  self->again = true;
  self->due |= due;
  bool submit = !self->queued;
  self->queued = true;
  pthread_mutex_unlock(&self->lock);
  if (!submit || !work_submit(self->pool, &self->job, NULL)) return;
  pthread_mutex_lock(&self->lock);
  self->queued = false;
  pthread_mutex_unlock(&self->lock);
}

void member_kick(struct member *member) {
  if (member) ask(member, false);
}

void member_beat(struct member *member) {
  if (member) ask(member, true);
}

int64_t member_tick(struct member *member, int64_t now) {
  if (!member) return INT64_MAX;
  pthread_mutex_lock(&member->lock);
  bool due = now >= member->beat_at;
  if (due) member->beat_at = now + member->beat_ms * NS_PER_MS;
  int64_t next = member->beat_at;
  pthread_mutex_unlock(&member->lock);
  if (due) ask(member, true);
  return next;
}

void member_state(struct member *member, struct member_state *state) {
  *state = (struct member_state){.reachable = true, .members = 1};
  if (!member) return;
  pthread_mutex_lock(&member->lock);
  *state = member->state;
  pthread_mutex_unlock(&member->lock);
}

/* ---- the whole ---- */

mc_status member_new(struct member **out, struct mc_cache *cache, mc_error *err) {
  *out = NULL;
  if (!coordination_is_shared(cache)) return MC_OK;
  struct member *member = calloc(1, sizeof(*member));
  if (!member) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a member");
  mc_status status = work_new(&member->pool, 1, err);
  if (status) {
    free(member);
    return status;
  }
  int64_t third = cache->options.lease_ms / 3;
  member->cache = cache;
  member->job.run = member_job;
  member->beat_ms = third < MOST_BEAT_MS ? third : MOST_BEAT_MS;
  member->state = (struct member_state){.reachable = true, .members = 1};
  pthread_mutex_init(&member->lock, NULL);
  *out = member;
  return MC_OK;
}

void member_free(struct member *member) {
  if (!member) return;
  mc_coordination *coordination = member->cache->coordination;
  work_free(member->pool);
  if (member->state.reachable) { /* else nobody would hear it: it runs out */
    if (member->held_count) withdraw(member, NULL, 0, NULL);
    coordination->ops->present(coordination, NULL, NULL);
  }
  pthread_mutex_destroy(&member->lock);
  free(member->held);
  free(member);
}
