/* Roles: STS gives keys of its own for those of another, or for the token of a web identity. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "../http/store.h"
#include "address.h"
#include "base/buf.h"
#include "base/io.h"
#include "base/origin.h"
#include "base/url.h"
#include "chain.h"
#include "page.h"
#include "sign.h"

#define ORIGIN        "s3"
#define GLOBAL_REGION "us-east-1"
#define QUESTION_MAX  ((size_t)256 << 10)
#define ANSWER_MAX    ((size_t)256 << 10)
#define SESSION_NAME  "modelcache"

/* One question. */
struct asking {
  const struct s3_chain *chain;
  const struct s3_role *role;
  const struct keys *keys; /* NULL: the token is enough */
};

static const char *region_of(const struct s3_chain *chain) {
  return chain->region ? chain->region : GLOBAL_REGION;
}

static mc_status aim(const struct http_request *request, struct http_target *target, const mc_call *call,
                     mc_error *err) {
  const struct asking *asking = request->self;
  (void)call;
  target->url = strdup(request->url);
  bool good =
      target->url && (!asking->keys || s3_sign(target, request, NULL, region_of(asking->chain), "sts", asking->keys));
  return good ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
}

static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  const struct asking *asking = request->self;
  struct s3_error error;
  (void)again;
  (void)call;
  s3_error_parse(&error, body, strlen(body));
  bool later = strcmp(error.code, "Throttling") == 0 || strcmp(error.code, "IDPCommunicationError") == 0;
  if (later || head->status / 100 != 4 || head->status == 429 || head->status == 408) {
    mc_status status = http_status(head, request->url, err);
    return !later ? status
                  : mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "STS can't give the role %.100s now (%s)",
                                 asking->role->arn, error.code);
  }
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                      "STS does not give the role %.100s (HTTP %ld, %s), which is named by %.150s", asking->role->arn,
                      head->status, error.code[0] ? error.code : "no reason given", asking->role->where);
}

static const struct http_dialect dialect = {.name = "sts", .aim = aim, .judge = judge};

static void append_field(struct buf *body, const char *name, const char *value) {
  if (!value) return;
  buf_printf(body, "&%s=", name);
  s3_escape(body, value, false);
}

static mc_status read_token(char **out, const struct s3_role *role, mc_error *err) {
  mc_error why = MC_ERROR_INIT;
  mc_status status = secret_read(out, role->token_file, &why);
  return status ? mc_error_set(err, status, ORIGIN, "the token file that goes with %.100s: %.300s", role->where,
                               why.message)
                : MC_OK;
}

static mc_status write_question(struct buf *body, const struct s3_role *role, mc_error *err) {
  char *token = NULL;
  mc_status status = role->token_file ? read_token(&token, role, err) : MC_OK;
  if (status) return status;
  buf_printf(body, "Action=%s&Version=2011-06-15", token ? "AssumeRoleWithWebIdentity" : "AssumeRole");
  append_field(body, "RoleArn", role->arn);
  append_field(body, "RoleSessionName", role->session_name ? role->session_name : SESSION_NAME);
  append_field(body, "DurationSeconds", role->duration);
  append_field(body, "ExternalId", token ? NULL : role->external_id);
  append_field(body, "WebIdentityToken", token);
  secret_free(token);
  return body->failed ? mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request") : MC_OK;
}

static mc_status endpoint_of(char **out, const struct s3_chain *chain, const struct s3_role *role, mc_error *err) {
  char *endpoint = NULL;
  if (role->endpoint) {
    mc_status status = s3_endpoint_parse(&endpoint, role->endpoint, "STS", err);
    if (status) return status;
    *out = format_str("%s/", endpoint);
    free(endpoint);
  } else if (chain->region) {
    *out = format_str("https://sts.%s.amazonaws.com%s/", chain->region,
                      strncmp(chain->region, "cn-", 3) == 0 ? ".cn" : "");
  } else {
    *out = strdup("https://sts.amazonaws.com/");
  }
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for an endpoint");
}

static mc_status take_answer(struct keys **out, const struct buf *answer, const struct s3_role *role, mc_error *err) {
  struct s3_keys_text *text = malloc(sizeof(*text));
  char *where = format_str("the role %s, named by %s", role->arn, role->where);
  mc_status status = MC_NO_MEMORY;
  if (text && where) status = s3_keys_parse(text, answer->data, answer->size, err);
  if (!status) {
    *out =
        keys_new(where, text->id, text->secret, text->token[0] ? text->token : NULL, s3_time(text->expiration) * 1000);
    if (!*out) status = MC_NO_MEMORY;
  }
  if (text) OPENSSL_cleanse(text, sizeof(*text));
  free(text);
  free(where);
  return status == MC_NO_MEMORY ? mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials") : status;
}

mc_status s3_get_role(const struct s3_chain *chain, struct keys **out, const struct s3_role *role,
                      const struct keys *keys, const mc_call *call, mc_error *err) {
  struct asking asking = {.chain = chain, .role = role, .keys = keys};
  struct buf body, answer;
  char *url = NULL;
  buf_init(&body, QUESTION_MAX);
  buf_init(&answer, ANSWER_MAX);
  mc_status status = endpoint_of(&url, chain, role, err);
  if (!status) status = write_question(&body, role, err);
  if (!status) {
    struct http_request request = {.method = "POST",
                                   .url = url,
                                   .dialect = &dialect,
                                   .self = &asking,
                                   .body = body.data,
                                   .body_size = body.size,
                                   .follow = HTTP_FOLLOW_NONE};
    status = http_fetch_text(chain->client, &request, &answer, call, err);
  }
  if (!status) status = take_answer(out, &answer, role, err);
  buf_wipe(&body);
  buf_wipe(&answer);
  free(url);
  return status;
}
