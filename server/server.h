/* modelcached's parts: config.c, log.c, control.c (gRPC), rpc.c and fetch.c (its calls), web.c, and main.c that puts
 * them together. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include <stdint.h>
#include <time.h>

#include <modelcache/modelcache.h>

#define NS_PER_MS 1000000ll

/* For deadlines and pauses: nanoseconds of CLOCK_MONOTONIC. */
static inline int64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

struct server_options {
  mc_options cache;
  const char *control, *data, *web, *advertise, *ports_file, *config;
  int log_format, log_level;
  int64_t drain_ms;
  uint32_t max_connections, data_threads, rpc_threads;
  bool print_config;
  char *texts[64]; /* of the file: what strings of options point into; one for each row of both tables */
  char default_storage[4096];
};

/* config.c: flags before environment before file before defaults. Returns -1 to go on, else the exit code, having
 * printed what there is to say. */
int config_load(struct server_options *options, int argc, char **argv);
/* The same without a word: what is wrong goes into `message`. */
int config_read(struct server_options *options, int argc, char **argv, char *message, size_t size);
void config_free(struct server_options *options);

/* log.c: lines on stderr. */
enum { LOG_TEXT, LOG_JSON };
void log_begin(int format, mc_log_level level);
void log_write(void *user, mc_log_level level, const char *origin, const char *message);
void log_say(mc_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* listen.c */
/* A socket that listens on HOST:PORT, and its port. `option` is what messages call the address. */
mc_status listen_on(int *fd, int *port, const char *option, const char *address, mc_error *err);
/* Whether who connects to `endpoint` reaches what listens on `address`, HOST:PORT both. Looks names up, which blocks.
 */
bool listens_at(const char *endpoint, const char *address);
/* A thread that gives each connection to `take`, which owns it then. Takes over `listener` if it starts. */
struct acceptor;
mc_status acceptor_start(struct acceptor **out, int listener, void (*take)(void *user, int fd), void *user,
                         mc_error *err);
void acceptor_stop(struct acceptor *acceptor);

/* control.c */
struct control;
/* First of all: while there is one thread. */
void control_prepare(void);
mc_status control_start(struct control **out, mc_cache *cache, const char *address, const char *data_endpoint,
                        uint32_t threads, mc_error *err);
int control_port(const struct control *control);
/* Counters of its calls: since the start, those that failed, and those under way. */
void control_stats(const struct control *control, uint64_t *calls, uint64_t *errors, uint64_t *open);
/* From now on the health service says NOT_SERVING. */
void control_drain(struct control *control);
/* Take no more calls, let those that run end for up to drain_ms, then cancel them. false: a thread still waits for an
 * upstream; then nothing that it uses may be freed. */
bool control_stop(struct control *control, int64_t drain_ms);
/* Once it has stopped. NULL is fine. */
void control_free(struct control *control);

/* web.c: /healthz, /readyz, /metrics. */
struct web;
mc_status web_start(struct web **out, mc_cache *cache, mc_server *data, const struct control *control,
                    const char *address, mc_error *err);
#define MAX_STATS 128
/* Every metric, ended by a row without a name. `data` and `control` may be NULL. */
void web_stats(mc_stat_row rows[MAX_STATS], mc_cache *cache, const mc_server *data, const struct control *control);
int web_port(const struct web *web);
void web_drain(struct web *web);
/* The planes are about to be freed: from now on their metrics are 0. */
void web_forget(struct web *web);
void web_stop(struct web *web);

#endif
