/* Parts of the gcs upstream that its files share. */
#ifndef UPSTREAM_GCS_GCS_H
#define UPSTREAM_GCS_GCS_H

#include "../http/store.h"
#include "address.h"
#include "credentials.h"

struct gcs {
  struct http_store store; /* first */
  struct gcs_credentials *credentials;
  char *emulator; /* its URL, without a '/' at the end; or NULL */
};

/* Where a URL's requests go; *emulated: to where no credentials are sent. *out has no '/' at the end, and is malloced.
 */
mc_status gcs_endpoint(char **out, const struct gcs *self, const char *url, bool *emulated, mc_error *err);
/* Give a request's target the credentials for its URL. */
mc_status gcs_authorize(struct gcs *self, const struct http_request *request, struct http_target *target, bool emulated,
                        const mc_call *call, mc_error *err);
/* What an answer other than 200 and 206 stands for. */
mc_status gcs_judge(struct gcs *self, const struct http_request *request, const struct http_head *head,
                    const char *body, bool *again, const mc_call *call, mc_error *err);

mc_status gcs_list(mc_upstream *base, const char *url, size_t max, bool (*visit)(void *user, const mc_listed *listed),
                   void *user, const mc_call *call, mc_error *err);

#endif
