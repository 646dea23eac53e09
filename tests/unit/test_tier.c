/* A tier by itself: its index, its budget, and threads that open, commit and remove the same object at once. */
#include "tests/fakes/engine_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "engine/tier.h"

static const mc_call forever = {INT64_MAX, NULL};

struct evicted {
  uint64_t objects, bytes;
};

static void count(void *user, uint64_t objects, uint64_t bytes) {
  struct evicted *evicted = user;
  evicted->objects += objects;
  evicted->bytes += bytes;
}

static struct evicted evicted;

static struct tier *open_tier(struct fixture *fixture, uint64_t capacity) {
  struct tier_config config = {.capacity = capacity, .high = 90, .low = 50, .evicted = count, .user = &evicted};
  mc_storage_config storage_config = {.struct_size = sizeof(storage_config),
                                      .location = fixture->storage + strlen("faulty:")};
  mc_storage *storage;
  struct tier *tier;
  evicted = (struct evicted){0};
  assert_int_equal(fake_storages[0]->open(&storage, &storage_config, NULL), MC_OK);
  assert_int_equal(tier_new(&tier, storage, &config, NULL), MC_OK);
  return tier;
}

/* Stage an object of `size` bytes that `seed` makes. */
static mc_stage *stage_object(struct tier *tier, uint64_t size, uint8_t seed, mc_digest *digest,
                              mc_chunk_table **table) {
  mc_storage *storage = tier_storage(tier);
  char key[KEY_SIZE], name[16];
  mc_stage *stage;
  uint8_t *data = malloc(size + 1);
  memset(data, seed, size);
  snprintf(name, sizeof(name), "%u", seed);
  key_of_url(key, name);
  assert_int_equal(storage->ops->stage_create(storage, key, size, &stage, NULL), MC_OK);
  assert_int_equal(pwrite_all(stage->fd, data, size, 0), 0);
  sha256_of(digest, data, size);
  *table = chunk_table_new(size);
  for (uint32_t i = 0; i < (*table)->count; i++) {
    xxh128_of(&chunk_table_hashes(*table)[i], data + i * CHUNK, chunk_length(size, i));
  }
  free(data);
  return stage;
}

static struct object *put(struct tier *tier, uint64_t size, uint8_t seed, mc_digest *digest) {
  mc_chunk_table *table;
  struct object *object = NULL;
  mc_stage *stage = stage_object(tier, size, seed, digest, &table);
  assert_int_equal(tier_commit(&object, tier, &stage, table, digest, NULL), MC_OK);
  assert_null(stage);
  free(table);
  return object;
}

static void put_closed(struct tier *tier, uint64_t size, uint8_t seed, mc_digest *digest) {
  object_release(put(tier, size, seed, digest));
}

static void what_is_committed_is_open_and_verified(void **state) {
  struct tier *tier = open_tier(*state, 0);
  struct tier_usage usage;
  struct object *again;
  mc_digest digest;
  struct object *object = put(tier, CHUNK + 1, 1, &digest);
  assert_int_equal(object->size, CHUNK + 1);
  assert_int_equal(object->table->count, 2);
  assert_int_equal(tier_open(&again, tier, &digest, true, NULL, NULL), MC_OK); /* no need to verify it */
  assert_ptr_equal(again, object);
  tier_usage(tier, &usage);
  assert_int_equal(usage.objects, 1);
  assert_int_equal(usage.open, 1);
  assert_int_equal(usage.bytes, CHUNK + 1);
  object_release(again);
  object_release(object);
  tier_usage(tier, &usage);
  assert_int_equal(usage.open, 0);
  tier_close(tier);
}

static void verifying_ends_with_its_call(void **state) {
  struct tier *tier = open_tier(*state, 0);
  struct object *object;
  mc_digest digest;
  mc_call call = {.deadline = 1}; /* long ago */
  put_closed(tier, 2 * CHUNK, 1, &digest);
  tier_close(tier);
  tier = open_tier(*state, 0);
  assert_int_equal(tier_open(&object, tier, &digest, true, &call, NULL), MC_DEADLINE_EXCEEDED);
  call.deadline = INT64_MAX;
  assert_int_equal(mc_cancel_new(&call.cancel, NULL), MC_OK);
  mc_cancel_trigger(call.cancel);
  assert_int_equal(tier_open(&object, tier, &digest, true, &call, NULL), MC_CANCELLED);
  mc_cancel_free(call.cancel);
  assert_true(tier_has(tier, &digest)); /* it is as good as before, and still to be verified */
  assert_int_equal(tier_open(&object, tier, &digest, true, NULL, NULL), MC_BUSY);
  assert_int_equal(tier_open(&object, tier, &digest, true, &forever, NULL), MC_OK);
  object_release(object);
  tier_close(tier);
}

