#include "token.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <jansson.h>
#include <openssl/crypto.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/origin.h"
#include "base/text.h"

#define ORIGIN     "azure"
#define AUTHORITY  "https://login.microsoftonline.com"
#define MACHINE    "http://169.254.169.254"
#define RESOURCE   "https://storage.azure.com/" /* of every cloud */
#define ASSERTION  "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#define BODY_MAX   ((size_t)256 << 10)
#define ANSWER_MAX ((size_t)256 << 10)
#define TOKEN_MAX  ((size_t)24 << 10) /* what fits into a header */

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

/* ---- answers ---- */

/* Seconds, as a number or as a text. -1: none. */
static int64_t seconds_of(const json_t *value) {
  if (json_is_integer(value)) return json_integer_value(value);
  const char *text = json_string_value(value);
  size_t size = text ? strlen(text) : 0;
  return size && size < 16 && strspn(text, "0123456789") == size ? strtoll(text, NULL, 10) : -1;
}

mc_status azure_token_parse(struct keys **out, const struct azure_identity *identity, const char *text, size_t size,
                            int64_t now_ms, mc_error *err) {
  const int64_t most = INT64_MAX / 4000;
  json_t *root = json_loadb(text, size, 0, NULL);
  const char *token = json_string_value(json_object_get(root, "access_token"));
  int64_t in = seconds_of(json_object_get(root, "expires_in")), on = seconds_of(json_object_get(root, "expires_on"));
  int64_t expires_at = on > 0 && on < most ? on * 1000 : in > 0 && in < most ? now_ms + in * 1000 : 0;
  size_t length = token ? strlen(token) : 0;
  bool good = length > 0 && length <= TOKEN_MAX && expires_at > 0;
  for (size_t i = 0; good && i < length; i++) good = token[i] > 0x20 && token[i] < 0x7f && token[0] != '?';
  *out = good ? keys_new(identity->where, identity->client_id, NULL, token, expires_at) : NULL;
  json_decref(root);
  if (*out) return MC_OK;
  if (good) return no_memory(err);
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "what was answered to %.200s is no token", identity->where);
}

void azure_token_refusal(char *text, size_t size, const char *body) {
  json_t *root = json_loads(body, 0, NULL);
  const char *error = json_string_value(json_object_get(root, "error"));
  const char *description = json_string_value(json_object_get(root, "error_description"));
  const char *code = description ? strstr(description, "AADSTS") : NULL;
  size_t digits = code ? strspn(code + 6, "0123456789") : 0;
  bool is_word = error && *error && strlen(error) < 60;
  for (const char *c = error; is_word && *c; c++) is_word = isalnum((unsigned char)*c) || *c == '_';
  snprintf(text, size, "%s%s%.*s", is_word ? error : "no reason is told", digits && digits < 12 ? ", " : "",
           digits && digits < 12 ? (int)digits + 6 : 0, code ? code : "");
  json_decref(root);
}

/* Entra answers 400 and 401 with the reason, and why it is so is for the operator to mend. */
static mc_status judge_entra(const struct http_request *request, const struct http_head *head, const char *body,
                             bool *again, const mc_call *call, mc_error *err) {
  const struct azure_identity *identity = request->self;
  char why[100];
  (void)again;
  (void)call;
  if (head->status / 100 != 4 || head->status == 408 || head->status == 429) {
    return http_status(head, request->url, err);
  }
  azure_token_refusal(why, sizeof(why), body);
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "Microsoft Entra gives no token for %.150s: %s (HTTP %ld)",
                      identity->where, why, head->status);
}

/* Other clouds have something at that address, too, which knows nothing of this. */
static mc_status judge_machine(const struct http_request *request, const struct http_head *head, const char *body,
                               bool *again, const mc_call *call, mc_error *err) {
  const struct azure_identity *identity = request->self;
  char why[100];
  (void)again;
  (void)call;
  if (head->status / 100 == 5 || head->status == 410 || head->status == 429) { /* it is being updated, or busy */
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%.150s can't be asked now (HTTP %ld)", identity->where,
                        head->status);
  }
  azure_token_refusal(why, sizeof(why), body);
  return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%.150s: this machine has none (HTTP %ld, %s)", identity->where,
                      head->status, why);
}

static const struct http_dialect entra = {.name = ORIGIN, .judge = judge_entra};
static const struct http_dialect machine = {.name = ORIGIN, .judge = judge_machine};

/* ---- questions ---- */

