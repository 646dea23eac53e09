#include "http_origin.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 1024
#define MAX_PAGES       128
#define MAX_HEAD        16384
#define SEND_BLOCK      ((size_t)64 << 10)

struct page {
  char path[256];
  const uint8_t *data;
  size_t size;
  unsigned version;
  char etag[80]; /* with its quotes */
  struct http_behaviour behaviour;
  bool about; /* as it was asked for */
};

struct connection {
  struct http_origin *origin;
  int fd;
  pthread_t thread;
};

struct http_origin {
  int fd;
  uint16_t port;
  const struct http_face *face; /* or NULL */
  pthread_t thread;
  pthread_mutex_t lock;
  bool stopping;
  unsigned versions, page_count, connection_count;
  struct http_counts counts;
  struct page pages[MAX_PAGES];
  struct connection connections[MAX_CONNECTIONS];
};

/* ---- pages ---- */

/* With the lock held. */
static struct page *find(struct http_origin *origin, const char *path) {
  for (unsigned i = 0; i < origin->page_count; i++) {
    if (strcmp(origin->pages[i].path, path) == 0) return &origin->pages[i];
  }
  return NULL;
}

unsigned http_origin_put(struct http_origin *origin, const char *path, const void *data, size_t size) {
  pthread_mutex_lock(&origin->lock);
  struct page *page = find(origin, path);
  if (!page) {
    assert(origin->page_count < MAX_PAGES && strlen(path) < sizeof(page->path));
    page = &origin->pages[origin->page_count++];
    *page = (struct page){.version = 0};
    strcpy(page->path, path);
  }
  page->data = data;
  page->size = size;
  unsigned version = page->version = ++origin->versions;
  snprintf(page->etag, sizeof(page->etag), "\"v%u\"", version);
  pthread_mutex_unlock(&origin->lock);
  return version;
}

void http_origin_speak(struct http_origin *origin, const struct http_face *face) {
  origin->face = face;
}

void http_origin_tag(struct http_origin *origin, const char *path, const char *etag) {
  pthread_mutex_lock(&origin->lock);
  struct page *page = find(origin, path);
  assert(page);
  snprintf(page->etag, sizeof(page->etag), "\"%s\"", etag);
  pthread_mutex_unlock(&origin->lock);
}

void http_origin_remove(struct http_origin *origin, const char *path) {
  pthread_mutex_lock(&origin->lock);
  struct page *page = find(origin, path);
  assert(page);
  *page = origin->pages[--origin->page_count];
  pthread_mutex_unlock(&origin->lock);
}

void http_origin_behave(struct http_origin *origin, const char *path, const struct http_behaviour *behaviour) {
  pthread_mutex_lock(&origin->lock);
  struct page *page = find(origin, path);
  assert(page);
  page->behaviour = *behaviour;
  pthread_mutex_unlock(&origin->lock);
}

/* The page as it is answered to this request; uses up one of its behaviour's times. */
static bool take_page(struct http_origin *origin, const char *target, bool is_get, struct page *out) {
  struct http_asked asked = {.version = 0};
  bool known = !origin->face || origin->face->read(&asked, target);
  if (!origin->face) snprintf(asked.path, sizeof(asked.path), "%.255s", target);
  pthread_mutex_lock(&origin->lock);
  origin->counts.requests++;
  struct page *page = known ? find(origin, asked.path) : NULL;
  bool there = page && (asked.or_before ? page->version <= asked.version : page->version == asked.version);
  if (asked.version && !there) page = NULL;
  if (page) *out = *page;
  out->about = asked.about;
  bool counts_down = page && page->behaviour.times && (page->behaviour.status || (page->behaviour.cuts && is_get));
  if (counts_down && --page->behaviour.times == 0) page->behaviour.status = page->behaviour.cuts = 0;
  pthread_mutex_unlock(&origin->lock);
  return page != NULL;
}

/* ---- answering ---- */

static bool send_all(int fd, const void *data, size_t size) {
  const char *at = data;
  while (size) {
    ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent;
    size -= (size_t)sent;
  }
  return true;
}

