/* The baseline of every ratio: a file sent by sendfile() and received by recv(), and nothing else.
 *
 *   raw PATH CONNECTIONS [file OUT]
 *
 * A process of its own sends, with a thread for each connection; this one receives, likewise, into a buffer as large
 * as the file that was touched before, or with `file` through a megabyte of memory into a new file. Each connection
 * carries one range. Each line on the standard input makes it move the file once; it answers with a line of JSON.
 *
 * The settings are the fastest that we know: SO_RCVLOWAT, poll() and recv(MSG_DONTWAIT) of what stays in a core's
 * cache; sendfile() that blocks, of up to 4 MiB. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"

#define SEND_SIZE       ((size_t)4 << 20)
#define READ_SIZE       ((size_t)256 << 10)
#define WRITE_SIZE      ((size_t)1 << 20)
#define LOW_WATER       ((size_t)1 << 20)
#define MAX_CONNECTIONS 64

struct lane {
  int fd;   /* the socket */
  int file; /* sender */
  uint64_t offset, size;
  uint8_t *buffer; /* receiver */
  int out;         /* receiver: where the buffer is written to, or -1 */
  bool failed;
};

static void die(const char *what) {
  fprintf(stderr, "raw: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* Answer each byte that comes with the lane's range. */
static void *send_lane(void *arg) {
  struct lane *lane = arg;
  char go;
  while (recv(lane->fd, &go, 1, 0) == 1) {
    off_t offset = (off_t)lane->offset;
    uint64_t end = lane->offset + lane->size;
    while ((uint64_t)offset < end) {
      uint64_t left = end - (uint64_t)offset;
      if (sendfile(lane->fd, lane->file, &offset, left < SEND_SIZE ? left : SEND_SIZE) <= 0) return NULL;
    }
  }
  return NULL;
}

static void *receive_lane(void *arg) {
  struct lane *lane = arg;
  int low_water = 1;
  uint64_t done = 0;
  lane->failed = send(lane->fd, "g", 1, MSG_NOSIGNAL) != 1;
  bool writes = lane->out >= 0;
  size_t most = writes ? WRITE_SIZE : READ_SIZE;
  while (done < lane->size && !lane->failed) {
    uint64_t left = lane->size - done;
    ssize_t count = recv(lane->fd, lane->buffer + (writes ? 0 : done), left < most ? left : most, MSG_DONTWAIT);
    if (count > 0) {
      if (writes) lane->failed = pwrite(lane->out, lane->buffer, (size_t)count, (off_t)(lane->offset + done)) != count;
      done += (uint64_t)count;
    } else if (count == 0 || errno != EAGAIN) {
      lane->failed = true;
    } else {
      int wanted = (int)(left < LOW_WATER ? left : LOW_WATER);
      if (wanted != low_water) setsockopt(lane->fd, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof(wanted));
      low_water = wanted;
      poll(&(struct pollfd){.fd = lane->fd, .events = POLLIN}, 1, -1);
    }
  }
  return NULL;
}

static void run_lanes(struct lane *lanes, int count, void *(*lane)(void *arg)) {
  pthread_t threads[MAX_CONNECTIONS];
  for (int i = 0; i < count; i++) {
    if (pthread_create(&threads[i], NULL, lane, &lanes[i])) die("can't start a thread");
  }
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

/* The sending process; never returns. */
static void serve(int listener, struct lane *lanes, int count) {
  int one = 1;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (int i = 0; i < count; i++) {
    lanes[i].fd = accept(listener, NULL, NULL);
    if (lanes[i].fd < 0) die("can't accept");
    setsockopt(lanes[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  }
  run_lanes(lanes, count, send_lane);
  exit(0);
}

static int listen_anywhere(struct sockaddr_in *address) {
  socklen_t length = sizeof(*address);
  *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)address, length) || listen(fd, MAX_CONNECTIONS) ||
      getsockname(fd, (struct sockaddr *)address, &length)) {
    die("can't listen");
  }
  return fd;
}

int main(int count, char **args) {
  int connections = count > 2 ? atoi(args[2]) : 0;
  const char *path = count == 5 && strcmp(args[3], "file") == 0 ? args[4] : NULL;
  if (connections < 1 || connections > MAX_CONNECTIONS || (count != 3 && !path)) {
    fprintf(stderr, "usage: raw PATH CONNECTIONS [file OUT]\n");
    return 2;
  }
  struct stat info;
  struct sockaddr_in address;
  struct lane lanes[MAX_CONNECTIONS];
  int file = open(args[1], O_RDONLY), listener = listen_anywhere(&address);
  if (file < 0 || fstat(file, &info)) die(args[1]);
  uint64_t size = (uint64_t)info.st_size, share = size / (uint64_t)connections;
  for (int i = 0; i < connections; i++) {
    lanes[i] = (struct lane){.file = file, .out = -1, .offset = share * (uint64_t)i, .size = share};
  }
  lanes[connections - 1].size = size - lanes[connections - 1].offset;
  pid_t child = fork();
  if (child < 0) die("can't fork");
  if (child == 0) serve(listener, lanes, connections);

  size_t room = path ? WRITE_SIZE * (size_t)connections : (size_t)size;
  uint8_t *buffer = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (buffer == MAP_FAILED) die("no memory");
  for (int i = 0; i < connections; i++) {
    lanes[i].buffer = buffer + (path ? WRITE_SIZE * (size_t)i : lanes[i].offset);
    lanes[i].fd = socket(AF_INET, SOCK_STREAM, 0);
    if (lanes[i].fd < 0 || connect(lanes[i].fd, (struct sockaddr *)&address, sizeof(address))) die("can't connect");
  }
  char line[16];
  while (fgets(line, sizeof(line), stdin)) {
    destination_touch(buffer, room);
    struct run run = run_begin(child);
    int out = path ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0644) : -1;
    if (path && out < 0) die(path);
    for (int i = 0; i < connections; i++) lanes[i].out = out;
    run_lanes(lanes, connections, receive_lane);
    if (out >= 0) close(out);
    for (int i = 0; i < connections; i++) {
      if (lanes[i].failed) die("the transfer failed");
    }
    run_end(&run, size, "");
    destination_give_back(buffer, room);
  }
  return 0;
}
