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
#include <time.h>

#include <curl/curl.h>
#include <openssl/crypto.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/origin.h"
#include "base/url.h"
#include "connection.h"
#include "sign.h"
#include "token.h"

#define ORIGIN   "azure"
#define SAS_MAX  ((size_t)4 << 10)
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

/* Each may also be given as KEY_file, which is read anew whenever the keys are got. */
static const char *const settings[] = {"account",        "account_key", "sas",           "connection_string",
                                       "client_id",      "tenant_id",   "client_secret", "federated_token_file",
                                       "authority_host", NULL};

/* What the keybook has under a number. */
struct source {
  struct azure_credentials *all;
  const mc_credentials *named;
  bool of_triton;
  char where[200];
  char *account;                      /* they are of; NULL: of any, or nobody knows */
  struct azure_connection connection; /* that is named, but for its secrets */
  struct keyring *ring;
};

struct azure_credentials {
  struct http_client *client;
  struct keybook *book;
  char *values[VARIABLES]; /* NULL: not set, or empty */
  struct azure_connection connection;
  mc_status status; /* of reading that */
  mc_error error;
  struct keys *of_connection, *of_key, *of_sas; /* NULL: there are none */
  struct keyring *identity;                     /* of what this process or machine is */
  pthread_mutex_t lock;                         /* a leaf: */
  struct source **sources;                      /* of each number, once it was asked for */
};

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

static mc_status bad(const char *where, const char *why, mc_error *err) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the credentials of %.250s: %s", where, why);
}

static mc_status give(struct keys **out, struct keys *keys, mc_error *err) {
  *out = keys;
  return keys ? MC_OK : no_memory(err);
}

/* ---- single kinds ---- */

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
static mc_status sas_keys(struct keys **out, const char *where, const char *account, const char *sas, mc_error *err) {
  sas += *sas == '?';
  bool good = strlen(sas) < SAS_MAX && (strncmp(sas, "sig=", 4) == 0 || strstr(sas, "&sig="));
  for (const char *c = sas; *c; c++) good = good && *c > 0x20 && *c < 0x7f && *c != '#';
  if (!good) return bad(where, "it is no SAS, which is 'sv=…&sig=…'", err);
  char *token = format_str("?%s", sas);
  if (!token) return no_memory(err);
  mc_status status = give(out, keys_new(where, account, NULL, token, azure_sas_end(sas)), err);
  OPENSSL_cleanse(token, strlen(token));
  free(token);
  return status;
}

static mc_status account_keys(struct keys **out, const char *where, const char *account, const char *key,
                              mc_error *err) {
  if (!azure_is_key(key)) return bad(where, "the account's key is not base64", err);
  return give(out, keys_new(where, account, key, NULL, 0), err);
}

static mc_status connection_keys(struct keys **out, const char *where, const struct azure_connection *connection,
                                 mc_error *err) {
  if (connection->key) return account_keys(out, where, connection->account, connection->key, err);
  return sas_keys(out, where, connection->account, connection->sas, err);
}

/* ---- named ones ---- */

static mc_status secret_of(char **out, const struct source *source, const char *key, mc_error *err) {
  return origin_secret(out, source->named, key, err);
}

static bool has(const struct source *source, const char *key) {
  for (size_t i = 0; i < source->named->count; i++) {
    if (origin_is_setting(source->named->settings[i].key, key)) return true;
  }
  return false;
}

/* An application, or one of the machine's identities. */
struct named_identity {
  char *client_id, *tenant_id, *secret, *authority;
};

static mc_status read_identity(struct named_identity *out, const struct source *source, mc_error *err) {
  mc_status status = secret_of(&out->client_id, source, "client_id", err);
  if (!status) status = secret_of(&out->tenant_id, source, "tenant_id", err);
  if (!status) status = secret_of(&out->secret, source, "client_secret", err);
  if (!status) status = secret_of(&out->authority, source, "authority_host", err);
  return status;
}

static mc_status ask_identity(struct keys **out, const struct source *source, const struct named_identity *named,
                              const mc_call *call, mc_error *err) {
  const struct azure_credentials *all = source->all;
  struct azure_identity identity = {.where = source->where,
                                    .client_id = named->client_id,
                                    .tenant_id = named->tenant_id,
                                    .secret = named->secret,
                                    .token_file = origin_setting(source->named, "federated_token_file"),
                                    .authority = named->authority ? named->authority : all->values[AUTHORITY],
                                    .endpoint = all->values[APP_HEADER] ? all->values[APP_ENDPOINT] : NULL,
                                    .header = all->values[APP_HEADER],
                                    .machine = all->values[MACHINE]};
  bool of_application = identity.secret || identity.token_file;
  if (of_application && (!identity.client_id || !identity.tenant_id)) {
    return bad(source->where, "an application needs client_id and tenant_id", err);
  }
  mc_status status = azure_token_get(out, all->client, &identity, call, err);
  if (status == MC_NOT_FOUND) { /* of the identity, not of what is asked for */
    status = MC_PERMISSION_DENIED;
    if (err) err->status = status;
  }
  return status;
}

