/* Addresses of what is on a hub: hf://[models|datasets|spaces/]ORG/NAME[@REVISION]/PATH, as HfFileSystem writes them.
 */
#ifndef UPSTREAM_HF_ADDRESS_H
#define UPSTREAM_HF_ADDRESS_H

#include <modelcache/types.h>

struct buf;

struct hf_address {
  const char *type; /* "models", "datasets", "spaces" */
  char *repo;       /* "org/name" */
  char *revision;   /* decoded: a branch, a tag, "refs/pr/1", a commit; "main" where none is given */
  char *path;       /* decoded; "" for the repository itself; ends in '/' for a folder */
};

/* Of a normalised URL. MC_INVALID_ARGUMENT says how it is written. Freed with hf_address_free. */
mc_status hf_address_parse(struct hf_address *address, const char *url, mc_error *err);
void hf_address_free(struct hf_address *address);
bool hf_is_commit(const char *text);
/* Append "/resolve/COMMIT/PATH" and what goes before it, or "/api/TYPE/REPO". `revision`: NULL for the address's. */
void hf_address_file(struct buf *out, const struct hf_address *address, const char *revision);
void hf_address_api(struct buf *out, const struct hf_address *address);
/* Append a text as one part of a path: all but unreserved characters escaped, '/' too unless it is kept. */
void hf_escape(struct buf *out, const char *text, bool keep_slash);

#endif
