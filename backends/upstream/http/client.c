#include "client.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curl/curl.h>
#include <openssl/evp.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/net.h"
#include "base/url.h"

#define ORIGIN        "http"
#define MAX_IDLE      64           /* handles that wait for use, each with its connections */
#define BUFFER_SIZE   (512L << 10) /* libcurl's largest receive buffer but one: twice the speed of its default */
#define MAX_REDIRECTS 10L
#define BACKOFF_MS    100
#define BACKOFF_MAX   10000

struct handle {
  CURL *easy;
  CURLM *multi;
  struct handle *next;
};

struct http_client {
  int64_t connect_timeout_ms, stall_timeout_ms;
  uint32_t retries;
  bool allow_link_local;
  char *user_agent;
  pthread_mutex_t lock;
  struct handle *idle;
  unsigned idle_count;
};

/* ---- heads ---- */

void http_head_init(struct http_head *head) {
  *head = (struct http_head){.length = MC_SIZE_UNKNOWN, .total = MC_SIZE_UNKNOWN, .retry_after_ms = -1};
}

static bool parse_u64(const char **at, uint64_t *out) {
  uint64_t value = 0;
  const char *from = *at;
  for (; **at >= '0' && **at <= '9'; ++*at) {
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(**at - '0'), &value)) {
      return false;
    }
  }
  *out = value;
  return *at > from;
}

/* "bytes 0-99/200", "bytes 0-99/\*" */
static void parse_content_range(struct http_head *head, const char *at) {
  if (strncasecmp(at, "bytes ", 6) != 0) return;
  at += 6;
  uint64_t first, last, total = MC_SIZE_UNKNOWN;
  if (!parse_u64(&at, &first) || *at++ != '-' || !parse_u64(&at, &last) || *at++ != '/') return;
  if (*at == '*') {
    at++;
  } else if (!parse_u64(&at, &total)) {
    return;
  }
  if (*at || last < first || last == UINT64_MAX || (total != MC_SIZE_UNKNOWN && last >= total)) return;
  head->has_range = true;
  head->first = first;
  head->last = last;
  head->total = total;
}

/* 44 characters of base64 with one '=': 32 bytes. */
static void parse_digest(struct http_head *head, const char *at) {
  unsigned char bytes[36];
  if (strlen(at) < 44 || at[43] != '=' || at[42] == '=') return;
  if (EVP_DecodeBlock(bytes, (const unsigned char *)at, 44) != 33) return;
  memcpy(head->digest.bytes, bytes, 32);
  head->has_digest = true;
}

void http_head_line(struct http_head *head, const char *line, size_t size) {
  char text[1024];
  while (size && (line[size - 1] == '\r' || line[size - 1] == '\n' || line[size - 1] == ' ')) size--;
  if (size >= sizeof(text)) return;
  memcpy(text, line, size);
  text[size] = 0;
  char *value = strchr(text, ':');
  if (!value) return;
  *value++ = 0;
  value += strspn(value, " \t");
  const char *at = value;
  uint64_t number;
  if (strcasecmp(text, "content-length") == 0) {
    if (parse_u64(&at, &number) && !*at) head->length = number;
  } else if (strcasecmp(text, "content-range") == 0) {
    parse_content_range(head, value);
  } else if (strcasecmp(text, "accept-ranges") == 0) {
    head->accepts_ranges = strcasecmp(value, "bytes") == 0;
  } else if (strcasecmp(text, "etag") == 0) {
    head->etag[0] = 0;
    if (strlen(value) < sizeof(head->etag)) strcpy(head->etag, value);
  } else if (strcasecmp(text, "last-modified") == 0) {
    time_t when = curl_getdate(value, NULL);
    head->last_modified = when > 0 ? when : 0;
  } else if (strcasecmp(text, "retry-after") == 0) {
    time_t when = curl_getdate(value, NULL);
    if (parse_u64(&at, &number) && !*at && number < 86400) {
      head->retry_after_ms = (int64_t)number * 1000;
    } else if (when > 0) {
      int64_t wait = when * 1000LL - clock_wall_ms();
      head->retry_after_ms = wait > 0 ? wait : 0;
    }
  } else if (strcasecmp(text, "x-amz-checksum-sha256") == 0) {
    parse_digest(head, value);
  } else if (strcasecmp(text, "repr-digest") == 0 && strncasecmp(value, "sha-256=:", 9) == 0) {
    parse_digest(head, value + 9);
  } else if (strcasecmp(text, "digest") == 0 && strncasecmp(value, "sha-256=", 8) == 0) {
    parse_digest(head, value + 8);
  }
}

/* ---- handles ---- */

mc_status http_client_new(struct http_client **out, const mc_upstream_config *config, mc_error *err) {
  struct http_client *client = calloc(1, sizeof(*client));
  if (!client || curl_global_init(CURL_GLOBAL_DEFAULT)) {
    free(client);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "can't start the HTTP client");
  }
  client->connect_timeout_ms = config->connect_timeout_ms;
  client->stall_timeout_ms = config->stall_timeout_ms;
  client->retries = config->retries;
  client->allow_link_local = config->allow_link_local;
  client->user_agent = strdup(config->user_agent ? config->user_agent : "modelcache");
  pthread_mutex_init(&client->lock, NULL);
  *out = client;
  return MC_OK;
}

