/* The files of profiles that the AWS tools share: ~/.aws/credentials and ~/.aws/config. */
#ifndef UPSTREAM_S3_PROFILE_H
#define UPSTREAM_S3_PROFILE_H

#include <stddef.h>

#include <modelcache/types.h>

#include "environment.h"

enum s3_profile_file { S3_CREDENTIALS, S3_CONFIG };

struct s3_profiles;

/* Read both, from where the environment says. A file that isn't there is as an empty one; MC_INVALID_ARGUMENT: one
 * can't be read. */
mc_status s3_profiles_read(struct s3_profiles **out, const struct s3_environment *environment, mc_error *err);
void s3_profiles_free(struct s3_profiles *profiles);

/* For tests and fuzzing: none yet (NULL: no memory); and add what a file says, of which `name` is for messages. */
struct s3_profiles *s3_profiles_new(void);
mc_status s3_profiles_add(struct s3_profiles *profiles, enum s3_profile_file file, const char *name, const char *text,
                          size_t size, mc_error *err);

/* Strings live as long as the profiles; NULL: it isn't said, or nothing after the '='. */

bool s3_profiles_have(const struct s3_profiles *profiles, const char *profile);
/* As one file says, or the credentials' first. Keys are in lower case; one of a group is "s3.addressing_style". */
const char *s3_profiles_value_in(const struct s3_profiles *profiles, enum s3_profile_file file, const char *profile,
                                 const char *key);
const char *s3_profiles_value(const struct s3_profiles *profiles, const char *profile, const char *key);
/* Of "s3" or "sts": of the [services …] that the profile names, or of the profile for all. */
const char *s3_profiles_endpoint(const struct s3_profiles *profiles, const char *profile, const char *service);

#endif
