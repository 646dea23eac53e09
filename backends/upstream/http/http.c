/* http: files of web servers, and the ground that object stores stand on.
 *
 * A version is told by its ETag, else its Last-Modified, and its size; every response of a download must carry the same
 * ones. Bytes are taken as they are sent: a Content-Encoding that nobody asked for is kept. */
#include "http.h"

#include <stdlib.h>
#include <string.h>

#include "base/url.h"
#include "client.h"

#define ORIGIN "http"

struct http {
  mc_upstream base;
  struct http_client *client;
};

struct source {
  mc_source base;
  char *url;
  mc_info info;
};

static struct http_client *client_of(mc_upstream *upstream) {
  return ((struct http *)upstream)->client;
}

/* ---- what is there ---- */

static void describe(mc_info *info, const struct http_head *head) {
  *info = (mc_info){.size = head->length, .ranges = head->accepts_ranges && head->length != MC_SIZE_UNKNOWN};
  if (head->has_range) {
    info->size = head->total;
    info->ranges = head->total != MC_SIZE_UNKNOWN;
  }
  memcpy(info->validators.etag, head->etag, sizeof(head->etag));
  info->validators.last_modified = head->last_modified;
  info->has_digest = head->has_digest && !head->has_range;
  info->digest = head->digest;
}

/* A request whose body isn't wanted, tried again while that may help. */
static mc_status ask(struct http_client *client, struct http_request *request, struct http_head *head,
                     const mc_call *call, mc_error *err) {
  for (uint32_t attempt = 0;; attempt++) {
    mc_status status = http_perform(client, request, head, call, err);
    bool again = status == MC_UNAVAILABLE ||
                 (!status && (head->status == 408 || head->status == 429 || head->status / 100 == 5) &&
                  head->status != 501 && head->status != 505);
    if (!again || attempt >= http_retries(client)) return status;
    status = http_backoff(attempt + 1, status ? -1 : head->retry_after_ms, call, err);
    if (status) return status;
  }
}

static mc_status look(mc_upstream *self, const char *url, mc_info *info, const mc_call *call, mc_error *err) {
  struct http_request request = {.method = "HEAD", .url = url, .first = MC_SIZE_UNKNOWN};
  struct http_head head;
  mc_status status = ask(client_of(self), &request, &head, call, err);
  if (status) return status;
  bool probe = head.status == 403 || head.status == 405 || head.status == 501; /* perhaps only HEAD is refused */
  if (!probe) {
    status = http_status(head.status, url, err);
    if (status) return status;
    describe(info, &head);
    if (info->ranges || info->size == 0) return MC_OK;
  }
  /* Ask by GET for one byte: whether ranges work, and what HEAD did not tell. */
  struct http_head ranged;
  request = (struct http_request){.method = "GET", .url = url, .first = 0, .last = 0};
  status = ask(client_of(self), &request, &ranged, call, err);
  if (status) return status;
  if (ranged.status == 416) return MC_OK; /* an empty file has no byte 0 */
  status = http_status(ranged.status, url, err);
  if (status) return status;
  if (probe || ranged.status == 206) describe(info, &ranged);
  if (ranged.status != 206) info->ranges = false;
  return MC_OK;
}

static mc_status http_stat(mc_upstream *self, const char *url, mc_info *info, const mc_call *call, mc_error *err) {
  return look(self, url, info, call, err);
}

static bool same_version(const mc_validators *a, const mc_validators *b) {
  if (a->etag[0] && b->etag[0]) return strcmp(a->etag, b->etag) == 0;
  return a->last_modified && a->last_modified == b->last_modified;
}

static mc_status http_source_open(mc_upstream *self, const mc_open_args *args, mc_source **out, mc_info *info,
                                  const mc_call *call, mc_error *err) {
  *out = NULL;
  mc_status status = look(self, args->url, info, call, err);
  if (status) return status;
  if (args->known && same_version(args->known, &info->validators) &&
      (args->known_size == info->size || info->size == MC_SIZE_UNKNOWN)) {
    info->unchanged = true;
    return MC_OK;
  }
  struct source *source = calloc(1, sizeof(*source));
  char *url = strdup(args->url);
  if (!source || !url) {
    free(source);
    free(url);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  }
  *source = (struct source){.base = {self}, .url = url, .info = *info};
  *out = &source->base;
  return MC_OK;
}

static void http_source_close(mc_source *base) {
  struct source *source = (struct source *)base;
  free(source->url);
  free(source);
}

/* ---- reading ---- */

struct reading {
  struct source *source;
  mc_sink *sink;
  uint64_t started; /* where the request began */
  long code;
  bool refused; /* it was the sink that failed: that is final */
};

static mc_status changed(const struct reading *reading, mc_error *err) {
  char url[300];
  return mc_error_set(err, MC_CHANGED, ORIGIN, "%s changed while it was read",
                      url_printable(url, sizeof(url), reading->source->url));
}

