-- Make an image the newest snapshot: compare-and-set. The one before the previous goes, unless an entry names its object.
-- KEYS: run, journal, objects, each chunk of the new image, then each chunk of the dropped image
-- ARGV: expected newest or '', the new record, its position, its hash, dropped object or '', number of chunks,
--       then the length of each chunk
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
if run[4] then redis.call('HSET', KEYS[1], 'previous', run[4]) end
for i = 1, chunks do redis.call('PERSIST', KEYS[3 + i]) end
if ARGV[5] ~= '' and not redis.call('ZSCORE', KEYS[3], ARGV[5]) then
  for i = 4 + chunks, #KEYS do redis.call('UNLINK', KEYS[i]) end
end
return 1
