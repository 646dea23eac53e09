#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/crypto.h>

#include "aside.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/net.h"
#include "base/origin.h"
#include "base/url.h"
#include "internal.h"
#include "keys.h"

#define ORIGIN        "http"
#define MAX_IDLE      64           /* handles that wait for use, each with its connections */
#define IDLE_MS       60000        /* and for how long, at least */
#define CONNECTIONS   2L           /* that a handle keeps: a hub's and its content network's */
#define BUFFER_SIZE   (512L << 10) /* libcurl's largest receive buffer but one: twice the speed of its default */
#define HEAD_MAX      ((size_t)256 << 10)
#define DROP_MAX      ((size_t)64 << 10) /* a body that nobody wants is read so far: why, and to keep the connection */
#define MAX_REDIRECTS 10
#define MACHINE_MS    1000 /* a metadata service is near, or is not there */
#define SITE_SIZE     128
#define HEADER_MAX    32768 /* of one that is sent: tokens are long */
#define ASK_AGAIN_MAX 3     /* attempts that follow each other at once, for what was learnt from the last */
#define HEADER_NAME   "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
#define IDENTITY      "Accept-Encoding: identity" /* the file as it is stored: any encoding may else seem welcome */

struct handle {
  CURL *easy;
  CURLM *multi;
  char site[SITE_SIZE]; /* scheme and authority of its last request, or as much as fits */
  int64_t idle_since;
  struct handle *next;
};

struct http_client {
  struct http_settings settings;
  struct http_origins origins;
  struct http_policy *policies; /* one for each of the origins */
  struct curl_slist *headers;   /* of every plain request */
  pthread_mutex_t lock;         /* a leaf */
  struct handle *idle;          /* the one that was used last comes first */
  unsigned idle_count;
  struct aside aside;
};

/* ---- handles ---- */

mc_status http_client_new(struct http_client **out, const mc_upstream_config *config, mc_error *err) {
  struct http_client *client = calloc(1, sizeof(*client));
  if (!client || curl_global_init(CURL_GLOBAL_DEFAULT)) {
    free(client);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "can't start the HTTP client");
  }
  pthread_mutex_init(&client->lock, NULL);
  aside_init(&client->aside);
  client->headers = curl_slist_append(NULL, IDENTITY);
  client->origins = (struct http_origins){config->origins, config->origin_count};
  client->policies = http_policies_new(&client->origins);
  if (!http_settings_read(&client->settings, config) || !client->headers || !client->policies) {
    http_client_free(client);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for the HTTP client");
  }
  *out = client;
  return MC_OK;
}

static void handle_free(struct handle *handle) {
  if (handle->easy) curl_easy_cleanup(handle->easy);
  if (handle->multi) curl_multi_cleanup(handle->multi);
  free(handle);
}

static void handles_free(struct handle *handle) {
  for (struct handle *next; handle; handle = next) {
    next = handle->next;
    handle_free(handle);
  }
}

void http_client_free(struct http_client *client) {
  if (!client) return;
  handles_free(client->idle);
  aside_end(&client->aside);
  curl_slist_free_all(client->headers);
  pthread_mutex_destroy(&client->lock);
  http_settings_free(&client->settings);
  http_policies_free(client->policies, &client->origins);
  free(client);
  curl_global_cleanup();
}

const struct http_settings *http_client_settings(const struct http_client *client) {
  return &client->settings;
}

const mc_origin_rule *http_client_rule(const struct http_client *client, const char *url) {
  return origin_rule(client->origins.rules, client->origins.count, url);
}

static struct handle *handle_new(void) {
  struct handle *handle = calloc(1, sizeof(*handle));
  if (!handle) return NULL;
  handle->easy = curl_easy_init();
  handle->multi = curl_multi_init();
  if (handle->easy && handle->multi &&
      curl_multi_setopt(handle->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS) == CURLM_OK) {
    return handle;
  }
  handle_free(handle);
  return NULL;
}

