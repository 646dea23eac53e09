/* Credentials that a rule, or Triton's file, names. */
#include "named.h"

#include <stdlib.h>
#include <string.h>

#include "base/origin.h"
#include "kinds.h"

#define ORIGIN "azure"

/* Each may also be given as KEY_file, which is read anew whenever the keys are got. */
const char *const azure_settings[] = {"account",        "account_key", "sas",           "connection_string",
                                      "client_id",      "tenant_id",   "client_secret", "federated_token_file",
                                      "authority_host", NULL};

struct azure_named {
  struct http_client *client;
  const struct azure_identity *usual; /* where identities get their tokens, unless it is said */
  const mc_credentials *named;
  bool of_triton;
  char where[200];
  char *account;                      /* they are of; NULL: of any, or nobody knows */
  struct azure_connection connection; /* that is named, but for its secrets */
  struct keyring *ring;
};

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

static mc_status secret_of(char **out, const struct azure_named *source, const char *key, mc_error *err) {
  return origin_secret(out, source->named, key, err);
}

static bool has(const struct azure_named *source, const char *key) {
  for (size_t i = 0; i < source->named->count; i++) {
    if (origin_is_setting(source->named->settings[i].key, key)) return true;
  }
  return false;
}

/* An application, or one of the machine's identities. */
struct named_identity {
  char *client_id, *tenant_id, *secret, *authority;
};

static mc_status read_identity(struct named_identity *out, const struct azure_named *source, mc_error *err) {
  mc_status status = secret_of(&out->client_id, source, "client_id", err);
  if (!status) status = secret_of(&out->tenant_id, source, "tenant_id", err);
  if (!status) status = secret_of(&out->secret, source, "client_secret", err);
  if (!status) status = secret_of(&out->authority, source, "authority_host", err);
  return status;
}

static mc_status ask_identity(struct keys **out, const struct azure_named *source, const struct named_identity *named,
                              const mc_call *call, mc_error *err) {
  const struct azure_identity *usual = source->usual;
  struct azure_identity identity = {.where = source->where,
                                    .client_id = named->client_id,
                                    .tenant_id = named->tenant_id,
                                    .secret = named->secret,
                                    .token_file = origin_setting(source->named, "federated_token_file"),
                                    .authority = named->authority ? named->authority : usual->authority,
                                    .endpoint = usual->endpoint,
                                    .header = usual->header,
                                    .machine = usual->machine};
  bool of_application = identity.secret || identity.token_file;
  if (of_application && (!identity.client_id || !identity.tenant_id)) {
    return azure_bad_keys(source->where, "an application needs client_id and tenant_id", err);
  }
  mc_status status = azure_token_get(out, source->client, &identity, call, err);
  if (status == MC_NOT_FOUND) { /* of the identity, not of what is asked for */
    status = MC_PERMISSION_DENIED;
    if (err) err->status = status;
  }
  return status;
}

static mc_status get_token(struct keys **out, const struct azure_named *source, const mc_call *call, mc_error *err) {
  struct named_identity named = {.client_id = NULL};
  mc_status status = read_identity(&named, source, err);
  if (!status) status = ask_identity(out, source, &named, call, err);
  secret_free(named.client_id);
  secret_free(named.tenant_id);
  secret_free(named.secret);
  secret_free(named.authority);
  return status;
}

static mc_status get_connection(struct keys **out, const struct azure_named *source, const char *text, mc_error *err) {
  struct azure_connection connection;
  mc_status status = azure_connection_parse(&connection, text, source->where, err);
  if (status) return status;
  if (connection.key || connection.sas) {
    status = azure_connection_keys(out, source->where, &connection, err);
  } else {
    status = azure_bad_keys(source->where, "the connection string has no AccountKey and no SharedAccessSignature", err);
  }
  azure_connection_end(&connection);
  return status;
}

static mc_status get_named(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  const struct azure_named *source = user;
  static const char *const kinds[] = {"connection_string", "account_key", "sas"};
  for (int i = 0; i < 3; i++) {
    char *secret = NULL;
    if (!has(source, kinds[i])) continue;
    mc_status status = secret_of(&secret, source, kinds[i], err);
    if (!status) {
      status = i == 0   ? get_connection(out, source, secret, err)
               : i == 1 ? azure_account_keys(out, source->where, source->account, secret, err)
                        : azure_sas_keys(out, source->where, source->account, secret, err);
    }
    secret_free(secret);
    return status;
  }
  if (has(source, "client_id") || has(source, "client_secret") || has(source, "federated_token_file")) {
    return get_token(out, source, call, err);
  }
  if (source->of_triton)
    return azure_give_keys(out, keys_new("none: Triton's file has no key", NULL, NULL, NULL, 0), err);
  return azure_bad_keys(source->where, "there is no account_key, sas, connection_string or client_id in them", err);
}

void azure_named_free(struct azure_named *source) {
  if (!source) return;
  keyring_free(source->ring);
  azure_connection_end(&source->connection);
  secret_free(source->account);
  free(source);
}

/* Of which account they are, and where that is, does not change with their secrets. */
static mc_status read_source(struct azure_named *source, mc_error *err) {
  char *text = NULL;
  mc_status status = secret_of(&source->account, source, "account", err);
  if (!status) status = secret_of(&text, source, "connection_string", err);
  if (!status && text) status = azure_connection_parse(&source->connection, text, source->where, err);
  secret_free(text);
  if (status || !text) return status;
  secret_free(source->account);
  source->account = strdup(source->connection.account);
  azure_connection_forget(&source->connection);
  return source->account ? MC_OK : no_memory(err);
}

mc_status azure_named_new(struct azure_named **out, struct http_client *client, const struct azure_identity *usual,
                          const struct keybook_page *page, mc_error *err) {
  struct azure_named *source = calloc(1, sizeof(*source));
  if (!source) return no_memory(err);
  *source = (struct azure_named){
      .client = client, .usual = usual, .named = page->credentials, .of_triton = page->place == KEYBOOK_TRITON};
  memcpy(source->where, page->where, sizeof(source->where));
  mc_status status = read_source(source, err);
  if (!status && !(source->ring = keyring_new(get_named, source, true))) status = no_memory(err);
  if (status) azure_named_free(source);
  if (!status) *out = source;
  return status;
}

const char *azure_named_account(const struct azure_named *source) {
  return source->account;
}

const struct azure_connection *azure_named_connection(const struct azure_named *source) {
  return &source->connection;
}

struct keyring *azure_named_ring(const struct azure_named *source) {
  return source->ring;
}
