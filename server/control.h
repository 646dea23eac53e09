/* Between control.c, which knows gRPC, and rpc.c and fetch.c, which know what the methods do. */
#ifndef SERVER_CONTROL_H
#define SERVER_CONTROL_H

#include <pthread.h>
#include <stdatomic.h>

#include <grpc/grpc.h>
#include <grpc/slice.h>

#include "jobs.h"
#include "modelcache.pb-c.h"
#include "server.h"

struct call;

/* What all methods share. */
struct service {
  mc_cache *cache;
  char data_endpoint[300];
  pthread_mutex_t lock;
  struct watch *watches; /* Watch calls; and health's, which end when the server drains */
  uint32_t watch_count;
  bool draining;
  atomic_uint fetches; /* under way */
};

void service_begin(struct service *service, mc_cache *cache, const char *data_endpoint);
void service_drain(struct service *service);
void service_end(struct service *service);
/* Begin to answer a call. false: there is no such method; then the call is still the caller's to finish. */
bool service_handle(struct call *call, const char *method, const void *data, size_t size);
/* fetch.c */
void fetch_handle(struct call *call, const ProtobufCMessage *message);

/* Queue a message. false: the call has ended, or its client is too slow and its queue full. From any thread. */
bool call_send(struct call *call, const ProtobufCMessage *body);
grpc_slice call_pack(const ProtobufCMessage *body);
bool call_send_slice(struct call *call, grpc_slice slice); /* takes over the reference */
/* Nothing is on its way to the client: a message that could be left out need not be. */
bool call_is_idle(struct call *call);
/* Wait until fewer than `most` messages are queued, for at most `ms`; for job threads. false: they are not sent. */
bool call_wait(struct call *call, uint32_t most, int64_t ms);
/* End the call; exactly once for each, from any thread. */
void call_finish(struct call *call, mc_status status, const mc_error *error);
void call_refuse(struct call *call, mc_status status, const char *message);
/* `on_cancel` is called, perhaps at once, when the client cancels; `on_end` with the call's last reference. */
void call_on(struct call *call, void *state, void (*on_cancel)(void *state), void (*on_end)(void *state));
/* Keep the call's memory, and give it back. */
void call_hold(struct call *call);
void call_release(struct call *call);
struct service *call_service(struct call *call);
/* What is left of the client's deadline; 0: it has none. */
int64_t call_timeout_ms(struct call *call);

/* Have a thread run it. false: too many wait already. */
bool call_run(struct call *call, struct job *job);
/* The client has gone, or cancelled: an answer is of no use any more. */
bool call_is_gone(struct call *call);

/* status.c: gRPC has fewer codes than we; modelcache-status in the trailers tells the rest. */
grpc_status_code code_of(mc_status status);

/* guard.c: calls whose clients keep them from going on. gRPC's core takes a message into memory whole before it looks
 * at its length, and keeps what a client does not read, so somebody must watch. */
struct guarded {
  int64_t until;       /* nanoseconds of CLOCK_MONOTONIC */
  uint64_t memory;     /* of the process, when it began; 0: not looked at yet */
  uint64_t begun;      /* how many had begun then */
  bool listed, counts; /* counts: it ends when the process's memory grows too much meanwhile */
  struct guarded *prev, *next;
};
struct guard;
/* `end` is called, with a lock held, once for each that takes too long or too much; it must not call into the guard. */
struct guard *guard_new(void (*end)(struct guarded *guarded));
/* From now on until guard_leave, for at most `ms`. */
void guard_enter(struct guard *guard, struct guarded *guarded, int64_t ms, bool counts);
/* Fine if it is not in it. Afterwards `end` is not being called for it. */
void guard_leave(struct guard *guard, struct guarded *guarded);
void guard_free(struct guard *guard);

#endif
