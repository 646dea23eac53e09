/* Listening sockets, and the thread that hands a plane its connections.
 *
 * gRPC could listen by itself, but 1.51 stops for good when accept fails once for want of descriptors, and has no limit
 * of connections. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server.h"

#define BACKLOG     4096
#define PAUSE_MS    100 /* after accept failed for want of something */
#define KEPT_FREE   256 /* descriptors for files, transfers and origins, out of the process's limit … */
#define KEPT_SHARE  4   /* … or a quarter of it, where that is less */
#define SAY_EACH_MS 10000

struct acceptor {
  int listener, wake;
  pthread_t thread;
  void (*take)(void *user, int fd);
  void *user;
  int64_t said_at;
};

/* ---- sockets ---- */

static mc_status bad_address(mc_error *err, const char *option, const char *address, const char *why) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, "listen", "%s: can't listen on '%.100s': %s", option, address, why);
}

static int bind_one(const struct addrinfo *info) {
  int on = 1, off = 0;
  int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (info->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

static int port_of(int fd) {
  struct sockaddr_storage address = {0};
  socklen_t size = sizeof(address);
  if (getsockname(fd, (struct sockaddr *)&address, &size)) return 0;
  return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                             : ((struct sockaddr_in *)&address)->sin_port);
}

mc_status listen_on(int *fd, int *port, const char *option, const char *address, mc_error *err) {
  char host[256];
  const char *colon = address ? strrchr(address, ':') : NULL;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list, *at;
  if (!address) address = "";
  bool brackets = colon && *address == '[' && colon > address && colon[-1] == ']';
  if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1) || atol(colon + 1) > 65535) {
    return bad_address(err, option, address, "it takes HOST:PORT, such as 127.0.0.1:7440 or 0.0.0.0:7440");
  }
  if ((size_t)(colon - address) >= sizeof(host)) return bad_address(err, option, address, "the name is too long");
  if (!brackets && memchr(address, ':', (size_t)(colon - address))) {
    return bad_address(err, option, address, "an IPv6 address is written in brackets, such as [::1]:7440");
  }
  snprintf(host, sizeof(host), "%.*s", (int)(colon - address) - 2 * brackets, address + brackets);
  int error = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &list);
  if (error) return bad_address(err, option, address, gai_strerror(error));
  *fd = -1;
  for (at = list; at && *fd < 0; at = at->ai_next) *fd = bind_one(at);
  error = errno;
  freeaddrinfo(list);
  if (*fd >= 0) {
    *port = port_of(*fd);
    return MC_OK;
  }
  if (error == EADDRINUSE) {
    return mc_error_set(err, MC_UNAVAILABLE, "listen", "%s: can't listen on '%.100s': the port is in use", option,
                        address);
  }
  if (error == EADDRNOTAVAIL) return bad_address(err, option, address, "it is not an address of this machine");
  return mc_error_errno(err, error, "listen", "%s: can't listen on '%.100s'", option, address);
}

/* ---- whose address ---- */

/* The addresses of HOST:PORT, or NULL. */
static struct addrinfo *addresses_of(const char *address, int flags) {
  char host[256];
  const char *colon = strrchr(address, ':');
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV}, *list = NULL;
  if (!colon || (size_t)(colon - address) >= sizeof(host)) return NULL;
  bool brackets = *address == '[' && colon[-1] == ']';
  snprintf(host, sizeof(host), "%.*s", (int)(colon - address) - 2 * brackets, address + brackets);
  return getaddrinfo(*host ? host : NULL, colon + 1, &hints, &list) ? NULL : list;
}

static bool is_any(const struct sockaddr *address) {
  if (address->sa_family == AF_INET6)
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
  return ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_ANY);
}

static int port_in(const struct sockaddr *address) {
  return ntohs(address->sa_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                              : ((const struct sockaddr_in *)address)->sin_port);
}

