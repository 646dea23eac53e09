/* The storage backend: one tier of the cache.
 *
 * A storage keeps objects under their digest, the stages of downloads under way, and, if it is persistent, small
 * records (one per URL) from which the rest of the cache is rebuilt. It decides nothing: what is kept, evicted and
 * verified is the engine's business.
 *
 * A backend is a `static const mc_storage_ops` and an instance that begins with `mc_storage`. Ops may be called from
 * several threads at once and may block on the storage itself, on nothing else. No op keeps a pointer that it was given
 * beyond its return. Every descriptor is close-on-exec. An instance is of the process that opened it: a child that is
 * forked opens its own.
 *
 * A key is 64 lower-case hex digits; ops that take one answer MC_INVALID_ARGUMENT to anything else. An object is
 * visible, to open_object, read_meta and scan alike, while both its bytes and its meta are there. Nothing
 * that is visible is ever in part, whatever fails or dies. MC_NOT_FOUND is said of what was asked for alone, never of a
 * folder that has gone. tests/contract/storage.c holds every storage to this. */
#ifndef MODELCACHE_BACKEND_STORAGE_H
#define MODELCACHE_BACKEND_STORAGE_H

#include <modelcache/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MC_STORAGE_ABI 2

enum {
  MC_STORAGE_PERSISTENT = 1 << 0, /* outlives the process; then the record ops, stage_resume and restage are required */
};

typedef struct mc_storage mc_storage;
typedef struct mc_stage mc_stage;

typedef struct mc_storage_config {
  size_t struct_size;
  const char *location; /* posix: a folder, made when it is missing. memory: NULL */
  bool durable;         /* fsync before an object becomes visible */
  bool huge_pages;      /* memory: advise huge pages */
  const mc_logger *logger;
  int64_t
      orphan_ms; /* a stage of another machine that nothing was written to for so long has lost its owner; 0: a minute
                  */
} mc_storage_config;

/* A download in the making. The engine writes to it with pwrite, or to `memory` when that is not NULL. */
struct mc_stage {
  mc_storage *storage;
  int fd;        /* readable and writable; owned by the stage */
  void *memory;  /* `size` bytes, shared with fd; NULL where writing through fd is the better way */
  uint64_t size; /* as given to stage_create or stage_resize; MC_SIZE_UNKNOWN: not known yet */
};

/* What `scan` reports of an object. */
typedef struct mc_stored {
  mc_digest digest;
  uint64_t size;
  int64_t used_at; /* milliseconds since 1970, when it was last touched, as well as the storage knows */
} mc_stored;