static void handle_free(struct handle *handle) {
  if (handle->easy) curl_easy_cleanup(handle->easy);
  if (handle->multi) curl_multi_cleanup(handle->multi);
  free(handle);
}

void http_client_free(struct http_client *client) {
  struct handle *next;
  for (struct handle *handle = client->idle; handle; handle = next) {
    next = handle->next;
    handle_free(handle);
  }
  pthread_mutex_destroy(&client->lock);
  free(client->user_agent);
  free(client);
  curl_global_cleanup();
}

uint32_t http_retries(const struct http_client *client) {
  return client->retries;
}

static struct handle *take_handle(struct http_client *client) {
  pthread_mutex_lock(&client->lock);
  struct handle *handle = client->idle;
  if (handle) {
    client->idle = handle->next;
    client->idle_count--;
  }
  pthread_mutex_unlock(&client->lock);
  if (handle) return handle;
  handle = calloc(1, sizeof(*handle));
  if (!handle) return NULL;
  handle->easy = curl_easy_init();
  handle->multi = curl_multi_init();
  if (handle->easy && handle->multi) return handle;
  handle_free(handle);
  return NULL;
}

static void give_handle_back(struct http_client *client, struct handle *handle) {
  curl_easy_reset(handle->easy); /* its connections live in the multi handle, and stay */
  pthread_mutex_lock(&client->lock);
  bool keep = client->idle_count < MAX_IDLE;
  if (keep) {
    handle->next = client->idle;
    client->idle = handle;
    client->idle_count++;
  }
  pthread_mutex_unlock(&client->lock);
  if (!keep) handle_free(handle);
}

/* ---- one request ---- */

struct exchange {
  const struct http_client *client;
  const struct http_request *request;
  struct http_head *head;
  mc_status status; /* why a callback ended it */
  mc_error error;
  bool head_done, enough;
  bool refused_address;
  int64_t moved_at; /* when the last byte came */
};

static size_t on_header(char *line, size_t one, size_t size, void *user) {
  struct exchange *exchange = user;
  (void)one;
  exchange->moved_at = clock_ns();
  if (size >= 5 && strncmp(line, "HTTP/", 5) == 0) { /* another response: after a redirect, or a 100 */
    http_head_init(exchange->head);
    const char *code = memchr(line, ' ', size);
    exchange->head->status = code ? strtol(code, NULL, 10) : 0;
  } else {
    http_head_line(exchange->head, line, size);
  }
  return size;
}

static bool end_head(struct exchange *exchange) {
  if (exchange->head_done) return true;
  exchange->head_done = true;
  if (exchange->request->on_head) {
    exchange->status = exchange->request->on_head(exchange->request->user, exchange->head, &exchange->error);
  }
  exchange->enough = !exchange->request->on_body;
  return exchange->status == MC_OK && !exchange->enough;
}

static size_t on_data(char *data, size_t one, size_t size, void *user) {
  struct exchange *exchange = user;
  (void)one;
  exchange->moved_at = clock_ns();
  if (!end_head(exchange)) return 0;
  if (exchange->head->status / 100 != 2) return size; /* an error page */
  exchange->status = exchange->request->on_body(exchange->request->user, data, size, &exchange->error);
  return exchange->status ? 0 : size;
}

/* Every address that libcurl is about to connect to, redirects and what a name resolves to included. */
static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address) {
  struct exchange *exchange = user;
  (void)purpose;
  if (!exchange->client->allow_link_local && net_is_link_local(&address->addr)) {
    exchange->refused_address = true;
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static void set_options(CURL *easy, struct exchange *exchange, struct curl_slist *headers, char *range) {
  const struct http_client *client = exchange->client;
  const struct http_request *request = exchange->request;
  curl_easy_setopt(easy, CURLOPT_URL, request->url);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(easy, CURLOPT_MAXREDIRS, MAX_REDIRECTS);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, BUFFER_SIZE);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)client->connect_timeout_ms);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, client->user_agent);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1); /* a lane is a connection */
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, exchange);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
  const char *ca = getenv("CURL_CA_BUNDLE");
  if (!ca) ca = getenv("SSL_CERT_FILE");
  if (ca && *ca) curl_easy_setopt(easy, CURLOPT_CAINFO, ca);
  if (strcmp(request->method, "HEAD") == 0) curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  if (range) curl_easy_setopt(easy, CURLOPT_RANGE, range);
  if (headers) curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
}

