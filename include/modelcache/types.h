/* The values that calls and backends exchange: digests, chunk tables, validators, entries, one call's deadline. */
#ifndef MODELCACHE_TYPES_H
#define MODELCACHE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <modelcache/error.h>
#include <modelcache/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An object is named by the SHA-256 of its bytes. */
typedef struct mc_digest {
  uint8_t bytes[32];
} mc_digest;

#define MC_DIGEST_HEX_SIZE 65 /* 64 lower-case hex digits and a zero */

/* Write the 64 hex digits and a zero to `hex`, and return it. */
MC_API const char *mc_digest_hex(char hex[MC_DIGEST_HEX_SIZE], const mc_digest *digest);
/* Read exactly 64 hex digits, of either case. MC_INVALID_ARGUMENT for anything else. */
MC_API mc_status mc_digest_parse(mc_digest *digest, const char *hex, mc_error *err);
MC_API bool mc_digest_equal(const mc_digest *a, const mc_digest *b);

/* XXH3-128 with seed 0 in its canonical, big-endian form. */
typedef struct mc_hash128 {
  uint8_t bytes[16];
} mc_hash128;

/* The chunk is the unit of verification, resume, retry and striping. */
#define MC_CHUNK_SIZE   ((uint64_t)4 << 20)
#define MC_SIZE_UNKNOWN UINT64_MAX

/* One XXH3-128 for every MC_CHUNK_SIZE bytes of an object; the last chunk may be shorter; an empty object has none. */
typedef struct mc_chunk_table {
  uint64_t size; /* of the object, in bytes */
  uint32_t count;
  const mc_hash128 *hashes;
} mc_chunk_table;

/* A checksum of a whole content that an upstream gives where it has no SHA-256: it is checked, and names nothing. */
typedef enum mc_checksum_kind {
  MC_CHECKSUM_NONE,
  MC_CHECKSUM_CRC32C, /* 4 bytes, big-endian */
  MC_CHECKSUM_MD5,    /* 16 bytes */
  MC_CHECKSUM_GIT,    /* 20 bytes: SHA-1 of git's blob: "blob ", the size in decimal, a zero, the content */
} mc_checksum_kind;

typedef struct mc_checksum {
  mc_checksum_kind kind;
  uint8_t bytes[20];
} mc_checksum;

/* What an upstream says to tell one version of a URL's content from another. Empty strings and 0: not given. Two
 * versions are the same if the first of version, etag, last_modified that both have is equal, and the sizes are. */
typedef struct mc_validators {
  char version[128];     /* an object store's version id or generation */
  char etag[256];        /* as the server wrote it, quotes and W/ included */
  int64_t last_modified; /* seconds since 1970, UTC */
} mc_validators;

/* A version of a URL that was replaced, or went. */
typedef struct mc_former {
  mc_digest digest;
  uint64_t size; /* bytes */
  mc_validators validators;
  int64_t fetched_at; /* milliseconds since 1970, UTC: when it was downloaded */
  int64_t replaced_at;
  bool stored; /* it can be had still, by its digest; only mc_history tells */
} mc_former;

#define MC_HISTORY_MOST 16

/* What the cache knows of one URL. */
typedef struct mc_entry {
  size_t struct_size;
  const char *url; /* the normalised URL */
  uint64_t size;   /* bytes; MC_SIZE_UNKNOWN where it isn't known */
  mc_validators validators;
  bool has_digest; /* false: not downloaded yet */
  mc_digest digest;
  int64_t fetched_at; /* milliseconds since 1970, UTC: when the content was downloaded; 0 never */
  int64_t checked_at; /* when the upstream last confirmed it */
  bool pinned;        /* never evicted */
  bool missing;       /* the upstream said at checked_at that it does not exist */
  /* Grows with what is published of this URL, in whatever process: of two entries the larger one is the newer. It is
   * about microseconds since 1970. */
  uint64_t revision;
  const char *holders;      /* data endpoints of the members that have it in memory, spaces between; never NULL */
  const mc_former *history; /* what it was before, the latest first: at most MC_HISTORY_MOST; see mc_history */
  size_t history_count;
} mc_entry;

