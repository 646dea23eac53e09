/* Where the gcs upstream finds credentials, and the tokens that it gets for them, against a scripted token server that
 * checks what it's asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <modelcache/backend/upstream.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/url.h"
#include "http_server.h"

extern const mc_upstream_ops gcs_upstream_ops;

#define URL              "gs://bucket/o"
#define FORBID           "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
#define EXPIRED          "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
#define RESOURCE         "{\"name\": \"o\", \"size\": \"10\", \"generation\": \"7\"}"
#define JSON(head, json) "HTTP/1.1 200 OK\r\n" head "Content-Length: %zu\r\n\r\n%s", strlen(json), json
#define LONG(token)      "{\"access_token\": \"" token "\", \"expires_in\": 3599, \"token_type\": \"Bearer\"}"

static const mc_call forever = {INT64_MAX, NULL};

static struct fixture {
  struct http_server store, tokens;
  char folder[64];
  mc_upstream *upstream;
  mc_origin_rule rule;
  mc_setting setting;
  mc_credentials team;
  mc_access access;
  mc_error err;
} f;

static const char *const variables[] = {"GOOGLE_APPLICATION_CREDENTIALS",
                                        "CLOUDSDK_CONFIG",
                                        "GCE_METADATA_HOST",
                                        "NO_GCE_CHECK",
                                        "STORAGE_EMULATOR_HOST",
                                        "GOOGLE_CLOUD_QUOTA_PROJECT",
                                        "TRITON_CLOUD_CREDENTIAL_PATH",
                                        "http_proxy",
                                        "all_proxy",
                                        "ALL_PROXY"};

static int set_up(void **state) {
  (void)state;
  memset(&f, 0, sizeof(f));
  for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) unsetenv(variables[i]);
  http_server_start(&f.store);
  http_server_start(&f.tokens);
  strcpy(f.folder, "/tmp/modelcache-gcs-XXXXXX");
  assert_non_null(mkdtemp(f.folder));
  setenv("HOME", f.folder, 1);
  f.rule = (mc_origin_rule)MC_ORIGIN_RULE_INIT;
  f.rule.prefix = "gs://";
  f.rule.endpoint = f.store.origin;
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  if (f.upstream) gcs_upstream_ops.close(f.upstream);
  assert_int_equal(http_server_asked(&f.store), f.store.scripted);
  assert_int_equal(http_server_asked(&f.tokens), f.tokens.scripted);
  http_server_stop(&f.store);
  http_server_stop(&f.tokens);
  remove_all(f.folder);
  return 0;
}

static void open_it(void) {
  f.team = (mc_credentials){"team", &f.setting, 1};
  mc_upstream_config config = {.struct_size = sizeof(config),
                               .connect_timeout_ms = 5000,
                               .stall_timeout_ms = 5000,
                               .retries = 0,
                               .origins = &f.rule,
                               .origin_count = 1,
                               .credentials = &f.team,
                               .credentials_count = f.setting.key ? 1 : 0};
  if (f.upstream) gcs_upstream_ops.close(f.upstream);
  assert_int_equal(gcs_upstream_ops.open(&f.upstream, &config, NULL), MC_OK);
}

static mc_status stat_it(void) {
  mc_info info;
  f.err = (mc_error)MC_ERROR_INIT;
  return gcs_upstream_ops.stat(f.upstream, URL, &info, &forever, &f.err);
}

static const char *where(void) {
  f.err = (mc_error)MC_ERROR_INIT;
  mc_status status = gcs_upstream_ops.explain(f.upstream, URL, &f.access, &forever, &f.err);
  return status ? f.err.message : f.access.credentials;
}

/* A file in the folder; its path. */
static const char *write_file(const char *name, const char *text) {
  static char path[200];
  snprintf(path, sizeof(path), "%s/%s", f.folder, name);
  char *slash = strrchr(path, '/');
  *slash = 0;
  assert_int_equal(mkdir_all(path, 0700), 0);
  *slash = '/';
  assert_int_equal(file_replace(path, text, strlen(text), 0600, false), 0);
  return path;
}

/* A user's file, whose tokens come from the scripted server. */
static const char *write_user(const char *name, const char *id) {
  char text[500];
  snprintf(text, sizeof(text),
           "{\"type\": \"authorized_user\", \"client_id\": \"%s\", \"client_secret\": \"hunter2\", "
           "\"refresh_token\": \"1//re/fresh\", \"token_uri\": \"%s/token\"}",
           id, f.tokens.origin);
  return write_file(name, text);
}

