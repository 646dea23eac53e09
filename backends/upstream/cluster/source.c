/* One file of the service, being read.
 *
 *   the ticket      content is read by        the stream              when it is lost
 *   not complete    the download's name       open: more will come    the next ticket, or a new Fetch
 *   complete        the object's digest       of no further use       a new Fetch
 *
 * A new Fetch may find the same version elsewhere, or downloaded again; the read then goes on from where it was.
 * Another version is MC_CHANGED. What was read by a download's name is verified by the engine with the chunk table
 * that the complete ticket brings.
 *
 * The lock is held while the service is waited for, so that the flight's lanes that need the same news queue for it:
 * they share one call, so that each finds a cancelled one, or one whose deadline passed, when its turn comes. No
 * callback is made then: only source_open and source_finish report progress, and no lane runs beside them.
 *
 * Lanes are spread over the ticket's endpoints: each range is read where the fewest are, of those that have failed the
 * fewest times. So a slow one serves fewer ranges, and one that is lost costs the ranges under way there what of them
 * had not landed yet. */
#include "cluster.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "messages.h"

#define ORIGIN         "cluster"

#define FIRST_PAUSE_MS 50
#define MOST_PAUSE_MS  2000
#define LEAST_JITTER   75

/* What is known of an endpoint of the ticket. */
struct place {
  unsigned reading;  /* lanes that do */
  unsigned failures; /* also under earlier tickets, while one was as good as another */
  bool gone;         /* it has not got this content, or not right */
  uint64_t refused;  /* 1 + the offset of a chunk that came damaged from here; 0: none did */
};

struct source {
  mc_source base;
  struct cluster *cluster;
  char *url;
  bool wants; /* this version of it, and not the current one; does not change */
  mc_digest wanted;
  /* Set with the first complete ticket, and not changed any more. */
  bool has_digest;
  mc_digest digest;
  mc_chunk_table *chunks;
  pthread_mutex_t lock;
  /* under lock: */
  struct rpc_stream *stream; /* NULL when it has ended */
  bool done;                 /* it has brought its complete ticket */
  bool broke;                /* its server went away: another Fetch may do better */
  struct ticket *ticket;
  struct place places[TICKET_ENDPOINTS]; /* the ticket's endpoints */
  unsigned version;                      /* counts tickets */
  unsigned asked;                        /* Fetch calls made again since something was read */
  mc_status verdict;                     /* why the service can't give it: then it's not asked again */
  mc_error reason;
};

/* ---- tickets ---- */

/* Whether both name a version, and not the same one. */
static bool differ(const mc_validators *a, const mc_validators *b) {
  if (*a->version && *b->version) return strcmp(a->version, b->version) != 0;
  if (*a->etag && *b->etag) return strcmp(a->etag, b->etag) != 0;
  return a->last_modified && b->last_modified && a->last_modified != b->last_modified;
}

static bool is_same_version(const struct source *source, const struct ticket *ticket) {
  if (!source->ticket) return true;
  if (source->ticket->size != ticket->size) return false;
  if (ticket->complete && source->has_digest) {
    return memcmp(ticket->id, source->digest.bytes, sizeof(ticket->id)) == 0;
  }
  return !differ(&source->ticket->validators, &ticket->validators);
}

/* Whether place `a` is to be preferred to `b`, which comes before it in the ticket. Those behind the ticket's first
 * `spread` are there for when those fail. */
static bool is_better(const struct source *source, unsigned a, unsigned b) {
  const struct ticket *ticket = source->ticket;
  struct pool *pool = source->cluster->pool;
  const struct place *at = &source->places[a], *than = &source->places[b];
  if (at->gone != than->gone) return than->gone;
  bool shuns_a = pool_shuns(pool, ticket->endpoints[a]), shuns_b = pool_shuns(pool, ticket->endpoints[b]);
  if (shuns_a != shuns_b) return shuns_b;
  if (at->failures != than->failures) return at->failures < than->failures;
  if ((a < ticket->spread) != (b < ticket->spread)) return a < ticket->spread;
  return at->reading < than->reading;
}

