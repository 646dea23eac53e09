#include "kinds.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/io.h"
#include "base/origin.h"
#include "base/url.h"
#include "sign.h"

#define ORIGIN  "azure"
#define SAS_MAX ((size_t)4 << 10)

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

mc_status azure_bad_keys(const char *where, const char *why, mc_error *err) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the credentials of %.250s: %s", where, why);
}

mc_status azure_give_keys(struct keys **out, struct keys *keys, mc_error *err) {
  *out = keys;
  return keys ? MC_OK : no_memory(err);
}

int64_t azure_sas_end(const char *sas) {
  char text[64];
  struct tm tm = {0};
  while (*sas && !(strncmp(sas, "se=", 3) == 0)) {
    sas += strcspn(sas, "&?");
    sas += *sas != 0;
  }
  size_t size = *sas ? strcspn(sas + 3, "&") : 0;
  if (!size || size >= sizeof(text) || !url_decode(text, sas + 3, size)) return 0;
  const char *end = strptime(text, "%Y-%m-%d", &tm);
  if (end && *end == 'T') end = strptime(end, "T%H:%M", &tm);
  if (end && *end == ':') strptime(end, ":%S", &tm);
  return end ? (int64_t)timegm(&tm) * 1000 : 0;
}

/* With or without the '?' that it may begin with. */
mc_status azure_sas_keys(struct keys **out, const char *where, const char *account, const char *sas, mc_error *err) {
  sas += *sas == '?';
  bool good = strlen(sas) < SAS_MAX && (strncmp(sas, "sig=", 4) == 0 || strstr(sas, "&sig="));
  for (const char *c = sas; *c; c++) good = good && *c > 0x20 && *c < 0x7f && *c != '#';
  if (!good) return azure_bad_keys(where, "it is no SAS, which is 'sv=…&sig=…'", err);
  char *token = format_str("?%s", sas);
  if (!token) return no_memory(err);
  mc_status status = azure_give_keys(out, keys_new(where, account, NULL, token, azure_sas_end(sas)), err);
  secret_free(token);
  return status;
}

mc_status azure_account_keys(struct keys **out, const char *where, const char *account, const char *key,
                             mc_error *err) {
  if (!azure_is_key(key)) return azure_bad_keys(where, "the account's key is not base64", err);
  return azure_give_keys(out, keys_new(where, account, key, NULL, 0), err);
}

mc_status azure_connection_keys(struct keys **out, const char *where, const struct azure_connection *connection,
                                mc_error *err) {
  if (connection->key) return azure_account_keys(out, where, connection->account, connection->key, err);
  return azure_sas_keys(out, where, connection->account, connection->sas, err);
}
