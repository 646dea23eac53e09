/* A stage, for the files that make, adopt and commit one. stage.c says what it is. */
#ifndef STORAGE_POSIX_STAGE_H
#define STORAGE_POSIX_STAGE_H

#include "posix.h"

#define NO_KEY      "0000000000000000000000000000000000000000000000000000000000000000"
#define OWN_FILES   "/proc/self/fd"
#define JOURNAL_MAX ((size_t)1 << 30)
#define NAME_SIZE   (KEY_SIZE + OWNER_SIZE + 17)

struct stage {
  mc_stage base;          /* first: callers see no more */
  int journal;            /* open to append */
  uint64_t journal_size;  /* of the file */
  uint64_t journal_bytes; /* of what was appended */
  int64_t seen_ms;        /* when the journal's time was last set for others to see */
  bool torn;              /* half a frame is behind them */
  bool unsound;           /* data could not be flushed: what the file holds is not known any more */
  struct draft record;    /* goes with the next commit */
  bool is_file;           /* its name is that of its data, and it has no journal */
  char name[NAME_SIZE];   /* of its folder; empty: it has none */
};

static inline struct stage *stage_of(mc_stage *base) {
  return (struct stage *)base;
}

static inline struct posix *storage_of(const struct stage *stage) {
  return posix_of(stage->base.storage);
}

/* ---- stage.c ---- */

char *stage_file(char path[PATH_SIZE], const struct posix *self, const char *name, const char *file);
/* Where the data of one that has a name is. */
char *stage_data(char path[PATH_SIZE], const struct stage *stage);
/* "<key>.<owner>.<random>": one that nothing else ever had. */
void stage_new_name(char name[NAME_SIZE], const char *key, const char *owner);
/* Make a stage's folder under a new name. 0 or an errno. */
int stage_make_folder(char name[NAME_SIZE], struct posix *self, const char *key);
/* Open the files of a stage's folder; with O_CREAT they are made. 0 or an errno. */
int stage_open_files(struct stage **out, struct posix *self, const char *name, int flags);
void stage_close_files(struct stage *stage);
/* A file without a name. 0 or an errno. */
int stage_open_nameless(int *fd, const struct posix *self, mode_t mode);
bool stage_is_full(int errnum);
mc_status stage_full(struct posix *self, uint64_t size, mc_error *err);
mc_status stage_bad_key(mc_error *err);

/* ---- adopt.c ---- */

/* Let go of a stage's folder: it is whose who renames it next. 0 or an errno. */
int stage_give_away(const struct posix *self, const char *name);

#endif
