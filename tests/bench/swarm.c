/* Many clients of one file in one process, a thread for each: as many programs would cost this machine more than what
 * is measured.
 *
 *   swarm PATH CLIENTS cluster URL HOST:PORT…   each a client of one of the pods, in turn
 *   swarm PATH CLIENTS http URL                 each a plain GET
 *
 * A client of a pod does what the library's does: it has a gRPC connection of its own, calls Fetch, follows the
 * download from the data endpoint that its ticket names, over the library's own transport, and asks for the object when
 * the download can't be followed any more. Every chunk that it gets is compared with that of PATH by its XXH3-128, and
 * the digest of its complete ticket with PATH's SHA-256. A GET's bytes are counted, no more. Neither keeps them.
 *
 * Each line on the standard input makes them all begin, on new connections; the answer is a line of JSON. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <modelcache/backend/transport.h>

#include "base/hash.h"
#include "bench.h"
#include "calls.h"

#define BUFFER_SIZE ((size_t)256 << 10)
#define LOW_WATER   ((uint64_t)1 << 20)
#define MOST_PODS   16
#define MOST_PLACES 8
#define HEADER_SIZE 8192
#define STACK_SIZE  ((size_t)256 << 10)

extern const mc_transport_ops tcp_transport_ops;

static const mc_transport_ops *const ops = &tcp_transport_ops;

struct ticket {
  bool complete;
  mc_content content;
  uint64_t size;
  size_t places;
  char endpoints[MOST_PLACES][300];
};

struct swarm;

struct client {
  mc_sink sink;   /* first */
  struct rpc rpc; /* the main thread's */
  struct swarm *swarm;
  pthread_t thread;
  uint8_t *buffer;
  struct xxh128 *hash; /* of the chunk at the sink's offset, so far */
  unsigned again;      /* how many reads were cut */
  double took;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  /* under lock: */
  struct ticket ticket;
  unsigned version; /* counts tickets */
  bool ended;       /* no other will come */
};

struct swarm {
  uint64_t size;
  mc_chunk_table *chunks;
  mc_digest digest;
  mc_transport *transport;
  struct calls calls;
  size_t count;
  struct client *clients;
  char host[256], port[16]; /* of a plain one */
  const char *path;
  double begun;
};

static void die(const char *what, const char *why) {
  fprintf(stderr, "swarm: %s: %s\n", what, why);
  exit(1);
}

/* ---- a client of a pod ---- */

static void *sink_space(mc_sink *sink, size_t *size) {
  uint64_t left = MC_CHUNK_SIZE - sink->offset % MC_CHUNK_SIZE;
  *size = left < BUFFER_SIZE ? (size_t)left : BUFFER_SIZE;
  return ((struct client *)sink)->buffer;
}

static mc_status sink_advance(mc_sink *sink, size_t size, mc_error *err) {
  struct client *client = (struct client *)sink;
  uint64_t chunk = sink->offset / MC_CHUNK_SIZE;
  xxh128_update(client->hash, client->buffer, size);
  sink->offset += size;
  if (sink->offset % MC_CHUNK_SIZE && sink->offset < sink->end) return MC_OK;
  mc_hash128 hash;
  xxh128_final(client->hash, &hash);
  xxh128_reset(client->hash);
  if (hash128_equal(&hash, &client->swarm->chunks->hashes[chunk])) return MC_OK;
  return mc_error_set(err, MC_CORRUPT, "swarm", "chunk %llu is not what the file has", (unsigned long long)chunk);
}

static void take_event(struct rpc *rpc, const Modelcache__V1__FetchEvent *event) {
  if (event->event_case != MODELCACHE__V1__FETCH_EVENT__EVENT_TICKET) return;
  struct client *client = (struct client *)((char *)rpc - offsetof(struct client, rpc));
  const Modelcache__V1__Ticket *message = event->ticket;
  const ProtobufCBinaryData *id = message->complete ? &message->digest : &message->flight;
  struct ticket ticket = {.complete = message->complete, .size = message->size};
  ticket.content.kind = message->complete ? MC_CONTENT_OBJECT : MC_CONTENT_FLIGHT;
  if (id->len != sizeof(ticket.content.id)) die("a ticket", "its name is not of 32 bytes");
  memcpy(ticket.content.id, id->data, id->len);
  for (size_t i = 0; i < message->n_endpoints && ticket.places < MOST_PLACES; i++) {
    snprintf(ticket.endpoints[ticket.places++], sizeof(*ticket.endpoints), "%s", message->endpoints[i]);
  }
  pthread_mutex_lock(&client->lock);
  client->ticket = ticket;
  client->version++;
  pthread_cond_signal(&client->changed);
  pthread_mutex_unlock(&client->lock);
}

/* The next ticket behind `seen`. */
static void next_ticket(struct client *client, struct ticket *ticket, unsigned *seen, const mc_error *last) {
  pthread_mutex_lock(&client->lock);
  while (client->version == *seen && !client->ended) pthread_cond_wait(&client->changed, &client->lock);
  if (client->version == *seen) die("a client had no ticket that leads to the file", last->message);
  *ticket = client->ticket;
  *seen = client->version;
  pthread_mutex_unlock(&client->lock);
}

