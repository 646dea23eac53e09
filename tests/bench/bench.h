/* What the programs of the benchmarks share: clocks, and the line of JSON that each run is answered with. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>

static inline double clock_seconds(clockid_t clock) {
  struct timespec time = {0};
  clock_gettime(clock, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline double now(void) {
  return clock_seconds(CLOCK_MONOTONIC);
}

static inline double cpu_seconds(void) {
  return clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

/* Of a process that this one has started. */
static inline double cpu_seconds_of(pid_t pid) {
  clockid_t clock;
  return clock_getcpuclockid(pid, &clock) ? 0 : clock_seconds(clock);
}

/* A destination has its memory while a run goes on, so that those of all programs need not fit at once: it is touched
 * before the clocks start, and given back after they have stopped. */
static inline void destination_touch(void *buffer, size_t size) {
  memset(buffer, 1, size);
}

static inline void destination_give_back(void *buffer, size_t size) {
  madvise(buffer, size, MADV_DONTNEED);
}

/* One run, with the clocks as they were when it began. `peer`: the process on the other side, or 0. */
struct run {
  pid_t peer;
  double begin, cpu, peer_cpu;
};

static inline struct run run_begin(pid_t peer) {
  return (struct run){peer, now(), cpu_seconds(), peer ? cpu_seconds_of(peer) : 0};
}

static inline void run_end(const struct run *run, unsigned long long bytes, const char *digest) {
  double end = now(), cpu = cpu_seconds(), peer_cpu = run->peer ? cpu_seconds_of(run->peer) : 0;
  printf("{\"seconds\": %.6f, \"cpu\": %.6f, \"peer_cpu\": %.6f, \"bytes\": %llu, \"digest\": \"%s\"}\n",
         end - run->begin, cpu - run->cpu, peer_cpu - run->peer_cpu, bytes, digest);
  fflush(stdout);
}

#endif
