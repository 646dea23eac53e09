#include "tls.h"

mc_status tls_is_there(mc_error *err) {
  return mc_error_set(err, MC_UNSUPPORTED, "redis",
                      "coordination: this build can't do rediss://: hiredis 1.0 with TLS is needed");
}

mc_status tls_begin(redisContext *link, const struct redis_address *address, const char *host, const char *where,
                    mc_error *err) {
  (void)link, (void)address, (void)host, (void)where;
  return tls_is_there(err);
}
