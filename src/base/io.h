/* Files: whole reads and writes, folders, atomic replacement. Every fd is opened with O_CLOEXEC; EINTR is retried. */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <modelcache/types.h>

/* All of `size` bytes or an error; 0 or an errno. pread_all: ENODATA when the file ends before. */
int pread_all(int fd, void *data, size_t size, uint64_t offset);
int pwrite_all(int fd, const void *data, size_t size, uint64_t offset);
int write_all(int fd, const void *data, size_t size);

/* mkdir -p; 0 or an errno. */
int mkdir_all(const char *path, mode_t mode);
int fsync_folder(const char *path); /* 0 or an errno; file systems that can't are fine */

/* The file's bytes, malloced, with a zero after them. 0 or an errno; EFBIG past `max`. */
int file_read(const char *path, void **data, size_t *size, size_t max);
/* Write `path` through a temporary file beside it and rename; with `durable` both file and folder are fsynced. */
int file_replace(const char *path, const void *data, size_t size, mode_t mode, bool durable);
/* Set a file's size and, where the file system can, its blocks aside. A failure leaves it as it was. 0 or an errno. */
int file_allocate(int fd, uint64_t size);
/* A file in the making that is to be `path`: it has no name until file_publish, where the file system can do that, so
 * that a process that dies leaves nothing. 0 or an errno. file_publish takes `fd` to its name, mode 0644, but does not
 * close it; *temporary is the name it has meanwhile (or NULL) and is freed by either end. */
int file_draft(int *fd, char **temporary, const char *path);
int file_publish(int fd, char *temporary, const char *path);
void file_discard(char *temporary);
/* Remove a file, or a folder and all below it, never following links. 0 or an errno; ENOENT counts as success. */
int remove_all(const char *path);
/* Copy the first `size` bytes of `from` to `to`, which is empty: reflink where the file system can, else
 * copy_file_range, else read and write. 0 or an errno. */
int copy_fd(int from, int to, uint64_t size);
/* The same as long as `go_on`, which is asked now and then, says so; else ECANCELED. */
int copy_fd_while(int from, int to, uint64_t size, bool (*go_on)(void *arg), void *arg);
/* The same of a whole file, the size that it has now, holes and all. */
int copy_fd_sparse(int from, int to);

/* asprintf that gives NULL on failure. */
char *format_str(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* `size` random bytes from the kernel. */
void random_bytes(void *data, size_t size);
/* A name that no other process has: "<boot and pid namespace, 8 hex>.<pid>.<start time of the process>", and whether
 * the process of such a name may still live: true for other boots, hosts or containers unless `older_than_ms` has
 * passed since `mtime_ms`, and while it can't be told, for want of descriptors for instance.
 * owner_name is false when it can't be told now who this process is: it's named as if it were of another machine. */
#define OWNER_SIZE 64
bool owner_name(char owner[OWNER_SIZE]);
bool owner_may_live(const char *owner, int64_t mtime_ms, int64_t older_than_ms);

#endif