static void what_was_there_before_is_verified_once(void **state) {
  struct tier *tier = open_tier(*state, 0);
  struct object *object;
  mc_digest digest;
  put_closed(tier, CHUNK + 1, 1, &digest);
  tier_close(tier);
  tier = open_tier(*state, 0);
  assert_true(tier_has(tier, &digest));
  assert_int_equal(tier_open(&object, tier, &digest, true, NULL, NULL), MC_BUSY);
  assert_int_equal(tier_open(&object, tier, &digest, false, NULL, NULL), MC_OK); /* unless nobody asks for it */
  object_release(object);
  assert_int_equal(tier_open(&object, tier, &digest, true, &forever, NULL), MC_OK);
  object_release(object);
  assert_int_equal(tier_open(&object, tier, &digest, true, NULL, NULL), MC_OK);
  assert_int_equal(object_check(object, 0, NULL), MC_OK);
  assert_int_equal(object_check(object, CHUNK + 1, NULL), MC_INVALID_ARGUMENT);
  object_release(object);
  tier_close(tier);
}

static void what_another_vouches_for_is_not_verified_again(void **state) {
  struct tier *tier = open_tier(*state, 0);
  struct object *object;
  char path[4096];
  mc_digest digest, absent = {{1}};
  put_closed(tier, CHUNK + 1, 1, &digest);
  tier_close(tier);
  tier = open_tier(*state, 0);
  tier_vouch(tier, &absent);
  tier_vouch(tier, &digest);
  assert_int_equal(tier_open(&object, tier, &digest, true, NULL, NULL), MC_OK);
  assert_true(object_path(object, path, sizeof(path)));
  object_release(object);
  write_byte(path, 1, 1); /* later than he had it in his hands */
  assert_int_equal(tier_open(&object, tier, &digest, true, &forever, NULL), MC_CORRUPT);
  tier_close(tier);
}

static void what_a_reader_found_damaged_is_verified_again(void **state) {
  struct tier *tier = open_tier(*state, 0);
  struct object *object, *other;
  char path[4096];
  mc_digest digest;
  object = put(tier, 2 * CHUNK, 1, &digest);
  assert_true(object_path(object, path, sizeof(path)));
  write_byte(path, CHUNK + 1, 1);
  assert_int_equal(object_check(object, CHUNK + 1, NULL), MC_CORRUPT);
  assert_int_equal(tier_open(&other, tier, &digest, false, NULL, NULL), MC_BUSY);
  assert_int_equal(tier_open(&other, tier, &digest, false, &forever, NULL), MC_CORRUPT);
  assert_false(tier_has(tier, &digest));
  object_release(object);
  tier_close(tier);
}

static void what_is_committed_is_not_what_a_reader_has(void **state) {
  struct tier *tier = open_tier(*state, 0);
  struct tier_usage usage;
  struct object *reader, *object, *again;
  char path[4096];
  uint8_t byte = 0;
  mc_digest digest;
  reader = put(tier, CHUNK, 1, &digest);
  assert_true(object_path(reader, path, sizeof(path)));
  write_byte(path, 3, 9);
  object = put(tier, CHUNK, 1, &digest); /* another URL has the same content */
  assert_int_equal(pread(object->fd, &byte, 1, 3), 1);
  assert_int_equal(byte, 1);
  assert_int_equal(tier_open(&again, tier, &digest, true, NULL, NULL), MC_OK);
  assert_ptr_equal(again, object);
  object_release(reader);
  object_release(again);
  object_release(object);
  tier_usage(tier, &usage);
  assert_int_equal(usage.objects, 1);
  assert_int_equal(usage.bytes, CHUNK);
  assert_int_equal(usage.open, 0);
  tier_close(tier);
}

static void objects_outlive_their_tier(void **state) {
  struct tier *tier = open_tier(*state, 0);
  mc_digest digest;
  uint8_t byte = 0;
  struct object *object = put(tier, 100, 7, &digest);
  tier_close(tier);
  assert_int_equal(pread(object->fd, &byte, 1, 99), 1);
  assert_int_equal(byte, 7);
  object_release(object);
}