/* With the lock held: where the next range is best read; endpoint_count: there is no transport for any. */
static unsigned choose(const struct source *source) {
  const struct ticket *ticket = source->ticket;
  unsigned count = (unsigned)ticket->endpoint_count, best = count;
  for (unsigned i = 0; i < count; i++) {
    if (!pool_reaches(source->cluster->pool, ticket->endpoints[i])) continue;
    if (best == count || is_better(source, i, best)) best = i;
  }
  return best;
}

static bool reaches_any(struct pool *pool, const struct ticket *ticket) {
  for (size_t i = 0; i < ticket->endpoint_count; i++) {
    if (pool_reaches(pool, ticket->endpoints[i])) return true;
  }
  return false;
}

/* The places of a ticket that follows on source->ticket: whoever failed is no better for being named again. */
static void set_places(struct source *source, const struct ticket *ticket) {
  struct place places[TICKET_ENDPOINTS] = {{0}};
  const struct ticket *before = source->ticket;
  for (size_t i = 0; i < ticket->endpoint_count; i++) {
    for (size_t k = 0; before && k < before->endpoint_count; k++) {
      bool same = strcmp(ticket->endpoints[i], before->endpoints[k]) == 0;
      if (same) places[i].failures = source->places[k].failures;
    }
  }
  memcpy(source->places, places, sizeof(places));
}

/* Go on with this ticket; takes it over. */
static mc_status adopt(struct source *source, struct ticket *ticket, mc_error *err) {
  mc_status status = MC_OK;
  if (!is_same_version(source, ticket)) {
    status = mc_error_set(err, MC_CHANGED, ORIGIN, "the service has another version by now");
  } else if (!reaches_any(source->cluster->pool, ticket)) {
    status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN,
                          "the service names no data endpoint that this client has a transport for");
  }
  if (status) {
    ticket_free(ticket);
    return status;
  }
  if (ticket->complete && !source->has_digest) {
    memcpy(source->digest.bytes, ticket->id, sizeof(ticket->id));
    source->has_digest = true;
  }
  if (ticket->complete && !source->chunks) {
    source->chunks = ticket->chunks;
    ticket->chunks = NULL;
  }
  set_places(source, ticket);
  ticket_free(source->ticket);
  source->ticket = ticket;
  source->done = ticket->complete;
  source->version++;
  return MC_OK;
}

static mc_status take_event(struct source *source, const void *data, size_t size, const mc_open_args *args,
                            mc_error *err) {
  Modelcache__V1__FetchEvent *event;
  mc_status status = message_unpack((void **)&event, &modelcache__v1__fetch_event__descriptor, data, size, err);
  if (status) return status;
  if (event->event_case == MODELCACHE__V1__FETCH_EVENT__EVENT_PROGRESS && args && args->progress) {
    mc_upstream_progress progress;
    progress_from(&progress, event->progress);
    args->progress(args->progress_user, &progress);
  } else if (event->event_case == MODELCACHE__V1__FETCH_EVENT__EVENT_TICKET) {
    struct ticket *ticket;
    status = ticket_from(&ticket, event->ticket, err);
    if (!status) status = adopt(source, ticket, err);
  }
  message_free(event);
  return status;
}

static bool callers_own(mc_status status) {
  return status == MC_CANCELLED || status == MC_DEADLINE_EXCEEDED;
}

static void end_stream(struct source *source) {
  rpc_stream_close(source->stream, source->done);
  source->stream = NULL;
}

/* Take the stream's next event, or see its end. How it ends doesn't matter any more behind a complete ticket. */
static mc_status step(struct source *source, const mc_open_args *args, const mc_call *call, mc_error *err) {
  const void *data;
  size_t size;
  mc_error error = MC_ERROR_INIT;
  mc_status status = rpc_stream_next(source->stream, &data, &size, call, &error);
  if (!status && data) status = take_event(source, data, size, args, &error);
  if (status && err) *err = error;
  if (callers_own(status) || (!status && data)) return status;
  source->broke = rpc_stream_broke(source->stream);
  end_stream(source);
  if (source->done && status != MC_CHANGED) return MC_OK;
  if (!status) {
    status = mc_error_set(&error, MC_PROTOCOL, ORIGIN, "the service ended a Fetch without a complete ticket");
    if (err) *err = error;
  }
  if (!source->broke) {
    source->verdict = status;
    source->reason = error;
  }
  return status;
}

