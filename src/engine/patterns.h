/* Which of the listed files a tree has: by patterns that mean what huggingface_hub's allow_patterns and ignore_patterns
 * mean, on every scheme. See mc_tree_options. */
#ifndef ENGINE_PATTERNS_H
#define ENGINE_PATTERNS_H

#include <stdbool.h>

#include <modelcache/types.h>

#include "base/hash.h"

struct patterns {
  const char *const *allow, *const *ignore; /* end with NULL; or are NULL */
};

/* MC_INVALID_ARGUMENT: an empty pattern, one that is too long, or too many of them. */
mc_status patterns_check(const struct patterns *patterns, mc_error *err);
bool patterns_exist(const struct patterns *patterns);
/* Whether a file at this relative path is let through. */
bool patterns_pass(const struct patterns *patterns, const char *path);
/* The key of a tree: of its URL and its patterns. Without patterns that of the URL. false: no memory. */
bool patterns_key(char key[KEY_SIZE], const struct patterns *patterns, const char *url);

#endif
