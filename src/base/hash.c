#include "base/hash.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#ifdef HAVE_XXH_X86DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include "base/io.h"

struct sha256 {
  EVP_MD_CTX *context;
};

struct sha256 *sha256_new(void) {
  struct sha256 *hash = calloc(1, sizeof(*hash));
  if (!hash) return NULL;
  hash->context = EVP_MD_CTX_new();
  if (!hash->context || !EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL)) {
    sha256_free(hash);
    return NULL;
  }
  return hash;
}

void sha256_update(struct sha256 *hash, const void *data, size_t size) {
  EVP_DigestUpdate(hash->context, data, size);
}

/* OpenSSL allocates also where it should not need to. A digest that could not be made becomes one that nothing has: it
 * verifies nothing, and is found under no name. */
static void or_none(int done, mc_digest *digest) {
  if (!done) random_bytes(digest->bytes, sizeof(digest->bytes));
}

void sha256_final(struct sha256 *hash, mc_digest *digest) {
  or_none(EVP_DigestFinal_ex(hash->context, digest->bytes, NULL), digest);
}

void sha256_free(struct sha256 *hash) {
  if (!hash) return;
  EVP_MD_CTX_free(hash->context);
  free(hash);
}

void sha256_of(mc_digest *digest, const void *data, size_t size) {
  or_none(EVP_Digest(data, size, digest->bytes, NULL, EVP_sha256(), NULL), digest);
}

struct xxh128 {
  XXH3_state_t *state;
};

struct xxh128 *xxh128_new(void) {
  struct xxh128 *hash = calloc(1, sizeof(*hash));
  if (!hash) return NULL;
  hash->state = XXH3_createState();
  if (!hash->state) {
    free(hash);
    return NULL;
  }
  xxh128_reset(hash);
  return hash;
}

void xxh128_reset(struct xxh128 *hash) {
  XXH3_128bits_reset(hash->state);
}

void xxh128_update(struct xxh128 *hash, const void *data, size_t size) {
  XXH3_128bits_update(hash->state, data, size);
}

static void canonical(mc_hash128 *out, XXH128_hash_t value) {
  XXH128_canonical_t text;
  XXH128_canonicalFromHash(&text, value);
  memcpy(out->bytes, text.digest, sizeof(out->bytes));
}

void xxh128_final(const struct xxh128 *hash, mc_hash128 *out) {
  canonical(out, XXH3_128bits_digest(hash->state));
}

void xxh128_free(struct xxh128 *hash) {
  if (!hash) return;
  XXH3_freeState(hash->state);
  free(hash);
}

void xxh128_of(mc_hash128 *out, const void *data, size_t size) {
  canonical(out, XXH3_128bits(data, size));
}

