/* Any text as a URL, as a path below one, and as something to print. */
#include <string.h>

#include "base/text.h"
#include "base/url.h"
#include "fuzz.h"

static void check_clean(const char *text) {
  char *copy = strdup(text);
  text_clean(copy);
  CHECK(strcmp(copy, text) == 0);
  free(copy);
}

static void take_printable(const char *text) {
  char small[16], large[512];
  check_clean(url_printable(small, sizeof(small), text));
  check_clean(url_printable(large, sizeof(large), text));
  CHECK(strlen(small) < sizeof(small));
}

static void check_pieces(const struct url *url) {
  size_t scheme = strlen(url->scheme);
  CHECK(strlen(url->text) <= URL_MAX);
  for (const char *c = url->text; *c; c++) CHECK(*c > 0x20 && *c < 0x7f && *c != '#');
  CHECK(strncmp(url->text, url->scheme, scheme) == 0 && strncmp(url->text + scheme, "://", 3) == 0);
  CHECK(url->authority == url->text + scheme + 3);
  const char *host = url->authority;
  if (strncmp(url->text, "s3://http://", 12) == 0) host += 7;
  if (strncmp(url->text, "s3://https://", 13) == 0) host += 8;
  size_t size = url->authority_size - (size_t)(host - url->authority);
  CHECK(!memchr(url->authority, '@', url->authority_size) && !memchr(host, '/', size));
  CHECK(url->path == url->authority + url->authority_size && *url->path == '/');
  CHECK(url->query ? url->query == url->path + url->path_size + 1 && url->query[-1] == '?'
                   : url->path[url->path_size] == 0);
  for (const char *part = url->path; part && part < url->path + url->path_size; part = strchr(part + 1, '/')) {
    size_t length = strcspn(part + 1, "/?");
    CHECK(!(part[0] == '/' && part[1] == '.' && (length == 1 || (length == 2 && part[2] == '.'))));
  }
  char *decoded = malloc(url->path_size + 1);
  CHECK(url_decode(decoded, url->path, url->path_size));
  free(decoded);
}

static void take_url(const char *text) {
  struct url url, again;
  mc_error err = MC_ERROR_INIT;
  mc_status status = url_parse(&url, text, &err);
  if (status) {
    CHECK(status == MC_INVALID_ARGUMENT && err.status == status && err.message[0]);
    return;
  }
  check_pieces(&url);
  CHECK(url_parse(&again, url.text, &err) == MC_OK);
  CHECK(strcmp(again.text, url.text) == 0);
  CHECK(again.path - again.text == url.path - url.text && again.path_size == url.path_size);
  url_free(&again);
  url_free(&url);
}

/* A safe path that is joined to a folder stays below it, and comes back as it was. */
static void take_path(const char *text) {
  if (!path_is_safe(text)) return;
  char *joined = url_join("https://h/a/?q", text);
  struct url url;
  CHECK(joined);
  if (url_parse(&url, joined, NULL) == MC_OK) {
    char *decoded = malloc(url.path_size + 1);
    CHECK(url_decode(decoded, url.path, url.path_size));
    CHECK(strncmp(decoded, "/a/", 3) == 0 && strcmp(decoded + 3, text) == 0);
    CHECK(strcmp(url.query, "q") == 0);
    free(decoded);
    url_free(&url);
  } else {
    CHECK(strlen(joined) > URL_MAX);
  }
  free(joined);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *text = malloc(size + 1), *decoded = malloc(size + 1);
  if (size) memcpy(text, data, size);
  text[size] = 0;
  take_printable(text);
  take_url(text);
  take_path(text);
  if (url_decode(decoded, text, size)) CHECK(strlen(decoded) <= size);
  free(decoded);
  free(text);
  return 0;
}
