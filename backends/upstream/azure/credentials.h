/* With what, and where, a blob is asked for: rules, Triton's file, the variables of Azure's tools, identities. */
#ifndef UPSTREAM_AZURE_CREDENTIALS_H
#define UPSTREAM_AZURE_CREDENTIALS_H

#include "../http/client.h"
#include "../http/keys.h"
#include "address.h"

struct azure_credentials;

/* Reads the environment: getenv isn't safe later. */
mc_status azure_credentials_new(struct azure_credentials **out, struct http_client *client,
                                const mc_upstream_config *config, mc_error *err);
void azure_credentials_free(struct azure_credentials *credentials);

/* How a URL is asked for. */
struct azure_access {
  char *endpoint; /* the account's */
  /* `secret`: the account's key, in base64; else `token`: a SAS if it begins with '?', or a bearer's; else nothing, and
   * `where` says why. */
  struct keys *keys;
};

/* Blocks while tokens are got. azure_access_end after success. */
mc_status azure_access_find(struct azure_access *out, struct azure_credentials *credentials, const char *url,
                            const struct azure_address *address, const mc_call *call, mc_error *err);
void azure_access_end(struct azure_access *access);
/* The service said that these keys are no good any more. Whether others may be there now. */
bool azure_access_refuse(struct azure_credentials *credentials, const char *url, const struct azure_address *address,
                         const struct keys *keys);

#endif
