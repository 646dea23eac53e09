/* Connection strings of storage accounts: "AccountName=…;AccountKey=…;…". */
#ifndef UPSTREAM_AZURE_CONNECTION_H
#define UPSTREAM_AZURE_CONNECTION_H

#include "address.h"

/* Strings are malloced; NULL where it doesn't say. Wiped at its end. */
struct azure_connection {
  char account[AZURE_ACCOUNT_SIZE]; /* "": it doesn't say */
  char *key, *sas;
  char *endpoint; /* of the Blob service, or of the account in it */
};

/* MC_INVALID_ARGUMENT says what is wrong with `where`, which it is from; never what is in it. */
mc_status azure_connection_parse(struct azure_connection *out, const char *text, const char *where, mc_error *err);
void azure_connection_forget(struct azure_connection *connection); /* its secrets */
void azure_connection_end(struct azure_connection *connection);

#endif