/* Wait until the stream brings a ticket. */
static mc_status next_ticket(struct source *source, const mc_open_args *args, const mc_call *call, mc_error *err) {
  unsigned version = source->version;
  mc_status status = MC_OK;
  while (!status && source->version == version) {
    if (!source->stream) return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the service has ended the Fetch");
    status = step(source, args, call, err);
  }
  return status;
}

/* What a listing said, as a message. */
struct listed {
  mc_listed value;
  Modelcache__V1__Listed message;
  Modelcache__V1__Validators validators;
};

static void set_listed(struct listed *to, const mc_listed *listed) {
  to->value = *listed;
  modelcache__v1__listed__init(&to->message);
  modelcache__v1__validators__init(&to->validators);
  to->message.validators = &to->validators;
  to->validators.version = to->value.validators.version;
  to->validators.etag = to->value.validators.etag;
  to->validators.last_modified = listed->validators.last_modified;
  if (listed->size != MC_SIZE_UNKNOWN) {
    to->message.has_size_case = MODELCACHE__V1__LISTED__HAS_SIZE_SIZE;
    to->message.size = listed->size;
  }
  if (listed->has_digest) {
    to->message.digest = (ProtobufCBinaryData){sizeof(to->value.digest), to->value.digest.bytes};
  }
}

/* Whether it says enough of a version to tell whether a copy is of it. */
static bool names_a_version(const mc_listed *listed) {
  return listed->has_digest || *listed->validators.version || *listed->validators.etag;
}

/* Call Fetch. With `known` the ticket for that digest comes without its chunk table; with `listed` the service need not
 * ask what it said itself. */
static mc_status ask(struct source *source, const mc_digest *known, const mc_listed *listed, bool revalidate,
                     const mc_call *call, mc_error *err) {
  Modelcache__V1__FetchRequest request = MODELCACHE__V1__FETCH_REQUEST__INIT;
  mc_digest digest;
  struct listed said;
  request.url = source->url;
  if (source->wants) request.digest = (ProtobufCBinaryData){sizeof(source->wanted.bytes), source->wanted.bytes};
  request.follow = true;
  request.revalidate = revalidate && !(listed && names_a_version(listed));
  if (listed) {
    set_listed(&said, listed);
    request.listed = &said.message;
  }
  if (known) {
    digest = *known;
    request.known_digest = (ProtobufCBinaryData){sizeof(digest.bytes), digest.bytes};
  }
  end_stream(source);
  source->done = source->broke = false;
  return service_call(&source->stream, source->cluster->service, "Fetch", &request.base, call, err);
}

/* Call Fetch again, and wait for its first ticket. */
static mc_status ask_again(struct source *source, const mc_open_args *args, const mc_call *call, mc_error *err) {
  if (source->verdict) {
    if (err) *err = source->reason;
    return source->verdict;
  }
  if (source->asked > source->cluster->retries) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the service keeps losing the file");
  }
  mc_status status = ask(source, source->chunks ? &source->digest : NULL, NULL, false, call, err);
  if (status) return status; /* that nobody answers is another matter, of the breaker and of each lane's retries */
  source->asked++;
  return next_ticket(source, args, call, err);
}

/* Wait for the next ticket, from another server if this one goes away. */
static mc_status await_ticket(struct source *source, const mc_open_args *args, const mc_call *call, mc_error *err) {
  mc_status status = next_ticket(source, args, call, err);
  bool gone = source->broke && (status == MC_UNAVAILABLE || status == MC_PROTOCOL); /* with a word, or without one */
  return gone ? ask_again(source, args, call, err) : status;
}

/* ---- opening ---- */

