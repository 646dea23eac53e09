/* The cluster upstream against a service that says what each test scripts, and a transport in memory that fails on
 * demand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <modelcache/backend/transport.h>
#include <modelcache/backend/upstream.h>

#include "base/clock.h"
#include "base/hash.h"
#include "grpc_peer.h"
#include "modelcache.pb-c.h"

extern const mc_upstream_ops cluster_upstream_ops;

#define SIZE     ((size_t)9 << 20) /* two chunks and a part */
#define URL      "https://origin/model.bin"
#define ENDPOINT "fake://one:1"
#define RETRIES  3

static const mc_call forever = {INT64_MAX, NULL};
static uint8_t *content;
static mc_digest digest;
static mc_chunk_table *chunks;
static const uint8_t flight_id[32] = "the name of a download under way";

/* ---- the transport ---- */

#define PLAN_MAX 16

struct fault {
  uint64_t after; /* bytes of the read that are delivered first */
  mc_status status;
};

/* What every read from a host does. */
struct habit {
  const char *host;
  uint64_t after;   /* so much it delivers, */
  mc_status status; /* and then fails with this; */
  bool spoils;      /* or delivers all wrong, unless it is told of the suspicion: then it fails so; */
  bool always;      /* or even then */
  bool dies;        /* from then on it can't be connected to either */
  sem_t *gate;      /* a read waits here for its turn */
  int reads;        /* how many there were */
  uint64_t bytes;
  bool suspected;
};

struct fake {
  mc_transport base;
  struct habit habits[4];
  sem_t *gate; /* a read waits here for its turn */
  pthread_mutex_t lock;
  struct fault plan[PLAN_MAX]; /* of the next reads */
  int planned, connects, open, reads, flight_reads;
  int failing_connects;
  const char *failing_host;
  bool flight_gone;
  sem_t *news;       /* posted by a planned fault: the service says something then */
  char endpoint[64]; /* of the last connect */
  bool suspected;
};

struct fake_connection {
  mc_connection base;
  struct habit *habit; /* or NULL */
};

static struct habit *habit_of(struct fake *fake, const char *endpoint) {
  for (size_t i = 0; i < 4 && fake->habits[i].host; i++) {
    if (strstr(endpoint, fake->habits[i].host)) return &fake->habits[i];
  }
  return NULL;
}

static mc_status fake_connect(mc_transport *self, const char *endpoint, mc_connection **out, const mc_call *call,
                              mc_error *err) {
  struct fake *fake = (struct fake *)self;
  mc_status status = mc_call_check(call, err);
  if (status) return status;
  pthread_mutex_lock(&fake->lock);
  fake->connects++;
  snprintf(fake->endpoint, sizeof(fake->endpoint), "%s", endpoint);
  struct habit *habit = habit_of(fake, endpoint);
  bool fails = fake->failing_connects > 0 || (fake->failing_host && strstr(endpoint, fake->failing_host)) ||
               (habit && habit->dies && habit->reads);
  if (fails) {
    if (fake->failing_connects) fake->failing_connects--;
  } else {
    fake->open++;
  }
  pthread_mutex_unlock(&fake->lock);
  if (fails) return mc_error_set(err, MC_UNAVAILABLE, "fake", "connection refused");
  struct fake_connection *connection = calloc(1, sizeof(*connection));
  connection->base.transport = self;
  connection->habit = habit;
  *out = &connection->base;
  return MC_OK;
}

static mc_status fake_read(mc_connection *connection, const mc_content *what, mc_sink *sink, const mc_call *call,
                           mc_error *err) {
  struct fake *fake = (struct fake *)connection->transport;
  struct habit *habit = ((struct fake_connection *)connection)->habit;
  struct fault fault = {UINT64_MAX, MC_OK};
  if (fake->gate) sem_wait(fake->gate);
  if (habit && habit->gate) sem_wait(habit->gate);
  pthread_mutex_lock(&fake->lock);
  fake->reads++;
  bool spoils = habit && habit->spoils && (!sink->suspect || habit->always);
  if (habit) {
    habit->reads++;
    habit->suspected |= sink->suspect;
    if (habit->status && !spoils) fault = (struct fault){habit->after, habit->status};
  }
  if (sink->suspect) fake->suspected = true;
  if (fake->planned) {
    fault = fake->plan[0];
    memmove(fake->plan, fake->plan + 1, (size_t)--fake->planned * sizeof(*fake->plan));
  } else if (what->kind == MC_CONTENT_FLIGHT && fake->flight_gone) {
    fault = (struct fault){0, MC_NOT_FOUND};
  }
  if (what->kind == MC_CONTENT_FLIGHT) fake->flight_reads++;
  pthread_mutex_unlock(&fake->lock);
  const void *id = what->kind == MC_CONTENT_FLIGHT ? flight_id : digest.bytes;
  if (memcmp(what->id, id, 32) != 0) return mc_error_set(err, MC_NOT_FOUND, "fake", "no such content");
  for (bool odd = false; sink->offset < sink->end; odd = !odd) {
    size_t size = 1 << 20;
    mc_status status = mc_call_check(call, err);
    if (status) return status;
    if (fault.after == 0) {
      if (fault.status == MC_OK) return MC_OK; /* a transport that does not do what it promises */
      if (fake->news) sem_post(fake->news);
      return mc_error_set(err, fault.status, "fake", "as planned");
    }
    void *room = sink->space(sink, &size);
    if (size > sink->end - sink->offset) size = (size_t)(sink->end - sink->offset);
    if (size > fault.after) size = (size_t)fault.after;
    if (fault.after != UINT64_MAX) fault.after -= size;
    pthread_mutex_lock(&fake->lock);
    if (habit) habit->bytes += size;
    pthread_mutex_unlock(&fake->lock);
    if (spoils) {
      memset(room, 0xee, size);
      status = sink->advance(sink, size, err);
    } else if (odd) {
      status = sink->write(sink, content + sink->offset, size, err);
    } else {
      memcpy(room, content + sink->offset, size);
      status = sink->advance(sink, size, err);
    }
    if (status) return status;
  }
  return MC_OK;
}

static void fake_disconnect(mc_connection *connection) {
  struct fake *fake = (struct fake *)connection->transport;
  pthread_mutex_lock(&fake->lock);
  fake->open--;
  pthread_mutex_unlock(&fake->lock);
  free(connection);
}

static const mc_transport_ops fake_ops = {
    .abi = MC_TRANSPORT_ABI, .name = "fake", .connect = fake_connect, .read = fake_read, .disconnect = fake_disconnect};

/* ---- the service ---- */

#define STEPS_MAX 16

/* What each call is answered with, in the order of their coming; the last answers all further ones. */
struct script {
  pthread_mutex_t lock;
  peer_handler steps[STEPS_MAX];
  int count, next;
  sem_t go;              /* for steps that wait for the test */
  uint8_t request[4096]; /* the last one */
  size_t request_size;
};

static void follow_script(struct peer_call *call, void *user) {
  struct script *script = user;
  pthread_mutex_lock(&script->lock);
  peer_handler step = script->steps[script->next < script->count ? script->next : script->count - 1];
  script->next++;
  const uint8_t *message = peer_message(call, &script->request_size);
  assert_true(script->request_size <= sizeof(script->request));
  memcpy(script->request, message, script->request_size);
  pthread_mutex_unlock(&script->lock);
  step(call, user);
}

static void send_message(struct peer_call *call, const ProtobufCMessage *message) {
  size_t size = protobuf_c_message_get_packed_size(message);
  uint8_t *data = malloc(size + 1);
  protobuf_c_message_pack(message, data);
  peer_send(call, data, size);
  free(data);
}

static void answer(struct peer_call *call, const ProtobufCMessage *message) {
  send_message(call, message);
  peer_finish(call, 0, NULL);
}

struct ticket_spec {
  bool complete, without_chunks, empty;
  const mc_digest *digest;
  uint64_t size;
  const char *etag;
  const char *endpoints[4];
  uint32_t spread;
};

