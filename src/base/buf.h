/* A growing byte buffer with a maximum. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* `data` is always followed by a zero byte once something was appended. After a failure (`failed`: no memory, or past
 * `max`) further appends do nothing, so that one check at the end is enough. */
struct buf {
  char *data;
  size_t size, capacity, max;
  bool failed;
};

void buf_init(struct buf *buf, size_t max);
void buf_free(struct buf *buf);
void buf_wipe(struct buf *buf);  /* the same, of a secret: nothing of it stays behind in freed memory */
void buf_clear(struct buf *buf); /* keeps the memory, resets `failed` */
bool buf_append(struct buf *buf, const void *data, size_t size);
bool buf_append_str(struct buf *buf, const char *text);
bool buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Room for `size` more bytes at the end; NULL on failure. buf_added() makes them part of it. */
void *buf_room(struct buf *buf, size_t size);
void buf_added(struct buf *buf, size_t size);
/* Remove the first `size` bytes. */
void buf_consume(struct buf *buf, size_t size);
/* Take the memory (free() it), leaving the buffer empty. "" when nothing was appended; NULL after a failure. */
char *buf_take(struct buf *buf);

#endif
