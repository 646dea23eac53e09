/* Credentials of services: where they are looked for, and how those that expire are renewed in time. */
#ifndef UPSTREAM_HTTP_KEYS_H
#define UPSTREAM_HTTP_KEYS_H

#include <modelcache/backend/upstream.h>

/* Not changed once it is made; shared by reference. Strings are malloced; NULL where there is none. Wiped at its end.
 */
struct keys {
  char *where;        /* they were found, for people: "AWS_ACCESS_KEY_ID", "the rule's 'team'" */
  char *id;           /* the public part */
  char *secret;       /* signs */
  char *token;        /* is sent */
  int64_t expires_at; /* milliseconds since 1970; 0: they don't */
};

/* With one reference; NULL: no memory. The strings are copied, and may be NULL. */
struct keys *keys_new(const char *where, const char *id, const char *secret, const char *token, int64_t expires_at);
struct keys *keys_acquire(struct keys *keys); /* NULL is fine, here and in the next */
void keys_release(struct keys *keys);

/* Keys that are asked for by many threads and got by one of them: when they are wanted first, some time before they
 * expire (meanwhile the others go on with those of before), and when they were refused. What fails is not tried again
 * at once. */
struct keyring;

/* Get keys: from a file, or by requests. Never for two threads of one ring at once. */
typedef mc_status (*keyring_get)(void *user, struct keys **out, const mc_call *call, mc_error *err);
/* NULL: no memory. `user` outlives it. `lasting`: who had keys has some for ever, and to find none is a failure then:
 * the service that gives them looks as if it weren't there when it does not answer. */
struct keyring *keyring_new(keyring_get get, void *user, bool lasting);
void keyring_free(struct keyring *ring); /* no call is running */
/* A reference on keys that have not expired. Blocks while they are got. */
mc_status keyring_keys(struct keyring *ring, struct keys **out, const mc_call *call, mc_error *err);
/* A service said that these are no good (any more). Whether others may be there now: it makes sense to ask once more.
 */
bool keyring_refuse(struct keyring *ring, const struct keys *keys);

/* What an operator has said of credentials: the rules of origins, and Triton's file. One for each upstream. */
struct keybook;

/* Reads the file that TRITON_CLOUD_CREDENTIAL_PATH names, if any, of which `section` ("s3") counts; NULL: it has none
 * of these. A file that can't be used is an error of every lookup, not of this. */
mc_status keybook_new(struct keybook **out, const mc_upstream_config *config, const char *section, mc_error *err);
void keybook_free(struct keybook *book);

enum keybook_place {
  KEYBOOK_NOTHING, /* nothing is said: the usual places */
  KEYBOOK_NONE,    /* the rule says "none": ask without */
  KEYBOOK_RULE,    /* what a rule names */
  KEYBOOK_TRITON,  /* of Triton's file: of the longest prefix in its section */
};

struct keybook_page {
  enum keybook_place place;
  const mc_credentials *credentials; /* of the last two; as long as the book */
  size_t number;                     /* of them, from 0, each its own; for who keeps something for each */
  char where[200];                   /* for people */
};

/* Which credentials hold for a normalised URL: those that its rule names, else Triton's. MC_INVALID_ARGUMENT: Triton's
 * file can't be used. */
mc_status keybook_find(const struct keybook *book, struct keybook_page *page, const char *url, mc_error *err);
/* How many numbers there are. */
size_t keybook_count(const struct keybook *book);
/* MC_INVALID_ARGUMENT if rules for this upstream's scheme name credentials with other keys than these (a NULL ends
 * them); for `open`. A rule's credentials may be of a scheme that several upstreams take, so only rules with `scheme`
 * are looked at. */
mc_status keybook_check(const struct keybook *book, const char *scheme, const char *const keys[], mc_error *err);

#endif
