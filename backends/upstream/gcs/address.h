/* gs://bucket/object[?generation=N], and the URLs of the JSON API that it stands for. */
#ifndef UPSTREAM_GCS_ADDRESS_H
#define UPSTREAM_GCS_ADDRESS_H

#include <modelcache/types.h>

struct gcs_address {
  char bucket[224];
  char *object; /* decoded, malloced; "" for the bucket itself */
  char generation[24];
};

/* MC_INVALID_ARGUMENT says how it's written. */
mc_status gcs_address_parse(struct gcs_address *out, const char *url, mc_error *err);
void gcs_address_free(struct gcs_address *address);

struct buf;
/* Percent-encode all of a name: also its slashes, dots and plus signs are no part of the URL's own grammar. */
void gcs_append_name(struct buf *out, const char *name);
/* URLs to ask, malloced; NULL: no memory. `generation`: "" for the current one. */
char *gcs_object_url(const char *endpoint, const struct gcs_address *address, const char *generation);
char *gcs_media_url(const char *endpoint, const struct gcs_address *address, const char *generation);
/* Of the objects whose names begin with the address's; `token`: of a further page, or NULL. */
char *gcs_list_url(const char *endpoint, const struct gcs_address *address, const char *token);

#endif