static void a_budget_holds(void **state) {
  struct tier *tier = open_tier(*state, 10 * MIB);
  struct tier_usage usage;
  mc_error error = MC_ERROR_INIT;
  mc_digest digests[8];
  for (uint8_t i = 0; i < 8; i++) {
    assert_int_equal(tier_reserve(tier, MIB, NULL), MC_OK);
    put_closed(tier, MIB, (uint8_t)(i + 1), &digests[i]);
    tier_unreserve(tier, MIB);
  }
  assert_int_equal(tier_reserve(tier, 11 * MIB, &error), MC_NO_SPACE);
  assert_int_equal(tier_reserve(tier, UINT64_MAX, &error), MC_NO_SPACE);
  assert_int_equal(evicted.objects, 0);
  assert_int_equal(tier_reserve(tier, 3 * MIB, NULL), MC_OK); /* above 90 %: down to 50 % with it */
  tier_usage(tier, &usage);
  assert_int_equal(usage.bytes + usage.reserved, 5 * MIB);
  assert_int_equal(evicted.objects, 6);
  assert_int_equal(evicted.bytes, 6 * MIB);
  assert_true(tier_has(tier, &digests[7]));
  assert_int_equal(tier_reserve(tier, 8 * MIB, NULL), MC_NO_SPACE); /* what is set aside can't be evicted */
  assert_true(tier_has(tier, &digests[7]));
  tier_unreserve(tier, 3 * MIB);
  tier_close(tier);
}

static void small_budgets_have_watermarks_too(void **state) {
  struct tier *tier = open_tier(*state, 50);
  mc_digest digests[4];
  for (uint8_t i = 0; i < 4; i++) {
    assert_int_equal(tier_reserve(tier, 10, NULL), MC_OK);
    put_closed(tier, 10, (uint8_t)(i + 1), &digests[i]);
    tier_unreserve(tier, 10);
  }
  assert_int_equal(evicted.objects, 0);
  assert_int_equal(tier_reserve(tier, 10, NULL), MC_OK);
  assert_int_equal(evicted.objects, 3);
  tier_unreserve(tier, 10);
  tier_close(tier);
}

static void pins_and_references_count(void **state) {
  struct tier *tier = open_tier(*state, 4 * MIB);
  mc_digest pinned, other;
  put_closed(tier, 2 * MIB, 1, &pinned);
  put_closed(tier, MIB, 2, &other);
  tier_refer(tier, &pinned, 1, 1);
  tier_refer(tier, &pinned, 1, 1);
  tier_refer(tier, &pinned, -1, -1);
  assert_true(tier_is_referred(tier, &pinned));
  assert_int_equal(tier_reserve(tier, 3 * MIB, NULL), MC_NO_SPACE);
  assert_int_equal(tier_reserve(tier, 2 * MIB, NULL), MC_OK);
  assert_true(tier_has(tier, &pinned));
  assert_false(tier_has(tier, &other));
  tier_unreserve(tier, 2 * MIB);
  tier_refer(tier, &pinned, -1, -1);
  assert_false(tier_is_referred(tier, &pinned));
  assert_int_equal(tier_reserve(tier, 3 * MIB, NULL), MC_OK);
  assert_false(tier_has(tier, &pinned));
  tier_unreserve(tier, 3 * MIB);
  tier_close(tier);
}

static void what_can_not_be_opened_now_still_counts(void **state) {
  struct tier *tier = open_tier(*state, 0);
  struct tier_usage usage;
  struct object *object;
  mc_digest digest;
  put_closed(tier, MIB, 1, &digest);
  fake_storage_fail(FAKE_OPEN_OBJECT, 1, 1, MC_RESOURCE_EXHAUSTED);
  assert_int_equal(tier_open(&object, tier, &digest, true, &forever, NULL), MC_RESOURCE_EXHAUSTED);
  tier_usage(tier, &usage);
  assert_int_equal(usage.bytes, MIB);
  fake_storage_fail(FAKE_OPEN_OBJECT, 1, 1, MC_NOT_FOUND);
  assert_int_equal(tier_open(&object, tier, &digest, true, &forever, NULL), MC_NOT_FOUND);
  assert_false(tier_has(tier, &digest));
  tier_close(tier);
}

