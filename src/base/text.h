/* Characters: what may be shown to people, and ASCII without a locale (the host process may have set any). */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

/* The value of a hex digit of either case, or -1. */
int hex_value(char c);
char ascii_lower(char c);
/* Make a text safe for a terminal, a log, JSON and gRPC, in place: control characters, and bytes that aren't UTF-8 (a
 * character that was cut in two by a limit, too), become '?'. */
void text_clean(char *text);

#endif