static void site_of(char site[SITE_SIZE], const char *url) {
  const char *authority = strstr(url, "://");
  authority = authority ? authority + 3 : url;
  snprintf(site, SITE_SIZE, "%.*s", (int)(authority - url) + (int)strcspn(authority, "/?#"), url);
}

/* An idle handle, one that has talked to the same site if there is any, since it has a connection; or a new one. NULL:
 * no memory. */
static struct handle *take_handle(struct http_client *client, const char *url) {
  char site[SITE_SIZE];
  site_of(site, url);
  aside_tend(&client->aside);
  pthread_mutex_lock(&client->lock);
  struct handle **at = &client->idle;
  while (*at && strcmp((*at)->site, site) != 0) at = &(*at)->next;
  if (!*at) at = &client->idle;
  struct handle *handle = *at;
  if (handle) {
    *at = handle->next;
    client->idle_count--;
  }
  pthread_mutex_unlock(&client->lock);
  if (!handle) handle = handle_new();
  if (handle) memcpy(handle->site, site, sizeof(site));
  return handle;
}

/* Its connections live in the multi handle, and stay. */
static void give_handle_back(struct http_client *client, struct handle *handle) {
  struct handle *old = NULL;
  curl_easy_reset(handle->easy);
  handle->idle_since = clock_ns();
  int64_t limit = handle->idle_since - IDLE_MS * NS_PER_MS;
  pthread_mutex_lock(&client->lock);
  handle->next = client->idle;
  client->idle = handle;
  client->idle_count++;
  struct handle **at = &handle->next;
  for (unsigned kept = 1; *at && kept < MAX_IDLE && (*at)->idle_since >= limit; kept++) at = &(*at)->next;
  old = *at;
  *at = NULL;
  for (struct handle *one = old; one; one = one->next) client->idle_count--;
  pthread_mutex_unlock(&client->lock);
  handles_free(old);
}

/* ---- one exchange: a request and its response ---- */

struct exchange {
  const struct http_client *client;
  const struct http_request *request;
  struct http_policy *policy;
  const char *url;            /* the target's, or where it was redirected to */
  struct curl_slist *headers; /* to send */
  struct buf *said;           /* where an error's body goes; NULL: nowhere */
  CURL *easy;
  struct http_head *head;
  mc_status status; /* why a callback ended it */
  mc_error error;
  size_t lines, head_size; /* of the head so far */
  bool head_done;
  bool wanted;    /* the body is */
  size_t dropped; /* bytes of a body that isn't */
  bool enough;    /* that is cut off: the head was all that matters */
  bool refused_address;
  bool connects;             /* an address was found */
  bool resolving;            /* when we ended it, a name was looked up */
  int64_t moved_at;          /* when the last thing came that counts as life */
  char why[CURL_ERROR_SIZE]; /* it failed, in curl's words: hosts and ports, no header and no query */
};

static bool end_exchange(struct exchange *exchange, mc_status status, const char *why) {
  char url[URL_SHOWN];
  exchange->status = mc_error_set(&exchange->error, status, ORIGIN, "%s: %s",
                                  url_printable(url, sizeof(url), exchange->request->url), why);
  return false;
}

/* The head is complete. false: the exchange ends here. */
static bool end_head(struct exchange *exchange) {
  const struct http_request *request = exchange->request;
  struct http_head *head = exchange->head;
  exchange->head_done = true;
  exchange->moved_at = clock_ns();
  if (http_is_redirect(head)) return true; /* its body is short, and says nothing */
  if (head->status == 206 && !request->end) {
    return end_exchange(exchange, MC_PROTOCOL, "the origin sent a part that it was not asked for");
  }
  if (request->on_head) exchange->status = request->on_head(request->user, head, &exchange->error);
  if (exchange->status) return false;
  exchange->wanted = request->on_body && (head->status == 200 || head->status == 206);
  bool is_head = strcmp(request->method, "HEAD") == 0;
  exchange->enough = !exchange->wanted && !is_head && head->length != MC_SIZE_UNKNOWN && head->length > DROP_MAX;
  return !exchange->enough;
}

