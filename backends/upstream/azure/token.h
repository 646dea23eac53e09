/* Tokens of Microsoft Entra, which stand for an application or for the machine. */
#ifndef UPSTREAM_AZURE_TOKEN_H
#define UPSTREAM_AZURE_TOKEN_H

#include "../http/client.h"
#include "../http/keys.h"

/* Who asks. Strings are NULL where there is none. */
struct azure_identity {
  const char *where;     /* this was found, for people */
  const char *client_id; /* of the application; else of one of the machine's identities */
  /* An application's, which has one of the next two: */
  const char *tenant_id, *authority;
  const char *secret;
  const char *token_file; /* read each time: it is replaced before what is in it expires */
  /* The machine's: */
  const char *endpoint, *header; /* of App Service and Container Apps; else it's a virtual machine's service, */
  const char *machine;           /* at "http://host" */
};

/* *out has the token. MC_NOT_FOUND: the machine has no such identity, or is none of Azure's; an application's is there
 * or refused. Blocks; for the machine's no longer than about a second. */
mc_status azure_token_get(struct keys **out, struct http_client *client, const struct azure_identity *identity,
                          const mc_call *call, mc_error *err);

/* What is answered: JSON with access_token, and expires_on or expires_in. MC_PROTOCOL. */
mc_status azure_token_parse(struct keys **out, const struct azure_identity *identity, const char *text, size_t size,
                            int64_t now_ms, mc_error *err);
/* Why it was refused, in `text`: codes alone, since nobody knows what else the answer repeats. */
void azure_token_refusal(char *text, size_t size, const char *body);

#endif
