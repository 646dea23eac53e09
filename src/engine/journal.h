/* The journal of a stage: which version of a URL it holds, and which chunks have landed with which hash. A record that
 * is not whole ends it. */
#ifndef ENGINE_JOURNAL_H
#define ENGINE_JOURNAL_H

#include <modelcache/backend/storage.h>

/* Write the head: what is being downloaded. */
mc_status journal_begin(mc_stage *stage, uint64_t size, const mc_validators *validators, mc_error *err);
/* A chunk has landed. */
mc_status journal_chunk(mc_stage *stage, uint32_t index, const mc_hash128 *hash, mc_error *err);

/* What a journal says. `hashes` and `landed` have `count` places; free() both. */
struct journal {
  uint64_t size;
  mc_validators validators;
  uint32_t count;
  mc_hash128 *hashes;
  bool *landed;
};
/* MC_NOT_FOUND: there is nothing that can be resumed. */
mc_status journal_read(struct journal *journal, mc_stage *stage, mc_error *err);
void journal_free(struct journal *journal);
/* The same from bytes, for tests. */
mc_status journal_parse(struct journal *journal, const void *data, size_t size, mc_error *err);

#endif
