/* One run of the algorithm: fly.c goes its way, publish.c makes its results known. */
#ifndef ENGINE_FLY_H
#define ENGINE_FLY_H

#include "engine/download.h"
#include "engine/engine.h"

struct run {
  struct flight *flight;
  struct mc_cache *cache;
  struct download *download;
  mc_entry *entry; /* what is known, or NULL */
  mc_file *file;   /* the copy at hand, verified, or NULL */
  mc_claim claim;
  mc_entry *overtaken; /* what could not be published, as another has got further, or is about to; or NULL */
  bool recorded;       /* a record was written, or a commit told to */
  bool outrun;         /* there was a newer one: it was not */
  bool unheard;        /* the claim's owner can't be waited for */
  bool waited;         /* he was, since the last look; the digest that was known before, or zeros */
  mc_digest before;
  bool missing;  /* the upstream says that it does not exist */
  bool outdated; /* what the hint says is not so any more */
};

/* Whether two entries, each of which may be NULL, say the same of the content. */
bool same_state(const mc_entry *a, const mc_entry *b);
/* Whether they tell one version from another. */
bool names_a_version(const mc_validators *validators);

/* The entry of a content that has come, not published yet; it is the caller's. `by_listing`: it was opened by a
 * listing's word. NULL: no memory. */
mc_entry *publish_prepare(struct run *run, uint64_t size, const mc_validators *validators, const mc_digest *digest,
                          bool by_listing);
mc_status publish_no_entry(mc_error *err);
/* Write the record, or have the commit of `stage` do so, unless the claim was lost: whoever has it since may have
 * written a newer one. Who loses it from here on mends that: see publish_mend. */
mc_status publish_record(struct run *run, const mc_entry *entry, mc_stage *stage, mc_error *err);
/* Publish an entry, which becomes the run's; the claim is given back with it. Takes over `entry`. `record`: its record
 * is to be written first. */
mc_status publish_entry(struct run *run, mc_entry *entry, bool record, mc_error *err);
/* What is known stays true, but for whether it's pinned: nothing comes after this. */
mc_status publish_pins(struct run *run, mc_error *err);
/* The copy at hand is current: the upstream said so, or its listing. */
mc_status publish_confirmed(struct run *run, const mc_validators *validators, mc_error *err);
mc_status publish_listed(struct run *run, mc_error *err);
/* The upstream says that it does not exist. */
void publish_missing(struct run *run);
/* Write the newer record again, if ours may have taken its place. */
void publish_mend(struct run *run);

#endif
