/* The azure upstream against a scripted server: what it asks with, and what answers mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <modelcache/backend/upstream.h>

#include "base/io.h"
#include "http_server.h"

extern const mc_upstream_ops azure_upstream_ops;

#define KEY     "aHVudGVyMg=="
#define URL     "as://account/c/a.bin"
#define NOWHERE "http://127.0.0.1:1" /* nobody listens there */
#define FOUND   "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"one\"\r\n\r\n"
#define BODY(text)                                                                                                     \
  "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(text), text /* to script: of one that has a body */
#define TOKEN(name, seconds) "{\"access_token\": \"" name "\", \"expires_in\": " seconds "}"
#define FAILED(status, code) "HTTP/1.1 " status " -\r\nx-ms-error-code: " code "\r\nContent-Length: 0\r\n\r\n"

static const mc_call forever = {INT64_MAX, NULL};
static const char *const variables[] = {"AZURE_STORAGE_CONNECTION_STRING",
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
                                        "TRITON_CLOUD_CREDENTIAL_PATH"};

struct fixture {
  struct http_server server;
  mc_upstream_config config;
  mc_upstream *upstream;
  mc_source *source;
  mc_info info;
  mc_access access;
  mc_sink sink; /* writes to `got` */
  char got[64];
  char listed[256]; /* the paths, each followed by a space */
  mc_listed first;
  char *file;
  mc_error err;
};

static struct fixture f;

/* A server whose address is the service's endpoint, and no variable but that; nor has the machine an identity. */
static void start(void) {
  memset(&f, 0, sizeof(f));
  for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) unsetenv(variables[i]);
  http_server_start(&f.server);
  setenv("AZURE_STORAGE_BLOB_ENDPOINT", f.server.origin, 1);
  setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", NOWHERE, 1);
  f.config = (mc_upstream_config){
      .struct_size = sizeof(f.config), .connect_timeout_ms = 5000, .stall_timeout_ms = 5000, .retries = 1};
}

static mc_status open_again(void) {
  if (f.source) azure_upstream_ops.source_close(f.source);
  if (f.upstream) azure_upstream_ops.close(f.upstream);
  f.source = NULL;
  f.upstream = NULL;
  f.err = (mc_error)MC_ERROR_INIT;
  return azure_upstream_ops.open(&f.upstream, &f.config, &f.err);
}

static void open_upstream(void) {
  assert_int_equal(open_again(), MC_OK);
}

static void stop(void) {
  if (f.source) azure_upstream_ops.source_close(f.source);
  if (f.upstream) azure_upstream_ops.close(f.upstream);
  assert_int_equal(http_server_asked(&f.server), f.server.scripted); /* neither more nor less than was expected */
  http_server_stop(&f.server);
  if (f.file) unlink(f.file);
  free(f.file);
}

#define script(...) http_server_script(&f.server, __VA_ARGS__)

static void write_file(const char *text) {
  if (!f.file) {
    char path[] = "/tmp/modelcache-azure-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    f.file = strdup(path);
  }
  assert_int_equal(file_replace(f.file, text, strlen(text), 0600, false), 0);
}

static mc_status stat_url(const char *url) {
  f.err = (mc_error)MC_ERROR_INIT;
  return azure_upstream_ops.stat(f.upstream, url, &f.info, &forever, &f.err);
}

/* What it is asked with. */
static const char *explain(const char *url) {
  f.err = (mc_error)MC_ERROR_INIT;
  mc_status status = azure_upstream_ops.explain(f.upstream, url, &f.access, &forever, &f.err);
  return status ? f.err.message : f.access.credentials;
}

static mc_status sink_write(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  (void)err;
  assert_true(sink->offset + size < sizeof(f.got));
  memcpy(f.got + sink->offset, data, size);
  sink->offset += size;
  return MC_OK;
}

static mc_status read_source(uint64_t first, uint64_t end) {
  f.sink = (mc_sink){.offset = first, .end = end, .write = sink_write};
  f.err = (mc_error)MC_ERROR_INIT;
  return azure_upstream_ops.source_read(f.source, &f.sink, &forever, &f.err);
}

static void assert_asked(unsigned index, const char *what) {
  const char *request = http_server_request(&f.server, index);
  if (!strstr(request, what)) fail_msg("'%s' is not in request %u:\n%s", what, index, request);
}