static void pins_and_references_outlive_the_object(void **state) {
  struct tier *tier = open_tier(*state, 4 * MIB);
  struct object *object;
  mc_digest pinned, referred;
  mc_stage *stage;
  char key[KEY_SIZE], path[4096];
  put_closed(tier, 2 * MIB, 1, &pinned);
  put_closed(tier, MIB, 2, &referred);
  tier_refer(tier, &pinned, 1, 1);
  tier_refer(tier, &referred, 1, 0);
  assert_int_equal(tier_open(&object, tier, &pinned, true, &forever, NULL), MC_OK);
  assert_true(object_path(object, path, sizeof(path)));
  object_release(object);
  write_byte(path, 1, 1);
  assert_int_equal(tier_open(&object, tier, &pinned, true, &forever, NULL), MC_CORRUPT);
  key_of_url(key, "1");
  assert_int_equal(tier_restage(tier, &pinned, key, &stage, NULL), MC_OK);
  stage->storage->ops->stage_close(stage, false);
  assert_int_equal(tier_reserve(tier, 3 * MIB + MIB / 2, NULL), MC_OK);
  assert_false(tier_has(tier, &referred)); /* evicted */
  tier_unreserve(tier, 3 * MIB + MIB / 2);
  put_closed(tier, 2 * MIB, 1, &pinned); /* both come again, for the entries of before */
  put_closed(tier, MIB, 2, &referred);
  assert_true(tier_is_referred(tier, &referred));
  assert_int_equal(tier_reserve(tier, 2 * MIB, NULL), MC_OK);
  assert_true(tier_has(tier, &pinned));
  assert_int_equal(tier_reserve(tier, MIB, NULL), MC_NO_SPACE);
  tier_unreserve(tier, 2 * MIB);
  tier_refer(tier, &pinned, -1, -1);
  assert_int_equal(tier_reserve(tier, 4 * MIB, NULL), MC_OK);
  tier_unreserve(tier, 4 * MIB);
  tier_close(tier);
}

static void got_again_means_in_time(void **state) {
  struct tier *tier = open_tier(*state, 0);
  mc_digest digest;
  struct object *object = put(tier, 1, 1, &digest);
  assert_false(object_got_again(object, 1000));
  assert_true(object_got_again(object, 1000));
  time_passes(1001);
  assert_false(object_got_again(object, 1000));
  time_passes(1000000);
  assert_true(object_got_again(object, 0)); /* no limit */
  object_release(object);
  tier_close(tier);
}

/* ---- at once ---- */

struct call {
  struct tier *tier;
  mc_digest digest;
  mc_stage *stage;
  mc_chunk_table *table;
  struct object *object;
  mc_status status;
  pthread_t thread;
};

static void *remove_main(void *arg) {
  struct call *call = arg;
  uint64_t bytes;
  call->status = tier_remove(call->tier, &call->digest, &bytes, NULL);
  return NULL;
}

static void *commit_main(void *arg) {
  struct call *call = arg;
  call->status = tier_commit(&call->object, call->tier, &call->stage, call->table, &call->digest, NULL);
  return NULL;
}

static void start(struct call *call, void *(*run)(void *arg)) {
  assert_int_equal(pthread_create(&call->thread, NULL, run, call), 0);
}

static void a_commit_waits_for_a_removal_of_its_digest(void **state) {
  struct call call = {.tier = open_tier(*state, 0)}, removal = call;
  uint8_t byte;
  put_closed(call.tier, MIB, 1, &removal.digest);
  fake_storage_hold(FAKE_REMOVE_OBJECT, true);
  start(&removal, remove_main);
  fake_storage_await_held(1); /* out of the index, and not yet out of the storage */
  call.stage = stage_object(call.tier, MIB, 1, &call.digest, &call.table);
  unsigned commits = fake_storage_calls(FAKE_STAGE_COMMIT);
  struct object *none;
  assert_int_equal(tier_open(&none, call.tier, &call.digest, true, NULL, NULL), MC_BUSY);
  start(&call, commit_main);
  assert_int_equal(fake_storage_calls(FAKE_STAGE_COMMIT), commits);
  fake_storage_hold(FAKE_REMOVE_OBJECT, false);
  pthread_join(removal.thread, NULL);
  pthread_join(call.thread, NULL);
  assert_int_equal(removal.status, MC_OK);
  assert_int_equal(call.status, MC_OK); /* the new one was not removed for the old one */
  assert_int_equal(pread(call.object->fd, &byte, 1, 0), 1);
  object_release(call.object);
  assert_int_equal(tier_open(&call.object, call.tier, &call.digest, true, &forever, NULL), MC_OK);
  object_release(call.object);
  free(call.table);
  tier_close(call.tier);
}

static void an_eviction_passes_over_what_is_being_committed(void **state) {
  struct call call = {.tier = open_tier(*state, 2 * MIB)};
  put_closed(call.tier, MIB, 1, &call.digest);
  call.stage = stage_object(call.tier, MIB, 1, &call.digest, &call.table);
  fake_storage_hold(FAKE_STAGE_COMMIT, true);
  start(&call, commit_main);
  fake_storage_await_held(1);
  assert_int_equal(tier_reserve(call.tier, 2 * MIB, NULL), MC_NO_SPACE);
  fake_storage_hold(FAKE_STAGE_COMMIT, false);
  pthread_join(call.thread, NULL);
  assert_int_equal(call.status, MC_OK);
  object_release(call.object);
  assert_int_equal(tier_reserve(call.tier, 2 * MIB, NULL), MC_OK);
  tier_unreserve(call.tier, 2 * MIB);
  free(call.table);
  tier_close(call.tier);
}