static mc_status get_token(struct keys **out, const struct source *source, const mc_call *call, mc_error *err) {
  struct named_identity named = {.client_id = NULL};
  mc_status status = read_identity(&named, source, err);
  if (!status) status = ask_identity(out, source, &named, call, err);
  secret_free(named.client_id);
  secret_free(named.tenant_id);
  secret_free(named.secret);
  secret_free(named.authority);
  return status;
}

static mc_status get_connection(struct keys **out, const struct source *source, const char *text, mc_error *err) {
  struct azure_connection connection;
  mc_status status = azure_connection_parse(&connection, text, source->where, err);
  if (status) return status;
  if (connection.key || connection.sas) {
    status = connection_keys(out, source->where, &connection, err);
  } else {
    status = bad(source->where, "the connection string has no AccountKey and no SharedAccessSignature", err);
  }
  azure_connection_end(&connection);
  return status;
}

static mc_status get_named(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  const struct source *source = user;
  static const char *const kinds[] = {"connection_string", "account_key", "sas"};
  for (int i = 0; i < 3; i++) {
    char *secret = NULL;
    if (!has(source, kinds[i])) continue;
    mc_status status = secret_of(&secret, source, kinds[i], err);
    if (!status) {
      status = i == 0   ? get_connection(out, source, secret, err)
               : i == 1 ? account_keys(out, source->where, source->account, secret, err)
                        : sas_keys(out, source->where, source->account, secret, err);
    }
    secret_free(secret);
    return status;
  }
  if (has(source, "client_id") || has(source, "client_secret") || has(source, "federated_token_file")) {
    return get_token(out, source, call, err);
  }
  if (source->of_triton) return give(out, keys_new("none: Triton's file has no key", NULL, NULL, NULL, 0), err);
  return bad(source->where, "there is no account_key, sas, connection_string or client_id in them", err);
}

static void source_free(struct source *source) {
  if (!source) return;
  keyring_free(source->ring);
  azure_connection_end(&source->connection);
  secret_free(source->account);
  free(source);
}

