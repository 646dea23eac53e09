/* A shared coordination within one process: every cache that is opened with it is a member, as if it were in a process
 * of its own. It can be lost, and found again empty or older. Reset it between tests. */
#ifndef TESTS_FAKE_HUB_H
#define TESTS_FAKE_HUB_H

#include <modelcache/backend/coordination.h>

/* NULL-terminated: for mc_options.coordination_backends; its name is "hub". */
extern const mc_coordination_ops *const fake_hubs[];

/* Out of reach: every op fails with MC_UNAVAILABLE, and a wait that goes on does once its lease has ended. Back again,
 * members are told of a gap. */
void fake_hub_lose(void);
/* `empty`: all entries are lost, and whether it was filled; members are told so. */
void fake_hub_find(bool empty);
/* Put this entry in place of what is known of its URL, however old it is, without a word to anybody. */
void fake_hub_regress(const char *key, const mc_entry *entry);
bool fake_hub_is_filled(void);
/* Whoever has claimed it loses it. */
void fake_hub_revoke(const char *key);
/* Hold back the next call of an op ("lookup": once it has seen what there is; "renew"); and wait until it is; and let
 * all go on that are. */
void fake_hub_hold(const char *op);
void fake_hub_await_held(void);
void fake_hub_release(void);
/* How often an op was called by all members since the reset: "lookup", "claim", "renew", "publish", "wait" … */
unsigned fake_hub_calls(const char *op);
/* Once no member is left. */
void fake_hub_reset(void);

#endif