/* Read on from one of the ticket's endpoints. */
static mc_status read_from(struct client *client, const struct ticket *ticket, const char *endpoint, mc_error *err) {
  mc_call call = {.deadline = INT64_MAX};
  mc_connection *connection;
  mc_status status = ops->connect(client->swarm->transport, endpoint, &connection, &call, err);
  if (status) return status;
  status = ops->read(connection, &ticket->content, &client->sink, &call, err);
  ops->disconnect(connection);
  return status;
}

static void *run_cluster(void *arg) {
  struct client *client = arg;
  struct swarm *swarm = client->swarm;
  struct ticket ticket = {0};
  mc_error err = MC_ERROR_INIT;
  unsigned seen = 0;
  while (!ticket.complete || client->sink.offset < swarm->size) {
    next_ticket(client, &ticket, &seen, &err);
    if (ticket.size != swarm->size) die("a ticket", "its size is not the file's");
    for (size_t i = 0; i < ticket.places && client->sink.offset < swarm->size; i++) {
      mc_status status = read_from(client, &ticket, ticket.endpoints[i], &err);
      if (status == MC_CORRUPT || status == MC_PROTOCOL) die("a client's read", err.message);
      client->again += status != MC_OK;
    }
  }
  if (memcmp(ticket.content.id, swarm->digest.bytes, sizeof(swarm->digest))) die("a ticket", "the digest is wrong");
  client->took = now() - swarm->begun;
  return NULL;
}

/* ---- a plain one ---- */

static int connect_plain(const struct swarm *swarm) {
  struct addrinfo *addresses, hints = {.ai_socktype = SOCK_STREAM};
  if (getaddrinfo(swarm->host, swarm->port, &hints, &addresses)) die(swarm->host, "no such host");
  int fd = socket(addresses->ai_family, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, addresses->ai_addr, addresses->ai_addrlen)) die("can't connect", strerror(errno));
  freeaddrinfo(addresses);
  return fd;
}

/* The answer's header; returns how many bytes of the content came with it. */
static size_t receive_header(struct client *client, int fd) {
  char header[HEADER_SIZE + 1];
  size_t have = 0;
  for (;;) {
    ssize_t got = recv(fd, header + have, HEADER_SIZE - have, 0);
    if (got <= 0) die("no answer", got < 0 ? strerror(errno) : "the connection ended, or its header is too long");
    have += (size_t)got;
    header[have] = 0;
    const char *end = strstr(header, "\r\n\r\n");
    if (!end) continue;
    if (strncmp(header, "HTTP/1.1 200", 12) != 0) die("the answer", header);
    const char *length = strcasestr(header, "\r\nContent-Length:");
    if (!length || strtoull(length + 17, NULL, 10) != client->swarm->size) die("the answer", "its length is wrong");
    return have - (size_t)(end + 4 - header);
  }
}

static void *run_plain(void *arg) {
  struct client *client = arg;
  struct swarm *swarm = client->swarm;
  int fd = connect_plain(swarm), low_water = 1;
  char request[HEADER_SIZE];
  int length = snprintf(request, sizeof(request), "GET /%s HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n",
                        swarm->path, swarm->host, swarm->port);
  if (send(fd, request, (size_t)length, MSG_NOSIGNAL) != length) die("can't send", strerror(errno));
  uint64_t done = receive_header(client, fd);
  while (done < swarm->size) {
    uint64_t left = swarm->size - done;
    ssize_t got = recv(fd, client->buffer, BUFFER_SIZE, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN)) die("a GET", got ? strerror(errno) : "the connection ended");
    if (got > 0) {
      done += (uint64_t)got;
      continue;
    }
    int wanted = (int)(left < LOW_WATER ? left : LOW_WATER);
    if (wanted != low_water) setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof(wanted));
    low_water = wanted;
    poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1);
  }
  close(fd);
  client->took = now() - swarm->begun;
  return NULL;
}

/* ---- all of them ---- */

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void answer(const struct swarm *swarm, double cpu) {
  double *times = malloc(swarm->count * sizeof(*times));
  unsigned again = 0;
  if (!times) die("the answer", "no memory");
  for (size_t i = 0; i < swarm->count; i++) {
    times[i] = swarm->clients[i].took;
    again += swarm->clients[i].again;
  }
  qsort(times, swarm->count, sizeof(*times), compare);
  printf("{\"seconds\": %.6f, \"first\": %.6f, \"p50\": %.6f, \"cpu\": %.6f, \"peer_cpu\": 0, \"again\": %u}\n",
         times[swarm->count - 1], times[0], times[swarm->count / 2], cpu_seconds() - cpu, again);
  fflush(stdout);
  free(times);
}