void cluster_source_close(mc_source *base) {
  struct source *source = (struct source *)base;
  end_stream(source);
  pthread_mutex_destroy(&source->lock);
  ticket_free(source->ticket);
  free(source->chunks);
  free(source->url);
  free(source);
}

static struct source *source_new(struct cluster *cluster, const char *url) {
  struct source *source = calloc(1, sizeof(*source));
  if (!source) return NULL;
  source->url = strdup(url);
  if (!source->url) {
    free(source);
    return NULL;
  }
  source->base.upstream = &cluster->base;
  source->cluster = cluster;
  pthread_mutex_init(&source->lock, NULL);
  return source;
}

static void fill_info(const struct source *source, mc_info *info) {
  const struct ticket *ticket = source->ticket;
  *info = (mc_info){.size = ticket->size, .validators = ticket->validators, .ranges = true};
  if (!ticket->complete) return;
  info->has_digest = true;
  info->digest = source->digest;
  if (source->chunks) info->chunks = *source->chunks;
}

mc_status cluster_source_open(mc_upstream *self, const mc_open_args *args, mc_source **out, mc_info *info,
                              const mc_call *call, mc_error *err) {
  struct source *source = source_new((struct cluster *)self, args->url);
  if (!source) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a source");
  source->wants = args->digest != NULL;
  if (args->digest) source->wanted = *args->digest;
  mc_status status = ask(source, args->known_digest, args->listed, args->revalidate, call, err);
  if (!status) status = await_ticket(source, args, call, err);
  if (!status) {
    fill_info(source, info);
    info->unchanged = info->has_digest && args->known_digest && mc_digest_equal(&info->digest, args->known_digest);
    if (info->has_digest && !source->chunks && !info->unchanged) {
      status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service sent a ticket without its chunk table");
    }
  }
  if (status || info->unchanged) {
    cluster_source_close(&source->base);
    source = NULL;
  }
  if (!status && info->unchanged) *info = (mc_info){.unchanged = true, .validators = info->validators};
  *out = source ? &source->base : NULL;
  return status;
}

mc_status cluster_source_finish(mc_source *base, mc_info *info, const mc_open_args *args, const mc_call *call,
                                mc_error *err) {
  struct source *source = (struct source *)base;
  mc_status status = MC_OK;
  while (!status && !(source->ticket->complete && source->chunks)) {
    bool goes_on = source->stream && !source->ticket->complete;
    status = goes_on ? await_ticket(source, args, call, err) : ask_again(source, args, call, err);
  }
  if (!status) fill_info(source, info);
  return status;
}

/* ---- reading ---- */

/* Stands between a transport and the engine's sink, and remembers whether it was the sink that failed. */
struct relay {
  mc_sink sink;
  mc_sink *to;
  bool refused;
};

static void relay_follow(struct relay *relay) {
  relay->sink.offset = relay->to->offset;
  relay->sink.suspect = relay->to->suspect;
}

static mc_status relay_write(mc_sink *self, const void *data, size_t size, mc_error *err) {
  struct relay *relay = (struct relay *)self;
  mc_status status = relay->to->write(relay->to, data, size, err);
  relay->refused = status != MC_OK;
  relay_follow(relay);
  return status;
}

static void *relay_space(mc_sink *self, size_t *size) {
  struct relay *relay = (struct relay *)self;
  return relay->to->space(relay->to, size);
}

static mc_status relay_advance(mc_sink *self, size_t size, mc_error *err) {
  struct relay *relay = (struct relay *)self;
  mc_status status = relay->to->advance(relay->to, size, err);
  relay->refused = status != MC_OK;
  relay_follow(relay);
  return status;
}

/* What to read and from where, as of one ticket. */
struct target {
  mc_content content;
  unsigned version, endpoint;
  bool suspect; /* the read begins with a chunk that came damaged from there before */
  char address[TICKET_ENDPOINT_SIZE];
};

/* With the lock held: what arrived damaged is asked for again where it came from, so that the peer looks at its copy.
 */
static unsigned place_of_suspect(const struct source *source, uint64_t offset) {
  for (unsigned i = 0; i < source->ticket->endpoint_count; i++) {
    if (source->places[i].refused == offset + 1) return i;
  }
  return choose(source);
}

