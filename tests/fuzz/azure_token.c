/* Any text as the answer to a request for a token. */
#include <string.h>

#include "backends/upstream/azure/token.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct azure_identity identity = {.where = "fuzz"};
  struct keys *keys;
  mc_error err = MC_ERROR_INIT;
  char why[100], *text = text_of(data, size);
  CHECK(text);
  mc_status status = azure_token_parse(&keys, &identity, size ? (const char *)data : "", size, 1000, &err);
  CHECK(status == MC_OK || status == MC_PROTOCOL);
  CHECK((status == MC_OK) == (keys != NULL));
  if (keys) {
    CHECK(*keys->token && *keys->token != '?' && !strpbrk(keys->token, "\r\n"));
    CHECK(keys->expires_at > 0);
  }
  keys_release(keys);
  azure_token_refusal(why, sizeof(why), text);
  CHECK(*why && strlen(why) < sizeof(why) - 1);
  free(text);
  return 0;
}