static void send_ticket(struct peer_call *call, const struct ticket_spec *spec) {
  Modelcache__V1__FetchEvent event = MODELCACHE__V1__FETCH_EVENT__INIT;
  Modelcache__V1__Ticket ticket = MODELCACHE__V1__TICKET__INIT;
  Modelcache__V1__Validators validators = MODELCACHE__V1__VALIDATORS__INIT;
  static const char *const one[] = {ENDPOINT};
  bool own = spec->endpoints[0] != NULL;
  event.event_case = MODELCACHE__V1__FETCH_EVENT__EVENT_TICKET;
  event.ticket = &ticket;
  ticket.validators = &validators;
  validators.etag = (char *)(spec->etag ? spec->etag : "\"1\"");
  ticket.complete = spec->complete;
  ticket.spread = spec->spread;
  ticket.size = spec->size ? spec->size : SIZE;
  if (spec->empty) ticket.size = 0;
  ticket.endpoints = (char **)(own ? spec->endpoints : one);
  while (ticket.n_endpoints < (own ? 4 : 1) && ticket.endpoints[ticket.n_endpoints]) ticket.n_endpoints++;
  const mc_digest *named = spec->digest ? spec->digest : &digest;
  if (spec->complete) {
    ticket.digest = (ProtobufCBinaryData){32, (uint8_t *)named->bytes};
  } else {
    ticket.flight = (ProtobufCBinaryData){32, (uint8_t *)flight_id};
  }
  ticket.chunk_size = MC_CHUNK_SIZE;
  if (spec->complete && !spec->without_chunks) {
    ticket.chunks = (ProtobufCBinaryData){chunks->count * 16, (uint8_t *)chunks->hashes};
  }
  send_message(call, &event.base);
}

static void give_object(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){.complete = true});
  peer_finish(call, 0, NULL);
}

static void give_object_again(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){.complete = true, .without_chunks = true});
  peer_finish(call, 0, NULL);
}

static void give_other_object(struct peer_call *call, void *user) {
  (void)user;
  static const mc_digest other = {{1, 2, 3}};
  send_ticket(call, &(struct ticket_spec){.complete = true, .digest = &other});
  peer_finish(call, 0, NULL);
}

static void give_two_endpoints(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){.complete = true, .endpoints = {"rdma://x:1", "fake://a:1", "fake://b:2"}});
  peer_finish(call, 0, NULL);
}

static void give_three_holders(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){.complete = true, .endpoints = {"fake://a:1", "fake://b:2", "fake://c:3"}});
  peer_finish(call, 0, NULL);
}

static void give_one_and_another(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){.complete = true, .endpoints = {ENDPOINT, "fake://b:2"}});
  peer_finish(call, 0, NULL);
}

static void give_two_holders_and_a_spare(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){
                        .complete = true, .endpoints = {"fake://a:1", "fake://b:2", "fake://c:3"}, .spread = 2});
  peer_finish(call, 0, NULL);
}

static void give_flight(struct peer_call *call, void *user) {
  struct script *script = user;
  send_ticket(call, &(struct ticket_spec){.complete = false});
  sem_wait(&script->go);
  send_ticket(call, &(struct ticket_spec){.complete = true});
  peer_finish(call, 0, NULL);
}

/* Another member downloads it, which dies; a third one takes over. */
static void give_two_flights(struct peer_call *call, void *user) {
  struct script *script = user;
  send_ticket(call, &(struct ticket_spec){.endpoints = {"fake://dead:1"}});
  sem_wait(&script->go);
  send_ticket(call, &(struct ticket_spec){.endpoints = {"fake://heir:1"}});
  sem_wait(&script->go);
  send_ticket(call, &(struct ticket_spec){.complete = true});
  peer_finish(call, 0, NULL);
}

static void give_flight_and_break(struct peer_call *call, void *user) {
  struct script *script = user;
  send_ticket(call, &(struct ticket_spec){.complete = false});
  sem_wait(&script->go);
  peer_hang_up(call);
}

static void give_flight_and_fail(struct peer_call *call, void *user) {
  struct script *script = user;
  send_ticket(call, &(struct ticket_spec){.complete = false});
  sem_wait(&script->go);
  peer_finish(call, 10, "the origin's content changed");
}

static void give_flight_until_cancelled(struct peer_call *call, void *user) {
  struct script *script = user;
  send_ticket(call, &(struct ticket_spec){.complete = false});
  peer_wait_cancelled(call);
  sem_post(&script->go);
}

static void say_unavailable(struct peer_call *call, void *user) {
  (void)user;
  peer_finish(call, 14, "the origin is down");
}

static void say_not_found(struct peer_call *call, void *user) {
  (void)user;
  peer_finish(call, 5, "no such file");
}

/* ---- a test's things ---- */

struct fixture {
  struct fake fake;
  struct script script;
  struct peer *peer;
  mc_upstream *upstream;
  mc_logger logger;
  int64_t connect_timeout_ms;
  int warnings, news;
  pthread_mutex_t lock;
};

static void count_log(void *user, mc_log_level level, const char *origin, const char *message) {
  struct fixture *f = user;
  assert_string_equal(origin, "cluster");
  assert_true(*message);
  pthread_mutex_lock(&f->lock);
  if (level == MC_LOG_WARN) f->warnings++;
  if (level == MC_LOG_INFO) f->news++;
  pthread_mutex_unlock(&f->lock);
}

static void open_upstream(struct fixture *f, const char *endpoint) {
  mc_transport *transports[] = {&f->fake.base};
  mc_upstream_config config = {.struct_size = sizeof(config),
                               .endpoint = endpoint,
                               .connect_timeout_ms = f->connect_timeout_ms,
                               .stall_timeout_ms = 10000,
                               .retries = RETRIES,
                               .user_agent = "test",
                               .logger = &f->logger,
                               .transports = transports,
                               .transport_count = 1};
  assert_int_equal(cluster_upstream_ops.open(&f->upstream, &config, NULL), MC_OK);
}

static int setup(void **state) {
  struct fixture *f = calloc(1, sizeof(*f));
  f->fake.base.ops = &fake_ops;
  f->logger = (mc_logger){count_log, f, MC_LOG_DEBUG};
  f->connect_timeout_ms = 10000;
  pthread_mutex_init(&f->lock, NULL);
  pthread_mutex_init(&f->fake.lock, NULL);
  pthread_mutex_init(&f->script.lock, NULL);
  sem_init(&f->script.go, 0, 0);
  f->peer = peer_start(0, follow_script, &f->script);
  open_upstream(f, peer_address(f->peer));
  *state = f;
  return 0;
}

static int teardown(void **state) {
  struct fixture *f = *state;
  cluster_upstream_ops.close(f->upstream);
  assert_int_equal(f->fake.open, 0); /* every connection of the data plane is closed */
  if (f->peer) peer_stop(f->peer);
  sem_destroy(&f->script.go);
  free(f);
  return 0;
}

static void script(struct fixture *f, peer_handler first, peer_handler second) {
  pthread_mutex_lock(&f->script.lock);
  f->script.steps[0] = first;
  f->script.steps[1] = second;
  f->script.count = second ? 2 : 1;
  f->script.next = 0;
  pthread_mutex_unlock(&f->script.lock);
}

static void plan(struct fixture *f, uint64_t after, mc_status status) {
  f->fake.plan[f->fake.planned++] = (struct fault){after, status};
}

static int calls(struct fixture *f) {
  pthread_mutex_lock(&f->script.lock);
  int count = f->script.next;
  pthread_mutex_unlock(&f->script.lock);
  return count;
}

/* A sink into memory; with `refusal` it fails at once. */
struct memory_sink {
  mc_sink sink;
  uint8_t *memory;
  mc_status refusal;
};

static mc_status memory_advance(mc_sink *sink, size_t size, mc_error *err) {
  struct memory_sink *self = (struct memory_sink *)sink;
  if (self->refusal) return mc_error_set(err, self->refusal, "sink", "refused");
  sink->offset += size;
  assert_true(sink->offset <= sink->end);
  return MC_OK;
}

static void *memory_space(mc_sink *sink, size_t *size) {
  struct memory_sink *self = (struct memory_sink *)sink;
  *size = (size_t)(sink->end - sink->offset);
  return self->memory + sink->offset;
}

static mc_status memory_write(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  struct memory_sink *self = (struct memory_sink *)sink;
  memcpy(self->memory + sink->offset, data, size);
  return memory_advance(sink, size, err);
}

static void sink_init(struct memory_sink *sink, uint8_t *memory, uint64_t from, uint64_t to) {
  *sink = (struct memory_sink){
      .sink = {.offset = from, .end = to, .write = memory_write, .space = memory_space, .advance = memory_advance},
      .memory = memory};
}

static mc_status open_source(struct fixture *f, mc_source **source, mc_info *info, const mc_call *call, mc_error *err) {
  mc_open_args args = {.url = URL};
  return cluster_upstream_ops.source_open(f->upstream, &args, source, info, call, err);
}

static mc_status read_all(mc_source *source, const mc_call *call, mc_error *err) {
  uint8_t *memory = calloc(1, SIZE);
  struct memory_sink sink;
  sink_init(&sink, memory, 0, SIZE);
  mc_status status = cluster_upstream_ops.source_read(source, &sink.sink, call, err);
  if (!status) assert_memory_equal(memory, content, SIZE);
  free(memory);
  return status;
}

