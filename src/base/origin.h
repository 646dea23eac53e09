/* Origin rules and credentials: finding what holds for a URL. */
#ifndef BASE_ORIGIN_H
#define BASE_ORIGIN_H

#include <modelcache/options.h>

/* The prefix of a rule in the form in which it is compared, malloced: a normalised URL, or "scheme://" for all of a
 * scheme. MC_INVALID_ARGUMENT says what is wrong with it. */
mc_status origin_prefix(char **out, const char *text, mc_error *err);
/* The rule for a normalised URL: the one with the longest prefix of those that hold. NULL: none. */
const mc_origin_rule *origin_rule(const mc_origin_rule *rules, size_t count, const char *url);
/* The credentials of that name. NULL: none, also for a NULL name. */
const mc_credentials *origin_credentials(const mc_credentials *list, size_t count, const char *name);
/* The value of a key. NULL: it is not there, also for NULL credentials. */
const char *origin_setting(const mc_credentials *credentials, const char *key);

#endif