/* Whether a response is of the version that was opened, and begins where it should. */
static mc_status check_head(void *user, const struct http_head *head, mc_error *err) {
  struct reading *reading = user;
  const mc_info *opened = &reading->source->info;
  reading->code = head->status;
  if (head->status / 100 != 2) return MC_OK; /* judged after the response */
  mc_validators now = {.last_modified = head->last_modified};
  memcpy(now.etag, head->etag, sizeof(now.etag));
  bool comparable =
      (now.etag[0] && opened->validators.etag[0]) || (now.last_modified && opened->validators.last_modified);
  if (comparable && !same_version(&now, &opened->validators)) return changed(reading, err);
  if (head->status == 206) {
    if (!head->has_range || head->first != reading->started ||
        (reading->sink->end != MC_SIZE_UNKNOWN && head->last >= reading->sink->end)) {
      return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the origin sent another range than it was asked for");
    }
    if (head->total != MC_SIZE_UNKNOWN && opened->size != MC_SIZE_UNKNOWN && head->total != opened->size) {
      return changed(reading, err);
    }
    return MC_OK;
  }
  if (reading->started > 0) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "the origin sent the whole file when it was asked for a range");
  }
  if (opened->size != MC_SIZE_UNKNOWN && head->length != MC_SIZE_UNKNOWN && head->length != opened->size) {
    return changed(reading, err);
  }
  return MC_OK;
}

static mc_status take_body(void *user, const void *data, size_t size, mc_error *err) {
  struct reading *reading = user;
  mc_sink *sink = reading->sink;
  if (sink->end != MC_SIZE_UNKNOWN && size > sink->end - sink->offset) {
    if (reading->code == 200 && reading->source->info.size == MC_SIZE_UNKNOWN) return changed(reading, err);
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the origin sent more bytes than it promised");
  }
  mc_status status = sink->write(sink, data, size, err);
  reading->refused = status != MC_OK;
  return status;
}

/* One request for what is missing. */
static mc_status read_once(struct source *source, mc_sink *sink, struct http_head *head, bool *refused,
                           const mc_call *call, mc_error *err) {
  bool whole = !source->info.ranges;
  struct reading reading = {.source = source, .sink = sink, .started = sink->offset};
  struct http_request request = {.method = "GET",
                                 .url = source->url,
                                 .first = whole ? MC_SIZE_UNKNOWN : sink->offset,
                                 .last = whole || sink->end == MC_SIZE_UNKNOWN ? MC_SIZE_UNKNOWN : sink->end - 1,
                                 .on_head = check_head,
                                 .on_body = take_body,
                                 .user = &reading};
  mc_status status = http_perform(client_of(source->base.upstream), &request, head, call, err);
  *refused = reading.refused;
  if (*refused) return status;
  if (!status) status = http_status(head->status, source->url, err);
  if (status == MC_NOT_FOUND) return changed(&reading, err); /* it was there when it was opened */
  if (!status && sink->end != MC_SIZE_UNKNOWN && sink->offset < sink->end) {
    status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the origin sent fewer bytes than it promised");
  }
  return status;
}

static mc_status http_source_read(mc_source *base, mc_sink *sink, const mc_call *call, mc_error *err) {
  struct source *source = (struct source *)base;
  struct http_client *client = client_of(base->upstream);
  if (sink->offset > 0 && !source->info.ranges) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "the origin can't send ranges");
  }
  uint32_t attempt = 0;
  while (sink->end == MC_SIZE_UNKNOWN || sink->offset < sink->end) {
    struct http_head head;
    uint64_t before = sink->offset;
    bool refused;
    mc_status status = read_once(source, sink, &head, &refused, call, err);
    if (!status) break;
    if (refused || status != MC_UNAVAILABLE) return status;
    if (sink->offset > before) attempt = 0; /* it goes on, if slowly: only failures in a row count */
    bool can_go_on = source->info.ranges || sink->offset == 0;
    if (!can_go_on) return mc_error_set(err, MC_CHANGED, ORIGIN, "a body that can't be resumed was cut short");
    if (attempt++ >= http_retries(client)) return status;
    status = http_backoff(attempt, head.status / 100 == 2 ? -1 : head.retry_after_ms, call, err);
    if (status) return status;
  }
  return MC_OK;
}

/* ---- the ops ---- */

static void http_close(mc_upstream *base) {
  struct http *self = (struct http *)base;
  http_client_free(self->client);
  free(self);
}

static mc_status http_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err);

static mc_status http_list(mc_upstream *self, const char *url, size_t max,
                           bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                           mc_error *err) {
  return http_list_index(client_of(self), url, max, visit, user, call, err);
}

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
    .source_close = http_source_close,
    .list = http_list,
};

static mc_status http_open(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  struct http *self = calloc(1, sizeof(*self));
  if (!self) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory");
  self->base.ops = &http_upstream_ops;
  mc_status status = http_client_new(&self->client, config, err);
  if (status) {
    free(self);
    return status;
  }
  *out = &self->base;
  return MC_OK;
}
