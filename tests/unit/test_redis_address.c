/* Where Redis is, as it is written; and that nothing of what is wrong is shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "backends/coordination/redis/address.h"

static struct redis_address parsed(const char *text) {
  struct redis_address address;
  mc_error err = MC_ERROR_INIT;
  if (redis_address_parse(&address, text, &err)) fail_msg("%s: %s", text, err.message);
  return address;
}

static void test_one_server(void **state) {
  (void)state;
  struct redis_address address = parsed("redis://localhost");
  assert_string_equal(address.hosts[0].host, "localhost");
  assert_true(address.hosts[0].port == 6379 && address.host_count == 1 && address.db == 0 && !address.tls);
  assert_true(!address.user[0] && !address.password[0] && !address.master[0] && !address.path[0]);
  assert_string_equal(address.prefix, "modelcache:");
}

static void test_all_parts(void **state) {
  (void)state;
  struct redis_address address = parsed("redis://user:p%40s:s%2F@[fd00::1]:6380/15?prefix=a%3A");
  assert_string_equal(address.hosts[0].host, "fd00::1");
  assert_true(address.hosts[0].port == 6380 && address.db == 15);
  assert_string_equal(address.user, "user");
  assert_string_equal(address.password, "p@s:s/");
  assert_string_equal(address.prefix, "a:");
  address = parsed("rediss://:pw@h?ca_file=/ca&cert_file=/cert&key_file=/key&");
  assert_true(address.tls && !address.user[0]);
  assert_string_equal(address.password, "pw");
  assert_string_equal(address.ca_file, "/ca");
  assert_string_equal(address.cert_file, "/cert");
  assert_string_equal(address.key_file, "/key");
}

static void test_socket(void **state) {
  (void)state;
  struct redis_address address = parsed("redis+unix:///run/redis/redis.sock?db=2&password_file=/run/secrets/redis");
  assert_string_equal(address.path, "/run/redis/redis.sock");
  assert_string_equal(address.password_file, "/run/secrets/redis");
  assert_true(address.db == 2 && address.host_count == 0);
  address = parsed("redis+unix://u:p@/s");
  assert_string_equal(address.path, "/s");
  assert_string_equal(address.password, "p");
}

static void test_sentinel(void **state) {
  (void)state;
  struct redis_address address = parsed("redis+sentinel://u:p@a,b:1,[::1]:2/main/3?sentinel_password_file=/s");
  assert_int_equal(address.host_count, 3);
  assert_true(address.hosts[0].port == 26379 && address.hosts[1].port == 1 && address.hosts[2].port == 2);
  assert_string_equal(address.hosts[2].host, "::1");
  assert_string_equal(address.master, "main");
  assert_string_equal(address.sentinel_password_file, "/s");
  assert_int_equal(address.db, 3);
}

static void test_what_is_wrong(void **state) {
  (void)state;
  static const char *const wrong[] = {
      "",
      "hunter2",
      "http://hunter2",
      "redis://",
      "redis://:hunter2@",
      "redis://:hunter2@:6379",
      "redis://:hunter2@h:0",
      "redis://:hunter2@h:65536",
      "redis://:hunter2@h:x",
      "redis://:hunter2@[::1",
      "redis://:hunter2@[::1]x",
      "redis://:hunter2@h/x",
      "redis://:hunter2@h/1/2",
      "redis://:hunter2@a,b",
      "redis://:hun/ter2@h",
      "redis://:hunter2%@h",
      "redis://:hunter2%00@h",
      "redis://:hunter2@h?nothing=1",
      "redis://:hunter2@h?db=-1",
      "redis://:hunter2@h?prefix=",
      "redis://:hunter2@h?password_file=/f",
      "redis://:hunter2@h?ca_file=/f",
      "rediss://:hunter2@h?cert_file=/f",
      "redis+unix://:hunter2@h/s",
      "redis+unix://",
      "redis+sentinel://:hunter2@h",
      "redis+sentinel://:hunter2@h/",
      "redis+sentinel://:hunter2@a,,b/m",
      "redis+sentinel://a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q/main",
  };
  for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
    struct redis_address address;
    mc_error err = MC_ERROR_INIT;
    assert_int_equal(redis_address_parse(&address, wrong[i], &err), MC_INVALID_ARGUMENT);
    assert_true(strncmp(err.message, "coordination: ", 14) == 0 && !strstr(err.message, "hunter2"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_server), cmocka_unit_test(test_all_parts),     cmocka_unit_test(test_socket),
      cmocka_unit_test(test_sentinel),   cmocka_unit_test(test_what_is_wrong),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
