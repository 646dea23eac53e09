/* Keys that many threads want, and what operators say of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/upstream/http/keys.h"
#include "base/clock.h"

static const mc_call forever = {INT64_MAX, NULL};

/* ---- a source of keys, and its ring ---- */

struct fixture {
  atomic_int got;
  int64_t lives_ms; /* of the next keys; 0: for ever; < 0: they have expired */
  mc_status status;
  bool blocks, none; /* none: what is got shows nothing */
  sem_t inside, go_on;
  struct keyring *ring;
};

static mc_status get(void *user, struct keys **out, const mc_call *call, mc_error *err) {
  struct fixture *f = user;
  char token[32];
  (void)call;
  if (f->blocks) {
    sem_post(&f->inside);
    sem_wait(&f->go_on);
  }
  int number = atomic_fetch_add(&f->got, 1) + 1;
  if (f->status) return mc_error_set(err, f->status, "test", "failure %d", number);
  snprintf(token, sizeof(token), "token %d", number);
  *out = keys_new("the test", NULL, NULL, f->none ? NULL : token, f->lives_ms ? clock_wall_ms() + f->lives_ms : 0);
  return MC_OK;
}

static void begin(struct fixture *f) {
  memset(f, 0, sizeof(*f));
  sem_init(&f->inside, 0, 0);
  sem_init(&f->go_on, 0, 0);
  f->ring = keyring_new(get, f, true);
  assert_non_null(f->ring);
}

static void end(struct fixture *f) {
  keyring_free(f->ring);
  sem_destroy(&f->inside);
  sem_destroy(&f->go_on);
}

static void assert_token(struct fixture *f, const char *token) {
  struct keys *keys;
  assert_int_equal(keyring_keys(f->ring, &keys, &forever, NULL), MC_OK);
  assert_string_equal(keys->token, token);
  keys_release(keys);
}

static void *ask(void *user) {
  struct fixture *f = user;
  struct keys *keys = NULL;
  mc_status status = keyring_keys(f->ring, &keys, &forever, NULL);
  char *token = keys ? strdup(keys->token) : NULL;
  keys_release(keys);
  return status ? NULL : token;
}

static void one_gets_them_for_all(void **state) {
  (void)state;
  struct fixture f;
  pthread_t threads[8];
  begin(&f);
  f.blocks = true;
  for (int i = 0; i < 8; i++) assert_int_equal(pthread_create(&threads[i], NULL, ask, &f), 0);
  sem_wait(&f.inside);
  sem_post(&f.go_on);
  for (int i = 0; i < 8; i++) {
    void *token;
    pthread_join(threads[i], &token);
    assert_string_equal(token, "token 1");
    free(token);
  }
  assert_int_equal(f.got, 1);
  end(&f);
}

/* There is nothing to wait for but time itself. */
static void wait_until_wall(int64_t ms) {
  while (clock_wall_ms() < ms) usleep(1000);
}

static void they_are_renewed_while_others_go_on_with_those_of_before(void **state) {
  (void)state;
  struct fixture f;
  pthread_t thread;
  void *token;
  begin(&f);
  f.lives_ms = 20000;
  struct keys *keys;
  assert_int_equal(keyring_keys(f.ring, &keys, &forever, NULL), MC_OK);
  assert_token(&f, "token 1");
  assert_int_equal(f.got, 1);
  keys_release(keys);
  end(&f);

  begin(&f);
  f.lives_ms = 2000;
  assert_int_equal(keyring_keys(f.ring, &keys, &forever, NULL), MC_OK);
  wait_until_wall(keys->expires_at - 450); /* in the last quarter of their time */
  f.blocks = true;
  f.lives_ms = 0;
  assert_int_equal(pthread_create(&thread, NULL, ask, &f), 0);
  sem_wait(&f.inside);
  struct keys *meanwhile = NULL;
  mc_status status = keyring_keys(f.ring, &meanwhile, &forever, NULL);
  sem_post(&f.go_on);
  pthread_join(thread, &token);
  assert_int_equal(status, MC_OK); /* without waiting: else this would hang */
  assert_ptr_equal(meanwhile, keys);
  assert_string_equal(token, "token 2");
  free(token);
  keys_release(meanwhile);
  keys_release(keys);
  f.blocks = false;
  assert_token(&f, "token 2");
  assert_int_equal(f.got, 2);
  end(&f);
}

