/* One pass over the entries, then one over the records.
 *
 * The list tells the ledger of every entry. Then a record that the ledger doesn't know to be as new is published, as of
 * nobody (token 0): that sets it only where nothing newer is there, so that any number of members may do the same at
 * once, and changes meanwhile win. Both are streams: what is kept of each is its line in the ledger. */
#include "engine/reconcile.h"

#include <stdlib.h>
#include <string.h>

#include "engine/ledger.h"

#define PUBLISHERS 8   /* at once: each waits for the coordination's answer */
#define AHEAD_MOST 256 /* records read that are not published yet */

struct pass {
  struct mc_cache *cache;
  const struct reconcile *how;
  mc_repair_result *out;
  struct work *publishers; /* NULL: none are needed */
  bool alone;              /* the coordination is out of reach: what the records say is all there is */
  pthread_mutex_t lock;    /* of what is below */
  pthread_cond_t published;
  uint32_t ahead;
  mc_status status; /* why it must end */
  mc_error error;
};

static void fail(struct pass *pass, mc_status status, const mc_error *error) {
  pthread_mutex_lock(&pass->lock);
  if (!pass->status) pass->error = *error;
  if (!pass->status) pass->status = status;
  pthread_mutex_unlock(&pass->lock);
}

/* Whether it should go on. */
static bool goes_on(struct pass *pass) {
  if (!pass->how->go_on(pass->how->user)) {
    mc_error error = MC_ERROR_INIT;
    fail(pass, mc_error_set(&error, MC_CANCELLED, ORIGIN, "reconciling was ended before its end"), &error);
  }
  pthread_mutex_lock(&pass->lock);
  bool on = !pass->status;
  pthread_mutex_unlock(&pass->lock);
  return on;
}

/* ---- entries ---- */

/* This is known now; watchers were told if it was known here before. */
static void note(struct pass *pass, const char *key, const mc_entry *entry) {
  bool other = entry_refer(pass->cache, key, entry);
  if (other && pass->how->announce) entry_announce(pass->cache, entry);
}

static bool note_entry(void *user, const mc_entry *entry) {
  struct pass *pass = user;
  char key[KEY_SIZE];
  key_of_url(key, entry->url);
  note(pass, key, entry);
  pass->out->entries++;
  return goes_on(pass);
}

/* ---- records ---- */

struct publication {
  struct work_job job; /* first */
  struct pass *pass;
  char key[KEY_SIZE];
  mc_entry *entry;
};

static void publication_job(struct work_job *job) {
  struct publication *self = (struct publication *)job;
  struct pass *pass = self->pass;
  mc_coordination *coordination = pass->cache->coordination;
  mc_error error = MC_ERROR_INIT;
  mc_status status = MC_CANCELLED;
  if (goes_on(pass)) status = coordination->ops->publish(coordination, self->key, 0, self->entry, &error);
  if (status && status != MC_BUSY) fail(pass, status, &error); /* busy: what is newer will be told of */
  if (status) {
    ledger_set(pass->cache->ledger, self->key, self->entry); /* needed until then */
  } else {
    note(pass, self->key, self->entry);
  }
  free(self->entry);
  free(self);
  pthread_mutex_lock(&pass->lock);
  pass->ahead--;
  pthread_cond_signal(&pass->published);
  pthread_mutex_unlock(&pass->lock);
}

/* Takes over `entry`. */
static void publish(struct pass *pass, const char *key, mc_entry *entry) {
  mc_error error = MC_ERROR_INIT;
  struct publication *self = malloc(sizeof(*self));
  if (!self) {
    free(entry);
    fail(pass, mc_error_set(&error, MC_NO_MEMORY, ORIGIN, "no memory to publish a record"), &error);
    return;
  }
  *self = (struct publication){.job = {.run = publication_job}, .pass = pass, .entry = entry};
  memcpy(self->key, key, KEY_SIZE);
  pthread_mutex_lock(&pass->lock);
  while (pass->ahead >= AHEAD_MOST) pthread_cond_wait(&pass->published, &pass->lock);
  pass->ahead++;
  pthread_mutex_unlock(&pass->lock);
  if (work_submit(pass->publishers, &self->job, NULL)) publication_job(&self->job);
}

static bool note_record(void *user, const char *key, const void *data, size_t size) {
  struct pass *pass = user;
  mc_repair_result *out = pass->out;
  mc_entry *entry = record_decode(key, data, size);
  if (!entry) {
    log_warn(pass->cache->logger, ORIGIN, "record %s can't be read, and is ignored", key);
    return goes_on(pass);
  }
  enum ledger_says says = ledger_compare(pass->cache->ledger, key, entry);
  out->records++;
  out->missing += says == LEDGER_NOTHING;
  out->older += says == LEDGER_OLDER;
  out->objects += entry->has_digest && tier_has(pass->cache->home, &entry->digest);
  if (says == LEDGER_SAME) {
    free(entry);
  } else if (pass->how->dry_run || pass->alone) {
    note(pass, key, entry); /* it is needed all the same */
    free(entry);
  } else {
    publish(pass, key, entry);
  }
  return goes_on(pass);
}

static mc_status scan_records(struct pass *pass, mc_error *err) {
  mc_storage *storage = record_storage(pass->cache);
  if (!storage) return MC_OK;
  bool publishes = !pass->how->dry_run && !pass->alone;
  mc_status status = publishes ? work_new(&pass->publishers, PUBLISHERS, err) : MC_OK;
  if (!status) status = storage->ops->record_scan(storage, note_record, pass, RECORD_MAX, err);
  work_free(pass->publishers); /* once all are published */
  pass->publishers = NULL;
  return status;
}

/* ---- both ---- */

static mc_status ended(struct pass *pass, mc_status status, mc_error *err) {
  if (status || !pass->status) return status;
  if (err) *err = pass->error;
  return pass->status;
}

static mc_status run(struct pass *pass, mc_error *err) {
  struct mc_cache *cache = pass->cache;
  mc_coordination *coordination = cache->coordination;
  mc_status status = coordination->ops->list(coordination, "", NULL, note_entry, pass, err);
  status = ended(pass, status, err);
  /* Out of reach at the start of this process: what is stored is needed, and so much is known. */
  pass->alone = status && status != MC_CANCELLED && !tier_knows(cache->home);
  if (pass->alone && !ended(pass, scan_records(pass, NULL), NULL)) tier_know(cache->home);
  if (!status && pass->how->records) status = ended(pass, scan_records(pass, err), err);
  if (!status && pass->how->fill && !pass->how->dry_run) status = coordination->ops->filled(coordination, err);
  return status;
}

mc_status reconcile(struct mc_cache *cache, const struct reconcile *how, mc_repair_result *out, mc_error *err) {
  struct pass pass = {.cache = cache, .how = how, .out = out, .error = MC_ERROR_INIT};
  if (!ledger_begin(cache->ledger, how->deadline)) {
    return mc_error_set(err, MC_DEADLINE_EXCEEDED, ORIGIN, "another reconciling has not ended in time");
  }
  pthread_mutex_init(&pass.lock, NULL);
  cond_init(&pass.published);
  mc_status status = run(&pass, err);
  ledger_end(cache->ledger, status == MC_OK);
  if (!status) tier_know(cache->home);
  pthread_mutex_destroy(&pass.lock);
  pthread_cond_destroy(&pass.published);
  return status;
}
