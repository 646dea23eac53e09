/* Checksums against known answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"

static const char ALPHABET[] = "abcdefghijklmnopqrstuvwxyz";

/* A content's checksum, given in pieces of `piece` bytes, is the one that `hex` writes. */
static void assert_sum(mc_checksum_kind kind, const void *data, size_t size, size_t piece, const char *hex) {
  struct checksum *sum;
  mc_checksum got, wanted = {.kind = kind};
  for (size_t i = 0; i < strlen(hex) / 2; i++) {
    char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
    wanted.bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
  }
  assert_int_equal(checksum_new(&sum, kind, size, NULL), MC_OK);
  for (size_t at = 0; at < size; at += piece) {
    checksum_update(sum, (const char *)data + at, size - at < piece ? size - at : piece);
  }
  checksum_final(sum, &got);
  checksum_free(sum);
  assert_int_equal(got.kind, kind);
  assert_true(checksum_equal(&got, &wanted));
  wanted.bytes[strlen(hex) / 2 - 1] ^= 1;
  assert_false(checksum_equal(&got, &wanted));
}

static void each_kind_gives_its_standards_answers(void **state) {
  (void)state;
  uint8_t zeros[32] = {0}, rising[32];
  for (uint8_t i = 0; i < 32; i++) rising[i] = i;
  for (size_t piece = 1; piece < 34; piece += 4) {
    assert_sum(MC_CHECKSUM_CRC32C, "", 0, piece, "00000000");
    assert_sum(MC_CHECKSUM_CRC32C, "123456789", 9, piece, "e3069283");
    assert_sum(MC_CHECKSUM_CRC32C, zeros, 32, piece, "8a9136aa"); /* these two: RFC 3720 */
    assert_sum(MC_CHECKSUM_CRC32C, rising, 32, piece, "46dd794e");
    assert_sum(MC_CHECKSUM_MD5, "", 0, piece, "d41d8cd98f00b204e9800998ecf8427e"); /* RFC 1321 */
    assert_sum(MC_CHECKSUM_MD5, ALPHABET, 26, piece, "c3fcd3d76192e4007dfb496cca67e13b");
    assert_sum(MC_CHECKSUM_GIT, "", 0, piece, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"); /* git hash-object */
    assert_sum(MC_CHECKSUM_GIT, "hello\n", 6, piece, "ce013625030ba8dba906f756967f9e9ca394464a");
  }
}

static void the_processors_crc_is_the_tables(void **state) {
  (void)state;
  uint8_t data[300];
  for (size_t i = 0; i < sizeof(data); i++) data[i] = (uint8_t)(i * 131 + 7);
  for (size_t from = 0; from < 9; from++) {
    for (size_t size = 0; size + from <= sizeof(data); size++) {
      assert_int_equal(crc32c((uint32_t)size, data + from, size), crc32c_by_table((uint32_t)size, data + from, size));
    }
  }
}

static void what_is_not_known_equals_nothing(void **state) {
  (void)state;
  mc_checksum none = {.kind = MC_CHECKSUM_NONE}, crc = {.kind = MC_CHECKSUM_CRC32C}, md5 = {.kind = MC_CHECKSUM_MD5};
  assert_false(checksum_equal(&none, &none));
  assert_false(checksum_equal(&crc, &md5));
  assert_true(checksum_equal(&crc, &crc));
  assert_string_equal(checksum_name(MC_CHECKSUM_CRC32C), "CRC32C");
  checksum_free(NULL);
}

static void base64_is_read_if_it_is_exactly_one(void **state) {
  (void)state;
  static const struct {
    mc_checksum_kind kind;
    const char *text;
    bool good;
  } rows[] = {
      {MC_CHECKSUM_CRC32C, "AQIDBA==", true},
      {MC_CHECKSUM_CRC32C, "AQIDBA==-2", false},
      {MC_CHECKSUM_CRC32C, "AQIDBAUG", false},
      {MC_CHECKSUM_CRC32C, "AQ=DBA==", false},
      {MC_CHECKSUM_CRC32C, " QIDBA==", false},
      {MC_CHECKSUM_CRC32C, "A!IDBA==", false},
      {MC_CHECKSUM_CRC32C, "", false},
      {MC_CHECKSUM_MD5, "AQIDBA==", false},
      {MC_CHECKSUM_NONE, "AQIDBA==", false},
      {MC_CHECKSUM_MD5, "AQIDBAAAAAAAAAAAAAAAAA==", true},
      {MC_CHECKSUM_GIT, "AQIDBAAAAAAAAAAAAAAAAAAAAAA=", true},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    mc_checksum sum = {.kind = MC_CHECKSUM_NONE};
    assert_int_equal(checksum_read(&sum, rows[i].kind, rows[i].text, strlen(rows[i].text)), rows[i].good);
    assert_int_equal(sum.kind, rows[i].good ? rows[i].kind : MC_CHECKSUM_NONE);
    if (rows[i].good) assert_memory_equal(sum.bytes, "\1\2\3\4", 4);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_kind_gives_its_standards_answers),
      cmocka_unit_test(the_processors_crc_is_the_tables),
      cmocka_unit_test(what_is_not_known_equals_nothing),
      cmocka_unit_test(base64_is_read_if_it_is_exactly_one),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