static mc_status finish(mc_source *source, mc_info *info) {
  mc_open_args args = {.url = URL};
  return cluster_upstream_ops.source_finish(source, info, &args, &forever, NULL);
}

static void assert_facts(const mc_info *info) {
  assert_true(info->has_digest && info->ranges);
  assert_true(mc_digest_equal(&info->digest, &digest));
  assert_int_equal(info->size, SIZE);
  assert_int_equal(info->chunks.count, chunks->count);
  assert_memory_equal(info->chunks.hashes, chunks->hashes, chunks->count * sizeof(mc_hash128));
  assert_string_equal(info->validators.etag, "\"1\"");
}

/* ---- objects ---- */

static void an_object_is_read_by_its_digest(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, NULL);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_false(info.unchanged);
  assert_facts(&info);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(f->fake.connects, 1);
  assert_int_equal(f->fake.flight_reads, 0);
  cluster_upstream_ops.source_close(source);
  Modelcache__V1__FetchRequest *request =
      modelcache__v1__fetch_request__unpack(NULL, f->script.request_size, f->script.request);
  assert_string_equal(request->url, URL);
  assert_true(request->follow);
  assert_false(request->revalidate);
  assert_int_equal(request->known_digest.len, 0);
  modelcache__v1__fetch_request__free_unpacked(request, NULL);
}

static void give_empty(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){.complete = true, .without_chunks = true, .empty = true});
  peer_finish(call, 0, NULL);
}

static void an_empty_file_has_a_table_of_nothing(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_empty, NULL);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(info.size, 0);
  assert_int_equal(info.chunks.count, 0);
  assert_non_null(info.chunks.hashes);
  cluster_upstream_ops.source_close(source);
}

static void a_known_object_is_not_opened(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  mc_validators known = {.etag = "\"0\""};
  mc_open_args args = {.url = URL, .known = &known, .known_size = SIZE, .known_digest = &digest, .revalidate = true};
  script(f, give_object_again, NULL);
  assert_int_equal(cluster_upstream_ops.source_open(f->upstream, &args, &source, &info, &forever, NULL), MC_OK);
  assert_true(info.unchanged);
  assert_null(source);
  assert_string_equal(info.validators.etag, "\"1\"");
  Modelcache__V1__FetchRequest *request =
      modelcache__v1__fetch_request__unpack(NULL, f->script.request_size, f->script.request);
  assert_int_equal(request->known_digest.len, 32);
  assert_memory_equal(request->known_digest.data, digest.bytes, 32);
  assert_true(request->revalidate);
  modelcache__v1__fetch_request__free_unpacked(request, NULL);
  /* Without its chunk table another one is of no use. */
  script(f, give_object_again, NULL);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_PROTOCOL);
}

/* What the service listed it need not ask again, if that names a version. */
static void what_was_listed_is_said(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  mc_listed listed = {.path = "", .size = SIZE, .validators = {.etag = "\"1\"", .last_modified = 5}};
  mc_open_args args = {.url = URL, .listed = &listed, .revalidate = true};
  for (int named = 1; named >= 0; named--) {
    script(f, give_object, NULL);
    if (!named) listed.validators.etag[0] = 0;
    listed.has_digest = named;
    listed.digest = digest;
    assert_int_equal(cluster_upstream_ops.source_open(f->upstream, &args, &source, &info, &forever, NULL), MC_OK);
    assert_facts(&info);
    cluster_upstream_ops.source_close(source);
    Modelcache__V1__FetchRequest *request =
        modelcache__v1__fetch_request__unpack(NULL, f->script.request_size, f->script.request);
    assert_int_equal(request->revalidate, !named);
    assert_non_null(request->listed);
    assert_int_equal(request->listed->size, SIZE);
    assert_string_equal(request->listed->validators->etag, named ? "\"1\"" : "");
    assert_int_equal(request->listed->validators->last_modified, 5);
    assert_int_equal(request->listed->digest.len, named ? 32 : 0);
    modelcache__v1__fetch_request__free_unpacked(request, NULL);
  }
}

static void a_failed_read_goes_on_from_where_it_was(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, NULL);
  plan(f, 3 << 20, MC_UNAVAILABLE);
  plan(f, 0, MC_PROTOCOL);
  plan(f, 1 << 20, MC_RESOURCE_EXHAUSTED);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(f->fake.reads, 4);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

static void a_range_that_ends_early_is_no_success(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, NULL);
  plan(f, 3 << 20, MC_OK);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_PROTOCOL);
  cluster_upstream_ops.source_close(source);
}

static void a_kept_connection_that_ended_costs_no_attempt(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, NULL);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  plan(f, 0, MC_UNAVAILABLE);
  int64_t began = clock_ns();
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_true(clock_ns() - began < 10 * NS_PER_S);
  assert_int_equal(f->fake.connects, 2);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

static void the_next_endpoint_is_tried(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_two_endpoints, NULL);
  f->fake.failing_connects = 1;
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_string_equal(f->fake.endpoint, "fake://b:2");
  assert_int_equal(read_all(source, &forever, NULL), MC_OK); /* and stays */
  assert_int_equal(f->fake.connects, 2);
  cluster_upstream_ops.source_close(source);
}

static void an_evicted_object_is_asked_for_again(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, give_object_again);
  plan(f, 5 << 20, MC_NOT_FOUND);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(calls(f), 2);
  cluster_upstream_ops.source_close(source);
}

static void another_version_is_told(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, give_other_object);
  plan(f, 5 << 20, MC_CORRUPT);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_CHANGED);
  cluster_upstream_ops.source_close(source);
}

static void a_file_that_is_lost_for_ever_is_given_up(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, give_object_again);
  for (int i = 0; i < PLAN_MAX; i++) plan(f, 0, MC_NOT_FOUND);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_UNAVAILABLE);
  cluster_upstream_ops.source_close(source);
}

static void what_the_service_says_of_a_lost_file_is_passed_on(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  mc_error err = MC_ERROR_INIT;
  script(f, give_object, say_not_found);
  plan(f, 0, MC_NOT_FOUND);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, &err), MC_NOT_FOUND);
  assert_non_null(strstr(err.message, "no such file"));
  cluster_upstream_ops.source_close(source);
}

static void a_sinks_refusal_is_final(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  uint8_t *memory = calloc(1, SIZE);
  struct memory_sink sink;
  script(f, give_object, NULL);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  static const mc_status refusals[] = {MC_CORRUPT, MC_NO_SPACE, MC_UNAVAILABLE, MC_NOT_FOUND};
  for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++) {
    sink_init(&sink, memory, 0, SIZE);
    sink.refusal = refusals[i];
    assert_int_equal(cluster_upstream_ops.source_read(source, &sink.sink, &forever, NULL), refusals[i]);
  }
  assert_int_equal(calls(f), 1);
  assert_int_equal(f->fake.reads, 4);
  assert_false(f->fake.suspected);
  sink_init(&sink, memory, 0, SIZE);
  sink.sink.suspect = true;
  assert_int_equal(cluster_upstream_ops.source_read(source, &sink.sink, &forever, NULL), MC_OK);
  assert_true(f->fake.suspected); /* the transport is told */
  free(memory);
  cluster_upstream_ops.source_close(source);
}

/* ---- downloads under way ---- */

static void a_download_is_followed_to_its_end(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_flight, NULL);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_false(info.has_digest);
  assert_int_equal(info.size, SIZE);
  assert_true(info.ranges);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(f->fake.flight_reads, 1);
  sem_post(&f->script.go);
  assert_int_equal(finish(source, &info), MC_OK);
  assert_facts(&info);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

static void a_download_that_ended_is_read_on_by_digest(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_flight, NULL);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  plan(f, 6 << 20, MC_NOT_FOUND);
  f->fake.news = &f->script.go;
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(f->fake.reads, 2);
  assert_int_equal(finish(source, &info), MC_OK);
  assert_facts(&info);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

static void a_download_whose_server_went_away_goes_on(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_flight_and_break, give_object);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  f->fake.flight_gone = true;
  sem_post(&f->script.go);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(calls(f), 2);
  assert_int_equal(finish(source, &info), MC_OK);
  assert_facts(&info);
  cluster_upstream_ops.source_close(source);
}

static void the_end_is_asked_for_again_when_the_server_went_away(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_flight_and_break, give_object);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  sem_post(&f->script.go);
  assert_int_equal(finish(source, &info), MC_OK);
  assert_facts(&info);
  assert_int_equal(calls(f), 2);
  cluster_upstream_ops.source_close(source);
}

static void progress_then_unavailable(struct peer_call *call, void *user);
static void progress_then_break(struct peer_call *call, void *user);

