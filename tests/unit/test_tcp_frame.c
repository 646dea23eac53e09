#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "backends/transport/tcp/frame.h"
#include <modelcache/backend/transport.h>

static const struct tcp_frame request = {.type = TCP_FRAME_REQUEST,
                                         .flags = TCP_FRAME_SUSPECT,
                                         .kind = MC_CONTENT_FLIGHT,
                                         .request = 0x01020304,
                                         .patience_ms = 30000,
                                         .offset = 0x1112131415161718,
                                         .length = 0x2122232425262728,
                                         .id = {0xa0, 0xa1, [31] = 0xbf}};

static mc_status decode_of(const struct tcp_frame *frame) {
  uint8_t bytes[TCP_FRAME_SIZE];
  struct tcp_frame decoded;
  tcp_frame_encode(bytes, frame);
  return tcp_frame_decode(&decoded, bytes, NULL);
}

static void assert_round_trip(const struct tcp_frame *frame) {
  uint8_t bytes[TCP_FRAME_SIZE];
  struct tcp_frame decoded;
  tcp_frame_encode(bytes, frame);
  assert_int_equal(tcp_frame_decode(&decoded, bytes, NULL), MC_OK);
  assert_int_equal(decoded.type, frame->type);
  assert_int_equal(decoded.flags, frame->flags);
  assert_int_equal(decoded.kind, frame->kind);
  assert_int_equal(decoded.request, frame->request);
  assert_int_equal(decoded.patience_ms, frame->patience_ms);
  assert_int_equal(decoded.status, frame->status);
  assert_true(decoded.offset == frame->offset);
  assert_true(decoded.length == frame->length);
  assert_memory_equal(decoded.id, frame->id, sizeof(frame->id));
}

/* What docs/data-plane.md promises to other languages, byte for byte. */
static void test_layout(void **state) {
  (void)state;
  static const uint8_t expected[TCP_FRAME_SIZE] = {
      'M',  'C',  'D',  'P',  1,    1,    1,    2,    0x04, 0x03, 0x02, 0x01, 0x30, 0x75, 0,    0,
      0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
      0xa0, 0xa1, 0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
      0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0xbf};
  uint8_t bytes[TCP_FRAME_SIZE];
  tcp_frame_encode(bytes, &request);
  assert_memory_equal(bytes, expected, sizeof(expected));
  tcp_frame_encode(bytes, &(struct tcp_frame){.type = TCP_FRAME_ERROR, .request = 7, .status = MC_NOT_FOUND});
  assert_int_equal(bytes[5], 5);
  assert_int_equal(bytes[12], 2);
}

static void test_round_trips(void **state) {
  (void)state;
  const struct tcp_frame frames[] = {
      request,
      {.type = TCP_FRAME_REQUEST, .kind = MC_CONTENT_OBJECT, .request = 1, .length = MC_SIZE_UNKNOWN},
      {.type = TCP_FRAME_REQUEST, .kind = MC_CONTENT_OBJECT, .request = UINT32_MAX, .offset = 5, .length = 1},
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 0, .length = MC_CHUNK_SIZE},
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 9 * MC_CHUNK_SIZE - 1, .length = 1},
      {.type = TCP_FRAME_DATA, .request = 1, .offset = MC_SIZE_UNKNOWN - MC_CHUNK_SIZE, .length = 1},
      {.type = TCP_FRAME_END, .request = 1, .offset = 0},
      {.type = TCP_FRAME_END, .request = 1, .offset = MC_SIZE_UNKNOWN - 1},
      {.type = TCP_FRAME_WAIT, .request = 1, .offset = 77},
      {.type = TCP_FRAME_ERROR, .request = 0, .status = MC_PROTOCOL, .length = TCP_FRAME_TEXT_MAX},
      {.type = TCP_FRAME_ERROR, .request = 1, .status = UINT32_MAX},
  };
  for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) assert_round_trip(&frames[i]);
}

static void test_implausible(void **state) {
  (void)state;
  const struct tcp_frame frames[] = {
      {.type = 0, .request = 1},
      {.type = 6, .request = 1},
      {.type = 255, .request = 1},
      /* requests: no number, no kind, no length, an end beyond all ends */
      {.type = TCP_FRAME_REQUEST, .kind = MC_CONTENT_OBJECT, .request = 0, .length = 1},
      {.type = TCP_FRAME_REQUEST, .kind = 0, .request = 1, .length = 1},
      {.type = TCP_FRAME_REQUEST, .kind = 3, .request = 1, .length = 1},
      {.type = TCP_FRAME_REQUEST, .kind = MC_CONTENT_OBJECT, .request = 1, .length = 0},
      {.type = TCP_FRAME_REQUEST, .kind = 1, .request = 1, .offset = MC_SIZE_UNKNOWN, .length = MC_SIZE_UNKNOWN},
      {.type = TCP_FRAME_REQUEST, .kind = 1, .request = 1, .offset = 2, .length = MC_SIZE_UNKNOWN - 2},
      {.type = TCP_FRAME_REQUEST, .kind = 1, .request = 1, .offset = MC_SIZE_UNKNOWN - 1, .length = 2},
      /* data: none, of two chunks, too much, an offset that overflows */
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 0, .length = 0},
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 1, .length = MC_CHUNK_SIZE},
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 0, .length = MC_CHUNK_SIZE + 1},
      {.type = TCP_FRAME_DATA, .request = 1, .offset = 0, .length = UINT64_MAX},
      {.type = TCP_FRAME_DATA, .request = 1, .offset = UINT64_MAX, .length = 1},
      {.type = TCP_FRAME_DATA, .request = 0, .offset = 0, .length = 1},
      /* a payload where none may be */
      {.type = TCP_FRAME_END, .request = 1, .length = 1},
      {.type = TCP_FRAME_END, .request = 1, .offset = MC_SIZE_UNKNOWN},
      {.type = TCP_FRAME_WAIT, .request = 1, .length = 1},
      /* an error without one, or with a text without end */
      {.type = TCP_FRAME_ERROR, .request = 1, .status = MC_OK},
      {.type = TCP_FRAME_ERROR, .request = 1, .status = MC_IO, .length = TCP_FRAME_TEXT_MAX + 1},
      {.type = TCP_FRAME_ERROR, .request = 1, .status = MC_IO, .length = UINT64_MAX},
  };
  for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
    if (decode_of(&frames[i]) != MC_PROTOCOL) fail_msg("frame %zu was taken for good", i);
  }
}

static void test_strangers(void **state) {
  (void)state;
  uint8_t bytes[TCP_FRAME_SIZE];
  struct tcp_frame frame;
  mc_error err = MC_ERROR_INIT;
  tcp_frame_encode(bytes, &request);
  bytes[0] ^= 1;
  assert_int_equal(tcp_frame_decode(&frame, bytes, &err), MC_PROTOCOL);
  bytes[0] ^= 1;
  bytes[4] = 9;
  assert_int_equal(tcp_frame_decode(&frame, bytes, &err), MC_UNSUPPORTED);
  assert_non_null(strstr(err.message, "version 9"));
  memset(bytes, 0, sizeof(bytes));
  assert_int_equal(tcp_frame_decode(&frame, bytes, &err), MC_PROTOCOL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_layout),
      cmocka_unit_test(test_round_trips),
      cmocka_unit_test(test_implausible),
      cmocka_unit_test(test_strangers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