static void assert_sent(struct http_server *server, unsigned index, const char *what) {
  assert_non_null(strstr(http_server_request(server, index), what));
}

/* The value of a field of a form, decoded. */
static void field_of(char *out, size_t size, const char *request, const char *name) {
  const char *body = strstr(request, "\r\n\r\n");
  assert_non_null(body);
  body += 4;
  size_t length = strlen(name);
  while (body && !(strncmp(body, name, length) == 0 && body[length] == '=')) {
    body = strchr(body, '&');
    if (body) body++;
  }
  assert_non_null(body);
  body += length + 1;
  assert_true(strcspn(body, "&") < size);
  assert_true(url_decode(out, body, strcspn(body, "&")));
}

/* ---- service accounts ---- */

static EVP_PKEY *make_key(char **pem) {
  EVP_PKEY *key = EVP_RSA_gen(2048);
  BIO *bio = BIO_new(BIO_s_mem());
  char *data;
  assert_true(key && bio && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL));
  long size = BIO_get_mem_data(bio, &data);
  *pem = calloc(1, (size_t)size + 1);
  assert_non_null(*pem);
  memcpy(*pem, data, (size_t)size);
  BIO_free(bio);
  return key;
}

static size_t decode_base64(unsigned char *out, const char *from, size_t size) {
  char text[2048];
  assert_true(size + 4 < sizeof(text));
  for (size_t i = 0; i < size; i++) {
    assert_null(strchr("+/=", from[i]));
    text[i] = from[i] == '-' ? '+' : from[i] == '_' ? '/' : from[i];
  }
  size_t padded = size;
  while (padded % 4) text[padded++] = '=';
  int length = EVP_DecodeBlock(out, (unsigned char *)text, (int)padded);
  assert_true(length >= 0);
  return (size_t)length - (padded - size);
}

/* What is said in a token that this key has signed. */
static void read_jwt(json_t **header, json_t **claims, const char *jwt, EVP_PKEY *key) {
  unsigned char bytes[2048];
  const char *first = strchr(jwt, '.'), *second = first ? strchr(first + 1, '.') : NULL;
  assert_non_null(second);
  size_t size = decode_base64(bytes, second + 1, strlen(second + 1));
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  assert_int_equal(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key), 1);
  assert_int_equal(EVP_DigestVerify(context, bytes, size, (const unsigned char *)jwt, (size_t)(second - jwt)), 1);
  EVP_MD_CTX_free(context);
  size = decode_base64(bytes, jwt, (size_t)(first - jwt));
  *header = json_loadb((char *)bytes, size, 0, NULL);
  size = decode_base64(bytes, first + 1, (size_t)(second - first - 1));
  *claims = json_loadb((char *)bytes, size, 0, NULL);
  assert_true(*header && *claims);
}

static const char *text_of(const json_t *json, const char *name) {
  const char *text = json_string_value(json_object_get(json, name));
  return text ? text : "";
}

static void a_service_account_signs_who_it_is(void **state) {
  (void)state;
  char *pem, jwt[2048], grant[100], token_uri[100];
  EVP_PKEY *key = make_key(&pem);
  snprintf(token_uri, sizeof(token_uri), "%s/token", f.tokens.origin);
  json_t *account = json_pack("{s:s,s:s,s:s,s:s,s:s}", "type", "service_account", "client_email", "a@b.iam",
                              "private_key", pem, "private_key_id", "k1", "token_uri", token_uri);
  char *text = json_dumps(account, 0);
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_file("key.json", text), 1);
  open_it();
  http_server_script(&f.tokens, JSON("", LONG("ya29.one")));
  http_server_script(&f.store, JSON("", RESOURCE));
  http_server_script(&f.store, JSON("", RESOURCE));
  assert_int_equal(stat_it(), MC_OK);
  assert_int_equal(stat_it(), MC_OK); /* with the same token */
  assert_sent(&f.store, 0, "Authorization: Bearer ya29.one\r\n");
  assert_sent(&f.store, 1, "Authorization: Bearer ya29.one\r\n");
  const char *asked = http_server_request(&f.tokens, 0);
  assert_non_null(strstr(asked, "POST /token HTTP/1.1\r\n"));
  assert_non_null(strstr(asked, "Content-Type: application/x-www-form-urlencoded\r\n"));
  field_of(grant, sizeof(grant), asked, "grant_type");
  assert_string_equal(grant, "urn:ietf:params:oauth:grant-type:jwt-bearer");
  field_of(jwt, sizeof(jwt), asked, "assertion");
  json_t *header, *claims;
  read_jwt(&header, &claims, jwt, key);
  assert_string_equal(text_of(header, "alg"), "RS256");
  assert_string_equal(text_of(header, "kid"), "k1");
  assert_string_equal(text_of(claims, "iss"), "a@b.iam");
  assert_string_equal(text_of(claims, "aud"), token_uri);
  assert_string_equal(text_of(claims, "scope"), "https://www.googleapis.com/auth/devstorage.read_only");
  json_int_t begin = json_integer_value(json_object_get(claims, "iat"));
  assert_int_equal(json_integer_value(json_object_get(claims, "exp")), begin + 3600);
  assert_true(begin <= clock_wall_ms() / 1000 && begin > clock_wall_ms() / 1000 - 60);
  assert_non_null(strstr(where(), "GOOGLE_APPLICATION_CREDENTIALS (service_account, "));
  assert_string_equal(f.access.identity, "a@b.iam");
  assert_true(f.access.expires_at > clock_wall_ms());
  json_decref(header);
  json_decref(claims);
  json_decref(account);
  free(text);
  free(pem);
  EVP_PKEY_free(key);
}

