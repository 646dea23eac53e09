/* What the Blob service answers in XML, read with bounds: a page of a container's listing. */
#ifndef UPSTREAM_AZURE_BLOBS_H
#define UPSTREAM_AZURE_BLOBS_H

#include <modelcache/types.h>

struct azure_blob {
  char *name; /* malloced */
  bool is_folder;
  uint64_t size; /* or MC_SIZE_UNKNOWN */
  mc_validators validators;
};

struct azure_page {
  struct azure_blob *blobs;
  size_t count;
  char *next; /* the marker of the next page; NULL: it's the last */
};

/* MC_PROTOCOL: it can't be read. azure_page_free after success. */
mc_status azure_page_parse(struct azure_page *out, const char *text, size_t size, mc_error *err);
void azure_page_free(struct azure_page *page);

/* A Content-MD5; what can't be read leaves none. */
void azure_md5_parse(mc_checksum *out, const char *text);

#endif