/* Of which account they are, and where that is, does not change with their secrets. */
static mc_status read_source(struct source *source, mc_error *err) {
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

static mc_status source_new(struct source **out, struct azure_credentials *all, const struct keybook_page *page,
                            mc_error *err) {
  struct source *source = calloc(1, sizeof(*source));
  if (!source) return no_memory(err);
  *source = (struct source){.all = all, .named = page->credentials, .of_triton = page->place == KEYBOOK_TRITON};
  memcpy(source->where, page->where, sizeof(source->where));
  mc_status status = read_source(source, err);
  if (!status && !(source->ring = keyring_new(get_named, source))) status = no_memory(err);
  if (status) source_free(source);
  if (!status) *out = source;
  return status;
}

static mc_status source_of(struct source **out, struct azure_credentials *self, const struct keybook_page *page,
                           mc_error *err) {
  struct source **place = &self->sources[page->number];
  pthread_mutex_lock(&self->lock);
  mc_status status = *place ? MC_OK : source_new(place, self, page, err);
  *out = *place;
  pthread_mutex_unlock(&self->lock);
  return status;
}

/* ---- who this process or machine is ---- */

/* The variables of a service principal, or of a pod with a federated identity; else the machine's own. */
static mc_status get_identity(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  const struct azure_credentials *self = user;
  char *const *values = self->values;
  struct azure_identity identity = {.client_id = values[CLIENT], .authority = values[AUTHORITY]};
  bool is_application = values[CLIENT] && values[TENANT] && (values[SECRET] || values[TOKEN_FILE]);
  if (is_application) {
    identity.where = values[SECRET] ? variables[SECRET] : variables[TOKEN_FILE];
    identity.tenant_id = values[TENANT];
    identity.secret = values[SECRET];
    identity.token_file = values[SECRET] ? NULL : values[TOKEN_FILE];
  } else if (values[APP_ENDPOINT] && values[APP_HEADER]) {
    identity.where = "the managed identity (IDENTITY_ENDPOINT)";
    identity.endpoint = values[APP_ENDPOINT];
    identity.header = values[APP_HEADER];
  } else {
    identity.where = "the machine's managed identity";
    identity.machine = values[MACHINE];
  }
  mc_status status = azure_token_get(out, self->client, &identity, call, err);
  if (status != MC_NOT_FOUND) return status;
  return give(out,
              keys_new("none: no variable has any, nor has the machine an identity", NULL, NULL, NULL,
                       clock_wall_ms() + AGAIN_MS),
              err);
}

/* ---- which ---- */

/* One of the two; or neither, and `why`. */
struct choice {
  struct keyring *ring;
  struct keys *keys;                         /* the credentials' own reference */
  const char *why;                           /* there are none */
  const struct azure_connection *connection; /* that says where the account is; may be NULL */
  char text[200];
};

/* Whether what a variable has is for this account: AZURE_STORAGE_ACCOUNT says so, or nothing says otherwise. */
static bool is_ours(const struct azure_credentials *self, const struct azure_address *address) {
  return !self->values[ACCOUNT] || strcmp(self->values[ACCOUNT], address->account) == 0;
}

static void choose_usual(struct choice *out, struct azure_credentials *self, const struct azure_address *address) {
  bool ours = is_ours(self, address), connected = strcmp(self->connection.account, address->account) == 0;
  if (connected) out->connection = &self->connection;
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
  struct source *source = NULL;
  *out = (struct choice){.ring = NULL};
  mc_status status = keybook_find(self->book, &page, url, err);
  if (status) return status;
  if (page.place == KEYBOOK_NONE) {
    memcpy(out->text, page.where, sizeof(out->text));
    out->why = out->text;
    return MC_OK;
  }
  if (page.place != KEYBOOK_NOTHING) {
    status = source_of(&source, self, &page, err);
    if (status) return status;
    const char *account = source->account;
    if (!account || strcmp(account, address->account) == 0) {
      out->ring = source->ring;
      out->connection = &source->connection;
      return MC_OK;
    }
    if (page.place == KEYBOOK_RULE) {
      char why[200];
      snprintf(why, sizeof(why), "they are of the account '%.60s', and not of '%.60s'", account, address->account);
      return bad(source->where, why, err);
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
  snprintf(text, sizeof(text), "none: %s is not of the account '%.60s'", variable, address->account);
  keys_release(*keys);
  return give(keys, keys_new(text, NULL, NULL, NULL, 0), err);
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
    status = give(&out->keys, keys_new(choice.why, NULL, NULL, NULL, 0), err);
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
  for (int i = 0; i < VARIABLES; i++) {
    const char *value = getenv(variables[i]);
    if (value && *value && !(self->values[i] = strdup(value))) return no_memory(err);
  }
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
    status = connection_keys(&self->of_connection, variables[CONNECTION], &self->connection, err);
  }
  if (!status && values[KEY]) status = account_keys(&self->of_key, variables[KEY], values[ACCOUNT], values[KEY], err);
  if (!status && values[SAS]) status = sas_keys(&self->of_sas, variables[SAS], values[ACCOUNT], values[SAS], err);
  for (int i = BLOB_ENDPOINT; i <= SERVICE_ENDPOINT && !status; i++) {
    if (values[i] && !azure_is_endpoint(values[i])) {
      status = bad(variables[i], "it is not http://HOST… or https://HOST…", err);
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
  if (!status) status = keybook_check(self->book, "as", settings, err);
  if (!status) status = read_variables(self, err);
  if (!status) {
    self->status = check_variables(self);
    self->identity = keyring_new(get_identity, self);
    self->sources = calloc(keybook_count(self->book) + 1, sizeof(struct source *));
    if (!self->identity || !self->sources) status = no_memory(err);
  }
  if (status) azure_credentials_free(self);
  if (!status) *out = self;
  return status;
}

void azure_credentials_free(struct azure_credentials *self) {
  if (!self) return;
  for (size_t i = 0; self->sources && i < keybook_count(self->book); i++) source_free(self->sources[i]);
  free(self->sources);
  keyring_free(self->identity);
  keys_release(self->of_connection);
  keys_release(self->of_key);
  keys_release(self->of_sas);
  azure_connection_end(&self->connection);
  for (int i = 0; i < VARIABLES; i++) {
    if (self->values[i]) OPENSSL_cleanse(self->values[i], strlen(self->values[i]));
    free(self->values[i]);
  }
  keybook_free(self->book);
  pthread_mutex_destroy(&self->lock);
  free(self);
}
