/* What S3 and STS answer in XML: pages of listings, errors, credentials. */
#ifndef UPSTREAM_S3_PAGE_H
#define UPSTREAM_S3_PAGE_H

#include <stddef.h>

#include <modelcache/types.h>

struct s3_object {
  char *key; /* decoded */
  uint64_t size;
  char *etag; /* with quotes; NULL: not told */
  int64_t modified;
};

struct s3_page {
  struct s3_object *objects;
  size_t count, capacity;
  char *next; /* the token of the page that follows; NULL: there is none */
};

/* Read an answer to ListObjectsV2. MC_PROTOCOL: it is none, or says that there's more and not how to get it. Also for
 * fuzzing. */
mc_status s3_page_parse(struct s3_page *page, const char *text, size_t size, mc_error *err);
void s3_page_free(struct s3_page *page);

struct s3_error {
  char code[64]; /* "NoSuchKey"; "" where the answer is no error document */
  char region[64];
};

/* Read what comes with an error's status, of S3 or STS. */
void s3_error_parse(struct s3_error *error, const char *text, size_t size);

struct s3_keys_text {
  char id[256], secret[256], token[16384];
  char expiration[64];
};

/* Read STS's answer to AssumeRole or AssumeRoleWithWebIdentity. MC_PROTOCOL: it has no credentials. */
mc_status s3_keys_parse(struct s3_keys_text *keys, const char *text, size_t size, mc_error *err);

/* Seconds since 1970 of "2009-10-12T17:50:30.000Z"; 0: it's no such time. */
int64_t s3_time(const char *text);

#endif