/* The lines of a head by themselves are no sign of life: there could be lines for ever. */
static size_t on_header(char *line, size_t one, size_t size, void *user) {
  struct exchange *exchange = user;
  (void)one;
  if (exchange->head_done) return size; /* a trailer */
  exchange->head_size += size;
  if (exchange->head_size > HEAD_MAX) {
    end_exchange(exchange, MC_PROTOCOL, "the origin's answer has more than 256 KiB of headers");
    return 0;
  }
  bool last = size == 0 || line[0] == '\r' || line[0] == '\n';
  if (exchange->lines++ == 0) {
    http_head_init(exchange->head);
  } else if (!last) {
    http_head_line(exchange->head, exchange->request->dialect, line, size);
  } else {
    exchange->lines = 0;
    curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &exchange->head->status);
    if (exchange->head->status >= 200 && !end_head(exchange)) return 0;
  }
  return size;
}

static size_t on_data(char *data, size_t one, size_t size, void *user) {
  struct exchange *exchange = user;
  const struct http_request *request = exchange->request;
  (void)one;
  if (!exchange->wanted) {
    size_t room = DROP_MAX - (exchange->dropped < DROP_MAX ? exchange->dropped : DROP_MAX);
    if (exchange->said) buf_append(exchange->said, data, size < room ? size : room);
    exchange->dropped += size;
    exchange->enough = exchange->dropped > DROP_MAX;
    return exchange->enough ? 0 : size;
  }
  http_throttle_charge(exchange->policy, size);
  exchange->status = request->on_body(request->user, data, size, &exchange->error);
  exchange->moved_at = clock_ns(); /* behind it: a slow disk is not the origin's fault */
  return exchange->status ? 0 : size;
}

/* Every address that libcurl is about to connect to. */
static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address) {
  struct exchange *exchange = user;
  (void)purpose;
  exchange->connects = true;
  bool allowed = exchange->client->settings.allow_link_local || exchange->request->of_machine;
  if (!allowed && net_is_link_local(&address->addr)) {
    exchange->refused_address = true;
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static bool is_web(const char *url) {
  return strncmp(url, "http:", 5) == 0 || strncmp(url, "https:", 6) == 0;
}

static bool is_read(const struct http_request *request) {
  return strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0;
}

/* Those that can't fail are not looked at. false: no memory. */
static bool set_options(CURL *easy, struct exchange *exchange) {
  const struct http_request *request = exchange->request;
  char range[64];
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->why);
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L); /* see http_perform */
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);     /* as it was signed, and held against rules */
  curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, BUFFER_SIZE);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1); /* a lane is a connection */
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, exchange);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers);
  if (strcmp(request->method, "HEAD") == 0) curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  bool good = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_URL, exchange->url) == CURLE_OK &&
              http_settings_apply(&exchange->client->settings, exchange->policy, easy, exchange->url);
  if (request->of_machine) {
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)MACHINE_MS);
    good = good && curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK;
  }
  if (request->body || !is_read(request)) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body ? request->body : "");
    good = good && curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK;
  }
  if (request->end == MC_SIZE_UNKNOWN) {
    snprintf(range, sizeof(range), "%llu-", (unsigned long long)request->first);
  } else if (request->end) {
    snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)request->first,
             (unsigned long long)request->end - 1);
  }
  if (request->end) good = good && curl_easy_setopt(easy, CURLOPT_RANGE, range) == CURLE_OK;
  return good;
}

static mc_status not_found_in_time(const struct exchange *exchange, mc_error *err) {
  char url[URL_SHOWN];
  return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: the address of its host, or of the proxy, is not found in time",
                      url_printable(url, sizeof(url), exchange->request->url));
}

