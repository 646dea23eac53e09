/* Looking after pinned and watched URLs: each is checked by ourselves, when it was last checked longer ago than the
 * option `refresh` says and than its rule wants it to be revalidated after.
 *
 * What is known of URLs passes by here; those that are pinned or watched are kept in a table. When one is due its entry
 * is looked up, so that of several processes that share a coordination one asks, and the others see that it did. */
#ifndef ENGINE_REFRESH_H
#define ENGINE_REFRESH_H

#include "engine/engine.h"

mc_status refresher_new(struct refresher **out, struct mc_cache *cache, mc_error *err);
void refresher_free(struct refresher *refresher); /* NULL is fine */

/* What is known of a URL now. Does not block. */
void refresh_note(struct mc_cache *cache, const mc_entry *entry);
/* Look at once: there is something new to look after, or room for another flight. */
void refresh_kick(struct mc_cache *cache);
/* The clock's: have a job look if something is due. */
void refresh_tick(struct mc_cache *cache);

#endif
