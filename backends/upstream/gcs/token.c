/* Tokens of OAuth for credentials of a file. A service account signs who it is; a user has a token that is exchanged
 * for others; somebody else's token is exchanged at the security token service. One that may act for a service account
 * asks IAM for a token of that. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "account.h"
#include "address.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/origin.h"
#include "base/url.h"
#include "jwt.h"

#define ORIGIN     "gcs"
#define TOKEN_URL  "https://oauth2.googleapis.com/token"
#define READ       "https://www.googleapis.com/auth/devstorage.read_only"
#define PLATFORM   "https://www.googleapis.com/auth/cloud-platform" /* to act for another account */
#define GRANT      "urn:ietf:params:oauth:grant-type:"
#define LIFETIME_S 3600
#define BODY_MAX   ((size_t)128 << 10)
#define ANSWER_MAX ((size_t)64 << 10)

static const char *text_of(const json_t *json, const char *name) {
  return json_string_value(json_object_get(json, name));
}

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a token");
}

/* ---- requests ---- */

static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  struct gcs_failure failure;
  char url[URL_SHOWN];
  (void)again;
  (void)call;
  mc_status status = http_status(head, request->url, err);
  if (status == MC_UNAVAILABLE) return status;
  gcs_failure_parse(&failure, body);
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s gives no token for them (HTTP %ld%s%s)",
                      url_printable(url, sizeof(url), request->url), head->status, *failure.reason ? ", " : "",
                      failure.reason);
}

static const struct http_dialect dialect = {.name = ORIGIN, .judge = judge};

/* Ask for a token with a body, which is wiped. `headers` may be NULL. */
static mc_status ask(struct gcs_token *out, struct http_client *client, const char *url, const char *const *headers,
                     struct buf *body, const mc_call *call, mc_error *err) {
  struct buf answer;
  struct http_request request = {.method = "POST",
                                 .url = url,
                                 .dialect = &dialect,
                                 .body = body->data,
                                 .body_size = body->size,
                                 .headers = headers,
                                 .follow = HTTP_FOLLOW_NONE};
  buf_init(&answer, ANSWER_MAX);
  mc_status status = body->failed ? no_memory(err) : http_fetch_text(client, &request, &answer, call, err);
  if (!status) status = gcs_token_parse(out, answer.data, answer.size, err);
  buf_wipe(&answer);
  buf_wipe(body);
  return status;
}

static void add(struct buf *form, const char *name, const char *value) {
  buf_printf(form, "%s%s=", form->size ? "&" : "", name);
  gcs_append_name(form, value);
}

/* ---- kinds of accounts ---- */

static mc_status of_service_account(struct gcs_token *out, const json_t *account, const char *scope,
                                    struct http_client *client, const mc_call *call, mc_error *err) {
  const char *url = text_of(account, "token_uri");
  char *jwt = NULL;
  json_int_t now = clock_wall_ms() / 1000;
  if (!url || !*url) url = TOKEN_URL;
  json_t *claims = json_pack("{s:s,s:s,s:s,s:I,s:I}", "iss", text_of(account, "client_email"), "scope", scope, "aud",
                             url, "iat", now, "exp", now + LIFETIME_S);
  mc_status status =
      claims ? gcs_jwt_sign(&jwt, claims, text_of(account, "private_key"), text_of(account, "private_key_id"), err)
             : no_memory(err);
  json_decref(claims);
  if (status) return status;
  struct buf form;
  buf_init(&form, BODY_MAX);
  add(&form, "grant_type", GRANT "jwt-bearer");
  add(&form, "assertion", jwt);
  secret_free(jwt);
  return ask(out, client, url, NULL, &form, call, err);
}

static mc_status of_user(struct gcs_token *out, const json_t *account, struct http_client *client, const mc_call *call,
                         mc_error *err) {
  const char *url = text_of(account, "token_uri");
  struct buf form;
  buf_init(&form, BODY_MAX);
  add(&form, "grant_type", "refresh_token");
  add(&form, "client_id", text_of(account, "client_id"));
  add(&form, "client_secret", text_of(account, "client_secret"));
  add(&form, "refresh_token", text_of(account, "refresh_token"));
  return ask(out, client, url && *url ? url : TOKEN_URL, NULL, &form, call, err);
}

#define SOURCE_HEADERS 8

/* What an identity provider answers. Its URL may be of the machine itself: the operator's file says so. */
static mc_status fetch_subject(struct buf *out, const json_t *source, struct http_client *client, const mc_call *call,
                               mc_error *err) {
  const char *headers[SOURCE_HEADERS + 1] = {NULL}, *name;
  json_t *value;
  size_t count = 0;
  mc_status status = MC_OK;
  json_object_foreach(json_object_get(source, "headers"), name, value) {
    char *header = json_is_string(value) ? format_str("%s: %s", name, json_string_value(value)) : NULL;
    if (!header || count == SOURCE_HEADERS || strpbrk(header, "\r\n")) {
      status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "its credential_source's headers can't be sent");
      free(header);
      break;
    }
    headers[count++] = header;
  }
  struct http_request request = {.method = "GET",
                                 .url = text_of(source, "url"),
                                 .dialect = &dialect,
                                 .headers = headers,
                                 .follow = HTTP_FOLLOW_NONE,
                                 .of_machine = true};
  if (!status) status = http_fetch_text(client, &request, out, call, err);
  while (count) {
    char *header = (char *)(uintptr_t)headers[--count];
    secret_free(header);
  }
  return status;
}

