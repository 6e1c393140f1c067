-- The last step of removing a deleted run. Its mark stays for a while: late writes are told that it was deleted.
-- KEYS: run, objects, journal, deleting, checkpoints   ARGV: uid, seconds the mark stays
if not redis.call('HGET', KEYS[1], 'deleted') then return 0 end
redis.call('UNLINK', KEYS[3], KEYS[2], KEYS[5])
redis.call('HDEL', KEYS[1], 'head', 'position', 'genesis', 'newest', 'previous', 'trimmed')
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('SREM', KEYS[4], ARGV[1])
return 1
