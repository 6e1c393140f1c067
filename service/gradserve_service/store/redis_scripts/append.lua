-- Compare-and-append: every check first, then XADD as the first write, so that a refusal for memory leaves nothing.
-- KEYS: run, journal, objects, then each chunk of each object that the entries name
-- ARGV: expected head hash, new position, new head hash, number of chunks, number of entries,
--       then the length of each chunk, then for each entry: position, header, hash, inline payload, object or ''
local run = redis.call('HMGET', KEYS[1], 'head', 'position', 'deleted')
if run[3] then return {'gone', '1'} end
if not run[1] then return {'gone', '0'} end
if run[1] ~= ARGV[1] then return {'moved', run[2], run[1]} end
local chunks = tonumber(ARGV[4])
local missing = {'missing'}
for i = 1, chunks do
  if redis.call('STRLEN', KEYS[3 + i]) ~= tonumber(ARGV[5 + i]) then missing[#missing + 1] = KEYS[3 + i] end
end
if #missing > 1 then return missing end

local first = 6 + chunks
local last = first + 5 * (tonumber(ARGV[5]) - 1)
for i = first, last, 5 do
  redis.call('XADD', KEYS[2], ARGV[i] .. '-0', 'h', ARGV[i + 1], 'c', ARGV[i + 2], 'p', ARGV[i + 3], 'o', ARGV[i + 4])
end
redis.call('HSET', KEYS[1], 'head', ARGV[3], 'position', ARGV[2])
if chunks > 0 then
  for i = first, last, 5 do
    if ARGV[i + 4] ~= '' then redis.call('ZADD', KEYS[3], ARGV[i], ARGV[i + 4]) end
  end
  for i = 1, chunks do redis.call('PERSIST', KEYS[3 + i]) end
end
return {'appended'}
