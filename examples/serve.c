/* The engine of modelcached in a program of one's own.   serve URL [FOLDER]
 *
 * The program has a cache, and serves the cache's objects over the TCP data plane, as modelcached does; which file is
 * which object it tells its clients in a way of its own (modelcached: by gRPC). Then it is such a client too, which
 * knows an endpoint and a digest and speaks nothing but the frames of docs/data-plane.md. */
#include <endian.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <modelcache/modelcache.h>

/* ---- the client ---- */

enum { FRAME_SIZE = 64, REQUEST = 1, DATA = 2, END = 3, WAIT = 4, OBJECT = 1 };

static int connect_to(const char *endpoint) {
  char host[256];
  const char *address = strstr(endpoint, "://") + 3, *port = strrchr(address, ':') + 1;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
  snprintf(host, sizeof(host), "%.*s", (int)(port - 1 - address), address);
  if (getaddrinfo(host, port, &hints, &list)) return -1;
  int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, list->ai_addr, list->ai_addrlen)) {
    close(fd);
    fd = -1;
  }
  freeaddrinfo(list);
  return fd;
}

static bool read_all(int fd, void *to, size_t size) {
  return size == 0 || recv(fd, to, size, MSG_WAITALL) == (ssize_t)size;
}

/* Ask for a whole object. malloced, *size bytes; NULL: it did not come. */
static char *read_object(int fd, const mc_digest *digest, size_t *size) {
  unsigned char frame[FRAME_SIZE] = {'M', 'C', 'D', 'P', 1, REQUEST, 0, OBJECT};
  uint32_t number = htole32(1);
  uint64_t offset = 0, length = htole64(UINT64_MAX); /* to its end */
  char *content = malloc(1);                         /* an empty object is content too */
  memcpy(frame + 8, &number, sizeof(number));
  memcpy(frame + 24, &length, sizeof(length));
  memcpy(frame + 32, digest->bytes, sizeof(digest->bytes));
  bool good = send(fd, frame, FRAME_SIZE, MSG_NOSIGNAL) == FRAME_SIZE;
  for (*size = 0; good;) {
    good = read_all(fd, frame, FRAME_SIZE);
    memcpy(&offset, frame + 16, sizeof(offset));
    memcpy(&length, frame + 24, sizeof(length));
    offset = le64toh(offset);
    length = le64toh(length);
    if (good && frame[5] == END) break;
    if (good && frame[5] == WAIT) continue;
    good = good && frame[5] == DATA && offset == *size && length <= MC_CHUNK_SIZE;
    char *more = good ? realloc(content, *size + length) : NULL;
    if (more) content = more;
    good = more && read_all(fd, content + *size, length);
    *size += good ? length : 0;
  }
  if (good && content) return content;
  free(content);
  return NULL;
}

static bool fetch_and_compare(const char *endpoint, mc_file *file) {
  const void *expected;
  size_t expected_size, size = 0;
  if (mc_file_map(file, &expected, &expected_size, NULL)) return false;
  int fd = connect_to(endpoint);
  char *content = fd < 0 ? NULL : read_object(fd, mc_file_digest(file), &size);
  bool same = content && size == expected_size && memcmp(content, expected, size) == 0;
  printf("%s: %zu bytes, %s\n", endpoint, size, same ? "the same" : "not the same");
  free(content);
  if (fd >= 0) close(fd);
  return same;
}

/* ---- the server ---- */

static void print_served(mc_cache *cache) {
  mc_stat_row rows[64];
  mc_stats(cache, rows, sizeof(rows) / sizeof(*rows));
  for (mc_stat_row *row = rows; row->name; row++) {
    if (strcmp(row->name, "served_bytes_total") == 0) printf("%s: %llu\n", row->help, (unsigned long long)row->value);
  }
}

int main(int argc, char **argv) {
  mc_cache *cache = NULL;
  mc_server *server = NULL;
  mc_file *file = NULL;
  mc_error error = MC_ERROR_INIT;
  mc_options options = MC_OPTIONS_INIT;
  mc_serve_options serve;
  if (argc < 2) return 2;
  if (argc > 2) options.storage = argv[2];
  options.memory_capacity = (uint64_t)256 << 20; /* what is asked for often is served from memory */
  mc_serve_options_init(&serve);
  serve.address = "127.0.0.1:0";
  bool same = false;
  if (mc_open_options(&cache, &options, &error) || mc_serve(&server, cache, &serve, &error) ||
      mc_get(&file, cache, argv[1], NULL, &error)) {
    fprintf(stderr, "%s: %s\n", mc_status_name(error.status), error.message);
  } else {
    same = fetch_and_compare(mc_server_endpoint(server), file);
    print_served(cache);
  }
  mc_file_release(file);
  mc_server_close(server, 5000);
  mc_close(cache);
  return same ? 0 : 1;
}
