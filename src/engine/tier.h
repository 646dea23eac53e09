/* A tier: a storage backend with an index of its objects, a byte budget and a time to live.
 *
 *   an object is …   means                                    becomes
 *   stored           in the index, no reader                  open by tier_open, gone by eviction
 *   open             has readers; never evicted               stored with the last object_release
 *   doomed           removed while it had readers             gone with the last object_release
 *
 * A tier lives until it was closed and the last of its open objects was released. */
#ifndef ENGINE_TIER_H
#define ENGINE_TIER_H

#include <modelcache/backend/storage.h>

struct tier;

/* An open object. Its fields do not change while it is open. */
struct object {
  mc_digest digest;
  uint64_t size;
  int fd;
  mc_chunk_table *table;
  struct tier *tier;
};

struct tier_config {
  uint64_t capacity;  /* bytes; 0: no limit but the storage's own */
  uint32_t high, low; /* watermarks in percent */
  int64_t ttl_ms;     /* 0: for ever */
  int64_t keep_ms;    /* an object that no entry refers to stays for at least so long */
  bool copies;        /* of another tier's objects: no entry refers to them */
  void (*evicted)(void *user, uint64_t objects, uint64_t bytes); /* for counting; may be NULL */
  void *user;
  const mc_logger *logger;
};

/* Takes over `storage` on success: closes it at its own end. Reads the index from the storage. */
mc_status tier_new(struct tier **out, mc_storage *storage, const struct tier_config *config, mc_error *err);
void tier_close(struct tier *tier);
/* For who may need the tier longer than its owner. */
struct tier *tier_acquire(struct tier *tier);
void tier_release(struct tier *tier);
mc_storage *tier_storage(struct tier *tier);
uint64_t tier_capacity(const struct tier *tier);

/* Open an object, verified by the table beside it when `verify`: once in this process's life, and again when its file
 * has changed. That can take minutes: it ends with `call`. MC_NOT_FOUND; MC_BUSY: it would have to be verified, or be
 * waited for while it is put in place, and `call` is NULL; MC_CORRUPT: it is damaged, and no longer in the index, but
 * still in the storage (for tier_restage). */
mc_status tier_open(struct object **out, struct tier *tier, const mc_digest *digest, bool verify, const mc_call *call,
                    mc_error *err);
/* Another member has just hashed the object's bytes: if it is there, it counts as verified here, too. */
void tier_vouch(struct tier *tier, const mc_digest *digest);
struct object *object_acquire(struct object *object);
void object_release(struct object *object);
/* Whether an open object goes with its last reader. */
bool object_is_doomed(struct object *object);
/* The path of an open object; false if it has none. */
bool object_path(struct object *object, char *path, size_t size);
/* A reader says that a chunk was bad: check it now. MC_CORRUPT: the object will be verified before it's opened again.
 */
mc_status object_check(struct object *object, uint64_t offset, mc_error *err);
/* A caller got the object. Whether the time before was not longer ago than this (0: or ever). */
bool object_got_again(struct object *object, int64_t within_ms);

/* Set `bytes` aside for a download, evicting what it takes. MC_NO_SPACE says how much would be needed. */
mc_status tier_reserve(struct tier *tier, uint64_t bytes, mc_error *err);
/* Those that tier_reserve would evict for so many bytes, the first ones of them, at most `most`. Returns how many. */
size_t tier_victims(struct tier *tier, uint64_t bytes, mc_digest *victims, size_t most);
/* The disk itself is full: evict `bytes`, least recently used first. false: there was nothing that could go. */
bool tier_evict(struct tier *tier, uint64_t bytes);
void tier_unreserve(struct tier *tier, uint64_t bytes);
/* Make a stage an object, with its table beside it, and open it: it counts as verified. *stage is NULL once it was
 * committed, also if opening it failed. */
mc_status tier_commit(struct object **out, struct tier *tier, mc_stage **stage, const mc_chunk_table *table,
                      const mc_digest *digest, mc_error *err);
/* Remove an object now, or with its last reader. *bytes: its size, 0 if it isn't there. */
mc_status tier_remove(struct tier *tier, const mc_digest *digest, uint64_t *bytes, mc_error *err);
/* Turn a damaged object into a stage of `key`. */
mc_status tier_restage(struct tier *tier, const mc_digest *digest, const char *key, mc_stage **stage, mc_error *err);
/* An entry refers to the object, pins it, or stops to (by -1), whether the object is there or not. To stop is a use: an
 * object that no entry refers to is removed once it has not been used for ten minutes, or for longer: see keep_ms. */
void tier_refer(struct tier *tier, const mc_digest *digest, int references, int pins);
/* Have the storage remember a use. */
void tier_touch(struct tier *tier, const mc_digest *digest);
/* Others write to the storage, too, and their entries need what is there: until it is known what is needed, nothing is
 * evicted. From now on who evicts first looks whether others have used it lately. Before anybody else uses the tier. */
void tier_share(struct tier *tier);
/* What entries need has been told. */
void tier_know(struct tier *tier);
/* Whether something may be needed that has not been told: then nothing goes because no entry refers to it. */
void tier_doubt(struct tier *tier, bool doubt);
bool tier_knows(struct tier *tier);
/* Look what the storage has of one object: it is counted from now on, or not any more. */
void tier_look(struct tier *tier, const mc_digest *digest);
/* The same of all, while `go_on`, which is called now and then, says so: else MC_CANCELLED. */
mc_status tier_rescan(struct tier *tier, bool (*go_on)(void *user), void *user, mc_error *err);
bool tier_has(struct tier *tier, const mc_digest *digest);
/* What is there, in no order. malloced; NULL: nothing, or no memory. */
mc_digest *tier_digests(struct tier *tier, size_t *count);
bool tier_is_referred(struct tier *tier, const mc_digest *digest);
/* Evict what is over its time, or over the high watermark. Called now and then. */
void tier_sweep(struct tier *tier);

struct tier_usage {
  uint64_t objects, bytes, reserved, capacity, open;
};
void tier_usage(struct tier *tier, struct tier_usage *usage);
#endif
