/* Transfers that wait for the system's resolver. Nothing ends getaddrinfo, so libcurl, which has it run in a thread,
 * can't end a transfer whose name is being looked up: it waits as long as the resolver likes, and does so at the end of
 * its own connect timeout, too. Who does not want to wait puts the transfer aside until the resolver has answered. */
#ifndef UPSTREAM_HTTP_ASIDE_H
#define UPSTREAM_HTTP_ASIDE_H

#include <curl/curl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct aside {
  pthread_mutex_t lock; /* a leaf */
  struct aside_transfer *list;
  unsigned count;
};

void aside_init(struct aside *aside);
/* Waits for the resolver: no thread of a transfer's is left. */
void aside_end(struct aside *aside);
/* Take over a transfer that aside_is_due said so of, and never call what its options name. Waits only when very many
 * wait already. */
void aside_put(struct aside *aside, CURL *easy, CURLM *multi);
/* Free those that the resolver has answered. */
void aside_tend(struct aside *aside);
/* Whether a transfer that was performed has a name looked up. `connects`: CURLOPT_OPENSOCKETFUNCTION was called. */
bool aside_is_due(CURL *easy, bool connects);
/* What to set CURLOPT_CONNECTTIMEOUT_MS to, so that the caller, who has to look at the time himself, comes first. */
long aside_connect_timeout_ms(int64_t timeout_ms);

#endif