static void what_is_doomed_and_committed_again_stays(void **state) {
  struct call call = {.tier = open_tier(*state, 0)};
  uint64_t bytes;
  struct object *reader = put(call.tier, MIB, 1, &call.digest);
  assert_int_equal(tier_remove(call.tier, &call.digest, &bytes, NULL), MC_OK);
  assert_int_equal(bytes, MIB);
  call.stage = stage_object(call.tier, MIB, 1, &call.digest, &call.table);
  fake_storage_hold(FAKE_STAGE_COMMIT, true);
  start(&call, commit_main);
  fake_storage_await_held(1);
  object_release(reader); /* the last reader of what was doomed */
  fake_storage_hold(FAKE_STAGE_COMMIT, false);
  pthread_join(call.thread, NULL);
  assert_int_equal(call.status, MC_OK);
  object_release(call.object);
  assert_int_equal(tier_open(&reader, call.tier, &call.digest, true, NULL, NULL), MC_OK);
  object_release(reader);
  free(call.table);
  tier_close(call.tier);
}

static void what_is_doomed_and_needed_again_stays(void **state) {
  struct tier *tier = open_tier(*state, 0);
  mc_digest digest;
  uint64_t bytes;
  struct object *reader = put(tier, MIB, 1, &digest);
  tier_refer(tier, &digest, 1, 0);
  tier_refer(tier, &digest, -1, 0);
  assert_int_equal(tier_remove(tier, &digest, &bytes, NULL), MC_OK);
  assert_true(object_is_doomed(reader));
  tier_refer(tier, &digest, 1, 0); /* another URL is found to have it */
  object_release(reader);
  assert_int_equal(tier_open(&reader, tier, &digest, true, NULL, NULL), MC_OK);
  object_release(reader);
  tier_close(tier);
}

#define ROUNDS 200

static void *churn_main(void *arg) {
  struct call *call = arg;
  for (int i = 0; i < ROUNDS && !call->status; i++) {
    struct object *object;
    uint64_t bytes;
    mc_digest digest;
    mc_chunk_table *table;
    mc_stage *stage = stage_object(call->tier, 1000, 3, &digest, &table);
    call->status = tier_commit(&object, call->tier, &stage, table, &digest, NULL);
    if (!call->status && object->size != 1000) call->status = MC_IO;
    if (!call->status) object_release(object);
    if (i % 3 == 0) tier_remove(call->tier, &digest, &bytes, NULL);
    if (i % 3 == 1 && tier_open(&object, call->tier, &digest, true, &forever, NULL) == MC_OK) object_release(object);
    free(table);
  }
  return NULL;
}

static void many_threads_on_one_digest(void **state) {
  struct call calls[4] = {{.tier = open_tier(*state, 0)}};
  struct tier *tier = calls[0].tier;
  struct tier_usage usage;
  for (int i = 0; i < 4; i++) {
    calls[i].tier = tier;
    start(&calls[i], churn_main);
  }
  for (int i = 0; i < 4; i++) {
    pthread_join(calls[i].thread, NULL);
    assert_int_equal(calls[i].status, MC_OK);
  }
  tier_usage(tier, &usage);
  assert_true(usage.objects <= 1 && usage.bytes == usage.objects * 1000 && usage.open == 0);
  tier_close(tier);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
      TEST(what_is_committed_is_open_and_verified),
      TEST(verifying_ends_with_its_call),
      TEST(what_was_there_before_is_verified_once),
      TEST(what_another_vouches_for_is_not_verified_again),
      TEST(what_a_reader_found_damaged_is_verified_again),
      TEST(what_is_committed_is_not_what_a_reader_has),
      TEST(objects_outlive_their_tier),
      TEST(a_budget_holds),
      TEST(small_budgets_have_watermarks_too),
      TEST(pins_and_references_count),
      TEST(what_can_not_be_opened_now_still_counts),
      TEST(pins_and_references_outlive_the_object),
      TEST(got_again_means_in_time),
      TEST(a_commit_waits_for_a_removal_of_its_digest),
      TEST(an_eviction_passes_over_what_is_being_committed),
      TEST(what_is_doomed_and_committed_again_stays),
      TEST(what_is_doomed_and_needed_again_stays),
      TEST(many_threads_on_one_digest),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