static void start_clients(struct swarm *swarm, void *(*run)(void *arg)) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_SIZE);
  for (size_t i = 0; i < swarm->count; i++) {
    struct client *client = &swarm->clients[i];
    client->sink = (mc_sink){.end = swarm->size, .space = sink_space, .advance = sink_advance};
    client->version = client->again = 0;
    client->ended = false;
    xxh128_reset(client->hash);
    if (pthread_create(&client->thread, &attributes, run, client)) die("can't start a thread", strerror(errno));
  }
  pthread_attr_destroy(&attributes);
}

static void run_calls(struct swarm *swarm) {
  struct calls *calls = &swarm->calls;
  calls->ended = 0;
  for (size_t i = 0; i < swarm->count; i++) rpc_start(calls, &swarm->clients[i].rpc, i);
  while (calls->ended < swarm->count) {
    struct rpc *rpc = calls_step(calls, 1000);
    if (!rpc) continue;
    struct client *client = (struct client *)((char *)rpc - offsetof(struct client, rpc));
    pthread_mutex_lock(&client->lock);
    client->ended = true;
    pthread_cond_signal(&client->changed);
    pthread_mutex_unlock(&client->lock);
  }
  if (calls->failed) die("a call", calls->error);
}

static void run(struct swarm *swarm, char *const *pods, size_t pod_count) {
  double cpu = cpu_seconds();
  swarm->begun = now();
  start_clients(swarm, pod_count ? run_cluster : run_plain);
  if (pod_count) {
    calls_connect(&swarm->calls, pods, pod_count, swarm->count);
    run_calls(swarm);
  }
  for (size_t i = 0; i < swarm->count; i++) pthread_join(swarm->clients[i].thread, NULL);
  answer(swarm, cpu);
  if (pod_count) calls_disconnect(&swarm->calls);
}

/* What every client must get. */
static void read_model(struct swarm *swarm, const char *path) {
  struct stat info;
  int fd = open(path, O_RDONLY);
  if (fd < 0 || fstat(fd, &info)) die(path, strerror(errno));
  swarm->size = (uint64_t)info.st_size;
  swarm->chunks = chunk_table_new(swarm->size);
  uint8_t *chunk = malloc(MC_CHUNK_SIZE);
  struct sha256 *digest = sha256_new();
  if (!swarm->chunks || !chunk || !digest) die(path, "no memory");
  for (uint32_t i = 0; i < swarm->chunks->count; i++) {
    size_t size = (size_t)chunk_length(swarm->size, i);
    if (pread(fd, chunk, size, (off_t)(i * MC_CHUNK_SIZE)) != (ssize_t)size) die(path, "can't be read");
    xxh128_of(&chunk_table_hashes(swarm->chunks)[i], chunk, size);
    sha256_update(digest, chunk, size);
  }
  sha256_final(digest, &swarm->digest);
  sha256_free(digest);
  free(chunk);
  close(fd);
}

static void make_clients(struct swarm *swarm, size_t count) {
  swarm->count = count;
  swarm->clients = calloc(count, sizeof(*swarm->clients));
  if (!swarm->clients) die("the clients", "no memory");
  for (size_t i = 0; i < count; i++) {
    struct client *client = &swarm->clients[i];
    client->swarm = swarm;
    client->buffer = malloc(BUFFER_SIZE);
    client->hash = xxh128_new();
    if (!client->buffer || !client->hash) die("the clients", "no memory");
    pthread_mutex_init(&client->lock, NULL);
    pthread_cond_init(&client->changed, NULL);
  }
}

int main(int count, char **args) {
  static char path[HEADER_SIZE / 2];
  struct swarm swarm = {0};
  size_t clients = count > 4 ? strtoul(args[2], NULL, 10) : 0;
  bool cluster = count > 5 && count < 6 + MOST_PODS && strcmp(args[3], "cluster") == 0;
  bool plain = count == 5 && strcmp(args[3], "http") == 0;
  if (clients == 0 || !(cluster || plain)) {
    fprintf(stderr, "usage: swarm PATH CLIENTS cluster URL HOST:PORT…|http URL\n");
    return 2;
  }
  if (plain && sscanf(args[4], "http://%255[^:]:%15[0-9]/%4000s", swarm.host, swarm.port, path) != 3) {
    die(args[4], "is not http://HOST:PORT/PATH");
  }
  swarm.path = path;
  read_model(&swarm, args[1]);
  make_clients(&swarm, clients);
  mc_transport_config config = {
      .struct_size = sizeof(config), .connect_timeout_ms = 60000, .stall_timeout_ms = 600000, .max_connections = 64};
  mc_error err = MC_ERROR_INIT;
  if (ops->open(&swarm.transport, &config, &err)) die("can't open the transport", err.message);
  if (cluster) {
    calls_open(&swarm.calls);
    swarm.calls.event = take_event;
    calls_ask_for(&swarm.calls, args[4], true);
  }
  char line[16];
  while (fgets(line, sizeof(line), stdin)) run(&swarm, args + 5, cluster ? (size_t)(count - 5) : 0);
  if (cluster) calls_close(&swarm.calls);
  ops->close(swarm.transport);
  return 0;
}
