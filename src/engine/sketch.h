/* How often each object was got lately, about: in a fixed amount of memory, however many objects there are.
 *
 * A count-min sketch of 4-bit counters, whose estimates are never too low but for what was forgotten: all are halved
 * now and then, so that what was got long ago counts for less. See Einziger, Friedman, Manes: TinyLFU: A Highly
 * Efficient Cache Admission Policy, ACM Transactions on Storage 13(4), 2017. */
#ifndef ENGINE_SKETCH_H
#define ENGINE_SKETCH_H

#include <modelcache/types.h>

struct sketch;

struct sketch *sketch_new(void); /* NULL: no memory */
void sketch_free(struct sketch *sketch);
/* One more get. Halves all after so many of them that the counters would say little. */
void sketch_add(struct sketch *sketch, const mc_digest *digest);
/* How many there were: at most 15. */
unsigned sketch_count(const struct sketch *sketch, const mc_digest *digest);
/* Halve all. */
void sketch_age(struct sketch *sketch);

#endif
