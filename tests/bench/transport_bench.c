/* The TCP transport alone, without a cache round it, which would verify: to be compared with raw, and with a get.
 *
 *   transport_bench PATH CONNECTIONS
 *
 * A process of its own serves the file; this one reads it, with a thread and a sink for each connection, each of them
 * one range, into a buffer that was touched before. Each line on the standard input makes it move the file once; it
 * answers with a line of JSON. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include <modelcache/backend/transport.h>

#define MAX_CONNECTIONS 64

extern const mc_transport_ops tcp_transport_ops;

static const mc_transport_ops *const ops = &tcp_transport_ops;
static const mc_content content = {.kind = MC_CONTENT_OBJECT};

struct lane {
  mc_sink sink; /* first */
  mc_connection *connection;
  uint64_t begin;
  uint8_t *buffer; /* where `begin` goes */
  mc_status status;
  mc_error error;
};

static void die(const char *what, const char *why) {
  fprintf(stderr, "transport_bench: %s: %s\n", what, why);
  exit(1);
}

/* ---- the exporter: one file ---- */

static mc_status export_open(void *user, const mc_content *which, mc_export *out, mc_error *err) {
  (void)which;
  (void)err;
  *out = *(const mc_export *)user;
  return MC_OK;
}

static void export_close(void *user, mc_export *export_) {
  (void)user;
  (void)export_;
}

static mc_status export_ready(void *user, mc_export *export_, uint64_t offset, uint64_t *bytes, void (*wake)(void *arg),
                              void *arg, mc_error *err) {
  (void)user;
  (void)export_;
  (void)offset;
  (void)bytes;
  (void)wake;
  (void)arg;
  (void)err;
  return MC_OK;
}

static void export_unwatch(void *user, mc_export *export_, void *arg) {
  (void)user;
  (void)export_;
  (void)arg;
}

static mc_status export_suspect(void *user, mc_export *export_, uint64_t offset, mc_error *err) {
  (void)user;
  (void)export_;
  (void)offset;
  (void)err;
  return MC_OK;
}

static void export_sent(void *user, uint64_t bytes) {
  (void)user;
  (void)bytes;
}

/* The serving process: writes its endpoint to `pipe` and lives until it is killed. */
static void serve(const mc_transport_config *config, mc_export file, int pipe) {
  mc_error err = MC_ERROR_INIT;
  mc_transport *transport;
  mc_listener *listener = NULL;
  mc_exporter exporter = {&file, export_open, export_close, export_ready, export_unwatch, export_suspect, export_sent};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (ops->open(&transport, config, &err) || ops->listen(transport, "127.0.0.1:0", &exporter, &listener, &err)) {
    die("can't serve", err.message);
  }
  const char *endpoint = ops->listener_endpoint(listener);
  if (write(pipe, endpoint, strlen(endpoint) + 1) < 0) die("can't tell the endpoint", strerror(errno));
  for (;;) pause();
}

/* ---- the sinks ---- */

static void *sink_space(mc_sink *sink, size_t *size) {
  const struct lane *lane = (const struct lane *)sink;
  uint64_t left = sink->end - sink->offset;
  *size = (size_t)(left < MC_CHUNK_SIZE ? left : MC_CHUNK_SIZE);
  return lane->buffer + (sink->offset - lane->begin);
}

static mc_status sink_advance(mc_sink *sink, size_t size, mc_error *err) {
  (void)err;
  sink->offset += size;
  return MC_OK;
}

static void *read_lane(void *arg) {
  struct lane *lane = arg;
  mc_call call = {.deadline = INT64_MAX};
  lane->sink.offset = lane->begin;
  lane->status = ops->read(lane->connection, &content, &lane->sink, &call, &lane->error);
  return NULL;
}

static void run_lanes(struct lane *lanes, int connections) {
  pthread_t threads[MAX_CONNECTIONS];
  for (int i = 0; i < connections; i++) {
    if (pthread_create(&threads[i], NULL, read_lane, &lanes[i])) die("can't start a thread", "");
  }
  for (int i = 0; i < connections; i++) {
    pthread_join(threads[i], NULL);
    if (lanes[i].status) die("the read failed", lanes[i].error.message);
  }
}

int main(int count, char **args) {
  int connections = count > 2 ? atoi(args[2]) : 0;
  if (connections < 1 || connections > MAX_CONNECTIONS || count != 3) {
    fprintf(stderr, "usage: transport_bench PATH CONNECTIONS\n");
    return 2;
  }
  mc_transport_config config = {
      .struct_size = sizeof(config), .connect_timeout_ms = 5000, .stall_timeout_ms = 30000, .max_connections = 64};
  mc_error err = MC_ERROR_INIT;
  struct stat info;
  int file = open(args[1], O_RDONLY), ends[2];
  if (file < 0 || fstat(file, &info) || pipe(ends)) die(args[1], strerror(errno));
  uint64_t size = (uint64_t)info.st_size, share = size / (uint64_t)connections;
  pid_t child = fork();
  if (child < 0) die("can't fork", strerror(errno));
  if (child == 0) serve(&config, (mc_export){.fd = file, .size = size}, ends[1]);
  char endpoint[128];
  ssize_t length = read(ends[0], endpoint, sizeof(endpoint) - 1);
  if (length <= 0) die("the serving process", "gave no endpoint");
  endpoint[length] = 0;

  uint8_t *buffer = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (buffer == MAP_FAILED) die("no memory", strerror(errno));
  mc_transport *transport;
  struct lane lanes[MAX_CONNECTIONS];
  if (ops->open(&transport, &config, &err)) die("can't open the transport", err.message);
  for (int i = 0; i < connections; i++) {
    uint64_t begin = share * (uint64_t)i;
    lanes[i] = (struct lane){
        .sink = {.end = i == connections - 1 ? size : begin + share, .space = sink_space, .advance = sink_advance},
        .begin = begin,
        .buffer = buffer + begin};
    mc_call call = {.deadline = INT64_MAX};
    if (ops->connect(transport, endpoint, &lanes[i].connection, &call, &err)) die("can't connect", err.message);
  }
  char line[16];
  while (fgets(line, sizeof(line), stdin)) {
    destination_touch(buffer, (size_t)size);
    struct run run = run_begin(child);
    run_lanes(lanes, connections);
    run_end(&run, size, "");
    destination_give_back(buffer, (size_t)size);
  }
  for (int i = 0; i < connections; i++) ops->disconnect(lanes[i].connection);
  ops->close(transport);
  kill(child, SIGKILL);
  return 0;
}
