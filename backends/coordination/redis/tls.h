/* rediss://: TLS on a connection of hiredis'. */
#ifndef REDIS_TLS_H
#define REDIS_TLS_H

#include <hiredis/hiredis.h>

#include "address.h"

/* MC_UNSUPPORTED: this build has none. */
mc_status tls_is_there(mc_error *err);
/* MC_UNAVAILABLE: the server has none, or isn't who it should be. MC_INVALID_ARGUMENT: our files can't be used. */
mc_status tls_begin(redisContext *link, const struct redis_address *address, const char *host, const char *where,
                    mc_error *err);

#endif
