/* Parts of the http upstream that its files share. */
#ifndef UPSTREAM_HTTP_HTTP_H
#define UPSTREAM_HTTP_HTTP_H

#include "client.h"

/* Report the files below a folder from the server's own index pages, in no particular order. See mc_upstream_ops.list.
 */
struct http_store;
mc_status http_list_index(struct http_store *store, const char *url, size_t max,
                          bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                          mc_error *err);

/* A name in an index page: of a file, or of a folder, which ends in '/'. */
struct index_name {
  char *name; /* decoded; one part of a path */
  uint64_t size;
  int64_t modified;
};

struct index_page {
  struct index_name *names; /* sorted, each once */
  size_t count, capacity;
};

/* Read the page of a folder `url`: nginx's autoindex_format json, or HTML. MC_PROTOCOL: it can't be read, or has a name
 * that leads out of its folder. MC_RESOURCE_EXHAUSTED: more than `max` names. Also for tests and fuzzing. */
mc_status http_index_parse(struct index_page *page, const char *url, const char *text, size_t size, size_t max,
                           mc_error *err);
void http_index_free(struct index_page *page);

#endif
