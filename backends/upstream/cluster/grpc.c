#include "grpc.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

#include "../http/aside.h"
#include "base/clock.h"
#include "base/net.h"
#include "wire.h"

#define ORIGIN       "cluster"

#define MAX_IDLE     8               /* connections kept for each server */
#define MAX_IDLE_AGE (30 * NS_PER_S) /* and for how long */
#define LINGER       (5 * NS_PER_MS) /* for the status behind the last message: it comes in the same moment */
#define MAX_STATUS   MC_ERROR_MESSAGE_SIZE
#define MAX_NAME     32 /* no status has a longer name */

/* A transfer's handles. The connection that belongs to them lives in the multi handle. */
struct handle {
  CURLM *multi;
  CURL *easy;
  bool connected; /* its connection can be used again */
  int64_t idle_since;
  struct handle *prev, *next;
};

struct rpc_channel {
  char address[HOST_SIZE + 16]; /* in URLs and messages */
  char *user_agent;
  int64_t connect_timeout_ms, stall_timeout_ms;
  bool reuse_by_upgrade; /* see begin() */
  pthread_mutex_t lock;  /* a leaf */
  struct handle *idle;   /* the last used first */
  unsigned idle_count;
  struct aside aside;
};

struct rpc_stream {
  struct rpc_channel *channel;
  struct handle *handle;
  char *url;
  struct buf request;
  struct curl_slist *headers;
  struct wire_frames frames;
  bool reused;    /* on a connection of an earlier stream */
  bool in_multi;  /* the transfer is under way */
  bool connects;  /* the server's address was found */
  bool resolving; /* it is being looked up */
  bool endless;   /* the call has no deadline that the server could have kept */
  bool probes;    /* asks whether a silent server lives */
  bool answered;  /* the response has begun */
  bool speaks;    /* and is gRPC's by its content type */
  bool has_code;
  int http_status, code;
  char status_name[MAX_NAME]; /* the server's own status; empty: it has not said */
  char status_message[MAX_STATUS];
  int64_t found_by; /* when that has to have an end */
  int64_t heard;    /* when the server last sent something, or answered a probe */
  bool ended;
  mc_status status; /* once it has ended */
  mc_error error;
  char curl_message[CURL_ERROR_SIZE];
};

/* ---- channels ---- */

static void handle_free(struct handle *handle) {
  if (!handle) return;
  if (handle->easy) curl_easy_cleanup(handle->easy);
  if (handle->multi) curl_multi_cleanup(handle->multi);
  free(handle);
}

static bool is_host_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
         c == '_' || c == ':';
}

mc_status rpc_channel_open(struct rpc_channel **out, const struct rpc_channel_config *config, mc_error *err) {
  char host[HOST_SIZE];
  uint16_t port;
  mc_status status = net_split(config->address, host, &port, "the endpoint", err);
  if (status) return status;
  bool good = *host && port;
  for (const char *at = host; *at; at++) good = good && is_host_char(*at);
  if (!good) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the endpoint '%.100s' does not name a host and its port",
                        config->address);
  }
  struct rpc_channel *channel = calloc(1, sizeof(*channel));
  if (channel && config->user_agent) channel->user_agent = strdup(config->user_agent);
  if (!channel || (config->user_agent && !channel->user_agent)) {
    free(channel);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a channel");
  }
  snprintf(channel->address, sizeof(channel->address), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
  channel->connect_timeout_ms = config->connect_timeout_ms;
  channel->stall_timeout_ms = config->stall_timeout_ms;
  channel->reuse_by_upgrade = curl_version_info(CURLVERSION_NOW)->version_num < 0x080000;
  pthread_mutex_init(&channel->lock, NULL);
  aside_init(&channel->aside);
  *out = channel;
  return MC_OK;
}

void rpc_channel_close(struct rpc_channel *channel) {
  if (!channel) return;
  struct handle *handle, *next;
  DL_FOREACH_SAFE(channel->idle, handle, next) {
    DL_DELETE(channel->idle, handle);
    handle_free(handle);
  }
  aside_end(&channel->aside);
  pthread_mutex_destroy(&channel->lock);
  free(channel->user_agent);
  free(channel);
}

const char *rpc_channel_address(const struct rpc_channel *channel) {
  return channel->address;
}

