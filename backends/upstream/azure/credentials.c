/* Sources of keys, and which of them holds for an account.
 *
 * A key, and a SAS, belongs to an account, and is used for no other: what is named by Triton's file or by a variable is
 * passed over for URLs of other accounts, and what a rule names is an error there. Tokens of Entra are good for all
 * accounts that their bearer may read. */
#include "credentials.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/origin.h"
#include "kinds.h"
#include "named.h"

#define ORIGIN   "azure"
#define AGAIN_MS 600000 /* how long nothing having been found is good for: an identity may be given to the machine */

/* What is read from the environment, once. */
enum variable {
  CONNECTION,
  ACCOUNT,
  KEY,
  SAS,
  BLOB_ENDPOINT,
  SERVICE_ENDPOINT,
  CLIENT,
  TENANT,
  SECRET,
  TOKEN_FILE,
  AUTHORITY,
  APP_ENDPOINT,
  APP_HEADER,
  MACHINE,
  VARIABLES
};

static const char *const variables[VARIABLES] = {
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_BLOB_ENDPOINT",
    "AZURE_STORAGE_SERVICE_ENDPOINT",
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
};

struct azure_credentials {
  struct http_client *client;
  struct keybook *book;
  char *values[VARIABLES]; /* NULL: not set, or empty */
  struct azure_connection connection;
  mc_status status; /* of reading that */
  mc_error error;
  struct keys *of_connection, *of_key, *of_sas; /* NULL: there are none */
  struct azure_identity usual;                  /* where identities get their tokens */
  struct keyring *identity;                     /* of what this process or machine is */
  pthread_mutex_t lock;                         /* a leaf: */
  struct azure_named **named;                   /* of each number, once it was asked for */
};

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

/* ---- named ones ---- */

static mc_status named_of(struct azure_named **out, struct azure_credentials *self, const struct keybook_page *page,
                          mc_error *err) {
  struct azure_named **place = &self->named[page->number], *made = NULL;
  pthread_mutex_lock(&self->lock);
  *out = *place;
  pthread_mutex_unlock(&self->lock);
  if (*out) return MC_OK;
  mc_status status = azure_named_new(&made, self->client, &self->usual, page, err);
  if (status) return status;
  pthread_mutex_lock(&self->lock);
  if (!*place) {
    *place = made;
    made = NULL;
  }
  *out = *place;
  pthread_mutex_unlock(&self->lock);
  azure_named_free(made);
  return MC_OK;
}

/* ---- who this process or machine is ---- */

/* The variables of a service principal, or of a pod with a federated identity; else the machine's own. */
static mc_status get_identity(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  const struct azure_credentials *self = user;
  char *const *values = self->values;
  struct azure_identity identity = self->usual;
  bool is_application = values[CLIENT] && values[TENANT] && (values[SECRET] || values[TOKEN_FILE]);
  identity.client_id = values[CLIENT];
  if (is_application) {
    identity.where = values[SECRET] ? variables[SECRET] : variables[TOKEN_FILE];
    identity.tenant_id = values[TENANT];
    identity.secret = values[SECRET];
    identity.token_file = values[SECRET] ? NULL : values[TOKEN_FILE];
  } else {
    identity.where = identity.endpoint ? "the managed identity (IDENTITY_ENDPOINT)" : "the machine's managed identity";
  }
  mc_error why = MC_ERROR_INIT;
  mc_status status = azure_token_get(out, self->client, &identity, call, &why);
  if (err) *err = why;
  if (status != MC_NOT_FOUND) return status;
  char text[200];
  snprintf(text, sizeof(text), "none: no variable has any; %.150s", why.message);
  return azure_give_keys(out, keys_new(text, NULL, NULL, NULL, clock_wall_ms() + AGAIN_MS), err);
}

/* ---- which ---- */

/* One of the two; or neither, and `why`. */
struct choice {
  struct keyring *ring;
  struct keys *keys;                         /* the credentials' own reference */
  const char *why;                           /* there are none */
  const struct azure_connection *connection; /* a named one, that may say where the account is; or NULL */
  char text[200];
};

/* Whether what a variable has is for this account: AZURE_STORAGE_ACCOUNT says so, or nothing says otherwise. */
static bool is_ours(const struct azure_credentials *self, const struct azure_address *address) {
  return !self->values[ACCOUNT] || strcmp(self->values[ACCOUNT], address->account) == 0;
}