static void what_the_server_could_not_get_is_not_asked_for_again(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  mc_error err = MC_ERROR_INIT;
  script(f, progress_then_unavailable, give_object);
  assert_int_equal(open_source(f, &source, &info, &forever, &err), MC_UNAVAILABLE);
  assert_non_null(strstr(err.message, "the origin is down"));
  assert_int_equal(calls(f), 1);
  script(f, progress_then_break, give_object); /* but a server that went away is another matter */
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(calls(f), 2);
  cluster_upstream_ops.source_close(source);
}

/* A server that restarts: its data plane knows nothing of the download, and its control plane isn't there yet. */
static void a_service_that_is_not_there_yet_is_asked_again(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, say_unavailable);
  f->script.steps[2] = give_object_again;
  f->script.count = 3;
  plan(f, 5 << 20, MC_NOT_FOUND);
  plan(f, 0, MC_NOT_FOUND);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(calls(f), 3);
  cluster_upstream_ops.source_close(source);
}

static void a_download_that_failed_says_why(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_flight_and_fail, NULL);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  f->fake.flight_gone = true;
  sem_post(&f->script.go);
  assert_int_equal(read_all(source, &forever, NULL), MC_CHANGED);
  cluster_upstream_ops.source_close(source);
}

struct lane {
  mc_source *source;
  uint8_t *memory;
  uint64_t from, to;
  pthread_t thread;
  mc_status status;
};

static void *lane_main(void *arg) {
  struct lane *lane = arg;
  struct memory_sink sink;
  sink_init(&sink, lane->memory, lane->from, lane->to);
  lane->status = cluster_upstream_ops.source_read(lane->source, &sink.sink, &forever, NULL);
  return NULL;
}

static void start_lane(struct lane *lane, mc_source *source) {
  *lane = (struct lane){.source = source, .memory = calloc(1, SIZE), .to = SIZE};
  assert_int_equal(pthread_create(&lane->thread, NULL, lane_main, lane), 0);
}

static void finish_lane(struct lane *lane) {
  pthread_join(lane->thread, NULL);
  assert_int_equal(lane->status, MC_OK);
  assert_memory_equal(lane->memory, content, SIZE);
  free(lane->memory);
}

static void await_count(struct fixture *f, const int *counter, int least) {
  int64_t until = clock_ns() + 60 * NS_PER_S;
  for (int count = 0; count < least;) {
    assert_true(clock_ns() < until);
    sched_yield();
    pthread_mutex_lock(&f->fake.lock);
    count = *counter;
    pthread_mutex_unlock(&f->fake.lock);
  }
}

static void a_download_whose_member_died_is_followed_at_the_next(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  struct lane lane;
  script(f, give_two_flights, NULL);
  f->fake.failing_host = "dead";
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  start_lane(&lane, source);
  await_count(f, &f->fake.connects, RETRIES + 1); /* from then on it waits for the stream's news */
  sem_post(&f->script.go);
  finish_lane(&lane);
  assert_int_equal(f->fake.connects, RETRIES + 2);
  assert_string_equal(f->fake.endpoint, "fake://heir:1");
  assert_int_equal(f->fake.flight_reads, 1);
  sem_post(&f->script.go);
  assert_int_equal(finish(source, &info), MC_OK);
  assert_facts(&info);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

/* One that is frozen fails its reads in time. */
static void a_download_whose_member_hangs_is_followed_at_the_next(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  struct lane lane;
  script(f, give_two_flights, NULL);
  plan(f, 5 << 20, MC_UNAVAILABLE);
  for (int i = 0; i < RETRIES; i++) plan(f, 0, MC_UNAVAILABLE);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  start_lane(&lane, source);
  await_count(f, &f->fake.reads, RETRIES + 1);
  sem_post(&f->script.go);
  finish_lane(&lane);
  assert_string_equal(f->fake.endpoint, "fake://heir:1");
  assert_int_equal(f->fake.reads, RETRIES + 2);
  sem_post(&f->script.go);
  assert_int_equal(finish(source, &info), MC_OK);
  assert_facts(&info);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

static void lanes_that_lose_a_download_together_ask_once(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_flight_and_break, give_object);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  f->fake.flight_gone = true;
  uint8_t *memory = calloc(1, SIZE);
  struct lane lanes[9];
  for (uint64_t i = 0; i < 9; i++) {
    lanes[i] = (struct lane){.source = source, .memory = memory, .from = i << 20, .to = (i + 1) << 20};
    assert_int_equal(pthread_create(&lanes[i].thread, NULL, lane_main, &lanes[i]), 0);
  }
  sem_post(&f->script.go);
  for (int i = 0; i < 9; i++) {
    pthread_join(lanes[i].thread, NULL);
    assert_int_equal(lanes[i].status, MC_OK);
  }
  assert_memory_equal(memory, content, SIZE);
  assert_int_equal(calls(f), 2);
  free(memory);
  cluster_upstream_ops.source_close(source);
}

/* ---- several holders ---- */

/* Sinks that verify chunks, as the engine's do: what came damaged is wanted again from the chunk's beginning. */
struct checked_sink {
  struct memory_sink memory;
  unsigned corrupt;
};

static mc_status checked_advance(mc_sink *sink, size_t size, mc_error *err) {
  struct checked_sink *self = (struct checked_sink *)sink;
  mc_status status = memory_advance(sink, size, err);
  uint64_t end = sink->offset, begin = (end - 1) / MC_CHUNK_SIZE * MC_CHUNK_SIZE;
  if (status || (end % MC_CHUNK_SIZE && end != sink->end)) return status;
  if (memcmp(self->memory.memory + begin, content + begin, end - begin) == 0) {
    sink->suspect = false;
    return MC_OK;
  }
  sink->offset = begin;
  self->corrupt++;
  return mc_error_set(err, MC_CORRUPT, "sink", "a chunk arrived damaged");
}

static mc_status checked_write(mc_sink *sink, const void *data, size_t size, mc_error *err) {
  memcpy(((struct memory_sink *)sink)->memory + sink->offset, data, size);
  return checked_advance(sink, size, err);
}

/* Never beyond the chunk at hand. */
static void *checked_space(mc_sink *sink, size_t *size) {
  uint64_t left = MC_CHUNK_SIZE - sink->offset % MC_CHUNK_SIZE;
  void *room = memory_space(sink, size);
  if (*size > left) *size = (size_t)left;
  return room;
}

/* Read all as the engine does. Returns how often a chunk came damaged. */
static unsigned read_checked(mc_source *source) {
  uint8_t *memory = calloc(1, SIZE);
  struct checked_sink sink = {.corrupt = 0};
  sink_init(&sink.memory, memory, 0, SIZE);
  sink.memory.sink.write = checked_write;
  sink.memory.sink.space = checked_space;
  sink.memory.sink.advance = checked_advance;
  mc_status status;
  do {
    status = cluster_upstream_ops.source_read(source, &sink.memory.sink, &forever, NULL);
    if (status == MC_CORRUPT) sink.memory.sink.suspect = true;
  } while (status == MC_CORRUPT && sink.corrupt < 9);
  assert_int_equal(status, MC_OK);
  assert_memory_equal(memory, content, SIZE);
  free(memory);
  return sink.corrupt;
}

/* Read all by nine lanes, which are all under way before the first one ends. */
static void read_by_lanes(struct fixture *f, mc_source *source) {
  uint8_t *memory = calloc(1, SIZE);
  struct lane lanes[9];
  sem_t gate;
  sem_init(&gate, 0, 0);
  f->fake.gate = &gate;
  for (uint64_t i = 0; i < 9; i++) {
    lanes[i] = (struct lane){.source = source, .memory = memory, .from = i << 20, .to = (i + 1) << 20};
    assert_int_equal(pthread_create(&lanes[i].thread, NULL, lane_main, &lanes[i]), 0);
  }
  for (bool all = false; !all;) { /* each has chosen where to read */
    pthread_mutex_lock(&f->fake.lock);
    all = f->fake.open == 9;
    pthread_mutex_unlock(&f->fake.lock);
    sched_yield();
  }
  for (int i = 0; i < 100; i++) sem_post(&gate); /* and as many reads as it takes */
  for (int i = 0; i < 9; i++) {
    pthread_join(lanes[i].thread, NULL);
    assert_int_equal(lanes[i].status, MC_OK);
  }
  assert_memory_equal(memory, content, SIZE);
  f->fake.gate = NULL;
  sem_destroy(&gate);
  free(memory);
}

static void expect_hosts(struct fixture *f) {
  for (int i = 0; i < 3; i++) f->fake.habits[i].host = (const char *const[]){"a:1", "b:2", "c:3"}[i];
}

static void lanes_are_spread_over_the_holders(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_three_holders, NULL);
  expect_hosts(f);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  read_by_lanes(f, source);
  for (int i = 0; i < 3; i++) assert_int_equal(f->fake.habits[i].bytes, SIZE / 3);
  cluster_upstream_ops.source_close(source);
}