static void aim(struct source *source, struct target *target, const mc_sink *sink) {
  pthread_mutex_lock(&source->lock);
  const struct ticket *ticket = source->ticket;
  unsigned at = sink->suspect ? place_of_suspect(source, sink->offset) : choose(source);
  target->content.kind = ticket->complete ? MC_CONTENT_OBJECT : MC_CONTENT_FLIGHT;
  memcpy(target->content.id, ticket->id, sizeof(ticket->id));
  target->version = source->version;
  target->endpoint = at;
  target->suspect = sink->suspect && source->places[at].refused == sink->offset + 1;
  source->places[at].reading++;
  memcpy(target->address, ticket->endpoints[at], sizeof(target->address));
  pthread_mutex_unlock(&source->lock);
}

static bool connection_failed(mc_status status) {
  return status == MC_UNAVAILABLE || status == MC_PROTOCOL || status == MC_IO || status == MC_BUSY ||
         status == MC_RESOURCE_EXHAUSTED;
}

static mc_status read_target(struct source *source, const struct target *target, struct relay *relay,
                             const mc_call *call, mc_error *err) {
  struct pool *pool = source->cluster->pool;
  for (;;) {
    mc_connection *connection;
    bool kept;
    mc_status status = pool_take(&connection, &kept, pool, target->address, call, err);
    if (status) return status;
    uint64_t from = relay->to->offset;
    status = connection->transport->ops->read(connection, &target->content, &relay->sink, call, err);
    if (!status) {
      pool_give(pool, target->address, connection);
      return MC_OK;
    }
    /* A connection that was kept may have ended since: that is no failure of the endpoint yet. */
    bool stale = kept && connection_failed(status) && !relay->refused && relay->to->offset == from;
    pool_drop(pool, target->address, connection, stale);
    if (!stale) return status;
  }
}

/* Serve the stream between two reads: the server's pings, and news. That the server went away is left for when it
 * matters. */
static mc_status attend(struct source *source, const mc_call *call, mc_error *err) {
  if (pthread_mutex_trylock(&source->lock)) return MC_OK; /* another lane is at it */
  mc_status status = MC_OK;
  while (!status && source->stream && rpc_stream_poll(source->stream)) status = step(source, NULL, call, err);
  bool broke = source->broke;
  pthread_mutex_unlock(&source->lock);
  return broke ? MC_OK : status;
}

/* The content of this ticket is not there any more, or not right: get a newer one, unless another lane has. */
static mc_status renew(struct source *source, const struct target *target, bool ask_anew, const mc_call *call,
                       mc_error *err) {
  pthread_mutex_lock(&source->lock);
  mc_status status = mc_call_check(call, err);
  if (!status && source->version == target->version) {
    bool goes_on = source->stream && !source->ticket->complete && !ask_anew;
    status = goes_on ? await_ticket(source, NULL, call, err) : ask_again(source, NULL, call, err);
  }
  pthread_mutex_unlock(&source->lock);
  return status;
}

/* A read has ended. Whether another endpoint of the ticket, or of a newer one, is worth a try at once. */
static bool settle(struct source *source, const struct target *target, mc_status status, bool refused,
                   const mc_sink *sink) {
  bool elsewhere = true;
  pthread_mutex_lock(&source->lock);
  if (source->version == target->version) {
    struct place *place = &source->places[target->endpoint];
    place->reading--;
    if (target->suspect) place->refused = 0;
    if (refused && status == MC_CORRUPT && sink->offset % MC_CHUNK_SIZE == 0) {
      place->failures += target->suspect; /* its copy is right, and arrives damaged all the same */
      place->refused = target->suspect ? 0 : sink->offset + 1;
    }
    if (!refused && (status == MC_NOT_FOUND || status == MC_CORRUPT)) place->gone = true;
    if (!refused && connection_failed(status)) place->failures++;
    unsigned next = choose(source);
    const struct place *other = &source->places[next];
    elsewhere = next != target->endpoint && !other->gone && (place->gone || other->failures < place->failures) &&
                !pool_shuns(source->cluster->pool, source->ticket->endpoints[next]);
  }
  pthread_mutex_unlock(&source->lock);
  return elsewhere;
}

