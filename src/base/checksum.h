/* Checksums that upstreams give where they have no SHA-256: CRC32C, MD5, git's SHA-1 of a blob. */
#ifndef BASE_CHECKSUM_H
#define BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#include <modelcache/types.h>

struct checksum; /* a running one */
/* `size`: of the whole content, with which git's begins. MC_UNSUPPORTED: this OpenSSL does not have it, as one that
 * keeps to FIPS has no MD5. */
mc_status checksum_new(struct checksum **out, mc_checksum_kind kind, uint64_t size, mc_error *err);
void checksum_update(struct checksum *sum, const void *data, size_t size);
void checksum_final(struct checksum *sum, mc_checksum *out); /* may be called once; then only checksum_free */
void checksum_free(struct checksum *sum);
const char *checksum_name(mc_checksum_kind kind);                /* for people: "MD5" */
bool checksum_equal(const mc_checksum *a, const mc_checksum *b); /* both known, of one kind, and the same */
/* `size` characters that are exactly the base64 of one of that kind. false: they are something else, and *out stays. */
bool checksum_read(mc_checksum *out, mc_checksum_kind kind, const char *text, size_t size);

/* Go on with a CRC32C, which begins as 0: by the processor's own instruction where it has one; and by a table. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t size);

#endif
