/* Hints: what a listing said of a URL that is to be got, so that its upstream need not be asked once more. */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

struct hint *hint_new(const mc_listed *listed, mc_upstream *from, int64_t at) {
  struct hint *hint = malloc(sizeof(*hint));
  if (!hint) return NULL;
  *hint = (struct hint){.listed = *listed, .from = from, .at = at};
  hint->listed.path = "";
  return hint;
}

bool hint_same(const struct hint *a, const struct hint *b) {
  const mc_validators *x = &a->listed.validators, *y = &b->listed.validators;
  return a->from == b->from && a->listed.size == b->listed.size && a->listed.has_digest == b->listed.has_digest &&
         (!a->listed.has_digest || mc_digest_equal(&a->listed.digest, &b->listed.digest)) &&
         strcmp(x->version, y->version) == 0 && strcmp(x->etag, y->etag) == 0 && x->last_modified == y->last_modified;
}

enum hint_says hint_judge(const struct hint *hint, const mc_entry *entry) {
  if (!hint || !entry->has_digest) return HINT_SILENT;
  const mc_listed *listed = &hint->listed;
  const mc_validators *told = &listed->validators, *known = &entry->validators;
  if (listed->size != MC_SIZE_UNKNOWN && entry->size != MC_SIZE_UNKNOWN && listed->size != entry->size) {
    return HINT_OTHER;
  }
  bool same;
  if (listed->has_digest) {
    same = mc_digest_equal(&listed->digest, &entry->digest);
  } else if (told->version[0] && known->version[0]) {
    same = strcmp(told->version, known->version) == 0;
  } else if (told->etag[0] && known->etag[0]) {
    same = strcmp(told->etag, known->etag) == 0;
  } else { /* a Last-Modified alone confirms nothing, nor is a file that was only touched another */
    bool moved = told->last_modified && known->last_modified && told->last_modified != known->last_modified;
    return moved ? HINT_DOUBT : HINT_SILENT;
  }
  return same ? HINT_SAME : HINT_OTHER;
}
