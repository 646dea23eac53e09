/* The coordination backend: who downloads what, what is known of every URL, and who takes part.
 *
 * An entry belongs to a URL's key (64 hex digits of the SHA-256 of the normalised URL). A claim is the right to
 * download it: it has an owner, a fencing token that only grows, and a lease that its owner renews. A claim whose lease
 * has run out is its owner's until somebody else claims the key, publishes to it or forgets it; from then on the old
 * token does nothing.
 *
 * A shared coordination can be lost, and come back with less than it knew, or with what was known some time ago.
 * Entries have a revision, which grows with what is published, so that of two the newer one is known: what comes back
 * is brought up to date from the records in storage. While it can't be reached its ops fail at once, or after a second
 * or two, with MC_UNAVAILABLE.
 *
 * A backend is a `static const mc_coordination_ops` and an instance that begins with `mc_coordination`. Ops may be
 * called from several threads at once; none but `wait` blocks on what others do. A key that is none is answered with
 * MC_INVALID_ARGUMENT. tests/contract/coordination.c holds every coordination to this. */
#ifndef MODELCACHE_BACKEND_COORDINATION_H
#define MODELCACHE_BACKEND_COORDINATION_H

#include <modelcache/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MC_COORDINATION_ABI 2

enum {
  MC_COORDINATION_SHARED = 1 << 0, /* other processes take part; then the ops of members are required */
};

typedef struct mc_coordination mc_coordination;

/* What happens without our doing; only a shared coordination tells. */
typedef enum mc_coordination_event_kind {
  MC_EVENT_ENTRY, /* another member published another state of a URL (another digest, missing or not, pinned or not) or
                   * forgot it; not told of what it only checked */
  MC_EVENT_GAP,   /* it was out of reach: entries may have changed in any way, also back to what they were */
  MC_EVENT_EMPTY, /* the same, and nobody has called `filled` since it knew nothing: its entries have been lost */
} mc_coordination_event_kind;

typedef struct mc_coordination_event {
  mc_coordination_event_kind kind;
  const mc_entry *before, *now; /* MC_EVENT_ENTRY: what was known, and is; NULL: nothing */
} mc_coordination_event;

typedef struct mc_coordination_config {
  size_t struct_size;
  const char *location;  /* redis://…; NULL for local */
  const char *member_id; /* this process, unique; 1 to 63 bytes */
  int64_t lease_ms;      /* a claim that is not renewed for this long is free; positive */
  /* local: the least recently used entry is dropped beyond (its record stays in storage), but none that is claimed or
   * waited for; 0: no limit */
  uint64_t max_entries;
  const mc_logger *logger;
  /* Called from a thread of the backend's, in the order in which things happened; also before `open` has returned.
   * Quick, and calls no op. The event is valid during the call. May be NULL. */
  void (*event)(void *user, const mc_coordination_event *event);
  void *user;
} mc_coordination_config;

#define MC_ENDPOINT_SIZE 300

/* How a download goes, as its owner tells those who wait for it. */
typedef struct mc_claim_news {
  uint64_t bytes, total; /* landed so far; total MC_SIZE_UNKNOWN where it isn't known */
  uint64_t rate;         /* bytes per second; 0: not known */
  mc_validators validators;
  uint8_t flight[32];              /* the name by which its bytes can be read while they land; zeros: they can't */
  char endpoint[MC_ENDPOINT_SIZE]; /* where: "tcp://HOST:PORT"; "" nowhere */
} mc_claim_news;

typedef struct mc_claim {
  uint64_t token; /* the fencing token of the claim that is held now: by us, or by `owner` */
  char owner[64]; /* member id of the holder */
  bool granted;   /* it is ours */
} mc_claim;

