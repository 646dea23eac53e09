/* A gRPC server for tests, which says on the wire exactly what a test wants, right or wrong.
 *
 * It speaks just enough HTTP/2 for that and does not decode headers: what a call is must be known by its message or
 * its turn. Each connection has a thread, on which calls are answered one after the other. */
#ifndef TESTS_GRPC_PEER_H
#define TESTS_GRPC_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer;
struct peer_call;

/* Answers one call. */
typedef void (*peer_handler)(struct peer_call *call, void *user);

/* Serve on a free port of 127.0.0.1, or on `port`. */
struct peer *peer_start(uint16_t port, peer_handler handler, void *user);
/* Cut every connection, stop listening, free it. */
void peer_stop(struct peer *peer);
const char *peer_address(const struct peer *peer); /* "127.0.0.1:PORT" */
uint16_t peer_port(const struct peer *peer);
int peer_connections(struct peer *peer); /* accepted so far */
int peer_calls(struct peer *peer);       /* received so far */
/* Cut the connections of now. */
void peer_cut(struct peer *peer);

/* The request's message. */
const uint8_t *peer_message(const struct peer_call *call, size_t *size);
/* Response headers; `type` NULL: gRPC's. Comes by itself before the first message. */
void peer_headers(struct peer_call *call, int http_status, const char *type, bool end);
void peer_send(struct peer_call *call, const void *message, size_t size);
/* Bytes of the body as they are. */
void peer_send_raw(struct peer_call *call, const void *data, size_t size);
/* Trailers; trailers only if nothing was sent. `message` may be NULL. */
void peer_finish(struct peer_call *call, int code, const char *message);
/* The same with the name of a modelcache status, which may be NULL. */
void peer_finish_named(struct peer_call *call, int code, const char *message, const char *status);
/* End the stream without trailers. */
void peer_end(struct peer_call *call);
/* Close the connection after this call. */
void peer_hang_up(struct peer_call *call);
/* Wait until the client has cancelled the call, or peer_stop. */
void peer_wait_cancelled(struct peer_call *call);

#endif
