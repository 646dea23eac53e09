/* What the files of the azure upstream share: how it asks, and what answers mean. */
#ifndef UPSTREAM_AZURE_AZURE_H
#define UPSTREAM_AZURE_AZURE_H

#include "../http/store.h"
#include "credentials.h"

/* Of the service's protocol; Azurite knows it, too. From the next on, names may come encoded in listings. */
#define AZURE_VERSION "2020-10-02"

/* The places of fields in a head. */
enum azure_field { FIELD_ERROR, FIELD_DATE, FIELD_VERSION, FIELD_MD5, FIELD_BLOB_MD5, FIELD_IS_FOLDER, FIELD_TYPE };
#define AZURE_FIELDS                                                                                                   \
  {                                                                                                                    \
    "x-ms-error-code", "date", "x-ms-version-id", "content-md5", "x-ms-blob-content-md5", "x-ms-meta-hdi_isfolder",    \
        "x-ms-resource-type"                                                                                           \
  }

struct azure {
  struct http_store store; /* first */
  struct azure_credentials *credentials;
};

/* Set a request's target: `marker` of a listing's page ("": the first), NULL: for the blob. */
mc_status azure_aim(struct azure *self, const struct http_request *request, struct http_target *target,
                    const char *marker, const mc_call *call, mc_error *err);
/* What an answer that is no success stands for. */
mc_status azure_judge(struct azure *self, const struct http_request *request, const struct http_head *head, bool *again,
                      mc_error *err);

mc_status azure_list(mc_upstream *self, const char *url, size_t max, bool (*visit)(void *user, const mc_listed *listed),
                     void *user, const mc_call *call, mc_error *err);

#endif
