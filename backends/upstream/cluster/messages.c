#include "messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/text.h"
#include "base/url.h"

#define ORIGIN "cluster"

mc_status message_pack(struct buf *out, const ProtobufCMessage *message, mc_error *err) {
  size_t size = protobuf_c_message_get_packed_size(message);
  void *room = buf_room(out, size);
  if (!room) return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "a request of %zu bytes is too large", size);
  protobuf_c_message_pack(message, room);
  buf_added(out, size);
  return MC_OK;
}

/* Two bytes can announce an empty element, which takes a hundred times as much decoded: what decoding may take is
 * limited. The largest ticket takes little more than its own size, a list of short names some 30 times its size. */
#define UNPACK_FACTOR 64
#define UNPACK_BASE   ((size_t)64 << 10)
#define UNPACK_MOST   ((size_t)256 << 20)

static void *limited_alloc(void *user, size_t size) {
  size_t *left = user;
  if (size > *left) return NULL;
  *left -= size;
  return malloc(size);
}

static void limited_free(void *user, void *memory) {
  (void)user;
  free(memory);
}

mc_status message_unpack(void **out, const ProtobufCMessageDescriptor *type, const void *data, size_t size,
                         mc_error *err) {
  size_t left = size < UNPACK_MOST / UNPACK_FACTOR ? UNPACK_BASE + UNPACK_FACTOR * size : UNPACK_MOST;
  ProtobufCAllocator limited = {limited_alloc, limited_free, &left};
  *out = protobuf_c_message_unpack(type, &limited, size, data);
  if (!*out) return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service sent a malformed %s", type->short_name);
  return MC_OK;
}

void message_free(void *message) {
  if (message) protobuf_c_message_free_unpacked(message, NULL);
}

static mc_status copy_text(char *to, size_t size, const char *from, const char *what, mc_error *err) {
  size_t length = strlen(from);
  if (length >= size) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service sent %s of %zu bytes; the limit is %zu", what, length,
                        size - 1);
  }
  memcpy(to, from, length + 1);
  return MC_OK;
}

mc_status validators_from(mc_validators *out, const Modelcache__V1__Validators *message, mc_error *err) {
  *out = (mc_validators){.last_modified = 0};
  if (!message) return MC_OK;
  out->last_modified = message->last_modified;
  mc_status status = copy_text(out->version, sizeof(out->version), message->version, "a version", err);
  return status ? status : copy_text(out->etag, sizeof(out->etag), message->etag, "an ETag", err);
}

void ticket_free(struct ticket *ticket) {
  if (ticket) free(ticket->chunks);
  free(ticket);
}

static void take_endpoints(struct ticket *ticket, const Modelcache__V1__Ticket *message) {
  for (size_t i = 0; i < message->n_endpoints && ticket->endpoint_count < TICKET_ENDPOINTS; i++) {
    const char *endpoint = message->endpoints[i];
    if (copy_text(ticket->endpoints[ticket->endpoint_count], TICKET_ENDPOINT_SIZE, endpoint, "", NULL) == MC_OK) {
      ticket->endpoint_count++;
    }
  }
  bool told = message->spread && message->spread < ticket->endpoint_count;
  ticket->spread = told ? message->spread : ticket->endpoint_count;
}

mc_status ticket_from(struct ticket **out, const Modelcache__V1__Ticket *message, mc_error *err) {
  const ProtobufCBinaryData *id = message->complete ? &message->digest : &message->flight;
  if (id->len != sizeof((*out)->id)) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service sent a ticket without a %s",
                        message->complete ? "digest" : "name to read by");
  }
  struct ticket *ticket = calloc(1, sizeof(*ticket));
  if (!ticket) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a ticket");
  ticket->complete = message->complete;
  memcpy(ticket->id, id->data, sizeof(ticket->id));
  ticket->size = message->size;
  take_endpoints(ticket, message);
  uint32_t count;
  mc_status status = validators_from(&ticket->validators, message->validators, err);
  if (!status && (message->size == MC_SIZE_UNKNOWN || !chunk_count(message->size, &count))) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service sent a ticket for %llu bytes",
                          (unsigned long long)message->size);
  }
  bool has_chunks = message->complete && (message->chunks.len || !message->size);
  if (!status && has_chunks) {
    uint64_t chunk_size = message->size ? message->chunk_size : MC_CHUNK_SIZE;
    status = chunk_table_from_bytes(&ticket->chunks, message->size, chunk_size, message->chunks.data,
                                    message->chunks.len, err);
  }
  if (status) {
    ticket_free(ticket);
    return status;
  }
  *out = ticket;
  return MC_OK;
}

