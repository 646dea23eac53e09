/* Where requests go, how they are signed, and what answers stand for. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/url.h"
#include "page.h"
#include "s3.h"

#define ORIGIN         "s3"
#define DEFAULT_REGION "us-east-1"
#define SHOWN          160 /* bytes of a URL: what else is said matters, too */

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
}

/* ---- routes ---- */

mc_status s3_route_find(struct s3_route *route, struct s3 *self, const char *url, mc_error *err) {
  const struct s3_settings *settings = NULL;
  *route = (struct s3_route){.source = NULL};
  mc_status status = s3_address_parse(&route->address, url, err);
  if (!status) status = s3_vault_find(self->vault, &route->source, url, err);
  if (!status) status = s3_source_settings(route->source, &settings, err);
  if (status) return status;
  const mc_origin_rule *rule = http_client_rule(self->store.client, url);
  route->style = settings->style;
  route->endpoint = route->address.endpoint ? route->address.endpoint : settings->endpoint;
  if (rule && rule->endpoint) {
    status = s3_endpoint_parse(&route->own_endpoint, rule->endpoint, "an origin rule", err);
    route->endpoint = route->own_endpoint;
  }
  if (!s3_regions_find(&self->regions, route->region, route->endpoint, route->address.bucket)) {
    strcpy(route->region, settings->region ? settings->region : DEFAULT_REGION);
  }
  return status;
}

void s3_route_end(struct s3_route *route) {
  s3_address_free(&route->address);
  free(route->own_endpoint);
}

/* ---- requests ---- */

static char *join_query(char *url, const char *query) {
  struct buf whole;
  buf_init(&whole, (size_t)8 * URL_MAX);
  if (url) buf_printf(&whole, "%s?%s", url, query);
  char *joined = url ? buf_take(&whole) : NULL;
  buf_free(&whole);
  free(url);
  return joined;
}

static char *version_query(const struct s3_address *address) {
  struct buf query;
  buf_init(&query, (size_t)4 * URL_MAX);
  buf_append_str(&query, "versionId=");
  s3_escape(&query, address->version, false);
  char *taken = buf_take(&query);
  buf_free(&query);
  return taken;
}

static char *target_url(const struct s3_route *route, const char *query) {
  const struct s3_address *address = &route->address;
  char *url = s3_address_url(address, query ? NULL : address->key, route->endpoint, route->region, route->style);
  if (query) return join_query(url, query);
  if (!address->version) return url;
  char *version = version_query(address);
  char *joined = version ? join_query(url, version) : NULL;
  if (!version) free(url);
  free(version);
  return joined;
}

mc_status s3_aim(struct s3 *self, const struct http_request *request, const char *query, const struct s3_header *header,
                 struct http_target *target, const mc_call *call, mc_error *err) {
  struct s3_route route;
  mc_status status = s3_route_find(&route, self, request->url, err);
  if (!status && !query && !route.address.key[0]) {
    char text[SHOWN];
    status =
        mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s is a bucket, and no file: name a key in it, or get it as a tree",
                     url_printable(text, sizeof(text), request->url));
  }
  if (!status) status = s3_source_keys(route.source, &target->keys, call, err);
  if (!status) {
    target->url = target_url(&route, query);
    bool good = target->url;
    if (good && target->keys->id) {
      good = s3_sign(target, request, header, route.region, "s3", target->keys);
    } else if (good && header) {
      good = http_target_header(target, "%s: %s", header->name, header->value);
    }
    if (!good) status = no_memory(err);
  }
  s3_route_end(&route);
  return status;
}

/* ---- answers ---- */

/* Whether the attempt was made in that region already. */
static bool was_in(const struct http_target *target, const char *region) {
  char scope[S3_REGION_SIZE + 2], part[S3_REGION_SIZE + 2];
  snprintf(scope, sizeof(scope), "/%.60s/", region);
  snprintf(part, sizeof(part), ".%.60s.", region);
  const char *host = target->url ? strstr(target->url, "://") : NULL;
  const char *found = host ? strstr(host, part) : NULL;
  if (found && found < host + 3 + strcspn(host + 3, "/")) return true;
  for (const struct curl_slist *one = target->headers; one; one = one->next) {
    if (strncmp(one->data, "Authorization:", 14) == 0 && strstr(one->data, scope)) return true;
  }
  return false;
}

/* Whether the answer tells that the bucket is in another region, which is kept in mind. */
static bool learn_region(struct s3 *self, const struct http_request *request, const struct http_head *head,
                         const struct s3_error *error) {
  struct s3_route route;
  const char *region = head->fields[S3_FIELD_REGION][0] ? head->fields[S3_FIELD_REGION] : error->region;
  bool elsewhere = head->status == 301 || head->status == 307 || head->status == 400;
  if (!elsewhere || !s3_region_is_safe(region) || was_in(request->target, region)) return false;
  bool found = s3_route_find(&route, self, request->url, NULL) == MC_OK;
  if (found) s3_regions_add(&self->regions, region, route.endpoint, route.address.bucket);
  s3_route_end(&route);
  return found;
}

static bool is_one_of(const char *code, const char *const codes[]) {
  while (*codes && strcmp(*codes, code) != 0) codes++;
  return *codes != NULL;
}