/* Whether every endpoint of the ticket is left alone for now. */
static bool is_cut_off(struct source *source) {
  pthread_mutex_lock(&source->lock);
  bool cut_off = pool_shuns(source->cluster->pool, source->ticket->endpoints[choose(source)]);
  pthread_mutex_unlock(&source->lock);
  return cut_off;
}

/* Between three and five quarters of a pause that doubles: `percent` is from LEAST_JITTER on. */
static int64_t pause_ms(unsigned attempt, unsigned percent) {
  int64_t ms = attempt < 6 ? FIRST_PAUSE_MS << attempt : MOST_PAUSE_MS;
  return (ms < MOST_PAUSE_MS ? ms : MOST_PAUSE_MS) * percent / 100;
}

int64_t cluster_retries_ms(uint32_t retries) {
  int64_t ms = 0;
  for (uint32_t i = 0; i < retries; i++) ms += pause_ms(i, LEAST_JITTER);
  return ms;
}

static mc_status pause_for(unsigned attempt, const mc_call *call, mc_error *err) {
  uint32_t random;
  random_bytes(&random, sizeof(random));
  int64_t until = deadline_in_ms(pause_ms(attempt, LEAST_JITTER + random % 51));
  mc_status status;
  while (!(status = mc_call_check(call, err)) && clock_ns() < until) {
    struct pollfd cancelled = {.fd = mc_cancel_fd(call->cancel), .events = POLLIN};
    poll(&cancelled, 1, deadline_poll_ms(deadline_earlier(until, call->deadline)));
  }
  return status;
}

static void forgive(struct source *source) {
  pthread_mutex_lock(&source->lock);
  source->asked = 0;
  pthread_mutex_unlock(&source->lock);
}

mc_status cluster_source_read(mc_source *base, mc_sink *sink, const mc_call *call, mc_error *err) {
  struct source *source = (struct source *)base;
  struct relay relay = {
      .sink = {.end = sink->end, .write = relay_write, .space = relay_space, .advance = relay_advance}, .to = sink};
  bool asked_anew = false; /* since it was cut off */
  for (unsigned attempt = 0;;) {
    struct target target;
    mc_status status = attend(source, call, err);
    if (status) return status;
    aim(source, &target, sink);
    relay_follow(&relay);
    uint64_t from = sink->offset;
    status = read_target(source, &target, &relay, call, err);
    bool elsewhere = settle(source, &target, status, relay.refused, sink);
    if (sink->offset > from) {
      forgive(source);
      attempt = 0;
      asked_anew = false;
    }
    if (status == MC_OK && sink->offset < sink->end && sink->end != MC_SIZE_UNKNOWN) {
      return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s ended a range early without saying so", target.address);
    }
    if (status == MC_OK || relay.refused || callers_own(status)) return status;
    bool lost = status == MC_NOT_FOUND || status == MC_CORRUPT;
    if (!lost && !connection_failed(status)) return status;
    if (elsewhere) continue;
    if (lost) {
      status = renew(source, &target, false, call, err);
      /* A server that restarts may serve bytes before it answers calls. */
      bool again = status == MC_UNAVAILABLE && attempt < source->cluster->retries;
      if (again) status = pause_for(attempt++, call, err);
    } else {
      bool cut_off = status == MC_UNAVAILABLE && is_cut_off(source);
      /* Whoever downloads may have died: the service learns that, and tells on the stream who does so then. To ask anew
       * would bring the same answer until it has. */
      bool news_will_come = target.content.kind == MC_CONTENT_FLIGHT;
      if (cut_off && asked_anew && !news_will_come) return status;
      if (attempt < source->cluster->retries && !cut_off) {
        status = pause_for(attempt++, call, err);
      } else {
        status = renew(source, &target, !news_will_come, call, err);
        attempt = 0;
        asked_anew = cut_off;
      }
    }
    if (status) return status;
  }
}
