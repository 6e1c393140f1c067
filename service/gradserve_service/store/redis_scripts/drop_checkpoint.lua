-- Remove a checkpoint, if it still is the one that is meant, together with its object.
-- KEYS: checkpoints, then each chunk of the object   ARGV: name, record
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