static void assert_says(const char *text, const char *what) {
  if (!strstr(text, what)) fail_msg("'%s' is not in '%s'", what, text);
}

/* ---- what is asked ---- */

static void parts_are_of_one_version_and_signed(void **state) {
  (void)state;
  start();
  setenv("AZURE_STORAGE_KEY", KEY, 1);
  open_upstream();
  mc_open_args args = {.url = "as://account/c/a%20b"};
  script("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"one\"\r\nx-ms-version-id: v1\r\n"
         "Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n\r\n");
  script("HTTP/1.1 206 -\r\nContent-Length: 4\r\nContent-Range: bytes 2-5/10\r\nETag: \"one\"\r\n\r\n2345");
  script(FAILED("412", "ConditionNotMet"));
  assert_int_equal(azure_upstream_ops.source_open(f.upstream, &args, &f.source, &f.info, &forever, NULL), MC_OK);
  assert_int_equal(f.info.size, 10);
  assert_true(f.info.ranges);
  assert_string_equal(f.info.validators.version, "v1");
  assert_int_equal(f.info.checksum.kind, MC_CHECKSUM_MD5);
  assert_int_equal(read_source(2, 6), MC_OK);
  assert_memory_equal(f.got + 2, "2345", 4);
  assert_int_equal(read_source(6, 10), MC_CHANGED);
  assert_asked(0, "HEAD /account/c/a%20b HTTP/1.1\r\n");
  assert_asked(0, "\r\nx-ms-version: 2020-10-02\r\n");
  for (unsigned i = 0; i < 3; i++) assert_asked(i, "\r\nAuthorization: SharedKey account:");
  assert_asked(1, "\r\nIf-Match: \"one\"\r\n");
  assert_asked(1, "\r\nRange: bytes=2-5\r\n");
  stop();
}

static void a_sas_is_in_the_query_and_in_no_message(void **state) {
  (void)state;
  start();
  setenv("AZURE_STORAGE_ACCOUNT", "account", 1);
  setenv("AZURE_STORAGE_SAS_TOKEN", "?sv=1&sig=hunter2%3D", 1);
  open_upstream();
  script(FOUND);
  assert_int_equal(stat_url(URL "?versionid=2024-05-06T07:08:09Z"), MC_OK);
  assert_asked(0, "HEAD /account/c/a.bin?versionid=2024-05-06T07%3A08%3A09Z&sv=1&sig=hunter2%3D HTTP/1.1\r\n");
  script(FAILED("403", "AuthenticationFailed"));
  assert_int_equal(stat_url(URL), MC_PERMISSION_DENIED);
  assert_asked(1, "HEAD /account/c/a.bin?sv=1&sig=hunter2%3D HTTP/1.1\r\n");
  assert_says(f.err.message, "AZURE_STORAGE_SAS_TOKEN");
  assert_null(strstr(f.err.message, "hunter2"));
  stop();
}