typedef struct mc_coordination_ops {
  uint32_t abi; /* MC_COORDINATION_ABI */
  const char *name;
  uint32_t flags;

  /* Required. MC_INVALID_ARGUMENT if the configuration can't be. A shared one need not be reachable yet. */
  mc_status (*open)(mc_coordination **out, const mc_coordination_config *config, mc_error *err);
  /* Required. No other op is under way. This member is none any more. */
  void (*close)(mc_coordination *self);

  /* Required. The entry of `key`: *out is malloced in one piece (its texts too), the caller frees it. MC_NOT_FOUND. */
  mc_status (*lookup)(mc_coordination *self, const char *key, mc_entry **out, mc_error *err);
  /* Required. Take the claim on `key` if it is free. MC_OK in both cases; claim->granted tells. Who has it already is
   * not granted it again. A token that is granted is larger than every one before it on this key, and than the
   * revision of the key's entry. */
  mc_status (*claim)(mc_coordination *self, const char *key, mc_claim *claim, mc_error *err);
  /* Required. Keep a claim alive for another lease from now, and tell those who wait how it goes (`news` NULL:
   * nothing). MC_BUSY: it was given back, or lost to another. */
  mc_status (*renew)(mc_coordination *self, const char *key, uint64_t token, const mc_claim_news *news, mc_error *err);
  /* Required. Set the entry and give the claim back in one step; wakes those that wait. With token 0 no claim is
   * needed: sets the entry only if nobody holds a claim, and what is there has no larger revision. MC_BUSY: the claim
   * was lost, or that condition does not hold, and nothing was written. */
  mc_status (*publish)(mc_coordination *self, const char *key, uint64_t token, const mc_entry *entry, mc_error *err);
  /* Required. Give the claim back without a result; wakes those that wait. Fine if it was lost. */
  void (*abandon)(mc_coordination *self, const char *key, uint64_t token);
  /* Required. Block until the claim `token` on `key` has ended (published, abandoned, expired) or the call ends. Looks
   * again after it has begun to listen, so that no news is missed. MC_OK, at once if another claim or none is there;
   * MC_CANCELLED, MC_DEADLINE_EXCEEDED; MC_UNAVAILABLE: the coordination has been out of reach for longer than the
   * lease can last. `news`, which may be NULL, is called from this thread with what the owner told last, if he told
   * something, and with what he tells from then on; what comes too fast may be left out, but not the latest. */
  mc_status (*wait)(mc_coordination *self, const char *key, uint64_t token,
                    void (*news)(void *user, const mc_claim_news *news), void *user, const mc_call *call,
                    mc_error *err);
  /* Required. Remove the entry. Fine if there is none. MC_BUSY while it is claimed. */
  mc_status (*forget)(mc_coordination *self, const char *key, mc_error *err);
  /* Required. Report entries whose URL begins with `prefix` (byte for byte) and comes after `after` (NULL or "": all),
   * in the order of their URLs' bytes, each once and whole: as it was at some moment of the call. Memory does not grow
   * with their number where the coordination is shared. URLs of which nothing is known but that they are missing may be
   * left out, and forgotten after ten minutes. `visit` must not call back into the coordination; it returns
   * false to stop. Their holders are not told. */
  mc_status (*list)(mc_coordination *self, const char *prefix, const char *after,
                    bool (*visit)(void *user, const mc_entry *entry), void *user, mc_error *err);

  /* Members: required if shared, else NULL. */
  /* Tell the others of this member: `document` is a text of at most 64 KiB, in place of the one before. It is known for
   * three leases, unless it is told again; NULL: it leaves. */
  mc_status (*present)(mc_coordination *self, const char *document, mc_error *err);
  /* Report the members that are present, this one too, in any order; `age_ms` since it told the document. */
  mc_status (*members)(mc_coordination *self,
                       bool (*visit)(void *user, const char *member_id, const char *document, int64_t age_ms),
                       void *user, mc_error *err);
  /* These objects can be read from `endpoint`'s memory, for `ms` from now unless it's told again; 0: not any more. What
   * lookup tells of an entry with that digest names it: see mc_entry.holders. */
  mc_status (*hold)(mc_coordination *self, const mc_digest *digests, size_t count, const char *endpoint, int64_t ms,
                    mc_error *err);
  /* What was lost has been brought back: see MC_EVENT_EMPTY. */
  mc_status (*filled)(mc_coordination *self, mc_error *err);
} mc_coordination_ops;

struct mc_coordination {
  const mc_coordination_ops *ops;
};

#ifdef __cplusplus
}
#endif
#endif
