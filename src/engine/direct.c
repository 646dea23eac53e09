/* Direct gets: a flight of one caller, straight into that caller's path or buffer. Nothing is kept, nobody joins, and
 * the caller is told only when no thread writes there any more. */
#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/io.h"
#include "engine/download.h"
#include "engine/engine.h"

struct run {
  struct flight *flight;
  struct mc_request *request;
  struct download *download;
  mc_digest digest;
};

static mc_status check_room(const struct mc_request *request, const mc_info *info, mc_error *err) {
  if (!request->options.buffer || info->size == MC_SIZE_UNKNOWN || info->size <= request->options.buffer_size) {
    return MC_OK;
  }
  return mc_error_set(err, MC_RESOURCE_EXHAUSTED, ORIGIN, "the buffer of %zu bytes is smaller than the file of %llu",
                      request->options.buffer_size, (unsigned long long)info->size);
}

/* A full disk shows at once, and blocks that are there are cheaper to write to; but not where they are memory, which is
 * cleared first. */
static mc_status set_aside(struct run *run, const mc_info *info, mc_error *err) {
  int fd = run->download->fd;
  struct statfs fs;
  if (fd < 0 || info->size == MC_SIZE_UNKNOWN || fstatfs(fd, &fs) || fs.f_type == TMPFS_MAGIC) return MC_OK;
  int error = file_allocate(fd, info->size);
  bool full = error == ENOSPC || error == EDQUOT; /* what else fails here may yet be well */
  return full ? mc_error_errno(err, error, ORIGIN, "can't write %s", run->request->path) : MC_OK;
}

static mc_status attempt(void *user, mc_upstream *upstream, mc_error *err) {
  struct run *run = user;
  struct flight *flight = run->flight;
  mc_open_args args = {.url = flight->url,
                       .digest = run->request->options.digest,
                       .revalidate = run->request->options.flags & MC_GET_REVALIDATE,
                       .progress = flight_peer_progress,
                       .progress_user = flight};
  mc_source *source = NULL;
  mc_info info = {.size = MC_SIZE_UNKNOWN};
  if (args.digest && !(upstream->ops->flags & MC_UPSTREAM_CACHE)) {
    return mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the service can't be asked for this version, and no origin can");
  }
  flight_set_phase(flight, MC_PHASE_ASKING, "asking the upstream");
  mc_status status = upstream->ops->source_open(upstream, &args, &source, &info, &flight->call, err);
  if (status) return status;
  if (!source) return mc_error_set(err, MC_PROTOCOL, ORIGIN, "%s gave no content", upstream->ops->name);
  status = check_room(run->request, &info, err);
  if (!status) status = download_begin(run->download, flight->key, &info, err);
  if (!status) status = set_aside(run, &info, err);
  if (!status) flight_show(flight);
  if (!status) status = download_fetch(run->download, upstream, source, &info, &args, &run->digest, err);
  if (!status && args.digest && !mc_digest_equal(args.digest, &run->digest)) {
    status = mc_error_set(err, MC_PROTOCOL, ORIGIN, "the service gave another version than the one that was wanted");
  }
  upstream->ops->source_close(source);
  return status;
}

/* The file takes over the draft's descriptor. */
static mc_status give(mc_file **out, struct run *run, int fd, mc_error *err) {
  struct download *download = run->download;
  mc_entry entry = {
      .size = download->size, .has_digest = true, .digest = run->digest, .validators = download->validators};
  stat_add(run->flight->cache, STAT_DOWNLOADS, 1);
  *out = file_of_destination(fd, run->request->options.buffer, &entry, download_table(download), run->request->path);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a file");
}

static mc_status into_buffer(mc_file **out, struct run *run, mc_error *err) {
  run->download->memory = run->request->options.buffer;
  run->download->memory_size = run->request->options.buffer_size;
  mc_status status = route_ask(run->flight, run->download, attempt, run, err);
  return status ? status : give(out, run, -1, err);
}

static mc_status into_path(mc_file **out, struct run *run, mc_error *err) {
  const char *path = run->request->path;
  struct download *download = run->download;
  char *temporary = NULL;
  int error = file_draft(&download->fd, &temporary, path);
  if (error) return mc_error_errno(err, error, ORIGIN, "can't write %s", path);
  mc_status status = route_ask(run->flight, download, attempt, run, err);
  if (!status && ftruncate(download->fd, (off_t)download->size)) {
    status = mc_error_errno(err, errno, ORIGIN, "can't set the size of %s", path);
  }
  if (status) {
    file_discard(temporary);
  } else {
    error = file_publish(download->fd, temporary, path);
    if (error) status = mc_error_errno(err, error, ORIGIN, "can't write %s", path);
  }
  if (!status) return give(out, run, download->fd, err);
  close(download->fd);
  return status;
}

void direct_job(struct work_job *job) {
  struct flight *flight = flight_of_job(job);
  struct run run = {.flight = flight, .request = flight->request};
  mc_error error = MC_ERROR_INIT;
  mc_file *file = NULL;
  mc_status status = flight_begin_direct(flight, &error);
  if (!status) status = download_new(&run.download, flight->cache, flight->url, &flight->call, &error);
  if (!status) {
    flight_set_download(flight, run.download);
    status = run.request->path ? into_path(&file, &run, &error) : into_buffer(&file, &run, &error);
    download_close(run.download);
  }
  flight_end(flight, status, file, &error);
  flight_release(flight);
}