/* Run the transfer, watching the call. The curl code of its end, or the status of why we ended it. */
static mc_status drive(struct exchange *exchange, CURLM *multi, const mc_call *call, CURLcode *code, mc_error *err) {
  int64_t stall_ms = exchange->client->settings.stall_timeout_ms;
  int64_t found_by = deadline_in_ms(exchange->client->settings.connect_timeout_ms);
  int running = 1;
  *code = CURLE_OK;
  exchange->moved_at = clock_ns();
  for (;;) {
    mc_status status = mc_call_check(call, err);
    if (!status && http_throttle_wait(exchange->policy, call)) exchange->moved_at = clock_ns();
    if (!status) status = mc_call_check(call, err);
    if (status) return status;
    if (exchange->resolving && clock_ns() >= found_by) return not_found_in_time(exchange, err);
    if (curl_multi_perform(multi, &running)) {
      return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "the HTTP client failed");
    }
    exchange->resolving = running && aside_is_due(exchange->easy, exchange->connects);
    if (!running) break;
    int64_t stalled = exchange->moved_at + stall_ms * NS_PER_MS;
    if (clock_ns() >= stalled) {
      exchange->enough = exchange->head_done && !exchange->wanted;
      if (exchange->enough) return MC_OK;
      char url[URL_SHOWN];
      return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: the origin has sent nothing for %lld ms",
                          url_printable(url, sizeof(url), exchange->request->url), (long long)stall_ms);
    }
    struct curl_waitfd cancel = {.fd = mc_cancel_fd(call->cancel), .events = CURL_WAIT_POLLIN};
    int64_t until = deadline_earlier(call->deadline, stalled);
    int wait = deadline_poll_ms(exchange->resolving ? deadline_earlier(until, found_by) : until);
    curl_multi_poll(multi, &cancel, cancel.fd >= 0 ? 1 : 0, wait < 0 || wait > 60000 ? 60000 : wait, NULL);
  }
  int left;
  CURLMsg *message = curl_multi_info_read(multi, &left);
  *code = message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_RECV_ERROR;
  return MC_OK;
}

/* Where a request went, for people: a user name, which may have come with an endpoint, is left out. */
static void show_site(char site[SITE_SIZE], const char *url) {
  char shown[URL_SHOWN];
  site_of(site, url_printable(shown, sizeof(shown), url));
}

/* Why there is no whole response. */
static mc_status explain(const struct exchange *exchange, CURLcode code, mc_error *err) {
  char url[URL_SHOWN], site[SITE_SIZE];
  const char *why = *exchange->why ? exchange->why : curl_easy_strerror(code);
  long connect_code = 0;
  url_printable(url, sizeof(url), exchange->request->url);
  if (exchange->refused_address) return http_refuse_address(exchange->request->url, err);
  curl_easy_getinfo(exchange->easy, CURLINFO_HTTP_CONNECTCODE, &connect_code);
  if (connect_code == 403 || connect_code == 407) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s: the proxy refuses access (HTTP %ld)", url,
                        connect_code);
  }
  switch (code) {
  case CURLE_OUT_OF_MEMORY:
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
  case CURLE_OK: /* and no head */
  case CURLE_UNSUPPORTED_PROTOCOL:
  case CURLE_WEIRD_SERVER_REPLY:
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s: the origin's answer is not HTTP", url);
  case CURLE_URL_MALFORMAT:
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s is not a URL that can be fetched", url);
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CACERT_BADFILE:
    return mc_error_set(
        err, MC_PERMISSION_DENIED, ORIGIN,
        "%s: the certificate is not trusted (%.120s); if it should be, name the file of its authority's by "
        "CURL_CA_BUNDLE or the origin rule's ca_file",
        url, why);
  case CURLE_PARTIAL_FILE:
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: the origin cut its answer short", url);
  case CURLE_GOT_NOTHING:
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: the origin closed the connection without an answer", url);
  default:
    if (is_web(exchange->request->url)) {
      return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: %.160s", url, why);
    }
    show_site(site, exchange->url); /* which the URL does not tell */
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s, asked at %.120s: %.160s", url, site, why);
  }
}

