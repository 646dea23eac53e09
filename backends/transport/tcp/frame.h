/* The frames of the tcp data plane; see docs/data-plane.md. Little-endian, 64 bytes each:
 *
 *    0  "MCD1"   4  u8 type   5  u8 kind   6  u8 status   7  u8 flags   8  u64 offset   16  u64 length
 *   24  u64 size (of the content; all ones: not known yet)   32  id[32]
 */
#ifndef TRANSPORT_TCP_FRAME_H
#define TRANSPORT_TCP_FRAME_H

#include <modelcache/backend/transport.h>

#define FRAME_SIZE        64
#define FRAME_MESSAGE_MAX 480

enum frame_type {
  FRAME_READ = 1,  /* client: send [offset, offset + length) of kind/id; length all ones: to the end */
  FRAME_DATA = 2,  /* server: `length` bytes follow, which belong at `offset` */
  FRAME_END = 3,   /* server: all was sent; the content's size is `size` */
  FRAME_ERROR = 4, /* server: `status`; a message of `length` bytes follows; the request has ended */
  FRAME_WAIT = 5,  /* server: nothing to send yet, but alive */
};

enum { FRAME_SUSPECT = 1 }; /* flag of FRAME_READ: these bytes arrived damaged before */

struct frame {
  enum frame_type type;
  uint8_t kind, status, flags;
  uint64_t offset, length, size;
  uint8_t id[32];
};

void frame_encode(uint8_t bytes[FRAME_SIZE], const struct frame *frame);
/* false: these are not a frame's bytes. */
bool frame_decode(struct frame *frame, const uint8_t bytes[FRAME_SIZE]);

#endif