bool hash128_equal(const mc_hash128 *a, const mc_hash128 *b) {
  return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool chunk_count(uint64_t size, uint32_t *count) {
  uint64_t chunks = size / MC_CHUNK_SIZE + (size % MC_CHUNK_SIZE != 0);
  if (chunks > UINT32_MAX / 16) return false;
  *count = (uint32_t)chunks;
  return true;
}

uint64_t chunk_length(uint64_t size, uint32_t index) {
  uint64_t start = index * MC_CHUNK_SIZE;
  if (start >= size) return 0;
  return size - start < MC_CHUNK_SIZE ? size - start : MC_CHUNK_SIZE;
}

mc_chunk_table *chunk_table_new(uint64_t size) {
  uint32_t count;
  if (!chunk_count(size, &count)) return NULL;
  mc_chunk_table *table = calloc(1, sizeof(*table) + (size_t)count * sizeof(mc_hash128));
  if (!table) return NULL;
  *table = (mc_chunk_table){size, count, (mc_hash128 *)(table + 1)};
  return table;
}

mc_hash128 *chunk_table_hashes(mc_chunk_table *table) {
  return (mc_hash128 *)(table + 1);
}

mc_chunk_table *chunk_table_copy(const mc_chunk_table *table) {
  mc_chunk_table *copy = chunk_table_new(table->size);
  if (copy && table->count) memcpy(chunk_table_hashes(copy), table->hashes, table->count * sizeof(mc_hash128));
  return copy;
}

mc_status chunk_table_from_bytes(mc_chunk_table **out, uint64_t size, uint64_t chunk_size, const void *bytes,
                                 size_t length, mc_error *err) {
  uint32_t count;
  if (chunk_size != MC_CHUNK_SIZE || !chunk_count(size, &count) || length != (size_t)count * sizeof(mc_hash128)) {
    return mc_error_set(err, MC_PROTOCOL, "chunks", "a chunk table does not fit its object");
  }
  mc_chunk_table *table = chunk_table_new(size);
  if (!table) return mc_error_set(err, MC_NO_MEMORY, "chunks", "no memory for a chunk table");
  if (length) memcpy(chunk_table_hashes(table), bytes, length);
  *out = table;
  return MC_OK;
}

#define TABLE_MAGIC "MCCHUNK1"
#define TABLE_HEAD  (8 + 32 + 8 + 8 + 4)

size_t chunk_table_encoded_size(const mc_chunk_table *table) {
  return TABLE_HEAD + (size_t)table->count * sizeof(mc_hash128) + sizeof(mc_hash128);
}

void chunk_table_encode(const mc_chunk_table *table, const mc_digest *digest, void *out) {
  uint8_t *at = out;
  uint64_t size = htole64(table->size), chunk = htole64(MC_CHUNK_SIZE);
  uint32_t count = htole32(table->count);
  memcpy(at, TABLE_MAGIC, 8);
  memcpy(at + 8, digest->bytes, 32);
  memcpy(at + 40, &size, 8);
  memcpy(at + 48, &chunk, 8);
  memcpy(at + 56, &count, 4);
  if (table->count) memcpy(at + TABLE_HEAD, table->hashes, table->count * sizeof(mc_hash128));
  size_t sealed = TABLE_HEAD + (size_t)table->count * sizeof(mc_hash128);
  mc_hash128 check;
  xxh128_of(&check, out, sealed);
  memcpy(at + sealed, check.bytes, sizeof(check.bytes));
}

mc_status chunk_table_decode(mc_chunk_table **out, const mc_digest *digest, const void *bytes, size_t length,
                             mc_error *err) {
  const uint8_t *at = bytes;
  uint64_t size, chunk;
  uint32_t count;
  mc_hash128 check;
  if (length < TABLE_HEAD + sizeof(check) || memcmp(at, TABLE_MAGIC, 8) != 0) {
    return mc_error_set(err, MC_CORRUPT, "chunks", "a stored chunk table is not one");
  }
  size_t sealed = length - sizeof(check);
  xxh128_of(&check, bytes, sealed);
  if (memcmp(check.bytes, at + sealed, sizeof(check)) != 0 || memcmp(at + 8, digest->bytes, 32) != 0) {
    return mc_error_set(err, MC_CORRUPT, "chunks", "a stored chunk table is damaged");
  }
  memcpy(&size, at + 40, 8);
  memcpy(&chunk, at + 48, 8);
  memcpy(&count, at + 56, 4);
  if ((uint64_t)le32toh(count) * sizeof(mc_hash128) != sealed - TABLE_HEAD) {
    return mc_error_set(err, MC_CORRUPT, "chunks", "a stored chunk table is damaged");
  }
  mc_status status =
      chunk_table_from_bytes(out, le64toh(size), le64toh(chunk), at + TABLE_HEAD, sealed - TABLE_HEAD, err);
  return status == MC_PROTOCOL ? mc_error_set(err, MC_CORRUPT, "chunks", "a stored chunk table is damaged") : status;
}

void key_of_url(char key[KEY_SIZE], const char *url) {
  mc_digest digest;
  sha256_of(&digest, url, strlen(url));
  mc_digest_hex(key, &digest);
}

bool key_is_valid(const char *key) {
  return strlen(key) == KEY_SIZE - 1 && strspn(key, "0123456789abcdef") == KEY_SIZE - 1;
}
