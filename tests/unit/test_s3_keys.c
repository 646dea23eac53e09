/* Where the s3 upstream finds its keys, and in which region a bucket is, against scripted services. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <modelcache/backend/upstream.h>

#include "backends/upstream/s3/environment.h"
#include "base/clock.h"
#include "base/io.h"
#include "http_server.h"

#define HEAD_4    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"e\"\r\n\r\n"
#define BODY_4    HEAD_4 "body"
#define NOT_FOUND "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
#define URL       "s3://bucket/key"
#define ARN       "arn:aws:iam::1:role/r"

extern const mc_upstream_ops s3_upstream_ops;
static const mc_call forever = {INT64_MAX, NULL};

/* `s3` also answers as STS; `machine` as the container's agent and as the machine's metadata service. */
struct fixture {
  struct http_server s3, machine;
  char folder[64];
  mc_upstream_config config;
  mc_upstream *upstream;
  mc_info info;
  mc_error err;
};

static void put_env(enum s3_variable variable, const char *value) {
  setenv(s3_variable_name(variable), value, 1);
}

static void write_file(struct fixture *f, const char *name, enum s3_variable variable, const char *text) {
  char *path = format_str("%s/%s", f->folder, name);
  assert_int_equal(file_replace(path, text, strlen(text), 0600, false), 0);
  put_env(variable, path);
  free(path);
}

static void begin(struct fixture *f) {
  memset(f, 0, sizeof(*f));
  for (int i = 0; i < S3_VARIABLES; i++) unsetenv(s3_variable_name((enum s3_variable)i));
  unsetenv("TRITON_CLOUD_CREDENTIAL_PATH");
  http_server_start(&f->s3);
  http_server_start(&f->machine);
  strcpy(f->folder, "/tmp/modelcache-s3-XXXXXX");
  assert_non_null(mkdtemp(f->folder));
  put_env(S3_HOME, f->folder);
  put_env(S3_ENDPOINT_URL, f->s3.origin);
  put_env(S3_METADATA_ENDPOINT, f->machine.origin);
  f->config = (mc_upstream_config){
      .struct_size = sizeof(f->config), .connect_timeout_ms = 5000, .stall_timeout_ms = 5000, .retries = 0};
}

static void end(struct fixture *f) {
  if (f->upstream) s3_upstream_ops.close(f->upstream);
  http_server_stop(&f->s3);
  http_server_stop(&f->machine);
  remove_all(f->folder);
}

static mc_status stat_url(struct fixture *f, const char *url) {
  f->err = (mc_error)MC_ERROR_INIT;
  if (!f->upstream) assert_int_equal(s3_upstream_ops.open(&f->upstream, &f->config, &f->err), MC_OK);
  return s3_upstream_ops.stat(f->upstream, url, &f->info, &forever, &f->err);
}

/* How the last request to S3 was signed: what is after "Credential=". */
static bool was_signed_by(struct fixture *f, const char *id) {
  char *text = format_str("Credential=%s/", id);
  bool found = strstr(http_server_request(&f->s3, http_server_asked(&f->s3) - 1), text) != NULL;
  free(text);
  return found;
}

static bool last_has(struct fixture *f, const char *text) {
  return strstr(http_server_request(&f->s3, http_server_asked(&f->s3) - 1), text) != NULL;
}

/* In RFC 3339, so many seconds from now. */
static const char *in_seconds(char text[32], int seconds) {
  time_t time = (time_t)(clock_wall_ms() / 1000) + seconds;
  struct tm parts;
  strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&time, &parts));
  return text;
}