/* What is shown to people may not steer their terminals. */
static bool is_printable(const char *text) {
  for (; *text; text++) {
    if ((unsigned char)*text < 0x20 || *text == 0x7f) return false;
  }
  return true;
}

mc_status entry_from(mc_entry *out, const Modelcache__V1__Entry *message, mc_error *err) {
  *out = (mc_entry){.struct_size = sizeof(*out),
                    .url = message->url,
                    .holders = "",
                    .size = message->has_size_case ? message->size : MC_SIZE_UNKNOWN,
                    .has_digest = message->digest.len == sizeof(out->digest.bytes),
                    .fetched_at = message->fetched_at_ms,
                    .checked_at = message->checked_at_ms,
                    .pinned = message->pinned,
                    .missing = message->missing};
  if (strlen(message->url) > URL_MAX || (message->digest.len && !out->has_digest)) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service sent an entry whose URL or digest has a wrong length");
  }
  if (!is_printable(message->url)) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service sent an entry whose URL can't be one");
  }
  if (out->has_digest) memcpy(out->digest.bytes, message->digest.data, sizeof(out->digest.bytes));
  return validators_from(&out->validators, message->validators, err);
}

mc_status former_from(mc_former *out, const Modelcache__V1__Version *message, mc_error *err) {
  *out = (mc_former){.size = message->size,
                     .fetched_at = message->fetched_at_ms,
                     .replaced_at = message->replaced_at_ms,
                     .stored = message->stored};
  if (message->digest.len != sizeof(out->digest.bytes)) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service sent a version whose digest has a wrong length");
  }
  memcpy(out->digest.bytes, message->digest.data, sizeof(out->digest.bytes));
  return validators_from(&out->validators, message->validators, err);
}

mc_status listed_from(mc_listed *out, const Modelcache__V1__Listed *message, mc_error *err) {
  *out = (mc_listed){.path = message->path,
                     .size = message->has_size_case ? message->size : MC_SIZE_UNKNOWN,
                     .has_digest = message->digest.len == sizeof(out->digest)};
  if (!path_is_safe(message->path)) {
    return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service listed '%.100s', which would leave the tree",
                        message->path);
  }
  if (out->has_digest) memcpy(&out->digest, message->digest.data, sizeof(out->digest));
  mc_status status = validators_from(&out->validators, message->validators, err);
  if (!message->validators) out->validators.last_modified = message->last_modified;
  return status;
}

/* For people, who need not have all of it. */
static void cut_text(char *to, size_t size, const char *from) {
  snprintf(to, size, "%s", from);
  text_clean(to);
}

static mc_status status_of_name(const char *name) {
  for (int status = 0; status < MC_STATUS_COUNT; status++) {
    if (strcmp(name, mc_status_name((mc_status)status)) == 0) return (mc_status)status;
  }
  return MC_PROTOCOL;
}

mc_status check_from(mc_origin_check *out, const Modelcache__V1__CheckOriginResponse *message, mc_error *err) {
  *out = (mc_origin_check){.struct_size = sizeof(*out),
                           .allowed = message->allowed,
                           .access.expires_at = message->expires_at_ms,
                           .revalidate_after_ms = message->revalidate_after_ms,
                           .parallelism = message->parallelism,
                           .bandwidth = message->bandwidth,
                           .pin = message->pin,
                           .size = message->has_size_case ? message->size : MC_SIZE_UNKNOWN};
  cut_text(out->rule, sizeof(out->rule), message->rule);
  cut_text(out->upstream, sizeof(out->upstream), message->upstream);
  cut_text(out->access.endpoint, sizeof(out->access.endpoint), message->endpoint);
  cut_text(out->access.credentials, sizeof(out->access.credentials), message->credentials);
  cut_text(out->access.identity, sizeof(out->access.identity), message->identity);
  mc_status status = status_of_name(message->status);
  if (status) mc_error_set(&out->error, status, ORIGIN, "%s", message->message);
  return validators_from(&out->validators, message->validators, err);
}

void progress_from(mc_upstream_progress *out, const Modelcache__V1__Progress *message) {
  static const char *const phases[] = {"queued at the service", "the service asks the origin",
                                       "another pod of the service downloads it", "the service downloads it",
                                       "the service verifies it"};
  size_t phase = (size_t)message->phase;
  const char *said = message->reason;
  *out = (mc_upstream_progress){.bytes = message->bytes,
                                .total = message->has_total_case ? message->total : MC_SIZE_UNKNOWN};
  out->reason = *said || phase >= sizeof(phases) / sizeof(*phases) ? said : phases[phase];
}
