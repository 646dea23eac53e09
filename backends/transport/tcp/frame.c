#include "frame.h"

#include <endian.h>
#include <string.h>

static void put(uint8_t *at, uint64_t value) {
  value = htole64(value);
  memcpy(at, &value, sizeof(value));
}

static uint64_t get(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof(value));
  return le64toh(value);
}

void frame_encode(uint8_t bytes[FRAME_SIZE], const struct frame *frame) {
  memcpy(bytes, "MCD1", 4);
  bytes[4] = (uint8_t)frame->type;
  bytes[5] = frame->kind;
  bytes[6] = frame->status;
  bytes[7] = frame->flags;
  put(bytes + 8, frame->offset);
  put(bytes + 16, frame->length);
  put(bytes + 24, frame->size);
  memcpy(bytes + 32, frame->id, 32);
}

bool frame_decode(struct frame *frame, const uint8_t bytes[FRAME_SIZE]) {
  if (memcmp(bytes, "MCD1", 4) != 0 || bytes[4] < FRAME_READ || bytes[4] > FRAME_WAIT) return false;
  frame->type = (enum frame_type)bytes[4];
  frame->kind = bytes[5];
  frame->status = bytes[6];
  frame->flags = bytes[7];
  frame->offset = get(bytes + 8);
  frame->length = get(bytes + 16);
  frame->size = get(bytes + 24);
  memcpy(frame->id, bytes + 32, 32);
  uint64_t end;
  if (frame->type == FRAME_READ) {
    bool kind = frame->kind == MC_CONTENT_OBJECT || frame->kind == MC_CONTENT_FLIGHT;
    bool open = frame->length == MC_SIZE_UNKNOWN;
    return kind && (open || !__builtin_add_overflow(frame->offset, frame->length, &end));
  }
  if (frame->type == FRAME_DATA) {
    return frame->length > 0 && frame->length <= MC_CHUNK_SIZE &&
           !__builtin_add_overflow(frame->offset, frame->length, &end);
  }
  if (frame->type == FRAME_ERROR) {
    return frame->status > MC_OK && frame->status < MC_STATUS_COUNT && frame->length <= FRAME_MESSAGE_MAX;
  }
  return true;
}
