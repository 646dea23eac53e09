#include <modelcache/types.h>

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/text.h"

const char *mc_digest_hex(char hex[MC_DIGEST_HEX_SIZE], const mc_digest *digest) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < sizeof(digest->bytes); i++) {
    hex[2 * i] = digits[digest->bytes[i] >> 4];
    hex[2 * i + 1] = digits[digest->bytes[i] & 15];
  }
  hex[2 * sizeof(digest->bytes)] = 0;
  return hex;
}

mc_status mc_digest_parse(mc_digest *digest, const char *hex, mc_error *err) {
  mc_digest parsed;
  bool good = hex && strlen(hex) == MC_DIGEST_HEX_SIZE - 1;
  for (size_t i = 0; good && i < sizeof(parsed.bytes); i++) {
    int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
    good = high >= 0 && low >= 0;
    parsed.bytes[i] = good ? (uint8_t)(high << 4 | low) : 0;
  }
  if (!good) return mc_error_set(err, MC_INVALID_ARGUMENT, "digest", "a digest is the 64 hex digits of a SHA-256");
  *digest = parsed;
  return MC_OK;
}

bool mc_digest_equal(const mc_digest *a, const mc_digest *b) {
  return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

struct mc_cancel {
  atomic_bool triggered;
  int fd;
};

mc_status mc_cancel_new(mc_cancel **out, mc_error *err) {
  mc_cancel *cancel = calloc(1, sizeof(*cancel));
  if (!cancel) return mc_error_set(err, MC_NO_MEMORY, "cancel", "no memory");
  cancel->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (cancel->fd < 0) {
    int errnum = errno;
    free(cancel);
    return mc_error_errno(err, errnum, "cancel", "can't make an eventfd");
  }
  *out = cancel;
  return MC_OK;
}

void mc_cancel_free(mc_cancel *cancel) {
  if (!cancel) return;
  close(cancel->fd);
  free(cancel);
}

void mc_cancel_trigger(mc_cancel *cancel) {
  if (atomic_exchange(&cancel->triggered, true)) return;
  uint64_t one = 1;
  while (write(cancel->fd, &one, sizeof(one)) < 0 && errno == EINTR) continue;
}

bool mc_cancel_triggered(const mc_cancel *cancel) {
  return cancel && atomic_load_explicit(&((mc_cancel *)cancel)->triggered, memory_order_acquire);
}

int mc_cancel_fd(const mc_cancel *cancel) {
  return cancel ? cancel->fd : -1;
}

void mc_log(const mc_logger *logger, mc_log_level level, const char *origin, const char *format, ...) {
  if (!logger || !logger->log || level > logger->level) return;
  char message[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof(message), format, args);
  va_end(args);
  text_clean(message);
  logger->log(logger->user, level, origin, message);
}
