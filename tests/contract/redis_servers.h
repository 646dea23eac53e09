/* Real Redis servers on free ports of 127.0.0.1, that end with this process, however it ends. */
#ifndef TESTS_REDIS_SERVERS_H
#define TESTS_REDIS_SERVERS_H

#include <stdbool.h>

/* Where a test finds one: all but Sentinel's are one server. */
enum redis_place {
  REDIS_TCP,
  REDIS_USER, /* with a user that may do what docs/redis.md says and no more, a password, a database */
  REDIS_SOCKET,
  REDIS_SENTINEL, /* a server that a Sentinel knows */
  REDIS_TLS,      /* if the library has it */
  REDIS_PLACES,
};

/* false: there is no redis-server on this machine. */
bool redis_servers_start(void);
void redis_servers_stop(void);
/* "": there is none. */
const char *redis_url(enum redis_place place);

/* Kill the server (not the Sentinel), and start it again: it has lost all. Stop it, as if its machine hung; and go on.
 */
void redis_kill(enum redis_place place);
void redis_restart(enum redis_place place);
void redis_pause(enum redis_place place);
void redis_resume(enum redis_place place);
/* A command of words that end with a NULL, by the one who may do all, in the place's database. Its reply as a text: of
 * a list nothing. */
void redis_do(enum redis_place place, char *reply, unsigned size, const char *const *words);

/* All commands that are sent to the server, from now on; how many there were that have this word in them. */
void redis_monitor_start(enum redis_place place);
unsigned redis_monitor_count(enum redis_place place, const char *word, unsigned *all);

#endif
