/* Which symbols the shared library exports. */
#ifndef MODELCACHE_EXPORT_H
#define MODELCACHE_EXPORT_H

#if defined(__GNUC__)
#define MC_API __attribute__((visibility("default")))
#else
#define MC_API
#endif

#endif
