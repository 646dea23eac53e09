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
/* The value of a key as it is given. NULL: it is not there, also for NULL credentials. */
const char *origin_setting(const mc_credentials *credentials, const char *key);
/* Each KEY may also be given as KEY_file, a file that has the value in it: whether this key is `key`, in one of the two
 * ways. */
bool origin_is_setting(const char *given, const char *key);
/* The value of a key, or else what is in its file now, malloced; *out NULL: neither is given. MC_INVALID_ARGUMENT: the
 * file can't be used; the message has nothing of what is in it. Free it by secret_free. */
mc_status origin_secret(char **out, const mc_credentials *credentials, const char *key, mc_error *err);
/* The text in a file of at most 64 KiB, without the newline at its end, malloced. MC_INVALID_ARGUMENT says what is
 * wrong with it, as "PATH: …". */
mc_status secret_read(char **out, const char *path, mc_error *err);
/* Wipe it, and free it; NULL is fine. */
void secret_free(char *secret);

#endif
