/* How a hub is asked.
 *
 * /resolve/REVISION/PATH tells what a file is by HEAD: the commit (X-Repo-Commit); the digest and the size of one in
 * LFS or Xet (X-Linked-Etag, X-Linked-Size), with a redirect to a content network, which Xet's files have too; of
 * another one git's checksum as ETag. Files that were moved or are kept near have redirects within the hub, which are
 * followed.
 *
 * Reads are of the commit, so that a branch may move meanwhile. Where the content network is, is remembered for each
 * file for a while: to ask for each range would cost a round trip, and some of the few thousand that a hub allows in
 * five minutes. When a link is refused, since it has expired, the hub is asked for another one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/text.h"
#include "base/url.h"
#include "hf.h"

#define ORIGIN  "hf"
#define LINK_MS 600000 /* links live for an hour */
#define ADVICE  "HF_TOKEN, 'hf auth login', or the credentials of an origin rule"

static struct hf *hf_of(const struct http_request *request) {
  return request->dialect == &hf_api ? ((struct hf_question *)request->self)->hf : request->self;
}

const char *hf_endpoint(const struct hf *self, const char *url, mc_error *err) {
  const mc_origin_rule *rule = http_client_rule(self->store.client, url);
  if (rule && rule->endpoint) return rule->endpoint;
  if (*self->endpoint) return self->endpoint;
  mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "HF_ENDPOINT is no address of a hub: https://HOST");
  return NULL;
}

/* ---- keys of what is remembered ---- */

static mc_hash128 key_of(const char *a, const char *b, const char *c) {
  mc_hash128 key = {0};
  struct buf text;
  buf_init(&text, (size_t)4 * URL_MAX);
  buf_printf(&text, "%s\n%s\n%s", a, b, c);
  if (!text.failed) xxh128_of(&key, text.data, text.size);
  buf_free(&text);
  return key;
}

static mc_hash128 link_key(const struct http_request *request) {
  return key_of(request->url, request->version->detail, "");
}

mc_hash128 hf_commit_key(const struct hf *self, const struct hf_address *address, const char *url) {
  const char *endpoint = hf_endpoint(self, url, NULL);
  struct buf repo;
  buf_init(&repo, URL_MAX);
  hf_address_api(&repo, address);
  mc_hash128 key = key_of(endpoint ? endpoint : "", repo.data ? repo.data : "", address->revision);
  buf_free(&repo);
  return key;
}

/* ---- where a request goes ---- */

/* Whether the answer may come from a content network. */
static bool is_read(const struct http_request *request) {
  return request->dialect == &hf_make.dialect && request->version && request->version->pinned;
}

static mc_status aim(const struct http_request *request, struct http_target *target, const mc_call *call,
                     mc_error *err) {
  struct hf *self = hf_of(request);
  struct buf url;
  if (is_read(request)) {
    mc_hash128 key = link_key(request);
    target->url = memos_get(&self->links, &key);
    if (target->url) return MC_OK; /* it needs no token, and gets none */
  }
  const char *endpoint = hf_endpoint(self, request->url, err);
  if (!endpoint) return MC_INVALID_ARGUMENT;
  buf_init(&url, (size_t)4 * URL_MAX);
  buf_append_str(&url, endpoint);
  mc_status status = MC_OK;
  if (request->dialect == &hf_api) {
    const struct hf_question *question = request->self;
    hf_address_api(&url, question->address);
    buf_append_str(&url, question->path);
  } else {
    struct hf_address address;
    status = hf_address_parse(&address, request->url, err);
    if (!status) hf_address_file(&url, &address, is_read(request) ? request->version->detail : NULL);
    hf_address_free(&address);
  }
  target->url = status ? NULL : buf_take(&url);
  buf_free(&url);
  if (!status) status = tokens_get(self->tokens, &target->keys, request->url, call, err);
  if (status) return status;
  bool good = !target->keys->token || http_target_header(target, "Authorization: Bearer %s", target->keys->token);
  return target->url && good ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a request");
}

