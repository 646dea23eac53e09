/* What server/config.c prints with, of which its tests need nothing. */
#include "../../server/config.h"

void print_help(void) {}

void print_values(const struct server_options *options) {
  (void)options;
}

int print_reference(const char *page) {
  (void)page;
  return 0;
}
