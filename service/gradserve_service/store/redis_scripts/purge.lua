-- One step of removing a deleted run: some objects with all their chunks. Does nothing to a run that is not marked.
-- KEYS: run, objects, chunks   ARGV: the objects
if not redis.call('HGET', KEYS[1], 'deleted') then return 0 end
for i = 1, #ARGV do redis.call('ZREM', KEYS[2], ARGV[i]) end
for i = 3, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
