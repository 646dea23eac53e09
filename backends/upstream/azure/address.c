#include "address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/url.h"

#define ORIGIN   "azure"
#define URL_MOST ((size_t)4 * URL_MAX)
#define PAGE     "5000" /* blobs of a listing at once: the most that there may be */

/* Where a URL may name the host itself: it decides where secrets go. */
static const char *const suffixes[] = {AZURE_SUFFIX, "core.chinacloudapi.cn", "core.usgovcloudapi.net",
                                       "core.cloudapi.de"};

#define HOW "write as://ACCOUNT/CONTAINER/PATH"

static mc_status bad(const char *url, const char *why, mc_error *err) {
  char text[300];
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s: %s; " HOW, url_printable(text, sizeof(text), url), why);
}

/* ---- as:// ---- */

static bool is_account(const char *text, size_t size) {
  if (size == 0 || size >= AZURE_ACCOUNT_SIZE) return false;
  for (size_t i = 0; i < size; i++) {
    char c = text[i];
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c == '-' && i > 0))) return false;
  }
  return true;
}

/* "account", or "account.blob.suffix". */
static mc_status take_host(struct azure_address *out, const struct url *url, mc_error *err) {
  size_t size = url->authority_size, account = 0;
  while (account < size && url->authority[account] != '.') account++;
  if (memchr(url->authority, ':', size)) {
    return bad(url->text,
               "it names a host; name the service by the origin rule's endpoint, or by BlobEndpoint in "
               "AZURE_STORAGE_CONNECTION_STRING",
               err);
  }
  if (!is_account(url->authority, account)) {
    return bad(url->text, "an account's name is of lower-case letters and digits", err);
  }
  memcpy(out->account, url->authority, account);
  strcpy(out->suffix, AZURE_SUFFIX);
  if (account == size) return MC_OK;
  const char *rest = url->authority + account, *domain = rest + strlen(".blob.");
  size_t length = size - account;
  for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
    if (length != strlen(".blob.") + strlen(suffixes[i]) || strncmp(rest, ".blob.", strlen(".blob.")) != 0) continue;
    if (strncmp(domain, suffixes[i], strlen(suffixes[i])) != 0) continue;
    strcpy(out->suffix, suffixes[i]);
    return MC_OK;
  }
  return bad(url->text, "its host is none of Azure's Blob service", err);
}

static mc_status take_path(struct azure_address *out, const struct url *url, mc_error *err) {
  const char *container = url->path + 1, *end = url->path + url->path_size;
  const char *slash = memchr(container, '/', (size_t)(end - container));
  size_t size = (size_t)((slash ? slash : end) - container);
  const char *blob = slash ? slash + 1 : end;
  if (size == 0) return bad(url->text, "it names no container", err);
  if (size >= sizeof(out->container) || memchr(container, '%', size)) {
    return bad(url->text, "a container's name is of up to 63 lower-case letters, digits and hyphens", err);
  }
  memcpy(out->container, container, size);
  out->blob = malloc((size_t)(end - blob) + 1);
  if (!out->blob) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a URL");
  return url_decode(out->blob, blob, (size_t)(end - blob)) ? MC_OK : bad(url->text, "it has a bad escape in it", err);
}

/* "versionid=2024-01-01T00:00:00.0000000Z", or "snapshot=…". */
static mc_status take_query(struct azure_address *out, const struct url *url, mc_error *err) {
  const char *query = url->query, *value = strchr(query, '=');
  const char *name = curl_strnequal(query, "versionid=", 10) ? "versionid"
                     : curl_strnequal(query, "snapshot=", 9) ? "snapshot"
                                                             : NULL;
  char time[40];
  if (name && strlen(value + 1) < sizeof(time) && url_decode(time, value + 1, strlen(value + 1)) && *time &&
      strspn(time, "0123456789-:.TZ") == strlen(time)) {
    snprintf(out->version, sizeof(out->version), "%s=%s", name, time);
    return MC_OK;
  }
  return bad(url->text,
             "its query can be ?versionid=TIME or ?snapshot=TIME alone, and a SAS belongs to the credentials", err);
}