/* Append "name=value", escaped. */
static void append_field(struct buf *out, const char *name, const char *value) {
  char *escaped = curl_easy_escape(NULL, value, 0);
  buf_printf(out, "%s%s=%s", out->size ? "&" : "", name, escaped ? escaped : "");
  if (!escaped) out->failed = true;
  if (escaped) OPENSSL_cleanse(escaped, strlen(escaped));
  curl_free(escaped);
}

static mc_status append_proof(struct buf *out, const struct azure_identity *identity, mc_error *err) {
  char *assertion = NULL;
  if (identity->secret) {
    append_field(out, "client_secret", identity->secret);
    return MC_OK;
  }
  mc_error why = MC_ERROR_INIT;
  mc_status status = secret_read(&assertion, identity->token_file, &why);
  if (status) return mc_error_set(err, status, ORIGIN, "%.120s: the token's file: %s", identity->where, why.message);
  append_field(out, "client_assertion_type", ASSERTION);
  append_field(out, "client_assertion", assertion);
  secret_free(assertion);
  return MC_OK;
}

/* Whether it may stand in a URL's path. */
static bool is_tenant(const char *text) {
  return *text && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == strlen(text);
}

static mc_status ask_entra(struct buf *answer, struct http_client *client, const struct azure_identity *identity,
                           const mc_call *call, mc_error *err) {
  static const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded", NULL};
  const char *authority = identity->authority ? identity->authority : AUTHORITY;
  size_t size = strlen(authority);
  while (size && authority[size - 1] == '/') size--;
  if (!is_tenant(identity->tenant_id)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%.200s: the tenant's id has a character that none has",
                        identity->where);
  }
  struct buf body;
  buf_init(&body, BODY_MAX);
  append_field(&body, "grant_type", "client_credentials");
  append_field(&body, "scope", RESOURCE ".default");
  append_field(&body, "client_id", identity->client_id);
  mc_status status = append_proof(&body, identity, err);
  char *url = format_str("%.*s/%s/oauth2/v2.0/token", (int)size, authority, identity->tenant_id);
  if (!status && (!url || body.failed)) status = no_memory(err);
  if (!status) {
    struct http_request request = {.method = "POST",
                                   .url = url,
                                   .dialect = &entra,
                                   .self = (void *)(uintptr_t)identity,
                                   .body = body.data,
                                   .body_size = body.size,
                                   .headers = headers,
                                   .follow = HTTP_FOLLOW_NONE};
    status = http_fetch_text(client, &request, answer, call, err);
  }
  free(url);
  buf_wipe(&body);
  return status;
}

static mc_status ask_machine(struct buf *answer, struct http_client *client, const struct azure_identity *identity,
                             const mc_call *call, mc_error *err) {
  bool of_app = identity->endpoint != NULL;
  const char *base = of_app ? identity->endpoint : identity->machine ? identity->machine : MACHINE;
  struct buf url;
  buf_init(&url, 8192);
  size_t size = strlen(base);
  while (size && base[size - 1] == '/') size--;
  buf_printf(&url, "%.*s%s?api-version=%s", (int)size, base, of_app ? "" : "/metadata/identity/oauth2/token",
             of_app ? "2019-08-01" : "2018-02-01");
  append_field(&url, "resource", RESOURCE);
  if (identity->client_id) append_field(&url, "client_id", identity->client_id);
  char *header = of_app ? format_str("X-IDENTITY-HEADER: %s", identity->header) : strdup("Metadata: true");
  const char *const headers[] = {header, NULL};
  struct http_head head = {0};
  mc_status status = url.failed || !header ? no_memory(err) : MC_OK;
  if (!status) {
    struct http_request request = {.method = "GET",
                                   .url = url.data,
                                   .dialect = &machine,
                                   .self = (void *)(uintptr_t)identity,
                                   .headers = headers,
                                   .follow = HTTP_FOLLOW_NONE,
                                   .of_machine = true};
    status = http_ask_text(client, &request, answer, &head, call, err);
    if (status == MC_UNAVAILABLE && head.status == 0 && !of_app) { /* nobody is there */
      status = mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%.200s: there is no service for it here", identity->where);
    }
  }
  free(header);
  buf_free(&url);
  return status;
}

mc_status azure_token_get(struct keys **out, struct http_client *client, const struct azure_identity *identity,
                          const mc_call *call, mc_error *err) {
  struct buf answer;
  buf_init(&answer, ANSWER_MAX);
  bool of_application = identity->secret || identity->token_file;
  mc_status status = of_application ? ask_entra(&answer, client, identity, call, err)
                                    : ask_machine(&answer, client, identity, call, err);
  if (!status) status = azure_token_parse(out, identity, answer.data, answer.size, clock_wall_ms(), err);
  buf_wipe(&answer);
  return status;
}
