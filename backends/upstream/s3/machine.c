/* Keys that the container's or the machine's own metadata service gives. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "address.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/origin.h"
#include "base/url.h"
#include "chain.h"
#include "page.h"

#define ORIGIN          "s3"
#define CONTAINER_HOST  "http://169.254.170.2"
#define MACHINE_HOST    "http://169.254.169.254"
#define MACHINE_HOST_V6 "http://[fd00:ec2::254]"
#define ANSWER_MAX      ((size_t)64 << 10)
#define FOUND_MS        1000 /* who is so near answers at once, or isn't there */
#define ANSWERS_MS      5000 /* who is there */
#define TOKEN_PATH      "/latest/api/token"
#define ROLE_PATH       "/latest/meta-data/iam/security-credentials/"

/* Ask a metadata service. MC_UNAVAILABLE: it can't answer, or nobody is there, which a head without status tells. */
static mc_status ask(const struct s3_chain *chain, struct buf *answer, struct http_head *head, int64_t patience_ms,
                     const char *method, const char *url, const char *header, const mc_call *call, mc_error *err) {
  const char *const headers[] = {header, NULL};
  struct http_request request = {
      .method = method, .url = url, .headers = headers, .follow = HTTP_FOLLOW_NONE, .of_machine = true};
  mc_call soon = *call;
  soon.deadline = deadline_earlier(call->deadline, deadline_in_ms(patience_ms));
  buf_init(answer, ANSWER_MAX);
  mc_status status = http_ask_text(chain->client, &request, answer, head, &soon, err);
  if (status == MC_DEADLINE_EXCEEDED && !mc_call_check(call, err)) status = MC_UNAVAILABLE;
  return status;
}

/* {"AccessKeyId": …, "SecretAccessKey": …, "Token": …, "Expiration": …} */
static mc_status take_answer(struct keys **out, const struct buf *answer, const char *where, mc_error *err) {
  json_t *root = json_loadb(answer->data, answer->size, 0, NULL);
  const char *id = json_string_value(json_object_get(root, "AccessKeyId"));
  const char *secret = json_string_value(json_object_get(root, "SecretAccessKey"));
  const char *token = json_string_value(json_object_get(root, "Token"));
  const char *expiration = json_string_value(json_object_get(root, "Expiration"));
  mc_status status = MC_OK;
  if (!id || !secret) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "an answer without credentials came from %.200s", where);
  } else {
    *out = keys_new(where, id, secret, token, expiration ? s3_time(expiration) * 1000 : 0);
    if (!*out) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
  }
  json_decref(root);
  return status;
}

/* ---- containers ---- */

