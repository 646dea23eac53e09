/* Making a cache out of options and backends, and ending it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/origins.h"
#include "backends/builtin.h"
#include "base/io.h"
#include "engine/engine.h"
#include "engine/ledger.h"
#include "engine/member.h"
#include "engine/news.h"
#include "engine/refresh.h"

/* ---- finding backends ---- */

#define FIND(kind, type)                                                                                               \
  static const type *find_##kind(const type *const *own, const type *const *builtin, const char *wanted) {             \
    for (size_t i = 0; own && own[i]; i++) {                                                                           \
      if (strcmp(own[i]->name, wanted) == 0) return own[i];                                                            \
    }                                                                                                                  \
    for (size_t i = 0; builtin[i]; i++) {                                                                              \
      if (strcmp(builtin[i]->name, wanted) == 0) return builtin[i];                                                    \
    }                                                                                                                  \
    return NULL;                                                                                                       \
  }
FIND(storage, mc_storage_ops)
FIND(coordination, mc_coordination_ops)

static mc_status bad_backend(mc_error *err, const char *kind, const char *name) {
  return mc_error_set(err, MC_UNSUPPORTED, "open",
                      "the %s backend '%s' lacks a required op, or is made for another version of this library", kind,
                      name ? name : "?");
}

static mc_status check_storage(const mc_storage_ops *ops, mc_error *err) {
  bool base = ops->abi == MC_STORAGE_ABI && ops->name && ops->open && ops->close && ops->open_object &&
              ops->read_meta && ops->remove_object && ops->scan && ops->stage_create && ops->stage_resize &&
              ops->stage_commit && ops->stage_close;
  bool all = ops->stage_resume && ops->stage_append && ops->stage_journal && ops->restage && ops->record_put &&
             ops->record_get && ops->record_remove && ops->record_scan;
  bool none = !ops->stage_resume && !ops->stage_append && !ops->stage_journal && !ops->restage && !ops->record_put &&
              !ops->record_get && !ops->record_remove && !ops->record_scan && !ops->stage_record;
  bool fits = ops->flags & MC_STORAGE_PERSISTENT ? all : none;
  return base && fits ? MC_OK : bad_backend(err, "storage", ops->name);
}

static mc_status check_upstream(const mc_upstream_ops *ops, mc_error *err) {
  bool base = ops->abi == MC_UPSTREAM_ABI && ops->name && ops->schemes && ops->open && ops->close && ops->stat &&
              ops->source_open && ops->source_read && ops->source_close;
  bool is_cache = ops->flags & MC_UPSTREAM_CACHE;
  return base && is_cache == (ops->cache != NULL) ? MC_OK : bad_backend(err, "upstream", ops->name);
}

static mc_status check_coordination(const mc_coordination_ops *ops, mc_error *err) {
  bool base = ops->abi == MC_COORDINATION_ABI && ops->name && ops->open && ops->close && ops->lookup && ops->claim &&
              ops->renew && ops->publish && ops->abandon && ops->wait && ops->forget && ops->list;
  bool all = ops->present && ops->members && ops->hold && ops->filled;
  bool none = !ops->present && !ops->members && !ops->hold && !ops->filled;
  bool fits = ops->flags & MC_COORDINATION_SHARED ? all : none;
  return base && fits ? MC_OK : bad_backend(err, "coordination", ops->name);
}

static mc_status check_transport(const mc_transport_ops *ops, mc_error *err) {
  bool base = ops->abi == MC_TRANSPORT_ABI && ops->name && ops->open && ops->close && ops->connect && ops->read &&
              ops->disconnect;
  bool listens = ops->listen && ops->listener_endpoint && ops->listener_connections && ops->listener_close;
  return base && (listens || !ops->listen) ? MC_OK : bad_backend(err, "transport", ops->name);
}

/* ---- tiers ---- */

static void count_evicted(void *user, uint64_t objects, uint64_t bytes) {
  struct mc_cache *cache = user;
  stat_add(cache, STAT_EVICTED_OBJECTS, objects);
  stat_add(cache, STAT_EVICTED_BYTES, bytes);
  member_kick(cache->member); /* it may have been known to be in memory */
}

