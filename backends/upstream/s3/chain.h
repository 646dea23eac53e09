/* The usual places of credentials, one after the other, and what services give for those that are found there. */
#ifndef UPSTREAM_S3_CHAIN_H
#define UPSTREAM_S3_CHAIN_H

#include "../http/client.h"
#include "../http/keys.h"
#include "environment.h"

/* What getting keys takes. */
struct s3_chain {
  struct http_client *client;
  const struct s3_environment *environment;
  const char *region; /* NULL: none is said */
};

struct s3_role {
  const char *where; /* it is from, for people */
  const char *arn;
  const char *session_name;           /* NULL: ours */
  const char *external_id, *duration; /* or NULL */
  const char *token_file;             /* of a web identity; NULL: it's asked for with keys */
  const char *endpoint;               /* of STS, as somebody wrote it; NULL: AWS's */
};

/* Each: *out stays NULL, with MC_OK, where there are none in that place. Blocks. */

/* All of them, in their order; keys without `id` where nothing was found. */
mc_status s3_chain_usual(const struct s3_chain *chain, struct keys **out, const mc_call *call, mc_error *err);
/* Those of a profile, or of a role that it names; here it must have some. */
mc_status s3_chain_profile(const struct s3_chain *chain, struct keys **out, const char *profile, const mc_call *call,
                           mc_error *err);
/* Those of a role, for `keys`; its endpoint is the environment's, if that says one. */
mc_status s3_chain_role(const struct s3_chain *chain, struct keys **out, struct s3_role *role, const struct keys *keys,
                        const mc_call *call, mc_error *err);

/* machine.c: of the environment's container, and of the machine. */
mc_status s3_get_container(const struct s3_chain *chain, struct keys **out, const mc_call *call, mc_error *err);
mc_status s3_get_machine(const struct s3_chain *chain, struct keys **out, const mc_call *call, mc_error *err);

/* sts.c: `keys` sign; NULL with a token file. */
mc_status s3_get_role(const struct s3_chain *chain, struct keys **out, const struct s3_role *role,
                      const struct keys *keys, const mc_call *call, mc_error *err);

#endif