typedef struct mc_storage_ops {
  uint32_t abi; /* MC_STORAGE_ABI */
  const char *name;
  uint32_t flags;

  /* Required. Make an instance: creates what is missing at config->location, checks that it can be written, removes
   * what a crashed predecessor left that can't be resumed. */
  mc_status (*open)(mc_storage **out, const mc_storage_config *config, mc_error *err);
  /* Required. Every stage was committed or discarded before. */
  void (*close)(mc_storage *self);

  /* Required. Open an object for reading: *fd is a descriptor of its own, with its own offset, which the caller closes,
   * which can't write, and which stays readable after remove_object (on a network file system, after one of this
   * machine: when another removes it, reading may fail with ESTALE). MC_NOT_FOUND; what another machine committed
   * before this call is found. */
  mc_status (*open_object)(mc_storage *self, const mc_digest *digest, int *fd, uint64_t *size, mc_error *err);
  /* Required. The bytes given to stage_commit as `meta`: *meta is malloced, the caller frees it. MC_NOT_FOUND;
   * MC_RESOURCE_EXHAUSTED if it is larger than `max`. */
  mc_status (*read_meta)(mc_storage *self, const mc_digest *digest, void **meta, size_t *size, size_t max,
                         mc_error *err);
  /* Required. MC_OK when it's gone, also when it was not there. Readers that have it open keep it. */
  mc_status (*remove_object)(mc_storage *self, const mc_digest *digest, mc_error *err);
  /* Optional. Note that it was used now, so that the order of use survives a restart. Cheap; may be approximate. */
  void (*touch)(mc_storage *self, const mc_digest *digest);
  /* Optional. The object's path for other programs; false if it has none, or if that has not fewer than `size` bytes.
   */
  bool (*object_path)(mc_storage *self, const mc_digest *digest, char *path, size_t size);
  /* Required. Report every whole object, once, in any order; `visit` returns false to stop. Those that come or go
   * meanwhile may be left out. */
  mc_status (*scan)(mc_storage *self, bool (*visit)(void *user, const mc_stored *stored), void *user, mc_error *err);
  /* Optional, of storages that several processes share. What scan would report of this object. MC_NOT_FOUND. */
  mc_status (*look)(mc_storage *self, const mc_digest *digest, mc_stored *out, mc_error *err);
  /* Optional. Bytes free on what lies below, for a limit beside the configured one. */
  mc_status (*free_bytes)(mc_storage *self, uint64_t *bytes, mc_error *err);

  /* Required. Begin a stage. `key` is 64 hex digits: stages of one key are downloads of one URL. `size` may be
   * MC_SIZE_UNKNOWN. It reads as zeros, and its journal is empty. Space is allocated where that is cheap, so that a
   * full disk shows at once: MC_NO_SPACE. A persistent storage also takes NULL as `key`, of a small file whose size is
   * known: nobody resumes that stage, so that it has no journal, and is never kept. */
  mc_status (*stage_create)(mc_storage *self, const char *key, uint64_t size, mc_stage **out, mc_error *err);
  /* Required if persistent, else NULL. Adopt a stage of `key` whose owner is gone, its journal with it. MC_NOT_FOUND if
   * there is none. Of all who adopt at once, in this process or others, one gets it. A living owner's stage is never
   * adopted; an owner on another machine may be taken for gone when it wrote nothing for config->orphan_ms. It may only
   * have been paused: what is adopted of it is a copy, which nothing that it goes on to write can change. Its size is
   * what its file has. One that can't be opened now, for want of descriptors for instance, is left for a later try. */
  mc_status (*stage_resume)(mc_storage *self, const char *key, mc_stage **out, mc_error *err);
  /* Required. Set the size, once it is known or has changed; what is added reads as zeros. May move `memory`: no other
   * thread uses the stage. A failure (MC_NO_SPACE) leaves the stage as it was. */
  mc_status (*stage_resize)(mc_stage *stage, uint64_t size, mc_error *err);
  /* Required if persistent, else NULL. Append to the stage's journal; each append is whole or absent after a crash of
   * the process, and one that fails (MC_NO_SPACE) is absent. Called from one thread at a time. */
  mc_status (*stage_append)(mc_stage *stage, const void *data, size_t size, mc_error *err);
  /* Required if persistent, else NULL. All that was appended, malloced; the caller frees it. MC_RESOURCE_EXHAUSTED if
   * it is larger than `max`. */
  mc_status (*stage_journal)(mc_stage *stage, void **data, size_t *size, size_t max, mc_error *err);
  /* Required. Make the stage the object `digest` with `meta` beside it, atomically; fine if that object exists already
   * (whichever stays is whole). A stage of unknown size becomes what was written to it. Frees the stage on success
   * only: after a failure (MC_NO_SPACE; MC_BUSY: another process has adopted it) it is not written to any more, but may
   * be committed again (which fails if its bytes can't be relied on), or closed. The fd that readers dup()ed from the
   * stage stays valid. Durable if the storage was opened so. */
  mc_status (*stage_commit)(mc_stage *stage, const mc_digest *digest, const void *meta, size_t meta_size,
                            mc_error *err);
  /* Optional, of persistent storages. Have the stage's next commit put a record, before the object becomes visible: as
   * record_put and then stage_commit, but what is durable is waited for once. A commit that fails may or may not have
   * put it; the one after it has none, unless it is given again. */
  mc_status (*stage_record)(mc_stage *stage, const char *key, const void *data, size_t size, mc_error *err);
  /* Required. Free the stage. `keep`: leave it for stage_resume (persistent storages; one whose bytes can't be relied
   * on is removed all the same), else remove it. */
  void (*stage_close)(mc_stage *stage, bool keep);
  /* Required if persistent, else NULL. Turn a damaged object back into a stage of `key`, with an empty journal: it is
   * no longer visible as an object. Those who have it open see what is written to the stage. MC_NOT_FOUND. */
  mc_status (*restage)(mc_storage *self, const mc_digest *digest, const char *key, mc_stage **out, mc_error *err);

  /* Records: small documents by key. Required if persistent, else NULL. put replaces atomically: who reads meanwhile
   * gets the old one or the new one, whole. MC_NO_SPACE keeps the old one. */
  mc_status (*record_put)(mc_storage *self, const char *key, const void *data, size_t size, mc_error *err);
  /* *data is malloced, the caller frees it. MC_NOT_FOUND; MC_RESOURCE_EXHAUSTED if it is larger than `max`. */
  mc_status (*record_get)(mc_storage *self, const char *key, void **data, size_t *size, size_t max, mc_error *err);
  /* MC_OK when it's gone, also when it was not there. */
  mc_status (*record_remove)(mc_storage *self, const char *key, mc_error *err);
  /* Report every record, in any order; `visit` returns false to stop. Those that can't be read, or are larger than
   * `max`, are left out: they cost themselves, not the start of a program. */
  mc_status (*record_scan)(mc_storage *self, bool (*visit)(void *user, const char *key, const void *data, size_t size),
                           void *user, size_t max, mc_error *err);
} mc_storage_ops;

struct mc_storage {
  const mc_storage_ops *ops;
};

#ifdef __cplusplus
}
#endif
#endif
