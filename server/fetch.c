/* Fetch: a request for a file, told as progress and tickets. */
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "messages.h"

#define MAX_ENDPOINTS 8 /* of one ticket */
/* Waiting clients are told of progress so often that all of them together take at most 10,000 messages a second. */
#define NS_PER_WAITER 100000

struct fetch {
  struct call *call;
  mc_request *request;
  pthread_mutex_t lock;
  bool follow, quiet, cancelled;
  uint8_t followed[32]; /* the download that it was last told to follow; zeros: none yet */
  bool has_known;
  mc_digest known;
  mc_phase told_phase;
  int64_t told_at;
};

/* The bytes are at these endpoints; at our own if there is none. */
static void send_ticket(struct call *call, Modelcache__V1__Ticket *ticket, const mc_validators *validators,
                        const char *const *endpoints, size_t count) {
  Modelcache__V1__Validators message;
  Modelcache__V1__FetchEvent event = MODELCACHE__V1__FETCH_EVENT__INIT;
  const char *own[] = {call_service(call)->data_endpoint};
  fill_validators(&message, validators);
  ticket->validators = &message;
  ticket->chunk_size = (uint32_t)MC_CHUNK_SIZE;
  ticket->endpoints = (char **)(count ? endpoints : own);
  ticket->n_endpoints = count ? count : 1;
  event.event_case = MODELCACHE__V1__FETCH_EVENT__EVENT_TICKET;
  event.ticket = ticket;
  call_send(call, &event.base);
}

/* Whether this client's turn has come: a change of phase is told at once, all else as often as the load allows. */
static bool is_due(struct fetch *fetch, const mc_progress *news) {
  int64_t now = monotonic_ns();
  int64_t pause = (int64_t)atomic_load(&call_service(fetch->call)->fetches) * NS_PER_WAITER;
  if (fetch->told_at && news->phase == fetch->told_phase && now - fetch->told_at < pause) return false;
  fetch->told_at = now;
  fetch->told_phase = news->phase;
  return true;
}

/* Tell which download can be followed, here or at another member; and again when another one takes its place. */
static void tell_flight(struct fetch *fetch, const mc_progress *news) {
  static const uint8_t none[32];
  if (memcmp(news->flight, none, 32) == 0 || news->total == MC_SIZE_UNKNOWN) return;
  if (memcmp(news->flight, fetch->followed, 32) == 0) return;
  Modelcache__V1__Ticket ticket = MODELCACHE__V1__TICKET__INIT;
  memcpy(fetch->followed, news->flight, 32);
  ticket.flight = (ProtobufCBinaryData){32, fetch->followed};
  ticket.size = news->total;
  send_ticket(fetch->call, &ticket, &news->validators, &news->endpoint, *news->endpoint ? 1 : 0);
}

static void fetch_progress(void *user, const mc_progress *news) {
  struct fetch *fetch = user;
  if (fetch->follow) tell_flight(fetch, news);
  if (fetch->quiet || !call_is_idle(fetch->call) || !is_due(fetch, news)) return; /* the next one says more */
  Modelcache__V1__Progress progress = MODELCACHE__V1__PROGRESS__INIT;
  Modelcache__V1__FetchEvent event = MODELCACHE__V1__FETCH_EVENT__INIT;
  progress.phase = (Modelcache__V1__Progress__Phase)news->phase;
  progress.bytes = news->bytes;
  if (news->total != MC_SIZE_UNKNOWN) {
    progress.has_total_case = MODELCACHE__V1__PROGRESS__HAS_TOTAL_TOTAL;
    progress.total = news->total;
  }
  progress.rate = news->rate;
  if (news->eta_ms >= 0) {
    progress.has_eta_ms_case = MODELCACHE__V1__PROGRESS__HAS_ETA_MS_ETA_MS;
    progress.eta_ms = (uint64_t)news->eta_ms;
  }
  progress.reason = (char *)news->reason;
  event.event_case = MODELCACHE__V1__FETCH_EVENT__EVENT_PROGRESS;
  event.progress = &progress;
  call_send(fetch->call, &event.base);
}

