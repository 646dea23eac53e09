/* Connections to the data plane: kept for the next range that is read from the same endpoint.
 *
 * An endpoint that could not be connected to for as long, and more often in a row, than one reader's retries go is left
 * alone for a short while (see breaker.h), which is logged once: files whose bytes can't be had from it must not each
 * pay for that.
 *
 * How many are in use at once is the engine's affair, one for each thread that reads; how many are kept idle, and for
 * how long, is bounded here. */
#ifndef CLUSTER_POOL_H
#define CLUSTER_POOL_H

#include <modelcache/backend/transport.h>

struct pool;

/* The configuration's transports and logger outlive the pool. `patience_ms`: how long a reader's own retries take at
 * least. */
mc_status pool_new(struct pool **out, const mc_upstream_config *config, int64_t patience_ms, mc_error *err);
/* No connection is in use. NULL is fine. */
void pool_free(struct pool *pool);

/* Whether one of the transports speaks to endpoints of this scheme. */
bool pool_reaches(const struct pool *pool, const char *endpoint);
/* Whether it is left alone now: pool_take would fail at once. */
bool pool_shuns(struct pool *pool, const char *endpoint);
/* A connection to `endpoint`: an idle one (*kept: it may have been closed by the peer meanwhile), or a new one. Blocks
 * while it connects. */
mc_status pool_take(mc_connection **out, bool *kept, struct pool *pool, const char *endpoint, const mc_call *call,
                    mc_error *err);
/* Give one back after a read that went well. */
void pool_give(struct pool *pool, const char *endpoint, mc_connection *connection);
/* End one that failed. With `all` the idle ones to its endpoint too: they are as old as it was. */
void pool_drop(struct pool *pool, const char *endpoint, mc_connection *connection, bool all);

#endif
