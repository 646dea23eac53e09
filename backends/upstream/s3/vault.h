/* Where credentials of AWS are looked for, in the order of its own tools, and what is said beside them of how their
 * buckets are asked: region, endpoint, style. */
#ifndef UPSTREAM_S3_VAULT_H
#define UPSTREAM_S3_VAULT_H

#include "../http/client.h"
#include "../http/keys.h"
#include "address.h"
#include "environment.h"

struct s3_vault;
/* What holds for some URLs: the credentials that a rule names, or a prefix in Triton's file, or the usual ones. As long
 * as the vault. */
struct s3_source;

/* `client` outlives it. */
mc_status s3_vault_new(struct s3_vault **out, const mc_upstream_config *config, struct http_client *client,
                       mc_error *err);
void s3_vault_free(struct s3_vault *vault);

mc_status s3_vault_find(struct s3_vault *vault, struct s3_source **out, const char *url, mc_error *err);
/* *out: a reference; without `id` where there are none: ask without. Blocks. */
mc_status s3_source_keys(struct s3_source *source, struct keys **out, const mc_call *call, mc_error *err);
/* See keyring_refuse. */
bool s3_source_refuse(struct s3_source *source, const struct keys *keys);

struct s3_settings {
  char *region;   /* NULL: it isn't said */
  char *endpoint; /* in its normal form; NULL: AWS's */
  enum s3_style style;
};

/* The source's own, as long as that is. Read once. */
mc_status s3_source_settings(struct s3_source *source, const struct s3_settings **out, mc_error *err);

#endif