static mc_status read_subject(struct buf *out, const char *path, mc_error *err) {
  char *text;
  mc_error why = MC_ERROR_INIT;
  mc_status status = secret_read(&text, path, &why);
  if (status) return mc_error_set(err, status, ORIGIN, "its credential_source, %s", why.message);
  buf_append_str(out, text);
  secret_free(text);
  return MC_OK;
}

/* Somebody else's token, *out, malloced. */
static mc_status get_subject(char **out, const json_t *source, struct http_client *client, const mc_call *call,
                             mc_error *err) {
  const char *path = text_of(source, "file");
  const json_t *format = json_object_get(source, "format");
  const char *type = text_of(format, "type"), *token = NULL;
  struct buf text;
  json_t *root = NULL;
  buf_init(&text, ANSWER_MAX + 1);
  mc_status status = path && *path ? read_subject(&text, path, err) : fetch_subject(&text, source, client, call, err);
  if (!status && text.data && type && strcmp(type, "json") == 0) {
    root = json_loadb(text.data, text.size, 0, NULL);
    token = text_of(root, text_of(format, "subject_token_field_name"));
  } else if (!status && text.data) {
    while (text.size && strchr(" \t\r\n", text.data[text.size - 1])) text.data[--text.size] = 0;
    token = text.data;
  }
  *out = token && *token ? strdup(token) : NULL;
  json_decref(root);
  buf_wipe(&text);
  if (status || *out) return status;
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "its credential_source has no token");
}

static mc_status of_another(struct gcs_token *out, const json_t *account, const char *scope, struct http_client *client,
                            const mc_call *call, mc_error *err) {
  char *subject;
  mc_status status = get_subject(&subject, json_object_get(account, "credential_source"), client, call, err);
  if (status) return status;
  struct buf form;
  buf_init(&form, BODY_MAX);
  add(&form, "grant_type", GRANT "token-exchange");
  add(&form, "audience", text_of(account, "audience"));
  add(&form, "scope", scope);
  add(&form, "requested_token_type", "urn:ietf:params:oauth:token-type:access_token");
  add(&form, "subject_token_type", text_of(account, "subject_token_type"));
  add(&form, "subject_token", subject);
  secret_free(subject);
  return ask(out, client, text_of(account, "token_url"), NULL, &form, call, err);
}

/* A token of the service account for which whoever has `token` may act. `token` is replaced. */
static mc_status impersonate(struct gcs_token *token, const json_t *account, const char *scope,
                             struct http_client *client, const mc_call *call, mc_error *err) {
  struct gcs_token next;
  json_t *delegates = json_object_get(account, "delegates");
  json_t *wish = json_pack("{s:[s],s:s,s:O*}", "scope", scope, "lifetime", "3600s", "delegates", delegates);
  char *text = json_dumps(wish, JSON_COMPACT), *bearer = format_str("Authorization: Bearer %s", token->text);
  const char *headers[] = {"Content-Type: application/json", bearer, NULL};
  struct buf body;
  json_decref(wish);
  buf_init(&body, BODY_MAX);
  if (text) buf_append_str(&body, text);
  mc_status status = text && bearer ? ask(&next, client, text_of(account, "service_account_impersonation_url"), headers,
                                          &body, call, err)
                                    : no_memory(err);
  free(text);
  buf_free(&body);
  secret_free(bearer);
  if (status) return status;
  gcs_token_free(token);
  *token = next;
  return MC_OK;
}

static mc_status get_first(struct gcs_token *out, const json_t *account, const char *scope, struct http_client *client,
                           const mc_call *call, mc_error *err) {
  const char *type = gcs_account_type(account);
  if (strcmp(type, "service_account") == 0) return of_service_account(out, account, scope, client, call, err);
  if (strcmp(type, "authorized_user") == 0) return of_user(out, account, client, call, err);
  return of_another(out, account, scope, client, call, err);
}

/* An account of somebody else may act for a service account, too, also as the source of an impersonation. */
mc_status gcs_token_get(struct gcs_token *out, const json_t *account, struct http_client *client, const mc_call *call,
                        mc_error *err) {
  static const char name[] = "service_account_impersonation_url";
  const json_t *source = json_object_get(account, "source_credentials");
  bool outer = strcmp(gcs_account_type(account), "impersonated_service_account") == 0;
  const json_t *first = outer ? source : account;
  bool inner =
      strcmp(gcs_account_type(first), "external_account") == 0 && text_of(first, name) && *text_of(first, name);
  *out = (struct gcs_token){.text = NULL};
  mc_status status = get_first(out, first, outer || inner ? PLATFORM : READ, client, call, err);
  if (!status && inner) status = impersonate(out, first, outer ? PLATFORM : READ, client, call, err);
  if (!status && outer) status = impersonate(out, account, READ, client, call, err);
  if (status) gcs_token_free(out);
  return status;
}
