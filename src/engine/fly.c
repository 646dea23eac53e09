/* The one algorithm, run by a flight: look the entry up; if it is not current, claim it; ask the upstreams; bring the
 * object in; publish. */
#include <stdlib.h>
#include <string.h>

#include "base/url.h"
#include "engine/fly.h"

#define META_MAX ((size_t)256 << 20)

/* What the listing said, as long as that is good for all who wait. With cache->lock held. */
static const struct hint *hint_of(const struct run *run) {
  return run->flight->unlisted || run->outdated ? NULL : run->flight->hint;
}

/* ---- asking one upstream ---- */

/* The object may be here already, under another URL. */
static bool take_known(mc_file **out, struct run *run, const mc_info *info) {
  mc_entry known = {.has_digest = true, .digest = info->digest, .size = info->size, .validators = info->validators};
  struct tier *damaged = NULL;
  return info->has_digest && file_open(out, run->cache, &known, true, &damaged, &run->flight->call, NULL) == MC_OK;
}

/* Make what was downloaded an object. The record comes first: see entry.c. */
static mc_status keep(mc_file **out, struct run *run, const mc_entry *entry, mc_error *err) {
  struct object *object;
  flight_set_phase(run->flight, MC_PHASE_VERIFYING, "making it durable");
  mc_status status = publish_record(run, entry, run->download->stage, err);
  if (!status) status = download_commit(&object, run->download, &entry->digest, err);
  if (status) return status;
  stat_add(run->cache, STAT_DOWNLOADS, 1);
  *out = file_of_object(object, run->cache, entry, false);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a file");
}

/* Publish a file that has come, which becomes the run's. Takes over both. */
static mc_status take(struct run *run, mc_file *file, mc_entry *entry, mc_error *err) {
  bool record = mc_file_was_cached(file); /* else it is written already */
  mc_status status = publish_entry(run, entry, record, err);
  mc_file_release(status ? file : run->file);
  if (!status) run->file = file;
  return status;
}

/* Bring in what an open source has. */
static mc_status bring_in(struct run *run, mc_upstream *upstream, mc_source *source, mc_info *info,
                          const mc_open_args *args, mc_error *err) {
  struct download *download = run->download;
  mc_file *file = NULL;
  mc_entry *entry = NULL;
  mc_digest digest;
  mc_status status = MC_OK;
  if (take_known(&file, run, info)) {
    entry = publish_prepare(run, mc_file_size(file), &info->validators, mc_file_digest(file), args->listed);
    if (!entry) status = publish_no_entry(err);
  } else {
    status = download_begin(download, run->flight->key, info, err);
    if (!status) flight_show(run->flight);
    if (!status) status = download_fetch(download, upstream, source, info, args, &digest, err);
    if (!status && args->listed && names_a_version(&info->validators)) download->validators = info->validators;
    if (!status) entry = publish_prepare(run, download->size, &download->validators, &digest, args->listed);
    if (!status && !entry) status = publish_no_entry(err);
    if (!status) status = keep(&file, run, entry, err);
  }
  if (!status) return take(run, file, entry, err);
  mc_file_release(file);
  free(entry);
  return status;
}

/* What was listed may be here already, too. *status is set if it is. */
static bool take_listed(mc_status *status, struct run *run, const mc_listed *listed, mc_error *err) {
  mc_info info = {.size = listed->size, .has_digest = listed->has_digest, .digest = listed->digest};
  mc_file *file = NULL;
  info.validators = listed->validators;
  if (!take_known(&file, run, &info)) return false;
  mc_entry *entry = publish_prepare(run, mc_file_size(file), &listed->validators, mc_file_digest(file), true);
  if (!entry) mc_file_release(file);
  *status = entry ? take(run, file, entry, err) : publish_no_entry(err);
  return true;
}

/* Whether its own listing's word will do to open a source. Not where that leaves open whether the copy at hand is
 * current, or was current later; nor of an empty file, of which no read would tell that it has changed. */
static bool opens_listed(const struct run *run, const struct hint *hint, const mc_upstream *upstream) {
  if (!hint || hint->from != upstream || hint->listed.size == 0) return false;
  if (!run->file) return true;
  enum hint_says says = hint_judge(hint, run->entry);
  return (says == HINT_SAME || says == HINT_OTHER) && run->entry->checked_at <= hint->at;
}