static void keys_that_sign_nothing(void **state) {
  (void)state;
#define PEM(kind) "-----BEGIN " kind "-----\\naHVudGVyMg==\\n-----END " kind "-----\\n"
  static const char *const keys[] = {"hunter2", PEM("PRIVATE KEY"), PEM("ENCRYPTED PRIVATE KEY")};
  for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
    char text[500];
    snprintf(text, sizeof(text), "{\"type\": \"service_account\", \"client_email\": \"a@b\", \"private_key\": \"%s\"}",
             keys[i]);
    setenv("GOOGLE_APPLICATION_CREDENTIALS", write_file("key.json", text), 1);
    open_it();
    assert_int_equal(stat_it(), MC_INVALID_ARGUMENT);
    assert_non_null(strstr(f.err.message, "key.json): its private_key is no RSA key"));
    assert_null(strstr(f.err.message, "hunter2"));
    assert_null(strstr(f.err.message, "aHVudGVyMg"));
  }
}

/* ---- tokens ---- */

static void a_token_that_is_refused_is_replaced_once(void **state) {
  (void)state;
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_user("user.json", "me"), 1);
  open_it();
  http_server_script(&f.tokens, JSON("", LONG("ya29.one")));
  http_server_script(&f.store, EXPIRED);
  http_server_script(&f.tokens, JSON("", LONG("ya29.two")));
  http_server_script(&f.store, JSON("", RESOURCE));
  assert_int_equal(stat_it(), MC_OK);
  assert_sent(&f.store, 0, "Authorization: Bearer ya29.one\r\n");
  assert_sent(&f.store, 1, "Authorization: Bearer ya29.two\r\n");
  /* And then it is another's turn: not again and again. */
  http_server_script(&f.store, EXPIRED);
  assert_int_equal(stat_it(), MC_PERMISSION_DENIED);
  assert_non_null(strstr(f.err.message, "GOOGLE_APPLICATION_CREDENTIALS"));
  assert_null(strstr(f.err.message, "ya29"));
}

static void a_user_has_a_token_for_tokens(void **state) {
  (void)state;
  char field[200];
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_user("user.json", "me&you"), 1);
  open_it();
  http_server_script(&f.tokens, JSON("", LONG("ya29.one")));
  http_server_script(&f.store, FORBID);
  assert_int_equal(stat_it(), MC_PERMISSION_DENIED);
  assert_sent(&f.store, 0, "Authorization: Bearer ya29.one\r\n");
  const char *asked = http_server_request(&f.tokens, 0);
  field_of(field, sizeof(field), asked, "grant_type");
  assert_string_equal(field, "refresh_token");
  field_of(field, sizeof(field), asked, "client_id");
  assert_string_equal(field, "me&you");
  field_of(field, sizeof(field), asked, "client_secret");
  assert_string_equal(field, "hunter2");
  field_of(field, sizeof(field), asked, "refresh_token");
  assert_string_equal(field, "1//re/fresh");
}