/* With the lock held: take those out that have been idle for too long. */
static struct handle *take_old(struct rpc_channel *channel) {
  struct handle *old = NULL;
  while (channel->idle) {
    struct handle *last = channel->idle->prev;
    if (channel->idle_count <= MAX_IDLE && clock_ns() - last->idle_since < MAX_IDLE_AGE) break;
    DL_DELETE(channel->idle, last);
    channel->idle_count--;
    DL_APPEND(old, last);
  }
  return old;
}

static void free_all(struct handle *list) {
  struct handle *handle, *next;
  DL_FOREACH_SAFE(list, handle, next) {
    DL_DELETE(list, handle);
    handle_free(handle);
  }
}

static struct handle *handle_take(struct rpc_channel *channel) {
  aside_tend(&channel->aside);
  pthread_mutex_lock(&channel->lock);
  struct handle *old = take_old(channel), *handle = channel->idle;
  if (handle) {
    DL_DELETE(channel->idle, handle);
    channel->idle_count--;
  }
  pthread_mutex_unlock(&channel->lock);
  free_all(old);
  return handle;
}

static void handle_give(struct rpc_channel *channel, struct handle *handle) {
  handle->idle_since = clock_ns();
  pthread_mutex_lock(&channel->lock);
  DL_PREPEND(channel->idle, handle);
  channel->idle_count++;
  struct handle *old = take_old(channel);
  pthread_mutex_unlock(&channel->lock);
  free_all(old);
}

/* ---- curl's callbacks ---- */

static size_t on_body(char *data, size_t one, size_t size, void *user) {
  (void)one;
  struct rpc_stream *stream = user;
  stream->heard = clock_ns();
  if (!stream->speaks || stream->http_status != 200) return size; /* some server's error page */
  stream->status = wire_frames_feed(&stream->frames, data, size, &stream->error);
  return stream->status ? 0 : size;
}

/* The value of a header line if its name is `name`, else NULL. */
static const char *header_value(const char *line, size_t size, const char *name, size_t *value_size) {
  size_t length = strlen(name);
  if (size <= length || line[length] != ':' || strncasecmp(line, name, length) != 0) return NULL;
  const char *from = line + length + 1, *to = line + size;
  while (from < to && (*from == ' ' || *from == '\t')) from++;
  while (to > from && (to[-1] == '\r' || to[-1] == '\n' || to[-1] == ' ' || to[-1] == '\t')) to--;
  *value_size = (size_t)(to - from);
  return from;
}

/* Headers and trailers alike, a line at a time. */
static size_t on_header(char *line, size_t one, size_t size, void *user) {
  (void)one;
  struct rpc_stream *stream = user;
  stream->heard = clock_ns();
  stream->answered = true;
  size_t length;
  const char *value;
  if (size > 5 && memcmp(line, "HTTP/", 5) == 0) {
    const char *space = memchr(line, ' ', size);
    stream->http_status = space ? atoi(space + 1) : 0; /* curl ends the line with a zero */
  } else if ((value = header_value(line, size, "content-type", &length))) {
    stream->speaks = length >= 16 && strncasecmp(value, "application/grpc", 16) == 0;
  } else if ((value = header_value(line, size, "grpc-status", &length))) {
    stream->has_code = true;
    stream->code = wire_parse_code(value, length);
  } else if ((value = header_value(line, size, WIRE_STATUS_KEY, &length))) {
    if (length >= sizeof(stream->status_name)) length = 0;
    memcpy(stream->status_name, value, length);
    stream->status_name[length] = 0;
  } else if ((value = header_value(line, size, "grpc-message", &length))) {
    wire_decode_message(stream->status_message, sizeof(stream->status_message), value, length);
  }
  return size;
}

static curl_socket_t on_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address) {
  (void)purpose;
  struct rpc_stream *stream = user;
  stream->connects = true;
  if (stream->reused) return CURL_SOCKET_BAD; /* the old connection is gone: on_end() begins again */
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* A host that vanished without a word: found by TCP itself, whether or not something is to be sent. */
static int on_connect(void *user, curl_socket_t fd, curlsocktype purpose) {
  (void)purpose;
  struct rpc_stream *stream = user;
  int one = 1, idle = 10, interval = 5, count = 3;
  unsigned timeout = (unsigned)stream->channel->stall_timeout_ms;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
  if (timeout) setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
  return CURL_SOCKOPT_OK;
}

/* ---- a stream's beginning ---- */

static struct handle *handle_new(const struct rpc_channel *channel) {
  struct handle *handle = calloc(1, sizeof(*handle));
  if (!handle) return NULL;
  handle->multi = curl_multi_init();
  handle->easy = curl_easy_init();
  if (!handle->multi || !handle->easy) {
    handle_free(handle);
    return NULL;
  }
  CURL *easy = handle->easy;
  curl_multi_setopt(handle->multi, CURLMOPT_MAXCONNECTS, 1L);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
  curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* the service is near; the proxy variables are for origins */
  curl_easy_setopt(easy, CURLOPT_POST, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, aside_connect_timeout_ms(channel->connect_timeout_ms));
  curl_easy_setopt(easy, CURLOPT_USERAGENT, channel->user_agent);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_socket);
  curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_connect);
  return handle;
}