/* What an upstream is told to open a source. */
static void set_args(mc_open_args *args, struct run *run, const mc_upstream *upstream) {
  pthread_mutex_lock(&run->cache->lock);
  const struct hint *hint = hint_of(run);
  bool listed = opens_listed(run, hint, upstream), revalidate = run->flight->revalidate;
  run->flight->dated |= listed;
  pthread_mutex_unlock(&run->cache->lock);
  *args = (mc_open_args){.url = run->flight->url,
                         .progress = flight_peer_progress,
                         .progress_user = run->flight,
                         .revalidate = revalidate};
  if (listed) {
    args->listed = &hint->listed;
  } else if (run->file) {
    args->known = &run->entry->validators;
    args->known_size = run->entry->size;
    args->known_digest = &run->entry->digest;
  }
}

/* An upstream that was opened by its listing's word failed in a way that other facts than those explain. */
static bool listing_failed(mc_status status) {
  return status == MC_CHANGED || status == MC_NOT_FOUND || status == MC_CORRUPT || status == MC_PROTOCOL;
}

static mc_status attempt(void *user, mc_upstream *upstream, mc_error *err) {
  struct run *run = user;
  struct flight *flight = run->flight;
  mc_open_args args;
  mc_source *source = NULL;
  mc_info info = {.size = MC_SIZE_UNKNOWN};
  mc_status status;
  set_args(&args, run, upstream);
  if (args.listed && take_listed(&status, run, args.listed, err)) return status;
  flight_set_phase(flight, MC_PHASE_ASKING, "asking the upstream");
  status = upstream->ops->source_open(upstream, &args, &source, &info, &flight->call, err);
  run->missing = status == MC_NOT_FOUND;
  if (!status && info.unchanged && run->file) {
    status = publish_confirmed(run, &info.validators, err);
  } else if (!status && (info.unchanged || !source)) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s gave no content, though there is no copy", upstream->ops->name);
  } else if (!status) {
    status = bring_in(run, upstream, source, &info, &args, err);
  }
  if (source) upstream->ops->source_close(source);
  if (args.listed && listing_failed(status)) { /* it is asked again, and not by the listing */
    run->outdated = true;
    status = MC_CHANGED;
    if (err) err->status = status;
  }
  if (status == MC_NOT_FOUND && !run->missing) { /* of something else than the URL: only opening it tells that */
    status = MC_UNAVAILABLE;
    if (err) err->status = status;
  }
  return status;
}

/* ---- looking ---- */

/* A damaged object becomes the download's stage: what still matches need not come again. */
static void take_damaged(struct run *run) {
  struct tier *home = run->cache->home;
  mc_storage *storage = tier_storage(home);
  const mc_digest *digest = &run->entry->digest;
  mc_stage *stage;
  void *meta = NULL;
  size_t size = 0;
  mc_chunk_table *table = NULL;
  if (storage->ops->read_meta(storage, digest, &meta, &size, META_MAX, NULL) == MC_OK &&
      chunk_table_decode(&table, digest, meta, size, NULL) == MC_OK &&
      tier_restage(home, digest, run->flight->key, &stage, NULL) == MC_OK) {
    download_adopt(run->download, stage, run->entry, table);
  }
  free(meta);
  free(table);
}

/* Look at what is known and at hand. */
static mc_status look(struct run *run, mc_error *err) {
  struct mc_cache *cache = run->cache;
  struct tier *damaged = NULL;
  bool waited = run->waited;
  run->waited = false;
  mc_file_release(run->file);
  free(run->entry);
  run->file = NULL;
  run->entry = NULL;
  pthread_mutex_lock(&cache->lock);
  run->flight->joined = false;
  pthread_mutex_unlock(&cache->lock);
  mc_status status = entry_load(&run->entry, cache, run->flight->key, err);
  if (status) return status == MC_NOT_FOUND || coordination_is_out(cache, status) ? MC_OK : status;
  if (!run->entry->has_digest) return MC_OK;
  if (waited && !mc_digest_equal(&run->entry->digest, &run->before)) tier_vouch(cache->home, &run->entry->digest);
  flight_set_phase(run->flight, MC_PHASE_VERIFYING, "verifying the stored copy");
  status = file_open(&run->file, cache, run->entry, true, &damaged, &run->flight->call, err);
  if (status == MC_CORRUPT && damaged == cache->home && !run->download->stage) take_damaged(run);
  return status == MC_NOT_FOUND || status == MC_CORRUPT ? MC_OK : status;
}

