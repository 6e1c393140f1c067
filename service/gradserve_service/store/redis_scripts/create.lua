-- Bind a name to a new run, unless it stands for a living one. Answers the record that the name has now.
-- A uid that was ever used stays used: a create that arrives late must not bring a deleted run back, empty.
-- KEYS: catalogue, names, run   ARGV: name, record ('0|uid|…'), genesis hash
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept and (string.sub(kept, 1, 1) == '0' or redis.call('EXISTS', KEYS[3]) == 1) then return kept end
if redis.call('EXISTS', KEYS[3]) == 1 then return false end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], '0', ARGV[1])
redis.call('HSET', KEYS[3], 'genesis', ARGV[3], 'head', ARGV[3], 'position', '0')
return ARGV[2]
