#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define PLAIN_EVERY_MS 2000

const char *human_size(char text[32], uint64_t bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = (double)bytes;
  int unit = 0;
  for (; value >= 1024 && unit < 4; unit++) value /= 1024;
  snprintf(text, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
  return text;
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void progress_begin(struct progress *progress, const char *what, bool quiet) {
  const char *slash = strrchr(what, '/');
  *progress = (struct progress){.what = slash && slash[1] ? slash + 1 : what,
                                .terminal = isatty(STDERR_FILENO),
                                .quiet = quiet,
                                .said_at = now_ms()};
}

static unsigned columns(void) {
  struct winsize size;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

static void say(struct progress *progress, const char *text) {
  if (progress->terminal) {
    fprintf(stderr, "\r\033[K%.*s", (int)columns() - 1, text);
    progress->shown = true;
  } else if (now_ms() - progress->said_at >= PLAIN_EVERY_MS) {
    progress->said_at = now_ms();
    fprintf(stderr, "%s\n", text);
  }
}

void progress_update(void *user, const mc_progress *news) {
  struct progress *progress = user;
  char text[512], done[32], total[32], rate[32], eta[48] = "", bar[24] = "";
  if (progress->quiet) return;
  if (news->phase != MC_PHASE_DOWNLOADING && news->bytes == 0) {
    snprintf(text, sizeof(text), "%.60s: %s", progress->what, news->reason);
  } else if (news->total != MC_SIZE_UNKNOWN && news->total > 0) {
    if (news->eta_ms >= 0) snprintf(eta, sizeof(eta), ", %" PRId64 " s left", (news->eta_ms + 999) / 1000);
    int full = (int)(news->bytes * 20 / news->total);
    for (int i = 0; i < 20; i++) bar[i] = i < full ? '#' : '.';
    snprintf(text, sizeof(text), "%.60s [%s] %3d %%  %s of %s, %s/s%s", progress->what, bar,
             (int)(news->bytes * 100 / news->total), human_size(done, news->bytes), human_size(total, news->total),
             human_size(rate, news->rate), eta);
  } else {
    snprintf(text, sizeof(text), "%.60s  %s, %s/s", progress->what, human_size(done, news->bytes),
             human_size(rate, news->rate));
  }
  say(progress, text);
}

void progress_files(void *user, uint64_t files, uint64_t all, uint64_t bytes, uint64_t total) {
  struct progress *progress = user;
  char text[256], done[32], whole[32];
  if (progress->quiet) return;
  snprintf(text, sizeof(text), "%" PRIu64 " of %" PRIu64 " files, %s of %s", files, all, human_size(done, bytes),
           human_size(whole, total));
  say(progress, text);
}

void progress_end(struct progress *progress) {
  if (progress->shown) fprintf(stderr, "\r\033[K");
  progress->shown = false;
}
