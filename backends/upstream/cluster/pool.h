/* Connections to the data plane: kept for the next range that is read from the same endpoint.
 *
 * How many are in use at once is the engine's affair, one for each thread that reads; how many are kept idle, and for
 * how long, is bounded here. */
#ifndef CLUSTER_POOL_H
#define CLUSTER_POOL_H

#include <modelcache/backend/transport.h>

struct pool;

mc_status pool_new(struct pool **out, mc_transport *const *transports, size_t count, mc_error *err);
/* No connection is in use. NULL is fine. */
void pool_free(struct pool *pool);

/* Whether one of the transports speaks to endpoints of this scheme. */
bool pool_reaches(const struct pool *pool, const char *endpoint);
/* A connection to `endpoint`: an idle one (*kept: it may have been closed by the peer meanwhile), or a new one. Blocks
 * while it connects. */
mc_status pool_take(mc_connection **out, bool *kept, struct pool *pool, const char *endpoint, const mc_call *call,
                    mc_error *err);
/* Give one back after a read that went well. */
void pool_give(struct pool *pool, const char *endpoint, mc_connection *connection);
/* End one that failed. With `all` the idle ones to its endpoint too: they are as old as it was. */
void pool_drop(struct pool *pool, const char *endpoint, mc_connection *connection, bool all);

#endif
