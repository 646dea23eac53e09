/* Keys as they are given: an account's key, a SAS, a connection string with one of the two. */
#ifndef UPSTREAM_AZURE_KINDS_H
#define UPSTREAM_AZURE_KINDS_H

#include "../http/keys.h"
#include "connection.h"

/* `where`: they were found; `account`: NULL where nobody knows it. MC_INVALID_ARGUMENT: it can't be one. A SAS may
 * begin with '?'; the token of its keys does. */
mc_status azure_account_keys(struct keys **out, const char *where, const char *account, const char *key, mc_error *err);
mc_status azure_sas_keys(struct keys **out, const char *where, const char *account, const char *sas, mc_error *err);
/* It has one of the two. */
mc_status azure_connection_keys(struct keys **out, const char *where, const struct azure_connection *connection,
                                mc_error *err);

/* When a SAS ends, in milliseconds since 1970; 0: it doesn't say. */
int64_t azure_sas_end(const char *sas);

/* MC_INVALID_ARGUMENT, and why. */
mc_status azure_bad_keys(const char *where, const char *why, mc_error *err);
/* MC_NO_MEMORY for NULL keys. */
mc_status azure_give_keys(struct keys **out, struct keys *keys, mc_error *err);

#endif
