#include "messages.h"

#include <string.h>

void fill_validators(Modelcache__V1__Validators *to, const mc_validators *from) {
  modelcache__v1__validators__init(to);
  to->version = (char *)from->version;
  to->etag = (char *)from->etag;
  to->last_modified = from->last_modified;
}

void fill_entry(struct entry_message *to, const mc_entry *entry) {
  modelcache__v1__entry__init(&to->message);
  fill_validators(&to->validators, &entry->validators);
  to->message.url = (char *)entry->url;
  to->message.validators = &to->validators;
  if (entry->size != MC_SIZE_UNKNOWN) {
    to->message.has_size_case = MODELCACHE__V1__ENTRY__HAS_SIZE_SIZE;
    to->message.size = entry->size;
  }
  if (entry->has_digest) to->message.digest = (ProtobufCBinaryData){sizeof(entry->digest), (uint8_t *)&entry->digest};
  to->message.fetched_at_ms = entry->fetched_at;
  to->message.checked_at_ms = entry->checked_at;
  to->message.pinned = entry->pinned;
  to->message.missing = entry->missing;
}

void fill_listed(struct listed_message *to, const mc_listed *listed) {
  modelcache__v1__listed__init(&to->message);
  to->value = *listed;
  fill_validators(&to->validators, &to->value.validators);
  to->message.validators = &to->validators;
  to->message.last_modified = listed->validators.last_modified;
  if (listed->size != MC_SIZE_UNKNOWN) {
    to->message.has_size_case = MODELCACHE__V1__LISTED__HAS_SIZE_SIZE;
    to->message.size = listed->size;
  }
  if (listed->has_digest) {
    to->message.digest = (ProtobufCBinaryData){sizeof(to->value.digest), to->value.digest.bytes};
  }
}

static bool copy_text(char *to, size_t size, const char *from) {
  size_t length = strlen(from);
  if (length < size) memcpy(to, from, length + 1);
  return length < size;
}

bool listed_from(mc_listed *out, const Modelcache__V1__Listed *message) {
  if (!message) return false;
  *out = (mc_listed){.path = "",
                     .size = message->has_size_case ? message->size : MC_SIZE_UNKNOWN,
                     .has_digest = message->digest.len == sizeof(out->digest)};
  if (out->has_digest) memcpy(&out->digest, message->digest.data, sizeof(out->digest));
  const Modelcache__V1__Validators *told = message->validators;
  if (!told) return out->has_digest;
  out->validators.last_modified = told->last_modified;
  return copy_text(out->validators.version, sizeof(out->validators.version), told->version) &&
         copy_text(out->validators.etag, sizeof(out->validators.etag), told->etag);
}