static void script_json(struct http_server *server, const char *id, int seconds) {
  char when[32], body[512];
  snprintf(body, sizeof(body),
           "{\"Code\":\"Success\",\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"S\",\"Token\":\"T-%s\",\"Expiration\":"
           "\"%s\"}",
           id, id, in_seconds(when, seconds));
  http_server_script(server, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
}

static void script_sts(struct fixture *f, const char *action, const char *id, int seconds) {
  char when[32], body[1024];
  snprintf(body, sizeof(body),
           "<%sResponse><%sResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>S</SecretAccessKey>"
           "<SessionToken>T-%s</SessionToken><Expiration>%s</Expiration></Credentials></%sResult></%sResponse>",
           action, action, id, id, in_seconds(when, seconds), action, action);
  http_server_script(&f->s3, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
}

static void script_error(struct fixture *f, int status, const char *code, const char *more) {
  char body[512];
  snprintf(body, sizeof(body), "<Error><Code>%s</Code>%s</Error>", code, more);
  http_server_script(&f->s3, "HTTP/1.1 %d No\r\nContent-Length: %zu\r\n\r\n%s", status, strlen(body), body);
}

static void script_machine(struct fixture *f, const char *id, int seconds) {
  http_server_script(&f->machine, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsession");
  http_server_script(&f->machine, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nrole");
  script_json(&f->machine, id, seconds);
}

/* ---- the order ---- */

static void a_rule_comes_before_the_environment(void **state) {
  (void)state;
  struct fixture f;
  const mc_setting settings[] = {{"access_key_id", "RULE"}, {"secret_access_key", "S"}, {"region", "eu-rule-1"}};
  const mc_credentials named = {"team", settings, 3};
  const mc_origin_rule rules[] = {{.prefix = "s3://bucket/", .allowed = true, .credentials = "team"},
                                  {.prefix = "s3://public/", .allowed = true, .credentials = "none"}};
  begin(&f);
  put_env(S3_ACCESS_KEY_ID, "ENV");
  put_env(S3_SECRET_ACCESS_KEY, "S");
  put_env(S3_REGION, "eu-env-1");
  f.config.origins = rules;
  f.config.origin_count = 2;
  f.config.credentials = &named;
  f.config.credentials_count = 1;
  for (int i = 0; i < 3; i++) http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_true(was_signed_by(&f, "RULE") && last_has(&f, "/eu-rule-1/s3/"));
  assert_int_equal(stat_url(&f, "s3://other/key"), MC_OK);
  assert_true(was_signed_by(&f, "ENV") && last_has(&f, "/eu-env-1/s3/"));
  assert_int_equal(stat_url(&f, "s3://public/key"), MC_OK);
  assert_false(last_has(&f, "Authorization"));
  end(&f);
}

static void tritons_file_comes_before_the_environment(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  put_env(S3_ACCESS_KEY_ID, "ENV");
  put_env(S3_SECRET_ACCESS_KEY, "S");
  write_file(&f, "credentials", S3_CREDENTIALS_FILE, "[p]\naws_access_key_id=PROFILE\naws_secret_access_key=S\n");
  char *path = format_str("%s/triton", f.folder);
  const char *text =
      "{\"s3\": {\"s3://bucket\": {\"key_id\": \"TRITON\", \"secret_key\": \"S\", \"session_token\": \"TT\","
      " \"region\": \"eu-t-1\"}, \"s3://profile\": {\"profile\": \"p\"}}}";
  assert_int_equal(file_replace(path, text, strlen(text), 0600, false), 0);
  setenv("TRITON_CLOUD_CREDENTIAL_PATH", path, 1);
  free(path);
  for (int i = 0; i < 3; i++) http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_true(was_signed_by(&f, "TRITON") && last_has(&f, "/eu-t-1/") && last_has(&f, "x-amz-security-token: TT"));
  assert_int_equal(stat_url(&f, "s3://profile/key"), MC_OK);
  assert_true(was_signed_by(&f, "PROFILE"));
  assert_int_equal(stat_url(&f, "s3://another/key"), MC_OK);
  assert_true(was_signed_by(&f, "ENV"));
  end(&f);
  unsetenv("TRITON_CLOUD_CREDENTIAL_PATH");
}

static void a_profile_comes_after_the_environment(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  write_file(&f, "credentials", S3_CREDENTIALS_FILE,
             "[default]\naws_access_key_id=DEFAULT\naws_secret_access_key=S\n[other]\naws_access_key_id=OTHER\n"
             "aws_secret_access_key=S\naws_session_token=T\n");
  write_file(&f, "config", S3_CONFIG_FILE, "[profile other]\nregion = ap-p-1\n");
  put_env(S3_PROFILE, "other");
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_true(was_signed_by(&f, "OTHER") && last_has(&f, "/ap-p-1/") && last_has(&f, "x-amz-security-token: T"));
  end(&f);
}

static void a_profile_that_is_not_there_is_an_error(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  put_env(S3_PROFILE, "missing");
  assert_int_equal(stat_url(&f, URL), MC_INVALID_ARGUMENT);
  assert_non_null(strstr(f.err.message, "'missing'"));
  end(&f);
}

static void what_cannot_be_used_is_refused_by_name(void **state) {
  (void)state;
  static const char *const lines[][2] = {{"credential_process = /bin/get", "credential_process"},
                                         {"sso_session = x", "single sign-on"},
                                         {"role_arn = " ARN "\nsource_profile = p\nmfa_serial = 1", "mfa_serial"},
                                         {"role_arn = " ARN "\nsource_profile = p", "in a circle"},
                                         {"role_arn = " ARN, "source_profile"},
                                         {"aws_access_key_id = x", "only one of"}};
  for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
    struct fixture f;
    char text[400];
    begin(&f);
    snprintf(text, sizeof(text), "[default]\n%s\n[profile p]\nrole_arn = x\nsource_profile = default\n", lines[i][0]);
    write_file(&f, "config", S3_CONFIG_FILE, text);
    assert_true(stat_url(&f, URL) != MC_OK);
    assert_non_null(strstr(f.err.message, lines[i][1]));
    assert_int_equal(http_server_asked(&f.s3) + http_server_asked(&f.machine), 0);
    end(&f);
  }
}

static void a_profile_names_a_role(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  write_file(&f, "config", S3_CONFIG_FILE,
             "[default]\nrole_arn = " ARN "\nsource_profile = base\nexternal_id = e/x\nrole_session_name = me\n"
             "region = eu-x-1\n[profile base]\naws_access_key_id = BASE\naws_secret_access_key = S\n");
  script_sts(&f, "AssumeRole", "ROLE", 3600);
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  const char *asked = http_server_request(&f.s3, 0);
  assert_non_null(strstr(asked, "POST / HTTP/1.1\r\n"));
  assert_non_null(strstr(asked, "Credential=BASE/"));
  assert_non_null(strstr(asked, "/eu-x-1/sts/aws4_request"));
  assert_non_null(strstr(asked, "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr"
                                "&RoleSessionName=me&ExternalId=e%2Fx"));
  assert_true(was_signed_by(&f, "ROLE") && last_has(&f, "x-amz-security-token: T-ROLE"));
  end(&f);
}

static void a_web_identity_is_shown_to_sts(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  write_file(&f, "token", S3_WEB_IDENTITY_TOKEN_FILE, "jwt.of+me\n");
  put_env(S3_ROLE_ARN, ARN);
  put_env(S3_ENDPOINT_URL_STS, f.s3.origin);
  script_sts(&f, "AssumeRoleWithWebIdentity", "WEB", 3600);
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  const char *asked = http_server_request(&f.s3, 0);
  assert_non_null(strstr(asked, "&WebIdentityToken=jwt.of%2Bme"));
  assert_null(strstr(asked, "Authorization"));
  assert_true(was_signed_by(&f, "WEB"));
  end(&f);
}

static void sts_that_refuses_is_an_error_that_names_the_role(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  write_file(&f, "token", S3_WEB_IDENTITY_TOKEN_FILE, "secret.jwt");
  put_env(S3_ROLE_ARN, ARN);
  script_error(&f, 403, "AccessDenied", "");
  assert_int_equal(stat_url(&f, URL), MC_PERMISSION_DENIED);
  assert_non_null(strstr(f.err.message, ARN));
  assert_null(strstr(f.err.message, "secret.jwt"));
  end(&f);
}

static void the_containers_agent_is_asked_with_its_token(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  char *url = format_str("%s/creds?id=1", f.machine.origin);
  put_env(S3_CONTAINER_FULL_URI, url);
  free(url);
  write_file(&f, "token", S3_CONTAINER_TOKEN_FILE, "Bearer abc\n");
  script_json(&f.machine, "CONTAINER", 3600);
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_true(was_signed_by(&f, "CONTAINER"));
  const char *asked = http_server_request(&f.machine, 0);
  assert_non_null(strstr(asked, "GET /creds?id=1 HTTP/1.1\r\n"));
  assert_non_null(strstr(asked, "Authorization: Bearer abc\r\n"));
  end(&f);
}

static void a_containers_agent_elsewhere_gets_no_token(void **state) {
  (void)state;
  static const char *const urls[] = {"http://example.com/creds", "http://127.0.0.1.example.com/creds",
                                     "ftp://127.0.0.1/"};
  for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
    struct fixture f;
    begin(&f);
    put_env(S3_CONTAINER_FULL_URI, urls[i]);
    put_env(S3_CONTAINER_TOKEN, "secret");
    assert_int_equal(stat_url(&f, URL), MC_INVALID_ARGUMENT);
    assert_null(strstr(f.err.message, "secret"));
    end(&f);
  }
}

static void the_machine_is_asked_in_a_session(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  script_machine(&f, "MACHINE", 3600);
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_true(was_signed_by(&f, "MACHINE") && last_has(&f, "x-amz-security-token: T-MACHINE"));
  assert_non_null(strstr(http_server_request(&f.machine, 0), "PUT /latest/api/token HTTP/1.1\r\n"));
  assert_non_null(
      strstr(http_server_request(&f.machine, 2), "GET /latest/meta-data/iam/security-credentials/role HTTP/1.1\r\n"));
  assert_non_null(strstr(http_server_request(&f.machine, 2), "X-aws-ec2-metadata-token: session\r\n"));
  end(&f);
}

static void a_machine_that_is_busy_is_no_machine_without_keys(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  http_server_script(&f.machine, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
  assert_int_equal(stat_url(&f, URL), MC_UNAVAILABLE);
  assert_int_equal(http_server_asked(&f.s3), 0);
  end(&f);
}

static void without_any_it_is_asked_without(void **state) {
  (void)state;
  struct fixture f;
  mc_access access;
  begin(&f);
  http_server_script(&f.machine, NOT_FOUND);
  http_server_script(&f.s3, HEAD_4);
  http_server_script(&f.s3, HEAD_4);
  for (int i = 0; i < 2; i++) assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_false(last_has(&f, "Authorization"));
  assert_int_equal(http_server_asked(&f.machine), 1); /* that it's no machine of EC2 is remembered */
  assert_int_equal(s3_upstream_ops.explain(f.upstream, URL, &access, &forever, NULL), MC_OK);
  assert_string_equal(access.endpoint, f.s3.origin);
  assert_non_null(strstr(access.credentials, "none"));
  assert_string_equal(access.identity, "");
  end(&f);
}

static void a_machine_that_does_not_answer_is_none_of_ec2(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  http_server_script(&f.machine, "……");
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_false(last_has(&f, "Authorization"));
  end(&f);
}

static void the_machine_is_not_asked_where_that_is_disabled(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  put_env(S3_METADATA_DISABLED, "TRUE");
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_int_equal(http_server_asked(&f.machine), 0);
  end(&f);
}

/* ---- renewal ---- */

static mc_status write_sink(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  (void)data;
  (void)err;
  sink->offset += size;
  return MC_OK;
}

static void keys_that_have_expired_are_got_anew_while_it_is_read(void **state) {
  (void)state;
  struct fixture f;
  mc_source *source = NULL;
  mc_open_args args = {.url = URL};
  mc_sink sink = {.end = 2, .write = write_sink};
  begin(&f);
  script_machine(&f, "FIRST", 3600);
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(s3_upstream_ops.source_open(f.upstream, &args, &source, &f.info, &forever, NULL), MC_OK);
  script_error(&f, 400, "ExpiredToken", "");
  script_machine(&f, "SECOND", 3600);
  http_server_script(&f.s3,
                     "HTTP/1.1 206 Part\r\nContent-Length: 2\r\nContent-Range: bytes 0-1/4\r\nETag: \"e\"\r\n\r\nbo");
  assert_int_equal(s3_upstream_ops.source_read(source, &sink, &forever, NULL), MC_OK);
  assert_int_equal(sink.offset, 2);
  assert_true(was_signed_by(&f, "SECOND") && last_has(&f, "If-Match: \"e\"\r\n") &&
              last_has(&f, "Range: bytes=0-1\r\n"));
  s3_upstream_ops.source_close(source);
  end(&f);
}

static void when_keys_expire_is_told(void **state) {
  (void)state;
  struct fixture f;
  mc_access access;
  begin(&f);
  script_machine(&f, "FIRST", 3600);
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_int_equal(s3_upstream_ops.explain(f.upstream, URL, &access, &forever, NULL), MC_OK);
  assert_string_equal(access.credentials, "the machine's role role");
  assert_string_equal(access.identity, "FIRST");
  int64_t left = access.expires_at - clock_wall_ms();
  assert_true(left > 3500000 && left <= 3600000);
  end(&f);
}

static void a_file_that_has_changed_is_read_again_when_its_keys_are_refused(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  write_file(&f, "credentials", S3_CREDENTIALS_FILE, "[default]\naws_access_key_id=OLD\naws_secret_access_key=S\n");
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  write_file(&f, "credentials", S3_CREDENTIALS_FILE, "[default]\naws_access_key_id=NEW\naws_secret_access_key=S\n");
  http_server_script(&f.s3, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"); /* to HEAD: no body says why */
  script_error(&f, 403, "InvalidAccessKeyId", "");                           /* to GET */
  http_server_script(&f.s3, "HTTP/1.1 206 Part\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/4\r\n\r\nb");
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_true(was_signed_by(&f, "NEW"));
  end(&f);
}

/* ---- regions and errors ---- */

static void usual_keys(void) {
  put_env(S3_ACCESS_KEY_ID, "ENV");
  put_env(S3_SECRET_ACCESS_KEY, "very-secret");
}

static void the_region_is_learnt_from_a_header(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  usual_keys();
  http_server_script(&f.s3, "HTTP/1.1 301 No\r\nx-amz-bucket-region: eu-north-1\r\nContent-Length: 0\r\n\r\n");
  http_server_script(&f.s3, HEAD_4);
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_true(last_has(&f, "/eu-north-1/s3/"));
  assert_int_equal(stat_url(&f, "s3://bucket/another"), MC_OK); /* of the bucket it is known */
  assert_true(last_has(&f, "/eu-north-1/s3/"));
  assert_int_equal(http_server_asked(&f.s3), 3);
  end(&f);
}

static void the_region_is_learnt_from_an_error(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  usual_keys();
  http_server_script(&f.s3, "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n");
  script_error(&f, 400, "AuthorizationHeaderMalformed", "<Region>ap-x-2</Region>");
  http_server_script(&f.s3, "HTTP/1.1 206 Part\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/4\r\n\r\nb");
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_true(last_has(&f, "/ap-x-2/s3/"));
  end(&f);
}

static void a_key_that_looks_like_a_host_says_nothing_of_the_region(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  usual_keys();
  http_server_script(&f.s3, "HTTP/1.1 301 No\r\nx-amz-bucket-region: eu-north-1\r\nContent-Length: 0\r\n\r\n");
  http_server_script(&f.s3, HEAD_4);
  assert_int_equal(stat_url(&f, "s3://bucket/model.eu-north-1.bin"), MC_OK);
  assert_true(last_has(&f, "/eu-north-1/s3/"));
  end(&f);
}

static void a_region_that_does_not_help_is_no_circle(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  usual_keys();
  for (int i = 0; i < 2; i++) {
    http_server_script(&f.s3, "HTTP/1.1 301 No\r\nx-amz-bucket-region: eu-north-1\r\nContent-Length: 0\r\n\r\n");
  }
  script_error(&f, 301, "PermanentRedirect", "");
  assert_int_equal(stat_url(&f, URL), MC_PROTOCOL);
  end(&f);
}

static void errors_say_what_is_wrong(void **state) {
  (void)state;
  static const struct {
    int status;
    const char *code;
    mc_status expected;
    const char *says;
  } cases[] = {
      {404, "NoSuchKey", MC_NOT_FOUND, "does not exist"},
      {404, "NoSuchBucket", MC_NOT_FOUND, "no bucket 'bucket'"},
      {403, "AccessDenied", MC_PERMISSION_DENIED, "AWS_ACCESS_KEY_ID, ENV"},
      {403, "SignatureDoesNotMatch", MC_PERMISSION_DENIED, "the secret or the token is wrong"},
      {403, "InvalidTokenId", MC_PERMISSION_DENIED, "the secret or the token is wrong"},
      {403, "RequestTimeTooSkewed", MC_PERMISSION_DENIED, "clock"},
      {403, "InvalidObjectState", MC_PERMISSION_DENIED, "archived"},
      {400, "InvalidRequest", MC_PROTOCOL, "InvalidRequest"},
      {503, "SlowDown", MC_UNAVAILABLE, "SlowDown"},
      {400, "RequestTimeout", MC_UNAVAILABLE, "RequestTimeout"},
      {429, "TooManyRequests", MC_UNAVAILABLE, "HTTP 429"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct fixture f;
    begin(&f);
    usual_keys();
    http_server_script(&f.s3, "HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n", cases[i].status);
    for (int n = 0; n < 3; n++) script_error(&f, cases[i].status, cases[i].code, "<Message>very-secret</Message>");
    assert_int_equal(stat_url(&f, URL), cases[i].expected);
    if (cases[i].status != 503) assert_non_null(strstr(f.err.message, cases[i].says));
    assert_null(strstr(f.err.message, "very-secret"));
    end(&f);
  }
}

static void checksums_and_versions_are_told(void **state) {
  (void)state;
  struct fixture f;
  begin(&f);
  usual_keys();
  http_server_script(&f.s3, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"e-3\"\r\nx-amz-version-id: v1\r\n"
                            "x-amz-checksum-crc32c: AQIDBA==\r\nx-amz-checksum-type: FULL_OBJECT\r\n\r\n");
  http_server_script(&f.s3, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"e\"\r\nx-amz-version-id: null\r\n"
                            "x-amz-checksum-sha256: n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=\r\n\r\n");
  http_server_script(&f.s3, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"e\"\r\nx-amz-checksum-type: COMPOSITE\r\n"
                            "x-amz-checksum-crc32c: AQIDBA==-2\r\n\r\n");
  assert_int_equal(stat_url(&f, URL "?versionId=v1"), MC_OK);
  assert_true(last_has(&f, "HEAD /bucket/key?versionId=v1 HTTP/1.1\r\n"));
  assert_true(last_has(&f, "x-amz-checksum-mode: ENABLED\r\n"));
  assert_string_equal(f.info.validators.version, "v1");
  assert_int_equal(f.info.checksum.kind, MC_CHECKSUM_CRC32C);
  assert_memory_equal(f.info.checksum.bytes, "\1\2\3\4", 4);
  assert_false(f.info.has_digest);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_string_equal(f.info.validators.version, "");
  assert_true(f.info.has_digest && f.info.digest.bytes[0] == 0x9f);
  assert_int_equal(stat_url(&f, URL), MC_OK);
  assert_int_equal(f.info.checksum.kind, MC_CHECKSUM_NONE);
  end(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_rule_comes_before_the_environment),
      cmocka_unit_test(tritons_file_comes_before_the_environment),
      cmocka_unit_test(a_profile_comes_after_the_environment),
      cmocka_unit_test(a_profile_that_is_not_there_is_an_error),
      cmocka_unit_test(what_cannot_be_used_is_refused_by_name),
      cmocka_unit_test(a_profile_names_a_role),
      cmocka_unit_test(a_web_identity_is_shown_to_sts),
      cmocka_unit_test(sts_that_refuses_is_an_error_that_names_the_role),
      cmocka_unit_test(the_containers_agent_is_asked_with_its_token),
      cmocka_unit_test(a_containers_agent_elsewhere_gets_no_token),
      cmocka_unit_test(the_machine_is_asked_in_a_session),
      cmocka_unit_test(a_machine_that_is_busy_is_no_machine_without_keys),
      cmocka_unit_test(without_any_it_is_asked_without),
      cmocka_unit_test(a_machine_that_does_not_answer_is_none_of_ec2),
      cmocka_unit_test(the_machine_is_not_asked_where_that_is_disabled),
      cmocka_unit_test(keys_that_have_expired_are_got_anew_while_it_is_read),
      cmocka_unit_test(when_keys_expire_is_told),
      cmocka_unit_test(a_file_that_has_changed_is_read_again_when_its_keys_are_refused),
      cmocka_unit_test(the_region_is_learnt_from_a_header),
      cmocka_unit_test(the_region_is_learnt_from_an_error),
      cmocka_unit_test(a_key_that_looks_like_a_host_says_nothing_of_the_region),
      cmocka_unit_test(a_region_that_does_not_help_is_no_circle),
      cmocka_unit_test(errors_say_what_is_wrong),
      cmocka_unit_test(checksums_and_versions_are_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