mc_status azure_address_parse(struct azure_address *out, const char *text, mc_error *err) {
  struct url url;
  *out = (struct azure_address){.blob = NULL};
  mc_status status = url_parse(&url, text, err);
  if (status) return status;
  status = take_host(out, &url, err);
  if (!status) status = take_path(out, &url, err);
  if (!status && url.query) status = take_query(out, &url, err);
  url_free(&url);
  if (status) azure_address_free(out);
  return status;
}

void azure_address_free(struct azure_address *address) {
  free(address->blob);
  address->blob = NULL;
}

/* ---- URLs of the service ---- */

static void append_escaped(struct buf *out, const char *text, const char *bare) {
  for (const char *c = text; *c; c++) {
    bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr(bare, *c);
    if (plain) buf_append(out, c, 1);
    if (!plain) buf_printf(out, "%%%02X", (unsigned char)*c);
  }
}

static char *finish(struct buf *out) {
  char *url = buf_take(out);
  buf_free(out);
  return url;
}

char *azure_blob_url(const char *endpoint, const struct azure_address *address) {
  struct buf out;
  buf_init(&out, URL_MOST);
  buf_printf(&out, "%s/%s/", endpoint, address->container);
  append_escaped(&out, address->blob, "-._~/");
  size_t name = strcspn(address->version, "=");
  if (name < strlen(address->version)) {
    buf_printf(&out, "?%.*s=", (int)name, address->version);
    append_escaped(&out, address->version + name + 1, "-._~");
  }
  return finish(&out);
}

char *azure_list_url(const char *endpoint, const struct azure_address *address, const char *marker) {
  struct buf out;
  buf_init(&out, URL_MOST);
  /* Metadata, since that's where folders of some accounts are told from files. */
  buf_printf(&out, "%s/%s?restype=container&comp=list&include=metadata&maxresults=" PAGE, endpoint, address->container);
  if (*address->blob) buf_append_str(&out, "&prefix=");
  append_escaped(&out, address->blob, "-._~");
  if (*marker) buf_append_str(&out, "&marker=");
  append_escaped(&out, marker, "-._~");
  return finish(&out);
}

/* ---- endpoints ---- */

/* Where the host of an endpoint begins, and its size without the port; NULL: it is none. */
static const char *host_of(const char *endpoint, size_t *size) {
  const char *host = strncmp(endpoint, "https://", 8) == 0  ? endpoint + 8
                     : strncmp(endpoint, "http://", 7) == 0 ? endpoint + 7
                                                            : NULL;
  if (!host) return NULL;
  *size = *host == '[' ? strcspn(host, "]/") + 1 : strcspn(host, ":/");
  return *size ? host : NULL;
}

bool azure_is_endpoint(const char *text) {
  size_t size;
  const char *host = host_of(text, &size);
  if (!host || strlen(text) > 200 || strpbrk(text, "?#@\\ ")) return false;
  for (const char *c = text; *c; c++) {
    if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f) return false;
  }
  return true;
}

char *azure_endpoint(const char *service, const char *account) {
  size_t size, whole = strlen(service);
  const char *host = host_of(service, &size);
  while (whole && service[whole - 1] == '/') whole--;
  bool has_path = host && memchr(host, '/', (size_t)(service + whole - host));
  bool is_address = host && (*host == '[' || strspn(host, "0123456789.") == size || !memchr(host, '.', size));
  if (has_path || !is_address) return format_str("%.*s", (int)whole, service);
  return format_str("%.*s/%s", (int)whole, service, account);
}

bool azure_endpoint_account(char account[AZURE_ACCOUNT_SIZE], const char *endpoint) {
  size_t size;
  const char *host = host_of(endpoint, &size), *path = host ? strchr(host, '/') : NULL;
  const char *name = path && path[1] ? path + 1 : host;
  if (!name) return false;
  size_t length = strcspn(name, name == host ? "." : "/");
  bool is_service = name != host || strncmp(name + length, ".blob.", 6) == 0;
  if (!is_service || !is_account(name, length)) return false;
  memcpy(account, name, length);
  account[length] = 0;
  return true;
}