static void choose_usual(struct choice *out, struct azure_credentials *self, const struct azure_address *address) {
  bool ours = is_ours(self, address), connected = strcmp(self->connection.account, address->account) == 0;
  if (connected && self->of_connection) {
    out->keys = self->of_connection;
  } else if (ours && self->of_key) {
    out->keys = self->of_key;
  } else if (ours && self->values[ACCOUNT] && self->of_sas) { /* it would tell all to whoever it is sent to */
    out->keys = self->of_sas;
  } else {
    out->ring = self->identity;
  }
}

static mc_status choose(struct choice *out, struct azure_credentials *self, const char *url,
                        const struct azure_address *address, mc_error *err) {
  struct keybook_page page;
  struct azure_named *named = NULL;
  *out = (struct choice){.ring = NULL};
  mc_status status = keybook_find(self->book, &page, url, err);
  if (status) return status;
  if (page.place == KEYBOOK_NONE) {
    memcpy(out->text, page.where, sizeof(out->text));
    out->why = out->text;
    return MC_OK;
  }
  if (page.place != KEYBOOK_NOTHING) {
    status = named_of(&named, self, &page, err);
    if (status) return status;
    const char *account = azure_named_account(named);
    if (!account || strcmp(account, address->account) == 0) {
      out->ring = azure_named_ring(named);
      out->connection = azure_named_connection(named);
      return MC_OK;
    }
    if (page.place == KEYBOOK_RULE) {
      char why[200];
      snprintf(why, sizeof(why), "they are of the account '%.60s', and not of '%.60s'", account, address->account);
      return azure_bad_keys(page.where, why, err);
    }
  }
  if (self->status) {
    if (err) *err = self->error;
    return self->status;
  }
  choose_usual(out, self, address);
  return MC_OK;
}

/* Where an account is: malloced; NULL: no memory. */
static char *endpoint_of(const struct azure_credentials *self, const char *url, const struct azure_address *address,
                         const struct azure_connection *connection) {
  const mc_origin_rule *rule = http_client_rule(self->client, url);
  char account[AZURE_ACCOUNT_SIZE];
  if (rule && rule->endpoint) return azure_endpoint(rule->endpoint, address->account);
  bool of_ours = strcmp(self->connection.account, address->account) == 0;
  if (!(connection && connection->endpoint) && of_ours) connection = &self->connection;
  if (connection && connection->endpoint) return azure_endpoint(connection->endpoint, address->account);
  for (int i = BLOB_ENDPOINT; i <= SERVICE_ENDPOINT; i++) {
    const char *endpoint = self->values[i];
    if (!endpoint || !is_ours(self, address)) continue;
    bool of_another = azure_endpoint_account(account, endpoint) && strcmp(account, address->account) != 0;
    if (!of_another) return azure_endpoint(endpoint, address->account);
  }
  return format_str("https://%s.blob.%s", address->account, address->suffix);
}

/* Nothing was found, though there is something: of another account. */
static const char *passed_over(const struct azure_credentials *self, const struct azure_address *address) {
  if (self->of_connection && strcmp(self->connection.account, address->account) != 0) return variables[CONNECTION];
  if (self->of_key && !is_ours(self, address)) return variables[KEY];
  if (self->of_sas && !(self->values[ACCOUNT] && is_ours(self, address))) return variables[SAS];
  return NULL;
}

static mc_status explain_nothing(struct keys **keys, const struct azure_credentials *self,
                                 const struct azure_address *address, mc_error *err) {
  const char *variable = passed_over(self, address);
  char text[200];
  if (!variable || (*keys)->secret || (*keys)->token) return MC_OK;
  if (variable == variables[SAS] && !self->values[ACCOUNT]) {
    snprintf(text, sizeof(text), "none: %s is set without %s", variable, variables[ACCOUNT]);
  } else {
    snprintf(text, sizeof(text), "none: %s is not of the account '%.60s'", variable, address->account);
  }
  keys_release(*keys);
  return azure_give_keys(keys, keys_new(text, NULL, NULL, NULL, 0), err);
}

