#include "http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DOTS "…"

static void check(bool condition, const char *what) {
  if (condition) return;
  perror(what);
  abort();
}

static bool write_text(int fd, const char *text, size_t size) {
  while (size) {
    ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    text += sent;
    size -= (size_t)sent;
  }
  return true;
}

/* How long a request is, as far as it's known. */
static size_t size_of(const char *text) {
  const char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "\r\nContent-Length:");
  if (!end) return SIZE_MAX;
  return (size_t)(end + 4 - text) + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
}

/* One request, and the answer to it. NULL: the client has gone. */
static const char *read_request(struct http_server *self, int fd) {
  char text[HTTP_SERVER_REQUEST] = "";
  size_t size = 0;
  while (size < size_of(text)) {
    ssize_t got = recv(fd, text + size, sizeof(text) - 1 - size, 0);
    if (got <= 0) return NULL;
    size += (size_t)got;
    text[size] = 0;
  }
  pthread_mutex_lock(&self->lock);
  check(self->asked < self->scripted, "a request that the test has no answer for");
  strcpy(self->requests[self->asked], text);
  const char *answer = self->script[self->asked++];
  pthread_mutex_unlock(&self->lock);
  return answer;
}

static void serve(struct http_server *self, int fd) {
  const char *answer;
  while ((answer = read_request(self, fd))) {
    const char *dots = strstr(answer, DOTS);
    if (!write_text(fd, answer, dots ? (size_t)(dots - answer) : strlen(answer))) return;
    if (!dots) continue;
    const char *rest = dots + strlen(DOTS);
    char c;
    if (strcmp(rest, DOTS) == 0) recv(fd, &c, 1, 0);
    bool endless = *rest && strcmp(rest, DOTS) != 0;
    while (endless && write_text(fd, rest, strlen(rest))) continue;
    return;
  }
}

static void *server_main(void *arg) {
  struct http_server *self = arg;
  for (;;) {
    int fd = accept(self->fd, NULL, NULL);
    if (fd < 0) return NULL;
    pthread_mutex_lock(&self->lock);
    self->connections++;
    pthread_mutex_unlock(&self->lock);
    serve(self, fd);
    close(fd);
  }
}

void http_server_start(struct http_server *self) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(address);
  memset(self, 0, sizeof(*self));
  pthread_mutex_init(&self->lock, NULL);
  self->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  check(self->fd >= 0, "socket");
  check(bind(self->fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(self->fd, 16) == 0, "listen");
  check(getsockname(self->fd, (struct sockaddr *)&address, &size) == 0, "getsockname");
  snprintf(self->origin, sizeof(self->origin), "http://127.0.0.1:%u", ntohs(address.sin_port));
  check(pthread_create(&self->thread, NULL, server_main, self) == 0, "pthread_create");
}

void http_server_stop(struct http_server *self) {
  shutdown(self->fd, SHUT_RDWR);
  pthread_join(self->thread, NULL);
  close(self->fd);
  for (unsigned i = 0; i < self->scripted; i++) free(self->script[i]);
  pthread_mutex_destroy(&self->lock);
}

void http_server_script(struct http_server *self, const char *answer, ...) {
  va_list args;
  char *text = NULL;
  va_start(args, answer);
  check(vasprintf(&text, answer, args) >= 0, "vasprintf");
  va_end(args);
  pthread_mutex_lock(&self->lock);
  check(self->scripted < HTTP_SERVER_REQUESTS, "too many answers");
  self->script[self->scripted++] = text;
  pthread_mutex_unlock(&self->lock);
}

unsigned http_server_asked(struct http_server *self) {
  pthread_mutex_lock(&self->lock);
  unsigned asked = self->asked;
  pthread_mutex_unlock(&self->lock);
  return asked;
}

unsigned http_server_connections(struct http_server *self) {
  pthread_mutex_lock(&self->lock);
  unsigned connections = self->connections;
  pthread_mutex_unlock(&self->lock);
  return connections;
}

const char *http_server_request(struct http_server *self, unsigned index) {
  pthread_mutex_lock(&self->lock);
  const char *request = index < self->asked ? self->requests[index] : "";
  pthread_mutex_unlock(&self->lock);
  return request; /* once there it does not change */
}
