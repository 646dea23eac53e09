/* News: what other members of a shared coordination do, and the times in which they could not be heard. */
#ifndef ENGINE_NEWS_H
#define ENGINE_NEWS_H

#include "engine/engine.h"

struct news;

mc_status news_new(struct news **out, struct mc_cache *cache, mc_error *err);
/* Nothing is told any more. NULL is fine, here and below. */
void news_free(struct news *news);

/* For mc_coordination_config: `user` is the news. */
void news_hear(void *user, const mc_coordination_event *event);
/* The engine runs: what is to be done is done by its jobs from now on; and that ends, soon. */
void news_start(struct news *news);
void news_stop(struct news *news);
/* The clock's work: begin what is due. */
void news_tick(struct news *news, int64_t now);
/* Whether the coordination may know less of a URL than its record does. */
bool news_in_doubt(const struct news *news);

#endif
