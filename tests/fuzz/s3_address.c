/* Any text as a URL of s3, and as an endpoint: what is asked for has one form, which is read as the same again. */
#include <string.h>

#include "backends/upstream/s3/address.h"
#include "base/url.h"
#include "fuzz.h"

static void check_address(const char *text) {
  struct s3_address address;
  char *normal;
  if (url_normalise(&normal, text, NULL)) return;
  mc_error err = MC_ERROR_INIT;
  mc_status status = s3_address_parse(&address, normal, &err);
  CHECK(status == MC_OK || status == MC_INVALID_ARGUMENT || status == MC_UNSUPPORTED);
  CHECK((status == MC_OK) == (err.status == MC_OK));
  if (!status) {
    CHECK(*address.bucket && !strchr(address.bucket, '/'));
    char *url = s3_address_url(&address, address.key, address.endpoint, "us-east-1", S3_STYLE_AUTO);
    CHECK(url && strspn(url, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%:/[]") == strlen(url));
    free(url);
  }
  s3_address_free(&address);
  free(normal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *text = text_of(data, size), *endpoint;
  check_address(text);
  if (s3_endpoint_parse(&endpoint, text, "fuzz", NULL) == MC_OK) {
    char *again;
    CHECK(s3_endpoint_parse(&again, endpoint, "fuzz", NULL) == MC_OK && strcmp(again, endpoint) == 0);
    free(again);
    free(endpoint);
  }
  free(text);
  return 0;
}