/* Run the transfer, watching the call. The curl code of its end, or the status of why we ended it. */
static mc_status drive(struct exchange *exchange, struct handle *handle, const mc_call *call, CURLcode *code,
                       mc_error *err) {
  int running = 1;
  *code = CURLE_OK;
  exchange->moved_at = clock_ns();
  while (running) {
    mc_status status = mc_call_check(call, err);
    if (status) return status;
    if (curl_multi_perform(handle->multi, &running)) {
      return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "the HTTP client failed");
    }
    if (!running) break;
    int64_t stalled = exchange->moved_at + exchange->client->stall_timeout_ms * NS_PER_MS;
    if (clock_ns() >= stalled) {
      return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the origin has not sent a byte for %lld ms",
                          (long long)exchange->client->stall_timeout_ms);
    }
    struct curl_waitfd cancel = {.fd = mc_cancel_fd(call->cancel), .events = CURL_WAIT_POLLIN};
    int wait = deadline_poll_ms(deadline_earlier(call->deadline, stalled));
    curl_multi_poll(handle->multi, &cancel, cancel.fd >= 0 ? 1 : 0, wait < 0 || wait > 60000 ? 60000 : wait, NULL);
  }
  int left;
  CURLMsg *message = curl_multi_info_read(handle->multi, &left);
  *code = message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_RECV_ERROR;
  return MC_OK;
}

static mc_status explain(struct exchange *exchange, CURLcode code, mc_error *err) {
  char url[300];
  url_printable(url, sizeof(url), exchange->request->url);
  if (exchange->refused_address) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "%s leads to a link-local or metadata address, which is refused; see allow_link_local", url);
  }
  switch (code) {
  case CURLE_TOO_MANY_REDIRECTS:
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s redirects more than %ld times", url, MAX_REDIRECTS);
  case CURLE_UNSUPPORTED_PROTOCOL:
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s redirects to something that is not http or https", url);
  case CURLE_URL_MALFORMAT:
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s is not a URL that can be fetched", url);
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CACERT_BADFILE:
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s: the certificate is not trusted: %s", url,
                        curl_easy_strerror(code));
  default:
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: %s", url, curl_easy_strerror(code));
  }
}

mc_status http_perform(struct http_client *client, const struct http_request *request, struct http_head *head,
                       const mc_call *call, mc_error *err) {
  struct exchange exchange = {.client = client, .request = request, .head = head};
  struct handle *handle = take_handle(client);
  struct curl_slist *headers = NULL;
  char range[64], *if_match = request->if_match ? format_str("If-Match: %s", request->if_match) : NULL;
  http_head_init(head);
  if (if_match) headers = curl_slist_append(NULL, if_match);
  if (!handle || (request->if_match && !headers)) {
    if (handle) give_handle_back(client, handle);
    free(if_match);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
  }
  if (request->last == MC_SIZE_UNKNOWN) {
    snprintf(range, sizeof(range), "%llu-", (unsigned long long)request->first);
  } else {
    snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)request->first, (unsigned long long)request->last);
  }
  set_options(handle->easy, &exchange, headers, request->first == MC_SIZE_UNKNOWN ? NULL : range);
  CURLcode code = CURLE_OK;
  curl_multi_add_handle(handle->multi, handle->easy);
  mc_status status = drive(&exchange, handle, call, &code, err);
  curl_multi_remove_handle(handle->multi, handle->easy);
  if (!status && code == CURLE_OK && !exchange.head_done) end_head(&exchange); /* a response without a body */
  if (!status && exchange.status) {
    if (err) *err = exchange.error;
    status = exchange.status;
  } else if (!status && code != CURLE_OK && !exchange.enough) {
    status = explain(&exchange, code, err);
  }
  curl_slist_free_all(headers);
  free(if_match);
  give_handle_back(client, handle);
  return status;
}

mc_status http_status(long status, const char *url, mc_error *err) {
  char text[300];
  url_printable(text, sizeof(text), url);
  if (status / 100 == 2) return MC_OK;
  if (status == 404 || status == 410) {
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s does not exist (HTTP %ld)", text, status);
  }
  if (status == 401 || status == 403) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s: the origin refuses access (HTTP %ld)", text, status);
  }
  if (status == 412 || status == 416) {
    return mc_error_set(err, MC_CHANGED, ORIGIN, "%s changed while it was read (HTTP %ld)", text, status);
  }
  if (status == 408 || status == 429 || status / 100 == 5) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: the origin can't answer now (HTTP %ld)", text, status);
  }
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s: the origin answers HTTP %ld", text, status);
}

mc_status http_backoff(uint32_t attempt, int64_t retry_after_ms, const mc_call *call, mc_error *err) {
  uint32_t jitter;
  int64_t wait = BACKOFF_MS << (attempt < 8 ? attempt - 1 : 7);
  random_bytes(&jitter, sizeof(jitter));
  wait = wait / 2 + (int64_t)(jitter % (uint32_t)wait);
  if (wait > BACKOFF_MAX) wait = BACKOFF_MAX;
  if (retry_after_ms >= 0 && retry_after_ms <= 60000 && retry_after_ms > wait) wait = retry_after_ms;
  int64_t until = deadline_in_ms(wait);
  for (;;) {
    mc_status status = mc_call_check(call, err);
    if (status || clock_ns() >= until) return status;
    struct pollfd cancel = {.fd = mc_cancel_fd(call->cancel), .events = POLLIN};
    poll(&cancel, 1, deadline_poll_ms(deadline_earlier(call->deadline, until)));
  }
}
