#include "frame.h"

#include <endian.h>
#include <string.h>

#include <modelcache/backend/transport.h>

static const uint8_t magic[4] = {'M', 'C', 'D', 'P'};

static void put32(uint8_t *at, uint32_t value) {
  value = htole32(value);
  memcpy(at, &value, sizeof(value));
}

static void put64(uint8_t *at, uint64_t value) {
  value = htole64(value);
  memcpy(at, &value, sizeof(value));
}

static uint32_t get32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof(value));
  return le32toh(value);
}

static uint64_t get64(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof(value));
  return le64toh(value);
}

void tcp_frame_encode(uint8_t out[TCP_FRAME_SIZE], const struct tcp_frame *frame) {
  memcpy(out, magic, sizeof(magic));
  out[4] = TCP_FRAME_VERSION;
  out[5] = frame->type;
  out[6] = frame->flags;
  out[7] = frame->kind;
  put32(out + 8, frame->request);
  put32(out + 12, frame->type == TCP_FRAME_ERROR ? frame->status : frame->patience_ms);
  put64(out + 16, frame->offset);
  put64(out + 24, frame->length);
  memcpy(out + 32, frame->id, sizeof(frame->id));
}

/* Whether a frame of this type may have these numbers. */
static bool is_plausible(const struct tcp_frame *frame) {
  switch (frame->type) {
  case TCP_FRAME_REQUEST:
    return (frame->kind == MC_CONTENT_OBJECT || frame->kind == MC_CONTENT_FLIGHT) && frame->request != 0 &&
           frame->length != 0 && frame->offset != MC_SIZE_UNKNOWN &&
           (frame->length == MC_SIZE_UNKNOWN || frame->length < MC_SIZE_UNKNOWN - frame->offset);
  case TCP_FRAME_DATA:
    return frame->request != 0 && frame->length != 0 && frame->offset <= MC_SIZE_UNKNOWN - MC_CHUNK_SIZE &&
           frame->length <= MC_CHUNK_SIZE - frame->offset % MC_CHUNK_SIZE;
  case TCP_FRAME_END:
    return frame->request != 0 && frame->length == 0 && frame->offset != MC_SIZE_UNKNOWN;
  case TCP_FRAME_WAIT:
    return frame->request != 0 && frame->length == 0;
  case TCP_FRAME_ERROR:
    return frame->status != MC_OK && frame->length <= TCP_FRAME_TEXT_MAX;
  default:
    return false;
  }
}

mc_status tcp_frame_decode(struct tcp_frame *frame, const uint8_t in[TCP_FRAME_SIZE], mc_error *err) {
  if (memcmp(in, magic, sizeof(magic)) != 0) {
    return mc_error_set(err, MC_PROTOCOL, "tcp", "the peer does not speak modelcache's data protocol");
  }
  if (in[4] != TCP_FRAME_VERSION) {
    return mc_error_set(err, MC_UNSUPPORTED, "tcp",
                        "the peer speaks version %u of the data protocol, this is version %u", in[4],
                        TCP_FRAME_VERSION);
  }
  *frame = (struct tcp_frame){.type = in[5],
                              .flags = in[6],
                              .kind = in[7],
                              .request = get32(in + 8),
                              .offset = get64(in + 16),
                              .length = get64(in + 24)};
  if (frame->type == TCP_FRAME_ERROR) frame->status = get32(in + 12);
  if (frame->type == TCP_FRAME_REQUEST) frame->patience_ms = get32(in + 12);
  memcpy(frame->id, in + 32, sizeof(frame->id));
  if (!is_plausible(frame)) {
    return mc_error_set(err, MC_PROTOCOL, "tcp", "a frame of type %u that can't be right", frame->type);
  }
  return MC_OK;
}