static void keys_that_can_not_be_renewed_are_used_until_they_expire(void **state) {
  (void)state;
  struct fixture f;
  struct keys *keys;
  mc_error err = MC_ERROR_INIT;
  begin(&f);
  f.lives_ms = 400;
  assert_int_equal(keyring_keys(f.ring, &keys, &forever, NULL), MC_OK);
  int64_t expires_at = keys->expires_at;
  keys_release(keys);
  f.status = MC_UNAVAILABLE;
  wait_until_wall(expires_at - 90);
  keys = NULL;
  mc_status status = keyring_keys(f.ring, &keys, &forever, NULL);
  assert_true(status == MC_OK || clock_wall_ms() >= expires_at);
  keys_release(keys);
  wait_until_wall(expires_at);
  assert_int_equal(keyring_keys(f.ring, &keys, &forever, &err), MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "failure"));
  end(&f);
}

/* A metadata service that did not answer once looks like a machine that has none. */
static void who_had_keys_does_not_go_on_without(void **state) {
  (void)state;
  struct fixture f;
  struct keys *keys;
  mc_error err = MC_ERROR_INIT;
  begin(&f);
  f.none = true;
  assert_int_equal(keyring_keys(f.ring, &keys, &forever, NULL), MC_OK);
  assert_null(keys->token);
  keys_release(keys);
  end(&f);

  begin(&f);
  assert_int_equal(keyring_keys(f.ring, &keys, &forever, NULL), MC_OK);
  assert_true(keyring_refuse(f.ring, keys));
  keys_release(keys);
  f.none = true;
  assert_int_equal(keyring_keys(f.ring, &keys, &forever, &err), MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "the test"));
  end(&f);
}

static void a_failure_is_not_repeated_at_once(void **state) {
  (void)state;
  struct fixture f;
  struct keys *keys;
  begin(&f);
  f.status = MC_PERMISSION_DENIED;
  for (int i = 0; i < 5; i++) {
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(keyring_keys(f.ring, &keys, &forever, &err), MC_PERMISSION_DENIED);
    assert_string_equal(err.message, "failure 1");
  }
  end(&f);

  begin(&f);
  f.status = MC_CANCELLED; /* which was somebody else's call */
  assert_int_equal(keyring_keys(f.ring, &keys, &forever, NULL), MC_CANCELLED);
  f.status = MC_OK;
  assert_token(&f, "token 2");
  end(&f);
}

static void what_has_expired_when_it_comes_is_an_error(void **state) {
  (void)state;
  struct fixture f;
  struct keys *keys;
  begin(&f);
  f.lives_ms = -1;
  assert_int_equal(keyring_keys(f.ring, &keys, &forever, NULL), MC_PERMISSION_DENIED);
  assert_int_equal(f.got, 1);
  end(&f);
}

static void refused_keys_are_got_anew_but_not_again_and_again(void **state) {
  (void)state;
  struct fixture f;
  struct keys *first, *second;
  begin(&f);
  assert_int_equal(keyring_keys(f.ring, &first, &forever, NULL), MC_OK);
  assert_true(keyring_refuse(f.ring, first));
  assert_true(keyring_refuse(f.ring, first)); /* another thread's: there are others by now */
  assert_int_equal(keyring_keys(f.ring, &second, &forever, NULL), MC_OK);
  assert_string_equal(second->token, "token 2");
  assert_string_equal(first->token, "token 1");
  assert_true(keyring_refuse(f.ring, first));
  assert_false(keyring_refuse(f.ring, second));
  assert_token(&f, "token 2");
  keys_release(first);
  keys_release(second);
  end(&f);
}

static void who_waits_looks_at_the_call(void **state) {
  (void)state;
  struct fixture f;
  pthread_t thread;
  struct keys *keys;
  void *token;
  mc_call hurried = {deadline_in_ms(1), NULL};
  begin(&f);
  f.blocks = true;
  assert_int_equal(pthread_create(&thread, NULL, ask, &f), 0);
  sem_wait(&f.inside);
  mc_status status = keyring_keys(f.ring, &keys, &hurried, NULL);
  sem_post(&f.go_on);
  pthread_join(thread, &token);
  free(token);
  assert_int_equal(status, MC_DEADLINE_EXCEEDED);
  end(&f);
}

