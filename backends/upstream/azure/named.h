/* Credentials that a rule, or Triton's file, names. */
#ifndef UPSTREAM_AZURE_NAMED_H
#define UPSTREAM_AZURE_NAMED_H

#include "connection.h"
#include "token.h"

/* The keys that they may have, ended by NULL. */
extern const char *const azure_settings[];

struct azure_named;

/* Of a page that has credentials. `usual` is where identities get their tokens, unless it is said: its authority,
 * endpoint, header and machine count; it outlives this, as the client and the page's credentials do.
 * MC_INVALID_ARGUMENT: they can't be used. */
mc_status azure_named_new(struct azure_named **out, struct http_client *client, const struct azure_identity *usual,
                          const struct keybook_page *page, mc_error *err);
void azure_named_free(struct azure_named *named);

/* The account they are of; NULL: of any, or nobody knows. */
const char *azure_named_account(const struct azure_named *named);
/* What their connection string says of where the account is, without its secrets. */
const struct azure_connection *azure_named_connection(const struct azure_named *named);
struct keyring *azure_named_ring(const struct azure_named *named);

#endif