static void a_busy_service_is_asked_again(void **state) {
  (void)state;
  start();
  setenv("AZURE_STORAGE_KEY", KEY, 1);
  open_upstream();
  script("HTTP/1.1 503 -\r\nx-ms-error-code: ServerBusy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
  script(FOUND);
  assert_int_equal(stat_url(URL), MC_OK);
  script(FAILED("429", "TooManyRequests"));
  script(FAILED("500", "OperationTimedOut"));
  assert_int_equal(stat_url(URL), MC_UNAVAILABLE);
  stop();
}

/* ---- where credentials are found ---- */

static void variables_are_looked_for_in_order_and_for_their_account(void **state) {
  (void)state;
  start();
  setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=one;AccountKey=" KEY ";EndpointSuffix=core.cloudapi.de", 1);
  setenv("AZURE_STORAGE_ACCOUNT", "two", 1);
  setenv("AZURE_STORAGE_KEY", KEY, 1);
  setenv("AZURE_STORAGE_SAS_TOKEN", "sig=a", 1);
  open_upstream();
  assert_string_equal(explain("as://one/c/a"), "AZURE_STORAGE_CONNECTION_STRING");
  assert_string_equal(f.access.endpoint, "https://one.blob.core.cloudapi.de");
  assert_string_equal(f.access.identity, "one");
  assert_string_equal(explain("as://two/c/a"), "AZURE_STORAGE_KEY");
  assert_string_equal(f.access.endpoint, f.server.origin);
  assert_string_equal(explain("as://three/c/a"), "none: AZURE_STORAGE_CONNECTION_STRING is not of the account 'three'");
  assert_string_equal(f.access.endpoint, "https://three.blob.core.windows.net");
  unsetenv("AZURE_STORAGE_KEY");
  unsetenv("AZURE_STORAGE_CONNECTION_STRING");
  open_upstream();
  assert_string_equal(explain("as://two/c/a"), "AZURE_STORAGE_SAS_TOKEN");
  unsetenv("AZURE_STORAGE_ACCOUNT"); /* of which, nobody knows */
  open_upstream();
  assert_string_equal(explain("as://two/c/a"), "none: AZURE_STORAGE_SAS_TOKEN is set without AZURE_STORAGE_ACCOUNT");
  setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=two;BlobEndpoint=https://two.example.com", 1);
  open_upstream(); /* which says only where it is */
  explain("as://two/c/a");
  assert_string_equal(f.access.endpoint, "https://two.example.com");
  unsetenv("AZURE_STORAGE_CONNECTION_STRING");
  setenv("AZURE_STORAGE_KEY", "not hunter2", 1);
  open_upstream();
  assert_says(explain("as://two/c/a"), "AZURE_STORAGE_KEY: the account's key is not base64");
  stop();
}

static void rules_and_tritons_file_come_first(void **state) {
  (void)state;
  static const mc_setting key[] = {{"account", "account"}, {"account_key", KEY}}, nothing[] = {{"account", "account"}},
                          connection[] = {{"connection_string", "UseDevelopmentStorage=true"}}, odd[] = {{"user", "x"}};
  static const mc_credentials named[] = {
      {"team", key, 2}, {"empty", nothing, 1}, {"local", connection, 1}, {"odd", odd, 1}};
  static mc_origin_rule rules[] = {{.prefix = "as://account/", .allowed = true, .credentials = "team"},
                                   {.prefix = "as://account/public/", .allowed = true, .credentials = "none"},
                                   {.prefix = "as://account/empty/", .allowed = true, .credentials = "empty"},
                                   {.prefix = "as://devstoreaccount1/", .allowed = true, .credentials = "local"},
                                   {.prefix = "as://other/", .allowed = true, .credentials = "team"},
                                   {.prefix = "s3://x/", .allowed = true, .credentials = "odd"}};
  start();
  rules[1].endpoint = "https://proxy.example.com";
  f.config.origins = rules;
  f.config.origin_count = 6;
  f.config.credentials = named;
  f.config.credentials_count = 4;
  write_file("{\"as\": {\"\": {\"account_str\": \"third\", \"account_key\": \"" KEY "\"}, \"as://fourth\": {}}}");
  setenv("TRITON_CLOUD_CREDENTIAL_PATH", f.file, 1);
  setenv("AZURE_STORAGE_ACCOUNT", "fifth", 1);
  setenv("AZURE_STORAGE_KEY", KEY, 1);
  open_upstream();
  assert_string_equal(explain("as://account/c/a"), "'team', by the rule for as://account/");
  assert_says(explain("as://account/public/a"), "none: the rule for");
  assert_string_equal(f.access.endpoint, "https://proxy.example.com");
  assert_says(explain("as://account/empty/a"), "there is no account_key, sas, connection_string");
  assert_string_equal(explain("as://devstoreaccount1/c/a"), "'local', by the rule for as://devstoreaccount1/");
  assert_string_equal(f.access.endpoint, "http://127.0.0.1:10000");
  assert_says(explain("as://other/c/a"), "they are of the account 'account', and not of 'other'");
  assert_string_equal(explain("as://third/c/a"), "TRITON_CLOUD_CREDENTIAL_PATH, \"\"");
  assert_string_equal(f.access.identity, "third");
  assert_says(explain("as://fourth/c/a"), "none: Triton's file has no key");
  assert_string_equal(explain("as://fifth/c/a"), "AZURE_STORAGE_KEY"); /* Triton's is of another account */
  rules[5].prefix = "as://x/";
  assert_int_equal(open_again(), MC_INVALID_ARGUMENT);
  assert_says(f.err.message, "have a key 'user'");
  stop();
}

static void a_file_with_a_sas_is_read_again(void **state) {
  (void)state;
  static mc_setting settings[] = {{"sas_file", NULL}};
  static const mc_credentials named[] = {{"team", settings, 1}};
  static const mc_origin_rule rule = {.prefix = "as://", .allowed = true, .credentials = "team"};
  start();
  write_file("sv=1&sig=old\n");
  settings[0].value = f.file;
  f.config.origins = &rule;
  f.config.origin_count = 1;
  f.config.credentials = named;
  f.config.credentials_count = 1;
  open_upstream();
  script(FOUND);
  assert_int_equal(stat_url(URL), MC_OK);
  write_file("?sv=1&sig=new\n");
  script(FAILED("403", "AuthenticationFailed"));
  script(FOUND);
  assert_int_equal(stat_url(URL), MC_OK);
  assert_asked(1, "sig=old ");
  assert_asked(2, "sig=new ");
  write_file("sv=1&se=2020-01-01&sig=late");
  open_upstream();
  assert_int_equal(stat_url(URL), MC_PERMISSION_DENIED);
  assert_says(f.err.message, "have expired");
  stop();
}

/* ---- identities ---- */

static void set_application(void) {
  setenv("AZURE_CLIENT_ID", "client", 1);
  setenv("AZURE_TENANT_ID", "tenant", 1);
  setenv("AZURE_AUTHORITY_HOST", f.server.origin, 1);
}

static void a_token_that_expires_halfway_is_replaced(void **state) {
  (void)state;
  start();
  set_application();
  write_file("eyJ.first\n");
  setenv("AZURE_FEDERATED_TOKEN_FILE", f.file, 1);
  open_upstream();
  mc_open_args args = {.url = URL};
  script(BODY(TOKEN("one", "86400")));
  script(FOUND);
  script("HTTP/1.1 206 -\r\nContent-Length: 2\r\nContent-Range: bytes 0-1/4\r\nETag: \"one\"\r\n\r\n01");
  assert_int_equal(azure_upstream_ops.source_open(f.upstream, &args, &f.source, &f.info, &forever, NULL), MC_OK);
  assert_int_equal(read_source(0, 2), MC_OK);
  write_file("eyJ.second\n");
  script(FAILED("401", "InvalidAuthenticationInfo"));
  script(BODY(TOKEN("two", "86400")));
  script("HTTP/1.1 206 -\r\nContent-Length: 2\r\nContent-Range: bytes 2-3/4\r\nETag: \"one\"\r\n\r\n23");
  assert_int_equal(read_source(2, 4), MC_OK);
  assert_memory_equal(f.got, "0123", 4);
  assert_asked(0, "POST /tenant/oauth2/v2.0/token HTTP/1.1\r\n");
  assert_asked(1, "\r\nAuthorization: Bearer one\r\n");
  assert_asked(3, "\r\nAuthorization: Bearer one\r\n");
  assert_asked(4, "POST /tenant/oauth2/v2.0/token HTTP/1.1\r\n");
  assert_asked(5, "\r\nAuthorization: Bearer two\r\n");
  assert_string_equal(explain(URL), "AZURE_FEDERATED_TOKEN_FILE");
  assert_string_equal(f.access.identity, "client");
  assert_true(f.access.expires_at > 0);
  stop();
}

static void why_an_application_gets_no_token(void **state) {
  (void)state;
  start();
  set_application();
  setenv("AZURE_CLIENT_SECRET", "hunter2", 1);
  open_upstream();
  static const char refusal[] =
      "{\"error\": \"invalid_client\", \"error_description\": \"AADSTS7000215: Invalid hunter2\"}";
  script("HTTP/1.1 401 -\r\nContent-Length: %zu\r\n\r\n%s", strlen(refusal), refusal);
  assert_int_equal(stat_url(URL), MC_PERMISSION_DENIED);
  assert_says(f.err.message, "AZURE_CLIENT_SECRET: invalid_client, AADSTS7000215 (HTTP 401)");
  assert_null(strstr(f.err.message, "hunter2"));
  unsetenv("AZURE_CLIENT_SECRET");
  setenv("AZURE_FEDERATED_TOKEN_FILE", "/nowhere/token", 1);
  open_upstream();
  assert_int_equal(stat_url(URL), MC_INVALID_ARGUMENT);
  assert_says(f.err.message, "/nowhere/token: No such file");
  stop();
}

static void the_machines_own_identity(void **state) {
  (void)state;
  start();
  setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f.server.origin, 1);
  setenv("AZURE_CLIENT_ID", "a b", 1);
  open_upstream();
  script(BODY(TOKEN("one", "\"86400\"")));
  script(FOUND);
  assert_int_equal(stat_url(URL), MC_OK);
  assert_asked(0, "GET /metadata/identity/oauth2/token?api-version=2018-02-01&"
                  "resource=https%3A%2F%2Fstorage.azure.com%2F&client_id=a%20b HTTP/1.1\r\n");
  assert_asked(0, "\r\nMetadata: true\r\n");
  assert_asked(1, "\r\nAuthorization: Bearer one\r\n");
  /* There is none, or it's another cloud's service: that is remembered. */
  static const char *const answers[] = {"400", "404", "403"};
  for (int i = 0; i < 3; i++) {
    open_upstream();
    script("HTTP/1.1 %s -\r\nContent-Length: 0\r\n\r\n", answers[i]);
    script(FOUND);
    script(FOUND);
    assert_int_equal(stat_url(URL), MC_OK);
    assert_int_equal(stat_url(URL), MC_OK);
    assert_says(explain(URL), "none: no variable has any; the machine's managed identity: this machine has none");
  }
  assert_null(strstr(http_server_request(&f.server, 3), "Authorization:"));
  /* It is there, and busy. */
  open_upstream();
  script("HTTP/1.1 429 -\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(stat_url(URL), MC_UNAVAILABLE);
  stop();
}

static void an_apps_identity(void **state) {
  (void)state;
  char endpoint[100];
  start();
  snprintf(endpoint, sizeof(endpoint), "%s/msi/token", f.server.origin);
  setenv("IDENTITY_ENDPOINT", endpoint, 1);
  setenv("IDENTITY_HEADER", "hunter2", 1);
  open_upstream();
  script(BODY("{\"access_token\": \"one\", \"expires_on\": \"4102444800\", \"resource\": \"x\"}"));
  script(FOUND);
  assert_int_equal(stat_url(URL), MC_OK);
  assert_asked(0, "GET /msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com%2F HTTP/1.1\r\n");
  assert_asked(0, "\r\nX-IDENTITY-HEADER: hunter2\r\n");
  assert_asked(1, "\r\nAuthorization: Bearer one\r\n");
  stop();
}

static void identities_that_rules_name(void **state) {
  (void)state;
  static mc_setting settings[] = {
      {"client_id", "client"}, {"tenant_id", "tenant"}, {"client_secret", "hunter2"}, {"authority_host", NULL}};
  static const mc_setting alone[] = {{"client_id", "client"}}, lacking[] = {{"client_id", "a"}, {"client_secret", "b"}};
  static const mc_credentials named[] = {{"app", settings, 4}, {"machine", alone, 1}, {"lacking", lacking, 2}};
  static mc_origin_rule rules[] = {{.prefix = "as://account/", .allowed = true, .credentials = "app"},
                                   {.prefix = "as://other/", .allowed = true, .credentials = "machine"},
                                   {.prefix = "as://third/", .allowed = true, .credentials = "lacking"}};
  start();
  settings[3].value = f.server.origin;
  f.config.origins = rules;
  f.config.origin_count = 3;
  f.config.credentials = named;
  f.config.credentials_count = 3;
  open_upstream();
  script(BODY(TOKEN("one", "86400")));
  script(FOUND);
  assert_int_equal(stat_url(URL), MC_OK);
  assert_asked(0, "POST /tenant/oauth2/v2.0/token HTTP/1.1\r\n");
  assert_int_equal(stat_url("as://other/c/a"), MC_PERMISSION_DENIED); /* it was asked for, and isn't there */
  assert_says(f.err.message, "'machine', by the rule for as://other/: there is no service for it here");
  assert_int_equal(stat_url("as://third/c/a"), MC_INVALID_ARGUMENT);
  assert_says(f.err.message, "client_id and tenant_id");
  stop();
}

/* ---- what is answered ---- */

static void answers_are_told_apart(void **state) {
  (void)state;
  static const struct {
    const char *answer;
    bool with; /* a key */
    mc_status status;
    const char *says;
  } cases[] = {
      {FAILED("404", "BlobNotFound"), true, MC_NOT_FOUND, "does not exist"},
      {FAILED("404", "ContainerNotFound"), true, MC_NOT_FOUND, "no such container"},
      {FAILED("404", "ResourceNotFound"), false, MC_NOT_FOUND, "or is not public"},
      {FAILED("409", "PublicAccessNotPermitted"), false, MC_PERMISSION_DENIED, "nothing public"},
      {FAILED("401", "NoAuthenticationInformation"), false, MC_PERMISSION_DENIED, "was asked without"},
      {FAILED("403", "AuthorizationPermissionMismatch"), true, MC_PERMISSION_DENIED, "Storage Blob Data Reader"},
      {FAILED("403", "KeyBasedAuthenticationNotPermitted"), true, MC_PERMISSION_DENIED, "takes no keys"},
      {FAILED("403", "AuthenticationFailed"), true, MC_PERMISSION_DENIED, "of AZURE_STORAGE_KEY"},
      {FAILED("409", "BlobArchived"), true, MC_UNSUPPORTED, "archive tier"},
      {FAILED("400", "InvalidResourceName"), true, MC_INVALID_ARGUMENT, "no container has such a name"},
      {FAILED("400", "Whatever"), true, MC_PROTOCOL, "HTTP 400"},
      {"HTTP/1.1 403 -\r\nDate: Fri, 26 Jun 2015 23:39:12 GMT\r\nx-ms-error-code: AuthenticationFailed\r\n"
       "Content-Length: 0\r\n\r\n",
       true, MC_PERMISSION_DENIED, "minutes fast"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"a\"\r\nx-ms-meta-hdi_isfolder: true\r\n\r\n", true,
       MC_NOT_FOUND, "is a folder"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"a\"\r\nx-ms-resource-type: directory\r\n\r\n", true,
       MC_NOT_FOUND, "is a folder"},
  };
  start();
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    if (cases[i].with) setenv("AZURE_STORAGE_KEY", KEY, 1);
    if (!cases[i].with) unsetenv("AZURE_STORAGE_KEY");
    open_upstream();
    script("%s", cases[i].answer);
    assert_int_equal(stat_url(URL), cases[i].status);
    assert_says(f.err.message, cases[i].says);
    assert_says(f.err.message, URL);
  }
  assert_int_equal(stat_url("as://account/c/"), MC_NOT_FOUND); /* which needs no request */
  assert_int_equal(stat_url("as://account"), MC_INVALID_ARGUMENT);
  stop();
}

