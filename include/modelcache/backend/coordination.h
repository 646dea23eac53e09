/* The coordination backend: who downloads what, and what is known of every URL.
 *
 * An entry belongs to a URL's key (64 hex digits of the SHA-256 of the normalised URL). A claim is the right to
 * download it: it has an owner, a fencing token that only grows, and a lease that its owner renews. A claim whose lease
 * has run out is its owner's until somebody else claims the key, publishes to it or forgets it; from then on the old
 * token does nothing.
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

#define MC_COORDINATION_ABI 1

enum {
  MC_COORDINATION_SHARED = 1 << 0, /* other processes take part */
};

typedef struct mc_coordination mc_coordination;

typedef struct mc_coordination_config {
  size_t struct_size;
  const char *location;  /* redis://…; NULL for local */
  const char *member_id; /* this process, unique; 1 to 63 bytes */
  int64_t lease_ms;      /* a claim that is not renewed for this long is free; positive */
  /* local: the least recently used entry is dropped beyond (its record stays in storage), but none that is claimed or
   * waited for; 0: no limit */
  uint64_t max_entries;
  const mc_logger *logger;
} mc_coordination_config;

typedef struct mc_claim {
  uint64_t token; /* the fencing token of the claim that is held now: by us, or by `owner` */
  char owner[64]; /* member id of the holder */
  bool granted;   /* it is ours */
} mc_claim;

typedef struct mc_coordination_ops {
  uint32_t abi; /* MC_COORDINATION_ABI */
  const char *name;
  uint32_t flags;

  /* Required. MC_INVALID_ARGUMENT if the configuration can't be. */
  mc_status (*open)(mc_coordination **out, const mc_coordination_config *config, mc_error *err);
  /* Required. No other op is under way. */
  void (*close)(mc_coordination *self);

  /* Required. The entry of `key`: *out is malloced in one piece (its url too), the caller frees it. MC_NOT_FOUND. */
  mc_status (*lookup)(mc_coordination *self, const char *key, mc_entry **out, mc_error *err);
  /* Required. Take the claim on `key` if it is free. MC_OK in both cases; claim->granted tells. Who has it already is
   * not granted it again. */
  mc_status (*claim)(mc_coordination *self, const char *key, mc_claim *claim, mc_error *err);
  /* Required. Keep a claim alive for another lease from now. MC_BUSY: it was given back, or lost to another. */
  mc_status (*renew)(mc_coordination *self, const char *key, uint64_t token, mc_error *err);
  /* Required. Set the entry and give the claim back in one step; wakes those that wait. With token 0 no claim is
   * needed: sets the entry only if nobody holds a claim. MC_BUSY: the claim was lost, and nothing was written. */
  mc_status (*publish)(mc_coordination *self, const char *key, uint64_t token, const mc_entry *entry, mc_error *err);
  /* Required. Give the claim back without a result; wakes those that wait. Fine if it was lost. */
  void (*abandon)(mc_coordination *self, const char *key, uint64_t token);
  /* Required. Block until the claim `token` on `key` has ended (published, abandoned, expired) or the call ends. Looks
   * again after it has begun to listen, so that no news is missed. MC_OK, at once if another claim or none is there;
   * MC_CANCELLED, MC_DEADLINE_EXCEEDED. */
  mc_status (*wait)(mc_coordination *self, const char *key, uint64_t token, const mc_call *call, mc_error *err);
  /* Required. Remove the entry. Fine if there is none. MC_BUSY while it is claimed. */
  mc_status (*forget)(mc_coordination *self, const char *key, mc_error *err);
  /* Required. Report entries whose URL begins with `prefix` (byte for byte), in any order, each once and whole: as it
   * was at some moment of the call. `visit` must not call back into the coordination; it returns false to stop. */
  mc_status (*list)(mc_coordination *self, const char *prefix, bool (*visit)(void *user, const mc_entry *entry),
                    void *user, mc_error *err);
} mc_coordination_ops;

struct mc_coordination {
  const mc_coordination_ops *ops;
};

#ifdef __cplusplus
}
#endif
#endif
