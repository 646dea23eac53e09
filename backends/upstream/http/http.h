/* Parts of the http upstream that its files share. */
#ifndef UPSTREAM_HTTP_HTTP_H
#define UPSTREAM_HTTP_HTTP_H

#include "client.h"

/* Report the files below a folder from the server's own index pages: nginx's JSON, or HTML. */
mc_status http_list_index(struct http_client *client, const char *url, size_t max,
                          bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                          mc_error *err);

/* The names in one index page, decoded; a folder's ends in '/'. MC_PROTOCOL: a name leads out of the folder. For tests
 * and fuzzing, too. `visit` returns false to stop. */
mc_status http_parse_index(const char *page, size_t size,
                           bool (*visit)(void *user, const char *name, uint64_t size, int64_t modified), void *user,
                           mc_error *err);

#endif
