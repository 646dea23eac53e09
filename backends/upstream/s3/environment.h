/* What the AWS tools take from the environment: read once, since other threads may change it later. */
#ifndef UPSTREAM_S3_ENVIRONMENT_H
#define UPSTREAM_S3_ENVIRONMENT_H

#include <stdbool.h>

enum s3_variable {
  S3_ACCESS_KEY_ID,
  S3_SECRET_ACCESS_KEY,
  S3_SESSION_TOKEN,
  S3_REGION,
  S3_DEFAULT_REGION,
  S3_ENDPOINT_URL,
  S3_ENDPOINT_URL_S3,
  S3_ENDPOINT_URL_STS,
  S3_IGNORE_ENDPOINTS,
  S3_PROFILE,
  S3_DEFAULT_PROFILE,
  S3_CREDENTIALS_FILE,
  S3_CONFIG_FILE,
  S3_HOME,
  S3_ROLE_ARN,
  S3_ROLE_SESSION_NAME,
  S3_WEB_IDENTITY_TOKEN_FILE,
  S3_CONTAINER_RELATIVE_URI,
  S3_CONTAINER_FULL_URI,
  S3_CONTAINER_TOKEN,
  S3_CONTAINER_TOKEN_FILE,
  S3_METADATA_DISABLED,
  S3_METADATA_ENDPOINT,
  S3_METADATA_ENDPOINT_MODE,
  S3_VARIABLES,
};

struct s3_environment {
  char *values[S3_VARIABLES]; /* NULL: not set, or empty */
};

/* false: no memory; free it then, too. */
bool s3_environment_read(struct s3_environment *environment);
void s3_environment_free(struct s3_environment *environment);
const char *s3_variable_name(enum s3_variable variable);
/* Whether it is "true". */
bool s3_environment_says(const struct s3_environment *environment, enum s3_variable variable);
/* Of the first of two that is set; *name its own. NULL: neither is. */
const char *s3_environment_first(const struct s3_environment *environment, enum s3_variable a, enum s3_variable b,
                                 const char **name);

#endif
