/* What the s3 upstream's files share. */
#ifndef UPSTREAM_S3_S3_H
#define UPSTREAM_S3_S3_H

#include "../http/store.h"
#include "regions.h"
#include "sign.h"
#include "vault.h"

struct s3 {
  struct http_store store;
  struct s3_vault *vault;
  struct s3_regions regions;
};

/* Fields of heads, by their place in the dialect's list. */
enum { S3_FIELD_VERSION, S3_FIELD_CRC32C, S3_FIELD_CHECKSUM_TYPE, S3_FIELD_REGION, S3_FIELD_DELETE_MARKER };
#define S3_FIELDS                                                                                                      \
  {                                                                                                                    \
    [S3_FIELD_VERSION] = "x-amz-version-id", [S3_FIELD_CRC32C] = "x-amz-checksum-crc32c",                              \
    [S3_FIELD_CHECKSUM_TYPE] = "x-amz-checksum-type", [S3_FIELD_REGION] = "x-amz-bucket-region",                       \
    [S3_FIELD_DELETE_MARKER] = "x-amz-delete-marker"                                                                   \
  }

/* Where a URL's requests go. */
struct s3_route {
  struct s3_address address;
  struct s3_source *source;
  const char *endpoint; /* NULL: AWS's */
  char *own_endpoint;   /* its memory, where it is the rule's */
  enum s3_style style;
  char region[S3_REGION_SIZE];
};

/* Freed with s3_route_end, also after a failure. */
mc_status s3_route_find(struct s3_route *route, struct s3 *self, const char *url, mc_error *err);
void s3_route_end(struct s3_route *route);

/* Aim a request at what it is about: a key of the bucket with a NULL `query`, or the bucket with that. `header` is sent
 * and signed, too. */
mc_status s3_aim(struct s3 *self, const struct http_request *request, const char *query, const struct s3_header *header,
                 struct http_target *target, const mc_call *call, mc_error *err);
/* See http_dialect. */
mc_status s3_judge(struct s3 *self, const struct http_request *request, const struct http_head *head, const char *body,
                   bool *again, const mc_call *call, mc_error *err);

mc_status s3_list(mc_upstream *self, const char *url, size_t max, bool (*visit)(void *user, const mc_listed *listed),
                  void *user, const mc_call *call, mc_error *err);

#endif