static void wait_until_it_has_gone(int fd) {
  char scrap[256];
  while (recv(fd, scrap, sizeof(scrap), 0) > 0) continue;
}

static void count_body(struct http_origin *origin, const struct page *page, size_t size) {
  if (page->about) return;
  pthread_mutex_lock(&origin->lock);
  origin->counts.body_bytes += size;
  pthread_mutex_unlock(&origin->lock);
}

/* Send [from, to) of the content. false: the connection is over. */
static bool send_body(struct connection *connection, const struct page *page, size_t from, size_t to) {
  const struct http_behaviour *how = &page->behaviour;
  bool stops = (how->cuts || how->stalls) && how->at < to;
  size_t end = !stops ? to : how->at < from ? from : (size_t)how->at;
  for (size_t at = from; at < end;) {
    size_t size = end - at < SEND_BLOCK ? end - at : SEND_BLOCK;
    char head[32];
    if (how->chunked) {
      snprintf(head, sizeof(head), "%zx\r\n", size);
      if (!send_all(connection->fd, head, strlen(head))) return false;
    }
    if (!send_all(connection->fd, page->data + at, size)) return false;
    if (how->chunked && !send_all(connection->fd, "\r\n", 2)) return false;
    count_body(connection->origin, page, size);
    at += size;
  }
  if (how->chunked && !stops) return send_all(connection->fd, "0\r\n\r\n", 5);
  if (stops && how->stalls) wait_until_it_has_gone(connection->fd);
  return !stops;
}

static bool send_error(struct connection *connection, int status) {
  char head[256];
  const struct http_face *face = connection->origin->face;
  const char *missing = face && face->missing && status == 404 ? face->missing : NULL;
  snprintf(head, sizeof(head), "HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n%s%s\r\n", status, missing ? missing : "",
           missing ? "\r\n" : "");
  return send_all(connection->fd, head, strlen(head));
}

static bool send_redirect(struct connection *connection, const char *to) {
  char head[2048];
  snprintf(head, sizeof(head), "HTTP/1.1 302 Elsewhere\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", to);
  return send_all(connection->fd, head, strlen(head));
}

static bool answer(struct connection *connection, const struct page *page, const char *target, bool is_get,
                   const char *range) {
  const struct http_behaviour *how = &page->behaviour;
  unsigned long long first = 0, last = 0;
  if (how->leads_to) return send_redirect(connection, *how->leads_to ? how->leads_to : target);
  if (how->status) return send_error(connection, how->status);
  if (how->stall_head) {
    wait_until_it_has_gone(connection->fd);
    return false;
  }
  bool takes_ranges = !how->no_ranges && !how->chunked;
  size_t from = 0, to = page->size;
  int fields = range && takes_ranges ? sscanf(range, "bytes=%llu-%llu", &first, &last) : 0;
  if (fields >= 1) {
    if (how->wrong_range) first++;
    if (first >= page->size) return send_error(connection, 416);
    from = (size_t)first;
    if (fields == 2 && last + 1 < to) to = (size_t)last + 1;
  }
  struct tm date;
  time_t modified = 1600000000 + (time_t)page->version;
  char text[1024], when[64];
  strftime(when, sizeof(when), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&modified, &date));
  size_t used = (size_t)snprintf(text, sizeof(text), "HTTP/1.1 %s\r\nETag: %s\r\nLast-Modified: %s\r\n",
                                 fields >= 1 ? "206 Partial Content" : "200 OK", page->etag, when);
  const struct http_face *face = connection->origin->face;
  if (face) {
    used += (size_t)snprintf(text + used, sizeof(text) - used, "%s: %0*u\r\n", face->version_field,
                             face->version_digits, page->version);
  }
  if (takes_ranges) used += (size_t)snprintf(text + used, sizeof(text) - used, "Accept-Ranges: bytes\r\n");
  if (fields >= 1) {
    used += (size_t)snprintf(text + used, sizeof(text) - used, "Content-Range: bytes %zu-%zu/%zu\r\n", from, to - 1,
                             page->size);
  }
  uint64_t length = how->head_lies && !is_get ? how->length : to - from;
  if (how->chunked) {
    used += (size_t)snprintf(text + used, sizeof(text) - used, "Transfer-Encoding: chunked\r\n\r\n");
  } else {
    used +=
        (size_t)snprintf(text + used, sizeof(text) - used, "Content-Length: %llu\r\n\r\n", (unsigned long long)length);
  }
  if (!send_all(connection->fd, text, used)) return false;
  return !is_get || send_body(connection, page, from, to);
}

