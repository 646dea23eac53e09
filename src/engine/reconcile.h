/* Reconciling: the coordination is told what the records know better, and the home tier what all entries need. */
#ifndef ENGINE_RECONCILE_H
#define ENGINE_RECONCILE_H

#include "engine/engine.h"

struct reconcile {
  bool records;              /* compare with the records; else only what the entries need is counted anew */
  bool announce;             /* to watchers: what has become another without their being told */
  bool dry_run;              /* tell the coordination nothing */
  bool fill;                 /* it lost its entries: tell it when all are back */
  bool (*go_on)(void *user); /* called now and then: false ends it, with MC_CANCELLED */
  void *user;
  int64_t deadline; /* to begin, if another one is under way */
};

/* Blocks, for as long as it takes to list all entries and to read all records. */
mc_status reconcile(struct mc_cache *cache, const struct reconcile *how, mc_repair_result *out, mc_error *err);

#endif
