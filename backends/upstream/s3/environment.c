#include "environment.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/origin.h"

static const char *const names[S3_VARIABLES] = {
    [S3_ACCESS_KEY_ID] = "AWS_ACCESS_KEY_ID",
    [S3_SECRET_ACCESS_KEY] = "AWS_SECRET_ACCESS_KEY",
    [S3_SESSION_TOKEN] = "AWS_SESSION_TOKEN",
    [S3_REGION] = "AWS_REGION",
    [S3_DEFAULT_REGION] = "AWS_DEFAULT_REGION",
    [S3_ENDPOINT_URL] = "AWS_ENDPOINT_URL",
    [S3_ENDPOINT_URL_S3] = "AWS_ENDPOINT_URL_S3",
    [S3_ENDPOINT_URL_STS] = "AWS_ENDPOINT_URL_STS",
    [S3_IGNORE_ENDPOINTS] = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    [S3_PROFILE] = "AWS_PROFILE",
    [S3_DEFAULT_PROFILE] = "AWS_DEFAULT_PROFILE",
    [S3_CREDENTIALS_FILE] = "AWS_SHARED_CREDENTIALS_FILE",
    [S3_CONFIG_FILE] = "AWS_CONFIG_FILE",
    [S3_HOME] = "HOME",
    [S3_ROLE_ARN] = "AWS_ROLE_ARN",
    [S3_ROLE_SESSION_NAME] = "AWS_ROLE_SESSION_NAME",
    [S3_WEB_IDENTITY_TOKEN_FILE] = "AWS_WEB_IDENTITY_TOKEN_FILE",
    [S3_CONTAINER_RELATIVE_URI] = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    [S3_CONTAINER_FULL_URI] = "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    [S3_CONTAINER_TOKEN] = "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    [S3_CONTAINER_TOKEN_FILE] = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    [S3_METADATA_DISABLED] = "AWS_EC2_METADATA_DISABLED",
    [S3_METADATA_ENDPOINT] = "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    [S3_METADATA_ENDPOINT_MODE] = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
};

bool s3_environment_read(struct s3_environment *environment) {
  bool good = true;
  *environment = (struct s3_environment){0};
  for (int i = 0; i < S3_VARIABLES; i++) {
    const char *value = getenv(names[i]);
    if (!value || !*value) continue;
    environment->values[i] = strdup(value);
    good = good && environment->values[i];
  }
  return good;
}

void s3_environment_free(struct s3_environment *environment) {
  for (int i = 0; i < S3_VARIABLES; i++) secret_free(environment->values[i]);
}

const char *s3_variable_name(enum s3_variable variable) {
  return names[variable];
}

bool s3_environment_says(const struct s3_environment *environment, enum s3_variable variable) {
  return environment->values[variable] && strcasecmp(environment->values[variable], "true") == 0;
}

const char *s3_environment_first(const struct s3_environment *environment, enum s3_variable a, enum s3_variable b,
                                 const char **name) {
  enum s3_variable variable = environment->values[a] ? a : b;
  if (name) *name = names[variable];
  return environment->values[variable];
}
