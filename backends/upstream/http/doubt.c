#include "doubt.h"

#include <string.h>

#include "base/clock.h"
#include "base/hash.h"

#define DOUBT_MS 600000

void doubts_init(struct doubts *doubts) {
  pthread_mutex_init(&doubts->lock, NULL);
}

void doubts_end(struct doubts *doubts) {
  pthread_mutex_destroy(&doubts->lock);
}

struct doubt doubts_about(struct doubts *doubts, const char *url) {
  struct doubt found = {0};
  mc_hash128 key;
  xxh128_of(&key, url, strlen(url));
  int64_t now = clock_ns();
  pthread_mutex_lock(&doubts->lock);
  for (unsigned i = 0; i < DOUBTS; i++) {
    const struct doubt *doubt = &doubts->places[i];
    if (doubt->until >= now && hash128_equal(&doubt->url, &key)) found = *doubt;
  }
  pthread_mutex_unlock(&doubts->lock);
  return found;
}

void doubts_add(struct doubts *doubts, const char *url, bool ranges) {
  mc_hash128 key;
  struct doubt *place = NULL;
  int64_t now = clock_ns();
  xxh128_of(&key, url, strlen(url));
  pthread_mutex_lock(&doubts->lock);
  for (unsigned i = 0; i < DOUBTS && !place; i++) {
    if (hash128_equal(&doubts->places[i].url, &key)) place = &doubts->places[i];
  }
  bool known = place && place->until >= now;
  if (!place) place = &doubts->places[doubts->next++ % DOUBTS];
  *place = (struct doubt){key, now + DOUBT_MS * NS_PER_MS, true, ranges || (known && place->ranges)};
  pthread_mutex_unlock(&doubts->lock);
}