static void led(const struct http_request *request, const char *to) {
  if (!is_read(request)) return;
  mc_hash128 key = link_key(request);
  memos_put(&hf_of(request)->links, &key, to, LINK_MS);
}

/* ---- what an answer stands for ---- */

static mc_status refused(const struct http_request *request, const struct http_head *head, mc_error *err) {
  char url[URL_SHOWN], message[160];
  const struct keys *keys = request->target->keys;
  snprintf(message, sizeof(message), "%.150s", head->fields[FIELD_MESSAGE]);
  text_clean(message);
  url_printable(url, sizeof(url), request->url);
  if (!keys->token) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "%s: the hub wants a token (HTTP %ld), or there is no such repository; give one by " ADVICE
                        " (now it is %s)",
                        url, head->status, keys->where);
  }
  if (head->status == 401) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                        "%s: the hub does not take the token of %s (HTTP 401): it may have expired; make another one",
                        url, keys->where);
  }
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                      "%s: the token of %s may not read this (HTTP %ld)%s%s; give it the right to, or another one", url,
                      keys->where, head->status, *message ? ": " : "", message);
}

static mc_status gated(const struct http_request *request, const struct hf_address *address, mc_error *err) {
  char url[URL_SHOWN];
  const struct keys *keys = request->target->keys;
  const char *endpoint = hf_endpoint(hf_of(request), request->url, NULL);
  bool model = strcmp(address->type, "models") == 0;
  return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN,
                      "%s: the repository is gated: accept its conditions at %s/%s%s%s, and give a token of that "
                      "account by %s%s",
                      url_printable(url, sizeof(url), request->url), endpoint, model ? "" : address->type,
                      model ? "" : "/", address->repo, keys->token ? "what it was now, " : ADVICE,
                      keys->token ? keys->where : "");
}

static mc_status missing(const struct http_request *request, const struct http_head *head,
                         const struct hf_address *address, mc_error *err) {
  char url[URL_SHOWN];
  const char *what = head->fields[FIELD_ERROR];
  const struct keys *keys = request->target->keys;
  url_printable(url, sizeof(url), request->url);
  if (is_read(request) && strcasecmp(what, "RepoNotFound") != 0) { /* it was there: a history can be squashed */
    return mc_error_set(err, MC_CHANGED, ORIGIN, "%s: the hub has no longer the commit that was found (HTTP %ld)", url,
                        head->status);
  }
  if (strcasecmp(what, "RevisionNotFound") == 0) {
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s: %s has no revision '%.100s'", url, address->repo,
                        address->revision);
  }
  if (strcasecmp(what, "RepoNotFound") == 0) {
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN,
                        "%s: there is no %s among the hub's %s, or the token may not see it (%s)", url, address->repo,
                        address->type, keys->where);
  }
  return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s does not exist (HTTP %ld)", url, head->status);
}

static mc_status judge_hub(const struct http_request *request, const struct http_head *head,
                           const struct hf_address *address, mc_error *err) {
  char url[URL_SHOWN];
  const char *what = head->fields[FIELD_ERROR];
  url_printable(url, sizeof(url), request->url);
  if (head->status / 100 == 3) {
    if (strcmp(request->method, "HEAD") == 0) return MC_OK; /* see look */
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s: the hub leads elsewhere, where its API should not be", url);
  }
  if (strcasecmp(what, "GatedRepo") == 0) return gated(request, address, err);
  if (strcasecmp(head->fields[FIELD_MESSAGE], "Access to this resource is disabled.") == 0) {
    return mc_error_set(err, MC_PERMISSION_DENIED, ORIGIN, "%s: the hub has disabled %s", url, address->repo);
  }
  if (head->status == 401 || head->status == 403) return refused(request, head, err);
  if (head->status == 404 || head->status == 410) return missing(request, head, address, err);
  if (head->status == 429 && !request->target->keys->token && head->retry_after_ms > 0) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN,
                        "%s: the hub has had too many requests from here (HTTP 429), but takes more in %lld s; with a "
                        "token the limit is higher",
                        url, (long long)(head->retry_after_ms + 999) / 1000);
  }
  return http_status(head, request->url, err);
}

