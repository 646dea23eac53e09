/* One request to the Blob service, and what its answer means. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "azure.h"
#include "base/clock.h"
#include "base/url.h"
#include "sign.h"

#define ORIGIN  "azure"
#define SKEW_MS 600000 /* a clock that is so wrong may be why: the service allows for 15 minutes */

/* ---- where it goes ---- */

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
}

/* As the client writes it. */
static void range_of(char text[64], const struct http_request *request) {
  *text = 0;
  if (request->end == MC_SIZE_UNKNOWN) {
    snprintf(text, 64, "bytes=%llu-", (unsigned long long)request->first);
  } else if (request->end) {
    snprintf(text, 64, "bytes=%llu-%llu", (unsigned long long)request->first, (unsigned long long)request->end - 1);
  }
}

/* The ETag that a part has to be of: none of several versions is read then. A weak one matches nothing. */
static const char *condition_of(const struct http_request *request) {
  const char *etag = request->version ? request->version->validators.etag : "";
  return *etag == '"' ? etag : "";
}

static bool add_signature(struct http_target *target, const struct http_request *request, const char *account,
                          const char *date) {
  char range[64];
  range_of(range, request);
  struct azure_signing signing = {.method = request->method,
                                  .url = target->url,
                                  .account = account,
                                  .if_match = condition_of(request),
                                  .range = range,
                                  .date = date,
                                  .version = AZURE_VERSION};
  char *signature = azure_sign(&signing, target->keys->secret);
  bool good = signature && http_target_header(target, "Authorization: %s", signature);
  free(signature);
  return good;
}

/* Append a SAS, "?…", to the URL. */
static bool add_sas(struct http_target *target, const char *sas) {
  size_t size = strlen(target->url);
  char *url = realloc(target->url, size + strlen(sas) + 1);
  if (!url) return false;
  target->url = url;
  bool more = strchr(url, '?') != NULL;
  strcpy(url + size, sas);
  if (more) url[size] = '&';
  return true;
}

static mc_status carry(struct http_target *target, const struct http_request *request,
                       const struct azure_address *address, mc_error *err) {
  char date[AZURE_DATE_SIZE];
  const struct keys *keys = target->keys;
  azure_date(date, clock_wall_ms() / 1000);
  bool good =
      http_target_header(target, "x-ms-version: " AZURE_VERSION) && http_target_header(target, "x-ms-date: %s", date);
  if (*condition_of(request)) good = good && http_target_header(target, "If-Match: %s", condition_of(request));
  if (keys->secret) {
    good = good && add_signature(target, request, keys->id ? keys->id : address->account, date);
  } else if (keys->token && *keys->token == '?') {
    good = good && add_sas(target, keys->token);
  } else if (keys->token) {
    good = good && http_target_header(target, "Authorization: Bearer %s", keys->token);
  }
  return good ? MC_OK : no_memory(err);
}

mc_status azure_aim(struct azure *self, const struct http_request *request, struct http_target *target,
                    const char *marker, const mc_call *call, mc_error *err) {
  struct azure_address address;
  struct azure_access access;
  mc_status status = azure_address_parse(&address, request->url, err);
  if (status) return status;
  if (!marker && !*address.blob) {
    char text[URL_SHOWN];
    status =
        mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s is a container, not a blob: name a blob in it, or get it as a tree",
                     url_printable(text, sizeof(text), request->url));
  }
  if (!status) status = azure_access_find(&access, self->credentials, request->url, &address, call, err);
  if (!status) {
    target->keys = keys_acquire(access.keys);
    target->url =
        marker ? azure_list_url(access.endpoint, &address, marker) : azure_blob_url(access.endpoint, &address);
    azure_access_end(&access);
    status = target->url ? carry(target, request, &address, err) : no_memory(err);
  }
  azure_address_free(&address);
  return status;
}

/* ---- what is answered ---- */

