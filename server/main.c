/* modelcached: one cache, served to many. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "server.h"

struct parts {
  mc_cache *cache;
  mc_server *data;
  struct control *control;
  struct web *web;
};

static int fail(const mc_error *error) {
  log_say(MC_LOG_ERROR, "%s", error->message);
  return error->status == MC_INVALID_ARGUMENT ? 2 : 1;
}

/* Tell systemd, where it is the one who started us. */
static void notify(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (!path || strlen(path) >= sizeof(address.sun_path) || !strchr("/@", *path)) return;
  strcpy(address.sun_path, path);
  if (*path == '@') address.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  if (fd >= 0) sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length);
  if (fd >= 0) close(fd);
}

/* "HOST:PORT" with the port that was chosen. */
static void bound(char text[300], const char *address, int port) {
  const char *colon = strrchr(address, ':');
  snprintf(text, 300, "%.*s:%d", colon ? (int)(colon - address) : 0, address, port);
}

/* Where the port of HOST[:PORT] begins, with its colon; NULL: there is none. */
static const char *port_in(const char *address) {
  const char *bracket = *address == '[' ? strchr(address, ']') : NULL;
  return strchr(bracket ? bracket : address, ':');
}

/* A client that is told of an address that can't be one gives up: better not to start. */
static bool check_advertise(const char *address) {
  const char *colon = address ? port_in(address) : NULL;
  size_t host = colon ? (size_t)(colon - address) : address ? strlen(address) : 0;
  bool brackets = host > 2 && *address == '[' && address[host - 1] == ']';
  const char *port = colon ? colon + 1 : "1";
  bool good = !address || (host > 0 && host < 256 && (brackets || !memchr(address, '[', host)) &&
                           strcspn(address, " \t/@\"\\") == strlen(address) && strlen(port) < 6 && atoi(port) > 0 &&
                           atoi(port) <= 65535 && strspn(port, "0123456789") == strlen(port));
  if (!good) {
    log_say(MC_LOG_ERROR, "advertise: '%.100s' is not HOST or HOST:PORT, such as cache1:7441 or [2001:db8::1]:7441",
            address);
  }
  return good;
}

/* What tickets name: the data plane's own address, or what clients know it by. */
static void data_endpoint(char text[300], const struct server_options *options, mc_server *data) {
  const char *endpoint = mc_server_endpoint(data), *port = strrchr(endpoint, ':'), *host = options->advertise;
  char name[256];
  if (host && port_in(host)) {
    snprintf(text, 300, "tcp://%s", host);
  } else if (host) {
    snprintf(text, 300, "tcp://%s%s", host, port);
  } else if (strncmp(endpoint, "tcp://0.0.0.0:", 14) == 0 || strncmp(endpoint, "tcp://[::]:", 11) == 0) {
    if (gethostname(name, sizeof(name))) strcpy(name, "localhost");
    snprintf(text, 300, "tcp://%s%s", name, port);
  } else {
    snprintf(text, 300, "%s", endpoint);
  }
}

/* For people who look at the cluster: the same host, with the control plane's port. */
static void control_endpoint(char text[300], const char *data, int port) {
  data += strlen("tcp://");
  snprintf(text, 300, "%.*s:%d", (int)(strrchr(data, ':') - data), data, port);
}

static int write_ports(const char *path, const char *control, const char *data, const char *web) {
  char temporary[4200];
  snprintf(temporary, sizeof(temporary), "%s.new", path);
  FILE *file = fopen(temporary, "we");
  if (!file) return -1;
  fprintf(file, "{\"control\": \"%s\", \"data\": \"%s\", \"web\": \"%s\"}\n", control, data, web);
  return fclose(file) || rename(temporary, path) ? -1 : 0;
}

