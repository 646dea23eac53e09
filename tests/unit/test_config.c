/* The server's configuration: flags before environment before file before defaults; what is wrong names itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../server/config.h"

static char path[] = "/tmp/modelcached-config-XXXXXX";
static char message[1024];
static struct server_options options;

static int set_up(void **state) {
  (void)state;
  strcpy(path + strlen(path) - 6, "XXXXXX");
  int fd = mkstemp(path);
  if (fd >= 0) close(fd);
  setenv("HOME", "/home/somebody", 1);
  unsetenv("XDG_CACHE_HOME");
  return fd < 0;
}

static int tear_down(void **state) {
  (void)state;
  config_free(&options);
  memset(&options, 0, sizeof(options));
  return unlink(path);
}

static void write_file(const char *text) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

/* Up to three words after "--config FILE". */
static int read_words(const char *a, const char *b, const char *c) {
  char *argv[] = {(char *)"modelcached", (char *)"--config", path, (char *)a, (char *)b, (char *)c, NULL};
  int argc = 3;
  while (argv[argc]) argc++;
  config_free(&options);
  *message = 0;
  return config_read(&options, argc, argv, message, sizeof(message));
}

static int read_text(const char *text) {
  write_file(text);
  return read_words(NULL, NULL, NULL);
}

static void refused(const char *text, const char *what) {
  char expected[600];
  snprintf(expected, sizeof(expected), "%s:%s", path, what);
  assert_int_equal(read_text(text), 2);
  assert_string_equal(message, expected);
}

static void refused_words(const char *a, const char *b, const char *what) {
  write_file("");
  assert_int_equal(read_words(a, b, NULL), 2);
  assert_string_equal(message, what);
}

static void test_defaults(void **state) {
  (void)state;
  assert_int_equal(read_text(""), -1);
  assert_string_equal(options.control, "127.0.0.1:7440");
  assert_int_equal(options.drain_ms, 30000);
  assert_string_equal(options.cache.schemes, "http,https,s3,gs,as,hf");
  assert_string_equal(options.cache.storage, "/home/somebody/.cache/modelcached");
  setenv("XDG_CACHE_HOME", "/cache", 1);
  assert_int_equal(read_text("# nothing\n"), -1);
  assert_string_equal(options.cache.storage, "/cache/modelcached");
  unsetenv("XDG_CACHE_HOME");
  assert_int_equal(read_text("---\n...\n"), -1);
}

static void test_each_goes_before_the_one_before(void **state) {
  (void)state;
  const char *file = "retries: 7\nparallelism: 5\nlog-level: debug\nstorage: /from/file\n";
  assert_int_equal(read_text(file), -1);
  assert_int_equal(options.cache.retries, 7);
  assert_int_equal(options.log_level, MC_LOG_DEBUG);
  assert_string_equal(options.cache.storage, "/from/file");
  setenv("MODELCACHE_RETRIES", "1", 1);
  setenv("MODELCACHE_PARALLELISM", "2", 1);
  setenv("MODELCACHED_LOG_LEVEL", "warn", 1);
  int code = read_words("--parallelism=3", "--storage", "/from/flag");
  unsetenv("MODELCACHE_RETRIES");
  unsetenv("MODELCACHE_PARALLELISM");
  unsetenv("MODELCACHED_LOG_LEVEL");
  assert_int_equal(code, -1);
  assert_int_equal(options.cache.retries, 1);
  assert_int_equal(options.cache.parallelism, 3);
  assert_int_equal(options.log_level, MC_LOG_WARN);
  assert_string_equal(options.cache.storage, "/from/flag");
}

static void test_the_file_may_come_from_the_environment(void **state) {
  (void)state;
  char *argv[] = {(char *)"modelcached", NULL};
  write_file("retries: 9\n");
  setenv("MODELCACHED_CONFIG", path, 1);
  int code = config_read(&options, 1, argv, message, sizeof(message));
  unsetenv("MODELCACHED_CONFIG");
  assert_int_equal(code, -1);
  assert_int_equal(options.cache.retries, 9);
}

static void test_flags_of_every_form(void **state) {
  (void)state;
  write_file("");
  assert_int_equal(read_words("--no-fallback", "--stale-while-revalidate", "--durable=off"), -1);
  assert_false(options.cache.fallback);
  assert_true(options.cache.stale_while_revalidate);
  assert_int_equal(options.cache.durable, MC_DURABLE_OFF);
  assert_int_equal(read_words("--fallback", "no", "--storage_capacity=2GiB"), -1);
  assert_false(options.cache.fallback);
  assert_true(options.cache.storage_capacity == (uint64_t)2 << 30);
}

