/* The one table of options. */
#include <stddef.h>
#include <stdio.h>

#include <modelcache/options.h>

/* clang-format off */
#define ROW(name, env, type, fallback, choices, least, most, unit, help) \
  {#name, env, type, offsetof(mc_options, name), fallback, choices, least, most, unit, help}
#define ROW_MS(name, env, fallback, least, most, help) \
  {#name, env, MC_OPTION_DURATION, offsetof(mc_options, name##_ms), fallback, NULL, least, most, "duration", help}

static const mc_option_row rows[] = {
  ROW(endpoint, "MODELCACHE_ENDPOINT", MC_OPTION_STRING, "", NULL, 0, 0, "HOST:PORT",
      "the service to be a client of; without one the cache works in this process"),
  ROW(storage, "MODELCACHE_STORAGE", MC_OPTION_STRING, "", NULL, 0, 0, "folder",
      "where objects are kept; 'none' keeps nothing; by default a folder under the user's cache folder"),
  ROW(coordination, "MODELCACHE_COORDINATION", MC_OPTION_STRING, "local", NULL, 0, 0, "URL",
      "who knows what is being downloaded: 'local', this process alone; redis://HOST:PORT/DB, all that use it"),
  ROW(schemes, "MODELCACHE_SCHEMES", MC_OPTION_STRING, "file,http,https,s3,gs,as,hf", NULL, 0, 0, "list",
      "URL schemes that may be fetched from an origin"),
  ROW(storage_capacity, "MODELCACHE_STORAGE_CAPACITY", MC_OPTION_SIZE, "0", NULL, 0, 0, "bytes",
      "how much the storage may hold; 0: as much as the disk"),
  ROW(memory_capacity, "MODELCACHE_MEMORY_CAPACITY", MC_OPTION_SIZE, "0", NULL, 0, 0, "bytes",
      "how much the memory tier may hold; 0: no memory tier"),
  ROW_MS(storage_ttl, "MODELCACHE_STORAGE_TTL", "never", 0, 0,
      "evict from storage what was not used for this long; never: only to make room"),
  ROW_MS(memory_ttl, "MODELCACHE_MEMORY_TTL", "10m", 0, 0, "drop from memory what was not used for this long"),
  ROW(memory_huge_pages, "MODELCACHE_MEMORY_HUGE_PAGES", MC_OPTION_BOOL, "false", NULL, 0, 0, "",
      "advise the system to use huge pages for the memory tier"),
  ROW(high_watermark, "MODELCACHE_HIGH_WATERMARK", MC_OPTION_COUNT, "95", NULL, 1, 100, "percent",
      "eviction begins when a tier is fuller than this"),
  ROW(low_watermark, "MODELCACHE_LOW_WATERMARK", MC_OPTION_COUNT, "85", NULL, 1, 100, "percent",
      "eviction ends when the storage is emptier than this; from memory only what must go does"),
  ROW_MS(revalidate_after, "MODELCACHE_REVALIDATE_AFTER", "60s", -1, 0,
      "ask the origin again whether a copy is current after this long; never: every time; forever: not at all"),
  ROW_MS(negative_ttl, "MODELCACHE_NEGATIVE_TTL", "5s", 0, 0, "remember for this long that a URL does not exist"),
  ROW_MS(refresh, "MODELCACHE_REFRESH", "5m", 0, 0,
      "check pinned and watched URLs of our own accord, when they were checked longer ago than this, and than "
      "revalidate_after; never: only when they are asked for"),
  ROW_MS(history, "MODELCACHE_HISTORY", "1h", 0, 0,
      "remember versions that were replaced, and keep their objects, for this long; never: don't"),
  ROW_MS(stale_if_error, "MODELCACHE_STALE_IF_ERROR", "forever", -1, 0,
      "serve a copy that can't be revalidated for this long after it was last confirmed"),
  ROW(stale_while_revalidate, "MODELCACHE_STALE_WHILE_REVALIDATE", MC_OPTION_BOOL, "false", NULL, 0, 0, "",
      "serve the copy at hand at once, and revalidate it meanwhile"),
  ROW(durable, "MODELCACHE_DURABLE", MC_OPTION_CHOICE, "auto", "auto|off|on", 0, 0, "",
      "fsync before an object becomes visible; auto: on, but off for a client of a service"),
  ROW(verify, "MODELCACHE_VERIFY", MC_OPTION_CHOICE, "stored", "never|stored", 0, 0, "",
      "check an object's chunks when this process first opens it, and when its file has changed"),
  ROW(flights, "MODELCACHE_FLIGHTS", MC_OPTION_COUNT, "32", NULL, 1, 4096, "", "downloads at once; more of them queue"),
  ROW(waiters, "MODELCACHE_WAITERS", MC_OPTION_COUNT, "100000", NULL, 1, 0, "",
      "calls that may wait at once; more of them are refused"),
  ROW(parallelism, "MODELCACHE_PARALLELISM", MC_OPTION_COUNT, "8", NULL, 1, 64, "", "ranges of one file read at once"),
  ROW(retries, "MODELCACHE_RETRIES", MC_OPTION_COUNT, "4", NULL, 0, 100, "",
      "further attempts after a failure that may pass"),
  ROW_MS(connect_timeout, "MODELCACHE_CONNECT_TIMEOUT", "5s", 1, 0, "give up a connection attempt after this long"),
  ROW_MS(stall_timeout, "MODELCACHE_STALL_TIMEOUT", "30s", 1, 0, "give up a peer that moves no byte for this long"),
  ROW_MS(lease, "MODELCACHE_LEASE", "10s", 100, 0, "a claim whose owner does not renew it for this long is free"),
  ROW(tree_files, "MODELCACHE_TREE_FILES", MC_OPTION_NUMBER, "100000", NULL, 1, 0, "", "the most files of one tree"),
  ROW(fallback, "MODELCACHE_FALLBACK", MC_OPTION_BOOL, "true", NULL, 0, 0, "",
      "a client goes to the origin itself when the service can't be reached"),
  ROW(allow_link_local, "MODELCACHE_ALLOW_LINK_LOCAL", MC_OPTION_BOOL, "false", NULL, 0, 0, "",
      "let origins be on link-local and cloud metadata addresses"),
  {0},
};

#define RULE(name, member, type, fallback, least, most, unit, help) \
  {#name, NULL, type, offsetof(mc_origin_rule, member), fallback, NULL, least, most, unit, help}

static const mc_option_row rule_rows[] = {
  RULE(prefix, prefix, MC_OPTION_STRING, "", 0, 0, "URL",
      "the rule is for this URL and what is below it; 's3://' is all of a scheme; the longest prefix wins"),
  RULE(allowed, allowed, MC_OPTION_BOOL, "true", 0, 0, "", "whether it may be fetched, if its scheme may"),
  RULE(credentials, credentials, MC_OPTION_STRING, "", 0, 0, "name",
      "some of the credentials below; 'none': ask without any; by default, what is found in the usual places"),
  RULE(endpoint, endpoint, MC_OPTION_STRING, "", 0, 0, "URL",
      "where the service is, if it is not the public one: https://HOST:PORT"),
  RULE(ca_file, ca_file, MC_OPTION_STRING, "", 0, 0, "file",
      "certificates, PEM, that are trusted instead of the system's"),
  RULE(proxy, proxy, MC_OPTION_STRING, "", 0, 0, "URL",
      "the proxy, http://HOST:PORT; 'none': no proxy; by default, as the environment says"),
  RULE(revalidate_after, revalidate_after_ms, MC_OPTION_DURATION, "", -1, 0, "duration",
      "as the option of that name, which is the default"),
  RULE(parallelism, parallelism, MC_OPTION_COUNT, "0", 0, 64, "",
      "ranges of one file read at once; 0: as the option of that name says"),
  RULE(bandwidth, bandwidth, MC_OPTION_SIZE, "0", 0, 0, "bytes",
      "bytes a second of all downloads under the rule together; 0: no limit"),
  RULE(pin, pin, MC_OPTION_BOOL, "false", 0, 0, "", "whether what is fetched is pinned: kept until it is evicted by hand"),
  {0},
};
/* clang-format on */

const mc_option_row *mc_option_rows(void) {
  return rows;
}

const mc_option_row *mc_origin_rule_rows(void) {
  return rule_rows;
}

void mc_options_init(mc_options *options) {
  *options = (mc_options){.struct_size = sizeof(*options), .logger = {.level = MC_LOG_INFO}};
  for (const mc_option_row *row = rows; row->name; row++) mc_option_parse(row, options, row->fallback, NULL);
}
