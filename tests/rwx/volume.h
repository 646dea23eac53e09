/* A folder of this machine that is mounted by rwxfs, once for each machine that a test has. */
#ifndef RWX_VOLUME_H
#define RWX_VOLUME_H

#include <stdbool.h>
#include <sys/types.h>

#define MACHINES 2

struct volume {
  char folder[64];  /* all of it */
  char backing[80]; /* what is mounted */
  char control[80]; /* its switches: rwxfs.c says which */
  struct machine {
    char mount[80];
    pid_t rwxfs; /* 0: it's not mounted */
  } machines[MACHINES];
};

/* Make one, not mounted yet. NULL, or why there can't be any here. */
const char *volume_make(struct volume *volume);
/* Mount it on one machine, with options of rwxfs (a list that NULL ends) besides the switches. NULL, or why not. */
const char *volume_mount(struct volume *volume, int machine, const char *const options[]);
/* Kill rwxfs where it stands, and take the dead mount away. */
void volume_kill(struct volume *volume, int machine);
/* Unmount and remove all of it. */
void volume_remove(struct volume *volume);
void volume_switch(const struct volume *volume, const char *name, bool on);
bool volume_is_on(const struct volume *volume, const char *name);

#endif
