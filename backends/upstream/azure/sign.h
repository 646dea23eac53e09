/* Requests that an account's key signs: SharedKey. */
#ifndef UPSTREAM_AZURE_SIGN_H
#define UPSTREAM_AZURE_SIGN_H

#include <modelcache/types.h>

struct buf;

/* What of a request is signed. Strings are "" where the request has none. */
struct azure_signing {
  const char *method, *url, *account;
  const char *if_match, *range;
  const char *date, *version; /* x-ms-date, x-ms-version: the only x-ms- headers */
};

#define AZURE_DATE_SIZE 32

/* A time in seconds since 1970 as in "Fri, 26 Jun 2015 23:39:12 GMT", whatever the locale is. */
void azure_date(char text[AZURE_DATE_SIZE], int64_t time);

/* The text that is signed. false: no memory, or a URL that can't be. */
bool azure_string_to_sign(struct buf *out, const struct azure_signing *signing);
/* Whether a text is a key: the base64 of some bytes. */
bool azure_is_key(const char *text);
/* The value of the header Authorization, malloced. `key`: base64. NULL: no memory, or something can't be signed. */
char *azure_sign(const struct azure_signing *signing, const char *key);

#endif