static mc_status add_tier(struct mc_cache *cache, const char *name, const char *location, uint64_t capacity,
                          int64_t ttl_ms, bool copies, mc_error *err) {
  const mc_storage_ops *ops = find_storage(cache->options.storage_backends, builtin_storages, name);
  if (!ops) return mc_error_set(err, MC_UNSUPPORTED, "open", "no storage backend is named '%s'", name);
  mc_status status = check_storage(ops, err);
  if (status) return status;
  bool durable = cache->options.durable == MC_DURABLE_ON ||
                 (cache->options.durable == MC_DURABLE_AUTO && !cache->options.endpoint);
  mc_storage_config config = {.struct_size = sizeof(config),
                              .location = location,
                              .durable = durable,
                              .huge_pages = cache->options.memory_huge_pages,
                              .logger = cache->logger,
                              .orphan_ms = cache->options.lease_ms};
  mc_storage *storage = NULL;
  status = ops->open(&storage, &config, err);
  if (status) return status;
  struct tier_config tier = {.capacity = capacity,
                             .high = cache->options.high_watermark,
                             /* In memory no more goes than must: what would go for another object is weighed. */
                             .low = copies ? cache->options.high_watermark : cache->options.low_watermark,
                             .ttl_ms = ttl_ms,
                             .keep_ms = cache->options.history_ms,
                             .copies = copies,
                             .evicted = count_evicted,
                             .user = cache,
                             .logger = cache->logger};
  status = tier_new(&cache->tiers[cache->tier_count], storage, &tier, err);
  if (status) {
    ops->close(storage);
    return status;
  }
  cache->home = cache->tiers[cache->tier_count++];
  return MC_OK;
}

/* "posix:/folder" or "/folder"; a custom backend by its name: "name:location". */
static mc_status open_tiers(struct mc_cache *cache, mc_error *err) {
  const mc_options *options = &cache->options;
  const char *location = options->storage;
  char name[32] = "posix";
  mc_status status = MC_OK;
  bool keeps = strcmp(location, "none") != 0;
  if (options->memory_capacity) {
    status = add_tier(cache, "memory", NULL, options->memory_capacity, options->memory_ttl_ms, keeps, err);
  }
  if (status || !keeps) return status;
  const char *colon = location[0] == '/' || location[0] == '.' ? NULL : strchr(location, ':');
  if (colon) {
    if ((size_t)(colon - location) >= sizeof(name)) {
      return mc_error_set(err, MC_UNSUPPORTED, "open", "no storage backend has such a long name");
    }
    snprintf(name, sizeof(name), "%.*s", (int)(colon - location), location);
    location = colon + 1;
  }
  status = add_tier(cache, name, location, options->storage_capacity, options->storage_ttl_ms, false, err);
  if (!status && tier_storage(cache->home)->ops->object_path) cache->folder = location; /* its objects are files */
  return status;
}

/* ---- upstreams, transports, coordination ---- */

static mc_status add_upstream(struct mc_cache *cache, const mc_upstream_ops *ops, const char *endpoint, mc_error *err) {
  if (cache->upstream_count == MAX_UPSTREAMS) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, "open", "more than %d upstreams", MAX_UPSTREAMS);
  }
  mc_status status = check_upstream(ops, err);
  if (status) return status;
  mc_upstream_config config = {.struct_size = sizeof(config),
                               .endpoint = endpoint,
                               .connect_timeout_ms = cache->options.connect_timeout_ms,
                               .stall_timeout_ms = cache->options.stall_timeout_ms,
                               .retries = cache->options.retries,
                               .allow_link_local = cache->options.allow_link_local,
                               .user_agent = "modelcache/0.1.0",
                               .logger = cache->logger,
                               .transports = cache->transports,
                               .transport_count = cache->transport_count,
                               .schemes = cache->options.schemes,
                               .origins = cache->options.origins,
                               .origin_count = cache->options.origin_count,
                               .credentials = cache->options.credentials,
                               .credentials_count = cache->options.credentials_count};
  status = ops->open(&cache->upstreams[cache->upstream_count], &config, err);
  if (!status) cache->upstream_count++;
  return status;
}

static mc_status open_transport(struct mc_cache *cache, const mc_transport_ops *ops, mc_error *err) {
  if (cache->transport_count == MAX_TRANSPORTS) {
    return mc_error_set(err, MC_RESOURCE_EXHAUSTED, "open", "more than %d transports", MAX_TRANSPORTS);
  }
  mc_status status = check_transport(ops, err);
  if (status) return status;
  mc_transport_config config = {.struct_size = sizeof(config),
                                .connect_timeout_ms = cache->options.connect_timeout_ms,
                                .stall_timeout_ms = cache->options.stall_timeout_ms,
                                .logger = cache->logger};
  status = ops->open(&cache->transports[cache->transport_count], &config, err);
  if (!status) cache->transport_count++;
  return status;
}

