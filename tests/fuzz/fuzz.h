/* What fuzz targets share. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for every input. */
#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                                    \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

/* An input as a text of its own, zero-terminated; free() it. */
static inline char *text_of(const uint8_t *data, size_t size) {
  char *text = calloc(1, size + 1);
  CHECK(text);
  if (size) memcpy(text, data, size);
  return text;
}

#endif