static void test_wrong_flags(void **state) {
  (void)state;
  refused_words("--retrys", "3", "there is no option '--retrys'; did you mean '--retries'?");
  refused_words("--nothing-like-it", "3", "there is no option '--nothing-like-it'; 'modelcached --help' lists them");
  refused_words("--retries", NULL, "--retries needs a value");
  refused_words("--retries", "some", "--retries: 'some' is not a number");
  refused_words("--no-retries", NULL, "there is no option '--no-retries'; did you mean '--retries'?");
  refused_words("serve", NULL, "it takes options only, not 'serve'; see 'modelcached --help'");
  refused_words("--", NULL, "it takes options only, not '--'; see 'modelcached --help'");
  setenv("MODELCACHE_LEASE", "soon", 1);
  write_file("");
  int code = read_words(NULL, NULL, NULL);
  unsetenv("MODELCACHE_LEASE");
  assert_int_equal(code, 2);
  assert_string_equal(message, "MODELCACHE_LEASE: 'soon' is not a duration such as 250ms, 10s, 5m or 2h");
}

static void test_wrong_files(void **state) {
  (void)state;
  refused("retries: 3\nretrys: 3\n", "2: there is no option 'retrys'; did you mean 'retries'?");
  refused("\n\nretries: many\n", "3: retries: 'many' is not a number");
  refused("retries:\n  - 3\n", "2: retries: it takes one plain value; a list is written with commas: a,b");
  refused("storage:\n  capacity: 3\n", "2: storage: it takes one plain value, not keys of its own");
  refused("storage: &a /x\nweb: *a\n", "2: web: it takes one plain value, not an alias");
  refused("retries: 3\nweb: none\nretries: 4\n", "3: retries: it is set twice; the first time in line 1");
  refused("log-level: info\nlog_level: info\n", "2: log_level: it is set twice; the first time in line 1");
  refused("retries:\n", "1: retries: it has no value; leave the line out for the default");
  refused("storage: ~\n", "1: storage: it has no value; leave the line out for the default");
  refused("config: other.yaml\n", "1: config: it can't be set in a file");
  refused("- retries\n", "1: options are 'name: value' lines, not a list");
  refused("retries\n", "1: options are 'name: value' lines");
  refused("{a: b}: 3\n", "1: a key is a plain name");
  refused("retries: 3\n---\nretries: 4\n", "2: a configuration is one document");
  refused("storage: \"a\\0b\"\n", "1: storage: a zero byte is no part of a value");
  assert_int_equal(read_text("retries: [3\nweb: {"), 2);
  assert_non_null(strstr(message, path));
  assert_int_equal(read_text("retries: \"3\n"), 2);
  assert_null(strchr(message, '\n'));
}

static void test_files_that_can_not_be_read(void **state) {
  (void)state;
  char *argv[] = {(char *)"modelcached", (char *)"--config=/nowhere/at/all", NULL};
  assert_int_equal(config_read(&options, 2, argv, message, sizeof(message)), 2);
  assert_string_equal(message, "can't read the configuration /nowhere/at/all: No such file or directory");
  argv[1] = (char *)"--config=/";
  assert_int_equal(config_read(&options, 2, argv, message, sizeof(message)), 2);
  assert_string_equal(message, "can't read the configuration /: Is a directory");
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  for (int i = 0; i < 70000; i++) fputs("# 123456789 12345\n", file);
  assert_int_equal(fclose(file), 0);
  assert_int_equal(read_words(NULL, NULL, NULL), 2);
  assert_non_null(strstr(message, "at most 1 MiB"));
}

/* ---- origins ---- */

