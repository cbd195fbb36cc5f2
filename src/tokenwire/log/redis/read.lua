-- Read pages of one or more logs, each in one snapshot.
-- KEYS, per read: meta, log. ARGV, per read: after, most records, most bytes, 1 when a long page
-- may be left to plain commands.
-- Answer, per read: status, tail, close reason ('' = open or page ends before the tail), list of
-- records; or just 'long'.
local out = {}

local LONG = 64  -- records
local UNNOTED = 16384  -- bytes that the owner of a log may not have noted yet

local function page(meta, log, after, most, most_bytes, plain)
  local m = redis.call('HMGET', meta, 'epoch', 'closed', 'gone', 'tail', 'bytes')
  if m[3] then return {m[3]} end
  if not m[1] then return {'none'} end
  local tail, bytes = redis.call('LLEN', log), tonumber(m[5]) + UNNOTED
  if m[2] and tail < tonumber(m[4]) then return {'gone'} end
  if after < 0 or after > tail then return {'beyond', tail} end
  if plain and math.min(most, tail - after) > LONG and bytes <= 2 * most_bytes then
    return {'long'}
  end
  local records = {}
  if after < tail then
    records = redis.call('LRANGE', log, after, after + most - 1)
    if bytes > most_bytes then  -- else all of the stream is within the bound
      local size, count = 0, 0
      for i, record in ipairs(records) do
        size = size + #record
        if size > most_bytes and i > 1 then break end
        count = i
      end
      for i = #records, count + 1, -1 do records[i] = nil end
    end
  end
  local reached = after + #records == tail
  return {'ok', tail, reached and m[2] or '', records}
end

for i = 1, #KEYS / 2 do
  local a = (i - 1) * 4
  out[i] = page(KEYS[2 * i - 1], KEYS[2 * i], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]),
    tonumber(ARGV[a + 3]), ARGV[a + 4] == '1')
end
return out
