/* Any text as a file of Google's credentials. */
#include <string.h>

#include "backends/upstream/gcs/account.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json_t *account = NULL;
  mc_error err = MC_ERROR_INIT;
  mc_status status = gcs_account_parse(&account, (const char *)data, size, &err);
  CHECK(status == MC_OK || status == MC_INVALID_ARGUMENT || status == MC_UNSUPPORTED);
  CHECK((status == MC_OK) == (account != NULL) && status == err.status);
  if (account) CHECK(*gcs_account_type(account) && gcs_account_id(account));
  json_decref(account);
  return 0;
}
