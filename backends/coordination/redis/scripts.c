/* The scripts. ARGV[1] is the prefix of all keys, ARGV[2] the entry's key where it is about one; what else they take
 * and give stands above each.
 *
 * Times are microseconds of Redis' own clock: members' clocks need not agree. Numbers are doubles, exact to 2^53: in
 * the year 2255 they would not be.
 *
 * `born` is when what Redis knows began. A claim that isn't there, of a token granted before that, has been lost with
 * everything else, and not to another: its owner goes on. */
#include "scripts.h"

#define COMMON                                                                                                         \
  "local prefix, key = ARGV[1], ARGV[2]\n"                                                                             \
  "local entry_key, claim_key = prefix .. 'entry:' .. key, prefix .. 'claim:' .. key\n"                                \
  "local function now()\n"                                                                                             \
  "  local t = redis.call('TIME')\n"                                                                                   \
  "  return t[1] * 1000000 + t[2]\n"                                                                                   \
  "end\n"                                                                                                              \
  "local function number(value)\n"                                                                                     \
  "  return tonumber(value or 0) or 0\n"                                                                               \
  "end\n"                                                                                                              \
  "local function text(value)\n"                                                                                       \
  "  return string.format('%.0f', value)\n"                                                                            \
  "end\n"                                                                                                              \
  "local function decode(json)\n"                                                                                      \
  "  local fine, entry = pcall(cjson.decode, json or '')\n"                                                            \
  "  return fine and type(entry) == 'table' and entry or {}\n"                                                         \
  "end\n"

/* Whether the claim of that token is the caller's; and the end of a claim, told to those who wait for it. */
#define CLAIMS                                                                                                         \
  "local function begin()\n"                                                                                           \
  "  if redis.call('EXISTS', prefix .. 'born') == 0 then redis.call('SET', prefix .. 'born', text(now())) end\n"       \
  "end\n"                                                                                                              \
  "local function holds(token)\n"                                                                                      \
  "  if token == '0' then return false end\n"                                                                          \
  "  local held = redis.call('HGET', claim_key, 'token')\n"                                                            \
  "  if held then return held == token end\n"                                                                          \
  "  local born = redis.call('GET', prefix .. 'born')\n"                                                               \
  "  if born and number(born) <= number(token) then return false end\n"                                                \
  "  return number(decode(redis.call('GET', entry_key)).revision) < number(token)\n"                                   \
  "end\n"                                                                                                              \
  "local function free()\n"                                                                                            \
  "  local token = redis.call('HGET', claim_key, 'token')\n"                                                           \
  "  if not token then return end\n"                                                                                   \
  "  redis.call('DEL', claim_key)\n"                                                                                   \
  "  redis.call('PUBLISH', prefix .. 'flight:' .. key, '{\"token\":' .. token .. ',\"ms\":0}')\n"                      \
  "end\n"                                                                                                              \
  "local function is_held()\n"                                                                                         \
  "  return number(redis.call('HGET', claim_key, 'until')) > now()\n"                                                  \
  "end\n"                                                                                                              \
  "local function keep(ms)\n"                                                                                          \
  "  redis.call('HSET', claim_key, 'until', text(now() + ms * 1000))\n"                                                \
  "  redis.call('PEXPIRE', claim_key, text(ms * 20 + 600000))\n"                                                       \
  "end\n"                                                                                                              \
  "local function tell(member, before, after)\n"                                                                       \
  "  redis.call('PUBLISH', prefix .. 'news', '{\"key\":\"' .. key .. '\",\"by\":' .. cjson.encode(member) ..\n"        \
  "    ',\"before\":' .. (before or 'null') .. ',\"now\":' .. (after or 'null') .. '}')\n"                             \
  "end\n"

