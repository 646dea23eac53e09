#include "upstream_origins.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/url.h"
#include "fake_exporter.h"
#include "http_origin.h"
#include "modelcache.pb-c.h"
#include "tests/unit/grpc_peer.h"

extern const mc_upstream_ops file_upstream_ops, http_upstream_ops, cluster_upstream_ops;
extern const mc_transport_ops tcp_transport_ops;

#define MAX_FILES 32
#define MAX_NAME  200
#define NOBODY    65534

/* A test can't go on without it; cmocka's own assertions are for the test's thread alone. */
static void must(bool holds) {
  if (!holds) abort();
}

/* What all of them have. */
struct origin {
  char root[128];
  /* file */
  char *folder;
  /* http */
  struct http_origin *server;
  char *pages[MAX_FILES * 8]; /* index pages that were served at some time */
  unsigned page_count;
  /* cluster */
  struct peer *peer;
  mc_transport *transport;
  mc_listener *listener;
  struct fake_exporter exporter;
  sem_t go;
  enum request next; /* under lock */
  mc_transport *transports[1];
  /* http and cluster: under lock */
  pthread_mutex_t lock;
  unsigned count, versions;
  struct entry {
    char path[MAX_NAME];
    const struct thing *thing;
    unsigned version;
    bool forbidden, misleading;
    enum how how;
    uint64_t at;
    struct fake_content *object; /* what it is served from, once it was asked for */
  } entries[MAX_FILES];
};

static struct origin *origin_new(void) {
  struct origin *origin = calloc(1, sizeof(*origin));
  must(origin != NULL);
  pthread_mutex_init(&origin->lock, NULL);
  return origin;
}

static void origin_free(struct origin *origin) {
  for (unsigned i = 0; i < origin->page_count; i++) free(origin->pages[i]);
  pthread_mutex_destroy(&origin->lock);
  free(origin->folder);
  free(origin);
}

static const char *root_of(const struct origin *origin) {
  return origin->root;
}

static struct entry *find(struct origin *origin, const char *path) {
  for (unsigned i = 0; i < origin->count; i++) {
    if (strcmp(origin->entries[i].path, path) == 0) return &origin->entries[i];
  }
  return NULL;
}

static struct entry *find_or_add(struct origin *origin, const char *path) {
  struct entry *entry = find(origin, path);
  if (entry) return entry;
  must(origin->count < MAX_FILES && strlen(path) < MAX_NAME);
  entry = &origin->entries[origin->count++];
  *entry = (struct entry){.thing = NULL};
  strcpy(entry->path, path);
  return entry;
}

/* ---- file ---- */

static struct origin *file_start(mc_upstream_config *config) {
  (void)config;
  struct origin *origin = origin_new();
  origin->folder = strdup("/tmp/modelcache-contract-XXXXXX");
  must(mkdtemp(origin->folder) && chmod(origin->folder, 0755) == 0);
  snprintf(origin->root, sizeof(origin->root), "file://%s/", origin->folder);
  return origin;
}

static void file_stop(struct origin *origin) {
  setfsuid(getuid());
  remove_all(origin->folder);
  origin_free(origin);
}

static char *file_path(const struct origin *origin, const char *path) {
  char *whole = format_str("%s/%s", origin->folder, path);
  must(whole != NULL);
  return whole;
}