static int start(struct parts *parts, struct server_options *options) {
  mc_error error = MC_ERROR_INIT;
  mc_serve_options serve;
  char endpoint[300], control[300], reachable[300], web[300] = "none";
  mc_serve_options_init(&serve);
  serve.address = options->data;
  serve.threads = options->data_threads;
  serve.max_connections = options->max_connections;
  options->cache.logger = (mc_logger){.log = log_write, .level = (mc_log_level)options->log_level};
  if (!check_advertise(options->advertise)) return 2;
  if (mc_open_options(&parts->cache, &options->cache, &error)) return fail(&error);
  if (mc_serve(&parts->data, parts->cache, &serve, &error)) return fail(&error);
  data_endpoint(endpoint, options, parts->data);
  if (control_start(&parts->control, parts->cache, options->control, endpoint, options->rpc_threads, &error)) {
    return fail(&error);
  }
  bound(control, options->control, control_port(parts->control));
  control_endpoint(reachable, endpoint, control_port(parts->control));
  if (mc_advertise(parts->cache, endpoint, reachable, &error)) return fail(&error);
  const char *upper = options->cache.endpoint ? options->cache.endpoint : "";
  if (*upper && listens_at(upper, control)) {
    log_say(MC_LOG_ERROR,
            "endpoint: %s is this server's own address: it would wait for itself; it comes from "
            "--endpoint, MODELCACHE_ENDPOINT or the configuration",
            upper);
    return 2;
  }
  if (options->web && strcmp(options->web, "none") != 0) {
    if (web_start(&parts->web, parts->cache, parts->data, parts->control, options->web, &error)) return fail(&error);
    bound(web, options->web, web_port(parts->web));
  }
  const char *data = mc_server_endpoint(parts->data) + strlen("tcp://");
  if (options->ports_file && write_ports(options->ports_file, control, data, web)) {
    log_say(MC_LOG_ERROR, "can't write the ports file %s: %s", options->ports_file, strerror(errno));
    return 1;
  }
  const char *coordination = options->cache.coordination ? options->cache.coordination : "local";
  log_say(MC_LOG_INFO, "ready: control %s, data %s, web %s, storage %s, coordination %.*s%s%s", control, data, web,
          options->cache.storage, (int)strcspn(coordination, ":"), coordination, /* what follows may hold a password */
          *upper ? ", a client of " : "", upper);
  return 0;
}

/* One deadline for all parts. What is stored survives an end at any moment, so nobody is waited for beyond it. */
static void stop(struct parts *parts, int64_t drain_ms) {
  int64_t deadline = monotonic_ns() / NS_PER_MS + drain_ms;
  web_drain(parts->web);
  if (parts->cache) mc_advertise(parts->cache, NULL, NULL, NULL);
  if (parts->control && !control_stop(parts->control, drain_ms)) {
    log_say(MC_LOG_WARN, "a call to an origin does not end; stopped without it");
    _exit(0);
  }
  web_forget(parts->web);
  control_free(parts->control);
  int64_t left = deadline - monotonic_ns() / NS_PER_MS;
  mc_server_close(parts->data, left > 0 ? left : 0);
  web_stop(parts->web);
  mc_close(parts->cache);
}

int main(int argc, char **argv) {
  struct server_options options;
  struct parts parts = {0};
  sigset_t signals;
  int which, code = config_load(&options, argc, argv);
  if (code >= 0) return code;
  control_prepare();
  log_begin(options.log_format, (mc_log_level)options.log_level);
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  signal(SIGPIPE, SIG_IGN);                   /* a connection, or a log, that breaks is no reason to end */
  pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread is there, so that none of them takes these */
  code = start(&parts, &options);
  if (code == 0) {
    notify("READY=1");
    sigwait(&signals, &which);
    notify("STOPPING=1");
    log_say(MC_LOG_INFO, "stopping: what is under way may take %lld s", (long long)options.drain_ms / 1000);
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL); /* a second signal ends it at once */
  }
  stop(&parts, options.drain_ms);
  if (code == 0) log_say(MC_LOG_INFO, "stopped");
  config_free(&options);
  return code;
}