static const char *endpoint_address(const char *endpoint) {
  static const char scheme[] = "modelcache://";
  return strncmp(endpoint, scheme, sizeof(scheme) - 1) == 0 ? endpoint + sizeof(scheme) - 1 : endpoint;
}

static mc_status open_upstreams(struct mc_cache *cache, mc_error *err) {
  const mc_options *options = &cache->options;
  mc_status status = MC_OK;
  for (size_t i = 0; options->transport_backends && options->transport_backends[i] && !status; i++) {
    status = open_transport(cache, options->transport_backends[i], err);
  }
  for (size_t i = 0; builtin_transports[i] && !status; i++) status = open_transport(cache, builtin_transports[i], err);
  for (size_t i = 0; options->upstream_backends && options->upstream_backends[i] && !status; i++) {
    status = add_upstream(cache, options->upstream_backends[i], NULL, err);
  }
  for (size_t i = 0; builtin_upstreams[i] && !status; i++) {
    bool is_cache = builtin_upstreams[i]->flags & MC_UPSTREAM_CACHE;
    if (is_cache && !options->endpoint) continue;
    status = add_upstream(cache, builtin_upstreams[i], is_cache ? endpoint_address(options->endpoint) : NULL, err);
    if (is_cache && !status) cache->client = true;
  }
  return status;
}

/* A name that is mistyped would only show when a URL is refused. */
static mc_status check_schemes(const struct mc_cache *cache, mc_error *err) {
  char name[64], known[256];
  for (const char *at = cache->options.schemes; *(at += strspn(at, ", "));) {
    int size = (int)strcspn(at, ", ");
    snprintf(name, sizeof(name), "%.*s", size, at);
    if (!route_schemes(known, sizeof(known), cache, name)) {
      return mc_error_set(err, MC_INVALID_ARGUMENT, "open", "schemes: there is no scheme '%s'; there is: %s", name,
                          known);
    }
    at += size;
  }
  return MC_OK;
}

/* Nothing behind a ':' is shown: it may hold a password. */
static mc_status no_coordination(const char *wanted, bool is_redis, mc_error *err) {
  bool built = find_coordination(NULL, builtin_coordinations, "redis");
  if (is_redis) {
    return mc_error_set(err, MC_UNSUPPORTED, "open",
                        "coordination: redis:// is not built in (hiredis was missing); there is: local");
  }
  return mc_error_set(err, MC_UNSUPPORTED, "open", "no coordination is named '%.*s'; there is: local%s",
                      (int)strcspn(wanted, ":"), wanted, built ? ", redis://HOST" : "");
}

static bool is_redis_url(const char *text) {
  static const char *const schemes[] = {"redis://", "rediss://", "redis+unix://", "redis+sentinel://"};
  for (size_t i = 0; i < sizeof(schemes) / sizeof(*schemes); i++) {
    if (strncmp(text, schemes[i], strlen(schemes[i])) == 0) return true;
  }
  return false;
}

static mc_status open_coordination(struct mc_cache *cache, mc_error *err) {
  const char *wanted = cache->options.coordination;
  bool is_redis = is_redis_url(wanted);
  const mc_coordination_ops *ops =
      find_coordination(cache->options.coordination_backends, builtin_coordinations, is_redis ? "redis" : wanted);
  if (!ops) return no_coordination(wanted, is_redis, err);
  mc_status status = check_coordination(ops, err);
  if (!status && cache->home) status = ledger_new(&cache->ledger, cache->home, err);
  if (!status && ops->flags & MC_COORDINATION_SHARED) {
    if (cache->home) tier_share(cache->home);
    status = news_new(&cache->news, cache, err); /* events may come before `open` has returned */
  }
  if (status) return status;
  owner_name(cache->id);
  mc_coordination_config config = {.struct_size = sizeof(config),
                                   .location = is_redis ? wanted : NULL,
                                   .member_id = cache->id,
                                   .lease_ms = cache->options.lease_ms,
                                   .max_entries = 10000000,
                                   .logger = cache->logger,
                                   .event = cache->news ? news_hear : NULL,
                                   .user = cache->news};
  return ops->open(&cache->coordination, &config, err);
}

/* ---- the whole ---- */

/* The user's cache folder. malloced; NULL: there is none. */
static char *default_storage(void) {
  const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (base && base[0] == '/') return format_str("%s/modelcache", base);
  return home && home[0] == '/' ? format_str("%s/.cache/modelcache", home) : NULL;
}