static mc_status exchange_run(struct exchange *exchange, struct handle *handle, const mc_call *call, mc_error *err) {
  CURLcode code = CURLE_OK;
  curl_easy_reset(handle->easy);
  if (!set_options(handle->easy, exchange) || curl_multi_add_handle(handle->multi, handle->easy)) {
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
  }
  mc_status status = drive(exchange, handle->multi, call, &code, err);
  curl_easy_setopt(handle->easy, CURLOPT_ERRORBUFFER, NULL); /* the handle outlives the exchange */
  if (!exchange->resolving) curl_multi_remove_handle(handle->multi, handle->easy);
  if (status) return status;
  if (exchange->status) {
    if (err) *err = exchange->error;
    return exchange->status;
  }
  bool whole = exchange->head_done && (code == CURLE_OK || !exchange->wanted);
  return whole ? MC_OK : explain(exchange, code, err);
}

static bool same_site(const char *a, const char *b) {
  const char *begin = strstr(a, "://");
  size_t size = begin ? (size_t)(begin - a) + 3 : 0;
  size += strcspn(a + size, "/?#");
  return begin && strncmp(a, b, size) == 0 && strchr("/?#", b[size]);
}

/* The next hop, which replaces *url; NULL: the redirect is the response. */
static mc_status follow(char **url, struct http_client *client, const struct http_request *request, CURL *easy,
                        mc_error *err) {
  char shown[URL_SHOWN];
  char *to = strdup(*url);
  if (!to) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a redirect");
  bool web = is_web(request->url);
  mc_status status = http_redirect(&to, web ? client->settings.schemes : NULL, easy, request->url, err);
  const mc_origin_rule *rule = status ? NULL : http_client_rule(client, to);
  url_printable(shown, sizeof(shown), request->url);
  if (!status && !web && strncmp(*url, "https:", 6) == 0 && strncmp(to, "https:", 6) != 0) {
    status =
        mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s redirects from https to http, which is refused", shown);
  } else if (rule && !rule->allowed) {
    status = mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s redirects to where the rule for %s forbids it", shown,
                          rule->prefix);
  }
  if (status || (request->follow == HTTP_FOLLOW_SITE && !same_site(*url, to))) {
    free(to);
    to = NULL;
  }
  if (!status) {
    secret_free(*url);
    *url = to;
  }
  return status;
}

bool http_target_header(struct http_target *target, const char *format, ...) {
  char text[HEADER_MAX];
  va_list args;
  va_start(args, format);
  int length = vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  struct curl_slist *list =
      length < 0 || (size_t)length >= sizeof(text) ? NULL : curl_slist_append(target->headers, text);
  OPENSSL_cleanse(text, sizeof(text));
  if (list) target->headers = list;
  return list != NULL;
}

/* What is sent may come from files, from services, and from listings. */
static mc_status check_headers(const struct http_target *target, const char *asked, mc_error *err) {
  char url[URL_SHOWN];
  for (const struct curl_slist *one = target->headers; one; one = one->next) {
    const unsigned char *c = (const unsigned char *)one->data;
    while (*c == '\t' || (*c >= 0x20 && *c != 0x7f)) c++;
    if (!*c) continue;
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                        "%s: the header %.*s, perhaps of its credentials, has a character that can't be sent",
                        url_printable(url, sizeof(url), asked), (int)strspn(one->data, HEADER_NAME), one->data);
  }
  return MC_OK;
}

/* Set where an attempt begins. */
static mc_status aim(struct http_target *target, const struct http_request *request, const mc_call *call,
                     mc_error *err) {
  const char *encoding = request->dialect ? request->dialect->encoding : NULL;
  bool good = encoding ? http_target_header(target, "Accept-Encoding: %s", encoding)
                       : http_target_header(target, "%s", IDENTITY);
  for (size_t i = 0; request->headers && request->headers[i]; i++) {
    good = good && http_target_header(target, "%s", request->headers[i]);
  }
  mc_status status = MC_OK;
  if (good && request->dialect && request->dialect->aim) status = request->dialect->aim(request, target, call, err);
  if (status) return status;
  if (!target->url) target->url = strdup(request->url);
  if (good && target->url) return check_headers(target, request->url, err);
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
}

