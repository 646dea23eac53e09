/* The server's YAML file: whatever stands in it, options or a complaint of one line come of it. */
#include <stdio.h>
#include <string.h>

#include "fuzz.h"

#include "server/config.c" /* what reads a file is its own affair */

/* What it prints with, of which nothing is needed here. */
void print_help(void) {}

void print_values(const struct server_options *options) {
  (void)options;
}

int print_reference(const char *page) {
  return *page != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct server_options options;
  char message[1024] = "";
  struct reading reading = {&options, message, sizeof(message)};
  struct file file = {.reading = &reading, .path = "config.yaml"};
  yaml_parser_t parser;
  if (size > CONFIG_MAX) return 0;
  set_defaults(&options);
  CHECK(yaml_parser_initialize(&parser));
  yaml_parser_set_input_string(&parser, data ? data : (const uint8_t *)"", size);
  int code = parse_yaml(&file, &parser);
  yaml_parser_delete(&parser);
  CHECK(code == -1 || code == 2);
  CHECK((code == 2) == (*message != 0)); /* a complaint for each failure */
  CHECK(!strchr(message, '\n'));
  CHECK(code == -1 || strncmp(message, "config.yaml:", 12) == 0);
  for (const mc_option_row *row = next_row(NULL); row; row = next_row(row)) { /* all options can be read */
    char text[4096];
    CHECK(mc_option_print(row, target_of(&options, row), text, sizeof(text)) != NULL);
  }
  const mc_options *own = &options.cache;
  for (size_t i = 0; code == -1 && i < own->origin_count; i++) CHECK(own->origins[i].prefix && *own->origins[i].prefix);
  for (size_t i = 0; code == -1 && i < own->credentials_count; i++) {
    const mc_credentials *credentials = &own->credentials[i];
    for (size_t k = 0; k < credentials->count; k++)
      CHECK(credentials->settings[k].key && credentials->settings[k].value);
  }
  config_free(&options);
  return 0;
}