/* In place, so that whoever has it open sees another content. */
static void file_put(struct origin *origin, const char *path, const struct thing *thing) {
  char *whole = file_path(origin, path), *slash = strrchr(whole, '/');
  *slash = 0;
  int error = mkdir_all(whole, 0755);
  *slash = '/';
  int fd = open(whole, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  must(!error && fd >= 0);
  error = pwrite_all(fd, thing->data, thing->size, 0);
  must(!error && ftruncate(fd, (off_t)thing->size) == 0);
  close(fd);
  free(whole);
}

static void file_remove(struct origin *origin, const char *path) {
  char *whole = file_path(origin, path);
  must(unlink(whole) == 0);
  free(whole);
}

static void file_forbid(struct origin *origin, const char *path) {
  char *whole = file_path(origin, path);
  must(chmod(whole, 0) == 0);
  if (getuid() == 0) setfsuid(NOBODY); /* who is root may read everything */
  free(whole);
}

const struct origin_ops file_origin = {
    .upstream = &file_upstream_ops,
    .start = file_start,
    .stop = file_stop,
    .root = root_of,
    .put = file_put,
    .remove = file_remove,
    .forbid = file_forbid,
};

/* ---- http ---- */

static struct origin *http_start(mc_upstream_config *config) {
  (void)config;
  struct origin *origin = origin_new();
  origin->server = http_origin_start();
  snprintf(origin->root, sizeof(origin->root), "http://127.0.0.1:%u/", http_origin_port(origin->server));
  return origin;
}

static void http_stop(struct origin *origin) {
  http_origin_stop(origin->server);
  origin_free(origin);
}

/* The path as it stands in a request, malloced. */
static char *http_path(const struct origin *origin, const char *path) {
  char *url = url_join(origin->root, path);
  must(url != NULL);
  char *only = strdup(url + strlen(origin->root) - 1);
  free(url);
  must(only != NULL);
  return only;
}

static void http_put_index(struct origin *origin, const char *folder, char *html) {
  char *path = http_path(origin, folder);
  must(origin->page_count < sizeof(origin->pages) / sizeof(*origin->pages));
  origin->pages[origin->page_count++] = html;
  http_origin_put(origin->server, path, html, strlen(html));
  free(path);
}

/* The index page of a folder, whose path ends in '/'. */
static void http_index(struct origin *origin, const char *folder) {
  char *html = strdup("<html><a href=\"../\">up</a>");
  size_t length = strlen(folder);
  for (unsigned i = 0; i < origin->count; i++) {
    const char *path = origin->entries[i].path;
    if (strncmp(path, folder, length) != 0) continue;
    size_t size = strcspn(path + length, "/");
    bool is_folder = path[length + size] == '/', seen = false;
    for (unsigned j = 0; j < i; j++) seen |= strncmp(origin->entries[j].path, path, length + size + is_folder) == 0;
    if (seen) continue;
    char *name = format_str("%.*s", (int)size, path + length);
    char *href = http_path(origin, name);
    char *more = format_str("%s<a href=\"%s%s\">%s</a>\n", html, href + 1, is_folder ? "/" : "", "x");
    free(name);
    free(href);
    free(html);
    html = more;
    must(html != NULL);
  }
  http_put_index(origin, folder, html);
}

static void http_put(struct origin *origin, const char *path, const struct thing *thing) {
  char *in_request = http_path(origin, path);
  http_origin_put(origin->server, in_request, thing->data, thing->size);
  free(in_request);
  bool is_new = !find(origin, path);
  find_or_add(origin, path)->thing = thing;
  for (const char *slash = strchr(path, '/'); is_new && slash; slash = strchr(slash + 1, '/')) {
    char *folder = format_str("%.*s", (int)(slash + 1 - path), path);
    http_index(origin, folder);
    free(folder);
  }
}

static void http_remove(struct origin *origin, const char *path) {
  char *in_request = http_path(origin, path);
  http_origin_remove(origin->server, in_request);
  free(in_request);
}

static void http_set(struct origin *origin, const char *path, const struct http_behaviour *behaviour) {
  char *in_request = http_path(origin, path);
  http_origin_behave(origin->server, in_request, behaviour);
  free(in_request);
}

static void http_forbid(struct origin *origin, const char *path) {
  http_set(origin, path, &(struct http_behaviour){.status = 403});
}

struct http_behaviour http_behaviour_of(enum how how, uint64_t at, unsigned times, uint64_t size) {
  const struct http_behaviour behaviours[HOWS] = {
      [HOW_SILENT] = {.stall_head = true},
      [HOW_STALLED] = {.stalls = true, .at = at},
      [HOW_CUT] = {.cuts = true, .at = at, .times = times},
      [HOW_FAILING] = {.status = 503, .times = times},
      [HOW_UNRANGED] = {.no_ranges = true},
      [HOW_SIZELESS] = {.chunked = true},
      [HOW_SAID_MORE] = {.head_lies = true, .length = size + 1000},
      [HOW_SAID_LESS] = {.head_lies = true, .length = size - 1000},
      [HOW_WRONG_RANGE] = {.wrong_range = true},
      [HOW_LOOPING] = {.leads_to = ""},
      [HOW_MISLED] = {.leads_to = "http://169.254.169.254/latest/meta-data/"},
  };
  return behaviours[how];
}

static void http_behave(struct origin *origin, const char *path, enum how how, uint64_t at, unsigned times) {
  const struct entry *entry = find(origin, path);
  uint64_t size = entry ? entry->thing->size : 0; /* of an index page nobody needs it */
  struct http_behaviour behaviour = http_behaviour_of(how, at, times, size);
  http_set(origin, path, &behaviour);
}

static void http_mislead(struct origin *origin, const char *folder) {
  http_put_index(origin, folder, strdup("<a href=\"a\">a</a><a href=\"..%2f..%2fetc%2fpasswd\">b</a>"));
}

static struct counts http_counts_of(struct origin *origin) {
  struct http_counts counts = http_origin_counts(origin->server);
  return (struct counts){counts.connections, counts.requests, counts.body_bytes};
}

const struct origin_ops http_origin = {
    .upstream = &http_upstream_ops,
    .can = HTTP_CAN | 1 << HOW_UNRANGED | 1 << HOW_SIZELESS,
    .start = http_start,
    .stop = http_stop,
    .root = root_of,
    .put = http_put,
    .remove = http_remove,
    .forbid = http_forbid,
    .behave = http_behave,
    .mislead = http_mislead,
    .counts = http_counts_of,
};

/* ---- cluster: a peer that speaks gRPC, and a real listener of the data plane ---- */

static void send_message(struct peer_call *call, const ProtobufCMessage *message) {
  size_t size = protobuf_c_message_get_packed_size(message);
  uint8_t *data = malloc(size + 1);
  protobuf_c_message_pack(message, data);
  peer_send(call, data, size);
  free(data);
}

/* With the lock held: the object that the entry's bytes are served from. */
static const struct fake_content *object_of(struct origin *origin, struct entry *entry) {
  if (entry->object) return entry->object;
  entry->object = fake_add(&origin->exporter, MC_CONTENT_OBJECT, entry->thing->size);
  if (entry->thing->size) memcpy(entry->object->data, entry->thing->data, entry->thing->size);
  pthread_mutex_lock(&origin->exporter.lock);
  memcpy(entry->object->content.id, entry->thing->digest.bytes, 32);
  pthread_mutex_unlock(&origin->exporter.lock);
  return entry->object;
}

/* With the lock held: its bytes as a download under way, of which `landed` have come. */
static const struct fake_content *flight_of(struct origin *origin, struct entry *entry, uint64_t landed) {
  struct fake_content *flight = fake_add_flight(&origin->exporter, entry->thing->size, false);
  memcpy(flight->data, entry->thing->data, entry->thing->size);
  fake_land(flight, landed);
  return flight;
}

static void send_ticket(struct origin *origin, struct peer_call *call, const struct entry *entry,
                        const struct fake_content *content, const ProtobufCBinaryData *known) {
  Modelcache__V1__FetchEvent event = MODELCACHE__V1__FETCH_EVENT__INIT;
  Modelcache__V1__Ticket ticket = MODELCACHE__V1__TICKET__INIT;
  Modelcache__V1__Validators validators = MODELCACHE__V1__VALIDATORS__INIT;
  char etag[16], *endpoint = (char *)tcp_transport_ops.listener_endpoint(origin->listener);
  mc_chunk_table *chunks = entry->thing->chunks, *longer = NULL;
  snprintf(etag, sizeof(etag), "\"v%u\"", entry->version);
  event.event_case = MODELCACHE__V1__FETCH_EVENT__EVENT_TICKET;
  event.ticket = &ticket;
  validators.etag = etag;
  ticket.validators = &validators;
  ticket.complete = content->content.kind == MC_CONTENT_OBJECT;
  ticket.size = entry->thing->size;
  if (entry->how == HOW_SAID_MORE) {
    ticket.size += 1000;
    chunks = longer = chunk_table_new(ticket.size);
  }
  ticket.n_endpoints = 1;
  ticket.endpoints = &endpoint;
  ticket.chunk_size = MC_CHUNK_SIZE;
  ProtobufCBinaryData id = {32, (uint8_t *)content->content.id};
  if (ticket.complete) ticket.digest = id;
  if (!ticket.complete) ticket.flight = id;
  bool has_it = known && known->len == 32 && memcmp(known->data, id.data, 32) == 0;
  if (ticket.complete && !has_it) ticket.chunks = (ProtobufCBinaryData){chunks->count * 16, (uint8_t *)chunks->hashes};
  send_message(call, &event.base);
  free(longer);
}

static void answer_fetch(struct origin *origin, struct peer_call *call, struct entry *entry,
                         const ProtobufCBinaryData *known) {
  pthread_mutex_lock(&origin->lock);
  struct entry now = *entry;
  bool follow = now.how == HOW_STALLED || now.how == HOW_LATE;
  const struct fake_content *first =
      follow ? flight_of(origin, entry, now.how == HOW_LATE ? now.thing->size : now.at) : object_of(origin, entry);
  const struct fake_content *object = now.how == HOW_LATE ? object_of(origin, entry) : NULL;
  pthread_mutex_unlock(&origin->lock);
  send_ticket(origin, call, &now, first, known);
  if (now.how == HOW_STALLED) {
    peer_wait_cancelled(call);
    return;
  }
  if (now.how == HOW_LATE) {
    sem_wait(&origin->go);
    send_ticket(origin, call, &now, object, NULL);
  }
  peer_finish(call, 0, NULL);
}

static void entry_message(Modelcache__V1__Entry *out, const struct entry *entry, const char *url,
                          Modelcache__V1__Validators *validators, char etag[16]) {
  modelcache__v1__entry__init(out);
  modelcache__v1__validators__init(validators);
  snprintf(etag, 16, "\"v%u\"", entry->version);
  validators->etag = etag;
  out->url = (char *)url;
  out->validators = validators;
  out->has_size_case = MODELCACHE__V1__ENTRY__HAS_SIZE_SIZE;
  out->size = entry->thing->size;
  out->digest = (ProtobufCBinaryData){32, (uint8_t *)entry->thing->digest.bytes};
}

static void answer_stat(struct peer_call *call, const struct entry *entry, const char *url) {
  Modelcache__V1__StatResponse response = MODELCACHE__V1__STAT_RESPONSE__INIT;
  Modelcache__V1__Entry message;
  Modelcache__V1__Validators validators;
  char etag[16];
  entry_message(&message, entry, url, &validators, etag);
  response.entry = &message;
  send_message(call, &response.base);
  peer_finish(call, 0, NULL);
}

static void answer_list(struct origin *origin, struct peer_call *call, const char *folder) {
  bool any = false;
  for (unsigned i = 0; i < origin->count; i++) {
    const struct entry *entry = &origin->entries[i];
    if (strncmp(entry->path, folder, strlen(folder)) != 0) continue;
    any = true;
    Modelcache__V1__ListResponse response = MODELCACHE__V1__LIST_RESPONSE__INIT;
    Modelcache__V1__Listed listed = MODELCACHE__V1__LISTED__INIT, *pointer = &listed;
    Modelcache__V1__Entry message;
    Modelcache__V1__Validators validators;
    char etag[16];
    listed.path = entry->misleading ? (char *)"a/../../etc/passwd" : (char *)entry->path + strlen(folder);
    if (entry->thing) {
      listed.has_size_case = MODELCACHE__V1__LISTED__HAS_SIZE_SIZE;
      listed.size = entry->thing->size;
      entry_message(&message, entry, "", &validators, etag);
      listed.validators = &validators;
      listed.digest = message.digest;
    }
    response.n_listed = 1;
    response.listed = &pointer;
    send_message(call, &response.base);
  }
  peer_finish(call, any ? 0 : 5, any ? NULL : "there is no such folder");
}

static void answer_for_the_cache(struct origin *origin, struct peer_call *call, enum request request,
                                 const char *prefix, const char *after) {
  Modelcache__V1__ListResponse list = MODELCACHE__V1__LIST_RESPONSE__INIT;
  Modelcache__V1__EvictResponse evict = MODELCACHE__V1__EVICT_RESPONSE__INIT;
  Modelcache__V1__StatusResponse status = MODELCACHE__V1__STATUS_RESPONSE__INIT;
  Modelcache__V1__CheckOriginResponse check = MODELCACHE__V1__CHECK_ORIGIN_RESPONSE__INIT;
  Modelcache__V1__RepairResponse repair = MODELCACHE__V1__REPAIR_RESPONSE__INIT;
  Modelcache__V1__Entry message, *pointer = &message;
  Modelcache__V1__Validators validators;
  char etag[16], url[2 * MAX_NAME];
  list.entries = &pointer;
  list.n_entries = 1;
  evict.bytes = EVICTED_BYTES;
  status.json = (char *)"{\"well\":true}";
  check.upstream = (char *)"http";
  check.status = (char *)"not_found";
  check.message = (char *)"there is no such file";
  for (unsigned i = 0; request == REQUEST_ENTRIES && i < origin->count; i++) { /* put in order by the test */
    snprintf(url, sizeof(url), "%s%s", origin->root, origin->entries[i].path);
    if (strncmp(url, prefix, strlen(prefix)) != 0 || strcmp(url, after) <= 0) continue;
    entry_message(&message, &origin->entries[i], url, &validators, etag);
    send_message(call, &list.base);
  }
  if (request == REQUEST_PREFETCH) peer_send(call, "", 0);
  if (request == REQUEST_EVICT) send_message(call, &evict.base);
  if (request == REQUEST_STATUS) send_message(call, &status.base);
  if (request == REQUEST_CHECK) send_message(call, &check.base);
  repair.records = 5;
  repair.entries = 4;
  repair.missing = 3;
  repair.older = 2;
  repair.objects = 1;
  if (request == REQUEST_REPAIR) send_message(call, &repair.base);
  peer_finish(call, 0, NULL);
}

/* What is asked is told by the fields of the request: a Fetch asks to follow, a List has a prefix and `origin`; unless
 * the test has said what will be asked. */
static void answer_call(struct peer_call *call, void *user) {
  struct origin *origin = user;
  size_t size, root = strlen(origin->root);
  const uint8_t *message = peer_message(call, &size);
  Modelcache__V1__FetchRequest *fetch = modelcache__v1__fetch_request__unpack(NULL, size, message);
  Modelcache__V1__ListRequest *list = modelcache__v1__list_request__unpack(NULL, size, message);
  const char *url = fetch ? fetch->url : list ? list->prefix : "";
  bool ours = strncmp(url, origin->root, root) == 0;
  char *path = calloc(1, strlen(url) + 1);
  ours = ours && url_decode(path, url + root, strlen(url + root));
  pthread_mutex_lock(&origin->lock);
  struct entry *entry = ours ? find(origin, path) : NULL;
  struct entry now = entry ? *entry : (struct entry){.thing = NULL};
  enum request request = origin->next;
  pthread_mutex_unlock(&origin->lock);
  if (entry && now.how == HOW_SILENT) {
    peer_wait_cancelled(call);
  } else if (request) {
    answer_for_the_cache(origin, call, request, url, list ? list->after : "");
  } else if (entry && now.forbidden) {
    peer_finish(call, 7, "not for you");
  } else if (ours && list && list->origin) {
    answer_list(origin, call, path);
  } else if (!entry) {
    peer_finish(call, 5, "there is no such file");
  } else if (fetch->follow) {
    answer_fetch(origin, call, entry, &fetch->known_digest);
  } else {
    answer_stat(call, &now, url);
  }
  free(path);
  if (fetch) modelcache__v1__fetch_request__free_unpacked(fetch, NULL);
  if (list) modelcache__v1__list_request__free_unpacked(list, NULL);
}

static struct origin *cluster_start(mc_upstream_config *config) {
  struct origin *origin = origin_new();
  mc_transport_config transport = {.struct_size = sizeof(transport),
                                   .connect_timeout_ms = config->connect_timeout_ms,
                                   .stall_timeout_ms = config->stall_timeout_ms,
                                   .threads = 2,
                                   .max_connections = 64};
  snprintf(origin->root, sizeof(origin->root), "https://origin.test/");
  sem_init(&origin->go, 0, 0);
  fake_init(&origin->exporter);
  mc_status status = tcp_transport_ops.open(&origin->transport, &transport, NULL);
  if (!status) {
    status =
        tcp_transport_ops.listen(origin->transport, "127.0.0.1:0", &origin->exporter.exporter, &origin->listener, NULL);
  }
  must(status == MC_OK);
  origin->peer = peer_start(0, answer_call, origin);
  origin->transports[0] = origin->transport;
  config->endpoint = peer_address(origin->peer);
  config->transports = origin->transports;
  config->transport_count = 1;
  return origin;
}

static void cluster_stop(struct origin *origin) {
  for (int i = 0; i < 64; i++) sem_post(&origin->go);
  peer_stop(origin->peer);
  tcp_transport_ops.listener_close(origin->listener, 0);
  tcp_transport_ops.close(origin->transport);
  fake_free(&origin->exporter);
  sem_destroy(&origin->go);
  origin_free(origin);
}

/* With the lock held: what was served of it until now is gone. */
static void forget_object(struct origin *origin, struct entry *entry) {
  if (!entry->object) return;
  pthread_mutex_lock(&origin->exporter.lock);
  memset(entry->object->content.id, 0, 32);
  pthread_mutex_unlock(&origin->exporter.lock);
  entry->object = NULL;
}

static void cluster_put(struct origin *origin, const char *path, const struct thing *thing) {
  pthread_mutex_lock(&origin->lock);
  struct entry *entry = find_or_add(origin, path);
  forget_object(origin, entry);
  entry->thing = thing;
  entry->version = ++origin->versions;
  pthread_mutex_unlock(&origin->lock);
}

static void cluster_remove(struct origin *origin, const char *path) {
  pthread_mutex_lock(&origin->lock);
  struct entry *entry = find(origin, path);
  forget_object(origin, entry);
  *entry = origin->entries[--origin->count];
  pthread_mutex_unlock(&origin->lock);
}

static void cluster_forbid(struct origin *origin, const char *path) {
  pthread_mutex_lock(&origin->lock);
  find(origin, path)->forbidden = true;
  pthread_mutex_unlock(&origin->lock);
}

static void cluster_behave(struct origin *origin, const char *path, enum how how, uint64_t at, unsigned times) {
  (void)times;
  pthread_mutex_lock(&origin->lock);
  struct entry *entry = find_or_add(origin, path); /* a folder has none of its own */
  entry->how = how;
  entry->at = at;
  pthread_mutex_unlock(&origin->lock);
}

static void cluster_news(struct origin *origin) {
  sem_post(&origin->go);
}

static void cluster_expect(struct origin *origin, enum request request) {
  pthread_mutex_lock(&origin->lock);
  origin->next = request;
  pthread_mutex_unlock(&origin->lock);
}

static void cluster_mislead(struct origin *origin, const char *folder) {
  char *path = format_str("%sx", folder);
  pthread_mutex_lock(&origin->lock);
  find_or_add(origin, path)->misleading = true;
  pthread_mutex_unlock(&origin->lock);
  free(path);
}

static struct counts cluster_counts(struct origin *origin) {
  pthread_mutex_lock(&origin->exporter.lock);
  uint64_t sent = origin->exporter.sent;
  pthread_mutex_unlock(&origin->exporter.lock);
  return (struct counts){(unsigned)peer_connections(origin->peer), (unsigned)peer_calls(origin->peer), sent};
}

const struct origin_ops cluster_origin = {
    .upstream = &cluster_upstream_ops,
    .can = 1 << HOW_SILENT | 1 << HOW_STALLED | 1 << HOW_LATE | 1 << HOW_SAID_MORE,
    .tells_digest = true,
    .start = cluster_start,
    .stop = cluster_stop,
    .root = root_of,
    .put = cluster_put,
    .remove = cluster_remove,
    .forbid = cluster_forbid,
    .behave = cluster_behave,
    .news = cluster_news,
    .mislead = cluster_mislead,
    .expect = cluster_expect,
    .counts = cluster_counts,
};
