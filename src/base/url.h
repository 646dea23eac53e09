/* URLs: parsing with bounds, one normal form, and the safety of relative paths. */
#ifndef BASE_URL_H
#define BASE_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <modelcache/types.h>

#define URL_MAX 8192

/* Pieces of a normalised URL, pointing into `text`, which is malloced. */
struct url {
  char *text; /* the normal form: lower-case scheme and host, no default port, no fragment, dot segments resolved,
                 percent-escapes in upper case and only where needed; the query as it was */
  char scheme[16];
  const char *authority; /* not zero-terminated, without the user info, which is refused: a secret has no place here;
                            of "s3://http://host:port/bucket/key" it is "http://host:port" */
  size_t authority_size;
  const char *path; /* begins with '/' (or is the object's key for schemes such as s3); up to the query */
  size_t path_size;
  const char *query; /* without '?'; NULL if none */
};

/* Parse and normalise. "scheme://…" of any scheme, or an absolute path "/…", which becomes "file:///…". In object
 * stores' URLs (s3, gs, as, hf) '#' is a character of the key, and so is a '%' that begins no escape.
 * MC_INVALID_ARGUMENT with a message that says what is wrong. The pieces are freed with url_free. */
mc_status url_parse(struct url *url, const char *text, mc_error *err);
void url_free(struct url *url);
/* Only the normal form, malloced. */
mc_status url_normalise(char **out, const char *text, mc_error *err);
/* The URL without its query's values and without user info, for messages and logs; returns `text`. */
const char *url_printable(char *text, size_t size, const char *url);
/* Decode percent-escapes of `size` bytes at `from` into `to` (at least size + 1 bytes). false: a bad escape or a zero.
 */
bool url_decode(char *to, const char *from, size_t size);
/* Append `path` (percent-encoding what must be) to the folder `url`, which ends in '/'. malloced; NULL: no memory. */
char *url_join(const char *url, const char *path);
/* Whether a relative path stays inside its folder: not empty, not absolute, no "." or ".." or empty part, no
 * backslash, no control character, no part over 255 bytes, at most 4096 bytes in all. */
bool path_is_safe(const char *path);

/* Whether a list, with commas between, names a scheme. */
bool scheme_is_listed(const char *list, const char *scheme);

#endif
