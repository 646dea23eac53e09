#include "connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <openssl/crypto.h>

#include "base/io.h"
#include "base/origin.h"
#include "sign.h"

#define ORIGIN "azure"

/* What Azurite, and the emulators before it, are known by everywhere: no secret. */
#define EMULATOR      "devstoreaccount1"
#define EMULATOR_KEY  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#define EMULATOR_HOST "http://127.0.0.1"
#define EMULATOR_PORT ":10000"

/* The parts that matter, as they stand there. */
enum part { ACCOUNT, KEY, SAS, ENDPOINT, PROTOCOL, SUFFIX, EMULATES, PROXY, PARTS };

static const char *const names[PARTS] = {"AccountName",
                                         "AccountKey",
                                         "SharedAccessSignature",
                                         "BlobEndpoint",
                                         "DefaultEndpointsProtocol",
                                         "EndpointSuffix",
                                         "UseDevelopmentStorage",
                                         "DevelopmentStorageProxyUri"};

static mc_status bad(const char *where, const char *why, mc_error *err) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "the connection string of %s can't be used: %s", where, why);
}

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for credentials");
}

/* Split a copy in place. What is wrong with it, or NULL. */
static const char *split(char *parts[PARTS], char *text) {
  char *rest = NULL;
  for (char *one = text; (one = strtok_r(one, ";", &rest)); one = NULL) {
    one += strspn(one, " \t\r\n");
    size_t size = strlen(one);
    while (size && strchr(" \t\r\n", one[size - 1])) one[--size] = 0;
    char *value = strchr(one, '=');
    if (!*one) continue;
    if (!value) return "a part of it is not NAME=VALUE";
    *value++ = 0;
    for (int i = 0; i < PARTS; i++) {
      if (curl_strequal(one, names[i])) parts[i] = value;
    }
  }
  return NULL;
}

/* Where the account is, as far as it is said. */
static mc_status set_endpoint(struct azure_connection *out, char *const parts[PARTS], const char *where,
                              mc_error *err) {
  const char *protocol = parts[PROTOCOL] ? parts[PROTOCOL] : "https";
  if (parts[EMULATES]) {
    out->endpoint = format_str("%s" EMULATOR_PORT "/" EMULATOR, parts[PROXY] ? parts[PROXY] : EMULATOR_HOST);
  } else if (parts[ENDPOINT]) {
    out->endpoint = strdup(parts[ENDPOINT]);
  } else if (parts[SUFFIX] && *out->account) {
    out->endpoint = format_str("%s://%s.blob.%s", protocol, out->account, parts[SUFFIX]);
  } else {
    return MC_OK;
  }
  if (!out->endpoint) return no_memory(err);
  size_t size = strlen(out->endpoint);
  while (size && out->endpoint[size - 1] == '/') out->endpoint[--size] = 0;
  if (!azure_is_endpoint(out->endpoint)) return bad(where, "its endpoint is not http://HOST… or https://HOST…", err);
  return MC_OK;
}

static mc_status take(struct azure_connection *out, char *parts[PARTS], const char *where, mc_error *err) {
  if (parts[EMULATES] && !curl_strequal(parts[EMULATES], "true")) parts[EMULATES] = NULL;
  if (parts[EMULATES]) {
    parts[ACCOUNT] = (char *)(uintptr_t)EMULATOR;
    parts[KEY] = (char *)(uintptr_t)EMULATOR_KEY;
  }
  if (parts[ACCOUNT]) {
    if (!*parts[ACCOUNT] || strlen(parts[ACCOUNT]) >= sizeof(out->account)) {
      return bad(where, "its AccountName is no account's", err);
    }
    strcpy(out->account, parts[ACCOUNT]);
  }
  mc_status status = set_endpoint(out, parts, where, err);
  if (status) return status;
  if (!*out->account && !(out->endpoint && azure_endpoint_account(out->account, out->endpoint))) {
    return bad(where, "it has neither AccountName nor a BlobEndpoint that tells it", err);
  }
  if (parts[KEY] && !azure_is_key(parts[KEY])) return bad(where, "its AccountKey is not base64", err);
  if (parts[KEY] && !(out->key = strdup(parts[KEY]))) return no_memory(err);
  if (!parts[KEY] && parts[SAS] && !(out->sas = strdup(parts[SAS]))) return no_memory(err);
  return MC_OK;
}

mc_status azure_connection_parse(struct azure_connection *out, const char *text, const char *where, mc_error *err) {
  char *parts[PARTS] = {NULL}, *copy = strdup(text);
  *out = (struct azure_connection){.key = NULL};
  if (!copy) return no_memory(err);
  size_t size = strlen(copy);
  const char *problem = split(parts, copy);
  mc_status status = problem ? bad(where, problem, err) : take(out, parts, where, err);
  OPENSSL_cleanse(copy, size);
  free(copy);
  if (status) azure_connection_end(out);
  return status;
}

void azure_connection_forget(struct azure_connection *connection) {
  secret_free(connection->key);
  secret_free(connection->sas);
  connection->key = connection->sas = NULL;
}

void azure_connection_end(struct azure_connection *connection) {
  azure_connection_forget(connection);
  free(connection->endpoint);
  *connection = (struct azure_connection){.key = NULL};
}
