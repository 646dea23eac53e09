/* Any text as a URL of a blob: what is asked for names the same container and blob, and can be signed. */
#include <string.h>

#include "backends/upstream/azure/address.h"
#include "backends/upstream/azure/sign.h"
#include "base/url.h"
#include "fuzz.h"

static void check_asked(const struct azure_address *address) {
  static const char endpoint[] = "https://host/account";
  char *url = azure_blob_url(endpoint, address), *list = azure_list_url(endpoint, address, "2!8&=");
  CHECK(url && list && strncmp(url, endpoint, strlen(endpoint)) == 0);
  const char *path = url + strlen(endpoint) + 1 + strlen(address->container) + 1;
  char *blob = malloc(strlen(path) + 1);
  CHECK(blob && url_decode(blob, path, strcspn(path, "?")));
  CHECK(strcmp(blob, address->blob) == 0);
  const char *const urls[] = {url, list};
  for (int i = 0; i < 2; i++) {
    struct azure_signing signing = {"GET", urls[i], address->account, "", "bytes=0-1", "date", "version"};
    char *signature = azure_sign(&signing, "a2V5");
    CHECK(signature);
    free(signature);
  }
  free(blob);
  free(list);
  free(url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct azure_address address;
  mc_error err = MC_ERROR_INIT;
  char *text = text_of(data, size), *normal;
  CHECK(text);
  if (url_normalise(&normal, text, NULL) == MC_OK) {
    mc_status status = azure_address_parse(&address, normal, &err);
    CHECK(status == MC_OK || status == MC_INVALID_ARGUMENT);
    CHECK((status == MC_OK) == (address.blob != NULL));
    if (!status) {
      CHECK(*address.account && *address.container);
      check_asked(&address);
      azure_address_free(&address);
    }
    free(normal);
  }
  free(text);
  return 0;
}
