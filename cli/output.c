/* Everything that is written: lines on stderr, the terminal's bottom line, JSON, sizes and times for people. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

/* stderr is written to by the library's threads too (log, progress): one at a time. */
static pthread_mutex_t stderr_lock = PTHREAD_MUTEX_INITIALIZER;
static bool line_shown; /* under stderr_lock */

/* ---- stderr ---- */

static void take_line_away(void) {
  if (line_shown) fputs("\r\033[K", stderr);
  line_shown = false;
}

static void say_args(const char *format, va_list args) {
  char text[1200];
  vsnprintf(text, sizeof(text), format, args);
  printable(text, sizeof(text), text);
  pthread_mutex_lock(&stderr_lock);
  take_line_away();
  fprintf(stderr, "modelcache: %s\n", text);
  pthread_mutex_unlock(&stderr_lock);
}

void say(const char *format, ...) {
  va_list args;
  va_start(args, format);
  say_args(format, args);
  va_end(args);
}

int usage(const char *format, ...) {
  va_list args;
  va_start(args, format);
  say_args(format, args);
  va_end(args);
  return EXIT_USAGE;
}

int fail(const struct command_line *line, const char *what, const mc_error *error) {
  char shown[PRINTABLE_URL];
  const char *message = *error->message ? error->message : mc_status_name(error->status);
  if (line->json) {
    print_json(json_pack("{so ss so}", "url", *what ? json_text(what) : json_null(), "error",
                         mc_status_name(error->status), "message", json_text(message)));
  }
  printable_url(shown, sizeof(shown), what);
  bool named = !*shown || strstr(message, shown); /* most messages name their URL */
  say("%s%s%s: %s", line->command, named ? "" : " ", named ? "" : shown, message);
  return exit_code_of(error->status);
}

void log_line(void *user, mc_log_level level, const char *origin, const char *message) {
  static const char *const names[] = {"error", "warning", "info", "debug"};
  (void)user;
  if (level <= MC_LOG_WARN) {
    say("%s: %s", names[level], message);
  } else {
    say("%s: %s: %s", names[level], origin, message);
  }
}

void status_line(const char *text) {
  pthread_mutex_lock(&stderr_lock);
  take_line_away();
  if (text) {
    fputs(text, stderr);
    line_shown = true;
  }
  fflush(stderr);
  pthread_mutex_unlock(&stderr_lock);
}

unsigned terminal_width(void) {
  struct winsize size;
  const char *columns = getenv("COLUMNS");
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col) return size.ws_col;
  return columns && atoi(columns) > 0 ? (unsigned)atoi(columns) : 80;
}

/* ---- stdout ---- */

void print_json(json_t *json) {
  char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
  if (text) {
    puts(text);
  } else {
    errno = ENOMEM;
    say("no memory for a document");
  }
  free(text);
  json_decref(json);
}

/* How many bytes at `text` are one character of UTF-8; 0: they are none. jansson refuses what this refuses. */
static size_t character(const unsigned char *text) {
  if (*text < 0x80) return 1;
  size_t length = *text >= 0xf0 ? 4 : *text >= 0xe0 ? 3 : 2;
  if (*text < 0xc2 || *text > 0xf4) return 0;
  for (size_t i = 1; i < length; i++) {
    if ((text[i] & 0xc0) != 0x80) return 0;
  }
  if (*text == 0xe0 && text[1] < 0xa0) return 0; /* longer than needed */
  if (*text == 0xf0 && text[1] < 0x90) return 0;
  if (*text == 0xed && text[1] > 0x9f) return 0; /* half of a pair */
  if (*text == 0xf4 && text[1] > 0x8f) return 0; /* beyond the last */
  return length;
}

json_t *json_text(const char *text) {
  static const char unknown[] = "\xef\xbf\xbd";
  char *clean = malloc(3 * strlen(text) + 1), *to = clean;
  if (!clean) return NULL;
  while (*text) {
    size_t size = character((const unsigned char *)text);
    memcpy(to, size ? text : unknown, size ? size : 3);
    to += size ? size : 3;
    text += size ? size : 1;
  }
  *to = 0;
  json_t *json = json_string(clean);
  free(clean);
  return json;
}

json_t *json_text_or_null(const char *text) {
  return *text ? json_text(text) : json_null();
}

json_t *json_time_or_null(int64_t time) {
  return time ? json_integer(time) : json_null();
}

json_t *json_size(uint64_t size) {
  return size == MC_SIZE_UNKNOWN ? json_null() : json_integer((json_int_t)size);
}

bool output_works(void) {
  return !ferror(stdout);
}

int output_end(int code) {
  bool failed = fflush(stdout) || ferror(stdout);
  if (!failed) return code;
  if (errno != EPIPE) say("can't write to stdout: %s", strerror(errno)); /* a reader who has seen enough is no news */
  return code ? code : EXIT_FAILED;
}

/* ---- for people ---- */

const char *printable(char *text, size_t size, const char *from) {
  size_t length = strnlen(from, size - 1);
  memmove(text, from, length);
  text[length] = 0;
  for (char *at = text; *at; at++) {
    bool high = (unsigned char)*at == 0xc2 && ((unsigned char)at[1] & 0xe0) == 0x80; /* U+0080 to U+009F */
    if ((unsigned char)*at < 0x20 || *at == 0x7f || high) *at = '?';
    if (high) *++at = '?';
  }
  return text;
}

const char *printable_url(char *text, size_t size, const char *url) {
  size_t length = strcspn(url, "?#");
  const char *start = strstr(url, "://");
  if (!start || start >= url + length) return printable(text, size, url);
  start += 3;
  const char *end = start + strcspn(start, "/?#"), *at = memrchr(start, '@', (size_t)(end - start));
  const char *rest = at ? at + 1 : start;
  snprintf(text, size, "%.*s%.*s%s", (int)(start - url), url, (int)(url + length - rest), rest,
           url[length] == '?' ? "?…" : "");
  return printable(text, size, text);
}

const char *human_size(char text[SHORT_TEXT], uint64_t bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = (double)bytes;
  int unit = 0;
  for (; value >= 1000 && unit < 5; unit++) value /= 1024;
  if (bytes == MC_SIZE_UNKNOWN) {
    strcpy(text, "?");
  } else {
    snprintf(text, SHORT_TEXT, unit && value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
  }
  return text;
}

const char *human_span(char text[SHORT_TEXT], int64_t ms) {
  int64_t seconds = (ms + 500) / 1000, minutes = (seconds + 30) / 60;
  if (ms < 0) {
    strcpy(text, "?");
  } else if (ms < 10000) {
    snprintf(text, SHORT_TEXT, "%.1f s", (double)ms / 1000);
  } else if (seconds < 120) {
    snprintf(text, SHORT_TEXT, "%" PRId64 " s", seconds);
  } else if (minutes < 120) {
    snprintf(text, SHORT_TEXT, "%" PRId64 " min", minutes);
  } else {
    snprintf(text, SHORT_TEXT, "%" PRId64 " h %" PRId64 " min", minutes / 60, minutes % 60);
  }
  return text;
}

const char *human_time(char text[SHORT_TEXT], int64_t ms_since_1970) {
  time_t seconds = ms_since_1970 / 1000;
  struct tm parts;
  if (!gmtime_r(&seconds, &parts) || !strftime(text, SHORT_TEXT, "%Y-%m-%d %H:%M:%S UTC", &parts)) strcpy(text, "?");
  return text;
}

int64_t wall_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}
