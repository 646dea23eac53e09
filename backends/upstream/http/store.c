/* What is at a URL, and reading a version of it.
 *
 * A version is told by its version id, else its ETag, else its Last-Modified, and its size. Every response of a
 * download is compared with what was there when it was opened, and a part of another version is never taken. That is
 * done here and not left to the server by If-Match or If-Range: many servers ignore these or know them for files on
 * their disk only, some compare wrongly (with and without quotes), and none may match a weak ETag by If-Match, though
 * weak ones (of Node's servers, of content networks) are in practice as good as others. A response that does not say of
 * which version it is makes us ask once more in the end. What has no validators at all is read as one response: parts
 * could be of two versions.
 *
 * What an origin announces is believed until it proves false: then the download begins again (MC_CHANGED), and for a
 * while that URL is asked about by GET, or not in ranges.
 *
 * Bytes are taken as they are sent: a Content-Encoding that nobody asked for is kept. */
#include "store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/url.h"

struct source {
  mc_source base;
  char *url;
  mc_info info;
  struct http_version version;
  atomic_bool unproven; /* bytes were taken that may be of another version */
  pthread_mutex_t lock; /* a leaf: */
  bool has_digest;      /* a response told the digest of all of it, */
  mc_digest digest;
  mc_checksum checksum; /* or its checksum */
};

static struct http_store *store_of(mc_upstream *upstream) {
  return (struct http_store *)upstream;
}

static struct http_request request_of(struct http_store *store, const char *method, const char *url) {
  bool head = strcmp(method, "HEAD") == 0;
  return (struct http_request){.method = method,
                               .url = url,
                               .dialect = &store->make->dialect,
                               .self = store,
                               .follow = head ? store->make->head_follows : store->make->get_follows};
}

static const char *name_of(const struct http_store *store) {
  return store->base.ops->name;
}

/* ---- versions ---- */

enum likeness { SAME, ANOTHER, UNTOLD };

/* Weakly: a proxy on the way may have made a strong ETag weak. */
static bool etags_match(const char *a, const char *b) {
  return strcmp(strncmp(a, "W/", 2) == 0 ? a + 2 : a, strncmp(b, "W/", 2) == 0 ? b + 2 : b) == 0;
}

static enum likeness compare(const mc_validators *a, const mc_validators *b) {
  if (a->version[0] && b->version[0]) return strcmp(a->version, b->version) == 0 ? SAME : ANOTHER;
  if (a->etag[0] && b->etag[0]) return etags_match(a->etag, b->etag) ? SAME : ANOTHER;
  if (a->last_modified && b->last_modified) return a->last_modified == b->last_modified ? SAME : ANOTHER;
  return UNTOLD;
}

static bool any_validator(const mc_validators *validators) {
  return validators->version[0] || validators->etag[0] || validators->last_modified;
}

/* ---- what is there ---- */

void http_store_describe(const struct http_store *store, const struct http_head *head, mc_info *info,
                         struct http_version *version) {
  bool part = head->status == 206, trusted = store->make->trusted;
  *info = (mc_info){.size = part ? head->total : head->length, .validators.last_modified = head->last_modified};
  memcpy(info->validators.etag, head->etag, sizeof(info->validators.etag));
  info->has_digest = head->has_digest && !part;
  info->digest = head->digest;
  *version = (struct http_version){0};
  if (store->make->describe) store->make->describe(store, head, info, version);
  info->ranges =
      info->size != MC_SIZE_UNKNOWN && any_validator(&info->validators) && (part || head->takes_ranges || trusted);
  version->validators = info->validators;
}

