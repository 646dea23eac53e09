/* Any text as an index page: a name that is taken is one part of a path, and there is a limit on them. */
#include <string.h>

#include "backends/upstream/http/http.h"
#include "base/url.h"
#include "fuzz.h"

#define MOST 50

static void check_name(const char *name) {
  size_t size = strlen(name);
  char *copy = strdup(name);
  CHECK(copy && size > 0);
  if (copy[size - 1] == '/') copy[size - 1] = 0; /* a folder */
  CHECK(path_is_safe(copy) && !strchr(copy, '/'));
  free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct index_page page;
  mc_error err = MC_ERROR_INIT;
  const char *text = size ? (const char *)data : "";
  mc_status status = http_index_parse(&page, "http://host/a%20folder/?query", text, size, MOST, &err);
  CHECK(status == MC_OK || status == MC_PROTOCOL || status == MC_RESOURCE_EXHAUSTED);
  CHECK((status == MC_OK) == (err.status == MC_OK));
  CHECK(page.count <= MOST && (status == MC_OK || page.count == 0));
  for (size_t i = 0; i < page.count; i++) {
    check_name(page.names[i].name);
    CHECK(page.names[i].modified >= 0);
    CHECK(i == 0 || strcmp(page.names[i - 1].name, page.names[i].name) < 0);
  }
  http_index_free(&page);
  return 0;
}
