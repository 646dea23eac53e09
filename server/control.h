/* Between control.c, which knows gRPC, and rpc.c, which knows what the methods do. */
#ifndef SERVER_CONTROL_H
#define SERVER_CONTROL_H

#include <pthread.h>

#include <grpc/grpc.h>
#include <grpc/slice.h>

#include "modelcache.pb-c.h"
#include "server.h"

struct call;

/* What all methods share. */
struct service {
  mc_cache *cache;
  char data_endpoint[300];
  pthread_mutex_t lock;
  struct watch *watches; /* Watch calls; and health's, which end when the server drains */
  bool draining;
};

void service_begin(struct service *service, mc_cache *cache, const char *data_endpoint);
void service_drain(struct service *service);
void service_end(struct service *service);
/* Begin to answer a call. false: there is no such method; then the call is still the caller's to finish. */
bool service_handle(struct call *call, const char *method, const void *data, size_t size);

/* Queue a message. false: the call has ended, or its client is too slow and its queue full. From any thread. */
bool call_send(struct call *call, const ProtobufCMessage *body);
bool call_send_slice(struct call *call, grpc_slice slice);
/* Nothing is on its way to the client: a message that could be left out need not be. */
bool call_is_idle(struct call *call);
/* End the call; exactly once for each, from any thread. */
void call_finish(struct call *call, mc_status status, const mc_error *error);
/* `on_cancel` is called, perhaps at once, when the client cancels; `on_end` with the call's last reference. */
void call_on(struct call *call, void *state, void (*on_cancel)(void *state), void (*on_end)(void *state));
/* Keep the call's memory, and give it back. */
void call_hold(struct call *call);
void call_release(struct call *call);
struct service *call_service(struct call *call);
/* What is left of the client's deadline; 0: it has none. */
int64_t call_timeout_ms(struct call *call);

/* Something that blocks, run by a worker thread. */
struct job {
  void (*run)(struct job *job);
  struct job *next;
};
/* false: too many wait already. */
bool call_run(struct call *call, struct job *job);

#endif