static void a_spare_is_read_from_when_the_others_fail(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_two_holders_and_a_spare, NULL);
  expect_hosts(f);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  read_by_lanes(f, source);
  assert_int_equal(f->fake.habits[2].reads, 0);
  f->fake.habits[0].status = f->fake.habits[1].status = MC_UNAVAILABLE;
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(f->fake.habits[2].reads, 1);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

/* While a range is on its way from there, the next ones come from the others. */
static void a_slow_holder_serves_fewer_ranges(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  sem_t gate;
  script(f, give_three_holders, NULL);
  expect_hosts(f);
  sem_init(&gate, 0, 0);
  f->fake.habits[0].gate = &gate;
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  uint8_t *memory = calloc(1, SIZE);
  struct lane slow = {.source = source, .memory = memory, .from = 0, .to = 1 << 20};
  assert_int_equal(pthread_create(&slow.thread, NULL, lane_main, &slow), 0);
  for (bool reads = false; !reads;) {
    pthread_mutex_lock(&f->fake.lock);
    reads = f->fake.open == 1;
    pthread_mutex_unlock(&f->fake.lock);
    sched_yield();
  }
  for (int i = 0; i < 6; i++) assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(f->fake.habits[0].reads, 0);
  assert_int_equal(f->fake.habits[1].reads + f->fake.habits[2].reads, 6);
  sem_post(&gate);
  pthread_join(slow.thread, NULL);
  assert_int_equal(slow.status, MC_OK);
  assert_int_equal(f->fake.habits[0].reads, 1);
  sem_destroy(&gate);
  free(memory);
  cluster_upstream_ops.source_close(source);
}

/* What had landed stays, and the other lanes do not notice. */
static void the_loss_of_a_holder_costs_its_lanes_what_was_under_way(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_three_holders, NULL);
  expect_hosts(f);
  f->fake.habits[1].status = MC_UNAVAILABLE;
  f->fake.habits[1].after = 300000;
  f->fake.habits[1].dies = true;
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  read_by_lanes(f, source);
  assert_int_equal(f->fake.habits[1].reads, 3); /* by the lanes that had begun there, and by none again */
  assert_int_equal(f->fake.habits[1].bytes, 3 * 300000);
  assert_int_equal(f->fake.habits[0].bytes + f->fake.habits[2].bytes, SIZE - 3 * 300000);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(f->fake.habits[1].reads, 3);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

static void a_holder_that_has_it_no_more_is_passed_over(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_three_holders, NULL);
  expect_hosts(f);
  f->fake.habits[0].status = MC_NOT_FOUND;
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  for (int i = 0; i < 3; i++) assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  assert_int_equal(f->fake.habits[0].reads, 1);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

static void when_no_holder_has_it_the_service_is_asked(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_three_holders, give_object_again);
  expect_hosts(f);
  for (int i = 0; i < 3; i++) f->fake.habits[i].status = MC_NOT_FOUND;
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK);
  for (int i = 0; i < 3; i++) assert_int_equal(f->fake.habits[i].reads, 1);
  assert_string_equal(f->fake.endpoint, ENDPOINT);
  assert_int_equal(calls(f), 2);
  cluster_upstream_ops.source_close(source);
}

/* It is told, so that it looks at its copy, which it finds damaged. */
static void a_damaged_chunk_comes_from_another_holder(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_three_holders, NULL);
  expect_hosts(f);
  f->fake.habits[0].spoils = true;
  f->fake.habits[0].status = MC_CORRUPT;
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_checked(source), 1);
  assert_true(f->fake.habits[0].suspected);
  assert_int_equal(f->fake.habits[0].reads, 2);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

/* Its copy is right, and what arrives from there is not. */
static void a_wire_that_damages_is_left(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_three_holders, NULL);
  expect_hosts(f);
  f->fake.habits[0].spoils = f->fake.habits[0].always = true;
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_checked(source), 2);
  assert_int_equal(f->fake.habits[0].reads, 2);
  assert_int_equal(calls(f), 1);
  cluster_upstream_ops.source_close(source);
}

/* One that could not be reached for other files is not tried for this one. */
static void a_shunned_holder_is_left_out(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, give_three_holders);
  expect_hosts(f);
  f->fake.habits[0].host = "one";
  f->fake.habits[0].dies = true;
  f->fake.habits[0].reads = 1;
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK); /* it asked again, and was told of others */
  assert_int_equal(f->warnings, 1);
  cluster_upstream_ops.source_close(source);
  int connects = f->fake.connects;
  script(f, give_one_and_another, NULL);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
    assert_int_equal(read_all(source, &forever, NULL), MC_OK);
    cluster_upstream_ops.source_close(source);
  }
  assert_true(f->fake.connects <= connects + 2); /* to the other, and where a slow machine looks whether it's back */
}

/* ---- calls that end ---- */

static void closing_a_followed_source_cancels_the_call(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_flight_until_cancelled, NULL);
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  cluster_upstream_ops.source_close(source);
  sem_wait(&f->script.go);
}

static void *trigger_main(void *arg) {
  mc_cancel_trigger(arg);
  return NULL;
}

static void a_read_that_waits_for_news_is_cancelled(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  mc_call call = {INT64_MAX, NULL};
  assert_int_equal(mc_cancel_new(&call.cancel, NULL), MC_OK);
  script(f, give_flight_until_cancelled, NULL);
  assert_int_equal(open_source(f, &source, &info, &call, NULL), MC_OK);
  f->fake.flight_gone = true;
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, trigger_main, call.cancel), 0);
  assert_int_equal(read_all(source, &call, NULL), MC_CANCELLED);
  pthread_join(thread, NULL);
  cluster_upstream_ops.source_close(source);
  sem_wait(&f->script.go);
  mc_cancel_free(call.cancel);
}

static void send_progress(struct peer_call *call, Modelcache__V1__Progress__Phase phase, const char *reason) {
  Modelcache__V1__FetchEvent event = MODELCACHE__V1__FETCH_EVENT__INIT;
  Modelcache__V1__Progress progress = MODELCACHE__V1__PROGRESS__INIT;
  event.event_case = MODELCACHE__V1__FETCH_EVENT__EVENT_PROGRESS;
  event.progress = &progress;
  progress.phase = phase;
  progress.bytes = 5;
  progress.reason = (char *)reason;
  if (phase == MODELCACHE__V1__PROGRESS__PHASE__DOWNLOADING) {
    progress.has_total_case = MODELCACHE__V1__PROGRESS__HAS_TOTAL_TOTAL;
    progress.total = 7;
  }
  send_message(call, &event.base);
}

static void progress_then_object(struct peer_call *call, void *user) {
  send_progress(call, MODELCACHE__V1__PROGRESS__PHASE__QUEUED, "");
  send_progress(call, MODELCACHE__V1__PROGRESS__PHASE__DOWNLOADING, "because");
  give_object(call, user);
}

static void progress_then_unavailable(struct peer_call *call, void *user) {
  send_progress(call, MODELCACHE__V1__PROGRESS__PHASE__ASKING, "");
  say_unavailable(call, user);
}

static void progress_then_break(struct peer_call *call, void *user) {
  (void)user;
  send_progress(call, MODELCACHE__V1__PROGRESS__PHASE__ASKING, "");
  peer_hang_up(call);
}

struct seen {
  int count;
  bool right;
};

static void see_progress(void *user, const mc_upstream_progress *progress) {
  struct seen *seen = user;
  seen->count++;
  if (seen->count == 1) seen->right = progress->total == MC_SIZE_UNKNOWN && strlen(progress->reason) > 0;
  if (seen->count == 2) seen->right = seen->right && progress->total == 7 && strcmp(progress->reason, "because") == 0;
  seen->right = seen->right && progress->bytes == 5;
}

static void progress_is_passed_on(void **state) {
  struct fixture *f = *state;
  struct seen seen = {0, false};
  mc_source *source;
  mc_info info;
  mc_open_args args = {.url = URL, .progress = see_progress, .progress_user = &seen};
  script(f, progress_then_object, NULL);
  assert_int_equal(cluster_upstream_ops.source_open(f->upstream, &args, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(seen.count, 2);
  assert_true(seen.right);
  cluster_upstream_ops.source_close(source);
}

/* ---- bad tickets ---- */

static void give_half_a_table(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){.complete = true, .size = SIZE * 2});
  peer_finish(call, 0, NULL);
}

static void give_far_endpoint(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){.complete = true, .endpoints = {"rdma://x:1"}});
  peer_finish(call, 0, NULL);
}

