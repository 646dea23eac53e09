/* TCP sockets with deadlines and cancellation. */
#ifndef BASE_NET_H
#define BASE_NET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <modelcache/types.h>

#define HOST_SIZE 256

/* Split "HOST:PORT", "[V6]:PORT", ":PORT" (host "" then). MC_INVALID_ARGUMENT names `what` and says the form. */
mc_status net_split(const char *address, char host[HOST_SIZE], uint16_t *port, const char *what, mc_error *err);
/* A listening, non-blocking socket; without a host, on all addresses of both families. */
mc_status net_listen(int *fd, const char *address, int backlog, const char *what, mc_error *err);
/* "HOST:PORT" of a socket's own end, with brackets round a v6 address. */
mc_status net_local_address(int fd, char *text, size_t size, mc_error *err);
/* A connected, non-blocking socket with TCP_NODELAY; each of the host's addresses is tried for `timeout_ms`.
 * MC_UNAVAILABLE, MC_DEADLINE_EXCEEDED, MC_CANCELLED. Looking a name up takes as long as the system's resolver likes.
 */
mc_status net_connect(int *fd, const char *host, uint16_t port, int64_t timeout_ms, const mc_call *call, mc_error *err);
/* Wait until fd has one of the poll `events`. `stall_ms` without: MC_UNAVAILABLE. */
mc_status net_wait(int fd, short events, int64_t stall_ms, const mc_call *call, const char *origin, mc_error *err);
/* Whether an address is link-local or one of the clouds' metadata services (169.254.0.0/16, fe80::/10, fd00:ec2::/32,
 * fd20:ce::254, 100.100.100.200, 168.63.129.16, 192.0.0.192, and the v4 ones inside v6: mapped, compatible, NAT64). */
bool net_is_link_local(const struct sockaddr *address);

#endif
