#include "blobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "../http/xml.h"
#include "base/checksum.h"

#define ORIGIN     "azure"
#define BLOBS_MAX  10000 /* of a page: more than the service has in one */
#define NAME_MAX_  1024  /* that a blob may have, in characters */
#define MARKER_MAX 4096
#define ROOT       "EnumerationResults/"
#define BLOB       ROOT "Blobs/Blob"

void azure_md5_parse(mc_checksum *out, const char *text) {
  *out = (mc_checksum){.kind = MC_CHECKSUM_NONE};
  checksum_read(out, MC_CHECKSUM_MD5, text, strlen(text));
}

struct reading {
  struct azure_page *page;
  struct azure_blob blob; /* the one that is being read */
  size_t capacity;
  bool no_memory, known; /* known: the document is a listing */
  const char *problem;
};

static bool fail(struct reading *reading, const char *problem) {
  reading->problem = problem;
  return false;
}

static bool keep(struct reading *reading, char **place, const char *text) {
  free(*place);
  *place = strdup(text);
  reading->no_memory = !*place;
  return *place != NULL;
}

static bool end_blob(struct reading *reading) {
  struct azure_page *page = reading->page;
  if (!reading->blob.name || !*reading->blob.name) return fail(reading, "a blob has no name");
  if (page->count == BLOBS_MAX) return fail(reading, "a page of it has too many blobs");
  if (page->count == reading->capacity) {
    size_t capacity = reading->capacity ? 2 * reading->capacity : 64;
    struct azure_blob *blobs = realloc(page->blobs, capacity * sizeof(*blobs));
    reading->no_memory = !blobs;
    if (!blobs) return false;
    page->blobs = blobs;
    reading->capacity = capacity;
  }
  page->blobs[page->count++] = reading->blob;
  reading->blob = (struct azure_blob){.size = MC_SIZE_UNKNOWN};
  return true;
}

static bool take_size(struct reading *reading, const char *text) {
  size_t size = strlen(text);
  if (size == 0 || size > 18 || strspn(text, "0123456789") != size) return fail(reading, "a blob's size is no number");
  reading->blob.size = strtoull(text, NULL, 10);
  return true;
}

/* In the form that heads have, which is with quotes. */
static void take_etag(struct reading *reading, const char *text) {
  char *etag = reading->blob.validators.etag;
  size_t most = sizeof(reading->blob.validators.etag);
  bool bare = *text && *text != '"' && strncmp(text, "W/", 2) != 0;
  int length = snprintf(etag, most, bare ? "\"%s\"" : "%s", text);
  if (length < 0 || (size_t)length >= most) *etag = 0;
}

static bool visit(void *user, const char *path, const char *text) {
  struct reading *reading = user;
  struct azure_blob *blob = &reading->blob;
  if (strncmp(path, BLOB, strlen(BLOB)) == 0 && (path[strlen(BLOB)] == '/' || !path[strlen(BLOB)])) {
    const char *rest = path + strlen(BLOB);
    if (!*rest) return end_blob(reading);
    if (strcmp(rest, "/Name") == 0) {
      if (strlen(text) > (size_t)4 * NAME_MAX_) return fail(reading, "a blob's name is too long");
      return keep(reading, &blob->name, text);
    }
    if (strcmp(rest, "/Properties/Content-Length") == 0) return take_size(reading, text);
    if (strcmp(rest, "/Properties/Etag") == 0) take_etag(reading, text);
    if (strcmp(rest, "/Properties/Last-Modified") == 0) {
      time_t when = curl_getdate(text, NULL);
      blob->validators.last_modified = when > 0 ? when : 0;
    }
    if (strcmp(rest, "/Properties/ResourceType") == 0) blob->is_folder |= strcmp(text, "directory") == 0;
    if (curl_strequal(rest, "/Metadata/hdi_isfolder")) blob->is_folder |= curl_strequal(text, "true");
    return true;
  }
  if (strcmp(path, ROOT "NextMarker") == 0 && *text) {
    if (strlen(text) > MARKER_MAX) return fail(reading, "its marker is too long");
    return keep(reading, &reading->page->next, text);
  }
  if (strcmp(path, "EnumerationResults") == 0) reading->known = true;
  return true;
}

mc_status azure_page_parse(struct azure_page *out, const char *text, size_t size, mc_error *err) {
  struct reading reading = {.page = out, .blob.size = MC_SIZE_UNKNOWN};
  *out = (struct azure_page){.count = 0};
  mc_status status = http_xml_read(text, size, visit, &reading, err);
  free(reading.blob.name);
  if (reading.no_memory) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a listing");
  } else if (!status && !reading.known && !reading.problem) {
    reading.problem = "it is no EnumerationResults";
  }
  if (reading.problem) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service's listing can't be read: %s", reading.problem);
  }
  if (status) azure_page_free(out);
  return status;
}

void azure_page_free(struct azure_page *page) {
  for (size_t i = 0; i < page->count; i++) free(page->blobs[i].name);
  free(page->blobs);
  free(page->next);
  *page = (struct azure_page){.count = 0};
}
