/* What Google's storage and its token services answer: the first byte says what the rest is taken for. */
#include <stdlib.h>
#include <string.h>

#include "backends/upstream/gcs/address.h"
#include "backends/upstream/gcs/documents.h"
#include "base/url.h"
#include "fuzz.h"

static void check_object(const struct gcs_object *object) {
  const char *version = object->validators.version;
  CHECK(object->name && *object->name && object->size < MC_SIZE_UNKNOWN);
  CHECK(*version && strspn(version, "0123456789") == strlen(version));
  CHECK(object->validators.last_modified >= 0 && object->checksum.kind <= MC_CHECKSUM_MD5);
}

static void take_object(const char *text, size_t size) {
  struct gcs_object object;
  if (gcs_object_parse(&object, text, size, NULL)) return;
  check_object(&object);
  gcs_object_free(&object);
}

static void take_page(const char *text, size_t size) {
  struct gcs_page page;
  if (gcs_page_parse(&page, text, size, NULL)) {
    CHECK(!page.objects && !page.next && !page.count);
    return;
  }
  for (size_t i = 0; i < page.count; i++) check_object(&page.objects[i]);
  CHECK(!page.next || *page.next);
  gcs_page_free(&page);
}

static void take_token(const char *text, size_t size) {
  struct gcs_token token;
  mc_status status = gcs_token_parse(&token, text, size, NULL);
  CHECK((status == MC_OK) == (token.text != NULL));
  CHECK(!token.text || gcs_token_is_sound(token.text));
  gcs_token_free(&token);
}

static void take_words(const char *text) {
  struct gcs_failure failure;
  mc_checksum checksum;
  int64_t seconds = 0;
  gcs_failure_parse(&failure, text);
  for (const char *c = failure.reason; *c; c++) CHECK((*c | 0x20) >= 'a' || *c == '_');
  gcs_checksum_parse(&checksum, text);
  CHECK(checksum.kind <= MC_CHECKSUM_MD5);
  if (gcs_time_parse(&seconds, text)) CHECK(seconds >= 0);
}

/* As URLs come: in their normal form. */
static void take_address(const char *text) {
  struct gcs_address address;
  char *normal;
  if (url_normalise(&normal, text, NULL)) return;
  if (gcs_address_parse(&address, normal, NULL) == MC_OK) {
    char *url = gcs_object_url("https://host", &address, address.generation);
    CHECK(url && strncmp(url, "https://host/storage/v1/b/", 26) == 0);
    for (const char *c = url; *c; c++) CHECK(*c > 0x20 && *c < 0x7f && *c != '#');
    free(url);
    gcs_address_free(&address);
  }
  free(normal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  char *text = text_of(data + 1, size - 1);
  CHECK(text != NULL);
  switch (data[0]) {
  case 'o':
    take_object((const char *)data + 1, size - 1);
    break;
  case 'p':
    take_page((const char *)data + 1, size - 1);
    break;
  case 't':
    take_token((const char *)data + 1, size - 1);
    break;
  case 'a':
    take_address(text);
    break;
  default:
    take_words(text);
  }
  free(text);
  return 0;
}