/* ---- what operators say ---- */

static char *write_triton(const char *text) {
  char path[] = "/tmp/modelcache-keys-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, strlen(text)), strlen(text));
  close(fd);
  setenv("TRITON_CLOUD_CREDENTIAL_PATH", path, 1);
  return strdup(path);
}

static void unlink_triton(char *path) {
  unlink(path);
  free(path);
  unsetenv("TRITON_CLOUD_CREDENTIAL_PATH");
}

static const char *setting(const mc_credentials *credentials, const char *key) {
  for (size_t i = 0; credentials && i < credentials->count; i++) {
    if (strcmp(credentials->settings[i].key, key) == 0) return credentials->settings[i].value;
  }
  return NULL;
}

static void rules_come_first_then_tritons_longest_prefix(void **state) {
  (void)state;
  static const mc_setting team[] = {{"access_key_id", "T"}, {"secret_access_key", "s"}};
  static const mc_credentials named[] = {{"other", NULL, 0}, {"team", team, 2}};
  static const mc_origin_rule rules[] = {
      {.prefix = "s3://ruled/", .allowed = true, .credentials = "team", .revalidate_after_ms = MC_INHERIT},
      {.prefix = "s3://open/", .allowed = true, .credentials = "none", .revalidate_after_ms = MC_INHERIT},
      {.prefix = "s3://fast/", .allowed = true, .parallelism = 4, .revalidate_after_ms = MC_INHERIT}};
  mc_upstream_config config = {
      .origins = rules, .origin_count = 3, .credentials = named, .credentials_count = 2, .struct_size = sizeof(config)};
  struct keybook *book;
  struct keybook_page page;
  char *path = write_triton(
      "{\"gs\": {\"\": \"/g.json\"}, \"s3\": {\"\": {\"key_id\": \"D\", \"secret_key\": \"x\", \"profile\": \"\"},"
      "\"s3://bucket\": {\"key_id\": \"B\", \"secret_key\": \"y\", \"region\": \"r\", \"session_token\": \"t\"},"
      "\"s3://bucket/deep/\": {\"profile\": \"P\"}, \"s3://http://HOST:9000/b\": {\"key_id\": \"H\"}}}");
  assert_int_equal(keybook_new(&book, &config, "s3", NULL), MC_OK);
  static const struct {
    const char *url;
    enum keybook_place place;
    const char *key, *value;
  } cases[] = {
      {"s3://ruled/k", KEYBOOK_RULE, "access_key_id", "T"},
      {"s3://open/k", KEYBOOK_NONE, "access_key_id", NULL},
      {"s3://fast/k", KEYBOOK_TRITON, "access_key_id", "D"},
      {"s3://any/k", KEYBOOK_TRITON, "secret_access_key", "x"},
      {"s3://any/k", KEYBOOK_TRITON, "profile", NULL},
      {"s3://bucket/k", KEYBOOK_TRITON, "session_token", "t"},
      {"s3://bucket2/k", KEYBOOK_TRITON, "access_key_id", "B"}, /* as Triton does */
      {"s3://bucket/deep/k", KEYBOOK_TRITON, "profile", "P"},
      {"s3://bucket/deeper", KEYBOOK_TRITON, "region", "r"},
      {"s3://http://host:9000/b/k", KEYBOOK_TRITON, "access_key_id", "H"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    assert_int_equal(keybook_find(book, &page, cases[i].url, NULL), MC_OK);
    assert_int_equal(page.place, cases[i].place);
    const char *value = setting(page.credentials, cases[i].key);
    if (cases[i].value) assert_string_equal(value, cases[i].value);
    if (!cases[i].value) assert_null(value);
    assert_true(page.place == KEYBOOK_NONE || page.number < keybook_count(book));
    assert_null(strstr(page.where, "\"y\""));
  }
  keybook_free(book);
  assert_int_equal(keybook_new(&book, &config, "gs", NULL), MC_OK);
  assert_int_equal(keybook_find(book, &page, "gs://b/k", NULL), MC_OK);
  assert_string_equal(setting(page.credentials, "file"), "/g.json");
  keybook_free(book);
  assert_int_equal(keybook_new(&book, &config, "as", NULL), MC_OK);
  assert_int_equal(keybook_find(book, &page, "as://a/c/k", NULL), MC_OK);
  assert_int_equal(page.place, KEYBOOK_NOTHING);
  keybook_free(book);
  unlink_triton(path);
}

static void a_file_that_can_not_be_used_is_an_error_where_it_counts(void **state) {
  (void)state;
  static const char *const texts[] = {"",
                                      "hunter2",
                                      "[]",
                                      "{\"s3\": []}",
                                      "{\"s3\": {\"\": 5}}",
                                      "{\"s3\": {\"\": {\"key_id\": 5}}}",
                                      "{\"s3\": {\"no url\": {\"key_id\": \"hunter2\"}}}",
                                      "{\"s3\": {\"\": {}, \"\": {\"secret_key\": \"hunter2\"}}}"};
  for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
    mc_upstream_config config = {.struct_size = sizeof(config)};
    struct keybook *book;
    struct keybook_page page;
    mc_error err = MC_ERROR_INIT;
    char *path = write_triton(texts[i]);
    assert_int_equal(keybook_new(&book, &config, "s3", NULL), MC_OK);
    assert_int_equal(keybook_find(book, &page, "s3://b/k", &err), MC_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "TRITON_CLOUD_CREDENTIAL_PATH"));
    assert_null(strstr(err.message, "hunter2"));
    keybook_free(book);
    unlink_triton(path);
  }
}

