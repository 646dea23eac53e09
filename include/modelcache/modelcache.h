/* modelcache: a distributed cache for AI model files. This header includes the whole public API. */
#ifndef MODELCACHE_MODELCACHE_H
#define MODELCACHE_MODELCACHE_H

#include <modelcache/cache.h>
#include <modelcache/error.h>
#include <modelcache/options.h>
#include <modelcache/types.h>

#endif
