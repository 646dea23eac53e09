/* Signature Version 4, as S3 takes it: the path is escaped once, and the payload's hash is a header. */
#ifndef UPSTREAM_S3_SIGN_H
#define UPSTREAM_S3_SIGN_H

#include "../http/client.h"
#include "../http/keys.h"

#define S3_SHA256_HEX 65

struct s3_header {
  const char *name; /* lower case */
  const char *value;
};

struct s3_signing {
  const char *method, *host;
  const char *path, *query;        /* as they are sent: escaped, and the query's parts sorted */
  const struct s3_header *headers; /* those that are signed, sorted by name: "host" is among them */
  size_t header_count;
  const char *payload; /* the body's SHA-256 */
  const char *region, *service;
  const char *id, *secret;
  int64_t time; /* seconds since 1970 */
};

/* The value of the Authorization header, malloced. NULL: no memory. */
char *s3_authorization(const struct s3_signing *signing);
/* Sign a request to target->url, which is escaped and sorted. `header` is one more to send and sign, whose name lies
 * between "host" and "x-amz-content-sha256"; or NULL. false: no memory. */
bool s3_sign(struct http_target *target, const struct http_request *request, const struct s3_header *header,
             const char *region, const char *service, const struct keys *keys);

/* In hex, zero-terminated. */
void s3_sha256(char hex[S3_SHA256_HEX], const void *data, size_t size);
/* Append a text, escaped as signatures want it: all but letters, digits and "-._~"; and '/' if it is a `path`. */
struct buf;
void s3_escape(struct buf *out, const char *text, bool path);

#endif
