/* The server's YAML file: whatever stands in it, options or a complaint come of it. */
#include <stdio.h>
#include <string.h>

#include "fuzz.h"

/* The strings of options live as long as the process; here that's one input. What it says goes nowhere. */
#define MOST_STRINGS 65536
static char *strings[MOST_STRINGS];
static size_t string_count;

static char *keep(const char *text) {
  char *copy = string_count < MOST_STRINGS ? strdup(text) : NULL;
  if (copy) strings[string_count++] = copy;
  return copy;
}

static void forget(void *text) {
  for (size_t i = string_count; text && i > 0; i--) {
    if (strings[i - 1] != text) continue;
    strings[i - 1] = strings[--string_count];
    break;
  }
  free(text);
}

#define strdup(text)         keep(text)
#define free(memory)         forget(memory)
#define fprintf(stream, ...) snprintf(said, sizeof(said), __VA_ARGS__)
static char said[1024];
#include "server/config.c" /* what reads a file is its own affair */
#undef strdup
#undef free
#undef fprintf

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct server_options options;
  yaml_parser_t parser;
  if (size > CONFIG_MAX) return 0;
  set_defaults(&options);
  CHECK(yaml_parser_initialize(&parser));
  yaml_parser_set_input_string(&parser, data ? data : (const uint8_t *)"", size);
  said[0] = 0;
  int code = parse_yaml(&options, "config.yaml", &parser);
  yaml_parser_delete(&parser);
  CHECK(code == -1 || code == 2);
  CHECK((code == 2) == (strncmp(said, "modelcached: ", 13) == 0)); /* a complaint for each failure */
  const mc_option_row *tables[] = {own_rows, mc_option_rows()};
  for (size_t t = 0; t < 2; t++) { /* all options can be read */
    for (const mc_option_row *row = tables[t]; row->name; row++) {
      char text[4096];
      CHECK(mc_option_print(row, target_of(&options, t == 0), text, sizeof(text)) != NULL);
    }
  }
  while (string_count) free(strings[--string_count]);
  return 0;
}
