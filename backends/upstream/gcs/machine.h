/* The metadata service of Google's machines and pods. */
#ifndef UPSTREAM_GCS_MACHINE_H
#define UPSTREAM_GCS_MACHINE_H

#include "../http/client.h"
#include "documents.h"

/* A token of the machine's service account; with no text: this is no machine of Google's, or it has no account, and
 * *why says so. `host`: where the operator says that it is, or NULL; then silence is an error. Blocks, for a second
 * where nobody is there. */
mc_status gcs_machine_token(struct gcs_token *out, const char **why, const char *host, struct http_client *client,
                            const mc_call *call, mc_error *err);

#endif
