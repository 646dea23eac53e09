/* Getting all of a source: also from one whose ranges do not work, or that tells its facts at the end. */
#include "engine/download.h"

#define MAX_MENDS 3 /* rounds of reading again what a table that came late does not agree with */

/* An upstream that takes ranges for what they are not is read once more as a whole. */
static mc_status run(struct download *download, mc_source *source, mc_info *info, mc_error *err) {
  mc_status status = download_run(download, source, info, err);
  if (status != MC_UNSUPPORTED || !info->ranges) return status;
  info->ranges = false;
  download_restart(download);
  return download_run(download, source, info, err);
}

/* Compare with the chunk table that came at the end, if one came. */
static mc_status mend(struct download *download, mc_source *source, mc_info *info, mc_error *err) {
  for (int round = 0; info->chunks.hashes && download_check(download, &info->chunks); round++) {
    if (round == MAX_MENDS) return mc_error_set(err, MC_CORRUPT, ORIGIN, "chunks keep arriving damaged");
    mc_status status = run(download, source, info, err);
    if (status) return status;
  }
  return MC_OK;
}

mc_status download_fetch(struct download *download, mc_upstream *upstream, mc_source *source, mc_info *info,
                         const mc_open_args *args, mc_digest *digest, mc_error *err) {
  bool trusted = upstream->ops->flags & MC_UPSTREAM_CACHE;
  mc_status status = run(download, source, info, err);
  bool late = !info->has_digest || !info->chunks.hashes || info->size == MC_SIZE_UNKNOWN;
  if (!status && late && upstream->ops->source_finish) {
    status = upstream->ops->source_finish(source, info, args, download->call, err);
    if (!status) status = mend(download, source, info, err);
  }
  if (!status) status = download_digest(download, digest, info, trusted, err);
  return status;
}