/* What is sent may be a credential, also in the URL. */
static void target_end(struct http_target *target) {
  for (struct curl_slist *one = target->headers; one; one = one->next) OPENSSL_cleanse(one->data, strlen(one->data));
  curl_slist_free_all(target->headers);
  keys_release(target->keys);
  secret_free(target->url);
}

/* One attempt. Redirects are followed here, not by libcurl: each may need another proxy, and is looked at before it is
 * followed. `said`: the body of an error, or NULL. */
static mc_status attempt(struct http_client *client, const struct http_request *request, struct http_target *target,
                         struct http_head *head, struct buf *said, const mc_call *call, mc_error *err) {
  char shown[URL_SHOWN];
  struct handle *handle = NULL;
  http_head_init(head); /* also where it doesn't come to a request */
  mc_status status = aim(target, request, call, err);
  char *url = status ? NULL : strdup(target->url);
  if (url) handle = take_handle(client, url);
  if (!status && !handle) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
  for (int redirects = 0; !status; redirects++) {
    struct exchange exchange = {.client = client,
                                .request = request,
                                .policy = http_policy_of(client->policies, &client->origins, request->url),
                                .url = url,
                                .headers = same_site(target->url, url) ? target->headers : client->headers,
                                .said = said,
                                .easy = handle->easy,
                                .head = head,
                                .error = MC_ERROR_INIT};
    http_head_init(head);
    if (said) buf_clear(said);
    if (!request->of_machine) status = http_check_host(&client->settings, url, err);
    if (!status) status = exchange_run(&exchange, handle, call, err);
    if (exchange.resolving) {
      aside_put(&client->aside, handle->easy, handle->multi);
      free(handle);
      handle = NULL;
    }
    if (status || !http_is_redirect(head) || request->follow == HTTP_FOLLOW_NONE || !is_read(request)) break;
    if (redirects == MAX_REDIRECTS) {
      status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s redirects more than %d times",
                            url_printable(shown, sizeof(shown), request->url), MAX_REDIRECTS);
    } else {
      status = follow(&url, client, request, handle->easy, err);
    }
    if (!url) break;
    const struct http_dialect *dialect = request->dialect;
    if (!status && dialect && dialect->led && !same_site(target->url, url)) dialect->led(request, url);
  }
  secret_free(url);
  if (handle) give_handle_back(client, handle);
  return status;
}

mc_status http_perform(struct http_client *client, const struct http_request *request, struct http_head *head,
                       const mc_call *call, mc_error *err) {
  struct http_target target = {0};
  mc_status status = attempt(client, request, &target, head, NULL, call, err);
  target_end(&target);
  return status;
}

mc_status http_ask(struct http_client *client, const struct http_request *request, struct http_head *head,
                   const mc_call *call, mc_error *err) {
  const struct http_dialect *dialect = request->dialect;
  struct buf said;
  mc_status status = MC_OK;
  bool again = true;
  buf_init(&said, DROP_MAX + 1);
  for (int asked = 0; again && asked < ASK_AGAIN_MAX; asked++) {
    struct http_target target = {0};
    struct http_request aimed = *request;
    again = false;
    aimed.target = &target;
    status = attempt(client, request, &target, head, &said, call, err);
    bool judged = !status && head->status != 200 && head->status != 206 && dialect && dialect->judge;
    if (judged) {
      status = dialect->judge(&aimed, head, said.data ? said.data : "", &again, call, err);
    } else if (!status) {
      status = http_status(head, request->url, err);
    }
    target_end(&target);
  }
  buf_free(&said);
  return status;
}
