/* The ledger: which object each entry needs, so that the home tier keeps what is needed and no more.
 *
 * It is told what is known of a URL as often as one likes, from here or from news of others, and in whichever order: of
 * two the one with the larger revision holds. A recount makes it anew while it's told of changes: what is neither
 * listed nor told between its begin and its end is not known any more. Until then what was needed before stays so. */
#ifndef ENGINE_LEDGER_H
#define ENGINE_LEDGER_H

#include <modelcache/types.h>

struct ledger;
struct tier;

/* Tells `tier` of references and pins; it outlives the ledger. */
mc_status ledger_new(struct ledger **out, struct tier *tier, mc_error *err);
void ledger_free(struct ledger *ledger);

/* This is known of a URL. Whether it needs another object than before. Never blocks on more than memory, as all below
 * but ledger_begin. */
bool ledger_set(struct ledger *ledger, const char *key, const mc_entry *entry);
/* It was forgotten when it was of this revision. Whether it needed an object. */
bool ledger_forget(struct ledger *ledger, const char *key, uint64_t revision);

/* Begin a recount. One at a time: waits for another, up to `deadline`; false: it has not begun. */
bool ledger_begin(struct ledger *ledger, int64_t deadline);
/* `whole`: everything was listed. Else what was known before stays. */
void ledger_end(struct ledger *ledger, bool whole);

enum ledger_says { LEDGER_SAME, LEDGER_OLDER, LEDGER_NOTHING };
/* Whether what was listed or told since the recount began is older than this entry, or nothing was. */
enum ledger_says ledger_compare(struct ledger *ledger, const char *key, const mc_entry *entry);

#endif
