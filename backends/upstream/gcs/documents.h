/* What the JSON API answers, read with bounds. */
#ifndef UPSTREAM_GCS_DOCUMENTS_H
#define UPSTREAM_GCS_DOCUMENTS_H

#include <modelcache/types.h>

struct gcs_object {
  char *name; /* malloced */
  uint64_t size;
  mc_validators validators; /* the generation is the version */
  mc_checksum checksum;
};

struct gcs_page {
  struct gcs_object *objects;
  size_t count;
  char *next; /* the token of the next page; NULL: it's the last */
};

/* An object's resource. MC_PROTOCOL: it can't be read. gcs_object_free after success. */
mc_status gcs_object_parse(struct gcs_object *out, const char *text, size_t size, mc_error *err);
void gcs_object_free(struct gcs_object *object);
/* A page of a listing. gcs_page_free after success. */
mc_status gcs_page_parse(struct gcs_page *out, const char *text, size_t size, mc_error *err);
void gcs_page_free(struct gcs_page *page);

/* "crc32c=…,md5=…", as in X-Goog-Hash; what can't be read leaves none. */
void gcs_checksum_parse(mc_checksum *out, const char *value);
/* A time as in "2024-05-06T07:08:09.123Z", in seconds since 1970. false: it is none. */
bool gcs_time_parse(int64_t *out, const char *text);

struct gcs_token {
  char *text;         /* malloced; can be sent as it is */
  int64_t expires_at; /* milliseconds since 1970 */
};

/* An answer of who gives tokens, OAuth's or IAM's. MC_PROTOCOL: there's none in it. */
mc_status gcs_token_parse(struct gcs_token *out, const char *text, size_t size, mc_error *err);
void gcs_token_free(struct gcs_token *token);
/* Whether a text can be sent in a header: some visible ASCII, and not too much. */
bool gcs_token_is_sound(const char *text);

/* Why a request failed, as far as it may be shown: words of the API's own, never text. */
struct gcs_failure {
  char reason[64]; /* "rateLimitExceeded", "invalid_grant", "PERMISSION_DENIED"; or "" */
  bool no_bucket;  /* it's not the object that is missing */
  bool payer;      /* the bucket's owner wants whoever reads to pay */
};

void gcs_failure_parse(struct gcs_failure *out, const char *body);

#endif