static void a_sas_that_has_ended_is_told(void **state) {
  (void)state;
  start();
  setenv("AZURE_STORAGE_ACCOUNT", "account", 1);
  setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&se=2020-01-01T00:00:00Z&sig=hunter2", 1);
  open_upstream();
  script("%s", FAILED("403", "AuthorizationFailure"));
  assert_int_equal(stat_url(URL), MC_PERMISSION_DENIED);
  assert_says(f.err.message, "have expired");
  stop();
}

/* ---- listings ---- */

static bool visit(void *user, const mc_listed *listed) {
  (void)user;
  if (!*f.listed) f.first = *listed;
  f.first.path = "";
  strcat(strcat(f.listed, listed->path), " ");
  return !strstr(f.listed, "enough");
}

static mc_status list(const char *url, size_t max) {
  *f.listed = 0;
  f.err = (mc_error)MC_ERROR_INIT;
  return azure_upstream_ops.list(f.upstream, url, max, visit, NULL, &forever, &f.err);
}

#define BLOB(name, more)                                                                                               \
  "<Blob><Name>" name "</Name><Properties><Content-Length>4</Content-Length><Etag>one</Etag>" more                     \
  "</Properties></Blob>"
#define PAGE(blobs, next)                                                                                              \
  "<EnumerationResults><Blobs>" blobs "</Blobs><NextMarker>" next "</NextMarker></EnumerationResults>"

