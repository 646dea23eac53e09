#include "base/checksum.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/io.h"

/* ---- CRC32C ---- */

uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t size) {
  /* What four bits at the low end become: 0x82f63b78 (Castagnoli's polynomial, reversed) divided out of them. */
  static const uint32_t table[16] = {
      0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
      0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
  };
  crc = ~crc;
  for (const uint8_t *at = data, *end = at + size; at < end; at++) {
    crc ^= *at;
    crc = crc >> 4 ^ table[crc & 15];
    crc = crc >> 4 ^ table[crc & 15];
  }
  return ~crc;
}

/* Two instruction sets have an instruction for it, which not each of their processors knows. */
#if defined(__x86_64__)
#include <nmmintrin.h>
#define HAS_CRC()           __builtin_cpu_supports("sse4.2")
#define CRC_TARGET          __attribute__((target("sse4.2")))
#define CRC_WORD(crc, word) ((uint32_t)_mm_crc32_u64(crc, word))
#define CRC_BYTE(crc, byte) _mm_crc32_u8(crc, byte)
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#include <sys/auxv.h>
#define HAS_CRC() ((getauxval(AT_HWCAP) & 1 << 7) != 0) /* HWCAP_CRC32 */
#define CRC_TARGET
static inline uint32_t CRC_WORD(uint32_t crc, uint64_t word) { /* compilers disagree about the intrinsics' names */
  __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
  return crc;
}
static inline uint32_t CRC_BYTE(uint32_t crc, uint8_t byte) {
  __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(byte));
  return crc;
}
#endif

#ifdef HAS_CRC
CRC_TARGET static uint32_t by_instruction(uint32_t crc, const void *data, size_t size) {
  const uint8_t *at = data;
  crc = ~crc;
  for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t), at += sizeof(uint64_t)) {
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    crc = CRC_WORD(crc, word);
  }
  for (; size; size--) crc = CRC_BYTE(crc, *at++);
  return ~crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t size) {
#ifdef HAS_CRC
  if (HAS_CRC()) return by_instruction(crc, data, size);
#endif
  return crc32c_by_table(crc, data, size);
}

/* ---- all kinds ---- */

struct checksum {
  mc_checksum_kind kind;
  uint32_t crc;
  EVP_MD_CTX *context; /* of those that OpenSSL makes */
};

mc_status checksum_new(struct checksum **out, mc_checksum_kind kind, uint64_t size, mc_error *err) {
  struct checksum *sum = calloc(1, sizeof(*sum));
  if (!sum) return mc_error_set(err, MC_NO_MEMORY, "checksum", "no memory for a checksum");
  sum->kind = kind;
  if (kind != MC_CHECKSUM_CRC32C) {
    sum->context = EVP_MD_CTX_new();
    const EVP_MD *method = kind == MC_CHECKSUM_MD5 ? EVP_md5() : EVP_sha1();
    if (!sum->context || !EVP_DigestInit_ex(sum->context, method, NULL)) {
      mc_status status = sum->context ? MC_UNSUPPORTED : MC_NO_MEMORY;
      checksum_free(sum);
      return mc_error_set(err, status, "checksum", "OpenSSL gives no %s here", checksum_name(kind));
    }
  }
  if (kind == MC_CHECKSUM_GIT) {
    char head[32];
    int length = snprintf(head, sizeof(head), "blob %" PRIu64, size);
    checksum_update(sum, head, (size_t)length + 1);
  }
  *out = sum;
  return MC_OK;
}

void checksum_update(struct checksum *sum, const void *data, size_t size) {
  if (sum->context) {
    EVP_DigestUpdate(sum->context, data, size);
  } else {
    sum->crc = crc32c(sum->crc, data, size);
  }
}

void checksum_final(struct checksum *sum, mc_checksum *out) {
  *out = (mc_checksum){.kind = sum->kind};
  if (!sum->context) {
    uint32_t crc = htobe32(sum->crc);
    memcpy(out->bytes, &crc, sizeof(crc));
  } else if (!EVP_DigestFinal_ex(sum->context, out->bytes, NULL)) {
    random_bytes(out->bytes, sizeof(out->bytes)); /* as in hash.c: one that could not be made verifies nothing */
  }
}

void checksum_free(struct checksum *sum) {
  if (!sum) return;
  EVP_MD_CTX_free(sum->context);
  free(sum);
}

const char *checksum_name(mc_checksum_kind kind) {
  static const char *const names[] = {"checksum", "CRC32C", "MD5", "SHA-1"};
  return kind >= MC_CHECKSUM_CRC32C && kind <= MC_CHECKSUM_GIT ? names[kind] : names[0];
}

static size_t size_of(mc_checksum_kind kind) {
  static const size_t sizes[] = {0, 4, 16, 20};
  return kind >= MC_CHECKSUM_CRC32C && kind <= MC_CHECKSUM_GIT ? sizes[kind] : 0;
}

bool checksum_equal(const mc_checksum *a, const mc_checksum *b) {
  size_t size = size_of(a->kind);
  return a->kind == b->kind && size && memcmp(a->bytes, b->bytes, size) == 0;
}

bool checksum_read(mc_checksum *out, mc_checksum_kind kind, const char *text, size_t size) {
  unsigned char bytes[24];
  size_t wanted = size_of(kind), pads = (3 - wanted % 3) % 3;
  if (!wanted || size != (wanted + pads) / 3 * 4) return false;
  for (size_t i = 0; i < size; i++) {
    if ((text[i] == '=') != (i >= size - pads)) return false;
  }
  if (EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)size) != (int)(wanted + pads)) return false;
  *out = (mc_checksum){.kind = kind};
  memcpy(out->bytes, bytes, wanted);
  return true;
}