/* Ask by GET for one byte, which shows whether ranges work, and what HEAD did not tell. `info` is what it did tell. */
static mc_status probe(struct http_store *self, const char *url, mc_info *info, struct http_version *version,
                       const mc_call *call, mc_error *err) {
  struct http_request request = request_of(self, "GET", url);
  struct http_head head;
  mc_info now;
  request.end = 1;
  mc_status status = http_fetch(self->client, &request, &head, call, err);
  if (status && head.status != 416) return status;
  if (head.status == 206 && (!head.has_range || head.first != 0 || head.last != 0)) {
    char text[URL_SHOWN];
    return mc_error_set(err, MC_PROTOCOL, name_of(self), "%s: the origin sent another range than it was asked for",
                        url_printable(text, sizeof(text), url));
  }
  struct http_version before = *version;
  http_store_describe(self, &head, &now, version);
  if (head.status != 416) {
    *info = now;
  } else { /* there is no byte 0, or ranges don't work; what HEAD has said besides, holds */
    if (head.total != MC_SIZE_UNKNOWN) info->size = head.total;
    if (any_validator(&now.validators)) {
      info->validators = now.validators;
    } else {
      *version = before;
    }
  }
  if (head.status != 206) info->ranges = false;
  return MC_OK;
}

/* By HEAD, where it is not refused and seems to be true. */
static mc_status ask_head(struct http_store *self, const char *url, mc_info *info, struct http_version *version,
                          bool *told, const mc_call *call, mc_error *err) {
  struct http_request request = request_of(self, "HEAD", url);
  struct http_head head;
  mc_status status = http_fetch(self->client, &request, &head, call, err);
  bool refused = head.status == 400 || head.status == 403 || head.status == 405 || head.status == 501;
  *told = self->make->trusted || (status && !refused); /* else perhaps it's only HEAD that is refused */
  if (status) return *told ? status : MC_OK;
  http_store_describe(self, &head, info, version);
  /* What seems empty is looked at twice: some answer HEAD with the length of the body that HEAD has. */
  *told = self->make->trusted || (info->size != 0 && (info->ranges || !head.takes_ranges));
  return MC_OK;
}

static mc_status look(struct http_store *self, const char *url, mc_info *info, struct http_version *version,
                      const mc_call *call, mc_error *err) {
  struct doubt doubt = doubts_about(&self->doubts, url);
  bool told = false;
  mc_status status = MC_OK;
  *info = (mc_info){.size = MC_SIZE_UNKNOWN};
  *version = (struct http_version){0};
  if (self->make->look) {
    status = self->make->look(self, url, info, version, call, err);
  } else {
    if (!doubt.head) status = ask_head(self, url, info, version, &told, call, err);
    if (!status && !told) status = probe(self, url, info, version, call, err);
  }
  if (doubt.ranges) info->ranges = false;
  return status;
}

mc_status http_store_stat(mc_upstream *self, const char *url, mc_info *info, const mc_call *call, mc_error *err) {
  struct http_version version;
  return look(store_of(self), url, info, &version, call, err);
}

mc_status http_store_open(mc_upstream *self, const mc_open_args *args, mc_source **out, mc_info *info,
                          const mc_call *call, mc_error *err) {
  struct http_store *store = store_of(self);
  struct http_version version = {0};
  *out = NULL;
  *info = (mc_info){.size = MC_SIZE_UNKNOWN};
  bool recalled = args->listed && store->make->recall &&
                  store->make->recall(store, args->url, args->listed, info, &version) &&
                  mc_call_check(call, NULL) == MC_OK;
  mc_status status = recalled ? MC_OK : look(store, args->url, info, &version, call, err);
  if (status) return status;
  if (args->known && compare(args->known, &info->validators) == SAME &&
      (args->known_size == info->size || info->size == MC_SIZE_UNKNOWN)) {
    info->unchanged = true;
    return MC_OK;
  }
  struct source *source = calloc(1, sizeof(*source));
  char *url = strdup(args->url);
  if (!source || !url) {
    free(source);
    free(url);
    return mc_error_set(err, MC_NO_MEMORY, name_of(store), "no memory for a source");
  }
  source->base.upstream = self;
  source->url = url;
  source->info = *info;
  source->version = version;
  atomic_init(&source->unproven, false);
  pthread_mutex_init(&source->lock, NULL);
  *out = &source->base;
  return MC_OK;
}

void http_store_close(mc_source *base) {
  struct source *source = (struct source *)base;
  pthread_mutex_destroy(&source->lock);
  free(source->url);
  free(source);
}

/* ---- reading ---- */

