/* What an s3:// URL names, and where that is asked for. */
#ifndef UPSTREAM_S3_ADDRESS_H
#define UPSTREAM_S3_ADDRESS_H

#include <stdbool.h>

#include <modelcache/types.h>

struct s3_address {
  char *endpoint; /* "http://host:port", of a URL that says so; NULL: the usual one */
  char *bucket;
  char *key;     /* as it is in the store; "" for the bucket itself */
  char *version; /* of ?versionId=; NULL: the current one */
};

/* "s3://bucket/key", or as Triton writes the address of a server that isn't AWS's: "s3://host:port/bucket/key",
 * "s3://http://host:port/bucket/key", "s3://https://host:port/bucket/key"; without a word it is http. `url` is
 * normalised. MC_INVALID_ARGUMENT says how it is written. Freed with s3_address_free, also after a failure. */
mc_status s3_address_parse(struct s3_address *address, const char *url, mc_error *err);
void s3_address_free(struct s3_address *address);

enum s3_style { S3_STYLE_AUTO, S3_STYLE_PATH, S3_STYLE_VIRTUAL };
/* false: it's none of "auto", "path", "virtual". */
bool s3_style_parse(enum s3_style *style, const char *text);

/* An endpoint in its normal form, "https://host:port", malloced. MC_INVALID_ARGUMENT names `where` it is from. */
mc_status s3_endpoint_parse(char **out, const char *text, const char *where, mc_error *err);
/* Whether a text can be a region: it becomes a part of host names. */
bool s3_region_is_safe(const char *region);

/* Where a key of a bucket is, or the bucket itself for a NULL key; without a query. `endpoint` NULL: AWS's of the
 * region. The style "auto" is virtual for AWS, where the bucket may be a part of a host's name under its certificate,
 * else path. malloced; NULL: no memory. */
char *s3_address_url(const struct s3_address *address, const char *key, const char *endpoint, const char *region,
                     enum s3_style style);

#endif
