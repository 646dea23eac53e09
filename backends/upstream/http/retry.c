/* What a response's status means, and when to try again. */
#include <poll.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/url.h"
#include "internal.h"

#define ORIGIN          "http"
#define BACKOFF_MS      100
#define BACKOFF_MOST_MS 10000
#define ASKED_MOST_MS   60000 /* a longer Retry-After is not waited for */

mc_status http_status(const struct http_head *head, const char *url, mc_error *err) {
  char text[URL_SHOWN];
  long status = head->status;
  if (status == 200 || status == 206) return MC_OK;
  url_printable(text, sizeof(text), url);
  if (status == 404 || status == 410) {
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s does not exist (HTTP %ld)", text, status);
  }
  if (status == 401 || status == 403) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s: the origin refuses access (HTTP %ld)", text, status);
  }
  if (status == 407) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s: the proxy refuses access (HTTP %ld)", text, status);
  }
  if (status == 412 || status == 416) {
    return mc_error_set(err, MC_CHANGED, ORIGIN, "%s changed while it was read (HTTP %ld)", text, status);
  }
  bool later = status == 408 || status == 429 || (status / 100 == 5 && status != 501 && status != 505);
  if (later && head->retry_after_ms > 0) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: the origin can't answer now (HTTP %ld), but in %lld s", text,
                        status, (long long)(head->retry_after_ms + 999) / 1000);
  }
  if (later) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: the origin can't answer now (HTTP %ld)", text, status);
  }
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s: the origin answers HTTP %ld, which gives no file", text, status);
}

/* Between a half and one and a half of a time that doubles. */
int64_t http_backoff_ms(uint32_t failures, int64_t asked_ms) {
  uint32_t random;
  random_bytes(&random, sizeof(random));
  int64_t base = (int64_t)BACKOFF_MS << (failures < 8 ? failures - 1 : 7);
  if (base > BACKOFF_MOST_MS) base = BACKOFF_MOST_MS;
  int64_t wait = base / 2 + random % base;
  /* Later than asked, if need be, never earlier; and not everybody at once. */
  int64_t asked = asked_ms > 0 ? asked_ms + random % (asked_ms / 4 + 1) : 0;
  return wait > asked ? wait : asked;
}

mc_status http_again(struct http_client *client, uint32_t *failures, mc_status status, const struct http_head *head,
                     const mc_call *call, mc_error *err) {
  const struct http_settings *settings = http_client_settings(client);
  if (status != MC_UNAVAILABLE || *failures >= settings->retries) return status;
  int64_t asked = head->status / 100 == 2 ? -1 : head->retry_after_ms;
  if (asked > ASKED_MOST_MS) return status;
  ++*failures;
  int64_t wait = http_backoff_ms(*failures, asked), until = deadline_in_ms(wait);
  if (until >= call->deadline) return status; /* which says more than that the deadline has passed */
  if (err) log_info(settings->logger, ORIGIN, "%s; trying again in %lld ms", err->message, (long long)wait);
  for (;;) {
    mc_status ended = mc_call_check(call, err);
    if (ended || clock_ns() >= until) return ended;
    struct pollfd cancel = {.fd = mc_cancel_fd(call->cancel), .events = POLLIN};
    poll(&cancel, 1, deadline_poll_ms(until));
  }
}

mc_status http_fetch(struct http_client *client, const struct http_request *request, struct http_head *head,
                     const mc_call *call, mc_error *err) {
  for (uint32_t failures = 0;;) {
    mc_status status = http_ask(client, request, head, call, err);
    if (!status) return MC_OK;
    status = http_again(client, &failures, status, head, call, err);
    if (status) return status;
  }
}

static mc_status begin_text(void *user, const struct http_head *head, mc_error *err) {
  (void)head;
  (void)err;
  buf_clear(user);
  return MC_OK;
}

static mc_status take_text(void *user, const void *data, size_t size, mc_error *err) {
  struct buf *body = user;
  if (buf_append(body, data, size)) return MC_OK;
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "an answer of the origin is larger than %zu bytes", body->max);
}

static struct http_request request_of_text(const struct http_request *request, struct buf *body) {
  struct http_request whole = *request;
  whole.on_head = begin_text;
  whole.on_body = take_text;
  whole.user = body;
  return whole;
}

/* An empty answer is a text, too. */
static mc_status end_text(struct buf *body, mc_error *err) {
  if (body->data || buf_append_str(body, "")) return MC_OK;
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an answer");
}

mc_status http_fetch_text(struct http_client *client, const struct http_request *request, struct buf *body,
                          const mc_call *call, mc_error *err) {
  struct http_request whole = request_of_text(request, body);
  struct http_head head;
  mc_status status = http_fetch(client, &whole, &head, call, err);
  return status ? status : end_text(body, err);
}

mc_status http_ask_text(struct http_client *client, const struct http_request *request, struct buf *body,
                        struct http_head *head, const mc_call *call, mc_error *err) {
  struct http_request whole = request_of_text(request, body);
  mc_status status = http_ask(client, &whole, head, call, err);
  return status ? status : end_text(body, err);
}
