/* http: files of web servers, and the ground that object stores stand on.
 *
 * A version is told by its ETag, else its Last-Modified, and its size. Every response of a download is compared with
 * what was there when it was opened, and a part of another version is never taken. That is done here and not left to
 * the server by If-Match or If-Range: many servers ignore these or know them for files on their disk only, some compare
 * wrongly (with and without quotes), and none may match a weak ETag by If-Match, though weak ones (of Node's servers,
 * of content networks) are in practice as good as others. A response that does not say of which version it is makes us
 * ask once more in the end. What has no validators at all is read as one response: parts could be of two versions.
 *
 * What an origin announces is believed until it proves false: then the download begins again (MC_CHANGED), and for a
 * while that URL is asked about by GET, or not in ranges.
 *
 * Bytes are taken as they are sent: a Content-Encoding that nobody asked for is kept. */
#include "http.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/url.h"

#define ORIGIN   "http"
#define DOUBTS   64
#define DOUBT_MS 600000

/* An origin that said what wasn't so, about one URL. */
struct doubt {
  mc_hash128 url;
  int64_t until;     /* 0: an empty place */
  bool head, ranges; /* of what HEAD said; of its ranges */
};

struct http {
  mc_upstream base;
  struct http_client *client;
  pthread_mutex_t lock; /* a leaf */
  struct doubt doubts[DOUBTS];
  unsigned next_doubt;
};

struct source {
  mc_source base;
  char *url;
  mc_info info;
  atomic_bool unproven; /* bytes were taken that may be of another version */
};

static struct http *http_of(mc_upstream *upstream) {
  return (struct http *)upstream;
}

/* ---- doubts ---- */

static struct doubt doubt_about(struct http *self, const char *url) {
  struct doubt found = {0};
  mc_hash128 key;
  xxh128_of(&key, url, strlen(url));
  int64_t now = clock_ns();
  pthread_mutex_lock(&self->lock);
  for (unsigned i = 0; i < DOUBTS; i++) {
    if (self->doubts[i].until >= now && hash128_equal(&self->doubts[i].url, &key)) found = self->doubts[i];
  }
  pthread_mutex_unlock(&self->lock);
  return found;
}

static void add_doubt(struct http *self, const char *url, bool ranges) {
  mc_hash128 key;
  struct doubt *place = NULL;
  int64_t now = clock_ns();
  xxh128_of(&key, url, strlen(url));
  pthread_mutex_lock(&self->lock);
  for (unsigned i = 0; i < DOUBTS && !place; i++) {
    if (hash128_equal(&self->doubts[i].url, &key)) place = &self->doubts[i];
  }
  bool known = place && place->until >= now;
  if (!place) place = &self->doubts[self->next_doubt++ % DOUBTS];
  *place = (struct doubt){key, now + DOUBT_MS * NS_PER_MS, true, ranges || (known && place->ranges)};
  pthread_mutex_unlock(&self->lock);
}

/* ---- versions ---- */

enum likeness { SAME, ANOTHER, UNTOLD };

/* Weakly: a proxy on the way may have made a strong ETag weak. */
static bool etags_match(const char *a, const char *b) {
  return strcmp(strncmp(a, "W/", 2) == 0 ? a + 2 : a, strncmp(b, "W/", 2) == 0 ? b + 2 : b) == 0;
}

static enum likeness compare(const mc_validators *a, const mc_validators *b) {
  if (a->etag[0] && b->etag[0]) return etags_match(a->etag, b->etag) ? SAME : ANOTHER;
  if (a->last_modified && b->last_modified) return a->last_modified == b->last_modified ? SAME : ANOTHER;
  return UNTOLD;
}

static void validators_of(mc_validators *validators, const struct http_head *head) {
  *validators = (mc_validators){.last_modified = head->last_modified};
  memcpy(validators->etag, head->etag, sizeof(validators->etag));
}

static bool any_validator(const struct http_head *head) {
  return head->etag[0] || head->last_modified;
}

/* ---- what is there ---- */

static void describe(mc_info *info, const struct http_head *head) {
  bool part = head->status == 206;
  *info = (mc_info){.size = part ? head->total : head->length};
  info->ranges = info->size != MC_SIZE_UNKNOWN && any_validator(head) && (part || head->takes_ranges);
  validators_of(&info->validators, head);
  info->has_digest = head->has_digest && !part;
  info->digest = head->digest;
}

/* Ask by GET for one byte, which shows whether ranges work, and what HEAD did not tell. `info` is what it did tell. */
static mc_status probe(struct http *self, const char *url, mc_info *info, const mc_call *call, mc_error *err) {
  struct http_request request = {.method = "GET", .url = url, .first = 0, .end = 1};
  struct http_head head;
  mc_status status = http_fetch(self->client, &request, &head, call, err);
  if (head.status == 416) { /* there is no byte 0, or ranges don't work; what HEAD has said besides, holds */
    if (head.total != MC_SIZE_UNKNOWN) info->size = head.total;
    if (any_validator(&head)) validators_of(&info->validators, &head);
    info->ranges = false;
    return MC_OK;
  }
  if (status) return status;
  if (head.status == 206 && (!head.has_range || head.first != 0 || head.last != 0)) {
    char text[URL_SHOWN];
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s: the origin sent another range than it was asked for",
                        url_printable(text, sizeof(text), url));
  }
  describe(info, &head);
  if (head.status == 200) info->ranges = false;
  return MC_OK;
}

