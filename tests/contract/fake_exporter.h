/* An exporter for the tests of transports: contents in memory that land on demand, and everything is counted.
 *
 * The contents live as long as the exporter; a listener must be closed before it is freed. */
#ifndef TESTS_FAKE_EXPORTER_H
#define TESTS_FAKE_EXPORTER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <modelcache/backend/transport.h>

#define FAKE_CONTENTS 8

struct fake_watch {
  struct fake_watch *next;
  void (*wake)(void *arg);
  void *arg;
};

struct fake_content {
  struct fake_exporter *owner;
  mc_content content;
  int fd;
  uint8_t *data; /* `room` bytes, shared with fd */
  uint64_t room;
  uint64_t size;            /* MC_SIZE_UNKNOWN until fake_finish */
  uint64_t landed;          /* bytes that may be sent */
  bool failed;              /* `ready` fails from now on */
  mc_status suspect_status; /* what `suspect` answers */
  struct fake_watch *watches;
  /* Counted. */
  unsigned opens, closes, watched, suspects;
  uint64_t suspect_offset;
};

struct fake_exporter {
  mc_exporter exporter;
  pthread_mutex_t lock;
  pthread_cond_t changed; /* something was counted, or a wake is over */
  unsigned waking;        /* threads that call wakes now */
  uint64_t sent;
  unsigned count;
  struct fake_content contents[FAKE_CONTENTS];
};

void fake_init(struct fake_exporter *fake);
/* Also checks that each open was closed and that no watch was left. */
void fake_free(struct fake_exporter *fake);

/* A content of `size` bytes, all there, that no other content has. `kind` object or flight. */
struct fake_content *fake_add(struct fake_exporter *fake, mc_content_kind kind, uint64_t size);
/* A flight, of which nothing has landed; its size is not known before fake_finish when `unknown`. */
struct fake_content *fake_add_flight(struct fake_exporter *fake, uint64_t size, bool unknown);

/* These wake whoever watches. */
void fake_land(struct fake_content *content, uint64_t landed);
void fake_finish(struct fake_content *content);
void fake_fail(struct fake_content *content);

/* Wait until a counter of the content is at least so much. Fails the test after ten seconds. */
void fake_await_watched(struct fake_content *content, unsigned count);
void fake_await_closes(struct fake_content *content, unsigned count);
void fake_await_suspects(struct fake_content *content, unsigned count);

#endif
