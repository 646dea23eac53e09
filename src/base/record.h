/* Entries as values, and as the JSON text by which storages and coordinations keep them. */
#ifndef BASE_RECORD_H
#define BASE_RECORD_H

#include <modelcache/types.h>

/* malloced in one piece with its texts; all else unknown. free() it. NULL: no memory. `holders` may be NULL. */
mc_entry *entry_new(const char *url, const char *holders);
mc_entry *entry_copy(const mc_entry *entry);
mc_entry *entry_held(const mc_entry *entry, const char *holders); /* a copy, held by others */
/* A new one that comes after `before`, or NULL: that one's history is its own, and begins with what that one was, if
 * it's another content than `digest` (NULL: none). What was replaced `keep_ms` ago is left out. */
mc_entry *entry_after(const mc_entry *before, const char *url, const mc_digest *digest, int64_t keep_ms, int64_t now);

/* An entry's record: a JSON object, {url, size, digest, etag, version, last_modified, fetched_at, checked_at, pinned,
 * missing, revision, history: [{digest, size, etag, version, last_modified, fetched_at, replaced_at}]}; without the
 * last one if there is none. malloced; NULL: no memory. */
char *record_encode(const mc_entry *entry);
/* NULL: not a record of `key` that can be used. It has a digest, or is of a file that is missing. */
mc_entry *record_decode(const char *key, const void *data, size_t size);

#endif