/* Give the request to a handle, one with a connection if there is one and `fresh` does not forbid it.
 *
 * curl before 8.0 fails with error 16 when it is to use a connection a second time with prior knowledge: it starts
 * HTTP/2 on it anew. A request that merely prefers HTTP/2 is put on such a connection as it should, though, so that
 * is what is asked for then; on_socket() sees to it that no new connection is opened in that mode, which would begin
 * with HTTP/1.1. */
static mc_status begin(struct rpc_stream *stream, bool fresh, mc_error *err) {
  struct handle *handle = fresh ? NULL : handle_take(stream->channel);
  if (!handle) handle = handle_new(stream->channel);
  if (!handle) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a call of the service");
  bool upgrade = handle->connected && stream->channel->reuse_by_upgrade;
  CURL *easy = handle->easy;
  stream->handle = handle;
  stream->reused = handle->connected;
  handle->connected = false; /* until this call has ended well */
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                   upgrade ? (long)CURL_HTTP_VERSION_2_0 : (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
  curl_easy_setopt(easy, CURLOPT_URL, stream->url);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, stream->headers);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, stream->request.data);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)stream->request.size);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, stream);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, stream);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, stream);
  curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, stream);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, stream->curl_message);
  CURLMcode code = curl_multi_add_handle(handle->multi, easy);
  if (code) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "can't begin a call: %s", curl_multi_strerror(code));
  stream->in_multi = true;
  stream->connects = stream->resolving = false;
  stream->found_by = deadline_in_ms(stream->channel->connect_timeout_ms);
  stream->heard = clock_ns();
  return MC_OK;
}

static bool add_header(struct curl_slist **list, const char *line) {
  struct curl_slist *more = curl_slist_append(*list, line);
  if (more) *list = more;
  return more != NULL;
}

static bool add_headers(struct curl_slist **list, const mc_call *call) {
  char timeout[32] = "grpc-timeout: ";
  size_t used = strlen(timeout);
  bool good = add_header(list, "content-type: application/grpc+proto") && add_header(list, "te: trailers") &&
              add_header(list, "grpc-accept-encoding: identity") && add_header(list, "accept:") &&
              add_header(list, "expect:");
  if (good && call->deadline != INT64_MAX) {
    wire_timeout(timeout + used, call->deadline - clock_ns());
    good = add_header(list, timeout);
  }
  return good;
}

mc_status rpc_stream_open(struct rpc_stream **out, struct rpc_channel *channel, const char *method, const void *message,
                          size_t size, const mc_call *call, mc_error *err) {
  mc_status status = mc_call_check(call, err);
  if (status) return status;
  struct rpc_stream *stream = calloc(1, sizeof(*stream));
  if (!stream) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a call of the service");
  stream->channel = channel;
  stream->endless = call->deadline == INT64_MAX;
  stream->probes = channel->stall_timeout_ms > 0;
  wire_frames_init(&stream->frames, WIRE_MESSAGE_MAX);
  buf_init(&stream->request, WIRE_MESSAGE_MAX + WIRE_HEAD_SIZE);
  size_t url_size = strlen("http://") + strlen(channel->address) + strlen(method) + 1;
  stream->url = malloc(url_size);
  if (stream->url) snprintf(stream->url, url_size, "http://%s%s", channel->address, method);
  bool good = stream->url && wire_append_head(&stream->request, size) && buf_append(&stream->request, message, size) &&
              add_headers(&stream->headers, call);
  status =
      good ? begin(stream, false, err) : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a call of the service");
  if (status) {
    rpc_stream_close(stream, false);
    return status;
  }
  *out = stream;
  return MC_OK;
}

/* ---- a stream's end ---- */

