/* Fetch calls by the gRPC C core, as many at once as one likes, driven by one thread.
 *
 * A call's life: started (three batches under way) -> its messages are read one by one -> the status and the end of
 * the messages are there, in either order -> ended, and perhaps started again. */
#ifndef BENCH_CALLS_H
#define BENCH_CALLS_H

#include <stdbool.h>
#include <stdint.h>

#include <grpc/grpc.h>

#include "modelcache.pb-c.h"

struct rpc;

enum step { STEP_START, STEP_MESSAGE, STEP_STATUS, STEP_COUNT };

/* What a completion is about: the tag of its batch. */
struct tag {
  struct rpc *rpc;
  enum step step;
};

struct rpc {
  struct tag tags[STEP_COUNT];
  grpc_call *call; /* NULL once it has ended */
  int pending;     /* batches under way */
  double begun;
  grpc_byte_buffer *request, *message;
  grpc_metadata_array initial, trailing;
  grpc_status_code status;
  grpc_slice details;
  uint64_t messages;
};

struct calls {
  grpc_completion_queue *queue;
  grpc_channel **channels;
  size_t channel_count;
  grpc_slice request; /* the encoded FetchRequest */
  uint64_t ended, failed;
  char error[256]; /* of the first that failed */
  /* Told of every event that comes; may be NULL. */
  void (*event)(struct rpc *rpc, const Modelcache__V1__FetchEvent *event);
};

void calls_open(struct calls *calls);
/* Every call has ended. */
void calls_close(struct calls *calls);
/* `count` connections more, each of its own, to targets[i % target_count]. */
void calls_connect(struct calls *calls, char *const *targets, size_t target_count, size_t count);
/* The connections are closed; every call has ended. */
void calls_disconnect(struct calls *calls);
/* What is asked for from now on. */
void calls_ask_for(struct calls *calls, char *url, bool follow);
void rpc_start(struct calls *calls, struct rpc *rpc, size_t channel);
/* Handle one completion, waiting for it for up to `milliseconds`. Returns the call that has ended by it, or NULL. */
struct rpc *calls_step(struct calls *calls, int milliseconds);

#endif
