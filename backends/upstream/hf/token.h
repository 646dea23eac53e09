/* Tokens: where they are looked for, in this order.
 *
 *   the rule's named credentials      keys: token, token_file
 *   HF_TOKEN, HUGGING_FACE_HUB_TOKEN  unless HF_HUB_DISABLE_IMPLICIT_TOKEN is on, as for the next ones
 *   the file of HF_TOKEN_PATH, else $HF_HOME/token, else $XDG_CACHE_HOME/huggingface/token,
 *     else ~/.cache/huggingface/token
 *   none */
#ifndef UPSTREAM_HF_TOKEN_H
#define UPSTREAM_HF_TOKEN_H

#include "../http/keys.h"

struct tokens;

/* Reads the environment. MC_INVALID_ARGUMENT for named credentials that are none for a hub. */
mc_status tokens_new(struct tokens **out, const mc_upstream_config *config, mc_error *err);
void tokens_free(struct tokens *tokens); /* NULL is fine */
/* A reference on those for a URL; without a token where there is none. */
mc_status tokens_get(struct tokens *tokens, struct keys **out, const char *url, const mc_call *call, mc_error *err);
/* The hub did not take these: whether there is another token now. */
bool tokens_renew(struct tokens *tokens, const struct keys *refused, const char *url, const mc_call *call);

#endif