/* The service's codes that say more than their status. */
static const struct {
  const char *code;
  mc_status status;
  const char *what;
} answers[] = {
    {"AccountIsDisabled", MC_PERMISSION_DENIED, "the account is disabled"},
    {"AuthorizationPermissionMismatch", MC_PERMISSION_DENIED,
     "the credentials may not read it; an identity needs the role 'Storage Blob Data Reader', a SAS the right to read"},
    {"AuthorizationFailure", MC_PERMISSION_DENIED,
     "the credentials are wrong or may not read it, or the account's network rules do not let this machine in"},
    {"AuthorizationResourceTypeMismatch", MC_PERMISSION_DENIED, "the SAS is not for such things"},
    {"AuthorizationServiceMismatch", MC_PERMISSION_DENIED, "the SAS is not for blobs"},
    {"AuthorizationProtocolMismatch", MC_PERMISSION_DENIED, "the SAS is for https alone"},
    {"AuthorizationSourceIPMismatch", MC_PERMISSION_DENIED, "the SAS is not for this machine's address"},
    {"BlobArchived", MC_UNSUPPORTED, "it is in the archive tier: move it to another first"},
    {"BlobBeingRehydrated", MC_UNAVAILABLE, "it is on its way from the archive tier"},
    {"ContainerBeingDeleted", MC_NOT_FOUND, "its container is being deleted"},
    {"ContainerNotFound", MC_NOT_FOUND, "there is no such container in the account"},
    {"InvalidResourceName", MC_INVALID_ARGUMENT, "no container has such a name"},
    {"InvalidUri", MC_INVALID_ARGUMENT, "no blob has such a name"},
    {"KeyBasedAuthenticationNotPermitted", MC_PERMISSION_DENIED,
     "the account takes no keys: use an identity, or a SAS of one"},
    {"OutOfRangeInput", MC_INVALID_ARGUMENT, "no container or blob has such a name"},
    {"PublicAccessNotPermitted", MC_PERMISSION_DENIED, "the account has nothing public"},
};

/* By how many minutes the service's clock is ahead of ours, where that may be why it takes no signature. */
static long skew_minutes(const struct http_head *head) {
  time_t theirs = curl_getdate(head->fields[FIELD_DATE], NULL);
  int64_t skew = theirs > 0 ? theirs * 1000LL - clock_wall_ms() : 0;
  return skew > SKEW_MS || skew < -SKEW_MS ? (long)(skew / 60000) : 0;
}

/* A SAS tells when it ends, and then the service's code may be about anything. */
static bool is_over(const struct keys *keys) {
  return (keys->secret || keys->token) && keys->expires_at && keys->expires_at < clock_wall_ms();
}

/* A credential is not taken. */
static mc_status refused(const char *url, const struct http_head *head, const struct keys *keys, mc_error *err) {
  long skew = skew_minutes(head);
  const char *code = *head->fields[FIELD_ERROR] ? head->fields[FIELD_ERROR] : "no reason is told";
  if (skew) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "%s: Azure refuses the credentials (%.100s): this machine's clock is %ld minutes %s", url,
                        keys->where, skew < 0 ? -skew : skew, skew < 0 ? "fast" : "slow");
  }
  if (!keys->secret && !keys->token) {
    return mc_error_set(
        err, MC_PERMISSION_DENIED, ORIGIN,
        "%s: Azure wants credentials (HTTP %ld, %.60s), and was asked without (%.120s); set "
        "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY, another of the usual places, or an origin rule's credentials",
        url, head->status, code, keys->where);
  }
  if (is_over(keys)) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "%s: Azure refuses the credentials (HTTP %ld, %.60s), which are of %.120s: they have expired",
                        url, head->status, code, keys->where);
  }
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                      "%s: Azure refuses the credentials (HTTP %ld, %.60s), which are of %.120s: wrong, expired, or of "
                      "another account",
                      url, head->status, code, keys->where);
}

static mc_status judge_code(const char *url, const struct http_head *head, const struct keys *keys, mc_error *err) {
  const char *code = head->fields[FIELD_ERROR];
  bool refuses = head->status == 401 || head->status == 403, without = !keys->secret && !keys->token;
  if (refuses && (without || is_over(keys))) return refused(url, head, keys, err);
  for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
    if (strcmp(answers[i].code, code) != 0) continue;
    return mc_error_set(err, answers[i].status, ORIGIN, "%s: %s (%s; credentials: %.120s)", url, answers[i].what, code,
                        keys->where);
  }
  if (refuses) return refused(url, head, keys, err);
  if (head->status == 404 && without) { /* so it says of what is not public, too */
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN,
                        "%s does not exist, or is not public, and Azure was asked without credentials (%.120s)", url,
                        keys->where);
  }
  return http_status(head, url, err);
}

mc_status azure_judge(struct azure *self, const struct http_request *request, const struct http_head *head, bool *again,
                      mc_error *err) {
  const struct keys *keys = request->target->keys;
  struct azure_address address;
  char url[URL_SHOWN];
  bool stale = keys->token && (head->status == 401 || strcmp(head->fields[FIELD_ERROR], "AuthenticationFailed") == 0);
  if (stale && azure_address_parse(&address, request->url, NULL) == MC_OK) {
    *again = azure_access_refuse(self->credentials, request->url, &address, keys);
    azure_address_free(&address);
  }
  return judge_code(url_printable(url, sizeof(url), request->url), head, keys, err);
}