static mc_status end_with_code(struct rpc_stream *stream) {
  int code = stream->has_code ? stream->code : wire_code_of_http(stream->http_status);
  mc_status status = wire_status_named(code, stream->status_name, strlen(stream->status_name));
  if (status == MC_DEADLINE_EXCEEDED && stream->endless) status = MC_UNAVAILABLE;
  if (status == MC_OK && wire_frames_torn(&stream->frames)) {
    return mc_error_set(&stream->error, MC_PROTOCOL, ORIGIN, "the service at %s ended in the middle of a message",
                        stream->channel->address);
  }
  if (status == MC_OK) return MC_OK;
  if (*stream->status_message) {
    return mc_error_set(&stream->error, status, ORIGIN, "the service at %s: %s", stream->channel->address,
                        stream->status_message);
  }
  if (!stream->has_code) {
    return mc_error_set(&stream->error, status, ORIGIN, "%s answers as a web server (HTTP %d), not as the service",
                        stream->channel->address, stream->http_status);
  }
  return mc_error_set(&stream->error, status, ORIGIN, "the service at %s answered %s", stream->channel->address,
                      wire_code_name(code));
}

static mc_status end_broken(struct rpc_stream *stream, CURLcode result) {
  const char *why = *stream->curl_message ? stream->curl_message : curl_easy_strerror(result);
  const char *address = stream->channel->address;
  switch (result) {
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_CONNECT:
  case CURLE_OPERATION_TIMEDOUT:
    return mc_error_set(&stream->error, MC_UNAVAILABLE, ORIGIN, "can't reach the service at %s: %s", address, why);
  case CURLE_OUT_OF_MEMORY:
    return mc_error_set(&stream->error, MC_NO_MEMORY, ORIGIN, "no memory for a call of the service");
  default:
    return mc_error_set(&stream->error, MC_UNAVAILABLE, ORIGIN, "the connection to the service at %s broke: %s",
                        address, why);
  }
}

static void take_out(struct rpc_stream *stream) {
  if (!stream->in_multi) return;
  curl_multi_remove_handle(stream->handle->multi, stream->handle->easy);
  curl_easy_setopt(stream->handle->easy, CURLOPT_ERRORBUFFER, NULL); /* the stream goes before the handle does */
  stream->in_multi = false;
}

/* End the transfer, wherever it is. */
static void leave(struct rpc_stream *stream) {
  if (!stream->in_multi || !stream->resolving) {
    take_out(stream);
    return;
  }
  aside_put(&stream->channel->aside, stream->handle->easy, stream->handle->multi);
  free(stream->handle);
  stream->handle = NULL;
  stream->in_multi = false;
}

/* The transfer is over. */
static void on_end(struct rpc_stream *stream, CURLcode result) {
  take_out(stream);
  stream->handle->connected = result == CURLE_OK;
  if (result && stream->reused && !stream->answered) {
    /* The server has closed the connection that was kept: that says nothing of the call. */
    handle_free(stream->handle);
    stream->handle = NULL;
    *stream->curl_message = 0;
    stream->status = begin(stream, true, &stream->error);
    stream->ended = stream->status != MC_OK;
    return;
  }
  stream->ended = true;
  if (stream->status) return; /* on_body() did not like what it got */
  if (stream->has_code || (result == CURLE_OK && (!stream->speaks || stream->http_status != 200))) {
    stream->status = end_with_code(stream);
  } else if (result) {
    stream->status = end_broken(stream, result);
  } else {
    stream->status = mc_error_set(&stream->error, MC_PROTOCOL, ORIGIN, "the service at %s ended without a status",
                                  stream->channel->address);
  }
}

void rpc_stream_close(struct rpc_stream *stream, bool linger) {
  if (!stream) return;
  mc_call moment = {clock_ns() + LINGER, NULL};
  const void *message;
  size_t size;
  stream->probes = false;
  while (linger && rpc_stream_next(stream, &message, &size, &moment, NULL) == MC_OK && message) continue;
  leave(stream);
  if (stream->handle && stream->handle->connected && stream->ended) {
    handle_give(stream->channel, stream->handle);
  } else {
    handle_free(stream->handle); /* closes the connection, and so cancels the call */
  }
  curl_slist_free_all(stream->headers);
  wire_frames_free(&stream->frames);
  buf_free(&stream->request);
  free(stream->url);
  free(stream);
}

/* ---- pumping ---- */

/* Whether there is something to take. */
static bool is_ready(const struct rpc_stream *stream) {
  return stream->ended || wire_frames_pending(&stream->frames);
}

