/* Threads for what blocks: on a disk, or on an upstream that may be slow or dead. */
#ifndef SERVER_JOBS_H
#define SERVER_JOBS_H

#include <stdbool.h>
#include <stdint.h>

/* Each has threads of its own: what waits for an upstream, for a client that reads a long list slowly, or for all of
 * the storage to be gone through, never keeps others from their answers. */
enum lane { LANE_LOCAL, LANE_LISTS, LANE_REPAIRS, LANE_UPSTREAM, LANE_COUNT };

/* A job is embedded in what it works on, which `run` may free. */
struct job {
  void (*run)(struct job *job);
  enum lane lane;
  uint64_t origin; /* the upstream that it may wait for, as a number; one origin gets a share of the threads */
  struct job *prev, *next;
};

struct jobs;
struct jobs *jobs_new(void);
/* Never blocks. false: too many wait already, or no thread can be started; then it is not run. */
bool jobs_submit(struct jobs *jobs, struct job *job);
/* Take no more jobs, run what waits, and join the threads; wait for that until `deadline` (nanoseconds of
 * CLOCK_MONOTONIC). false: some job still runs; then nothing is freed, and jobs_free must not be called. */
bool jobs_stop(struct jobs *jobs, int64_t deadline);
void jobs_free(struct jobs *jobs);

#endif
