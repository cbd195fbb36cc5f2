-- Documents of one kind, and idempotency keys: what lies beside the logs, each in one slot.
-- ARGV[1]: operation.
local operation = ARGV[1]

-- KEYS: key. ARGV: wanted value, expected value ('' = none yet), ttl_ms. Answers what holds now.
if operation == 'key' then
  local value = redis.call('GET', KEYS[1])
  if (value or '') == ARGV[3] then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[4])
    return ARGV[2]
  end
  return value
end

-- KEYS: key. ARGV: value. Erases the key when it still has that value.
if operation == 'drop' then
  if redis.call('GET', KEYS[1]) == ARGV[2] then redis.call('DEL', KEYS[1]) end
  return 1
end

-- KEYS: a thread's logs by age, and a mark that they were kept alive. ARGV: log, ttl_ms, mark_ms.
-- The score counts up. Answers 1 when the other logs are to be kept alive.
if operation == 'join' then
  local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  redis.call('ZADD', KEYS[1], 'NX', (tonumber(last[2]) or 0) + 1, ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[4]) and last[1] and 1 or 0
end

-- Leases and ends, by the clock of this server: those of the workers may differ.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6

-- KEYS: logs by the end of their leases. ARGV: log, seconds, 'NX' or ''.
if operation == 'lease' then
  local score = string.format('%.6f', now + tonumber(ARGV[3]))
  if ARGV[4] == 'NX' then return redis.call('ZADD', KEYS[1], 'NX', score, ARGV[2]) end
  return redis.call('ZADD', KEYS[1], score, ARGV[2])
end

-- The same for many logs. ARGV: seconds, logs.
if operation == 'leases' then
  local score = string.format('%.6f', now + tonumber(ARGV[2]))
  local pairs_of = {}
  for i = 3, #ARGV do
    pairs_of[#pairs_of + 1] = score
    pairs_of[#pairs_of + 1] = ARGV[i]
  end
  return redis.call('ZADD', KEYS[1], unpack(pairs_of))
end

-- KEYS: logs by their end. ARGV: log.
if operation == 'ended' then
  return redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[2])
end

-- KEYS: conversations by their last use. ARGV: thread, and when, unless it is now.
if operation == 'use' then
  local score = ARGV[3] or string.format('%.6f', now)
  return redis.call('ZADD', KEYS[1], 'GT', score, ARGV[2])
end

-- KEYS: logs by their end, or conversations by their last use. ARGV: name, seconds. It counts as of
-- so many seconds ago.
if operation == 'put off' then
  return redis.call('ZADD', KEYS[1], 'XX', string.format('%.6f', now - tonumber(ARGV[3])), ARGV[2])
end

-- KEYS: one of these, or the leases. ARGV: seconds, most. Those whose time was so long ago.
if operation == 'due' then
  local score = string.format('%.6f', now - tonumber(ARGV[2]))
  return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', score, 'LIMIT', 0, ARGV[3])
end

-- KEYS: conversations by their last use. ARGV: thread, seconds. 1 when that was so long ago.
if operation == 'is old' then
  local score = redis.call('ZSCORE', KEYS[1], ARGV[2])
  return score and tonumber(score) <= now - tonumber(ARGV[3]) and 1 or 0
end

-- KEYS: logs that were erased, by when. ARGV: seconds. Drops those that are older.
if operation == 'past' then
  local score = string.format('%.6f', now - tonumber(ARGV[2]))
  return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', score)
end

-- KEYS: logs by the end of their leases, or conversations by their last use. ARGV: name, seconds.
-- Erases an entry that is so old.
if operation == 'drop old' then
  local score = redis.call('ZSCORE', KEYS[1], ARGV[2])
  if score and tonumber(score) < now - tonumber(ARGV[3]) then
    return redis.call('ZREM', KEYS[1], ARGV[2])
  end
  return 0
end

-- KEYS: data hash, names by age, names by spelling.
local function put(name, data)
  local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  redis.call('HSET', KEYS[1], name, data)
  redis.call('ZADD', KEYS[2], (tonumber(last[2]) or 0) + 1, name)
  redis.call('ZADD', KEYS[3], 0, name)
  return 1
end

local function remove(name)
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  return 1
end

-- ARGV: name, data.
if operation == 'put' then return put(ARGV[2], ARGV[3]) end
if operation == 'remove' then return remove(ARGV[2]) end

-- ARGV: name, expected, wanted; each '' for none or '=' and the data. Answers 1 when the wanted
-- is there now.
if operation == 'swap' then
  local current = redis.call('HGET', KEYS[1], ARGV[2])
  current = current and '=' .. current or ''
  if current == ARGV[4] then return 1 end
  if current ~= ARGV[3] then return 0 end
  if ARGV[4] == '' then return remove(ARGV[2]) end
  return put(ARGV[2], string.sub(ARGV[4], 2))
end

-- KEYS as above. ARGV: prefix, most. Newest first: name, data, name, data ...
if operation == 'list' then
  local names
  local most = tonumber(ARGV[3])
  if ARGV[2] == '' then
    names = redis.call('ZREVRANGE', KEYS[2], 0, most - 1)
  else
    names = redis.call('ZRANGEBYLEX', KEYS[3], '[' .. ARGV[2], '(' .. ARGV[2] .. '\255')
    local age = {}
    for _, name in ipairs(names) do age[name] = tonumber(redis.call('ZSCORE', KEYS[2], name)) end
    table.sort(names, function(a, b) return age[a] > age[b] end)
  end
  local out = {}
  for i = 1, math.min(#names, most) do
    out[#out + 1] = names[i]
    out[#out + 1] = redis.call('HGET', KEYS[1], names[i])
  end
  return out
end

-- KEYS as above. ARGV: first and last name, as bounds; most. In the order of names, as above.
if operation == 'page' then
  local out = {}
  local names = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
  for _, name in ipairs(names) do
    out[#out + 1] = name
    out[#out + 1] = redis.call('HGET', KEYS[1], name)
  end
  return out
end

return redis.error_reply('ERR unknown operation ' .. operation)
