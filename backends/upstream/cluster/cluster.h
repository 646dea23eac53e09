/* The client of a modelcache service, inside. */
#ifndef CLUSTER_CLUSTER_H
#define CLUSTER_CLUSTER_H

#include <modelcache/backend/upstream.h>

#include "pool.h"
#include "service.h"

struct cluster {
  mc_upstream base;
  struct service *service; /* the control plane */
  struct pool *pool;       /* connections to the data plane */
  uint32_t retries;
};

/* source.c: how long the pauses between so many attempts of a read are at least, all together. */
int64_t cluster_retries_ms(uint32_t retries);
/* The ops of that name. */
mc_status cluster_source_open(mc_upstream *self, const mc_open_args *args, mc_source **out, mc_info *info,
                              const mc_call *call, mc_error *err);
mc_status cluster_source_read(mc_source *source, mc_sink *sink, const mc_call *call, mc_error *err);
mc_status cluster_source_finish(mc_source *source, mc_info *info, const mc_open_args *args, const mc_call *call,
                                mc_error *err);
void cluster_source_close(mc_source *source);

#endif
