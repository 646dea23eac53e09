/* Whether a file is still what its chunk table says. */
#ifndef ENGINE_VERIFY_H
#define ENGINE_VERIFY_H

#include <sys/stat.h>
#include <time.h>

#include <modelcache/types.h>

/* What tells that a file is the one that was verified: whoever writes to it changes its mtime. */
struct stamp {
  dev_t device;
  ino_t inode;
  off_t size;
  struct timespec modified;
};

bool stamp_of(struct stamp *stamp, int fd);
bool stamp_same(const struct stamp *a, const struct stamp *b);

/* Hash `count` chunks of a file. Reads them all, and looks at the call (NULL: none) before each. MC_CORRUPT: one of
 * them differs, or is not there. */
mc_status verify_chunks(int fd, const mc_chunk_table *table, uint32_t first, uint32_t count, const mc_call *call,
                        mc_error *err);

#endif
