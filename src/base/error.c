#include <modelcache/error.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

static const char *const names[] = {
    [MC_OK] = "ok",
    [MC_INVALID_ARGUMENT] = "invalid_argument",
    [MC_NOT_FOUND] = "not_found",
    [MC_PERMISSION_DENIED] = "permission_denied",
    [MC_UNAVAILABLE] = "unavailable",
    [MC_DEADLINE_EXCEEDED] = "deadline_exceeded",
    [MC_CANCELLED] = "cancelled",
    [MC_NO_SPACE] = "no_space",
    [MC_RESOURCE_EXHAUSTED] = "resource_exhausted",
    [MC_NO_MEMORY] = "no_memory",
    [MC_CORRUPT] = "corrupt",
    [MC_CHANGED] = "changed",
    [MC_UNSUPPORTED] = "unsupported",
    [MC_PROTOCOL] = "protocol",
    [MC_IO] = "io",
    [MC_BUSY] = "busy",
};

const char *mc_status_name(mc_status status) {
  return (int)status >= 0 && (int)status < MC_STATUS_COUNT ? names[status] : "unknown";
}

/* Without a default, so that the compiler asks about every new code. */
bool mc_status_is_retryable(mc_status status) {
  switch (status) {
  case MC_UNAVAILABLE:
  case MC_DEADLINE_EXCEEDED:  /* what the call waited for goes on, and may be nearer next time */
  case MC_RESOURCE_EXHAUSTED: /* a limit that others' calls free again */
  case MC_CHANGED:            /* the new version can be read from its beginning */
  case MC_BUSY:
    return true;
  case MC_OK:
  case MC_INVALID_ARGUMENT:
  case MC_NOT_FOUND:
  case MC_PERMISSION_DENIED:
  case MC_CANCELLED: /* the caller wanted it so */
  case MC_NO_SPACE:  /* somebody must make room */
  case MC_NO_MEMORY:
  case MC_CORRUPT: /* whoever can get the bytes elsewhere has done so before he says this */
  case MC_UNSUPPORTED:
  case MC_PROTOCOL: /* the peer would break it again */
  case MC_IO:
    break;
  }
  return false;
}

static mc_status set(mc_error *err, mc_status status, const char *origin, const char *suffix, const char *format,
                     va_list args) {
  if (!err) return status;
  err->status = status;
  snprintf(err->origin, sizeof(err->origin), "%s", origin);
  int length = vsnprintf(err->message, sizeof(err->message), format, args);
  if (length < 0) err->message[0] = 0;
  size_t used = strlen(err->message);
  if (suffix) snprintf(err->message + used, sizeof(err->message) - used, ": %s", suffix);
  text_clean(err->message);
  return status;
}

mc_status mc_error_set(mc_error *err, mc_status status, const char *origin, const char *format, ...) {
  va_list args;
  va_start(args, format);
  set(err, status, origin, NULL, format, args);
  va_end(args);
  return status;
}

static mc_status status_of_errno(int errnum) {
  switch (errnum) {
  case ENOSPC:
  case EDQUOT:
    return MC_NO_SPACE;
  case EACCES:
  case EPERM:
  case EROFS:
    return MC_PERMISSION_DENIED;
  case ENOENT:
  case ENOTDIR:
    return MC_NOT_FOUND;
  case EMFILE:
  case ENFILE:
  case ENOBUFS:
    return MC_RESOURCE_EXHAUSTED;
  case ENOMEM:
    return MC_NO_MEMORY;
  case ECONNREFUSED:
  case ECONNRESET:
  case ECONNABORTED:
  case EPIPE:
  case EHOSTDOWN:
  case EHOSTUNREACH:
  case ENETUNREACH:
  case ENETDOWN:
  case ETIMEDOUT:
    return MC_UNAVAILABLE;
  case EBUSY:
  case EADDRINUSE:
    return MC_BUSY;
  default:
    return MC_IO;
  }
}

mc_status mc_error_errno(mc_error *err, int errnum, const char *origin, const char *format, ...) {
  char text[128];
  va_list args;
  va_start(args, format);
  mc_status status = set(err, status_of_errno(errnum), origin, strerror_r(errnum, text, sizeof(text)), format, args);
  va_end(args);
  return status;
}