/* Whether another process published between our look and our claim. */
static bool has_news(struct run *run) {
  struct mc_cache *cache = run->cache;
  mc_entry *now = NULL;
  if (cache->coordination->ops->lookup(cache->coordination, run->flight->key, &now, NULL)) return false;
  const mc_entry *known = run->entry;
  bool news = !known || now->revision > known->revision ||
              (now->revision == known->revision && (!same_state(known, now) || now->checked_at != known->checked_at));
  free(now);
  return news;
}

/* What is to be done: give what is at hand as it is, pin or unpin it, note that a listing confirmed it, or ask; or look
 * once more. */
enum plan { PLAN_GIVE, PLAN_PIN, PLAN_CONFIRM, PLAN_ASK, PLAN_LOOK };

/* Nobody may be given what was seen before he came: his answer from another member may have been a newer one. Under the
 * claim nobody else publishes, so that what is seen then is good for all who join until it is given back. */
static enum plan make_plan(struct run *run) {
  struct mc_cache *cache = run->cache;
  struct flight *flight = run->flight;
  const mc_entry *entry = run->entry;
  enum plan plan = PLAN_ASK;
  if (!entry || !(run->file || entry->missing)) {
    flight_set_bare(flight);
    return PLAN_ASK;
  }
  bool fresh = entry_is_fresh(cache, entry);
  pthread_mutex_lock(&cache->lock);
  const struct hint *hint = hint_of(run);
  enum hint_says says = hint_judge(hint, entry);
  bool pins = flight->pin || flight->unpin;
  if (flight->revalidate || says == HINT_OTHER || says == HINT_DOUBT || (hint && entry->missing)) fresh = false;
  if (says == HINT_SAME && !hint->from) fresh = true;
  if (fresh) {
    plan = !pins ? PLAN_GIVE : run->file ? PLAN_PIN : PLAN_ASK;
  } else if (says == HINT_SAME) {
    plan = PLAN_CONFIRM;
  }
  if (plan == PLAN_GIVE || plan == PLAN_CONFIRM) flight->settled = true;
  if (plan == PLAN_GIVE) {
    flight_seal(flight);
    if (flight->joined) plan = PLAN_LOOK;
  }
  pthread_mutex_unlock(&cache->lock);
  return plan;
}

static mc_status bring_up_to_date(struct run *run, enum plan plan, mc_error *err) {
  claim_keep(run->flight, run->claim.granted ? run->claim.token : 0);
  mc_status status = plan == PLAN_CONFIRM ? publish_listed(run, err)
                     : plan == PLAN_PIN   ? publish_pins(run, err)
                                          : route_ask(run->flight, run->download, attempt, run, err);
  claim_keep(run->flight, 0);
  if (status == MC_NOT_FOUND && run->missing) publish_missing(run);
  return status;
}

static void give_claim_back(struct run *run) {
  struct mc_cache *cache = run->cache;
  if (run->claim.granted) {
    cache->coordination->ops->abandon(cache->coordination, run->flight->key, run->claim.token);
  }
  run->claim.granted = false;
}

/* Without a claim: others may do the same at the same time. */
static mc_status go_alone(struct run *run, enum plan plan, mc_error *err) {
  run->claim = (mc_claim){.granted = false};
  stat_add(run->cache, STAT_UNCOORDINATED, 1);
  return bring_up_to_date(run, plan, err);
}

/* Wait for who has the claim. */
static mc_status await_owner(struct run *run, mc_error *err) {
  struct mc_cache *cache = run->cache;
  struct flight *flight = run->flight;
  const mc_coordination_ops *ops = cache->coordination->ops;
  bool shared = coordination_is_shared(cache);
  flight_set_phase(flight, MC_PHASE_WAITING, shared ? "another pod downloads it" : "another process downloads it");
  mc_file_release(run->file); /* it may be evicted meanwhile */
  run->file = NULL;
  mc_status status =
      ops->wait(cache->coordination, flight->key, run->claim.token, claim_hear, flight, &flight->call, err);
  run->unheard = coordination_is_out(cache, status);
  run->waited = !status;
  run->before = run->entry && run->entry->has_digest ? run->entry->digest : (mc_digest){{0}};
  return run->unheard ? MC_OK : status;
}

/* Whether a newer version has been published while we brought ours, or failed to: who lost his claim has no right to
 * tell those who came since, and may know that one, of an older. Nobody joins any more. */
