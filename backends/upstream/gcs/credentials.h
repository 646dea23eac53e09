/* Which token a request is sent with: where they are looked for, in the order of Google's own libraries. */
#ifndef UPSTREAM_GCS_CREDENTIALS_H
#define UPSTREAM_GCS_CREDENTIALS_H

#include "../http/client.h"
#include "../http/keys.h"

struct gcs_credentials;

/* Reads the environment, and no file yet but Triton's. */
mc_status gcs_credentials_open(struct gcs_credentials **out, struct http_client *client,
                               const mc_upstream_config *config, mc_error *err);
void gcs_credentials_close(struct gcs_credentials *self); /* NULL is fine */

/* Those for a normalised URL; without a token: ask anonymously. May block, for requests. */
mc_status gcs_credentials_keys(struct gcs_credentials *self, struct keys **out, const char *url, const mc_call *call,
                               mc_error *err);
/* A request for this URL that showed these keys was refused for them: whether to ask once more, with others. */
bool gcs_credentials_refuse(struct gcs_credentials *self, const char *url, const struct keys *keys);
/* The project that pays for requests for this URL, malloced; *out NULL: it's not said. */
mc_status gcs_credentials_project(struct gcs_credentials *self, char **out, const char *url, mc_error *err);

#endif
