#include "engine/patterns.h"

#include <string.h>

#include "base/text.h"

#define MAX_PATTERNS 1000 /* in each list */
#define MAX_PATTERN  1024 /* bytes */

/* As in a pattern; those that Windows' programs have joined are known to the hub's client, too. */
static uint32_t next_of_pattern(const char **at) {
  uint32_t c = text_next(at);
  return c == '\\' ? '/' : c;
}

/* The ']' of the set that begins at `at`, a '['. NULL: it's no set, but a '['. */
static const char *end_of_set(const char *at) {
  at += at[1] == '!' ? 2 : 1;
  return *at ? strchr(at + 1, ']') : NULL; /* the first in a set is no end, also if it is a ']' */
}

static bool set_has(const char *at, const char *end, uint32_t c) {
  bool others = *at == '!', has = false;
  if (others) at++;
  while (at < end) {
    uint32_t first = next_of_pattern(&at), last = first;
    if (*at == '-' && at + 1 < end) {
      at++;
      last = next_of_pattern(&at);
    }
    has = has || (c >= first && c <= last);
  }
  return has != others;
}

/* Whether what the pattern has at *at, which is no '*', is the path's next character. Both are moved behind it. */
static bool take(const char **at, const char **path) {
  uint32_t c = text_next(path);
  const char *set = *at + 1, *end = **at == '[' ? end_of_set(*at) : NULL;
  if (end) {
    *at = end + 1;
    return set_has(set, end, c);
  }
  uint32_t wanted = next_of_pattern(at);
  return wanted == '?' || wanted == c;
}

/* It goes back to the last '*' alone, so that it takes no more steps than the path's size times the pattern's. */
static bool matches(const char *pattern, const char *path) {
  const char *star = NULL, *from = path, *at = pattern;
  char last = pattern[strlen(pattern) - 1];
  bool folder = last == '/' || last == '\\';
  for (;;) {
    if (*at == '*') {
      star = ++at;
      from = path;
    } else if (!*at && (!*path || folder)) {
      return true;
    } else if (!*path) {
      return false; /* and with more for the '*' there would be still less left */
    } else if (!take(&at, &path)) {
      if (!star) return false;
      text_next(&from);
      at = star;
      path = from;
    }
  }
}

static bool any_matches(const char *const *list, const char *path) {
  for (; list && *list; list++) {
    if (matches(*list, path)) return true;
  }
  return false;
}

bool patterns_pass(const struct patterns *patterns, const char *path) {
  bool all = !patterns->allow || !*patterns->allow;
  return (all || any_matches(patterns->allow, path)) && !any_matches(patterns->ignore, path);
}

static mc_status check(const char *const *list, const char *what, mc_error *err) {
  for (size_t i = 0; list && list[i]; i++) {
    size_t size = strnlen(list[i], MAX_PATTERN + 1);
    if (i == MAX_PATTERNS) {
      return mc_error_set(err, MC_INVALID_ARGUMENT, "tree", "a tree has at most %d patterns to %s", MAX_PATTERNS, what);
    }
    if (size == 0 || size > MAX_PATTERN) {
      return mc_error_set(err, MC_INVALID_ARGUMENT, "tree", "a pattern to %s has 1 to %d bytes, not %s", what,
                          MAX_PATTERN, size ? "more" : "none");
    }
  }
  return MC_OK;
}

mc_status patterns_check(const struct patterns *patterns, mc_error *err) {
  mc_status status = check(patterns->allow, "allow", err);
  return status ? status : check(patterns->ignore, "ignore", err);
}

bool patterns_exist(const struct patterns *patterns) {
  return (patterns->allow && *patterns->allow) || (patterns->ignore && *patterns->ignore);
}

/* Each with its zero, so that no two lists are alike. */
static void add(struct sha256 *hash, const char *kind, const char *const *list) {
  for (; list && *list; list++) {
    sha256_update(hash, kind, 1);
    sha256_update(hash, *list, strlen(*list) + 1);
  }
}

bool patterns_key(char key[KEY_SIZE], const struct patterns *patterns, const char *url) {
  mc_digest digest;
  if (!patterns_exist(patterns)) {
    key_of_url(key, url);
    return true;
  }
  struct sha256 *hash = sha256_new();
  if (!hash) return false;
  sha256_update(hash, url, strlen(url) + 1);
  add(hash, "+", patterns->allow);
  add(hash, "-", patterns->ignore);
  sha256_final(hash, &digest);
  sha256_free(hash);
  mc_digest_hex(key, &digest);
  return true;
}
