/* Any text as the address of Redis. */
#include "backends/coordination/redis/address.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct redis_address address;
  mc_error err = MC_ERROR_INIT;
  char *text = text_of(data, size);
  mc_status status = redis_address_parse(&address, text, &err);
  CHECK(status == MC_OK || status == MC_INVALID_ARGUMENT);
  CHECK(status == err.status);
  if (!status) {
    CHECK(address.path[0] ? address.host_count == 0 : address.host_count >= 1);
    CHECK(address.host_count <= 1 || address.master[0]);
    for (size_t i = 0; i < address.host_count; i++) CHECK(address.hosts[i].host[0] && address.hosts[i].port);
  } else if (strpbrk(address.password, "~^#|")) { /* else it may be a word of the message */
    CHECK(!strstr(err.message, address.password));
  }
  free(text);
  return 0;
}