static void a_token_that_is_not_given(void **state) {
  (void)state;
  static const char no[] = "{\"error\": \"invalid_grant\", \"error_description\": \"hunter2\"}";
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_user("user.json", "me"), 1);
  open_it();
  http_server_script(&f.tokens, "HTTP/1.1 400 Bad\r\nContent-Length: %zu\r\n\r\n%s", strlen(no), no);
  assert_int_equal(stat_it(), MC_PERMISSION_DENIED);
  assert_non_null(strstr(f.err.message, "user.json): "));
  assert_non_null(strstr(f.err.message, "gives no token for them (HTTP 400, invalid_grant)"));
  assert_null(strstr(f.err.message, "hunter2"));
  open_it();
  http_server_script(&f.tokens, JSON("", "{\"id_token\": \"x\"}"));
  assert_int_equal(stat_it(), MC_PROTOCOL);
}

/* ---- other accounts ---- */

static void somebody_elses_token_is_exchanged(void **state) {
  (void)state;
  char text[1000], field[200];
  const char *subject = write_file("subject.json", "{\"id_token\": \"sub/ject\"}");
  snprintf(
      text, sizeof(text),
      "{\"type\": \"external_account\", \"audience\": \"//iam/pool\", \"subject_token_type\": "
      "\"urn:ietf:params:oauth:token-type:jwt\", \"token_url\": \"%s/sts\", \"service_account_impersonation_url\": "
      "\"%s/impersonate\", \"credential_source\": {\"file\": \"%s\", \"format\": {\"type\": \"json\", "
      "\"subject_token_field_name\": \"id_token\"}}}",
      f.tokens.origin, f.tokens.origin, subject);
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_file("external.json", text), 1);
  open_it();
  http_server_script(&f.tokens, JSON("", LONG("sts.one")));
  http_server_script(&f.tokens,
                     JSON("", "{\"accessToken\": \"ya29.acted\", \"expireTime\": \"2100-01-01T00:00:00Z\"}"));
  http_server_script(&f.store, JSON("", RESOURCE));
  assert_int_equal(stat_it(), MC_OK);
  assert_sent(&f.store, 0, "Authorization: Bearer ya29.acted\r\n");
  const char *asked = http_server_request(&f.tokens, 0);
  assert_non_null(strstr(asked, "POST /sts HTTP"));
  field_of(field, sizeof(field), asked, "subject_token");
  assert_string_equal(field, "sub/ject");
  field_of(field, sizeof(field), asked, "audience");
  assert_string_equal(field, "//iam/pool");
  field_of(field, sizeof(field), asked, "scope");
  assert_string_equal(field, "https://www.googleapis.com/auth/cloud-platform");
  assert_sent(&f.tokens, 1, "POST /impersonate HTTP");
  assert_sent(&f.tokens, 1, "Authorization: Bearer sts.one\r\n");
  assert_sent(&f.tokens, 1, "Content-Type: application/json\r\n");
  assert_sent(&f.tokens, 1, "{\"scope\":[\"https://www.googleapis.com/auth/devstorage.read_only\"]");
}

static void somebody_elses_token_may_be_at_a_url(void **state) {
  (void)state;
  char text[1000], field[200];
  snprintf(text, sizeof(text),
           "{\"type\": \"external_account\", \"audience\": \"a\", \"subject_token_type\": \"b\", \"token_url\": "
           "\"%s/sts\", \"credential_source\": {\"url\": \"%s/subject\", \"headers\": {\"Metadata\": \"True\"}}}",
           f.tokens.origin, f.tokens.origin);
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_file("external.json", text), 1);
  open_it();
  http_server_script(&f.tokens, JSON("", "subject.token\n"));
  http_server_script(&f.tokens, JSON("", LONG("sts.one")));
  http_server_script(&f.store, JSON("", RESOURCE));
  assert_int_equal(stat_it(), MC_OK);
  assert_sent(&f.tokens, 0, "GET /subject HTTP");
  assert_sent(&f.tokens, 0, "Metadata: True\r\n");
  field_of(field, sizeof(field), http_server_request(&f.tokens, 1), "subject_token");
  assert_string_equal(field, "subject.token");
  field_of(field, sizeof(field), http_server_request(&f.tokens, 1), "scope");
  assert_string_equal(field, "https://www.googleapis.com/auth/devstorage.read_only");
  assert_sent(&f.store, 0, "Authorization: Bearer sts.one\r\n");
}

