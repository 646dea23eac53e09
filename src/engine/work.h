/* A pool of threads that run jobs: started as they are needed, ended when they have been idle for a while. */
#ifndef ENGINE_WORK_H
#define ENGINE_WORK_H

#include <modelcache/types.h>

struct work;

/* A job is embedded in what it works on. */
struct work_job {
  void (*run)(struct work_job *job);
  struct work_job *prev, *next;
};

/* At most `threads` at once; more jobs than that queue. */
mc_status work_new(struct work **out, uint32_t threads, mc_error *err);
/* Never blocks. If not even one thread can be started the job is refused: MC_RESOURCE_EXHAUSTED. Refused
 * with MC_CANCELLED once work_free has begun: a job that it still runs may try. */
mc_status work_submit(struct work *work, struct work_job *job, mc_error *err);
/* Run what is queued to its end and join the threads. Nobody but its own jobs may submit any more, and they are
 * refused. */
void work_free(struct work *work);

#endif
