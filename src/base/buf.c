#include "base/buf.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *buf, size_t max) {
  *buf = (struct buf){.max = max < SIZE_MAX / 2 ? max : SIZE_MAX / 2 - 1};
}

void buf_free(struct buf *buf) {
  free(buf->data);
  buf_init(buf, buf->max);
}

void buf_wipe(struct buf *buf) {
  if (buf->data) explicit_bzero(buf->data, buf->capacity);
  buf_free(buf);
}

void buf_clear(struct buf *buf) {
  buf->size = 0;
  buf->failed = false;
  if (buf->data) buf->data[0] = 0;
}

void *buf_room(struct buf *buf, size_t size) {
  if (buf->failed || size > buf->max || buf->size > buf->max - size) {
    buf->failed = true;
    return NULL;
  }
  size_t needed = buf->size + size + 1;
  if (needed > buf->capacity) {
    size_t capacity = buf->capacity < 32 ? 64 : 2 * buf->capacity;
    if (capacity > buf->max + 1) capacity = buf->max + 1;
    if (capacity < needed) capacity = needed;
    char *data = realloc(buf->data, capacity);
    if (!data) {
      buf->failed = true;
      return NULL;
    }
    buf->data = data;
    buf->capacity = capacity;
  }
  buf->data[buf->size] = 0;
  return buf->data + buf->size;
}

void buf_added(struct buf *buf, size_t size) {
  buf->size += size;
  buf->data[buf->size] = 0;
}

bool buf_append(struct buf *buf, const void *data, size_t size) {
  void *room = buf_room(buf, size);
  if (!room) return false;
  if (size) memcpy(room, data, size);
  buf_added(buf, size);
  return true;
}

bool buf_append_str(struct buf *buf, const char *text) {
  return buf_append(buf, text, strlen(text));
}

bool buf_printf(struct buf *buf, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, args);
  char *room = length >= 0 ? buf_room(buf, (size_t)length) : NULL;
  if (room) {
    vsnprintf(room, (size_t)length + 1, format, again);
    buf_added(buf, (size_t)length);
  } else {
    buf->failed = true;
  }
  va_end(again);
  va_end(args);
  return room != NULL;
}

void buf_consume(struct buf *buf, size_t size) {
  if (size >= buf->size) {
    buf->size = 0;
  } else {
    memmove(buf->data, buf->data + size, buf->size - size);
    buf->size -= size;
  }
  if (buf->data) buf->data[buf->size] = 0;
}

char *buf_take(struct buf *buf) {
  bool usable = !buf->failed && buf_room(buf, 0);
  char *data = usable ? buf->data : NULL;
  if (usable) {
    buf->data = NULL;
    buf->size = buf->capacity = 0;
  }
  return data;
}
