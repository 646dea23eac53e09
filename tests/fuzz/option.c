/* Any text for any option of the table: the first byte says which. What is taken prints to what reads back the same. */
#include <string.h>

#include <modelcache/options.h>

#include "fuzz.h"

static size_t member_size(mc_option_type type) {
  switch (type) {
  case MC_OPTION_STRING:
    return sizeof(const char *);
  case MC_OPTION_BOOL:
    return sizeof(bool);
  case MC_OPTION_COUNT:
    return sizeof(uint32_t);
  case MC_OPTION_NUMBER:
  case MC_OPTION_SIZE:
    return sizeof(uint64_t);
  case MC_OPTION_DURATION:
    return sizeof(int64_t);
  case MC_OPTION_CHOICE:
    return sizeof(int);
  }
  return 0;
}

static void take(const mc_option_row *row, const char *value) {
  mc_options options = MC_OPTIONS_INIT, untouched = options;
  mc_error err = MC_ERROR_INIT;
  char text[64];
  mc_status status = mc_option_parse(row, &options, value, &err);
  if (status) {
    CHECK(status == MC_INVALID_ARGUMENT && strstr(err.message, row->name));
    CHECK(memcmp(&options, &untouched, sizeof(options)) == 0);
    return;
  }
  mc_option_print(row, &options, text, sizeof(text));
  CHECK(strlen(text) < sizeof(text));
  if (row->type == MC_OPTION_STRING) {
    const char *user = strstr(value, "://"); /* behind it a password may be hidden */
    size_t same = user && strchr(user, '@') ? (size_t)(user - value) : sizeof(text) - 1;
    CHECK(strncmp(text, value, same < sizeof(text) ? same : sizeof(text) - 1) == 0);
    return;
  }
  mc_options again = MC_OPTIONS_INIT;
  CHECK(mc_option_parse(row, &again, text, &err) == MC_OK);
  CHECK(memcmp((char *)&options + row->offset, (char *)&again + row->offset, member_size(row->type)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const mc_option_row *rows = mc_option_rows();
  size_t count = 0;
  while (rows[count].name) count++;
  if (size == 0) return 0;
  char *value = malloc(size);
  memcpy(value, data + 1, size - 1);
  value[size - 1] = 0;
  take(&rows[data[0] % count], value);
  free(value);
  return 0;
}
