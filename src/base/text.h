/* Characters: what may be shown to people, and ASCII without a locale (the host process may have set any). */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdint.h>

/* The value of a hex digit of either case, or -1. */
int hex_value(char c);
char ascii_lower(char c);
/* The character at *at, which is moved behind it: its code point, or for a byte that is no part of one, 0xdc00 and the
 * byte, which no character is. 0 at the end, where *at stays. */
uint32_t text_next(const char **at);
/* Make a text safe for a terminal, a log, JSON and gRPC, in place: control characters, and bytes that aren't UTF-8 (a
 * character that was cut in two by a limit, too), become '?'. */
void text_clean(char *text);

#endif
