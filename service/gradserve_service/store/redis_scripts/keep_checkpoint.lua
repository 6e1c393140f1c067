-- Bind a name to an object, which is kept from now on, unless the name is bound. Answers the record that it has now.
-- KEYS: run, checkpoints, then each chunk of the object
-- ARGV: name, record, then the length of each chunk
local run = redis.call('HMGET', KEYS[1], 'head', 'deleted')
if run[2] then return {'gone', '1'} end
if not run[1] then return {'gone', '0'} end
local kept = redis.call('HGET', KEYS[2], ARGV[1])
if kept then return {'kept', kept} end
for i = 3, #KEYS do
  if redis.call('STRLEN', KEYS[i]) ~= tonumber(ARGV[i]) then return {'missing'} end
end

redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for i = 3, #KEYS do redis.call('PERSIST', KEYS[i]) end
return {'kept', ARGV[2]}