/* Of a content network. *again: by another link. */
static mc_status judge_link(const struct http_request *request, const struct http_head *head, const char *link,
                            bool *again, mc_error *err) {
  char url[URL_SHOWN];
  mc_hash128 key = link_key(request);
  mc_status status = http_status(head, request->url, err);
  memos_drop(&hf_of(request)->links, &key, link);
  *again = head->status / 100 == 4 && head->status != 408 && head->status != 416 && head->status != 429;
  if (!*again) return status;
  return mc_error_set(err, status == MC_PERMISSION_DENIED ? status : MC_UNAVAILABLE, ORIGIN,
                      "%s: the hub's content network does not take the hub's own link (HTTP %ld)",
                      url_printable(url, sizeof(url), request->url), head->status);
}

/* A hub's own answers say so. Another may be the content network's also where the hub was asked, which led there; the
 * link need not be kept any more, since another read was refused by it meanwhile. */
static mc_status judge(const struct http_request *request, const struct http_head *head, const char *body, bool *again,
                       const mc_call *call, mc_error *err) {
  struct hf *self = hf_of(request);
  struct hf_address address;
  (void)body;
  bool of_hub = head->fields[FIELD_ERROR][0] || head->fields[FIELD_MESSAGE][0] || head->fields[FIELD_COMMIT][0];
  if (is_read(request) && !of_hub) {
    mc_hash128 key = link_key(request);
    char *link = request->target->keys ? memos_get(&self->links, &key) : strdup(request->target->url);
    mc_status status = judge_link(request, head, link ? link : "", again, err);
    free(link);
    return status;
  }
  if (!request->target->keys) return http_status(head, request->url, err);
  mc_status status = hf_address_parse(&address, request->url, err);
  if (status) return status;
  status = judge_hub(request, head, &address, err);
  if (head->status == 401) *again = tokens_renew(self->tokens, request->target->keys, request->url, call);
  hf_address_free(&address);
  return status;
}

/* ---- what a file is ---- */

void hf_take_tag(const char *tag, mc_info *info) {
  size_t size;
  if (strncmp(tag, "W/", 2) == 0) tag += 2;
  tag += *tag == '"';
  size = strcspn(tag, "\"");
  if (!size || size > sizeof(info->validators.etag) - 3) return;
  snprintf(info->validators.etag, sizeof(info->validators.etag), "\"%.*s\"", (int)size, tag);
  if (size == 64) {
    char hex[MC_DIGEST_HEX_SIZE];
    memcpy(hex, tag, size);
    hex[size] = 0;
    info->has_digest = mc_digest_parse(&info->digest, hex, NULL) == MC_OK;
  } else if (size == 40 && strspn(tag, "0123456789abcdef") >= size) {
    info->checksum.kind = MC_CHECKSUM_GIT;
    for (size_t i = 0; i < 20; i++) {
      info->checksum.bytes[i] = (uint8_t)(hex_value(tag[2 * i]) << 4 | hex_value(tag[2 * i + 1]));
    }
  }
}

static bool parse_size(uint64_t *out, const char *text) {
  uint64_t size = 0;
  for (const char *c = text; *c; c++) {
    if (*c < '0' || *c > '9' || __builtin_mul_overflow(size, 10, &size) ||
        __builtin_add_overflow(size, (uint64_t)(*c - '0'), &size)) {
      return false;
    }
  }
  if (!*text || size == MC_SIZE_UNKNOWN) return false;
  *out = size;
  return true;
}

