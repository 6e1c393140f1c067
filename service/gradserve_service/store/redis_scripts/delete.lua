-- Mark a run deleted and free its name, if the name still stands for it. Its keys go later, in batches.
-- ZREM comes first: it is allowed when memory is full, and after a first write the others are too.
-- KEYS: catalogue, names, deleting, run   ARGV: name, uid
local kept = redis.call('HGET', KEYS[1], ARGV[1])
local living = '0|' .. ARGV[2] .. '|'
if not kept or string.sub(kept, 1, #living) ~= living then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], '1' .. string.sub(kept, 2))
redis.call('HSET', KEYS[4], 'deleted', '1')
redis.call('SADD', KEYS[3], ARGV[2])
return 1