static void give_long_etag(struct peer_call *call, void *user) {
  (void)user;
  char etag[300];
  memset(etag, 'e', sizeof(etag) - 1);
  etag[sizeof(etag) - 1] = 0;
  send_ticket(call, &(struct ticket_spec){.complete = true, .etag = etag});
  peer_finish(call, 0, NULL);
}

static void give_endless_size(struct peer_call *call, void *user) {
  (void)user;
  send_ticket(call, &(struct ticket_spec){.complete = false, .size = UINT64_MAX - 1});
  peer_finish(call, 0, NULL);
}

static void give_noise(struct peer_call *call, void *user) {
  (void)user;
  peer_send(call, "\xff\xff\xff\xff", 4);
  peer_finish(call, 0, NULL);
}

static void give_no_ticket(struct peer_call *call, void *user) {
  (void)user;
  peer_finish(call, 0, NULL);
}

static void bad_tickets_are_refused(void **state) {
  struct fixture *f = *state;
  static const struct {
    peer_handler handler;
    mc_status status;
  } rows[] = {{give_half_a_table, MC_PROTOCOL}, {give_far_endpoint, MC_UNAVAILABLE}, {give_long_etag, MC_PROTOCOL},
              {give_endless_size, MC_PROTOCOL}, {give_noise, MC_PROTOCOL},           {give_no_ticket, MC_PROTOCOL},
              {say_not_found, MC_NOT_FOUND},    {say_unavailable, MC_UNAVAILABLE}};
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    mc_source *source;
    mc_info info;
    mc_error err = MC_ERROR_INIT;
    script(f, rows[i].handler, NULL);
    assert_int_equal(open_source(f, &source, &info, &forever, &err), rows[i].status);
    assert_int_equal(err.status, rows[i].status);
  }
}

/* ---- the other calls ---- */

static void give_stat(struct peer_call *call, void *user) {
  (void)user;
  Modelcache__V1__StatResponse response = MODELCACHE__V1__STAT_RESPONSE__INIT;
  Modelcache__V1__Entry entry = MODELCACHE__V1__ENTRY__INIT;
  Modelcache__V1__Validators validators = MODELCACHE__V1__VALIDATORS__INIT;
  response.entry = &entry;
  entry.url = (char *)URL;
  entry.has_size_case = MODELCACHE__V1__ENTRY__HAS_SIZE_SIZE;
  entry.size = 0;
  entry.validators = &validators;
  validators.version = (char *)"v7";
  validators.last_modified = 12345;
  answer(call, &response.base);
}

static void give_missing(struct peer_call *call, void *user) {
  (void)user;
  Modelcache__V1__StatResponse response = MODELCACHE__V1__STAT_RESPONSE__INIT;
  Modelcache__V1__Entry entry = MODELCACHE__V1__ENTRY__INIT;
  response.entry = &entry;
  entry.missing = true;
  answer(call, &response.base);
}

static void give_twice(struct peer_call *call, void *user) {
  Modelcache__V1__StatResponse response = MODELCACHE__V1__STAT_RESPONSE__INIT;
  send_message(call, &response.base);
  give_stat(call, user);
}

static void stat_tells_what_the_origin_has(void **state) {
  struct fixture *f = *state;
  mc_info info;
  script(f, give_stat, NULL);
  assert_int_equal(cluster_upstream_ops.stat(f->upstream, URL, &info, &forever, NULL), MC_OK);
  assert_int_equal(info.size, 0);
  assert_string_equal(info.validators.version, "v7");
  assert_int_equal(info.validators.last_modified, 12345);
  assert_false(info.has_digest);
  script(f, give_missing, NULL);
  assert_int_equal(cluster_upstream_ops.stat(f->upstream, URL, &info, &forever, NULL), MC_NOT_FOUND);
  script(f, give_no_ticket, NULL);
  assert_int_equal(cluster_upstream_ops.stat(f->upstream, URL, &info, &forever, NULL), MC_PROTOCOL);
  script(f, give_twice, NULL);
  assert_int_equal(cluster_upstream_ops.stat(f->upstream, URL, &info, &forever, NULL), MC_PROTOCOL);
}

#define LISTED 500

static void give_listing(struct peer_call *call, void *user) {
  (void)user;
  for (int i = 0; i < LISTED; i += 2) {
    Modelcache__V1__ListResponse response = MODELCACHE__V1__LIST_RESPONSE__INIT;
    Modelcache__V1__Listed listed[2];
    Modelcache__V1__Listed *pointers[2] = {&listed[0], &listed[1]};
    char paths[2][16];
    for (int j = 0; j < 2; j++) {
      modelcache__v1__listed__init(&listed[j]);
      snprintf(paths[j], sizeof(paths[j]), "a/%04d", i + j);
      listed[j].path = paths[j];
    }
    listed[0].last_modified = 9; /* of a server that does not tell more */
    Modelcache__V1__Validators validators = MODELCACHE__V1__VALIDATORS__INIT;
    validators.etag = (char *)"\"e\"";
    listed[1].validators = &validators;
    listed[1].digest = (ProtobufCBinaryData){32, digest.bytes};
    listed[1].has_size_case = MODELCACHE__V1__LISTED__HAS_SIZE_SIZE;
    listed[1].size = 77;
    response.n_listed = 2;
    response.listed = pointers;
    send_message(call, &response.base);
  }
  peer_finish(call, 0, NULL);
}

static void give_escaping_path(struct peer_call *call, void *user) {
  (void)user;
  Modelcache__V1__ListResponse response = MODELCACHE__V1__LIST_RESPONSE__INIT;
  Modelcache__V1__Listed listed = MODELCACHE__V1__LISTED__INIT;
  Modelcache__V1__Listed *pointer = &listed;
  listed.path = (char *)"a/../../etc/passwd";
  response.n_listed = 1;
  response.listed = &pointer;
  answer(call, &response.base);
}

/* A message of many empty elements, each of which takes far more memory than its two bytes. */
static void give_bomb(struct peer_call *call, void *user) {
  (void)user;
  size_t size = (size_t)16 << 20;
  uint8_t *bytes = malloc(size);
  for (size_t i = 0; i < size; i += 2) {
    bytes[i] = 0x12;
    bytes[i + 1] = 0;
  }
  peer_send(call, bytes, size);
  peer_finish(call, 0, NULL);
  free(bytes);
}

struct listing {
  int count, most;
  uint64_t bytes;
};

static bool visit_listed(void *user, const mc_listed *listed) {
  struct listing *listing = user;
  char path[16];
  bool odd = listing->count % 2;
  snprintf(path, sizeof(path), "a/%04d", listing->count++);
  assert_string_equal(listed->path, path);
  assert_string_equal(listed->validators.etag, odd ? "\"e\"" : "");
  assert_int_equal(listed->validators.last_modified, odd ? 0 : 9);
  assert_int_equal(listed->has_digest, odd);
  if (odd) assert_true(mc_digest_equal(&listed->digest, &digest));
  if (listed->size != MC_SIZE_UNKNOWN) listing->bytes += listed->size;
  return listing->count < listing->most;
}

static void a_folder_is_listed(void **state) {
  struct fixture *f = *state;
  struct listing listing = {.most = 100000};
  const mc_upstream_ops *ops = &cluster_upstream_ops;
  script(f, give_listing, NULL);
  assert_int_equal(ops->list(f->upstream, "https://o/d/", LISTED, visit_listed, &listing, &forever, NULL), MC_OK);
  assert_int_equal(listing.count, LISTED);
  assert_int_equal(listing.bytes, LISTED / 2 * 77);
  Modelcache__V1__ListRequest *request =
      modelcache__v1__list_request__unpack(NULL, f->script.request_size, f->script.request);
  assert_true(request->origin);
  assert_string_equal(request->prefix, "https://o/d/");
  modelcache__v1__list_request__free_unpacked(request, NULL);

  listing = (struct listing){.most = 3};
  assert_int_equal(ops->list(f->upstream, "https://o/d/", LISTED, visit_listed, &listing, &forever, NULL), MC_OK);
  assert_int_equal(listing.count, 3);
  listing = (struct listing){.most = 100000};
  assert_int_equal(ops->list(f->upstream, "https://o/d/", LISTED - 1, visit_listed, &listing, &forever, NULL),
                   MC_RESOURCE_EXHAUSTED);
  script(f, give_escaping_path, NULL);
  assert_int_equal(ops->list(f->upstream, "https://o/d/", 10, visit_listed, &listing, &forever, NULL), MC_PROTOCOL);
  script(f, give_bomb, NULL);
  assert_int_equal(ops->list(f->upstream, "https://o/d/", 10, visit_listed, &listing, &forever, NULL), MC_PROTOCOL);
}