/* 0 where that makes no sense is the default; what is out of bounds is refused, as it is in a configuration. */
static mc_status check_option(const mc_option_row *row, mc_options *options, mc_error *err) {
  mc_options scratch;
  char text[64];
  const char *member = (const char *)options + row->offset;
  bool is_small = row->type == MC_OPTION_COUNT;
  bool is_large = row->type == MC_OPTION_NUMBER || row->type == MC_OPTION_SIZE || row->type == MC_OPTION_DURATION;
  if (!is_small && !is_large) return MC_OK;
  bool none = is_small ? *(const uint32_t *)member == 0 : *(const uint64_t *)member == 0;
  if (none && row->least > 0) return mc_option_parse(row, options, row->fallback, NULL);
  return mc_option_parse(row, &scratch, mc_option_print(row, options, text, sizeof(text)), err);
}

static mc_status copy_options(struct mc_cache *cache, const mc_options *options, mc_error *err) {
  mc_options_init(&cache->options);
  memcpy(&cache->options, options, options->struct_size < sizeof(*options) ? options->struct_size : sizeof(*options));
  mc_status status = origins_copy(&cache->origins, &cache->options, err);
  if (status) return status;
  const char **members[] = {&cache->options.endpoint, &cache->options.storage, &cache->options.coordination,
                            &cache->options.schemes};
  bool copied = true;
  for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
    if (!*members[i]) continue;
    cache->strings[i] = strdup(*members[i]);
    *members[i] = cache->strings[i];
    copied = copied && cache->strings[i];
  }
  if (copied && !cache->options.storage) {
    cache->options.storage = cache->strings[1] = default_storage();
    if (!cache->options.storage) {
      return mc_error_set(err, MC_INVALID_ARGUMENT, "open", "no home folder to cache in: set the option 'storage'");
    }
  }
  if (copied && !cache->options.coordination) cache->options.coordination = "local";
  if (copied && !cache->options.schemes) cache->options.schemes = "";
  for (const mc_option_row *row = mc_option_rows(); row->name && copied; row++) {
    status = check_option(row, &cache->options, err);
    if (status) return status;
  }
  if (cache->options.low_watermark > cache->options.high_watermark) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, "open", "low_watermark must not be above high_watermark");
  }
  return copied ? MC_OK : mc_error_set(err, MC_NO_MEMORY, "open", "no memory for a cache");
}

mc_status mc_open_options(mc_cache **out, const mc_options *options, mc_error *err) {
  struct mc_cache *cache = calloc(1, sizeof(*cache));
  if (!cache) return mc_error_set(err, MC_NO_MEMORY, "open", "no memory for a cache");
  pthread_mutex_init(&cache->lock, NULL);
  pthread_mutex_init(&cache->watch_lock, NULL);
  pthread_mutex_init(&cache->tree_lock, NULL);
  cond_init(&cache->clock_wake);
  mc_status status = copy_options(cache, options, err);
  cache->logger = &cache->options.logger;
  cache->started_at = clock_wall_ms();
  if (!status) status = open_tiers(cache, err);
  if (!status) status = refresher_new(&cache->refresher, cache, err);
  if (!status) status = open_coordination(cache, err);
  if (!status) status = open_upstreams(cache, err);
  if (!status) status = check_schemes(cache, err);
  if (!status && !cache->news) status = entry_load_all(cache, err); /* else a job does what is needed of it */
  if (!status) status = engine_start(cache, err);
  if (status) {
    mc_close(cache);
    return status;
  }
  *out = cache;
  return MC_OK;
}

mc_status mc_open(mc_cache **out, const char *endpoint, mc_error *err) {
  mc_options options = MC_OPTIONS_INIT;
  options.endpoint = endpoint;
  return mc_open_options(out, &options, err);
}

void mc_close(mc_cache *cache) {
  if (!cache) return;
  engine_stop(cache);
  for (size_t i = 0; i < cache->upstream_count; i++) cache->upstreams[i]->ops->close(cache->upstreams[i]);
  for (size_t i = 0; i < cache->transport_count; i++) cache->transports[i]->ops->close(cache->transports[i]);
  if (cache->coordination) cache->coordination->ops->close(cache->coordination); /* it tells news until then */
  news_free(cache->news);
  ledger_free(cache->ledger);
  for (size_t i = 0; i < cache->tier_count; i++) tier_close(cache->tiers[i]);
  for (size_t i = 0; i < sizeof(cache->strings) / sizeof(*cache->strings); i++) free(cache->strings[i]);
  refresher_free(cache->refresher);
  origins_free(cache->origins);
  pthread_mutex_destroy(&cache->lock);
  pthread_mutex_destroy(&cache->watch_lock);
  pthread_mutex_destroy(&cache->tree_lock);
  pthread_cond_destroy(&cache->clock_wake);
  free(cache);
}