/* Read a request's head into `head`, zero-terminated; a byte at a time, as the clients of tests don't hurry. */
static bool read_head(int fd, char head[MAX_HEAD]) {
  for (size_t size = 0; size + 1 < MAX_HEAD;) {
    if (recv(fd, head + size, 1, 0) != 1) return false;
    head[++size] = 0;
    if (size >= 4 && memcmp(head + size - 4, "\r\n\r\n", 4) == 0) return true;
  }
  return false;
}

static const char *header_of(const char *head, const char *name) {
  size_t length = strlen(name);
  for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
    if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':') {
      const char *value = line + 3 + length;
      return value + strspn(value, " ");
    }
  }
  return NULL;
}

static void *connection_main(void *arg) {
  struct connection *connection = arg;
  char *head = malloc(MAX_HEAD), method[8], target[1024];
  while (read_head(connection->fd, head)) {
    if (sscanf(head, "%7s %1023s ", method, target) != 2) break;
    struct page page;
    bool is_get = strcmp(method, "GET") == 0, found = take_page(connection->origin, target, is_get, &page);
    bool goes_on =
        found ? answer(connection, &page, target, is_get, header_of(head, "Range")) : send_error(connection, 404);
    if (!goes_on) break;
  }
  free(head);
  shutdown(connection->fd, SHUT_RDWR); /* closed by http_origin_stop, so that the number is not used again */
  return NULL;
}

/* ---- the server ---- */

static void *accept_main(void *arg) {
  struct http_origin *origin = arg;
  int fd, one = 1;
  while ((fd = accept4(origin->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    pthread_mutex_lock(&origin->lock);
    assert(origin->connection_count < MAX_CONNECTIONS);
    struct connection *connection = &origin->connections[origin->connection_count];
    *connection = (struct connection){.origin = origin, .fd = fd};
    if (origin->stopping || pthread_create(&connection->thread, NULL, connection_main, connection)) {
      close(fd);
    } else {
      origin->connection_count++;
      origin->counts.connections++;
    }
    pthread_mutex_unlock(&origin->lock);
  }
  return NULL;
}

struct http_origin *http_origin_start(void) {
  struct http_origin *origin = calloc(1, sizeof(*origin));
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t length = sizeof(address);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  pthread_mutex_init(&origin->lock, NULL);
  origin->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool good = bind(origin->fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(origin->fd, 64) == 0 &&
              getsockname(origin->fd, (struct sockaddr *)&address, &length) == 0 &&
              pthread_create(&origin->thread, NULL, accept_main, origin) == 0;
  assert(good);
  (void)good;
  origin->port = ntohs(address.sin_port);
  return origin;
}

void http_origin_stop(struct http_origin *origin) {
  pthread_mutex_lock(&origin->lock);
  origin->stopping = true;
  pthread_mutex_unlock(&origin->lock);
  shutdown(origin->fd, SHUT_RDWR);
  pthread_join(origin->thread, NULL);
  close(origin->fd);
  for (unsigned i = 0; i < origin->connection_count; i++) shutdown(origin->connections[i].fd, SHUT_RDWR);
  for (unsigned i = 0; i < origin->connection_count; i++) {
    pthread_join(origin->connections[i].thread, NULL);
    close(origin->connections[i].fd);
  }
  pthread_mutex_destroy(&origin->lock);
  free(origin);
}

uint16_t http_origin_port(const struct http_origin *origin) {
  return origin->port;
}

struct http_counts http_origin_counts(struct http_origin *origin) {
  pthread_mutex_lock(&origin->lock);
  struct http_counts counts = origin->counts;
  pthread_mutex_unlock(&origin->lock);
  return counts;
}
