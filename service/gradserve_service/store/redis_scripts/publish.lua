-- Make an image the newest snapshot: compare-and-set. Snapshots that are dropped go with their objects, unless an entry
-- names them.
-- KEYS: run, journal, objects, each chunk of the new image, then each chunk of each dropped image
-- ARGV: expected newest or '', the new record, its position, its hash, the one before it from now on or '', number of
--       chunks, then the length of each chunk, then for each dropped image: object, chunks
local run = redis.call('HMGET', KEYS[1], 'head', 'position', 'deleted', 'newest', 'genesis')
if run[3] or not run[1] or (run[4] or '') ~= ARGV[1] then return 0 end
local hash
if ARGV[3] == run[2] then
  hash = run[1]
elseif ARGV[3] == '0' then
  hash = run[5]
else
  local id = ARGV[3] .. '-0'
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  hash = entry and entry[2][4]
end
if hash ~= ARGV[4] then return 0 end
local chunks = tonumber(ARGV[6])
for i = 1, chunks do
  if redis.call('STRLEN', KEYS[3 + i]) ~= tonumber(ARGV[6 + i]) then return 0 end
end

redis.call('HSET', KEYS[1], 'newest', ARGV[2])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'previous', ARGV[5]) else redis.call('HDEL', KEYS[1], 'previous') end
for i = 1, chunks do redis.call('PERSIST', KEYS[3 + i]) end
local key = 4 + chunks
for i = 7 + chunks, #ARGV, 2 do
  local after = key + tonumber(ARGV[i + 1])
  if not redis.call('ZSCORE', KEYS[3], ARGV[i]) then
    for k = key, after - 1 do redis.call('UNLINK', KEYS[k]) end
  end
  key = after
end
return 1
