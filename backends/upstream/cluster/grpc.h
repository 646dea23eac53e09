/* A small gRPC client on libcurl's HTTP/2: unary calls and server streams over cleartext with prior knowledge.
 *
 *   what          made by              ended by              threads
 *   rpc_channel  rpc_channel_open    rpc_channel_close    any, several at once
 *   rpc_stream   rpc_stream_open     rpc_stream_close     one at a time
 *
 * A stream is pumped by whoever waits for its next message: there is no thread behind it. Between two waits nothing
 * is read from its connection but by rpc_stream_poll, which should be called now and then on a stream that is held
 * open, so that the server's pings are answered.
 *
 * Each stream has an HTTP/2 connection of its own, kept for the next one when it has ended well: a second thread
 * would otherwise have to wait for the one that pumps the shared connection. */
#ifndef CLUSTER_GRPC_H
#define CLUSTER_GRPC_H

#include <modelcache/types.h>

struct rpc_channel;
struct rpc_stream;

struct rpc_channel_config {
  const char *address; /* HOST:PORT or [V6]:PORT */
  int64_t connect_timeout_ms;
  int64_t stall_timeout_ms; /* a server that has said nothing for this long is asked whether it lives */
  const char *user_agent;   /* may be NULL */
};

/* No I/O. MC_INVALID_ARGUMENT for a bad address. */
mc_status rpc_channel_open(struct rpc_channel **out, const struct rpc_channel_config *config, mc_error *err);
/* No stream is open. NULL is fine. */
void rpc_channel_close(struct rpc_channel *channel);
const char *rpc_channel_address(const struct rpc_channel *channel);

/* Ask the server, by its health service, whether it lives: any answer in gRPC within the connect timeout, and within
 * most_ms unless that is 0, will do. Blocks. MC_UNAVAILABLE. */
mc_status rpc_channel_probe(struct rpc_channel *channel, int64_t most_ms, const mc_call *call, mc_error *err);

/* Begin a call of `method` ("/package.Service/Method") with one encoded message, which is copied. Does not block: a
 * server that can't be reached shows in the first wait. The call's deadline goes with it to the server. */
mc_status rpc_stream_open(struct rpc_stream **out, struct rpc_channel *channel, const char *method, const void *message,
                          size_t size, const mc_call *call, mc_error *err);
/* Wait until a message or the end is there, without taking it. The status of a call that ended badly comes after its
 * last message: MC_OK here says that there is a message, or that the call ended well. */
mc_status rpc_stream_wait(struct rpc_stream *stream, const mc_call *call, mc_error *err);
/* Wait for the next message; it is valid until the next function on this stream. *message is NULL when the call ended
 * well. */
mc_status rpc_stream_next(struct rpc_stream *stream, const void **message, size_t *size, const mc_call *call,
                          mc_error *err);
/* Serve the connection without waiting. Whether rpc_stream_wait would return at once. */
bool rpc_stream_poll(struct rpc_stream *stream);
/* Whether it ended without the server having said how: the server has gone, or is going. */
bool rpc_stream_broke(const struct rpc_stream *stream);
/* Whether a gRPC server has answered anything at all, and not only a web server before it. */
bool rpc_stream_answered(const struct rpc_stream *stream);
/* End it. A call that is still open is cancelled; with `linger` it is first given a moment to end by itself, for when
 * nothing but its status is outstanding: its connection can then be kept. NULL is fine. */
void rpc_stream_close(struct rpc_stream *stream, bool linger);

#endif
