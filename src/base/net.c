#include "base/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

mc_status net_split(const char *address, char host[HOST_SIZE], uint16_t *port, const char *what, mc_error *err) {
  const char *colon = strrchr(address, ':');
  const char *from = address, *to = colon;
  char *end = NULL;
  unsigned long number = colon && colon[1] >= '0' && colon[1] <= '9' ? strtoul(colon + 1, &end, 10) : 65536;
  bool good = colon && end && !*end && number <= 65535;
  if (good && *address == '[') {
    from++;
    to--;
    good = to > from && *to == ']';
  } else if (good) {
    good = memchr(from, ':', (size_t)(to - from)) == NULL;
  }
  good = good && (size_t)(to - from) < HOST_SIZE;
  if (!good) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, "net", "%s: '%.100s' is not HOST:PORT (or [IPV6]:PORT)", what,
                        address);
  }
  memcpy(host, from, (size_t)(to - from));
  host[to - from] = 0;
  *port = (uint16_t)number;
  return MC_OK;
}

/* getaddrinfo waits for the system's resolver as long as that likes: a call's deadline is looked at after it. */
static mc_status resolve(struct addrinfo **out, const char *host, uint16_t port, int flags, mc_error *err) {
  char service[8];
  snprintf(service, sizeof(service), "%u", port);
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
  int error = getaddrinfo(*host ? host : NULL, service, &hints, out);
  if (error) {
    return mc_error_set(err, MC_UNAVAILABLE, "net", "can't find the address of '%s': %s", host, gai_strerror(error));
  }
  return MC_OK;
}

