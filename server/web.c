/* Health and metrics over HTTP. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <microhttpd.h>

#include "server.h"

#define MAX_WEB_CONNECTIONS 64
#define METRICS_MAX         (64 << 10)

struct web {
  mc_cache *cache;
  pthread_mutex_t lock; /* outermost */
  mc_server *data;
  const struct control *control; /* these two under the lock; NULL once they are forgotten */
  struct MHD_Daemon *daemon;
  int port;
  atomic_bool draining;
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned code, const char *text) {
  struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_MUST_COPY);
  if (!response) return MHD_NO;
  MHD_add_response_header(response, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
  enum MHD_Result result = MHD_queue_response(connection, code, response);
  MHD_destroy_response(response);
  return result;
}

void web_stats(mc_stat_row rows[MAX_STATS], mc_cache *cache, const mc_server *data, const struct control *control) {
  uint64_t calls = 0, errors = 0, open = 0;
  if (control) control_stats(control, &calls, &errors, &open);
  const mc_stat_row own[] = {
      {"control_calls_total", "", "calls to the control plane", false, calls},
      {"control_call_errors_total", "", "calls to the control plane that failed", false, errors},
      {"control_calls_open", "", "calls to the control plane under way", true, open},
      {"data_connections", "", "connections to the data plane", true, data ? mc_server_connections(data) : 0},
      {0},
  };
  size_t count = sizeof(own) / sizeof(*own), used = mc_stats(cache, rows, MAX_STATS - count) - 1;
  if (used > MAX_STATS - count - 1) used = MAX_STATS - count - 1;
  memcpy(rows + used, own, sizeof(own));
}

static enum MHD_Result metrics(struct web *web, struct MHD_Connection *connection) {
  mc_stat_row rows[MAX_STATS];
  char *text = malloc(METRICS_MAX);
  if (!text) return answer(connection, 500, "no memory\n");
  pthread_mutex_lock(&web->lock);
  web_stats(rows, web->cache, web->data, web->control);
  pthread_mutex_unlock(&web->lock);
  size_t used = (size_t)snprintf(text, METRICS_MAX,
                                 "# HELP modelcache_build_info the version, in a label\n"
                                 "# TYPE modelcache_build_info gauge\nmodelcache_build_info{version=\"%s\"} 1\n",
                                 mc_version());
  for (mc_stat_row *row = rows; row->name && used < METRICS_MAX - 1024; row++) {
    used += (size_t)snprintf(
        text + used, METRICS_MAX - used, "# HELP modelcache_%s %s\n# TYPE modelcache_%s %s\nmodelcache_%s %llu\n",
        row->name, row->help, row->name, row->gauge ? "gauge" : "counter", row->name, (unsigned long long)row->value);
  }
  enum MHD_Result result = answer(connection, 200, text);
  free(text);
  return result;
}

static enum MHD_Result handle(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *upload, size_t *upload_size, void **state) {
  static int seen;
  struct web *web = user;
  (void)version;
  (void)upload;
  if (!*state) { /* first only the head is there */
    *state = &seen;
    return MHD_YES;
  }
  if (*upload_size) {
    *upload_size = 0; /* nobody wants a body */
    return MHD_YES;
  }
  if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) return answer(connection, 405, "only GET and HEAD\n");
  if (strcmp(url, "/healthz") == 0) return answer(connection, 200, "ok\n");
  if (strcmp(url, "/readyz") == 0) {
    return atomic_load(&web->draining) ? answer(connection, 503, "draining\n") : answer(connection, 200, "ready\n");
  }
  if (strcmp(url, "/metrics") == 0) return metrics(web, connection);
  return answer(connection, 404, "there is /healthz, /readyz and /metrics\n");
}

mc_status web_start(struct web **out, mc_cache *cache, mc_server *data, const struct control *control,
                    const char *address, mc_error *err) {
  int fd, port;
  mc_status status = listen_on(&fd, &port, "web", address, err);
  if (status) return status;
  struct web *web = calloc(1, sizeof(*web));
  if (web) {
    web->cache = cache;
    web->data = data;
    web->control = control;
    web->port = port;
    pthread_mutex_init(&web->lock, NULL);
    web->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL, 0, NULL, NULL, handle, web,
                                   MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, MAX_WEB_CONNECTIONS,
                                   MHD_OPTION_CONNECTION_TIMEOUT, 15u, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                   (size_t)32768, MHD_OPTION_END);
  }
  if (!web || !web->daemon) {
    close(fd);
    if (web) pthread_mutex_destroy(&web->lock);
    free(web);
    return mc_error_set(err, MC_NO_MEMORY, "web", "no memory, or no thread, for the web pages");
  }
  *out = web;
  return MC_OK;
}

int web_port(const struct web *web) {
  return web->port;
}

void web_drain(struct web *web) {
  if (web) atomic_store(&web->draining, true);
}

void web_forget(struct web *web) {
  if (!web) return;
  pthread_mutex_lock(&web->lock);
  web->control = NULL;
  web->data = NULL;
  pthread_mutex_unlock(&web->lock);
}

void web_stop(struct web *web) {
  if (!web) return;
  MHD_stop_daemon(web->daemon);
  pthread_mutex_destroy(&web->lock);
  free(web);
}