/* One response of a read. */
struct reading {
  struct source *source;
  mc_sink *sink;
  uint64_t started; /* where the sink was */
  uint64_t skip;    /* bytes to come that the sink has already */
  uint64_t promise; /* where the response ends, as far as it says */
  bool refused;     /* it was the sink that failed: that is final, whatever the status */
};

static mc_status protocol(const struct reading *reading, const char *what, mc_error *err) {
  char url[URL_SHOWN];
  return mc_error_set(err, MC_PROTOCOL, reading->source->base.upstream->ops->name, "%s: the origin sent %s",
                      url_printable(url, sizeof(url), reading->source->url), what);
}

static mc_status changed(const struct reading *reading, bool ranges, const char *how, mc_error *err) {
  char url[URL_SHOWN];
  struct source *source = reading->source;
  struct http_store *store = store_of(source->base.upstream);
  doubts_add(&store->doubts, source->url, ranges);
  return mc_error_set(err, MC_CHANGED, name_of(store), "%s %s", url_printable(url, sizeof(url), source->url), how);
}

static mc_status another_version(const struct reading *reading, mc_error *err) {
  return changed(reading, false, "changed while it was read", err);
}

static mc_status check_part(struct reading *reading, const struct http_head *head, mc_error *err) {
  uint64_t size = reading->source->info.size, end = reading->sink->end;
  if (!head->has_range || head->first != reading->started || (end != MC_SIZE_UNKNOWN && head->last >= end)) {
    return protocol(reading, "another range than it was asked for", err);
  }
  if (size != MC_SIZE_UNKNOWN && head->total != MC_SIZE_UNKNOWN && head->total != size) {
    return another_version(reading, err);
  }
  reading->promise = head->last + 1;
  return MC_OK;
}

static mc_status check_whole(struct reading *reading, const struct http_head *head, mc_error *err) {
  const mc_info *opened = &reading->source->info;
  if (opened->size != MC_SIZE_UNKNOWN && head->length != MC_SIZE_UNKNOWN && head->length != opened->size) {
    return another_version(reading, err);
  }
  if (opened->ranges && (reading->started > 0 || reading->sink->end != opened->size)) {
    return changed(reading, true, "can't be read in ranges, though the origin said so", err);
  }
  reading->skip = reading->started;
  reading->promise = head->length;
  return MC_OK;
}

/* A response with content may tell what HEAD or a listing did not. */
static void keep_digest(struct source *source, const mc_info *told) {
  if (!told->has_digest && !told->checksum.kind) return;
  pthread_mutex_lock(&source->lock);
  if (told->has_digest) source->digest = told->digest;
  if (told->checksum.kind) source->checksum = told->checksum;
  source->has_digest |= told->has_digest;
  pthread_mutex_unlock(&source->lock);
}

/* Whether a response is of the version that was opened, and holds what it should. */
static mc_status check_head(void *user, const struct http_head *head, mc_error *err) {
  struct reading *reading = user;
  struct source *source = reading->source;
  if (head->status != 200 && head->status != 206) return MC_OK; /* judged after the response */
  mc_info now;
  struct http_version version;
  http_store_describe(store_of(source->base.upstream), head, &now, &version);
  enum likeness likeness = compare(&now.validators, &source->info.validators);
  if (likeness == ANOTHER) return another_version(reading, err);
  if (source->version.pinned) likeness = SAME;
  mc_status status = head->status == 206 ? check_part(reading, head, err) : check_whole(reading, head, err);
  if (!status) keep_digest(source, &now);
  if (status || likeness == SAME) return status;
  if (reading->started > 0 && !source->info.ranges) {
    return changed(reading, false, "was cut short, and can't be told from other versions to go on", err);
  }
  atomic_store(&source->unproven, true);
  return MC_OK;
}

static mc_status take_body(void *user, const void *data, size_t size, mc_error *err) {
  struct reading *reading = user;
  mc_sink *sink = reading->sink;
  size_t skip = reading->skip < size ? (size_t)reading->skip : size;
  reading->skip -= skip;
  size -= skip;
  if (sink->end != MC_SIZE_UNKNOWN && size > sink->end - sink->offset) {
    return protocol(reading, "more bytes than it promised", err);
  }
  if (!size) return MC_OK;
  mc_status status = sink->write(sink, (const char *)data + skip, size, err);
  reading->refused = status != MC_OK;
  return status;
}