/* Codes that say that keys are no good; the last one is versitygw's, with a 404. */
static bool is_of_keys(const char *code) {
  static const char *const codes[] = {"ExpiredToken",          "ExpiredTokenException", "InvalidToken",
                                      "InvalidTokenId",        "InvalidAccessKeyId",    "TokenRefreshRequired",
                                      "SignatureDoesNotMatch", "XAdminUserNotFound",    NULL};
  return is_one_of(code, codes);
}

/* The keys are no good: perhaps there are others by now. */
static bool refuse_keys(struct s3 *self, const struct http_request *request, const char *code) {
  struct s3_source *source;
  struct keys *keys = request->target->keys;
  return keys && keys->id && is_of_keys(code) && s3_vault_find(self->vault, &source, request->url, NULL) == MC_OK &&
         s3_source_refuse(source, keys);
}

static mc_status denied(const struct http_request *request, const char *code, mc_error *err) {
  const struct keys *keys = request->target->keys;
  char url[SHOWN];
  url_printable(url, sizeof(url), request->url);
  if (strcmp(code, "RequestTimeTooSkewed") == 0) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "%s: this machine's clock differs too much from the service's (%s): set it", url, code);
  }
  if (!keys || !keys->id) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "%s: access is denied (%s) without credentials (%.100s); set AWS_ACCESS_KEY_ID and "
                        "AWS_SECRET_ACCESS_KEY, another of the usual places, or an origin rule's credentials",
                        url, code, keys ? keys->where : "none");
  }
  const char *what = strncmp(code, "Expired", 7) == 0 ? "they have expired: renew them"
                     : is_of_keys(code) ? "the service does not know them, or the secret or the token is wrong"
                     : strcmp(code, "InvalidObjectState") == 0
                         ? "it is archived: restore it first"
                         : "they need s3:GetObject, and s3:ListBucket to tell what is missing from what is denied";
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                      "%s: access is denied (%s) with the credentials %.100s, %.40s: %s", url, code, keys->where,
                      keys->id, what);
}

/* What a status and a code stand for. */
static mc_status tell(struct s3 *self, const struct http_request *request, const struct http_head *head,
                      const char *code, mc_error *err) {
  static const char *const missing[] = {"NoSuchKey", "NoSuchVersion", "InvalidVersionId", NULL};
  static const char *const later[] = {"SlowDown",   "RequestTimeout",      "InternalError",        "ServiceUnavailable",
                                      "Throttling", "ThrottlingException", "RequestLimitExceeded", NULL};
  struct s3_route route;
  char url[SHOWN];
  url_printable(url, sizeof(url), request->url);
  if (strcmp(code, "NoSuchBucket") == 0) {
    mc_status status = s3_route_find(&route, self, request->url, err);
    if (!status) {
      status = mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s: there is no bucket '%.70s' at %.100s (NoSuchBucket)", url,
                            route.address.bucket, route.endpoint ? route.endpoint : "AWS");
    }
    s3_route_end(&route);
    return status;
  }
  if (is_of_keys(code)) return denied(request, code, err);
  if (is_one_of(code, missing) || head->status == 404 ||
      (head->status == 405 && strcmp(head->fields[S3_FIELD_DELETE_MARKER], "true") == 0)) {
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s does not exist (%s)", url, *code ? code : "HTTP 404");
  }
  if (is_one_of(code, later)) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%s: the service can't answer now (%s)", url, code);
  }
  if (head->status == 401 || head->status == 403) {
    return denied(request, *code ? code : "no reason given", err);
  }
  if (head->status == 301 || head->status == 307) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN,
                        "%s: the service says that the bucket is elsewhere, but not in which region (HTTP %ld); set "
                        "AWS_REGION",
                        url, head->status);
  }
  bool known = head->status == 408 || head->status == 412 || head->status == 416 || head->status == 429;
  if (*code && head->status / 100 == 4 && !known) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s: the service refuses the request (HTTP %ld, %s)", url,
                        head->status, code);
  }
  return http_status(head, request->url, err);
}

/* An answer to HEAD has no body to say why. */
static mc_status ask_why(struct s3 *self, const struct http_request *request, bool *again, const mc_call *call,
                         mc_error *err) {
  struct http_request get = *request;
  struct http_head head;
  get.method = "GET";
  get.end = 1;
  get.on_head = NULL;
  get.on_body = NULL;
  mc_status status = http_ask(self->store.client, &get, &head, call, err);
  if (status && head.status != 416) return status;
  *again = true; /* it can be had, by now, or the learnt region was all that mattered */
  return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the service gives by GET what it denies by HEAD");
}

mc_status s3_judge(struct s3 *self, const struct http_request *request, const struct http_head *head, const char *body,
                   bool *again, const mc_call *call, mc_error *err) {
  struct s3_error error;
  s3_error_parse(&error, body, strlen(body));
  bool is_head = strcmp(request->method, "HEAD") == 0, quiet = !error.code[0] && is_head;
  *again = learn_region(self, request, head, &error);
  if (quiet && !*again &&
      (head->status / 100 == 3 || head->status == 400 || head->status == 403 || head->status == 404)) {
    return ask_why(self, request, again, call, err);
  }
  if (!*again) *again = refuse_keys(self, request, error.code);
  return tell(self, request, head, error.code, err);
}
