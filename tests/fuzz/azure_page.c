/* Any text as a page of a container's listing. */
#include <string.h>

#include "backends/upstream/azure/blobs.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct azure_page page;
  mc_error err = MC_ERROR_INIT;
  mc_status status = azure_page_parse(&page, size ? (const char *)data : "", size, &err);
  CHECK(status == MC_OK || status == MC_PROTOCOL);
  CHECK((status == MC_OK) == (err.status == MC_OK));
  CHECK(status == MC_OK || (page.count == 0 && !page.next));
  for (size_t i = 0; i < page.count; i++) {
    CHECK(*page.blobs[i].name);
    CHECK(page.blobs[i].validators.last_modified >= 0);
    CHECK(memchr(page.blobs[i].validators.etag, 0, sizeof(page.blobs[i].validators.etag)));
  }
  CHECK(!page.next || *page.next);
  azure_page_free(&page);
  return 0;
}
