/* Parts of the hf upstream that its files share. */
#ifndef UPSTREAM_HF_HF_H
#define UPSTREAM_HF_HF_H

#include "../http/store.h"
#include "address.h"
#include "memo.h"
#include "token.h"

/* Of a hub's answers; in the order of `fields`. */
enum { FIELD_COMMIT, FIELD_ETAG, FIELD_SIZE, FIELD_ERROR, FIELD_MESSAGE, FIELD_LINK };

struct hf {
  struct http_store store;
  char *endpoint; /* of the environment, or the usual one; "" if what is in the environment is none */
  struct tokens *tokens;
  struct memos links;   /* by URL and commit: where a hub leads for the bytes */
  struct memos commits; /* by repository and revision: which one was listed */
};

/* What is asked of a hub's API; `self` of a request by hf_api. */
struct hf_question {
  struct hf *hf;
  const struct hf_address *address;
  const char *path; /* behind the repository: "/tree/…" */
};

/* ask.c: how a hub is asked. */
extern const struct http_make hf_make;
extern const struct http_dialect hf_api;
/* Where the hub of a URL is: without a '/' at its end. NULL: HF_ENDPOINT names none. */
const char *hf_endpoint(const struct hf *self, const char *url, mc_error *err);
/* The key of a commit in `commits`. */
mc_hash128 hf_commit_key(const struct hf *self, const struct hf_address *address, const char *url);
/* What an ETag tells: "…", of 64 digits for a SHA-256, of 40 for git's checksum. */
void hf_take_tag(const char *tag, mc_info *info);

/* list.c; see mc_upstream_ops.list. */
mc_status hf_list(mc_upstream *base, const char *url, size_t max, bool (*visit)(void *user, const mc_listed *listed),
                  void *user, const mc_call *call, mc_error *err);

/* page.c: answers of the API. Also for tests and fuzzing. */

/* Call `visit` for each file and folder of a page of a tree; paths are those of the repository, and safe. MC_PROTOCOL:
 * it can't be read; else what `visit` returned. */
mc_status hf_page_parse(const char *text, size_t size,
                        mc_status (*visit)(void *user, const mc_listed *listed, bool folder, mc_error *err), void *user,
                        mc_error *err);
/* The query of the next page's URL, from a Link. false: there is none. */
bool hf_page_next(char *query, size_t size, const char *link);
/* The commit that a revision is. */
mc_status hf_revision_parse(char commit[65], const char *text, size_t size, mc_error *err);

#endif
