/* What a run makes known: the entry of its URL, in the record and in the coordination, as far as its claim allows. */
#include <stdlib.h>

#include "engine/fly.h"

bool same_state(const mc_entry *a, const mc_entry *b) {
  if (!a || !b) return a == b;
  return a->missing == b->missing && a->has_digest == b->has_digest &&
         (!a->has_digest || mc_digest_equal(&a->digest, &b->digest));
}

/* Whether the entry is to be pinned, as far as those who joined want it. */
static bool wants_pin(struct flight *flight, bool pinned) {
  pthread_mutex_lock(&flight->cache->lock);
  bool pin = flight->pin || (pinned && !flight->unpin);
  pthread_mutex_unlock(&flight->cache->lock);
  return pin;
}

/* The same for the last time: whoever comes from now on needs another flight. That is also because another member may
 * publish something newer once our claim is given back: see make_plan. */
static bool settle_pin(struct flight *flight, bool pinned) {
  pthread_mutex_lock(&flight->cache->lock);
  bool pin = flight->pin || (pinned && !flight->unpin);
  flight->settled = true;
  flight_seal(flight);
  pthread_mutex_unlock(&flight->cache->lock);
  return pin;
}

/* Of two entries the one with the larger revision is newer: see coordination.h. */
static void stamp(const struct run *run, mc_entry *entry) {
  uint64_t least = run->claim.granted ? run->claim.token : (uint64_t)clock_wall_ms() * 1000;
  uint64_t known = run->entry ? run->entry->revision : 0;
  entry->revision = least > known ? least : known + 1;
}

/* Never over a newer one: who slept beyond his lease may have his claim again from a coordination that has lost what
 * came after it. */
static mc_status put_own_record(struct run *run, const mc_entry *entry, mc_stage *stage, mc_error *err) {
  run->outrun = entry_is_outrun(run->cache, run->flight->key, entry);
  if (run->outrun) return MC_OK;
  run->recorded = true;
  return entry_record(run->cache, run->flight->key, entry, stage, err);
}

mc_status publish_record(struct run *run, const mc_entry *entry, mc_stage *stage, mc_error *err) {
  mc_coordination *coordination = run->cache->coordination;
  const char *key = run->flight->key;
  if (run->claim.granted && (claim_is_lost(run->flight) ||
                             coordination->ops->renew(coordination, key, run->claim.token, NULL, NULL) == MC_BUSY)) {
    return MC_OK;
  }
  return put_own_record(run, entry, stage, err);
}

/* Publish it with the claim. If that is gone, it is as good without one, as long as nobody has it or has published
 * since: it is gone, too, when the coordination has lost all. */
static mc_status set_entry(struct run *run, const mc_entry *entry, mc_error *err) {
  mc_coordination *coordination = run->cache->coordination;
  const char *key = run->flight->key;
  uint64_t token = run->claim.granted ? run->claim.token : 0;
  claim_keep(run->flight, 0); /* a renewal that comes later must not take it for lost */
  if (run->outrun) return mc_error_set(err, MC_BUSY, ORIGIN, "a newer record was written meanwhile");
  mc_status status = coordination->ops->publish(coordination, key, token, entry, err);
  if (status != MC_BUSY || !token) return status;
  run->claim.granted = false;
  if (entry_is_outrun(run->cache, key, entry)) return status;
  status = coordination->ops->publish(coordination, key, 0, entry, err);
  if (!status && !run->recorded) put_own_record(run, entry, NULL, NULL);
  return status;
}

/* Another has got further, or nobody can be told: what we have is no less true for that. Takes over `entry`. */
static void keep_to_ourselves(struct run *run, mc_entry *entry, mc_status status, const mc_error *why) {
  if (coordination_is_out(run->cache, status)) {
    coordination_lost(run->cache, why);
    entry_refer(run->cache, run->flight->key, entry); /* as the record says */
    if (!same_state(run->entry, entry)) entry_announce(run->cache, entry);
  } else {
    log_warn(run->cache->logger, ORIGIN, "what was got can't be published now: %s", mc_status_name(status));
  }
  free(run->overtaken);
  run->overtaken = status == MC_BUSY ? entry : NULL;
  if (!run->overtaken) free(entry);
}

mc_status publish_entry(struct run *run, mc_entry *entry, bool record, mc_error *err) {
  struct mc_cache *cache = run->cache;
  bool changed = !same_state(run->entry, entry), pinned = settle_pin(run->flight, entry->pinned);
  if (entry->has_digest && pinned != entry->pinned) {
    entry->pinned = pinned;
    record = true;
  }
  mc_error error = MC_ERROR_INIT;
  mc_status status = record ? publish_record(run, entry, NULL, &error) : MC_OK;
  if (status && !changed) { /* a full disk, say: the record of before is no less true, but for its times */
    log_warn(cache->logger, ORIGIN, "a record can't be written: %s", mc_status_name(status));
    status = MC_OK;
  }
  bool written = !status, replaces = changed && run->entry && run->entry->has_digest;
  if (replaces && cache->home)
    tier_touch(cache->home, &run->entry->digest); /* it is kept from now on, whoever sweeps */
  if (!status) status = set_entry(run, entry, &error);
  if (written && (status == MC_BUSY || (mc_status_is_retryable(status) && entry->has_digest))) {
    keep_to_ourselves(run, entry, status, &error);
    return MC_OK;
  }
  if (status) {
    if (err) *err = error;
    free(entry);
    return status;
  }
  run->claim.granted = false; /* publishing gave it back */
  entry_refer(cache, run->flight->key, entry);
  if (replaces) stat_add(cache, STAT_CHANGES, 1);
  if (changed) entry_announce(cache, entry);
  free(run->entry);
  run->entry = entry;
  return MC_OK;
}

