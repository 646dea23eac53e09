/* Where Redis is, and how one enters: what the option `coordination` says. */
#ifndef REDIS_ADDRESS_H
#define REDIS_ADDRESS_H

#include <stdint.h>

#include "base/net.h"
#include <modelcache/types.h>

#define REDIS_MAX_HOSTS  16
#define REDIS_TEXT_SIZE  512 /* of a user's name, a password, a prefix */
#define REDIS_PATH_SIZE  1024
#define REDIS_WHERE_SIZE (HOST_SIZE + 8)

struct redis_host {
  char host[HOST_SIZE];
  uint16_t port;
};

struct redis_address {
  bool tls;
  char path[REDIS_PATH_SIZE]; /* of a Unix socket; "": TCP */
  struct redis_host hosts[REDIS_MAX_HOSTS];
  size_t host_count;
  char master[REDIS_TEXT_SIZE]; /* the hosts are Sentinels, and know where what has this name is; "": it's the one host
                                 */
  uint32_t db;
  char user[REDIS_TEXT_SIZE], password[REDIS_TEXT_SIZE]; /* "": none */
  char password_file[REDIS_PATH_SIZE], sentinel_password_file[REDIS_PATH_SIZE];
  char prefix[REDIS_TEXT_SIZE]; /* of every key and channel */
  char ca_file[REDIS_PATH_SIZE], cert_file[REDIS_PATH_SIZE], key_file[REDIS_PATH_SIZE];
};

/* "redis://[USER[:PASSWORD]@]HOST[:PORT][/DB][?OPTIONS]", "rediss://…",
 * "redis+unix://[USER[:PASSWORD]@]/PATH[?OPTIONS]",
 * "redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]…]/MASTER[/DB][?OPTIONS]". MC_INVALID_ARGUMENT, and
 * nothing of the text in the message, which may be a secret. */
mc_status redis_address_parse(struct redis_address *out, const char *text, mc_error *err);
void redis_address_wipe(struct redis_address *address);

#endif