/* The hosts that the SDKs send this token to without TLS: this machine's, and those of ECS and EKS. */
static bool is_near(const char *url) {
  static const char *const hosts[] = {"localhost", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "[::1]", NULL};
  const char *host = strstr(url, "://") + 3;
  size_t size = host[0] == '[' ? strcspn(host, "]/") + 1 : strcspn(host, ":/?");
  char text[INET_ADDRSTRLEN] = "";
  struct in_addr address;
  for (size_t i = 0; hosts[i]; i++) {
    if (strlen(hosts[i]) == size && strncmp(hosts[i], host, size) == 0) return true;
  }
  if (size < sizeof(text)) memcpy(text, host, size);
  return inet_pton(AF_INET, text, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

static mc_status container_url(char **out, const struct s3_environment *environment, mc_error *err) {
  const char *relative = environment->values[S3_CONTAINER_RELATIVE_URI];
  const char *full = environment->values[S3_CONTAINER_FULL_URI];
  if (relative) {
    *out = format_str(CONTAINER_HOST "%s%s", *relative == '/' ? "" : "/", relative);
    return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  }
  mc_status status = url_normalise(out, full, NULL);
  bool https = !status && strncmp(*out, "https://", 8) == 0;
  if (https || (!status && strncmp(*out, "http://", 7) == 0 && is_near(*out))) return MC_OK;
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                      "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor on this machine or a container's agent");
}

/* "Authorization: …", malloced; *out stays NULL without a token. */
static mc_status container_header(char **out, const struct s3_environment *environment, mc_error *err) {
  const char *path = environment->values[S3_CONTAINER_TOKEN_FILE], *token = environment->values[S3_CONTAINER_TOKEN];
  char *text = NULL;
  mc_error why = MC_ERROR_INIT;
  mc_status status = path ? secret_read(&text, path, &why) : MC_OK;
  if (status) {
    return mc_error_set(err, status, ORIGIN, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: %.300s", why.message);
  }
  if (text) token = text;
  if (token) {
    *out = format_str("Authorization: %.*s", (int)strcspn(token, "\r\n"), token);
    if (!*out) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a token");
  }
  secret_free(text);
  return status;
}

mc_status s3_get_container(const struct s3_chain *chain, struct keys **out, const mc_call *call, mc_error *err) {
  const struct s3_environment *environment = chain->environment;
  char *url = NULL, *header = NULL;
  struct buf answer = {0};
  struct http_head head;
  if (!environment->values[S3_CONTAINER_RELATIVE_URI] && !environment->values[S3_CONTAINER_FULL_URI]) return MC_OK;
  mc_status status = container_url(&url, environment, err);
  if (!status) status = container_header(&header, environment, err);
  if (!status) status = ask(chain, &answer, &head, ANSWERS_MS, "GET", url, header, call, err);
  if (!status) status = take_answer(out, &answer, "the container's agent (AWS_CONTAINER_CREDENTIALS_…)", err);
  buf_wipe(&answer);
  secret_free(header);
  free(url);
  return status;
}

/* ---- machines of EC2 ---- */

/* malloced */
static mc_status machine_host(char **out, const struct s3_environment *environment, mc_error *err) {
  const char *endpoint = environment->values[S3_METADATA_ENDPOINT],
             *mode = environment->values[S3_METADATA_ENDPOINT_MODE];
  if (endpoint) return s3_endpoint_parse(out, endpoint, "AWS_EC2_METADATA_SERVICE_ENDPOINT", err);
  *out = strdup(mode && strcasecmp(mode, "IPv6") == 0 ? MACHINE_HOST_V6 : MACHINE_HOST);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
}

/* The header that shows the session's token; *out stays NULL where there is no such service. */
static mc_status begin_session(const struct s3_chain *chain, char **out, const char *host, const mc_call *call,
                               mc_error *err) {
  struct buf answer;
  struct http_head head;
  char *url = format_str("%s" TOKEN_PATH, host);
  if (!url) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  mc_status status =
      ask(chain, &answer, &head, FOUND_MS, "PUT", url, "X-aws-ec2-metadata-token-ttl-seconds: 21600", call, err);
  free(url);
  bool sound = !status && answer.size && strcspn(answer.data, "\r\n") == answer.size;
  if (sound) *out = format_str("X-aws-ec2-metadata-token: %s", answer.data);
  buf_wipe(&answer);
  if (status == MC_CANCELLED || status == MC_DEADLINE_EXCEEDED || status == MC_NO_MEMORY) return status;
  if (status == MC_UNAVAILABLE && head.status) return status; /* it is there, and busy */
  return sound && !*out ? mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a token") : MC_OK;
}

static bool is_role_name(const char *name) {
  size_t size = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+=,.@-_");
  return size > 0 && size <= 64 && name[size] == 0;
}

/* The name of the machine's role; MC_NOT_FOUND: it has none. */
static mc_status find_role(const struct s3_chain *chain, char **out, const char *host, const char *header,
                           const mc_call *call, mc_error *err) {
  struct buf answer;
  struct http_head head;
  char *url = format_str("%s" ROLE_PATH, host);
  if (!url) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  mc_status status = ask(chain, &answer, &head, ANSWERS_MS, "GET", url, header, call, err);
  free(url);
  if (!status) {
    answer.data[strcspn(answer.data, "\r\n")] = 0;
    *out = is_role_name(answer.data) ? strdup(answer.data) : NULL;
    if (!*out) status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the machine's metadata service names no role");
  }
  buf_free(&answer);
  return status;
}

static mc_status get_role(const struct s3_chain *chain, struct keys **out, const char *host, const char *header,
                          const mc_call *call, mc_error *err) {
  struct buf answer = {0};
  struct http_head head;
  char *role = NULL;
  mc_status status = find_role(chain, &role, host, header, call, err);
  if (status) return status == MC_NOT_FOUND ? MC_OK : status;
  char *url = format_str("%s" ROLE_PATH "%s", host, role), *where = format_str("the machine's role %s", role);
  if (!url || !where) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  if (!status) status = ask(chain, &answer, &head, ANSWERS_MS, "GET", url, header, call, err);
  if (!status) status = take_answer(out, &answer, where, err);
  buf_wipe(&answer);
  free(role);
  free(url);
  free(where);
  return status;
}

mc_status s3_get_machine(const struct s3_chain *chain, struct keys **out, const mc_call *call, mc_error *err) {
  char *host = NULL, *header = NULL;
  if (s3_environment_says(chain->environment, S3_METADATA_DISABLED)) return MC_OK;
  mc_status status = machine_host(&host, chain->environment, err);
  if (!status) status = begin_session(chain, &header, host, call, err);
  if (!status && header) status = get_role(chain, out, host, header, call, err);
  secret_free(header);
  free(host);
  return status;
}