/* Whoever was overtaken may have written its record over the newer one: with the claim, which keeps others from doing
 * the same meanwhile, that is written once more. Everybody has been told the result by then. */
void publish_mend(struct run *run) {
  struct mc_cache *cache = run->cache;
  const mc_coordination_ops *ops = cache->coordination->ops;
  const char *key = run->flight->key;
  mc_entry *now = NULL;
  for (;;) {
    if (ops->claim(cache->coordination, key, &run->claim, NULL)) return;
    if (run->claim.granted) break;
    if (ops->wait(cache->coordination, key, run->claim.token, NULL, NULL, &run->flight->call, NULL)) return;
  }
  mc_status status = entry_newest(&now, cache, key, NULL);
  if (!status && now->revision >= run->overtaken->revision) {
    entry_record(cache, key, now, NULL, NULL);
    status = ops->publish(cache->coordination, key, run->claim.token, now, NULL);
    if (!status) entry_refer(cache, key, now);
    run->claim.granted = status != MC_OK;
  } else if (!status || status == MC_NOT_FOUND) { /* whoever had the claim has published nothing */
    run->overtaken->revision = run->claim.token;
    entry_record(cache, key, run->overtaken, NULL, NULL);
    status = ops->publish(cache->coordination, key, run->claim.token, run->overtaken, NULL);
    if (!status) entry_refer(cache, key, run->overtaken);
    run->claim.granted = status != MC_OK;
  }
  free(now);
}

mc_status publish_no_entry(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an entry");
}

/* What comes after the known entry, where that stays true in most. */
static mc_entry *entry_again(const struct run *run) {
  mc_entry *entry = entry_copy(run->entry);
  if (entry) stamp(run, entry);
  return entry;
}

mc_status publish_pins(struct run *run, mc_error *err) {
  bool pinned = settle_pin(run->flight, run->entry->pinned);
  if (pinned == run->entry->pinned) return MC_OK;
  mc_entry *entry = entry_again(run);
  if (!entry) return publish_no_entry(err);
  entry->pinned = pinned;
  return publish_entry(run, entry, true, err);
}

bool names_a_version(const mc_validators *validators) {
  return validators->version[0] || validators->etag[0] || validators->last_modified;
}

mc_status publish_confirmed(struct run *run, const mc_validators *validators, mc_error *err) {
  mc_entry *entry = entry_again(run);
  if (!entry) return publish_no_entry(err);
  entry->checked_at = clock_wall_ms();
  entry->pinned = wants_pin(run->flight, entry->pinned);
  if (names_a_version(validators)) entry->validators = *validators;
  stat_add(run->cache, STAT_REVALIDATIONS, 1);
  return publish_entry(run, entry, true, err);
}

/* A listing said so, of many at once. The record is left as it is: what it tells is no less true but for a time, and to
 * write all of them would take longer than to ask. */
mc_status publish_listed(struct run *run, mc_error *err) {
  mc_entry *entry = entry_again(run);
  if (!entry) return publish_no_entry(err);
  if (entry->checked_at < run->flight->hint->at) entry->checked_at = run->flight->hint->at;
  entry->pinned = wants_pin(run->flight, entry->pinned);
  return publish_entry(run, entry, false, err);
}

/* The one that comes after what is known; `digest` NULL: there is no content. */
static mc_entry *next_entry(struct run *run, const mc_digest *digest) {
  int64_t now = clock_wall_ms();
  mc_entry *entry = entry_after(run->entry, run->flight->url, digest, run->cache->options.history_ms, now);
  if (!entry) return NULL;
  entry->checked_at = now;
  stamp(run, entry);
  return entry;
}

/* The upstream says that it does not exist. What it was, and that it's pinned, is true of it when it comes again. */
void publish_missing(struct run *run) {
  mc_file_release(run->file);
  run->file = NULL;
  mc_entry *entry = next_entry(run, NULL);
  if (!entry) return;
  entry->missing = true;
  entry->pinned = run->entry && run->entry->pinned;
  publish_entry(run, entry, true, NULL);
}

/* What was opened by a listing's word is known since then, and not since now: a version that is read by its name can be
 * had although there is a newer one. */
mc_entry *publish_prepare(struct run *run, uint64_t size, const mc_validators *validators, const mc_digest *digest,
                          bool by_listing) {
  mc_entry *entry = next_entry(run, digest);
  if (!entry) return NULL;
  entry->size = size;
  entry->validators = *validators;
  entry->has_digest = true;
  entry->digest = *digest;
  entry->fetched_at = entry->checked_at;
  if (by_listing) entry->checked_at = run->flight->hint->at;
  bool pinned = (run->entry && run->entry->pinned) || route_rule(run->cache, entry->url).pin;
  entry->pinned = wants_pin(run->flight, pinned);
  return entry;
}