static void one_acts_for_another(void **state) {
  (void)state;
  char text[1000];
  snprintf(text, sizeof(text),
           "{\"type\": \"impersonated_service_account\", \"service_account_impersonation_url\": \"%s/impersonate\", "
           "\"delegates\": [\"d1\"], \"source_credentials\": {\"type\": \"authorized_user\", \"client_id\": \"me\", "
           "\"client_secret\": \"s\", \"refresh_token\": \"r\", \"token_uri\": \"%s/token\"}}",
           f.tokens.origin, f.tokens.origin);
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_file("acting.json", text), 1);
  open_it();
  http_server_script(&f.tokens, JSON("", LONG("ya29.mine")));
  http_server_script(&f.tokens,
                     JSON("", "{\"accessToken\": \"ya29.acted\", \"expireTime\": \"2100-01-01T00:00:00Z\"}"));
  http_server_script(&f.store, JSON("", RESOURCE));
  assert_int_equal(stat_it(), MC_OK);
  assert_sent(&f.tokens, 0, "POST /token HTTP");
  assert_sent(&f.tokens, 1, "Authorization: Bearer ya29.mine\r\n");
  assert_sent(&f.tokens, 1, "\"delegates\":[\"d1\"]");
  assert_sent(&f.store, 0, "Authorization: Bearer ya29.acted\r\n");
}

/* ---- the machine ---- */

static void the_machine_is_asked(void **state) {
  (void)state;
  setenv("GCE_METADATA_HOST", f.tokens.origin + strlen("http://"), 1);
  open_it();
  http_server_script(&f.tokens, JSON("Metadata-Flavor: Google\r\n", LONG("ya29.machine")));
  http_server_script(&f.store, JSON("", RESOURCE));
  assert_int_equal(stat_it(), MC_OK);
  assert_sent(&f.tokens, 0, "GET /computeMetadata/v1/instance/service-accounts/default/token HTTP");
  assert_sent(&f.tokens, 0, "Metadata-Flavor: Google\r\n");
  assert_sent(&f.store, 0, "Authorization: Bearer ya29.machine\r\n");
  assert_string_equal(where(), "the machine's metadata service");
  /* Without an account: anonymous, once and for all. */
  open_it();
  http_server_script(&f.tokens, "HTTP/1.1 404 N\r\nMetadata-Flavor: Google\r\nContent-Length: 0\r\n\r\n");
  assert_string_equal(where(), "none: the machine has no service account");
  http_server_script(&f.store, EXPIRED);
  assert_int_equal(stat_it(), MC_PERMISSION_DENIED);
  assert_non_null(strstr(f.err.message, "none: the machine has no service account"));
  assert_null(strstr(http_server_request(&f.store, 1), "Authorization"));
  /* Where the operator says that it is, somebody else's answer, or none, is an error. */
  open_it();
  http_server_script(&f.tokens, JSON("", LONG("ya29.fake")));
  assert_int_equal(stat_it(), MC_UNAVAILABLE);
  assert_non_null(strstr(f.err.message, "GCE_METADATA_HOST"));
  /* It's known to be none. */
  setenv("NO_GCE_CHECK", "true", 1);
  open_it();
  assert_non_null(strstr(where(), "none: NO_GCE_CHECK"));
}

/* ---- the order ---- */

static void places_are_looked_at_in_order(void **state) {
  (void)state;
  char triton[300];
  setenv("GCE_METADATA_HOST", f.tokens.origin + strlen("http://"), 1);
  setenv("CLOUDSDK_CONFIG", f.folder, 1);
  write_user("application_default_credentials.json", "gcloud");
  write_user(".config/gcloud/application_default_credentials.json", "home");
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_user("application.json", "application"), 1);
  snprintf(triton, sizeof(triton), "{\"gs\": {\"gs://bucket\": \"%s\"}}", write_user("triton-gs.json", "triton"));
  setenv("TRITON_CLOUD_CREDENTIAL_PATH", write_file("triton.json", triton), 1);
  f.setting = (mc_setting){"file", strdup(write_user("team.json", "team"))};
  f.rule.credentials = "team";
  static const char *const ids[] = {"team", "triton", "application", "gcloud", "home"};
  static const char *const places[] = {"'team', by the rule for gs://", "TRITON_CLOUD_CREDENTIAL_PATH, \"gs://bucket\"",
                                       "GOOGLE_APPLICATION_CREDENTIALS", "gcloud's folder", "gcloud's folder"};
  for (size_t i = 0; i < 5; i++) {
    open_it();
    http_server_script(&f.tokens, JSON("", LONG("ya29.x")));
    assert_int_equal(strncmp(where(), places[i], strlen(places[i])), 0);
    assert_string_equal(f.access.identity, ids[i]);
    if (i == 0) f.rule.credentials = NULL;
    if (i == 1) unsetenv("TRITON_CLOUD_CREDENTIAL_PATH");
    if (i == 2) unsetenv("GOOGLE_APPLICATION_CREDENTIALS");
    if (i == 3) unsetenv("CLOUDSDK_CONFIG");
  }
  unlink(write_file(".config/gcloud/application_default_credentials.json", ""));
  open_it();
  http_server_script(&f.tokens, JSON("Metadata-Flavor: Google\r\n", LONG("ya29.machine")));
  assert_string_equal(where(), "the machine's metadata service");
  f.rule.credentials = "none";
  open_it();
  assert_int_equal(strncmp(where(), "none: the rule", 14), 0);
  free((char *)(uintptr_t)f.setting.value);
}