static bool is_overtaken(struct run *run, mc_status status) {
  struct mc_cache *cache = run->cache;
  const mc_entry *ours = run->overtaken ? run->overtaken : status && run->file ? run->entry : NULL;
  mc_entry *now = NULL;
  if (!ours) return false;
  pthread_mutex_lock(&cache->lock);
  flight_seal(run->flight);
  bool joined = run->flight->joined;
  pthread_mutex_unlock(&cache->lock);
  if (!joined || entry_load(&now, cache, run->flight->key, NULL)) return false; /* the record may be all that tells */
  bool newer = now->revision >= ours->revision && !same_state(now, ours);
  free(now);
  return newer;
}

static void tell_takeover(const struct flight *flight) {
  char url[256];
  log_info(flight->cache->logger, ORIGIN, "%s: whoever had it has gone, or failed: going on with it here",
           url_printable(url, sizeof(url), flight->url));
}

static mc_status fly(struct run *run, mc_error *err) {
  struct mc_cache *cache = run->cache;
  struct flight *flight = run->flight;
  const mc_coordination_ops *ops = cache->coordination->ops;
  for (bool waited = false;;) {
    mc_status status = look(run, err);
    if (status) return status;
    enum plan plan = make_plan(run);
    if (plan == PLAN_LOOK) continue;
    if (plan == PLAN_GIVE && run->file) return MC_OK;
    if (plan == PLAN_GIVE) {
      return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "the upstream said a moment ago that it does not exist");
    }
    mc_error error = MC_ERROR_INIT;
    status = ops->claim(cache->coordination, flight->key, &run->claim, &error);
    bool out = coordination_is_out(cache, status);
    if (status && !out) {
      if (err) *err = error;
      return status;
    }
    if (out) {
      coordination_lost(cache, &error);
    } else {
      coordination_found(cache);
    }
    if (out || (!run->claim.granted && run->unheard)) {
      status = go_alone(run, plan, err);
    } else if (!run->claim.granted) {
      status = await_owner(run, err);
      if (status) return status;
      waited = true;
      continue;
    } else if (has_news(run)) {
      give_claim_back(run);
      continue;
    } else {
      if (waited && plan == PLAN_ASK) tell_takeover(flight);
      status = bring_up_to_date(run, plan, err);
    }
    if (!is_overtaken(run, status)) return status;
    flight_hide(flight);
    download_reset(run->download); /* what it has may be of the older one, and an object already */
    give_claim_back(run);
    run->recorded = run->outrun = false;
  }
}

/* ---- the job ---- */

/* Whether the copy at hand may be served although it could not be revalidated. */
static bool stale_will_do(struct run *run, mc_status status) {
  if (!status || !run->file || status == MC_NOT_FOUND || status == MC_PERMISSION_DENIED || status == MC_CANCELLED)
    return false;
  int64_t limit = run->cache->options.stale_if_error_ms;
  return limit < 0 || clock_wall_ms() - run->entry->checked_at < limit;
}

static void serve_stale(struct run *run, const mc_error *why) {
  char url[256];
  log_warn(run->cache->logger, ORIGIN, "%s: serving the copy of before: %s",
           url_printable(url, sizeof(url), run->flight->url), why->message);
  stat_add(run->cache, STAT_STALE, 1);
  publish_pins(run, NULL); /* which needs no upstream */
}

void fly_job(struct work_job *job) {
  struct flight *flight = flight_of_job(job);
  struct mc_cache *cache = flight->cache;
  struct run run = {.flight = flight, .cache = cache};
  mc_error error = MC_ERROR_INIT;
  mc_status status = mc_call_check(&flight->call, &error);
  if (!status && !cache->home) {
    status = mc_error_set(&error, MC_UNSUPPORTED, ORIGIN,
                          "this cache keeps nothing (storage is 'none'): get it into a path or a buffer");
  }
  if (!status) status = download_new(&run.download, cache, flight->url, &flight->call, &error);
  if (!status) {
    run.download->tier = cache->home;
    flight_set_download(flight, run.download);
    status = fly(&run, &error);
    download_close(run.download); /* before the claim ends: whoever has it next finds the stage */
    give_claim_back(&run);
  }
  if (stale_will_do(&run, status)) {
    serve_stale(&run, &error);
    status = MC_OK;
  }
  if (status) {
    mc_file_release(run.file);
    run.file = NULL;
  }
  flight_end(flight, status, run.file, &error);
  if (run.overtaken) publish_mend(&run);
  give_claim_back(&run);
  free(run.overtaken);
  free(run.entry);
  flight_release(flight);
}
