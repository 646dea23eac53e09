/* Any text as a path that a listing has, compared with any pattern; a zero stands between them. */
#include <stdlib.h>
#include <string.h>

#include "engine/patterns.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char key[KEY_SIZE];
  char *text = malloc(size + 2);
  CHECK(text);
  memcpy(text, data, size);
  text[size] = text[size + 1] = 0;
  const char *path = text + strlen(text) + 1, *const list[] = {text, NULL};
  struct patterns allow = {.allow = list}, ignore = {.ignore = list}, both = {list, list};
  if (patterns_check(&both, NULL) == MC_OK) {
    CHECK(patterns_pass(&allow, path) != patterns_pass(&ignore, path));
    CHECK(!patterns_pass(&both, path));
    if (!strpbrk(text, "*?[\\") && text[strlen(text) - 1] != '/') {
      CHECK(patterns_pass(&allow, path) == (strcmp(text, path) == 0));
    }
    CHECK(patterns_key(key, &both, path));
  }
  free(text);
  return 0;
}