static void a_rules_token_may_be_in_a_file(void **state) {
  (void)state;
  f.setting = (mc_setting){"token_file", strdup(write_file("token", "ya29.first\n"))};
  f.rule.credentials = "team";
  open_it();
  http_server_script(&f.store, JSON("", RESOURCE));
  http_server_script(&f.store, JSON("", RESOURCE));
  assert_int_equal(stat_it(), MC_OK);
  write_file("token", "ya29.second");
  assert_int_equal(stat_it(), MC_OK);
  assert_sent(&f.store, 0, "Authorization: Bearer ya29.first\r\n");
  assert_sent(&f.store, 1, "Authorization: Bearer ya29.second\r\n");
  write_file("token", "two words");
  assert_int_equal(stat_it(), MC_INVALID_ARGUMENT);
  assert_null(strstr(f.err.message, "words"));
  unlink(f.setting.value);
  assert_int_equal(stat_it(), MC_INVALID_ARGUMENT);
  free((char *)(uintptr_t)f.setting.value);
  f.setting = (mc_setting){"anonymous", "true"};
  open_it();
  assert_int_equal(strncmp(where(), "none: 'team'", 12), 0);
}

static void an_emulator_gets_no_credentials(void **state) {
  (void)state;
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_user("user.json", "me"), 1);
  f.rule.endpoint = NULL;
  for (size_t i = 0; i < 2; i++) {
    setenv("STORAGE_EMULATOR_HOST", f.store.origin + (i ? strlen("http://") : 0), 1);
    open_it();
    http_server_script(&f.store, JSON("", RESOURCE));
    assert_int_equal(stat_it(), MC_OK);
    assert_null(strstr(http_server_request(&f.store, (unsigned)i), "Authorization"));
    assert_string_equal(where(), "none: STORAGE_EMULATOR_HOST is set");
    assert_string_equal(f.access.endpoint, f.store.origin);
  }
}

static void files_that_are_no_good(void **state) {
  (void)state;
  setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json", 1);
  open_it();
  assert_int_equal(stat_it(), MC_INVALID_ARGUMENT);
  assert_non_null(strstr(f.err.message, "GOOGLE_APPLICATION_CREDENTIALS (/nowhere/key.json): it can't be read"));
  setenv("GOOGLE_APPLICATION_CREDENTIALS", write_file("key.json", "hunter2"), 1);
  open_it();
  assert_int_equal(stat_it(), MC_INVALID_ARGUMENT);
  assert_null(strstr(f.err.message, "hunter2"));
  f.setting = (mc_setting){"access_key_id", "x"};
  f.rule.credentials = "team";
  mc_upstream_config config = {.struct_size = sizeof(config),
                               .origins = &f.rule,
                               .origin_count = 1,
                               .credentials = &f.team,
                               .credentials_count = 1};
  mc_upstream *upstream;
  f.team = (mc_credentials){"team", &f.setting, 1};
  assert_int_equal(gcs_upstream_ops.open(&upstream, &config, NULL), MC_INVALID_ARGUMENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(a_service_account_signs_who_it_is),
      TEST(keys_that_sign_nothing),
      TEST(a_token_that_is_refused_is_replaced_once),
      TEST(a_user_has_a_token_for_tokens),
      TEST(a_token_that_is_not_given),
      TEST(somebody_elses_token_is_exchanged),
      TEST(somebody_elses_token_may_be_at_a_url),
      TEST(one_acts_for_another),
      TEST(the_machine_is_asked),
      TEST(places_are_looked_at_in_order),
      TEST(a_rules_token_may_be_in_a_file),
      TEST(an_emulator_gets_no_credentials),
      TEST(files_that_are_no_good),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