static void fetch_done(void *user, mc_status status, mc_file *file, const mc_error *error) {
  struct fetch *fetch = user;
  struct call *call = fetch->call;
  if (!status) {
    Modelcache__V1__Ticket ticket = MODELCACHE__V1__TICKET__INIT;
    const mc_digest *digest = mc_file_digest(file);
    const mc_chunk_table *chunks = mc_file_chunks(file);
    const char *endpoints[MAX_ENDPOINTS];
    size_t count = mc_file_endpoints(file, endpoints, MAX_ENDPOINTS);
    ticket.complete = true;
    ticket.digest = (ProtobufCBinaryData){sizeof(*digest), (uint8_t *)digest};
    ticket.size = mc_file_size(file);
    ticket.cached = mc_file_was_cached(file);
    ticket.spread = (uint32_t)mc_file_spread(file);
    if (chunks && !(fetch->has_known && mc_digest_equal(&fetch->known, digest))) {
      ticket.chunks = (ProtobufCBinaryData){chunks->count * sizeof(mc_hash128), (uint8_t *)chunks->hashes};
    }
    send_ticket(call, &ticket, mc_file_validators(file), endpoints, count);
    mc_file_release(file);
  }
  call_finish(call, status, error);
}

static void fetch_cancel(void *state) {
  struct fetch *fetch = state;
  pthread_mutex_lock(&fetch->lock);
  mc_request *request = fetch->request;
  fetch->cancelled = true;
  pthread_mutex_unlock(&fetch->lock);
  if (request) mc_request_cancel(request);
}

static void fetch_end(void *state) {
  struct fetch *fetch = state;
  atomic_fetch_sub(&call_service(fetch->call)->fetches, 1);
  mc_request_release(fetch->request);
  pthread_mutex_destroy(&fetch->lock);
  free(fetch);
}

void fetch_handle(struct call *call, const ProtobufCMessage *body) {
  const Modelcache__V1__FetchRequest *message = (const Modelcache__V1__FetchRequest *)body;
  if (message->digest.len && message->digest.len != sizeof(mc_digest)) {
    call_refuse(call, MC_INVALID_ARGUMENT, "a digest has 32 bytes");
    return;
  }
  struct fetch *fetch = calloc(1, sizeof(*fetch));
  if (!fetch) {
    call_refuse(call, MC_NO_MEMORY, "no memory");
    return;
  }
  *fetch = (struct fetch){.call = call, .follow = message->follow, .quiet = message->quiet};
  pthread_mutex_init(&fetch->lock, NULL);
  fetch->has_known = message->known_digest.len == sizeof(fetch->known);
  if (fetch->has_known) memcpy(&fetch->known, message->known_digest.data, sizeof(fetch->known));
  atomic_fetch_add(&call_service(call)->fetches, 1);
  mc_get_options options = MC_GET_OPTIONS_INIT;
  options.flags = message->revalidate ? MC_GET_REVALIDATE : 0;
  options.timeout_ms = call_timeout_ms(call);
  options.progress = fetch_progress;
  options.user = fetch;
  mc_listed listed;
  if (listed_from(&listed, message->listed)) options.listed = &listed;
  mc_digest digest;
  if (message->digest.len == sizeof(digest)) {
    memcpy(&digest, message->digest.data, sizeof(digest));
    options.digest = &digest;
  }
  mc_error error = MC_ERROR_INIT;
  call_on(call, fetch, fetch_cancel, fetch_end);
  mc_request *request = NULL;
  call_hold(call); /* fetch_done may end the call before we have looked at it */
  mc_status status =
      mc_get_start(&request, call_service(call)->cache, message->url, &options, fetch_done, fetch, &error);
  if (status) {
    call_finish(call, status, &error);
  } else {
    pthread_mutex_lock(&fetch->lock);
    fetch->request = request;
    bool cancelled = fetch->cancelled;
    pthread_mutex_unlock(&fetch->lock);
    if (cancelled) mc_request_cancel(request);
  }
  call_release(call);
}
