/* What URLs were before: told, and got again by their digest. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/url.h"
#include "engine/download.h"
#include "engine/engine.h"

/* ---- telling ---- */

/* A look that is no use: what is only told of gets no older by it. */
bool version_is_stored(struct mc_cache *cache, const mc_digest *digest) {
  int fd;
  uint64_t size;
  for (size_t i = 0; i < cache->tier_count; i++) {
    if (tier_has(cache->tiers[i], digest)) return true;
  }
  mc_storage *storage = cache->home ? tier_storage(cache->home) : NULL;
  if (!storage || storage->ops->open_object(storage, digest, &fd, &size, NULL)) return false;
  close(fd);
  return true;
}

static mc_status history_here(mc_cache *cache, const char *url, bool (*visit)(void *user, const mc_former *former),
                              void *user, mc_error *err) {
  char key[KEY_SIZE];
  mc_entry *entry;
  key_of_url(key, url);
  mc_status status = entry_load(&entry, cache, key, err);
  if (status == MC_NOT_FOUND) mc_error_set(err, status, ORIGIN, "it is not in the cache");
  if (status) return status;
  int64_t now = clock_wall_ms();
  for (size_t i = 0; i < entry->history_count; i++) {
    mc_former former = entry->history[i];
    if (now - former.replaced_at >= cache->options.history_ms) break;
    former.stored = version_is_stored(cache, &former.digest);
    if (!visit(user, &former)) break;
  }
  free(entry);
  return MC_OK;
}

mc_status mc_history(mc_cache *cache, const char *url, bool (*visit)(void *user, const mc_former *former), void *user,
                     int64_t timeout_ms, mc_error *err) {
  char *normal;
  mc_upstream *service = cache->client ? cache->upstreams[0] : NULL;
  mc_call call = {deadline_in_ms(timeout_ms), NULL};
  mc_status status = url_normalise(&normal, url, err);
  if (status) return status;
  if (!service) {
    status = history_here(cache, normal, visit, user, err);
  } else if (service->ops->cache->history) {
    status = service->ops->cache->history(service, normal, visit, user, &call, err);
  } else {
    status = mc_error_set(err, MC_UNSUPPORTED, ORIGIN, "%s does not tell what a URL was before", service->ops->name);
  }
  free(normal);
  return status;
}

/* ---- getting one ---- */

void version_key(char key[KEY_SIZE], const char *url, const mc_digest *digest) {
  char hex[MC_DIGEST_HEX_SIZE];
  char *text = format_str("%s %s", mc_digest_hex(hex, digest), url);
  key_of_url(key, text ? text : hex);
  free(text);
}

/* Whether it is, or was, a version of what the entry is of; fills in what is known of it. */
static bool find_version(mc_entry *version, const mc_entry *entry, int64_t keep_ms) {
  if (entry->has_digest && mc_digest_equal(&entry->digest, &version->digest)) {
    version->size = entry->size;
    version->validators = entry->validators;
    return true;
  }
  int64_t now = clock_wall_ms();
  for (size_t i = 0; i < entry->history_count && now - entry->history[i].replaced_at < keep_ms; i++) {
    const mc_former *former = &entry->history[i];
    if (!mc_digest_equal(&former->digest, &version->digest)) continue;
    version->size = former->size;
    version->validators = former->validators;
    return true;
  }
  return false;
}

mc_status version_open(mc_file **out, struct mc_cache *cache, const char *url, const mc_digest *digest,
                       const mc_call *call, mc_error *err) {
  char key[KEY_SIZE], hex[MC_DIGEST_HEX_SIZE];
  mc_entry *entry = NULL, version = {.url = url, .size = MC_SIZE_UNKNOWN, .has_digest = true, .digest = *digest};
  struct tier *damaged = NULL;
  version.holders = "";
  key_of_url(key, url);
  mc_status status = entry_load(&entry, cache, key, err);
  if (status && status != MC_NOT_FOUND) return status;
  bool known = !status && find_version(&version, entry, cache->options.history_ms);
  free(status ? NULL : entry);
  mc_digest_hex(hex, digest);
  if (!known && !cache->client) {
    return mc_error_set(err, MC_NOT_FOUND, ORIGIN,
                        "no version of it that is remembered here has the digest %s; see 'history'", hex);
  }
  status = file_open(out, cache, &version, true, &damaged, call, err);
  if (status != MC_NOT_FOUND && status != MC_CORRUPT) return status;
  return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "the version with the digest %s is not stored any more", hex);
}

static mc_status wrong_version(mc_error *err) {
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service gave another version than the one that was wanted");
}

/* Bring in what an open source has: an object that no entry refers to. */
static mc_status keep_version(mc_file **out, struct flight *flight, mc_source *source, mc_info *info,
                              const mc_open_args *args, mc_error *err) {
  struct download *download = flight->download;
  mc_entry version = {.url = flight->url, .has_digest = true, .digest = flight->digest, .holders = ""};
  struct object *object;
  mc_digest digest;
  mc_status status = download_begin(download, flight->key, info, err);
  if (!status) flight_show(flight);
  if (!status) status = download_fetch(download, source->upstream, source, info, args, &digest, err);
  if (!status && !mc_digest_equal(&digest, &flight->digest)) status = wrong_version(err);
  if (!status) status = download_commit(&object, download, &digest, err);
  if (status) return status;
  stat_add(flight->cache, STAT_DOWNLOADS, 1);
  version.size = download->size;
  version.validators = download->validators;
  *out = file_of_object(object, flight->cache, &version, false);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a file");
}

static mc_status ask_service(mc_file **out, struct flight *flight, mc_error *err) {
  mc_upstream *service = flight->cache->upstreams[0];
  mc_open_args args = {
      .url = flight->url, .digest = &flight->digest, .progress = flight_peer_progress, .progress_user = flight};
  mc_source *source = NULL;
  mc_info info = {.size = MC_SIZE_UNKNOWN};
  flight_set_phase(flight, MC_PHASE_ASKING, "asking the service");
  mc_status status = service->ops->source_open(service, &args, &source, &info, &flight->call, err);
  if (!status && (!source || (info.has_digest && !mc_digest_equal(&info.digest, &flight->digest)))) {
    status = wrong_version(err);
  }
  if (!status) status = keep_version(out, flight, source, &info, &args, err);
  if (source) service->ops->source_close(source);
  return status;
}

void version_job(struct work_job *job) {
  struct flight *flight = flight_of_job(job);
  struct mc_cache *cache = flight->cache;
  struct download *download;
  mc_error error = MC_ERROR_INIT;
  mc_file *file = NULL;
  mc_status status = mc_call_check(&flight->call, &error);
  if (!status) {
    flight_set_phase(flight, MC_PHASE_VERIFYING, "verifying the stored copy");
    status = version_open(&file, cache, flight->url, &flight->digest, &flight->call, &error);
  }
  if (status == MC_NOT_FOUND && cache->client && cache->home) {
    status = download_new(&download, cache, flight->url, &flight->call, &error);
    if (!status) {
      download->tier = cache->home;
      flight_set_download(flight, download);
      status = ask_service(&file, flight, &error);
      download_close(download);
    }
  }
  flight_end(flight, status, file, &error);
  flight_release(flight);
}
