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

/* How many bytes at `text` are one character of UTF-8; 0: they are none. */
static size_t character(const unsigned char *text) {
  size_t length = *text < 0x80 ? 1 : *text >= 0xf0 ? 4 : *text >= 0xe0 ? 3 : 2;
  if (*text >= 0x80 && (*text < 0xc2 || *text > 0xf4)) return 0;
  for (size_t i = 1; i < length; i++) {
    if ((text[i] & 0xc0) != 0x80) return 0;
  }
  bool odd = (*text == 0xe0 && text[1] < 0xa0) || (*text == 0xf0 && text[1] < 0x90) ||
             (*text == 0xed && text[1] > 0x9f) || (*text == 0xf4 && text[1] > 0x8f);
  return odd ? 0 : length;
}

/* The text without control characters and without what is no UTF-8, for JSON also as the inside of a string; what does
 * not fit is cut. */
static void escape(char *to, size_t size, const char *from, bool json) {
  size_t used = 0;
  while (*from && used + 8 < size) {
    unsigned char c = (unsigned char)*from;
    size_t length = character((const unsigned char *)from);
    bool control = c < 0x20 || c == 0x7f || (length == 2 && c == 0xc2 && (unsigned char)from[1] < 0xa0);
    if (control) {
      used += (size_t)snprintf(to + used, size - used, "\\u%04x", length == 2 ? (unsigned char)from[1] : c);
    } else if (length == 0) {
      used += (size_t)snprintf(to + used, size - used, "\xef\xbf\xbd");
    } else {
      if (json && (c == '"' || c == '\\')) to[used++] = '\\';
      memcpy(to + used, from, length);
      used += length;
    }
    from += length ? length : 1;
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
  escape(text, sizeof(text), message, log_format == LOG_JSON);
  if (log_format == LOG_JSON) {
    snprintf(line, sizeof(line), "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"origin\":\"%s\",\"message\":\"%s\"}\n",
             when, now.tv_nsec / 1000000, levels[level], origin, text);
  } else {
    snprintf(line, sizeof(line), "%s.%03ldZ %s %s: %s\n", when, now.tv_nsec / 1000000, levels[level], origin, text);
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
