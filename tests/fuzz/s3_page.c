/* Any text as what S3 and STS answer: a page of a listing, an error, credentials. */
#include <string.h>

#include "backends/upstream/s3/page.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct s3_page page;
  struct s3_error error;
  static struct s3_keys_text keys;
  mc_error err = MC_ERROR_INIT;
  const char *text = size ? (const char *)data : "";
  mc_status status = s3_page_parse(&page, text, size, &err);
  CHECK(status == MC_OK || status == MC_PROTOCOL);
  CHECK((status == MC_OK) == (err.status == MC_OK));
  CHECK(status == MC_OK || (!page.objects && !page.count && !page.next));
  for (size_t i = 0; i < page.count; i++) {
    const struct s3_object *object = &page.objects[i];
    CHECK(object->key && object->modified >= 0);
    CHECK(!object->etag || object->etag[0] == '"' || strncmp(object->etag, "W/", 2) == 0);
  }
  s3_page_free(&page);
  s3_error_parse(&error, text, size);
  CHECK(strlen(error.code) < sizeof(error.code) && strlen(error.region) < sizeof(error.region));
  status = s3_keys_parse(&keys, text, size, NULL);
  CHECK(status == MC_PROTOCOL || (keys.id[0] && keys.secret[0]));
  return 0;
}
