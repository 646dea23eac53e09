/* What the control plane's peer may send: message frames in any pieces, the messages in them, texts of headers. */
#include <string.h>

#include "backends/upstream/cluster/messages.h"
#include "backends/upstream/cluster/wire.h"
#include "fuzz.h"

#define MOST ((size_t)1 << 16)

static void take_fetch_event(const void *data, size_t size) {
  void *message;
  if (message_unpack(&message, &modelcache__v1__fetch_event__descriptor, data, size, NULL)) return;
  const Modelcache__V1__FetchEvent *event = message;
  struct ticket *ticket;
  mc_upstream_progress progress;
  if (event->event_case == MODELCACHE__V1__FETCH_EVENT__EVENT_PROGRESS) {
    progress_from(&progress, event->progress);
    CHECK(progress.reason != NULL);
  } else if (event->event_case == MODELCACHE__V1__FETCH_EVENT__EVENT_TICKET &&
             ticket_from(&ticket, event->ticket, NULL) == MC_OK) {
    CHECK(ticket->endpoint_count <= TICKET_ENDPOINTS);
    for (size_t i = 0; i < ticket->endpoint_count; i++) CHECK(strlen(ticket->endpoints[i]) < TICKET_ENDPOINT_SIZE);
    CHECK(!ticket->chunks || (ticket->complete && ticket->chunks->size == ticket->size));
    ticket_free(ticket);
  }
  message_free(message);
}

static void take_list(const void *data, size_t size) {
  void *message;
  if (message_unpack(&message, &modelcache__v1__list_response__descriptor, data, size, NULL)) return;
  const Modelcache__V1__ListResponse *list = message;
  for (size_t i = 0; i < list->n_entries; i++) {
    mc_entry entry;
    if (entry_from(&entry, list->entries[i], NULL)) continue;
    CHECK(strlen(entry.validators.etag) < 256);
    for (const char *at = entry.url; *at; at++) CHECK((unsigned char)*at >= ' ');
  }
  for (size_t i = 0; i < list->n_listed; i++) {
    mc_listed listed;
    if (listed_from(&listed, list->listed[i], NULL) == MC_OK) CHECK(*listed.path && *listed.path != '/');
  }
  message_free(message);
}

static void take_history(const void *data, size_t size) {
  void *message;
  if (message_unpack(&message, &modelcache__v1__stat_response__descriptor, data, size, NULL)) return;
  const Modelcache__V1__StatResponse *answer = message;
  for (size_t i = 0; i < answer->n_history; i++) {
    mc_former former;
    if (former_from(&former, answer->history[i], NULL) == MC_OK) CHECK(strlen(former.validators.etag) < 256);
  }
  message_free(message);
}

static void take_check(const void *data, size_t size) {
  void *message;
  if (message_unpack(&message, &modelcache__v1__check_origin_response__descriptor, data, size, NULL)) return;
  mc_origin_check check;
  if (check_from(&check, message, NULL) == MC_OK) {
    const char *texts[] = {check.rule, check.upstream, check.access.endpoint, check.error.message};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
      for (const char *at = texts[i]; *at; at++) CHECK((unsigned char)*at >= ' ' && *at != 0x7f);
    }
    CHECK((int)check.error.status < MC_STATUS_COUNT && strlen(check.access.identity) < sizeof(check.access.identity));
  }
  message_free(message);
}

static void take_texts(const uint8_t *data, size_t size) {
  char text[64];
  wire_decode_message(text, sizeof(text), (const char *)data, size);
  CHECK(strlen(text) < sizeof(text) && strlen(text) <= size);
  int code = wire_parse_code((const char *)data, size);
  CHECK(code >= 0 && code < 1000 && wire_code_name(code) && (int)wire_status(code) < MC_STATUS_COUNT);
  mc_status named = wire_status_named(code, (const char *)data, size);
  CHECK((int)named < MC_STATUS_COUNT && (named == MC_OK) == (wire_status(code) == MC_OK));
}

/* The first byte says into what pieces the rest is cut. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  size_t piece = (size_t)data[0] + 1;
  data++;
  size--;
  take_texts(data, size);
  struct wire_frames frames;
  wire_frames_init(&frames, MOST);
  mc_status status = MC_OK;
  for (size_t at = 0; at < size && !status; at += piece) {
    status = wire_frames_feed(&frames, data + at, size - at < piece ? size - at : piece, NULL);
    const void *message;
    size_t length;
    while (wire_frames_next(&frames, &message, &length)) {
      CHECK(length <= MOST);
      take_fetch_event(message, length);
      take_list(message, length);
      take_history(message, length);
      take_check(message, length);
    }
  }
  wire_frames_free(&frames);
  return 0;
}