static mc_status look(struct http *self, const char *url, mc_info *info, const mc_call *call, mc_error *err) {
  struct http_request request = {.method = "HEAD", .url = url};
  struct http_head head;
  struct doubt doubt = doubt_about(self, url);
  bool told = false;
  mc_status status = MC_OK;
  *info = (mc_info){.size = MC_SIZE_UNKNOWN};
  if (!doubt.head) {
    status = http_fetch(self->client, &request, &head, call, err);
    bool refused = head.status == 400 || head.status == 403 || head.status == 405 || head.status == 501;
    if (status && !refused) return status; /* else perhaps it's only HEAD that is refused */
    if (!status) describe(info, &head);
    /* What seems empty is looked at twice: some answer HEAD with the length of the body that HEAD has. */
    told = !status && info->size != 0 && (info->ranges || !head.takes_ranges);
  }
  if (!told) status = probe(self, url, info, call, err);
  if (doubt.ranges) info->ranges = false;
  return status;
}

static mc_status http_stat(mc_upstream *self, const char *url, mc_info *info, const mc_call *call, mc_error *err) {
  return look(http_of(self), url, info, call, err);
}

static mc_status http_source_open(mc_upstream *self, const mc_open_args *args, mc_source **out, mc_info *info,
                                  const mc_call *call, mc_error *err) {
  *out = NULL;
  mc_status status = look(http_of(self), args->url, info, call, err);
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
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a source");
  }
  source->base.upstream = self;
  source->url = url;
  source->info = *info;
  atomic_init(&source->unproven, false);
  *out = &source->base;
  return MC_OK;
}

static void http_source_close(mc_source *base) {
  struct source *source = (struct source *)base;
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
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s: the origin sent %s",
                      url_printable(url, sizeof(url), reading->source->url), what);
}

static mc_status changed(const struct reading *reading, bool ranges, const char *how, mc_error *err) {
  char url[URL_SHOWN];
  struct source *source = reading->source;
  add_doubt(http_of(source->base.upstream), source->url, ranges);
  return mc_error_set(err, MC_CHANGED, ORIGIN, "%s %s", url_printable(url, sizeof(url), source->url), how);
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

/* Whether a response is of the version that was opened, and holds what it should. */
static mc_status check_head(void *user, const struct http_head *head, mc_error *err) {
  struct reading *reading = user;
  struct source *source = reading->source;
  if (head->status != 200 && head->status != 206) return MC_OK; /* judged after the response */
  mc_validators now;
  validators_of(&now, head);
  enum likeness likeness = compare(&now, &source->info.validators);
  if (likeness == ANOTHER) return another_version(reading, err);
  mc_status status = head->status == 206 ? check_part(reading, head, err) : check_whole(reading, head, err);
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
  struct http *self = http_of(source->base.upstream);
  struct reading reading = {.source = source, .sink = sink, .started = sink->offset, .promise = MC_SIZE_UNKNOWN};
  struct http_request request = {.method = "GET",
                                 .url = source->url,
                                 .first = sink->offset,
                                 .end = source->info.ranges ? sink->end
                                        : sink->offset      ? MC_SIZE_UNKNOWN
                                                            : 0,
                                 .on_head = check_head,
                                 .on_body = take_body,
                                 .user = &reading};
  mc_status status = http_perform(self->client, &request, head, call, err);
  *done = reading.refused;
  if (*done) return status;
  if (!status) status = http_status(head, source->url, err);
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

static mc_status http_source_read(mc_source *base, mc_sink *sink, const mc_call *call, mc_error *err) {
  struct source *source = (struct source *)base;
  struct http_client *client = http_of(base->upstream)->client;
  if (sink->offset > 0 && !source->info.ranges) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "the origin can't send ranges");
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
static mc_status http_source_finish(mc_source *base, mc_info *info, const mc_open_args *args, const mc_call *call,
                                    mc_error *err) {
  (void)info;
  (void)args;
  struct source *source = (struct source *)base;
  mc_info now;
  if (!atomic_load(&source->unproven)) return MC_OK;
  mc_status status = look(http_of(base->upstream), source->url, &now, call, err);
  if (status) return status;
  bool other_size =
      now.size != source->info.size && now.size != MC_SIZE_UNKNOWN && source->info.size != MC_SIZE_UNKNOWN;
  struct reading reading = {.source = source};
  return other_size || compare(&now.validators, &source->info.validators) == ANOTHER ? another_version(&reading, err)
                                                                                     : MC_OK;
}

/* ---- the ops ---- */

static void http_close(mc_upstream *base) {
  struct http *self = http_of(base);
  http_client_free(self->client);
  pthread_mutex_destroy(&self->lock);
  free(self);
}

static mc_status http_list(mc_upstream *self, const char *url, size_t max,
                           bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                           mc_error *err) {
  return http_list_index(http_of(self)->client, url, max, visit, user, call, err);
}

static mc_status http_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err);

static const char *const schemes[] = {"http", "https", NULL};

extern const mc_upstream_ops http_upstream_ops;
const mc_upstream_ops http_upstream_ops = {
    .abi = MC_UPSTREAM_ABI,
    .name = "http",
    .schemes = schemes,
    .open = http_open,
    .close = http_close,
    .stat = http_stat,
    .source_open = http_source_open,
    .source_read = http_source_read,
    .source_finish = http_source_finish,
    .source_close = http_source_close,
    .list = http_list,
};

static mc_status http_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  struct http *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the http upstream");
  self->base.ops = &http_upstream_ops;
  mc_status status = http_client_new(&self->client, config, err);
  if (status) {
    free(self);
    return status;
  }
  pthread_mutex_init(&self->lock, NULL);
  *out = &self->base;
  return MC_OK;
}
