#include "tests/rwx/volume.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"

const char *volume_make(struct volume *volume) {
  const char *program = getenv("RWXFS");
  *volume = (struct volume){.folder = "/tmp/mc-volume-XXXXXX"};
  if (!program || access(program, X_OK)) return "rwxfs was not built, for want of fuse3";
  if (access("/dev/fuse", R_OK | W_OK)) return "there is no /dev/fuse";
  if (!mkdtemp(volume->folder)) return "can't make a folder in /tmp";
  snprintf(volume->backing, sizeof(volume->backing), "%s/backing", volume->folder);
  snprintf(volume->control, sizeof(volume->control), "%s/control", volume->folder);
  bool made = !mkdir(volume->backing, 0755) && !mkdir(volume->control, 0755);
  for (int i = 0; i < MACHINES; i++) {
    char *mount = volume->machines[i].mount;
    snprintf(mount, sizeof(volume->machines[i].mount), "%s/machine%d", volume->folder, i);
    made = made && !mkdir(mount, 0755);
  }
  return made ? NULL : "can't make folders in /tmp";
}

const char *volume_mount(struct volume *volume, int machine, const char *const options[]) {
  struct machine *at = &volume->machines[machine];
  char control[128], *argv[16] = {getenv("RWXFS"), volume->backing, at->mount, control};
  int pipe_fds[2], count = 4;
  snprintf(control, sizeof(control), "--control=%s", volume->control);
  for (size_t i = 0; options[i] && count < 15; i++) argv[count++] = (char *)options[i];
  if (pipe2(pipe_fds, O_CLOEXEC)) return "can't make a pipe";
  fflush(NULL);
  at->rwxfs = fork();
  if (at->rwxfs < 0) return "can't start a process";
  if (at->rwxfs == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* should the test die */
    dup2(pipe_fds[1], STDOUT_FILENO);
    execv(argv[0], argv);
    _exit(127);
  }
  char ready;
  close(pipe_fds[1]);
  bool mounted = read(pipe_fds[0], &ready, 1) == 1;
  close(pipe_fds[0]);
  if (mounted) return NULL;
  waitpid(at->rwxfs, NULL, 0);
  at->rwxfs = 0;
  return "rwxfs can't mount here, which takes root or fusermount3";
}

static void end(struct machine *machine, int signal) {
  if (!machine->rwxfs) return;
  kill(machine->rwxfs, signal);
  waitpid(machine->rwxfs, NULL, 0);
  umount2(machine->mount, MNT_DETACH);
  machine->rwxfs = 0;
}

void volume_kill(struct volume *volume, int machine) {
  end(&volume->machines[machine], SIGKILL);
}

void volume_remove(struct volume *volume) {
  for (int i = 0; i < MACHINES; i++) end(&volume->machines[i], SIGTERM);
  if (*volume->backing) remove_all(volume->folder);
}

static char *switch_path(char path[256], const struct volume *volume, const char *name) {
  snprintf(path, 256, "%s/%s", volume->control, name);
  return path;
}

void volume_switch(const struct volume *volume, const char *name, bool on) {
  char path[256];
  switch_path(path, volume, name);
  if (on) {
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  } else {
    unlink(path);
  }
}

bool volume_is_on(const struct volume *volume, const char *name) {
  char path[256];
  return access(switch_path(path, volume, name), F_OK) == 0;
}