static void test_origins(void **state) {
  (void)state;
  assert_int_equal(read_text("retries: 3\n"
                             "origins:\n"
                             "  - prefix: s3://models/\n"
                             "    credentials: team\n"
                             "    endpoint: https://minio.example:9000\n"
                             "    revalidate_after: 10m\n"
                             "    bandwidth: 500MiB\n"
                             "  - {prefix: 'https://example.com/private/', allowed: false, parallelism: 2, pin: yes}\n"
                             "credentials:\n"
                             "  team:\n"
                             "    access_key_id: AKIA\n"
                             "    secret_access_key: 'null'\n"
                             "  nothing: {}\n"
                             "log_level: debug\n"),
                   -1);
  const mc_options *own = &options.cache;
  assert_int_equal(own->origin_count, 2);
  assert_string_equal(own->origins[0].prefix, "s3://models/");
  assert_string_equal(own->origins[0].credentials, "team");
  assert_string_equal(own->origins[0].endpoint, "https://minio.example:9000");
  assert_true(own->origins[0].allowed);
  assert_int_equal(own->origins[0].revalidate_after_ms, 600000);
  assert_int_equal(own->origins[0].bandwidth, 500 << 20);
  assert_false(own->origins[1].allowed);
  assert_true(own->origins[1].pin);
  assert_int_equal(own->origins[1].parallelism, 2);
  assert_true(own->origins[1].revalidate_after_ms == MC_INHERIT);
  assert_null(own->origins[1].proxy);
  assert_int_equal(own->credentials_count, 2);
  assert_string_equal(own->credentials[0].name, "team");
  assert_int_equal(own->credentials[0].count, 2);
  assert_string_equal(own->credentials[0].settings[0].key, "access_key_id");
  assert_string_equal(own->credentials[0].settings[1].value, "null");
  assert_int_equal(own->credentials[1].count, 0);
  assert_int_equal(own->retries, 3);
  assert_int_equal(options.log_level, MC_LOG_DEBUG); /* what comes after them is read as ever */
}

static void test_wrong_origins(void **state) {
  (void)state;
  refused("origins: s3://x/\n",
          "1: origins: it takes a list of rules, each '- prefix: URL' and further 'key: value' lines");
  refused("origins:\n- s3://x/\n", "2: origins: a rule is 'key: value' lines, the first of them '- prefix: URL'");
  refused(
      "origins:\n- prefix: s3://x/\n  allow: no\n",
      "3: origins: allow: there is no such key in a rule; there is: prefix, allowed, credentials, endpoint, ca_file, "
      "proxy, revalidate_after, parallelism, bandwidth, pin");
  refused("origins:\n- prefix: s3://x/\n  allowed: perhaps\n", "3: origins: allowed: 'perhaps' is not true or false");
  refused("origins:\n- prefix: s3://x/\n  pin: no\n  pin: no\n", "4: origins: pin: it is set twice");
  refused("origins:\n- prefix: s3://x/\n  proxy:\n",
          "3: origins: proxy: it has no value; leave the line out for the default");
  refused("origins:\n- prefix: [s3://x/]\n", "2: origins: prefix: it takes one plain value");
  refused("origins:\n- allowed: false\n- prefix: s3://\n", "2: origins: the rule has no prefix");
  refused("origins:\n- prefix: s3://\norigins: []\n", "3: origins: it is set twice; the first time in line 1");
  refused("origins:\n- {[a]: b}\n", "2: origins: a key is a plain name");
  refused("credentials: [a]\n", "1: credentials: it takes names, and below each 'key: value' lines");
  refused("credentials:\n  hub: secret\n", "2: credentials: hub: it takes 'key: value' lines of its own");
  refused("credentials:\n  hub:\n    token: {a: b}\n", "3: credentials: hub: token: it takes one plain value");
  refused("credentials:\n  hub:\n    token: a\n    token: b\n", "4: credentials: hub: token: it is set twice");
  refused("credentials:\n  hub: {a: b}\n  hub: {}\n", "3: credentials: hub: there are two of this name");
  assert_int_equal(read_text("origins:\n- {prefix: ["), 2);
  assert_non_null(strstr(message, path));
}

/* Whoever adds a row need not think of the rest. */
static void test_every_row_can_be_set(void **state) {
  (void)state;
  const mc_option_row *tables[] = {config_rows(), mc_option_rows()};
  size_t count = 0;
  for (size_t t = 0; t < 2; t++) {
    for (const mc_option_row *row = tables[t]; row->name; row++, count++) {
      char line[200], flag[100];
      const char *value = row->type == MC_OPTION_STRING ? "text" : row->fallback;
      assert_non_null(row->env);
      assert_true(strlen(row->help) > 5);
      if (!is_setting(row)) continue;
      snprintf(line, sizeof(line), "%s: %s\n", row->name, value);
      assert_int_equal(read_text(line), -1);
      write_file("");
      flag_of(row, false, flag, sizeof(flag));
      assert_int_equal(read_words(flag, value, NULL), -1);
    }
  }
  assert_true(count < sizeof(options.texts) / sizeof(*options.texts) - 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_each_goes_before_the_one_before, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_the_file_may_come_from_the_environment, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_flags_of_every_form, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_wrong_flags, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_wrong_files, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_files_that_can_not_be_read, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_origins, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_wrong_origins, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_every_row_can_be_set, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
