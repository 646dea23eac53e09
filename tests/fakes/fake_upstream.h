/* An upstream for tests: "fake://NAME" is what a test says it is, and everything is counted.
 *
 * The contents belong to the process, not to a cache: they stay when a cache is opened again. Each of the two upstreams
 * has contents of its own, so that tests can order them. */
#ifndef TESTS_FAKE_UPSTREAM_H
#define TESTS_FAKE_UPSTREAM_H

#include <modelcache/backend/upstream.h>

#define FAKE_MAX_CHUNKS 64

/* Set by the test with fake_lock held, or before anything reads it. */
struct fake_content {
  char name[128];
  uint8_t *data;
  uint64_t size;
  mc_validators validators;
  mc_digest digest; /* the true one */
  mc_hash128 hashes[FAKE_MAX_CHUNKS];
  bool missing;
  bool unknown_size; /* does not say it before the end */
  bool no_ranges;
  bool pretends_ranges; /* says that ranges work, and they do not */
  bool tells_digest, tells_wrong_digest, tells_chunks;
  mc_checksum_kind tells_checksum; /* which it tells where it tells no digest */
  bool tells_wrong_checksum;
  bool lists_version, lists_digest; /* in listings */
  bool tells_late;                  /* what it tells, it tells at the end */
  bool says_unchanged_always;
  mc_status open_fails; /* every open, while it is set */
  mc_status explain_fails;
  /* A read that reaches this byte fails with this status, so many times. */
  uint64_t fails_at;
  mc_status fails_with;
  unsigned fails;
  /* Reads wait from this byte on, up to another (0: the end), until fake_release. */
  bool stalls;
  uint64_t stalls_at, stalls_to;
  const char *opens_say; /* an open reports this as what it waits for, and waits until fake_release */
  /* The first byte of this chunk arrives flipped, so many times. */
  uint32_t flips_chunk;
  unsigned flips;
  unsigned changes;     /* so many times another version is there when a read reaches the middle */
  uint64_t claims_size; /* says that it has so many bytes; 0: the true size */
  /* Counted. */
  unsigned stats, opens, opens_unchanged, opens_listed, reads, closes, stalled;
  uint64_t bytes;
  uint64_t chunk_bytes[FAKE_MAX_CHUNKS];
  uint64_t lowest_read;
  int gate; /* readable once it was released */
};

extern const mc_upstream_ops fake_upstream, fake_second_upstream;

/* A content of `size` bytes that `seed` makes, with an ETag made of it. `which`: 0, 1. */
struct fake_content *fake_add(int which, const char *name, uint64_t size, uint32_t seed);
/* Another version of it. */
void fake_change(struct fake_content *content, uint64_t size, uint32_t seed);
/* Let stalled reads go on, and further ones not stall. */
void fake_release(struct fake_content *content);
void fake_lock(void);
void fake_unlock(void);
#define FAKE_EXPIRES_AT 2000000000000 /* of its credentials */
/* Wait until a counter of a content is at least so much. Fails the test after a minute. */
void fake_await(const unsigned *counter, unsigned least);
unsigned fake_count(const unsigned *counter);
void fake_reset_counts(struct fake_content *content);
/* Forget all contents. */
void fake_clear(void);

#endif
