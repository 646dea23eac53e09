/* Any text as what a hub answers, by its first byte: a page of a tree, a Link, a revision; or as an address. */
#include <stdlib.h>
#include <string.h>

#include "backends/upstream/hf/hf.h"
#include "base/buf.h"
#include "base/url.h"
#include "fuzz.h"

static mc_status visit(void *user, const mc_listed *listed, bool folder, mc_error *err) {
  (void)user;
  (void)folder;
  CHECK(path_is_safe(listed->path));
  CHECK(memchr(listed->validators.etag, 0, sizeof(listed->validators.etag)));
  CHECK(listed->size == MC_SIZE_UNKNOWN || listed->size <= INT64_MAX);
  return listed->size == 4711 ? mc_error_set(err, MC_RESOURCE_EXHAUSTED, "fuzz", "enough") : MC_OK;
}

static void check_address(const char *text) {
  struct hf_address address;
  struct buf out;
  mc_error err = MC_ERROR_INIT;
  mc_status status = hf_address_parse(&address, text, &err);
  CHECK((status == MC_OK) == (err.status == MC_OK));
  if (status) return;
  size_t size = strlen(address.path);
  CHECK(strchr(address.repo, '/') && *address.revision);
  CHECK(!size || address.path[size - 1] == '/' || path_is_safe(address.path));
  buf_init(&out, (size_t)4 * URL_MAX);
  hf_address_file(&out, &address, NULL);
  hf_address_api(&out, &address);
  CHECK(!out.failed);
  for (const char *c = out.data; *c; c++) CHECK(*c > ' ' && *c < 0x7f && *c != '?' && *c != '#');
  buf_free(&out);
  hf_address_free(&address);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char query[100], commit[65];
  mc_error err = MC_ERROR_INIT;
  mc_info info = {0};
  if (size < 1 || size > URL_MAX) return 0;
  char *text = malloc(size);
  CHECK(text);
  memcpy(text, data + 1, size - 1);
  text[size - 1] = 0;
  if (*data == 'p') {
    mc_status status = hf_page_parse(text, size - 1, visit, NULL, &err);
    CHECK(status == MC_OK || status == MC_PROTOCOL || status == MC_RESOURCE_EXHAUSTED);
  } else if (*data == 'l') {
    if (hf_page_next(query, sizeof(query), text)) CHECK(*query && !strpbrk(query, " #\r\n>"));
  } else if (*data == 'r') {
    if (!hf_revision_parse(commit, text, size - 1, &err)) CHECK(hf_is_commit(commit));
  } else if (*data == 't') {
    hf_take_tag(text, &info);
    CHECK(memchr(info.validators.etag, 0, sizeof(info.validators.etag)));
  } else {
    check_address(text);
  }
  free(text);
  return 0;
}