/* Only an address of this machine can be bound. */
static bool is_of_this_machine(const struct addrinfo *info) {
  struct sockaddr_storage address = {0};
  memcpy(&address, info->ai_addr, info->ai_addrlen);
  if (address.ss_family == AF_INET6) ((struct sockaddr_in6 *)&address)->sin6_port = 0;
  if (address.ss_family == AF_INET) ((struct sockaddr_in *)&address)->sin_port = 0;
  int fd = socket(info->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  bool is = fd >= 0 && bind(fd, (struct sockaddr *)&address, info->ai_addrlen) == 0;
  if (fd >= 0) close(fd);
  return is;
}

bool listens_at(const char *endpoint, const char *address) {
  const char *rest = strstr(endpoint, "://");
  struct addrinfo *theirs = addresses_of(rest ? rest + 3 : endpoint, 0), *ours = addresses_of(address, AI_PASSIVE);
  bool same = false;
  for (const struct addrinfo *a = theirs; a && !same; a = a->ai_next) {
    for (const struct addrinfo *b = ours; b && !same; b = b->ai_next) {
      if (port_in(a->ai_addr) != port_in(b->ai_addr)) continue;
      bool equal = a->ai_addrlen == b->ai_addrlen && memcmp(a->ai_addr, b->ai_addr, a->ai_addrlen) == 0;
      same = equal || ((is_any(a->ai_addr) || is_any(b->ai_addr)) && is_of_this_machine(a));
    }
  }
  if (theirs) freeaddrinfo(theirs);
  if (ours) freeaddrinfo(ours);
  return same;
}

/* ---- accepting ---- */

/* Descriptors are given out from the lowest: this one tells how many are in use. */
static bool leaves_too_few(int fd) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY) return false;
  rlim_t kept = limit.rlim_cur / KEPT_SHARE < KEPT_FREE ? limit.rlim_cur / KEPT_SHARE : KEPT_FREE;
  return (rlim_t)fd >= limit.rlim_cur - kept;
}

static void say_full(struct acceptor *acceptor, const char *why) {
  int64_t now = monotonic_ns() / NS_PER_MS;
  if (acceptor->said_at && now - acceptor->said_at < SAY_EACH_MS) return;
  acceptor->said_at = now;
  log_say(MC_LOG_WARN, "connections to the control plane are refused: %s; raise the limit of open files", why);
}

/* All that wait now. false: the next try needs a pause. */
static bool accept_all(struct acceptor *acceptor) {
  int on = 1;
  for (;;) {
    int fd = accept4(acceptor->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0 && errno == EAGAIN) return true;
    if (fd < 0) {
      say_full(acceptor, strerror(errno));
      return false;
    }
    if (leaves_too_few(fd)) {
      close(fd);
      say_full(acceptor, "nearly all descriptors are in use");
      continue;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    acceptor->take(acceptor->user, fd);
  }
}

static void *acceptor_main(void *arg) {
  struct acceptor *acceptor = arg;
  struct pollfd fds[2] = {{.fd = acceptor->wake, .events = POLLIN}, {.fd = acceptor->listener, .events = POLLIN}};
  bool pause = false;
  for (;;) {
    poll(fds, pause ? 1 : 2, pause ? PAUSE_MS : -1);
    if (fds[0].revents) return NULL;
    pause = !accept_all(acceptor);
  }
}

mc_status acceptor_start(struct acceptor **out, int listener, void (*take)(void *user, int fd), void *user,
                         mc_error *err) {
  struct acceptor *acceptor = calloc(1, sizeof(*acceptor));
  if (!acceptor) return mc_error_set(err, MC_NO_MEMORY, "listen", "no memory for a listener");
  *acceptor = (struct acceptor){.listener = listener, .take = take, .user = user, .wake = eventfd(0, EFD_CLOEXEC)};
  int error = acceptor->wake < 0 ? errno : pthread_create(&acceptor->thread, NULL, acceptor_main, acceptor);
  if (error) {
    if (acceptor->wake >= 0) close(acceptor->wake);
    free(acceptor);
    return mc_error_errno(err, error, "listen", "can't start a listener");
  }
  *out = acceptor;
  return MC_OK;
}

void acceptor_stop(struct acceptor *acceptor) {
  if (!acceptor) return;
  uint64_t one = 1;
  while (write(acceptor->wake, &one, sizeof(one)) < 0 && errno == EINTR) continue;
  pthread_join(acceptor->thread, NULL);
  close(acceptor->wake);
  close(acceptor->listener);
  free(acceptor);
}
