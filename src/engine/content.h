/* What a download's content is: the one pass over what has landed that makes its SHA-256, and the checksum that its
 * upstream gave instead of one. For the thread that runs the download. */
#ifndef ENGINE_CONTENT_H
#define ENGINE_CONTENT_H

#include "engine/download.h"

#define READ_BLOCK ((size_t)256 << 10) /* is read back at once: stays in a core's cache */

/* The checksum to make beside the SHA-256, as `info` wants it. One that is told only after the content begins the pass
 * anew. */
void content_expect(struct download *download, const mc_info *info);
/* Hash chunks as they land, until the lanes have ended. */
mc_status content_follow(struct download *download, mc_error *err);
/* Hash what is left, and compare: MC_CORRUPT, and nothing has landed, if it is not what the upstream gave a digest or
 * checksum of. */
mc_status content_digest(struct download *download, mc_digest *digest, const mc_info *info, mc_error *err);
void content_forget(struct download *download); /* begin anew */

/* download.c: read back what has landed. */
mc_status download_load(struct download *download, void *data, size_t size, uint64_t offset, mc_error *err);
/* With the lock held: the lanes need not go on. */
void download_fail(struct download *download, mc_status status, const mc_error *error);

#endif
