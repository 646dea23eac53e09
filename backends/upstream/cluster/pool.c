#include "pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"

#define ORIGIN       "cluster"

#define MAX_IDLE     64
#define MAX_IDLE_AGE (30 * NS_PER_S)

struct idle {
  mc_connection *connection;
  int64_t since;
  struct idle *prev, *next;
  char endpoint[];
};

struct pool {
  pthread_mutex_t lock; /* a leaf */
  struct idle *idle;    /* the last used first */
  size_t idle_count;
  size_t transport_count;
  mc_transport *transports[];
};

static mc_transport *transport_of(const struct pool *pool, const char *endpoint) {
  size_t length = strcspn(endpoint, ":");
  if (strncmp(endpoint + length, "://", 3) != 0) return NULL;
  for (size_t i = 0; i < pool->transport_count; i++) {
    const char *name = pool->transports[i]->ops->name;
    if (strlen(name) == length && strncmp(name, endpoint, length) == 0) return pool->transports[i];
  }
  return NULL;
}

static void disconnect(mc_connection *connection) {
  connection->transport->ops->disconnect(connection);
}

static void end_all(struct idle *list) {
  struct idle *idle, *next;
  DL_FOREACH_SAFE(list, idle, next) {
    DL_DELETE(list, idle);
    disconnect(idle->connection);
    free(idle);
  }
}

mc_status pool_new(struct pool **out, mc_transport *const *transports, size_t count, mc_error *err) {
  struct pool *pool = calloc(1, sizeof(*pool) + count * sizeof(*transports));
  if (!pool) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a pool of connections");
  for (size_t i = 0; i < count; i++) pool->transports[i] = transports[i];
  pool->transport_count = count;
  pthread_mutex_init(&pool->lock, NULL);
  *out = pool;
  return MC_OK;
}

void pool_free(struct pool *pool) {
  if (!pool) return;
  end_all(pool->idle);
  pthread_mutex_destroy(&pool->lock);
  free(pool);
}

bool pool_reaches(const struct pool *pool, const char *endpoint) {
  return transport_of(pool, endpoint) != NULL;
}

static void take_out(struct pool *pool, struct idle **to, struct idle *idle) {
  DL_DELETE(pool->idle, idle);
  pool->idle_count--;
  DL_APPEND(*to, idle);
}

/* With the lock held: move to `old` what has been idle for too long. */
static void take_old(struct pool *pool, struct idle **old) {
  while (pool->idle) {
    struct idle *last = pool->idle->prev;
    if (pool->idle_count <= MAX_IDLE && clock_ns() - last->since < MAX_IDLE_AGE) break;
    take_out(pool, old, last);
  }
}

mc_status pool_take(mc_connection **out, bool *kept, struct pool *pool, const char *endpoint, const mc_call *call,
                    mc_error *err) {
  struct idle *old = NULL, *taken = NULL, *idle;
  pthread_mutex_lock(&pool->lock);
  take_old(pool, &old);
  DL_FOREACH(pool->idle, idle) {
    if (strcmp(idle->endpoint, endpoint) == 0) break;
  }
  if (idle) take_out(pool, &taken, idle);
  pthread_mutex_unlock(&pool->lock);
  end_all(old);
  *kept = taken != NULL;
  if (taken) {
    *out = taken->connection;
    free(taken);
    return MC_OK;
  }
  mc_transport *transport = transport_of(pool, endpoint);
  if (!transport) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "no transport of this client reaches %.100s", endpoint);
  }
  return transport->ops->connect(transport, endpoint, out, call, err);
}

void pool_give(struct pool *pool, const char *endpoint, mc_connection *connection) {
  size_t size = strlen(endpoint) + 1;
  struct idle *idle = malloc(sizeof(*idle) + size), *old = NULL;
  if (!idle) {
    disconnect(connection);
    return;
  }
  idle->connection = connection;
  idle->since = clock_ns();
  memcpy(idle->endpoint, endpoint, size);
  pthread_mutex_lock(&pool->lock);
  DL_PREPEND(pool->idle, idle);
  pool->idle_count++;
  take_old(pool, &old);
  pthread_mutex_unlock(&pool->lock);
  end_all(old);
}

void pool_drop(struct pool *pool, const char *endpoint, mc_connection *connection, bool all) {
  struct idle *dropped = NULL, *idle, *next;
  disconnect(connection);
  if (!all) return;
  pthread_mutex_lock(&pool->lock);
  DL_FOREACH_SAFE(pool->idle, idle, next) {
    if (strcmp(idle->endpoint, endpoint) == 0) take_out(pool, &dropped, idle);
  }
  pthread_mutex_unlock(&pool->lock);
  end_all(dropped);
}