static void a_listing_page_by_page(void **state) {
  (void)state;
  start();
  setenv("AZURE_STORAGE_KEY", KEY, 1);
  open_upstream();
  script(BODY(PAGE(BLOB("m/", "") BLOB("m/a b", "") BLOB("m/x", "<ResourceType>directory</ResourceType>"), "2!8")));
  script(BODY(PAGE("", "3!8")));
  script(BODY(PAGE(BLOB("m/x/", "") BLOB("m/x/c%", ""), "")));
  assert_int_equal(list("as://account/c/m/", 10), MC_OK);
  assert_string_equal(f.listed, "a b x/c% ");
  assert_asked(0, "GET /account/c?restype=container&comp=list&include=metadata&maxresults=5000&prefix=m%2F HTTP");
  assert_asked(2, "&marker=3%218 HTTP");
  /* What was listed is read without having been asked for. */
  mc_open_args args = {.url = "as://account/c/m/a%20b", .listed = &f.first};
  assert_int_equal(azure_upstream_ops.source_open(f.upstream, &args, &f.source, &f.info, &forever, NULL), MC_OK);
  assert_int_equal(f.info.size, 4);
  script("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"one\"\r\n\r\n0123");
  assert_int_equal(read_source(0, 4), MC_OK);
  assert_memory_equal(f.got, "0123", 4);
  assert_asked(3, "\r\nIf-Match: \"one\"\r\n");
  stop();
}

