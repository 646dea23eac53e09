#include "builtin.h"

extern const mc_storage_ops posix_storage_ops, memory_storage_ops;
extern const mc_upstream_ops file_upstream_ops, azure_upstream_ops, gcs_upstream_ops, http_upstream_ops,
    s3_upstream_ops, hf_upstream_ops, cluster_upstream_ops;
extern const mc_coordination_ops local_coordination_ops, redis_coordination_ops;
extern const mc_transport_ops tcp_transport_ops;

const mc_storage_ops *const builtin_storages[] = {&posix_storage_ops, &memory_storage_ops, NULL};
const mc_upstream_ops *const builtin_upstreams[] = {
    &cluster_upstream_ops, &http_upstream_ops, &s3_upstream_ops,   &gcs_upstream_ops,
    &azure_upstream_ops,   &hf_upstream_ops,   &file_upstream_ops, NULL};
const mc_coordination_ops *const builtin_coordinations[] = {&local_coordination_ops,
#ifdef HAVE_REDIS
                                                            &redis_coordination_ops,
#endif
                                                            NULL};
const mc_transport_ops *const builtin_transports[] = {&tcp_transport_ops, NULL};
