#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

char ascii_lower(char c) {
  return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* The length of the character at `at`; 0 if there is none: an over-long form, a surrogate, a value past U+10FFFF, or
 * bytes that break off. */
static size_t character(uint32_t *value, const unsigned char *at) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  *value = *at;
  if (*at < 0x80) return 1;
  size_t length = *at >> 5 == 6 ? 2 : *at >> 4 == 14 ? 3 : *at >> 3 == 30 ? 4 : 0;
  if (!length) return 0;
  *value = *at & (0x7fu >> length);
  for (size_t i = 1; i < length; i++) {
    if (at[i] >> 6 != 2) return 0;
    *value = *value << 6 | (at[i] & 0x3f);
  }
  bool good = *value >= least[length] && *value <= 0x10ffff && !(*value >= 0xd800 && *value <= 0xdfff);
  return good ? length : 0;
}

uint32_t text_next(const char **at) {
  uint32_t value;
  const unsigned char *byte = (const unsigned char *)*at;
  if (!*byte) return 0;
  size_t length = character(&value, byte);
  *at += length ? length : 1;
  return length ? value : 0xdc00u + *byte;
}

/* The same of one that can be shown: of no control character. */
static size_t printable_length(const unsigned char *at) {
  uint32_t value;
  size_t length = character(&value, at);
  return value < 0x20 || (value >= 0x7f && value < 0xa0) ? 0 : length;
}

void text_clean(char *text) {
  for (char *at = text; *at;) {
    size_t length = printable_length((const unsigned char *)at);
    if (!length) *at = '?';
    at += length ? length : 1;
  }
}
