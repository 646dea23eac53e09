/* SHA-256 (OpenSSL), XXH3-128 (xxhash), and chunk tables. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include <modelcache/types.h>

struct sha256;                   /* a running hash */
struct sha256 *sha256_new(void); /* NULL: no memory */
void sha256_update(struct sha256 *hash, const void *data, size_t size);
void sha256_final(struct sha256 *hash, mc_digest *digest); /* may be called once; then only sha256_free */
void sha256_free(struct sha256 *hash);
void sha256_of(mc_digest *digest, const void *data, size_t size);

struct xxh128; /* a running hash */
struct xxh128 *xxh128_new(void);
void xxh128_reset(struct xxh128 *hash);
void xxh128_update(struct xxh128 *hash, const void *data, size_t size);
void xxh128_final(const struct xxh128 *hash, mc_hash128 *out);
void xxh128_free(struct xxh128 *hash);
void xxh128_of(mc_hash128 *out, const void *data, size_t size);
bool hash128_equal(const mc_hash128 *a, const mc_hash128 *b);

/* How many chunks `size` bytes have. false if it's more than a table may have (UINT32_MAX / 16). */
bool chunk_count(uint64_t size, uint32_t *count);
/* The bytes of chunk `index`. */
uint64_t chunk_length(uint64_t size, uint32_t index);

/* A chunk table in one allocation, its hashes zeroed; free() it. NULL: no memory or too large. */
mc_chunk_table *chunk_table_new(uint64_t size);
mc_hash128 *chunk_table_hashes(mc_chunk_table *table);
mc_chunk_table *chunk_table_copy(const mc_chunk_table *table);
/* From bytes on a wire: `bytes` must be exactly 16 for each chunk of `size`. MC_PROTOCOL. */
mc_status chunk_table_from_bytes(mc_chunk_table **out, uint64_t size, uint64_t chunk_size, const void *bytes,
                                 size_t length, mc_error *err);

/* The form in which a table lies beside its object: magic "MCCHUNK1", digest, size, chunk size, count, hashes, and an
 * XXH3-128 of all before. Little-endian. */
size_t chunk_table_encoded_size(const mc_chunk_table *table);
void chunk_table_encode(const mc_chunk_table *table, const mc_digest *digest, void *out);
/* MC_CORRUPT if it isn't whole, or not of `digest`. */
mc_status chunk_table_decode(mc_chunk_table **out, const mc_digest *digest, const void *bytes, size_t length,
                             mc_error *err);

/* Key of a URL: 64 hex digits of its SHA-256, and a zero. */
#define KEY_SIZE 65
void key_of_url(char key[KEY_SIZE], const char *url);
bool key_is_valid(const char *key);

#endif
