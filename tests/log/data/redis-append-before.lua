-- Append to one or more logs (one call for a whole turn of the event loop).
-- KEYS, per append: meta, log.
-- ARGV: ttl_ms, keep_ms, publish command, ttl_ms of a log that has ended, and of one of a
--   conversation; then per append: live channel, owner's nonce ('' = unknown), epoch, first offset,
--   close reason ('' = none), n, n records.
-- Answer, per append: the tail when it was accepted, else {status, tail, epoch}.
-- A log's tail is the length of its list, so offsets are dense by construction. The channel is
-- no key: while a slot moves, a call with a key that does not exist would have to wait.
local ttl, keep, publish, ended, kept = unpack(ARGV, 1, 5)
local call = redis.call
-- One message per stream, however many appends of it are here: the tail; after a plain append of one
-- short record that too, so that readers elsewhere need not fetch it.
local woken = {}
local SHORT = 512  -- bytes

local function push(log, from, to)
  if from == to then
    call('RPUSH', log, ARGV[from])
    return #ARGV[from]
  end
  local size = 0
  for start = from, to, 4000 do
    call('RPUSH', log, unpack(ARGV, start, math.min(start + 3999, to)))
  end
  for at = from, to do size = size + #ARGV[at] end
  return size
end

-- Whether the last record that the append and the log have in common is another one.
local function differs(log, tail, first, base, n)
  local last = math.min(tail, first + n - 1)
  return last >= first and call('LINDEX', log, last - 1) ~= ARGV[base + last - first]
end

-- The append of an owner whose log goes on at `first`: nearly every one. A nonce belongs to one
-- claim and so to one epoch; what was erased has none. Pushed first, the list itself says where it
-- ended; if that was elsewhere, what was pushed is taken back, and `append` finds out why. (Nobody
-- sees anything between: a script is one step for readers, replicas and the append-only file.)
local function go_on(meta, log, nonce, first, base, n)
  local m = call('HMGET', meta, 'nonce', 'closed')
  if m[1] ~= nonce or m[2] then return nil end
  local tail, size
  if n == 1 then
    tail, size = call('RPUSH', log, ARGV[base]), #ARGV[base]
  else
    tail, size = call('RPUSH', log, unpack(ARGV, base, base + n - 1)), 0
    for at = base, base + n - 1 do size = size + #ARGV[at] end
  end
  if tail ~= first + n - 1 then
    call('LTRIM', log, 0, -(n + 1))
    return nil
  end
  if first == 1 then call('PEXPIRE', log, ttl) end
  call('HINCRBY', meta, 'bytes', size)
  return tail
end

local function append(meta, log, live, nonce, epoch, first, close, base, n)
  if close == '' and nonce ~= '' and n > 0 and n <= 4000 then
    local tail = go_on(meta, log, nonce, first, base, n)
    if tail then
      local is_short = n == 1 and #ARGV[base] <= SHORT
      woken[live] = is_short and tail .. ' ' .. ARGV[base] or tail
      return tail
    end
  end
  local m = call('HMGET', meta, 'epoch', 'closed', 'nonce', 'gone', 'tail')
  if m[4] then return {m[4], 0, 0} end
  if not m[1] then return {'none', 0, 0} end
  local current, tail = tonumber(m[1]), call('LLEN', log)
  if epoch > current then return {'behind', tail, current} end
  if epoch < current or (nonce ~= '' and nonce ~= m[3]) then return {'fenced', tail, current} end
  local last = first + n - 1
  if m[2] then
    if tail < tonumber(m[5]) then return {'gone', 0, 0} end
    if last > tail or (close ~= '' and close ~= m[2]) then return {'closed', tail, current} end
    if differs(log, tail, first, base, n) then return {'conflict', tail, current} end
    return {'duplicate', tail, current}
  end
  if first > tail + 1 then return {'gap', tail, current} end
  if first <= tail and differs(log, tail, first, base, n) then
    return {'conflict', tail, current}
  end
  if last <= tail and close == '' then return {'duplicate', tail, current} end
  local from = base + tail + 1 - first
  if last > tail then
    call('HINCRBY', meta, 'bytes', push(log, from, base + n - 1))
    if tail == 0 then call('PEXPIRE', log, ttl) end
    tail = last
  end
  if close ~= '' then
    local now = call('TIME')
    call('HSET', meta, 'closed', close, 'closed_at', now[1], 'tail', tail)
    local life = call('HEXISTS', meta, 'thread') == 1 and kept or ended
    call('PEXPIRE', log, life)
    call('PEXPIRE', meta, math.max(keep, life))
  end
  woken[live] = tail
  return tail
end

local at, out = 6, {}
for i = 1, #KEYS, 2 do
  local n = tonumber(ARGV[at + 5])
  out[#out + 1] = append(KEYS[i], KEYS[i + 1], ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]),
    tonumber(ARGV[at + 3]), ARGV[at + 4], at + 6, n)
  at = at + 6 + n
end
for live, tail in pairs(woken) do call(publish, live, tail) end
return out
