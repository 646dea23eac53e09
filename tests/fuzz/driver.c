/* Runs a fuzz target without libFuzzer: over every file of the folders that it is given. Arguments that begin with '-'
 * are libFuzzer's, and ignored. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "fuzz.h"

#define INPUT_MAX ((size_t)16 << 20)

/* Each input in memory of its own size, so that a sanitizer sees a read behind its end. */
static bool run_file(const char *path) {
  void *data;
  size_t size;
  int error = file_read(path, &data, &size, INPUT_MAX);
  if (error) {
    fprintf(stderr, "%s: %s\n", path, strerror(error));
    return false;
  }
  uint8_t *input = malloc(size ? size : 1);
  if (input && size) memcpy(input, data, size);
  free(data);
  if (!input) return false;
  fprintf(stderr, "%s\n", path); /* the last one is the one that broke it */
  LLVMFuzzerTestOneInput(input, size);
  free(input);
  return true;
}

static bool run_folder(const char *folder) {
  DIR *dir = opendir(folder);
  bool good = dir != NULL;
  size_t count = 0;
  for (struct dirent *entry; good && (entry = readdir(dir));) {
    if (entry->d_name[0] == '.') continue;
    char *path = format_str("%s/%s", folder, entry->d_name);
    good = path && run_file(path);
    count += good;
    free(path);
  }
  if (dir) closedir(dir);
  if (!count) fprintf(stderr, "%s: no inputs\n", folder);
  return good && count > 0;
}

int main(int argc, char **argv) {
  bool good = true;
  LLVMFuzzerTestOneInput(NULL, 0);
  for (int i = 1; i < argc; i++) {
    if (argv[i][0] != '-') good = run_folder(argv[i]) && good;
  }
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
