/* The backends that are built in. backends/builtin.c is the one file that names them all. */
#ifndef BACKENDS_BUILTIN_H
#define BACKENDS_BUILTIN_H

#include <modelcache/backend/coordination.h>
#include <modelcache/backend/storage.h>
#include <modelcache/backend/transport.h>
#include <modelcache/backend/upstream.h>

/* NULL-terminated. */
extern const mc_storage_ops *const builtin_storages[];
extern const mc_upstream_ops *const builtin_upstreams[];
extern const mc_coordination_ops *const builtin_coordinations[];
extern const mc_transport_ops *const builtin_transports[];

#endif
