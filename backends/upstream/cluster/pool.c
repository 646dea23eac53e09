#include "pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"
#include "breaker.h"

#define ORIGIN       "cluster"

#define MAX_IDLE     64
#define MAX_IDLE_AGE (30 * NS_PER_S)
#define MAX_TROUBLES 64   /* endpoints whose failures are remembered */
#define PROBE_MS     2000 /* one that is left alone is not waited for as long as others are */

struct idle {
  mc_connection *connection;
  int64_t since;
  struct idle *prev, *next;
  char endpoint[];
};

/* An endpoint that can't be connected to. */
struct trouble {
  struct breaker breaker;
  struct trouble *prev, *next;
  char endpoint[];
};

struct pool {
  const mc_logger *logger;
  unsigned retries;
  int64_t patience_ms;
  pthread_mutex_t lock; /* a leaf */
  struct idle *idle;    /* the last used first */
  size_t idle_count;
  struct trouble *troubles; /* the oldest first */
  size_t trouble_count;
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

/* ---- endpoints in trouble: with the lock held ---- */

static struct trouble *find_trouble(struct pool *pool, const char *endpoint) {
  struct trouble *trouble;
  DL_FOREACH(pool->troubles, trouble) {
    if (strcmp(trouble->endpoint, endpoint) == 0) break;
  }
  return trouble;
}

static void drop_trouble(struct pool *pool, struct trouble *trouble) {
  DL_DELETE(pool->troubles, trouble);
  pool->trouble_count--;
  free(trouble);
}

/* The one that is there, or a new one; NULL: no memory, so it is not remembered. */
static struct trouble *add_trouble(struct pool *pool, const char *endpoint) {
  struct trouble *trouble = find_trouble(pool, endpoint);
  size_t size = strlen(endpoint) + 1;
  if (trouble || !(trouble = malloc(sizeof(*trouble) + size))) return trouble;
  if (pool->trouble_count == MAX_TROUBLES) drop_trouble(pool, pool->troubles);
  breaker_init(&trouble->breaker);
  memcpy(trouble->endpoint, endpoint, size);
  DL_APPEND(pool->troubles, trouble);
  pool->trouble_count++;
  return trouble;
}

/* ---- the pool ---- */

mc_status pool_new(struct pool **out, const mc_upstream_config *config, int64_t patience_ms, mc_error *err) {
  struct pool *pool = calloc(1, sizeof(*pool) + config->transport_count * sizeof(*config->transports));
  if (!pool) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a pool of connections");
  for (size_t i = 0; i < config->transport_count; i++) pool->transports[i] = config->transports[i];
  pool->transport_count = config->transport_count;
  pool->logger = config->logger;
  pool->retries = config->retries;
  pool->patience_ms = patience_ms;
  pthread_mutex_init(&pool->lock, NULL);
  *out = pool;
  return MC_OK;
}

void pool_free(struct pool *pool) {
  if (!pool) return;
  end_all(pool->idle);
  while (pool->troubles) drop_trouble(pool, pool->troubles);
  pthread_mutex_destroy(&pool->lock);
  free(pool);
}

bool pool_reaches(const struct pool *pool, const char *endpoint) {
  return transport_of(pool, endpoint) != NULL;
}

bool pool_shuns(struct pool *pool, const char *endpoint) {
  pthread_mutex_lock(&pool->lock);
  const struct trouble *trouble = find_trouble(pool, endpoint);
  bool shuns = trouble && trouble->breaker.state == BREAKER_DOWN && clock_ns() < trouble->breaker.retry_at;
  pthread_mutex_unlock(&pool->lock);
  return shuns;
}

static void report_up(struct pool *pool, const char *endpoint) {
  bool news = false;
  pthread_mutex_lock(&pool->lock);
  struct trouble *trouble = find_trouble(pool, endpoint);
  if (trouble) {
    news = breaker_succeeded(&trouble->breaker);
    drop_trouble(pool, trouble);
  }
  pthread_mutex_unlock(&pool->lock);
  if (news) log_info(pool->logger, ORIGIN, "%s can be reached again", endpoint);
}

static void report_down(struct pool *pool, const char *endpoint, int64_t began, const char *why) {
  pthread_mutex_lock(&pool->lock);
  struct trouble *trouble = add_trouble(pool, endpoint);
  bool news = trouble && breaker_failed(&trouble->breaker, began, pool->retries, pool->patience_ms);
  pthread_mutex_unlock(&pool->lock);
  if (news) log_warn(pool->logger, ORIGIN, "%s: %s; it counts as down until it can be reached", endpoint, why);
}

static void report_nothing(struct pool *pool, const char *endpoint) {
  pthread_mutex_lock(&pool->lock);
  struct trouble *trouble = find_trouble(pool, endpoint);
  if (trouble) breaker_undecided(&trouble->breaker);
  pthread_mutex_unlock(&pool->lock);
}

/* A new connection, unless the endpoint is left alone. */
static mc_status connect_to(mc_connection **out, struct pool *pool, const char *endpoint, const mc_call *call,
                            mc_error *err) {
  mc_transport *transport = transport_of(pool, endpoint);
  if (!transport) {
    return mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "no transport of this client reaches %.100s", endpoint);
  }
  int64_t wait_ms = 0, began = clock_ns();
  pthread_mutex_lock(&pool->lock);
  struct trouble *trouble = find_trouble(pool, endpoint);
  enum breaker_state state = trouble ? breaker_admit(&trouble->breaker, &wait_ms) : BREAKER_UP;
  pthread_mutex_unlock(&pool->lock);
  if (state == BREAKER_DOWN) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "%.100s is down; it is tried again in %lld ms", endpoint,
                        (long long)wait_ms);
  }
  mc_call limited = *call;
  if (state == BREAKER_PROBING) limited.deadline = deadline_earlier(call->deadline, deadline_in_ms(PROBE_MS));
  mc_error why = MC_ERROR_INIT;
  mc_status status = transport->ops->connect(transport, endpoint, out, &limited, &why);
  if (status == MC_DEADLINE_EXCEEDED && !mc_call_check(call, NULL)) {
    status = mc_error_set(&why, MC_UNAVAILABLE, ORIGIN, "%.100s does not answer", endpoint);
  }
  if (status == MC_OK) {
    report_up(pool, endpoint);
  } else if (status == MC_UNAVAILABLE) {
    report_down(pool, endpoint, began, why.message);
  } else {
    report_nothing(pool, endpoint);
  }
  if (status && err) *err = why;
  return status;
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
  return connect_to(out, pool, endpoint, call, err);
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
