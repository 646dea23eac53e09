/* Any text as a connection string, and as a SAS. */
#include <string.h>

#include "backends/upstream/azure/connection.h"
#include "backends/upstream/azure/kinds.h"
#include "backends/upstream/azure/sign.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct azure_connection connection;
  mc_error err = MC_ERROR_INIT;
  char *text = text_of(data, size);
  CHECK(text);
  mc_status status = azure_connection_parse(&connection, text, "it", &err);
  CHECK(status == MC_OK || status == MC_INVALID_ARGUMENT);
  CHECK((status == MC_OK) == (err.status == MC_OK));
  CHECK((status == MC_OK) == (*connection.account != 0));
  CHECK(!connection.endpoint || azure_is_endpoint(connection.endpoint));
  CHECK(!connection.key || azure_is_key(connection.key));
  azure_connection_end(&connection);
  azure_sas_end(text);
  free(text);
  return 0;
}