/* An answer without a commit is a content network's, whose ETag is of its own making. */
static void describe(const struct http_store *self, const struct http_head *head, mc_info *info,
                     struct http_version *version) {
  const char *commit = head->fields[FIELD_COMMIT], *tag = head->fields[FIELD_ETAG];
  (void)self;
  info->validators = (mc_validators){0};
  info->has_digest = false;
  if (!hf_is_commit(commit)) return;
  hf_take_tag(*tag ? tag : head->etag, info);
  snprintf(version->detail, sizeof(version->detail), "%.64s", commit);
  version->pinned = true;
  if (head->status == 206) return;
  if (!parse_size(&info->size, head->fields[FIELD_SIZE]) && head->status != 200) info->size = MC_SIZE_UNKNOWN;
}

static mc_status check_address(const char *url, mc_error *err) {
  struct hf_address address;
  char text[URL_SHOWN];
  mc_status status = hf_address_parse(&address, url, err);
  if (status) return status;
  size_t size = strlen(address.path);
  url_printable(text, sizeof(text), url);
  if (!size) {
    status =
        mc_error_set(err, MC_NOT_FOUND, ORIGIN,
                     "%s names the repository %s and no file in it: name one, or get it as a tree", text, address.repo);
  } else if (address.path[size - 1] == '/') {
    status = mc_error_set(err, MC_NOT_FOUND, ORIGIN,
                          "%s names a folder and no file: name one in it, or get it as a tree", text);
  }
  hf_address_free(&address);
  return status;
}

static mc_status look(struct http_store *base, const char *url, mc_info *info, struct http_version *version,
                      const mc_call *call, mc_error *err) {
  struct hf *self = (struct hf *)base;
  struct http_request request = {
      .method = "HEAD", .url = url, .dialect = &hf_make.dialect, .self = self, .follow = HTTP_FOLLOW_SITE};
  struct http_head head;
  char text[URL_SHOWN];
  mc_status status = check_address(url, err);
  if (!status) status = http_fetch(base->client, &request, &head, call, err);
  if (status) return status;
  if (!hf_is_commit(head.fields[FIELD_COMMIT])) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s: %s answers without a commit (X-Repo-Commit): it may be no hub",
                        url_printable(text, sizeof(text), url), hf_endpoint(self, url, NULL));
  }
  http_store_describe(base, &head, info, version);
  return MC_OK;
}

/* What a listing told is enough as long as it is known of which commit that was. Should it be another one by now, the
 * digest or the checksum won't match. */
static bool recall(struct http_store *base, const char *url, const mc_listed *listed, mc_info *info,
                   struct http_version *version) {
  struct hf *self = (struct hf *)base;
  struct hf_address address;
  mc_info told = {.size = listed->size, .ranges = true};
  if (listed->size == MC_SIZE_UNKNOWN || hf_address_parse(&address, url, NULL)) return false;
  hf_take_tag(listed->validators.etag, &told);
  mc_hash128 key = hf_commit_key(self, &address, url);
  char *commit = hf_is_commit(address.revision) ? strdup(address.revision) : memos_get(&self->commits, &key);
  hf_address_free(&address);
  bool known = commit && (told.has_digest || told.checksum.kind == MC_CHECKSUM_GIT);
  if (known) {
    *info = told;
    *version = (struct http_version){.validators = told.validators, .pinned = true};
    snprintf(version->detail, sizeof(version->detail), "%.64s", commit);
  }
  free(commit);
  return known;
}

#define FIELDS                                                                                                         \
  { "x-repo-commit", "x-linked-etag", "x-linked-size", "x-error-code", "x-error-message", "link" }

const struct http_make hf_make = {
    .dialect = {.name = ORIGIN, .fields = FIELDS, .aim = aim, .led = led, .judge = judge},
    .trusted = true,
    .head_follows = HTTP_FOLLOW_SITE,
    .describe = describe,
    .look = look,
    .recall = recall,
};

const struct http_dialect hf_api = {.name = ORIGIN, .fields = FIELDS, .aim = aim, .judge = judge};
