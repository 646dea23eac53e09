/* The regions of buckets, as they were found out: services tell them to who asks in another. */
#ifndef UPSTREAM_S3_REGIONS_H
#define UPSTREAM_S3_REGIONS_H

#include <pthread.h>

#include <modelcache/types.h>

#define S3_REGION_SIZE 64
#define S3_REGIONS     256

struct s3_regions {
  pthread_mutex_t lock; /* a leaf */
  struct {
    mc_hash128 bucket;
    char region[S3_REGION_SIZE]; /* "": an empty place */
  } places[S3_REGIONS];
  unsigned next;
};

void s3_regions_init(struct s3_regions *regions);
void s3_regions_end(struct s3_regions *regions);
/* Of the bucket at `endpoint` (NULL: AWS's). false: it isn't known. */
bool s3_regions_find(struct s3_regions *regions, char region[S3_REGION_SIZE], const char *endpoint, const char *bucket);
void s3_regions_add(struct s3_regions *regions, const char *region, const char *endpoint, const char *bucket);

#endif
