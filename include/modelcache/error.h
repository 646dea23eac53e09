/* Status codes and errors.
 *
 * Every call that can fail returns an mc_status and takes, as its last argument, an mc_error that the caller owns and
 * that may be NULL. There is no thread-local or global last error. Messages are one line, say what to do where there is
 * something to do, and never hold a secret. */
#ifndef MODELCACHE_ERROR_H
#define MODELCACHE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#include <modelcache/export.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mc_status {
  MC_OK = 0,
  MC_INVALID_ARGUMENT,   /* the caller's input can't be right: a malformed URL, an unknown option */
  MC_NOT_FOUND,          /* the upstream, or the cache, says there is no such thing */
  MC_PERMISSION_DENIED,  /* refused by an origin rule, by the upstream (401, 403) or by the file system */
  MC_UNAVAILABLE,        /* can't be reached or can't answer now; another try may succeed */
  MC_DEADLINE_EXCEEDED,  /* the call's own deadline passed */
  MC_CANCELLED,          /* the caller cancelled the call, or the cache is closing */
  MC_NO_SPACE,           /* the disk, or the cache's byte budget, can't hold it */
  MC_RESOURCE_EXHAUSTED, /* another limit was reached: sockets, waiters, a message's size */
  MC_NO_MEMORY,          /* an allocation failed */
  MC_CORRUPT,            /* bytes do not match the digest they were told to have */
  MC_CHANGED,            /* the upstream's content changed while it was read */
  MC_UNSUPPORTED,        /* no backend does this: an unknown scheme, a missing feature */
  MC_PROTOCOL,           /* a peer broke its protocol */
  MC_IO,                 /* a local system call failed for a reason that has no code of its own */
  MC_BUSY,               /* held by another: a claim, an object in use */
} mc_status;

#define MC_STATUS_COUNT ((int)MC_BUSY + 1)

/* The longest message, its terminating zero included. A longer one is cut. */
#define MC_ERROR_MESSAGE_SIZE 480
#define MC_ERROR_ORIGIN_SIZE  24

typedef struct mc_error {
  mc_status status;
  char origin[MC_ERROR_ORIGIN_SIZE]; /* the part that failed: "http", "posix", "engine" … */
  char message[MC_ERROR_MESSAGE_SIZE];
} mc_error;

/* clang-format off */
#define MC_ERROR_INIT { MC_OK, "", "" }
/* clang-format on */

/* The code's name in lower case with underscores ("not_found"), a static string; "unknown" for any other value. */
MC_API const char *mc_status_name(mc_status status);

/* Whether the same call, made again a little later, may succeed without anybody mending anything. */
MC_API bool mc_status_is_retryable(mc_status status);

/* Fill `err` (when it is not NULL) and return `status`, so that a failing function ends with
 * `return mc_error_set(err, MC_NOT_FOUND, "posix", "…")`. Control characters in the result become '?'. */
MC_API mc_status mc_error_set(mc_error *err, mc_status status, const char *origin, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same for a failed system call: maps `errnum` to a status (ENOSPC and EDQUOT: MC_NO_SPACE, EACCES:
 * MC_PERMISSION_DENIED, ENOENT: MC_NOT_FOUND, EMFILE: MC_RESOURCE_EXHAUSTED …) and appends its text to the message. */
MC_API mc_status mc_error_errno(mc_error *err, int errnum, const char *origin, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#ifdef __cplusplus
}
#endif
#endif
