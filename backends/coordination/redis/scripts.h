/* What Redis does in one step: Lua scripts, which it keeps. */
#ifndef REDIS_SCRIPTS_H
#define REDIS_SCRIPTS_H

enum redis_script {
  SCRIPT_LOOKUP,
  SCRIPT_CLAIM,
  SCRIPT_RENEW,
  SCRIPT_PUBLISH,
  SCRIPT_ABANDON,
  SCRIPT_LOOK,
  SCRIPT_FORGET,
  SCRIPT_PRESENT,
  SCRIPT_LEAVE,
  SCRIPT_MEMBERS,
  SCRIPT_HOLD,
  SCRIPT_COUNT,
};

extern const char *const redis_scripts[SCRIPT_COUNT];

#endif
