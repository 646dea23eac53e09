#include "regions.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"

void s3_regions_init(struct s3_regions *regions) {
  memset(regions, 0, sizeof(*regions));
  pthread_mutex_init(&regions->lock, NULL);
}

void s3_regions_end(struct s3_regions *regions) {
  pthread_mutex_destroy(&regions->lock);
}

static mc_hash128 key_of(const char *endpoint, const char *bucket) {
  char text[600];
  mc_hash128 key;
  snprintf(text, sizeof(text), "%s/%s", bucket, endpoint ? endpoint : "");
  xxh128_of(&key, text, strlen(text));
  return key;
}

bool s3_regions_find(struct s3_regions *regions, char region[S3_REGION_SIZE], const char *endpoint,
                     const char *bucket) {
  mc_hash128 key = key_of(endpoint, bucket);
  bool found = false;
  pthread_mutex_lock(&regions->lock);
  for (unsigned i = 0; i < S3_REGIONS && !found; i++) {
    found = regions->places[i].region[0] && hash128_equal(&regions->places[i].bucket, &key);
    if (found) memcpy(region, regions->places[i].region, S3_REGION_SIZE);
  }
  pthread_mutex_unlock(&regions->lock);
  return found;
}

void s3_regions_add(struct s3_regions *regions, const char *region, const char *endpoint, const char *bucket) {
  mc_hash128 key = key_of(endpoint, bucket);
  pthread_mutex_lock(&regions->lock);
  unsigned place = 0;
  while (place < S3_REGIONS && !hash128_equal(&regions->places[place].bucket, &key)) place++;
  if (place == S3_REGIONS) place = regions->next++ % S3_REGIONS;
  regions->places[place].bucket = key;
  snprintf(regions->places[place].region, S3_REGION_SIZE, "%s", region);
  pthread_mutex_unlock(&regions->lock);
}
