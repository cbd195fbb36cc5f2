-- Read pages of one or more streams, each in one snapshot.
-- KEYS, per read: meta, log. ARGV, per read: after, most records, most bytes.
-- Answer, per read: status, tail, close reason ('' = open or page ends before the tail), records.
local out = {}

local function page(meta, log, after, most, most_bytes)
  local m = redis.call('HMGET', meta, 'epoch', 'closed', 'gone', 'tail')
  if m[3] then return {m[3]} end
  if not m[1] then return {'none'} end
  local tail = redis.call('LLEN', log)
  if m[2] and tail < tonumber(m[4]) then return {'gone'} end
  if after < 0 or after > tail then return {'beyond', tail} end
  local records, size, count = {}, 0, 0
  if after < tail then
    records = redis.call('LRANGE', log, after, after + most - 1)
    for i, record in ipairs(records) do
      size = size + #record
      if size > most_bytes and i > 1 then break end
      count = i
    end
  end
  local reached = after + count == tail
  local result = {'ok', tail, reached and m[2] or ''}
  for i = 1, count do result[i + 3] = records[i] end
  return result
end

for i = 1, #KEYS / 2 do
  local a = (i - 1) * 3
  out[i] = page(KEYS[2 * i - 1], KEYS[2 * i], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]),
    tonumber(ARGV[a + 3]))
end
return out
