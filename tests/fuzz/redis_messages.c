/* Any bytes as what comes from Redis: of a download, of a change, of a claim. What can be read can be written again. */
#include "backends/coordination/redis/messages.h"
#include "base/hash.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data;
  struct flight_message flight;
  struct change_message change;
  mc_claim_news news, again;
  if (flight_message_decode(&flight, text, size)) CHECK(flight.token && flight.ms >= 0);
  if (change_message_decode(&change, text, size)) {
    CHECK(change.before || change.now);
    CHECK(memchr(change.by, 0, sizeof(change.by)));
    const mc_entry *any = change.now ? change.now : change.before;
    CHECK(any->has_digest || any->missing);
  } else {
    CHECK(!change.before && !change.now);
  }
  free(change.before);
  free(change.now);
  if (claim_news_decode(&news, text, size)) {
    char *encoded = claim_news_encode(&news);
    CHECK(encoded && claim_news_decode(&again, encoded, strlen(encoded)));
    CHECK(again.bytes == news.bytes && again.total == news.total && strcmp(again.endpoint, news.endpoint) == 0);
    CHECK(memcmp(again.flight, news.flight, sizeof(news.flight)) == 0);
    free(encoded);
  }
  return 0;
}