static void rules_name_credentials_of_the_right_kind(void **state) {
  (void)state;
  static const mc_setting hub[] = {{"token", "hunter2"}};
  static const mc_credentials named[] = {{"hub", hub, 1}};
  static const mc_origin_rule rules[] = {
      {.prefix = "hf://", .allowed = true, .credentials = "hub", .revalidate_after_ms = MC_INHERIT},
      {.prefix = "s3://bucket/", .allowed = true, .credentials = "hub", .revalidate_after_ms = MC_INHERIT}};
  static const char *const of_hub[] = {"token", "token_file", NULL}, *const of_s3[] = {"access_key_id", NULL};
  mc_upstream_config config = {
      .origins = rules, .origin_count = 2, .credentials = named, .credentials_count = 1, .struct_size = sizeof(config)};
  struct keybook *book;
  mc_error err = MC_ERROR_INIT;
  assert_int_equal(keybook_new(&book, &config, "hf", NULL), MC_OK);
  assert_int_equal(keybook_check(book, "hf", of_hub, &err), MC_OK);
  assert_int_equal(keybook_check(book, "gs", of_s3, &err), MC_OK);
  assert_int_equal(keybook_check(book, "s3", of_s3, &err), MC_INVALID_ARGUMENT);
  assert_non_null(strstr(err.message, "'hub'"));
  assert_non_null(strstr(err.message, "'token'"));
  assert_null(strstr(err.message, "hunter2"));
  keybook_free(book);
}

int main(void) {
  unsetenv("TRITON_CLOUD_CREDENTIAL_PATH");
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_gets_them_for_all),
      cmocka_unit_test(they_are_renewed_while_others_go_on_with_those_of_before),
      cmocka_unit_test(keys_that_can_not_be_renewed_are_used_until_they_expire),
      cmocka_unit_test(who_had_keys_does_not_go_on_without),
      cmocka_unit_test(a_failure_is_not_repeated_at_once),
      cmocka_unit_test(what_has_expired_when_it_comes_is_an_error),
      cmocka_unit_test(refused_keys_are_got_anew_but_not_again_and_again),
      cmocka_unit_test(who_waits_looks_at_the_call),
      cmocka_unit_test(rules_come_first_then_tritons_longest_prefix),
      cmocka_unit_test(a_file_that_can_not_be_used_is_an_error_where_it_counts),
      cmocka_unit_test(rules_name_credentials_of_the_right_kind),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
