/* Promotion: copies in the fastest tier of what is got again and again. */
#ifndef ENGINE_PROMOTE_H
#define ENGINE_PROMOTE_H

#include "engine/engine.h"

struct promoter;

mc_status promoter_new(struct promoter **out, struct mc_cache *cache, mc_error *err);
/* From now on nothing begins, and what is under way ends soon. */
void promoter_stop(struct promoter *promoter);
/* Every job has ended. NULL is fine. */
void promoter_free(struct promoter *promoter);

/* A caller gets this file: promote its object if it is worth it. Never blocks. */
void promote_consider(struct mc_cache *cache, mc_file *file);

#endif
