/* The real storages behind a wrapper that counts calls and fails on demand. "faulty:/folder" is posix, and a cache that
 * is given fake_storages has its memory tier wrapped, too. */
#ifndef TESTS_FAKE_STORAGE_H
#define TESTS_FAKE_STORAGE_H

#include <modelcache/backend/storage.h>

enum fake_op {
  FAKE_OPEN_OBJECT,
  FAKE_READ_META,
  FAKE_REMOVE_OBJECT,
  FAKE_STAGE_CREATE,
  FAKE_STAGE_RESUME,
  FAKE_STAGE_RESIZE,
  FAKE_STAGE_APPEND,
  FAKE_STAGE_COMMIT,
  FAKE_RESTAGE,
  FAKE_RECORD_PUT,
  FAKE_RECORD_GET,
  FAKE_RECORD_SCAN,
  FAKE_LOOK,
  FAKE_OPS,
};

/* NULL-terminated: for mc_options.storage_backends. */
extern const mc_storage_ops *const fake_storages[];

/* Let call number `nth` from now on (1: the next) and the `count - 1` after it fail. Of both storages. */
void fake_storage_fail(enum fake_op op, unsigned nth, unsigned count, mc_status status);
/* Hold back calls of one op until it is called with `hold` false. */
void fake_storage_hold(enum fake_op op, bool hold);
/* The same with the next call alone. */
void fake_storage_hold_one(enum fake_op op);
/* Wait until so many calls are held back. */
void fake_storage_await_held(unsigned count);
unsigned fake_storage_calls(enum fake_op op);
/* Neither failures nor counts. */
void fake_storage_reset(void);

#endif
