/* Assertions of a service account: JSON Web Tokens signed with its key (RS256). */
#ifndef UPSTREAM_GCS_JWT_H
#define UPSTREAM_GCS_JWT_H

#include <jansson.h>

#include <modelcache/types.h>

/* Sign `claims` with `key`, RSA in PEM; `key_id` may be NULL. *out is malloced. MC_INVALID_ARGUMENT: the key can't be
 * used. */
mc_status gcs_jwt_sign(char **out, const json_t *claims, const char *key, const char *key_id, mc_error *err);

#endif
