/* What members tell each other through Redis, as JSON. What comes may be anything. */
#ifndef REDIS_MESSAGES_H
#define REDIS_MESSAGES_H

#include <modelcache/backend/coordination.h>

/* malloced; NULL: no memory. */
char *claim_news_encode(const mc_claim_news *news);
bool claim_news_decode(mc_claim_news *out, const char *data, size_t size);

/* On a flight's channel: of the claim `token`, that it is kept for `ms` (0: it has ended), and how it goes. */
struct flight_message {
  uint64_t token;
  int64_t ms;
  bool has_news;
  mc_claim_news news;
};
bool flight_message_decode(struct flight_message *out, const char *data, size_t size);

/* On the channel `news`: what was known of a URL, and is. The entries are malloced; NULL: nothing. */
struct change_message {
  char by[64];
  mc_entry *before, *now;
};
bool change_message_decode(struct change_message *out, const char *data, size_t size);

#endif
