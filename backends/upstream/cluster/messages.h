/* Messages of the control plane, and the values of the library that they stand for.
 *
 * Messages come from a peer: lengths, counts and memory are bounded, texts that the library limits are checked. */
#ifndef CLUSTER_MESSAGES_H
#define CLUSTER_MESSAGES_H

#include <modelcache/backend/upstream.h>
#include <protobuf-c/protobuf-c.h>

#include "base/buf.h"
#include "modelcache.pb-c.h"

mc_status message_pack(struct buf *out, const ProtobufCMessage *message, mc_error *err);
/* Decode; the memory it may take is in proportion to the message. MC_PROTOCOL. Give it to message_free. */
mc_status message_unpack(void **out, const ProtobufCMessageDescriptor *type, const void *data, size_t size,
                         mc_error *err);
void message_free(void *message); /* NULL is fine */

#define TICKET_ENDPOINTS     8 /* further ones are ignored */
#define TICKET_ENDPOINT_SIZE 300

/* What a Ticket says. */
struct ticket {
  bool complete;
  uint8_t id[32]; /* the digest if complete, else the download's name */
  uint64_t size;
  mc_validators validators;
  mc_chunk_table *chunks; /* complete only; NULL if it was left out */
  size_t endpoint_count;
  size_t spread; /* how many of them, the first ones, are as good as each other */
  char endpoints[TICKET_ENDPOINTS][TICKET_ENDPOINT_SIZE];
};

/* *out is given to ticket_free. */
mc_status ticket_from(struct ticket **out, const Modelcache__V1__Ticket *message, mc_error *err);
void ticket_free(struct ticket *ticket); /* NULL is fine */

/* `message` may be NULL: nothing is known. */
mc_status validators_from(mc_validators *out, const Modelcache__V1__Validators *message, mc_error *err);
/* out->url points into the message. */
mc_status entry_from(mc_entry *out, const Modelcache__V1__Entry *message, mc_error *err);
mc_status former_from(mc_former *out, const Modelcache__V1__Version *message, mc_error *err);
/* out->path points into the message. A path that would leave its folder: MC_PROTOCOL. */
mc_status listed_from(mc_listed *out, const Modelcache__V1__Listed *message, mc_error *err);
/* Texts that are too long are cut. */
mc_status check_from(mc_origin_check *out, const Modelcache__V1__CheckOriginResponse *message, mc_error *err);
/* out->reason points into the message, or to a static text for its phase. */
void progress_from(mc_upstream_progress *out, const Modelcache__V1__Progress *message);

#endif