const char *const redis_scripts[SCRIPT_COUNT] = {
    /* → nil, or the entry's JSON, and the endpoints that have its object in memory */
    [SCRIPT_LOOKUP] = COMMON "local json = redis.call('GET', entry_key)\n"
                             "if not json then return false end\n"
                             "local found, digest = {json}, decode(json).digest\n"
                             "if type(digest) == 'string' and #digest == 64 then\n"
                             "  local holders = redis.call('ZRANGEBYSCORE', prefix .. 'holders:' .. digest,\n"
                             "    '(' .. text(now() / 1000), '+inf', 'LIMIT', 0, 64)\n"
                             "  for _, endpoint in ipairs(holders) do found[#found + 1] = endpoint end\n"
                             "end\n"
                             "return found\n",

    /* member, lease in ms → 1 or 0 (granted), token, owner */
    [SCRIPT_CLAIM] = COMMON CLAIMS "local member, ms = ARGV[3], tonumber(ARGV[4])\n"
                                   "begin()\n"
                                   "local held = redis.call('HMGET', claim_key, 'token', 'owner')\n"
                                   "if is_held() then return {0, held[1], held[2]} end\n"
                                   "local known = number(decode(redis.call('GET', entry_key)).revision)\n"
                                   "local token = text(math.max(now(), number(held[1]) + 1, known + 1))\n"
                                   "free()\n"
                                   "redis.call('HSET', claim_key, 'token', token)\n"
                                   "redis.call('HSET', claim_key, 'owner', member)\n"
                                   "keep(ms)\n"
                                   "return {1, token, member}\n",

    /* member, lease in ms, token, news or '' → 1 or 0 (lost) */
    [SCRIPT_RENEW] = COMMON CLAIMS "local member, ms, token, news = ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]\n"
                                   "if not holds(token) then return 0 end\n"
                                   "redis.call('HSET', claim_key, 'token', token)\n"
                                   "redis.call('HSET', claim_key, 'owner', member)\n"
                                   "if news ~= '' then redis.call('HSET', claim_key, 'news', news) end\n"
                                   "keep(ms)\n"
                                   "redis.call('PUBLISH', prefix .. 'flight:' .. key, '{\"token\":' .. token ..\n"
                                   "  ',\"ms\":' .. text(ms) .. (news ~= '' and ',\"news\":' .. news or '') .. '}')\n"
                                   "return 1\n",

    /* member, token, entry's JSON, its URL → 'ok', 'lost', 'held' or 'newer' */
    [SCRIPT_PUBLISH] = COMMON CLAIMS "local member, token, json, url = ARGV[3], ARGV[4], ARGV[5], ARGV[6]\n"
                                     "local before = redis.call('GET', entry_key)\n"
                                     "local old, new = decode(before), decode(json)\n"
                                     "begin()\n"
                                     "if token ~= '0' then\n"
                                     "  if not holds(token) then return 'lost' end\n"
                                     "elseif is_held() then\n"
                                     "  return 'held'\n"
                                     "elseif number(old.revision) > number(new.revision) then\n"
                                     "  return 'newer'\n"
                                     "end\n"
                                     "redis.call('SET', entry_key, json)\n"
                                     "redis.call('ZADD', prefix .. 'urls', 0, url)\n"
                                     "free()\n"
                                     "if not old.url then before = false end\n"
                                     "if not before or old.digest ~= new.digest or old.missing ~= new.missing or\n"
                                     "   old.pinned ~= new.pinned then tell(member, before, json) end\n"
                                     "return 'ok'\n",

    /* token */
    [SCRIPT_ABANDON] = COMMON CLAIMS "if redis.call('HGET', claim_key, 'token') == ARGV[3] then free() end\n"
                                     "return 1\n",

    /* token → nil: that claim has ended; or ms until it does, and its news or '' */
    [SCRIPT_LOOK] = COMMON "local held = redis.call('HMGET', claim_key, 'token', 'until', 'news')\n"
                           "local left = number(held[2]) - now()\n"
                           "if held[1] ~= ARGV[3] or left <= 0 then return false end\n"
                           "return {math.ceil(left / 1000), held[3] or ''}\n",

    /* member → 1 or 0 (it is claimed) */
    [SCRIPT_FORGET] = COMMON CLAIMS "if is_held() then return 0 end\n"
                                    "local before = redis.call('GET', entry_key)\n"
                                    "redis.call('DEL', entry_key)\n"
                                    "free()\n"
                                    "local old = decode(before)\n"
                                    "if type(old.url) == 'string' then\n"
                                    "  redis.call('ZREM', prefix .. 'urls', old.url)\n"
                                    "  tell(ARGV[3], before, false)\n"
                                    "end\n"
                                    "return 1\n",

    /* member, document, ms → whether what was lost has been brought back; when what is known began */
    [SCRIPT_PRESENT] =
        COMMON CLAIMS "begin()\n"
                      "local ms = math.floor(now() / 1000)\n"
                      "redis.call('SET', prefix .. 'pod:' .. ARGV[3], ARGV[4], 'PX', ARGV[5])\n"
                      "redis.call('ZADD', prefix .. 'pods', text(ms), ARGV[3])\n"
                      "redis.call('ZREMRANGEBYSCORE', prefix .. 'pods', '-inf', text(ms - 3600000))\n"
                      "return {redis.call('EXISTS', prefix .. 'filled'), redis.call('GET', prefix .. 'born')}\n",

    /* member */
    [SCRIPT_LEAVE] = COMMON "redis.call('DEL', prefix .. 'pod:' .. ARGV[3])\n"
                            "redis.call('ZREM', prefix .. 'pods', ARGV[3])\n"
                            "return 1\n",

    /* from, to: which of those that told something lately → how many that was; member, document, ms since for each */
    [SCRIPT_MEMBERS] = COMMON "local ms = math.floor(now() / 1000)\n"
                              "local ids = redis.call('ZRANGE', prefix .. 'pods', ARGV[3], ARGV[4], 'WITHSCORES')\n"
                              "local found = {#ids / 2}\n"
                              "for i = 1, #ids, 2 do\n"
                              "  local document = redis.call('GET', prefix .. 'pod:' .. ids[i])\n"
                              "  if document then\n"
                              "    found[#found + 1] = ids[i]\n"
                              "    found[#found + 1] = document\n"
                              "    found[#found + 1] = math.max(0, ms - number(ids[i + 1]))\n"
                              "  end\n"
                              "end\n"
                              "return found\n",

    /* endpoint, ms, digests… */
    [SCRIPT_HOLD] = COMMON "local ms, endpoint, more = math.floor(now() / 1000), ARGV[3], tonumber(ARGV[4])\n"
                           "for i = 5, #ARGV do\n"
                           "  local held = prefix .. 'holders:' .. ARGV[i]\n"
                           "  if more > 0 then\n"
                           "    redis.call('ZADD', held, text(ms + more), endpoint)\n"
                           "    redis.call('ZREMRANGEBYSCORE', held, '-inf', text(ms))\n"
                           "    if redis.call('PTTL', held) < more then redis.call('PEXPIRE', held, text(more)) end\n"
                           "  else\n"
                           "    redis.call('ZREM', held, endpoint)\n"
                           "  end\n"
                           "end\n"
                           "return 1\n",
};
