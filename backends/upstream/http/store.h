/* Upstreams whose files are at URLs of HTTP, as far as they are alike: asking what is there, reading a version in
 * ranges that are compared with it, noticing what lies.
 *
 * An upstream on this ground begins with a struct http_store, which http_store_init fills, and puts the ops of this
 * header into its table; its own `open`, `close` and `list` are beside them. */
#ifndef UPSTREAM_HTTP_STORE_H
#define UPSTREAM_HTTP_STORE_H

#include "client.h"
#include "doubt.h"

struct http_store;

/* How a make of store differs from plain web servers. Its requests have the store as `self`. */
struct http_make {
  struct http_dialect dialect;
  bool trusted;                  /* HEAD is true, and ranges work: no web server of which nothing is known */
  enum http_follow head_follows; /* redirects of HEAD */
  enum http_follow get_follows;  /* and of GET */
  /* Optional. What a response tells besides what any does: `info` and `detail` are filled from the common fields. */
  void (*describe)(const struct http_store *self, const struct http_head *head, mc_info *info,
                   struct http_version *version);
  /* Optional. What is at a URL, where that is not told by HEAD. */
  mc_status (*look)(struct http_store *self, const char *url, mc_info *info, struct http_version *version,
                    const mc_call *call, mc_error *err);
  /* Optional. Whether what a listing said is enough to read it; then fill info and version. */
  bool (*recall)(struct http_store *self, const char *url, const mc_listed *listed, mc_info *info,
                 struct http_version *version);
};

struct http_store {
  mc_upstream base;
  const struct http_make *make;
  struct http_client *client;
  struct doubts doubts;
};

mc_status http_store_init(struct http_store *store, const mc_upstream_ops *ops, const struct http_make *make,
                          const mc_upstream_config *config, mc_error *err);
/* Not after http_store_init failed. */
void http_store_end(struct http_store *store);

/* The version that a head tells of, in `info` and `version`. For `look`. */
void http_store_describe(const struct http_store *store, const struct http_head *head, mc_info *info,
                         struct http_version *version);

mc_status http_store_stat(mc_upstream *self, const char *url, mc_info *info, const mc_call *call, mc_error *err);
mc_status http_store_open(mc_upstream *self, const mc_open_args *args, mc_source **out, mc_info *info,
                          const mc_call *call, mc_error *err);
mc_status http_store_read(mc_source *source, mc_sink *sink, const mc_call *call, mc_error *err);
mc_status http_store_finish(mc_source *source, mc_info *info, const mc_open_args *args, const mc_call *call,
                            mc_error *err);
void http_store_close(mc_source *source);

#endif
