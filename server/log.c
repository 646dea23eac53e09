#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server.h"

static int log_format = LOG_TEXT;
static mc_log_level log_level = MC_LOG_INFO;

void log_begin(int format, mc_log_level level) {
  log_format = format;
  log_level = level;
}

/* The text as the inside of a JSON string; what does not fit is cut. */
static void escape(char *to, size_t size, const char *from) {
  size_t used = 0;
  for (; *from && used + 7 < size; from++) {
    unsigned char c = (unsigned char)*from;
    if (c == '"' || c == '\\') {
      to[used++] = '\\';
      to[used++] = (char)c;
    } else if (c < 0x20 || c == 0x7f) {
      used += (size_t)snprintf(to + used, size - used, "\\u%04x", c);
    } else {
      to[used++] = (char)c;
    }
  }
  to[used] = 0;
}

void log_write(void *user, mc_log_level level, const char *origin, const char *message) {
  static const char *const levels[] = {"error", "warn", "info", "debug"};
  (void)user;
  if (level > log_level) return;
  char line[2600], when[40], text[2400];
  struct timespec now;
  struct tm tm;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &tm);
  strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
  if (log_format == LOG_JSON) {
    escape(text, sizeof(text), message);
    snprintf(line, sizeof(line), "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"origin\":\"%s\",\"message\":\"%s\"}\n",
             when, now.tv_nsec / 1000000, levels[level], origin, text);
  } else {
    snprintf(line, sizeof(line), "%s.%03ldZ %s %s: %s\n", when, now.tv_nsec / 1000000, levels[level], origin, message);
  }
  ssize_t ignored = write(STDERR_FILENO, line, strlen(line)); /* one write: lines of threads do not mix */
  (void)ignored;
}

void log_say(mc_log_level level, const char *format, ...) {
  char message[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof(message), format, args);
  va_end(args);
  log_write(NULL, level, "modelcached", message);
}
