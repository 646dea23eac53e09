/* The service as the upstream sees it: one or more servers, of which one answers.
 *
 * Each has a circuit breaker, which the first call that can't reach it trips: a client with much to get does not wait
 * for each file until it is clear that nobody answers, and an outage is logged once. */
#ifndef CLUSTER_SERVICE_H
#define CLUSTER_SERVICE_H

#include <modelcache/backend/upstream.h>
#include <protobuf-c/protobuf-c.h>

#include "grpc.h"

struct service;

/* No I/O. `config` is copied but for its logger. */
mc_status service_open(struct service **out, const mc_upstream_config *config, mc_error *err);
/* No call is under way. NULL is fine. */
void service_close(struct service *service);

/* Call `method` ("Fetch") of the first server that can be had, the one that answered last before the others. Blocks
 * until there is a first message or the call has ended well. MC_UNAVAILABLE if no server can be reached. */
mc_status service_call(struct rpc_stream **out, struct service *service, const char *method,
                       const ProtobufCMessage *request, const mc_call *call, mc_error *err);
/* The same for a method with one answer, which is decoded: give it to message_free. */
mc_status service_unary(void **answer, const ProtobufCMessageDescriptor *type, struct service *service,
                        const char *method, const ProtobufCMessage *request, const mc_call *call, mc_error *err);

#endif
