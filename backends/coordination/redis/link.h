/* One connection to Redis, used by one thread at a time: hiredis, with a deadline for each reply, a limit on its size,
 * and no signal when the other side has gone. */
#ifndef REDIS_LINK_H
#define REDIS_LINK_H

#include <hiredis/hiredis.h>

#include "address.h"
#include <modelcache/types.h>

#define LINK_TIMEOUT_MS 1000 /* for a connection, and for each reply */
#define LINK_TIMED_OUT  100  /* a link's `err`, beside those of hiredis: no reply came in time */
#define LINK_MOVED      101  /* there is another server to be found */

/* Where a connection goes: the address's one host or socket, or what Sentinel says now. */
struct link_target {
  struct redis_host host;
  char address[64];                 /* of the host, in numbers: it is not looked up again. "": not known yet */
  char where[REDIS_PATH_SIZE + 16]; /* for messages */
};

/* Find out; asks the Sentinels, if there are any, from the one of this number on: what one says may have been true
 * once. MC_UNAVAILABLE. */
mc_status link_find(struct link_target *out, const struct redis_address *address, size_t first, mc_error *err);
/* Connect, say who we are, choose the database. MC_UNAVAILABLE, also where we are not let in. */
mc_status link_open(redisContext **out, const struct redis_address *address, const struct link_target *target,
                    mc_error *err);
void link_close(redisContext *link);
/* Connect to the very server of this link from now on: what a name stands for may change, and a lookup can hang. */
void link_pin(struct link_target *target, const redisContext *link);

/* Send a command; its reply comes later. */
mc_status link_send(redisContext *link, size_t count, const char *const *args, const size_t *sizes, mc_error *err);
/* The next reply: never an error's, that is made a status. MC_UNAVAILABLE if none came by the deadline or the server
 * can't serve us now (link->err is set if the link is of no use any more); MC_NOT_FOUND: Redis has no such script. *out
 * is NULL with MC_OK if none is there yet and `deadline` is 0. */
mc_status link_receive(redisReply **out, redisContext *link, int64_t deadline, mc_error *err);
/* Say in a message of theirs where that was. Returns `status`. */
mc_status link_name(mc_status status, const char *where, mc_error *err);
/* Both, for a command of texts that ends with a NULL. */
mc_status link_ask(redisReply **out, redisContext *link, const char *const *args, mc_error *err);

/* Whether an idle link is still good: nothing has come, not even its end. */
bool link_is_quiet(const redisContext *link);

#endif
