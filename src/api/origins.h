/* The cache's own copy of its origin rules and credentials. */
#ifndef API_ORIGINS_H
#define API_ORIGINS_H

#include <modelcache/options.h>

struct origins;

/* Check what `options` says of origins, and let it point to a copy with normalised prefixes. *out is for origins_free,
 * also after a failure. */
mc_status origins_copy(struct origins **out, mc_options *options, mc_error *err);
/* Secrets are wiped. */
void origins_free(struct origins *origins);

#endif
