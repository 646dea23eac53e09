/* The frames of the TCP transport; docs/data-plane.md is their reference.
 *
 * Every frame is a header of 64 bytes. DATA is followed by `length` bytes of the content, ERROR by `length` bytes of
 * text; the others stand alone. */
#ifndef TCP_FRAME_H
#define TCP_FRAME_H

#include <modelcache/types.h>

#define TCP_FRAME_SIZE     64
#define TCP_FRAME_VERSION  1
#define TCP_FRAME_TEXT_MAX (MC_ERROR_MESSAGE_SIZE - 1)

enum tcp_frame_type {
  TCP_FRAME_REQUEST = 1, /* to the server: send [offset, offset + length), or with length MC_SIZE_UNKNOWN to the end */
  TCP_FRAME_DATA,        /* bytes [offset, offset + length) follow; they are never of two chunks */
  TCP_FRAME_END,         /* answers an open-ended request: the content ends at `offset` */
  TCP_FRAME_WAIT,        /* nothing to send yet, but the peer is alive */
  TCP_FRAME_ERROR,       /* ends the answer; request 0: ends the connection */
};

enum { TCP_FRAME_SUSPECT = 1 << 0 }; /* of a request: the chunk at `offset` arrived damaged before */

struct tcp_frame {
  uint8_t type, flags;
  uint8_t kind;         /* REQUEST: an mc_content_kind */
  uint32_t request;     /* chosen by the client, not 0; in every frame of the answer */
  uint32_t patience_ms; /* REQUEST: the client gives up when it hears nothing for this long; 0: never */
  uint32_t status;      /* ERROR: an mc_status, or one that only newer peers know; never MC_OK */
  uint64_t offset, length;
  uint8_t id[32]; /* REQUEST */
};

void tcp_frame_encode(uint8_t out[TCP_FRAME_SIZE], const struct tcp_frame *frame);
/* MC_PROTOCOL: not a frame, or one whose numbers can't be right. MC_UNSUPPORTED: another version of the protocol. */
mc_status tcp_frame_decode(struct tcp_frame *frame, const uint8_t in[TCP_FRAME_SIZE], mc_error *err);

#endif