/* A name found in a listing of an upstream. */
typedef struct mc_listed {
  const char *path; /* relative to the listed URL, '/' between parts, never absolute, never with "." or ".." parts */
  uint64_t size;    /* or MC_SIZE_UNKNOWN */
  mc_validators validators; /* as far as the listing tells them */
  bool has_digest;
  mc_digest digest;
} mc_listed;

/* How a URL's origin is asked; nothing in it is secret. */
typedef struct mc_access {
  char endpoint[256];    /* where the requests go: a URL without path */
  char credentials[256]; /* where they were found: "the rule's 'hub'", "AWS_ACCESS_KEY_ID"; "none: …" and why */
  char identity[128];    /* the public part of them: a key's id, an account; "" where there is none */
  int64_t expires_at;    /* milliseconds since 1970; 0: they don't, or nobody knows */
} mc_access;

/* What mc_check_origin finds; nothing in it is secret. */
typedef struct mc_origin_check {
  size_t struct_size;
  char rule[512];    /* the prefix of the rule that holds; "": none does */
  bool allowed;      /* by that rule and the schemes */
  char upstream[32]; /* who asks; "": nobody */
  mc_access access;  /* empty where the upstream doesn't tell */
  /* What is in effect. */
  int64_t revalidate_after_ms;
  uint32_t parallelism;
  uint64_t bandwidth; /* bytes per second; 0: no limit */
  bool pin;
  /* What came of trying. */
  mc_error error; /* MC_OK: the next two are what is there */
  uint64_t size;
  mc_validators validators;
} mc_origin_check;

/* What was found where the coordination's entries were compared with the records in storage. */
typedef struct mc_repair_result {
  size_t struct_size;
  uint64_t records; /* in storage */
  uint64_t entries; /* in the coordination */
  uint64_t missing; /* records of which the coordination knew nothing */
  uint64_t older;   /* records of which it knew something older */
  uint64_t objects; /* records whose object is stored */
} mc_repair_result;

/* Cancels the calls it is given to. It belongs to whoever made it, may be shared by many calls, and can be used from
 * any thread; it is not a signal-safe object. */
typedef struct mc_cancel mc_cancel;
MC_API mc_status mc_cancel_new(mc_cancel **out, mc_error *err);
/* No call may be using it any more. NULL is fine. */
MC_API void mc_cancel_free(mc_cancel *cancel);
/* From now on, and for good: every call given this object ends with MC_CANCELLED as soon as it can. */
MC_API void mc_cancel_trigger(mc_cancel *cancel);
MC_API bool mc_cancel_triggered(const mc_cancel *cancel);
/* A descriptor that polls readable once it was triggered. Owned by `cancel`; never read from it. */
MC_API int mc_cancel_fd(const mc_cancel *cancel);

/* What a blocking operation of a backend needs to know of the call it is made for. */
typedef struct mc_call {
  int64_t deadline;  /* nanoseconds of CLOCK_MONOTONIC; INT64_MAX: none */
  mc_cancel *cancel; /* NULL: can't be cancelled */
} mc_call;

/* MC_OK, or why the call must end now: MC_CANCELLED, MC_DEADLINE_EXCEEDED. */
MC_API mc_status mc_call_check(const mc_call *call, mc_error *err);

/* Log messages. The library writes nowhere by itself. */
typedef enum mc_log_level { MC_LOG_ERROR, MC_LOG_WARN, MC_LOG_INFO, MC_LOG_DEBUG } mc_log_level;

typedef struct mc_logger {
  /* Called from any of the library's threads, with one line without a newline. NULL: messages are dropped. */
  void (*log)(void *user, mc_log_level level, const char *origin, const char *message);
  void *user;
  mc_log_level level; /* the least urgent level that is wanted */
} mc_logger;

MC_API void mc_log(const mc_logger *logger, mc_log_level level, const char *origin, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#ifdef __cplusplus
}
#endif
#endif