/* Do what can be done without waiting. */
static void perform(struct rpc_stream *stream) {
  int running, left;
  CURLMcode code = curl_multi_perform(stream->handle->multi, &running);
  CURLMsg *message = curl_multi_info_read(stream->handle->multi, &left);
  if (code) {
    take_out(stream);
    stream->ended = true;
    stream->status = mc_error_set(&stream->error, MC_IO, ORIGIN, "a call failed: %s", curl_multi_strerror(code));
  } else if (message) {
    on_end(stream, message->data.result);
  }
  stream->resolving = stream->in_multi && aside_is_due(stream->handle->easy, stream->connects);
}

/* When a silent server is to be asked whether it lives: sooner as long as it has not said anything at all. */
static int64_t probe_time(const struct rpc_stream *stream) {
  const struct rpc_channel *channel = stream->channel;
  int64_t patience = channel->stall_timeout_ms;
  if (!stream->answered && channel->connect_timeout_ms < patience) patience = channel->connect_timeout_ms;
  return stream->probes ? stream->heard + patience * NS_PER_MS : INT64_MAX;
}

static mc_status wait_for_more(struct rpc_stream *stream, const mc_call *call, mc_error *err) {
  int64_t silence = stream->resolving ? stream->found_by : probe_time(stream);
  int timeout = deadline_poll_ms(deadline_earlier(call->deadline, silence));
  struct curl_waitfd cancelled = {.fd = mc_cancel_fd(call->cancel), .events = CURL_WAIT_POLLIN};
  CURLMcode code =
      curl_multi_poll(stream->handle->multi, &cancelled, cancelled.fd >= 0, timeout < 0 ? 60000 : timeout, NULL);
  if (code) return mc_error_set(err, MC_IO, ORIGIN, "can't wait for the service: %s", curl_multi_strerror(code));
  if (stream->resolving && clock_ns() >= stream->found_by) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "can't reach the service at %s: its address is not found in time",
                        stream->channel->address);
  }
  if (stream->resolving || clock_ns() < probe_time(stream)) return MC_OK;

  /* A server may well have nothing to say for long, while it waits for something itself; but one that is frozen, or
   * whose host is, must not be waited for. HTTP/2 has pings for that, which curl can't send. */
  mc_status status = rpc_channel_probe(stream->channel, 0, call, err);
  stream->heard = clock_ns();
  return status;
}

mc_status rpc_stream_wait(struct rpc_stream *stream, const mc_call *call, mc_error *err) {
  while (!is_ready(stream)) {
    mc_status status = mc_call_check(call, err);
    if (status) return status;
    perform(stream);
    mc_error why = MC_ERROR_INIT;
    if (!is_ready(stream)) status = wait_for_more(stream, call, &why);
    if (status && status != MC_CANCELLED && status != MC_DEADLINE_EXCEEDED) {
      leave(stream);
      stream->ended = true;
      stream->status = status;
      stream->error = why;
    }
  }
  if (wire_frames_pending(&stream->frames)) return MC_OK;
  if (stream->status && err) *err = stream->error;
  return stream->status;
}

mc_status rpc_stream_next(struct rpc_stream *stream, const void **message, size_t *size, const mc_call *call,
                          mc_error *err) {
  mc_status status = rpc_stream_wait(stream, call, err);
  *message = NULL;
  *size = 0;
  if (!status) wire_frames_next(&stream->frames, message, size);
  return status;
}

bool rpc_stream_poll(struct rpc_stream *stream) {
  if (!is_ready(stream)) perform(stream);
  return is_ready(stream);
}

bool rpc_stream_broke(const struct rpc_stream *stream) {
  return stream->ended && (!stream->has_code || stream->code == WIRE_CANCELLED);
}

bool rpc_stream_answered(const struct rpc_stream *stream) {
  return stream->answered && stream->speaks;
}

mc_status rpc_channel_probe(struct rpc_channel *channel, int64_t most_ms, const mc_call *call, mc_error *err) {
  int64_t until = deadline_earlier(deadline_in_ms(channel->connect_timeout_ms), deadline_in_ms(most_ms));
  mc_call patient = {deadline_earlier(call->deadline, until), call->cancel};
  struct rpc_stream *stream;
  mc_status status = rpc_stream_open(&stream, channel, "/grpc.health.v1.Health/Check", "", 0, &patient, err);
  if (status) return status;
  stream->probes = false;
  status = rpc_stream_wait(stream, &patient, err);
  bool lives = rpc_stream_answered(stream);
  rpc_stream_close(stream, lives);
  if (lives) return MC_OK;
  status = mc_call_check(call, err);
  if (status) return status;
  return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the service at %s does not answer", channel->address);
}
