/* Frames of the TCP data plane: what is taken for one has numbers that can be right, and is what its encoding says. */
#include <string.h>

#include <modelcache/backend/transport.h>

#include "backends/transport/tcp/frame.h"
#include "fuzz.h"

static void check_numbers(const struct tcp_frame *frame) {
  uint64_t end;
  switch (frame->type) {
  case TCP_FRAME_REQUEST:
    CHECK(frame->request && frame->length);
    CHECK(frame->kind == MC_CONTENT_OBJECT || frame->kind == MC_CONTENT_FLIGHT);
    CHECK(frame->length == MC_SIZE_UNKNOWN || !__builtin_add_overflow(frame->offset, frame->length, &end));
    break;
  case TCP_FRAME_DATA:
    CHECK(frame->request && frame->length && !__builtin_add_overflow(frame->offset, frame->length, &end));
    CHECK(frame->offset / MC_CHUNK_SIZE == (end - 1) / MC_CHUNK_SIZE); /* never of two chunks */
    break;
  case TCP_FRAME_END:
  case TCP_FRAME_WAIT:
    CHECK(frame->request && frame->length == 0);
    break;
  case TCP_FRAME_ERROR:
    CHECK(frame->status != MC_OK && frame->length <= TCP_FRAME_TEXT_MAX);
    break;
  default:
    CHECK(!"a type that there is not");
  }
}

static void take(const uint8_t in[TCP_FRAME_SIZE]) {
  struct tcp_frame frame, again;
  uint8_t out[TCP_FRAME_SIZE];
  mc_status status = tcp_frame_decode(&frame, in, NULL);
  CHECK(status == MC_OK || status == MC_PROTOCOL || status == MC_UNSUPPORTED);
  if (status) return;
  check_numbers(&frame);
  tcp_frame_encode(out, &frame);
  CHECK(tcp_frame_decode(&again, out, NULL) == MC_OK);
  CHECK(again.type == frame.type && again.flags == frame.flags && again.kind == frame.kind);
  CHECK(again.request == frame.request && again.patience_ms == frame.patience_ms && again.status == frame.status);
  CHECK(again.offset == frame.offset && again.length == frame.length);
  CHECK(memcmp(again.id, frame.id, sizeof(frame.id)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t frame[TCP_FRAME_SIZE];
  for (; size >= sizeof(frame); data += sizeof(frame), size -= sizeof(frame)) {
    take(data);
    memcpy(frame, data, sizeof(frame));
    memcpy(frame, "MCDP\1", 5); /* which a fuzzer should not have to find each time */
    take(frame);
  }
  return 0;
}
