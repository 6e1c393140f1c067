-- One step of trimming: the entries up to a position, together with the objects that only they name.
-- Never past the previous snapshot: recovery may have to start from it.
-- KEYS: run, journal, objects, then each chunk of each object   ARGV: position, then for each object: object, chunks
local run = redis.call('HMGET', KEYS[1], 'deleted', 'previous', 'newest')
if run[1] or not run[2] then return -1 end
if tonumber(ARGV[1]) > tonumber(string.match(run[2], '^%d+')) then return -1 end
local pattern = '^%S+ %S+ (%S+)'
local previous, newest = string.match(run[2], pattern), string.match(run[3], pattern)

local removed = redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[1] .. '-1')
local key = 4
for i = 2, #ARGV, 2 do
  local after = key + tonumber(ARGV[i + 1])
  local named = redis.call('ZSCORE', KEYS[3], ARGV[i])
  if named and tonumber(named) <= tonumber(ARGV[1]) then
    redis.call('ZREM', KEYS[3], ARGV[i])
    if ARGV[i] ~= previous and ARGV[i] ~= newest then
      for k = key, after - 1 do redis.call('UNLINK', KEYS[k]) end
    end
  end
  key = after
end
redis.call('HSET', KEYS[1], 'trimmed', ARGV[1])
return removed