mc_status azure_access_find(struct azure_access *out, struct azure_credentials *self, const char *url,
                            const struct azure_address *address, const mc_call *call, mc_error *err) {
  struct choice choice;
  *out = (struct azure_access){.endpoint = NULL};
  mc_status status = choose(&choice, self, url, address, err);
  if (status) return status;
  out->endpoint = endpoint_of(self, url, address, choice.connection);
  if (!out->endpoint) return no_memory(err);
  if (choice.ring) {
    status = keyring_keys(choice.ring, &out->keys, call, err);
    if (!status && choice.ring == self->identity) status = explain_nothing(&out->keys, self, address, err);
  } else if (choice.keys) {
    out->keys = keys_acquire(choice.keys);
  } else {
    status = azure_give_keys(&out->keys, keys_new(choice.why, NULL, NULL, NULL, 0), err);
  }
  if (status) azure_access_end(out);
  return status;
}

void azure_access_end(struct azure_access *access) {
  free(access->endpoint);
  keys_release(access->keys);
  *access = (struct azure_access){.endpoint = NULL};
}

bool azure_access_refuse(struct azure_credentials *self, const char *url, const struct azure_address *address,
                         const struct keys *keys) {
  struct choice choice;
  return choose(&choice, self, url, address, NULL) == MC_OK && choice.ring && keyring_refuse(choice.ring, keys);
}

/* ---- all of them ---- */

static mc_status read_variables(struct azure_credentials *self, mc_error *err) {
  char *const *values = self->values;
  for (int i = 0; i < VARIABLES; i++) {
    const char *value = getenv(variables[i]);
    if (value && *value && !(self->values[i] = strdup(value))) return no_memory(err);
  }
  self->usual = (struct azure_identity){.authority = values[AUTHORITY],
                                        .endpoint = values[APP_HEADER] ? values[APP_ENDPOINT] : NULL,
                                        .header = values[APP_HEADER],
                                        .machine = values[MACHINE]};
  return MC_OK;
}

/* What can be wrong with a variable is said when it is needed: it may be for another program. */
static mc_status check_variables(struct azure_credentials *self) {
  char *const *values = self->values;
  mc_error *err = &self->error;
  mc_status status = MC_OK;
  if (values[CONNECTION]) {
    status = azure_connection_parse(&self->connection, values[CONNECTION], variables[CONNECTION], err);
  }
  if (!status && (self->connection.key || self->connection.sas)) {
    status = azure_connection_keys(&self->of_connection, variables[CONNECTION], &self->connection, err);
  }
  if (!status && values[KEY]) {
    status = azure_account_keys(&self->of_key, variables[KEY], values[ACCOUNT], values[KEY], err);
  }
  if (!status && values[SAS]) status = azure_sas_keys(&self->of_sas, variables[SAS], values[ACCOUNT], values[SAS], err);
  for (int i = BLOB_ENDPOINT; i <= SERVICE_ENDPOINT && !status; i++) {
    if (values[i] && !azure_is_endpoint(values[i])) {
      status = azure_bad_keys(variables[i], "it is not http://HOST… or https://HOST…, without a user name", err);
    }
  }
  return status;
}

mc_status azure_credentials_new(struct azure_credentials **out, struct http_client *client,
                                const mc_upstream_config *config, mc_error *err) {
  struct azure_credentials *self = calloc(1, sizeof(*self));
  if (!self) return no_memory(err);
  self->client = client;
  pthread_mutex_init(&self->lock, NULL);
  mc_status status = keybook_new(&self->book, config, "as", err);
  if (!status) status = keybook_check(self->book, "as", azure_settings, err);
  if (!status) status = read_variables(self, err);
  if (!status) {
    self->status = check_variables(self);
    self->identity = keyring_new(get_identity, self, true);
    self->named = calloc(keybook_count(self->book) + 1, sizeof(struct azure_named *));
    if (!self->identity || !self->named) status = no_memory(err);
  }
  if (status) azure_credentials_free(self);
  if (!status) *out = self;
  return status;
}

void azure_credentials_free(struct azure_credentials *self) {
  if (!self) return;
  for (size_t i = 0; self->named && i < keybook_count(self->book); i++) azure_named_free(self->named[i]);
  free(self->named);
  keyring_free(self->identity);
  keys_release(self->of_connection);
  keys_release(self->of_key);
  keys_release(self->of_sas);
  azure_connection_end(&self->connection);
  for (int i = 0; i < VARIABLES; i++) secret_free(self->values[i]);
  keybook_free(self->book);
  pthread_mutex_destroy(&self->lock);
  free(self);
}