/* A socket that listens at `at`, or -1 and errno. */
static int listen_at(const struct addrinfo *at, int backlog) {
  int one = 1, zero = 0;
  int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (at->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
  if (bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, backlog)) {
    int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

mc_status net_listen(int *out, const char *address, int backlog, const char *what, mc_error *err) {
  char host[HOST_SIZE];
  uint16_t port;
  mc_status status = net_split(address, host, &port, what, err);
  struct addrinfo *list = NULL;
  if (!status) status = resolve(&list, host, port, AI_PASSIVE, err);
  if (status) return status;
  /* Without a host: one v6 socket, which takes v4 connections too; v4 alone where there is no v6. */
  int fd = -1, error = EADDRNOTAVAIL, skip = *host ? AF_UNSPEC : AF_INET;
  for (int round = 0; round < 2 && fd < 0; round++) {
    for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
      if (at->ai_family == skip) continue;
      fd = listen_at(at, backlog);
      if (fd < 0) error = errno;
    }
    if (*host) break;
    skip = AF_INET6;
  }
  freeaddrinfo(list);
  if (fd < 0) return mc_error_errno(err, error, "net", "can't listen on %s for %s", address, what);
  *out = fd;
  return MC_OK;
}

mc_status net_local_address(int fd, char *text, size_t size, mc_error *err) {
  struct sockaddr_storage address;
  socklen_t length = sizeof(address);
  char host[INET6_ADDRSTRLEN] = "";
  if (getsockname(fd, (struct sockaddr *)&address, &length)) {
    return mc_error_errno(err, errno, "net", "can't tell a socket's address");
  }
  if (address.ss_family == AF_INET6) {
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
    snprintf(text, size, "[%s]:%u", host, ntohs(v6->sin6_port));
  } else {
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
    snprintf(text, size, "%s:%u", host, ntohs(v4->sin_port));
  }
  return MC_OK;
}

mc_status net_wait(int fd, short events, int64_t stall_ms, const mc_call *call, const char *origin, mc_error *err) {
  int64_t stalled = stall_ms > 0 ? deadline_in_ms(stall_ms) : INT64_MAX;
  for (;;) {
    mc_status status = mc_call_check(call, err);
    if (status) return status;
    struct pollfd fds[2] = {{.fd = fd, .events = events}, {.fd = mc_cancel_fd(call->cancel), .events = POLLIN}};
    int ready = poll(fds, 2, deadline_poll_ms(deadline_earlier(call->deadline, stalled)));
    if (ready < 0 && errno != EINTR) return mc_error_errno(err, errno, origin, "can't wait for a socket");
    if (ready > 0 && fds[0].revents) return MC_OK;
    if (ready == 0 && clock_ns() >= stalled) {
      return mc_error_set(err, MC_UNAVAILABLE, origin, "the peer has not moved a byte for %lld ms",
                          (long long)stall_ms);
    }
  }
}

static mc_status connect_one(int *out, const struct addrinfo *to, const char *host, uint16_t port, int64_t timeout_ms,
                             const mc_call *call, mc_error *err) {
  int one = 1, error = 0;
  socklen_t length = sizeof(error);
  int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return mc_error_errno(err, errno, "net", "can't make a socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  mc_status status = MC_OK;
  if (connect(fd, to->ai_addr, to->ai_addrlen)) {
    error = errno;
    if (error == EINPROGRESS) {
      status = net_wait(fd, POLLOUT, timeout_ms, call, "net", err);
      if (status == MC_UNAVAILABLE) {
        mc_error_set(err, status, "net", "no connection to %s:%u within %lld ms", host, port, (long long)timeout_ms);
      }
      if (!status && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length)) error = errno;
    }
    if (!status && error) status = mc_error_errno(err, error, "net", "can't connect to %s:%u", host, port);
    if (status && status != MC_CANCELLED && status != MC_DEADLINE_EXCEEDED) status = MC_UNAVAILABLE;
    if (status && err) err->status = status;
  }
  if (status) {
    close(fd);
  } else {
    *out = fd;
  }
  return status;
}

mc_status net_connect(int *fd, const char *host, uint16_t port, int64_t timeout_ms, const mc_call *call,
                      mc_error *err) {
  struct addrinfo *list = NULL;
  mc_status status = resolve(&list, host, port, 0, err);
  if (status) return status;
  status = mc_call_check(call, err);
  if (status) {
    freeaddrinfo(list);
    return status;
  }
  status = MC_UNAVAILABLE;
  for (struct addrinfo *at = list; at && status && status != MC_CANCELLED && status != MC_DEADLINE_EXCEEDED;
       at = at->ai_next) {
    status = connect_one(fd, at, host, port, timeout_ms, call, err);
  }
  freeaddrinfo(list);
  return status;
}

static bool v4_is_link_local(const uint8_t bytes[4]) {
  static const uint8_t services[][4] = {
      {100, 100, 100, 200}, /* Alibaba */
      {168, 63, 129, 16},   /* Azure's wire server */
      {192, 0, 0, 192},     /* Oracle */
  };
  if (bytes[0] == 169 && bytes[1] == 254) return true;
  for (size_t i = 0; i < sizeof(services) / sizeof(*services); i++) {
    if (memcmp(bytes, services[i], 4) == 0) return true;
  }
  return false;
}

bool net_is_link_local(const struct sockaddr *address) {
  static const uint8_t aws[] = {0xfd, 0, 0x0e, 0xc2};                          /* fd00:ec2::/32 */
  static const uint8_t gcp[16] = {0xfd, 0x20, 0, 0xce, [14] = 0x02, 0x54};     /* fd20:ce::254 */
  static const uint8_t mapped[12] = {[10] = 0xff, 0xff}, compatible[12] = {0}; /* ::ffff:a.b.c.d, ::a.b.c.d */
  static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};                      /* 64:ff9b::a.b.c.d */
  if (address->sa_family == AF_INET) {
    return v4_is_link_local((const uint8_t *)&((const struct sockaddr_in *)address)->sin_addr);
  }
  if (address->sa_family != AF_INET6) return false;
  const uint8_t *v6 = ((const struct sockaddr_in6 *)address)->sin6_addr.s6_addr;
  if (memcmp(v6, mapped, 12) == 0 || memcmp(v6, compatible, 12) == 0 || memcmp(v6, nat64, 12) == 0) {
    return v4_is_link_local(v6 + 12);
  }
  bool link_local = v6[0] == 0xfe && (v6[1] & 0xc0) == 0x80;
  return link_local || memcmp(v6, aws, sizeof(aws)) == 0 || memcmp(v6, gcp, sizeof(gcp)) == 0;
}
