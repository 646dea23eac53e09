/* Any text as both files of profiles. */
#include <string.h>

#include "backends/upstream/s3/profile.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const keys[] = {"aws_access_key_id", "region", "s3.addressing_style", "services", "role_arn"};
  static const char *const names[] = {"default", "other", ""};
  const char *text = size ? (const char *)data : "";
  struct s3_profiles *profiles = s3_profiles_new();
  CHECK(profiles);
  mc_status first = s3_profiles_add(profiles, S3_CREDENTIALS, "one", text, size, NULL);
  mc_status second = s3_profiles_add(profiles, S3_CONFIG, "other", text, size, NULL);
  CHECK(first == MC_OK || first == MC_INVALID_ARGUMENT);
  CHECK(second == MC_OK || second == MC_INVALID_ARGUMENT);
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
      const char *value = s3_profiles_value(profiles, names[i], keys[k]);
      CHECK(!value || (*value && strlen(value) <= size));
      CHECK(!value || s3_profiles_have(profiles, names[i]));
    }
    s3_profiles_endpoint(profiles, names[i], "s3");
  }
  s3_profiles_free(profiles);
  return 0;
}
