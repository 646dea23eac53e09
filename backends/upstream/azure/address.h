/* as://account/container/blob, and the URLs of the Blob service that it stands for. */
#ifndef UPSTREAM_AZURE_ADDRESS_H
#define UPSTREAM_AZURE_ADDRESS_H

#include <modelcache/types.h>

#define AZURE_ACCOUNT_SIZE 64
#define AZURE_SUFFIX       "core.windows.net"

struct azure_address {
  char account[AZURE_ACCOUNT_SIZE];
  char suffix[64]; /* of its cloud: AZURE_SUFFIX unless the URL says another */
  char container[64];
  char *blob;       /* decoded, malloced; "" for the container itself */
  char version[64]; /* "versionid=…" or "snapshot=…"; "": the current one */
};

/* MC_INVALID_ARGUMENT says how it's written. */
mc_status azure_address_parse(struct azure_address *out, const char *url, mc_error *err);
void azure_address_free(struct azure_address *address);

/* URLs to ask, malloced; NULL: no memory. The endpoint is an account's: "https://account.blob.core.windows.net",
 * "http://127.0.0.1:10000/account". */
char *azure_blob_url(const char *endpoint, const struct azure_address *address);
/* Of the blobs whose names begin with the address's; `marker`: of a further page, or "". */
char *azure_list_url(const char *endpoint, const struct azure_address *address, const char *marker);

/* An account's endpoint, malloced, where `service` is "scheme://host[:port][/path]": a host that is an address, or has
 * no dot, serves accounts in its path, as Azurite does. NULL: no memory. */
char *azure_endpoint(const char *service, const char *account);
/* The account that an endpoint is of, as far as it tells: false: it doesn't. */
bool azure_endpoint_account(char account[AZURE_ACCOUNT_SIZE], const char *endpoint);
/* Whether a text is "http://host…" or "https://host…" that can be an endpoint. */
bool azure_is_endpoint(const char *text);

#endif
