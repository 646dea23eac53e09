/* How far it is: on a terminal one line that is drawn again and again, elsewhere a plain line now and then. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#define FIRST_LINE_MS 2000  /* where stderr is no terminal: soon enough to see that it works … */
#define NEXT_LINE_MS  10000 /* … and seldom enough for a log */
#define LEAST_NAME    14
#define LEAST_BAR     10
#define MOST_BAR      32
#define LINE_SIZE     1024

static bool is_terminal(void) {
  const char *kind = getenv("TERM");
  return isatty(STDERR_FILENO) && kind && strcmp(kind, "dumb") != 0;
}

void progress_begin(struct progress *progress, const char *url, int number, int count, bool quiet) {
  char shown[PRINTABLE_URL];
  printable_url(shown, sizeof(shown), url);
  size_t length = strcspn(shown, "?");
  shown[length] = 0;
  while (length && shown[length - 1] == '/') shown[--length] = 0;
  const char *slash = strrchr(shown, '/');
  *progress = (struct progress){.quiet = quiet, .terminal = is_terminal(), .begun_at = now_ms()};
  progress->said_at = progress->begun_at - NEXT_LINE_MS + FIRST_LINE_MS;
  int used = count > 1 ? snprintf(progress->name, sizeof(progress->name), "%d/%d ", number, count) : 0;
  snprintf(progress->name + used, sizeof(progress->name) - (size_t)used, "%.250s", slash ? slash + 1 : shown);
}

/* ---- fitting it in ---- */

static bool continues(char c) {
  return ((unsigned char)c & 0xc0) == 0x80; /* a character of UTF-8 */
}

static unsigned columns_of(const char *text) {
  unsigned columns = 0;
  for (; *text; text++) columns += !continues(*text);
  return columns;
}

/* The end of `name`, which tells files of a series apart, in at most `room` columns. */
static void shorten(char *to, size_t size, const char *name, unsigned room) {
  unsigned columns = columns_of(name);
  if (columns <= room) {
    snprintf(to, size, "%s", name);
    return;
  }
  for (; columns + 1 > room && *name; columns--) {
    do name++;
    while (continues(*name));
  }
  snprintf(to, size, "…%s", name);
}

static bool is_counted(const mc_progress *news) {
  return news->total != MC_SIZE_UNKNOWN && news->total > 0;
}

static int percent(const mc_progress *news) {
  return (int)((double)news->bytes * 100 / (double)news->total);
}

/* Why nothing arrives, or NULL. */
static const char *wait_of(const mc_progress *news) {
  return news->phase != MC_PHASE_DOWNLOADING && news->reason && *news->reason ? news->reason : NULL;
}

/* What stands behind the name; the lower `detail`, the less. */
static void tail_of(char *tail, size_t size, const mc_progress *news, int detail, int64_t waited_ms) {
  char done[SHORT_TEXT], total[SHORT_TEXT], span[SHORT_TEXT];
  size_t used = 0;
  const char *wait = wait_of(news);
#define ADD(...) used += (size_t)snprintf(tail + used, size - used, __VA_ARGS__)
  *tail = 0;
  if (is_counted(news)) ADD("  %3d%%", percent(news));
  if (is_counted(news) && detail > 2) ADD("  %s of %s", human_size(done, news->bytes), human_size(total, news->total));
  if (!is_counted(news) && news->bytes) ADD("  %s", human_size(done, news->bytes));
  if (wait) {
    ADD("  %.200s", wait);
    if (detail > 1 && waited_ms >= 1000) ADD(", %s", human_span(span, waited_ms));
  } else {
    if (detail > 1 && news->rate) ADD("  %s/s", human_size(done, news->rate));
    if (detail > 0 && news->eta_ms >= 0 && is_counted(news)) ADD("  %s left", human_span(span, news->eta_ms));
  }
#undef ADD
}

static void add_bar(char *line, size_t size, const mc_progress *news, unsigned width) {
  size_t used = strlen(line);
  unsigned full = (unsigned)((double)news->bytes / (double)news->total * width);
  if (used + width + 4 > size) return;
  line[used++] = ' ';
  line[used++] = '[';
  for (unsigned i = 0; i < width; i++) line[used++] = i < full ? '=' : i == full ? '>' : ' ';
  line[used++] = ']';
  line[used] = 0;
}

/* "name [=====>   ]  42%  38.1 MiB of 90.9 MiB  12.3 MiB/s  4 s left" in less than `width` columns. */
static void render(char line[LINE_SIZE], const char *name, const mc_progress *news, unsigned width, bool bar,
                   int64_t waited_ms) {
  char tail[400], shown[PRINTABLE_URL + 4];
  unsigned room = 0, wanted = columns_of(name);
  if (width < 24) width = 24;
  for (int detail = 3; detail >= 0; detail--) {
    tail_of(tail, sizeof(tail), news, detail, waited_ms);
    unsigned taken = columns_of(tail) + 1;
    room = taken < width ? width - taken : 0;
    if (room >= wanted || room >= LEAST_NAME) break;
  }
  if (room < LEAST_NAME) { /* a long reason: cut it */
    size_t end = strlen(tail);
    while (end && columns_of(tail) > width - LEAST_NAME - 1) {
      do end--;
      while (end && continues(tail[end]));
      tail[end] = 0;
    }
    room = LEAST_NAME;
  }
  shorten(shown, sizeof(shown), name, room);
  snprintf(line, LINE_SIZE, "%s", shown);
  unsigned left = room - columns_of(shown);
  if (bar && is_counted(news) && left >= LEAST_BAR + 3) {
    add_bar(line, LINE_SIZE, news, left - 3 > MOST_BAR ? MOST_BAR : left - 3);
  }
  size_t used = strlen(line);
  snprintf(line + used, LINE_SIZE - used, "%s", tail);
}

/* ---- telling ---- */

static void tell(struct progress *progress, const char *name, const mc_progress *news) {
  char line[LINE_SIZE];
  int64_t now = now_ms();
  if (progress->quiet) return;
  if (progress->terminal) {
    render(line, name, news, terminal_width(), true, now - progress->begun_at);
    printable(line, sizeof(line), line);
    status_line(line);
  } else if (now - progress->said_at >= NEXT_LINE_MS) {
    progress->said_at = now;
    render(line, name, news, LINE_SIZE, false, now - progress->begun_at);
    say("%s", line);
  }
}

void progress_update(void *user, const mc_progress *news) {
  struct progress *progress = user;
  tell(progress, progress->name, news);
}

void progress_files(void *user, uint64_t files, uint64_t all, uint64_t bytes, uint64_t total) {
  struct progress *progress = user;
  char name[PRINTABLE_URL + 60];
  int64_t passed = now_ms() - progress->begun_at;
  mc_progress news = {.phase = MC_PHASE_DOWNLOADING, .bytes = bytes, .total = total, .eta_ms = -1};
  if (passed > 0) news.rate = (uint64_t)((double)bytes * 1000 / (double)passed);
  if (news.rate && total >= bytes) news.eta_ms = (int64_t)((double)(total - bytes) * 1000 / (double)news.rate);
  snprintf(name, sizeof(name), "%s: %" PRIu64 " of %" PRIu64 " files", progress->name, files, all);
  tell(progress, name, &news);
}

void progress_end(struct progress *progress) {
  if (progress->terminal && !progress->quiet) status_line(NULL);
}