static void give_entries(struct peer_call *call, void *user) {
  (void)user;
  Modelcache__V1__ListResponse response = MODELCACHE__V1__LIST_RESPONSE__INIT;
  Modelcache__V1__Entry entry = MODELCACHE__V1__ENTRY__INIT;
  Modelcache__V1__Entry *pointers[2] = {&entry, &entry};
  entry.url = (char *)URL;
  entry.digest = (ProtobufCBinaryData){32, digest.bytes};
  entry.pinned = true;
  entry.fetched_at_ms = 99;
  response.n_entries = 2;
  response.entries = pointers;
  answer(call, &response.base);
}

static void give_ugly_entry(struct peer_call *call, void *user) {
  (void)user;
  Modelcache__V1__ListResponse response = MODELCACHE__V1__LIST_RESPONSE__INIT;
  Modelcache__V1__Entry entry = MODELCACHE__V1__ENTRY__INIT;
  Modelcache__V1__Entry *pointer = &entry;
  entry.url = (char *)"https://o/\033[2J";
  response.n_entries = 1;
  response.entries = &pointer;
  answer(call, &response.base);
}

static bool visit_entry(void *user, const mc_entry *entry) {
  assert_string_equal(entry->url, URL);
  assert_true(entry->has_digest && mc_digest_equal(&entry->digest, &digest));
  assert_true(entry->pinned && !entry->missing);
  assert_int_equal(entry->fetched_at, 99);
  assert_true(entry->size == MC_SIZE_UNKNOWN);
  ++*(int *)user;
  return true;
}

static void give_evicted(struct peer_call *call, void *user) {
  (void)user;
  Modelcache__V1__EvictResponse response = MODELCACHE__V1__EVICT_RESPONSE__INIT;
  response.bytes = 123456789012;
  answer(call, &response.base);
}

static void give_state(struct peer_call *call, void *user) {
  (void)user;
  Modelcache__V1__StatusResponse response = MODELCACHE__V1__STATUS_RESPONSE__INIT;
  response.json = (char *)"{\"up\":true}";
  answer(call, &response.base);
}

static void accept_prefetch(struct peer_call *call, void *user) {
  struct script *s = user;
  Modelcache__V1__PrefetchRequest *request =
      modelcache__v1__prefetch_request__unpack(NULL, s->request_size, s->request);
  bool good = request && strcmp(request->url, URL) == 0 && request->pin;
  modelcache__v1__prefetch_request__free_unpacked(request, NULL);
  peer_send(call, "", 0);
  peer_finish(call, good ? 0 : 3, NULL);
}

static void the_cache_is_managed(void **state) {
  struct fixture *f = *state;
  const mc_upstream_cache_ops *ops = cluster_upstream_ops.cache;
  int count = 0;
  script(f, give_entries, NULL);
  assert_int_equal(ops->entries(f->upstream, "https://", NULL, visit_entry, &count, &forever, NULL), MC_OK);
  assert_int_equal(count, 2);
  script(f, accept_prefetch, NULL);
  assert_int_equal(ops->prefetch(f->upstream, URL, true, &forever, NULL), MC_OK);
  uint64_t evicted = 0;
  script(f, give_evicted, NULL);
  assert_int_equal(ops->evict(f->upstream, URL, &evicted, &forever, NULL), MC_OK);
  assert_true(evicted == 123456789012);
  script(f, say_not_found, NULL);
  assert_int_equal(ops->evict(f->upstream, URL, &evicted, &forever, NULL), MC_NOT_FOUND);
  char *json;
  script(f, give_state, NULL);
  assert_int_equal(ops->status(f->upstream, &json, &forever, NULL), MC_OK);
  assert_string_equal(json, "{\"up\":true}");
  free(json);
  assert_int_equal(peer_connections(f->peer), 1); /* all on one connection */
}

static void give_check(struct peer_call *call, void *user) {
  (void)user;
  static char long_text[1000];
  Modelcache__V1__CheckOriginResponse response = MODELCACHE__V1__CHECK_ORIGIN_RESPONSE__INIT;
  Modelcache__V1__Validators validators = MODELCACHE__V1__VALIDATORS__INIT;
  memset(long_text, 'x', sizeof(long_text) - 1);
  response.rule = (char *)"s3://models/";
  response.allowed = true;
  response.upstream = long_text;
  response.endpoint = (char *)"https://host\033[31m";
  response.credentials = (char *)"AWS_ACCESS_KEY_ID";
  response.identity = (char *)"AKIA";
  response.expires_at_ms = 2000000000000;
  response.revalidate_after_ms = -1;
  response.parallelism = 7;
  response.bandwidth = 4096;
  response.pin = true;
  response.status = (char *)"ok";
  response.has_size_case = MODELCACHE__V1__CHECK_ORIGIN_RESPONSE__HAS_SIZE_SIZE;
  response.size = 5;
  validators.etag = (char *)"\"e\"";
  response.validators = &validators;
  answer(call, &response.base);
}

static void give_odd_check(struct peer_call *call, void *user) {
  (void)user;
  Modelcache__V1__CheckOriginResponse response = MODELCACHE__V1__CHECK_ORIGIN_RESPONSE__INIT;
  response.status = (char *)"well";
  answer(call, &response.base);
}

static void the_service_checks_an_origin(void **state) {
  struct fixture *f = *state;
  const mc_upstream_cache_ops *ops = cluster_upstream_ops.cache;
  mc_origin_check check;
  script(f, give_check, NULL);
  assert_int_equal(ops->check(f->upstream, URL, &check, &forever, NULL), MC_OK);
  assert_string_equal(check.rule, "s3://models/");
  assert_true(check.allowed && check.pin);
  assert_int_equal(strlen(check.upstream), sizeof(check.upstream) - 1);
  assert_string_equal(check.access.endpoint, "https://host?[31m");
  assert_string_equal(check.access.credentials, "AWS_ACCESS_KEY_ID");
  assert_string_equal(check.access.identity, "AKIA");
  assert_true(check.access.expires_at == 2000000000000);
  assert_int_equal(check.revalidate_after_ms, -1);
  assert_int_equal(check.parallelism, 7);
  assert_int_equal(check.bandwidth, 4096);
  assert_int_equal(check.error.status, MC_OK);
  assert_int_equal(check.size, 5);
  assert_string_equal(check.validators.etag, "\"e\"");
  script(f, give_odd_check, NULL);
  assert_int_equal(ops->check(f->upstream, URL, &check, &forever, NULL), MC_OK);
  assert_int_equal(check.error.status, MC_PROTOCOL);
  assert_true(check.size == MC_SIZE_UNKNOWN);
}

static void an_entry_that_would_steer_a_terminal_is_refused(void **state) {
  struct fixture *f = *state;
  int count = 0;
  script(f, give_ugly_entry, NULL);
  mc_status status =
      cluster_upstream_ops.cache->entries(f->upstream, "https://", NULL, visit_entry, &count, &forever, NULL);
  assert_int_equal(status, MC_PROTOCOL);
  assert_int_equal(count, 0);
}

/* ---- servers that come and go ---- */

static mc_status ask_state(struct fixture *f, mc_error *err) {
  char *json = NULL;
  mc_status status = cluster_upstream_ops.cache->status(f->upstream, &json, &forever, err);
  free(json);
  return status;
}

static void a_service_that_is_down_is_left_alone_for_a_while(void **state) {
  struct fixture *f = *state;
  uint16_t port = peer_port(f->peer);
  mc_error err = MC_ERROR_INIT;
  script(f, give_state, NULL);
  assert_int_equal(ask_state(f, &err), MC_OK);
  assert_int_equal(f->warnings + f->news, 0);
  peer_stop(f->peer);
  assert_int_equal(ask_state(f, &err), MC_UNAVAILABLE);
  assert_int_equal(f->warnings, 1);
  for (int i = 0; i < 100; i++) {
    assert_int_equal(ask_state(f, &err), MC_UNAVAILABLE);
    assert_non_null(strstr(err.message, "127.0.0.1:"));
  }
  assert_int_equal(f->warnings, 1);
  f->peer = peer_start(port, follow_script, &f->script);
  int64_t until = clock_ns() + 30 * NS_PER_S;
  while (ask_state(f, &err) != MC_OK && clock_ns() < until) sched_yield();
  assert_int_equal(ask_state(f, &err), MC_OK);
  assert_int_equal(f->warnings, 1);
  assert_int_equal(f->news, 1);
}

