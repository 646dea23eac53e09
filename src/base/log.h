/* Shorthands for a module's messages. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <modelcache/types.h>

#define log_error(logger, origin, ...) mc_log(logger, MC_LOG_ERROR, origin, __VA_ARGS__)
#define log_warn(logger, origin, ...)  mc_log(logger, MC_LOG_WARN, origin, __VA_ARGS__)
#define log_info(logger, origin, ...)  mc_log(logger, MC_LOG_INFO, origin, __VA_ARGS__)
#define log_debug(logger, origin, ...) mc_log(logger, MC_LOG_DEBUG, origin, __VA_ARGS__)

#endif
