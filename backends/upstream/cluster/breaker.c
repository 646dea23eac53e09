#include "breaker.h"

#include "base/clock.h"
#include "base/io.h"

#define FIRST_DOWN_MS 250
#define MOST_DOWN_MS  5000 /* so soon is it used again when it is back */
#define COST_FACTOR   4    /* left alone for this many times what the failure took */

void breaker_init(struct breaker *breaker) {
  *breaker = (struct breaker){.state = BREAKER_UP};
}

enum breaker_state breaker_admit(struct breaker *breaker, int64_t *wait_ms) {
  int64_t now = clock_ns();
  *wait_ms = 0;
  if (breaker->state == BREAKER_UP) return BREAKER_UP;
  if (breaker->state == BREAKER_PROBING) return BREAKER_DOWN;
  if (now < breaker->retry_at) {
    *wait_ms = (breaker->retry_at - now) / NS_PER_MS + 1;
    return BREAKER_DOWN;
  }
  breaker->state = BREAKER_PROBING;
  return BREAKER_PROBING;
}

bool breaker_succeeded(struct breaker *breaker) {
  bool news = breaker->state != BREAKER_UP;
  breaker_init(breaker);
  return news;
}

static int64_t jittered(int64_t ms) {
  uint32_t random;
  random_bytes(&random, sizeof(random));
  return ms * (75 + random % 51) / 100;
}

bool breaker_failed(struct breaker *breaker, int64_t began, unsigned most, int64_t most_ms) {
  int64_t now = clock_ns();
  bool was_up = breaker->state == BREAKER_UP;
  if (breaker->state == BREAKER_DOWN) return false; /* a call that was under way when it went down */
  if (was_up && breaker->failures && began < breaker->counted_at) return false;
  breaker->counted_at = now;
  if (!breaker->failures) breaker->since = began;
  if (was_up && (breaker->failures++ < most || now - breaker->since < most_ms * NS_PER_MS)) return false;
  int64_t down_ms = breaker->down_ms ? breaker->down_ms : FIRST_DOWN_MS;
  int64_t cost_ms = (now - began) / NS_PER_MS * COST_FACTOR;
  int64_t pause_ms = cost_ms > down_ms ? cost_ms : down_ms;
  breaker->state = BREAKER_DOWN;
  breaker->retry_at = now + jittered(pause_ms < MOST_DOWN_MS ? pause_ms : MOST_DOWN_MS) * NS_PER_MS;
  breaker->down_ms = down_ms * 2 < MOST_DOWN_MS ? down_ms * 2 : MOST_DOWN_MS;
  return was_up;
}

void breaker_undecided(struct breaker *breaker) {
  if (breaker->state != BREAKER_PROBING) return;
  breaker->state = BREAKER_DOWN;
  breaker->retry_at = clock_ns();
}
