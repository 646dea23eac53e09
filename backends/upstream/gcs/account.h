/* Google's files of credentials, and the tokens that they are exchanged for. */
#ifndef UPSTREAM_GCS_ACCOUNT_H
#define UPSTREAM_GCS_ACCOUNT_H

#include <jansson.h>

#include "../http/client.h"
#include "documents.h"

/* A file of credentials, checked: all that gcs_token_get needs is there. json_decref() it. MC_INVALID_ARGUMENT says
 * what is wrong with it; MC_UNSUPPORTED: it is of a kind that we don't do. */
mc_status gcs_account_parse(json_t **out, const char *text, size_t size, mc_error *err);
/* Its public part: an address of e-mail, an id, an audience; "" where there is none. */
const char *gcs_account_id(const json_t *account);
const char *gcs_account_type(const json_t *account);

/* Get a token to read with. Blocks for one to three requests. */
mc_status gcs_token_get(struct gcs_token *out, const json_t *account, struct http_client *client, const mc_call *call,
                        mc_error *err);

#endif