/* One request for what is missing. *done: there is no more to be had: that was all of it, or the sink takes no more. */
static mc_status read_once(struct source *source, mc_sink *sink, struct http_head *head, bool *done,
                           const mc_call *call, mc_error *err) {
  struct http_store *self = store_of(source->base.upstream);
  struct reading reading = {.source = source, .sink = sink, .started = sink->offset, .promise = MC_SIZE_UNKNOWN};
  struct http_request request = request_of(self, "GET", source->url);
  /* Some tell the digest with the whole, and not with a range, even of all. */
  bool whole = sink->offset == 0 && (!source->info.ranges || (self->make->trusted && sink->end == source->info.size));
  request.first = sink->offset;
  request.end = whole ? 0 : source->info.ranges ? sink->end : MC_SIZE_UNKNOWN;
  request.version = &source->version;
  request.on_head = check_head;
  request.on_body = take_body;
  request.user = &reading;
  mc_status status = http_ask(self->client, &request, head, call, err);
  *done = reading.refused;
  if (*done) return status;
  if (status == MC_NOT_FOUND) return another_version(&reading, err); /* it was there when it was opened */
  if (status) return status;
  bool kept = reading.skip == 0 && (reading.promise == MC_SIZE_UNKNOWN || reading.promise == sink->offset);
  *done = kept && (sink->end == MC_SIZE_UNKNOWN ? head->status == 200 || sink->offset == head->total
                                                : sink->offset == sink->end);
  /* A part that is smaller than the one that was asked for is an answer, too. */
  if (*done || (kept && head->status == 206 && sink->offset > reading.started)) return MC_OK;
  protocol(&reading, "fewer bytes than it promised", err);
  if (err) err->status = MC_UNAVAILABLE;
  return MC_UNAVAILABLE;
}

mc_status http_store_read(mc_source *base, mc_sink *sink, const mc_call *call, mc_error *err) {
  struct source *source = (struct source *)base;
  struct http_client *client = store_of(base->upstream)->client;
  if (sink->offset > 0 && !source->info.ranges) {
    return mc_error_set(err, MC_UNSUPPORTED, base->upstream->ops->name, "the origin can't send ranges");
  }
  uint32_t failures = 0;
  bool done = sink->offset == sink->end;
  while (!done) {
    struct http_head head;
    uint64_t before = sink->offset;
    mc_status status = read_once(source, sink, &head, &done, call, err);
    if (sink->offset > before) failures = 0; /* it goes on, if slowly: only failures in a row count */
    if (status && !done) status = http_again(client, &failures, status, &head, call, err);
    if (status) return status;
  }
  return MC_OK;
}

/* Responses did not say of which version they were: has there been another since? */
mc_status http_store_finish(mc_source *base, mc_info *info, const mc_open_args *args, const mc_call *call,
                            mc_error *err) {
  (void)args;
  struct source *source = (struct source *)base;
  mc_info now;
  struct http_version version;
  if (source->has_digest && !info->has_digest) {
    info->has_digest = true;
    info->digest = source->digest;
  }
  if (!info->checksum.kind) info->checksum = source->checksum;
  if (!atomic_load(&source->unproven)) return MC_OK;
  mc_status status = look(store_of(base->upstream), source->url, &now, &version, call, err);
  if (status) return status;
  bool other_size =
      now.size != source->info.size && now.size != MC_SIZE_UNKNOWN && source->info.size != MC_SIZE_UNKNOWN;
  struct reading reading = {.source = source};
  return other_size || compare(&now.validators, &source->info.validators) == ANOTHER ? another_version(&reading, err)
                                                                                     : MC_OK;
}

/* ---- the store ---- */

mc_status http_store_init(struct http_store *store, const mc_upstream_ops *ops, const struct http_make *make,
                          const mc_upstream_config *config, mc_error *err) {
  store->base.ops = ops;
  store->make = make;
  mc_status status = http_client_new(&store->client, config, err);
  if (!status) doubts_init(&store->doubts);
  return status;
}

void http_store_end(struct http_store *store) {
  http_client_free(store->client);
  doubts_end(&store->doubts);
}
