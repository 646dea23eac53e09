#include "engine/sketch.h"

#include <stdlib.h>
#include <string.h>

#define ROWS   4
#define WIDTH  65536u /* counters of a row: two bytes of a digest choose one */
#define MOST   15u
#define SAMPLE (8 * WIDTH) /* gets, after which all are halved: more would fill the counters with each other's */

struct sketch {
  uint32_t added; /* since they were halved, about */
  uint8_t counters[ROWS][WIDTH / 2];
};

struct sketch *sketch_new(void) {
  return calloc(1, sizeof(struct sketch));
}

void sketch_free(struct sketch *sketch) {
  free(sketch);
}

/* A digest is as random as any hash of it would be. */
static unsigned place(const mc_digest *digest, unsigned row) {
  return (unsigned)digest->bytes[2 * row] << 8 | digest->bytes[2 * row + 1];
}

static unsigned value(const struct sketch *sketch, unsigned row, unsigned at) {
  return sketch->counters[row][at / 2] >> (at % 2 * 4) & MOST;
}

unsigned sketch_count(const struct sketch *sketch, const mc_digest *digest) {
  unsigned least = MOST;
  for (unsigned row = 0; row < ROWS; row++) {
    unsigned count = value(sketch, row, place(digest, row));
    if (count < least) least = count;
  }
  return least;
}

void sketch_add(struct sketch *sketch, const mc_digest *digest) {
  unsigned least = sketch_count(sketch, digest);
  for (unsigned row = 0; row < ROWS && least < MOST; row++) { /* what is higher counts others too */
    unsigned at = place(digest, row);
    if (value(sketch, row, at) == least) sketch->counters[row][at / 2] += (uint8_t)(1u << (at % 2 * 4));
  }
  if (++sketch->added >= SAMPLE) sketch_age(sketch);
}

void sketch_age(struct sketch *sketch) {
  uint8_t *counters = &sketch->counters[0][0];
  for (size_t i = 0; i < sizeof(sketch->counters); i++) counters[i] = counters[i] >> 1 & 0x77; /* two in a byte */
  sketch->added /= 2;
}