static void listings_that_end_otherwise(void **state) {
  (void)state;
  start();
  setenv("AZURE_STORAGE_KEY", KEY, 1);
  open_upstream();
  script(BODY(PAGE(BLOB("m/enough", "") BLOB("m/b", ""), "2!8")));
  assert_int_equal(list("as://account/c/m/", 10), MC_OK);
  assert_string_equal(f.listed, "enough ");
  script(BODY(PAGE(BLOB("m/a", "") BLOB("m/b", ""), "2!8")));
  assert_int_equal(list("as://account/c/m/", 1), MC_RESOURCE_EXHAUSTED);
  assert_string_equal(f.listed, "a ");
  script(BODY(PAGE(BLOB("m/folder/", ""), "")));
  assert_int_equal(list("as://account/c/m/", 10), MC_NOT_FOUND);
  script(FAILED("404", "ContainerNotFound"));
  assert_int_equal(list("as://account/c/", 10), MC_NOT_FOUND);
  static const char *const bad[] = {"n/a", "m/../a", "m//a", "m/a\\b", "m/./a"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    char page[500];
    snprintf(page, sizeof(page), PAGE(BLOB("%s", ""), ""), bad[i]);
    script(BODY(page));
    assert_int_equal(list("as://account/c/m/", 10), MC_PROTOCOL);
  }
  for (int i = 0; i < 2; i++) script(BODY(PAGE(BLOB("m/a", ""), "same")));
  assert_int_equal(list("as://account/c/m/", 10), MC_PROTOCOL);
  assert_int_equal(list("as://account/c/m/?versionid=2020", 10), MC_INVALID_ARGUMENT);
  script(BODY("<html>"));
  assert_int_equal(list("as://account/c/m/", 10), MC_PROTOCOL);
  stop();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(parts_are_of_one_version_and_signed),
      cmocka_unit_test(a_sas_is_in_the_query_and_in_no_message),
      cmocka_unit_test(a_busy_service_is_asked_again),
      cmocka_unit_test(variables_are_looked_for_in_order_and_for_their_account),
      cmocka_unit_test(rules_and_tritons_file_come_first),
      cmocka_unit_test(a_file_with_a_sas_is_read_again),
      cmocka_unit_test(a_token_that_expires_halfway_is_replaced),
      cmocka_unit_test(why_an_application_gets_no_token),
      cmocka_unit_test(the_machines_own_identity),
      cmocka_unit_test(an_apps_identity),
      cmocka_unit_test(identities_that_rules_name),
      cmocka_unit_test(answers_are_told_apart),
      cmocka_unit_test(a_sas_that_has_ended_is_told),
      cmocka_unit_test(a_listing_page_by_page),
      cmocka_unit_test(listings_that_end_otherwise),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