static void another_server_is_asked(void **state) {
  struct fixture *f = *state;
  struct peer *gone = peer_start(0, follow_script, &f->script);
  char endpoint[80];
  snprintf(endpoint, sizeof(endpoint), "%s,%s", peer_address(gone), peer_address(f->peer));
  peer_stop(gone);
  cluster_upstream_ops.close(f->upstream);
  open_upstream(f, endpoint);
  script(f, give_state, NULL);
  assert_int_equal(ask_state(f, NULL), MC_OK);
  assert_int_equal(f->warnings, 1);
  assert_int_equal(ask_state(f, NULL), MC_OK); /* the good one is asked first now */
  assert_int_equal(f->warnings, 1);

  struct peer *busy = peer_start(0, follow_script, &f->script); /* says UNAVAILABLE: the next may be better */
  snprintf(endpoint, sizeof(endpoint), "%s,%s", peer_address(busy), peer_address(f->peer));
  cluster_upstream_ops.close(f->upstream);
  open_upstream(f, endpoint);
  script(f, say_unavailable, give_state);
  assert_int_equal(ask_state(f, NULL), MC_OK);
  assert_int_equal(f->warnings, 1);
  peer_stop(busy);
}

static void say_bad_gateway(struct peer_call *call, void *user) {
  (void)user;
  peer_headers(call, 503, "text/html", true);
}

/* A proxy that stands before the service may answer while the service does not. */
static void a_web_server_in_its_place_counts_as_down(void **state) {
  struct fixture *f = *state;
  script(f, say_bad_gateway, NULL);
  for (int i = 0; i < 20; i++) assert_int_equal(ask_state(f, NULL), MC_UNAVAILABLE);
  assert_int_equal(f->warnings, 1);
  assert_true(calls(f) <= 3); /* the others did not even ask */
  script(f, give_state, NULL);
  int64_t until = clock_ns() + 30 * NS_PER_S;
  while (ask_state(f, NULL) != MC_OK && clock_ns() < until) sched_yield();
  assert_int_equal(ask_state(f, NULL), MC_OK);
  assert_int_equal(f->warnings, 1);
  assert_int_equal(f->news, 1);
}

/* The kernel accepts for a process that is stopped: every call would have to wait until it is clear that nobody
 * answers. */
static void a_frozen_service_is_not_waited_for_each_time(void **state) {
  struct fixture *f = *state;
  struct sockaddr_in to = {.sin_family = AF_INET};
  socklen_t length = sizeof(to);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), connections = 0;
  assert_int_equal(bind(fd, (struct sockaddr *)&to, sizeof(to)), 0);
  assert_int_equal(listen(fd, 64), 0);
  getsockname(fd, (struct sockaddr *)&to, &length);
  char endpoint[32];
  snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", ntohs(to.sin_port));
  cluster_upstream_ops.close(f->upstream);
  f->connect_timeout_ms = 300;
  open_upstream(f, endpoint);
  for (int i = 0; i < 50; i++) assert_int_equal(ask_state(f, NULL), MC_UNAVAILABLE);
  for (int got; (got = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0; connections++) close(got);
  assert_int_equal(connections, 2); /* the first call, and the question whether anybody lives */
  assert_int_equal(f->warnings, 1);
  close(fd);
}

static void bytes_that_cant_be_had_are_not_tried_for_by_each_file(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  mc_error err = MC_ERROR_INIT;
  script(f, give_object, NULL);
  f->fake.failing_connects = INT_MAX;
  for (int i = 0; i < 50; i++) {
    assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
    assert_int_equal(read_all(source, &forever, &err), MC_UNAVAILABLE);
    cluster_upstream_ops.source_close(source);
    if (f->fake.connects > RETRIES + 1) break; /* a slow machine: it is being tried again already */
    assert_non_null(strstr(err.message, "fake://one:1 is down"));
  }
  assert_true(f->fake.connects <= RETRIES + 2);
  assert_int_equal(f->warnings, 1);
  f->fake.failing_connects = 0;
  int64_t until = clock_ns() + 30 * NS_PER_S;
  mc_status status = MC_UNAVAILABLE;
  while (status && clock_ns() < until) {
    assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
    status = read_all(source, &forever, NULL);
    cluster_upstream_ops.source_close(source);
  }
  assert_int_equal(status, MC_OK);
  assert_int_equal(f->warnings, 1);
  assert_int_equal(f->news, 1);
}

static void the_other_endpoint_is_chosen_from_the_start(void **state) {
  struct fixture *f = *state;
  mc_source *source;
  mc_info info;
  script(f, give_object, give_two_endpoints);
  f->fake.failing_host = "one";
  assert_int_equal(open_source(f, &source, &info, &forever, NULL), MC_OK);
  assert_int_equal(read_all(source, &forever, NULL), MC_OK); /* it asked again, and was told of others */
  assert_int_equal(f->fake.connects, RETRIES + 2);
  assert_string_equal(f->fake.endpoint, "fake://a:1");
  cluster_upstream_ops.source_close(source);
}

static void bad_endpoints_are_refused(void **state) {
  struct fixture *f = *state;
  static const char *const bad[] = {NULL, "", "a:1,", ",a:1", "a:1,,b:2", "a", "a:1,b", "http://a:1"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    mc_upstream_config config = {.struct_size = sizeof(config), .endpoint = bad[i], .logger = &f->logger};
    mc_upstream *upstream;
    assert_int_equal(cluster_upstream_ops.open(&upstream, &config, NULL), MC_INVALID_ARGUMENT);
  }
}

static int make_content(void **state) {
  (void)state;
  content = malloc(SIZE);
  for (size_t i = 0; i < SIZE; i++) content[i] = (uint8_t)((i * 2654435761u) >> 13);
  sha256_of(&digest, content, SIZE);
  chunks = chunk_table_new(SIZE);
  for (uint32_t i = 0; i < chunks->count; i++) {
    xxh128_of(chunk_table_hashes(chunks) + i, content + i * MC_CHUNK_SIZE, (size_t)chunk_length(SIZE, i));
  }
  return 0;
}

static int free_content(void **state) {
  (void)state;
  free(content);
  free(chunks);
  return 0;
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(an_object_is_read_by_its_digest),
      TEST(an_empty_file_has_a_table_of_nothing),
      TEST(a_known_object_is_not_opened),
      TEST(what_was_listed_is_said),
      TEST(a_failed_read_goes_on_from_where_it_was),
      TEST(a_range_that_ends_early_is_no_success),
      TEST(a_kept_connection_that_ended_costs_no_attempt),
      TEST(the_next_endpoint_is_tried),
      TEST(an_evicted_object_is_asked_for_again),
      TEST(another_version_is_told),
      TEST(a_file_that_is_lost_for_ever_is_given_up),
      TEST(what_the_service_says_of_a_lost_file_is_passed_on),
      TEST(a_sinks_refusal_is_final),
      TEST(a_download_is_followed_to_its_end),
      TEST(a_download_that_ended_is_read_on_by_digest),
      TEST(a_download_whose_server_went_away_goes_on),
      TEST(a_download_whose_member_died_is_followed_at_the_next),
      TEST(a_download_whose_member_hangs_is_followed_at_the_next),
      TEST(the_end_is_asked_for_again_when_the_server_went_away),
      TEST(what_the_server_could_not_get_is_not_asked_for_again),
      TEST(a_service_that_is_not_there_yet_is_asked_again),
      TEST(a_download_that_failed_says_why),
      TEST(lanes_that_lose_a_download_together_ask_once),
      TEST(lanes_are_spread_over_the_holders),
      TEST(a_spare_is_read_from_when_the_others_fail),
      TEST(a_slow_holder_serves_fewer_ranges),
      TEST(the_loss_of_a_holder_costs_its_lanes_what_was_under_way),
      TEST(a_holder_that_has_it_no_more_is_passed_over),
      TEST(when_no_holder_has_it_the_service_is_asked),
      TEST(a_damaged_chunk_comes_from_another_holder),
      TEST(a_wire_that_damages_is_left),
      TEST(a_shunned_holder_is_left_out),
      TEST(closing_a_followed_source_cancels_the_call),
      TEST(a_read_that_waits_for_news_is_cancelled),
      TEST(progress_is_passed_on),
      TEST(bad_tickets_are_refused),
      TEST(stat_tells_what_the_origin_has),
      TEST(a_folder_is_listed),
      TEST(the_cache_is_managed),
      TEST(the_service_checks_an_origin),
      TEST(an_entry_that_would_steer_a_terminal_is_refused),
      TEST(a_service_that_is_down_is_left_alone_for_a_while),
      TEST(another_server_is_asked),
      TEST(a_web_server_in_its_place_counts_as_down),
      TEST(a_frozen_service_is_not_waited_for_each_time),
      TEST(bytes_that_cant_be_had_are_not_tried_for_by_each_file),
      TEST(the_other_endpoint_is_chosen_from_the_start),
      TEST(bad_endpoints_are_refused),
  };
  return cmocka_run_group_tests(tests, make_content, free_content);
}
