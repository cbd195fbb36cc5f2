-- Append to one or more logs (one call for a whole turn of the event loop).
-- KEYS: the fence, where there is one; then per append: meta, log.
-- ARGV: ttl_ms, keep_ms, publish command, ttl_ms of a log that has ended, and of one of a
--   conversation; a word that no other process has ('' = no fence);
--   then per append one of three forms:
--   first offset, owner's nonce, record
--   minus the first offset, owner's nonce, bytes of the log with this append ('' = do not note
--     them), live channel ('' = tell nobody), n (negative: a permit is wanted), n records
--   0, live channel, owner's nonce ('' = unknown), epoch, first offset, close reason ('' = none),
--     bytes of the log so far ('' = unknown), n, n records
-- Answer, per append of the first two forms: the tail when it was accepted, plus 2^40 when readers
--   were told, negative when none listens; else 0: nothing has happened, and the third form says why.
--   With a permit: {the same, until when pushes may follow that look at the fence alone (ms; 0 =
--   none may)}. Of the third form: {status, tail, epoch, noted bytes}. Last the fence.
-- A log's tail is the length of its list, so offsets are dense by construction. The channel is
-- no key: while a slot moves, a call with a key that does not exist would have to wait.
local ttl, keep, publish, ended, kept, seed = unpack(ARGV, 1, 6)
local call = redis.call
local SHORT = 512  -- bytes
local TOLD = 2 ^ 40
local PERMIT = 5000  -- ms

-- The fence changes whenever a log is taken from its owner (owner.lua), and never is what it was.
-- A worker of the release before does not change it, but takes no log whose lease still runs. So
-- an owner who was seen here, whose lease runs on for the time of a permit, is the owner until that
-- is over or the fence is another one, and need not be looked at again.
local fence, now = '', 0
if seed ~= '' then
  local clock = call('TIME')
  now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  fence = call('GET', KEYS[1])
  if not fence then
    fence = seed .. ':' .. clock[1] .. '.' .. clock[2]
    call('SET', KEYS[1], fence, 'PX', ttl)
  end
end

-- The append of an owner whose log goes on at `first`: nearly every one. A nonce belongs to one
-- claim and so to one epoch; what was erased has none. Pushed first, the list itself says where it
-- ended; if that was elsewhere, what was pushed is taken back. (Nobody sees anything between: a
-- script is one step for readers, replicas and the append-only file.)
local function go_on(meta, log, nonce, first, from, to)
  local m = call('HMGET', meta, 'nonce', 'closed', 'lease')
  if m[1] ~= nonce or m[2] then return 0 end
  local tail
  if from == to then
    tail = call('RPUSH', log, ARGV[from])
  else
    tail = call('RPUSH', log, unpack(ARGV, from, to))
  end
  if tail ~= first + to - from then
    call('LTRIM', log, 0, -(to - from + 2))
    return 0
  end
  if first == 1 then call('PEXPIRE', log, ttl) end
  return tail, tonumber(m[3])
end

-- The same where more is to be done. One short record goes to readers elsewhere with the message
-- that wakes them, so that they need not fetch it.
local function go_on_and_tell(meta, log, nonce, first, bytes, live, is_asked, from, to)
  local tail, lease = go_on(meta, log, nonce, first, from, to)
  if tail == 0 then return 0 end
  if bytes ~= '' then call('HSET', meta, 'bytes', bytes) end
  if live ~= '' then
    local is_short = from == to and #ARGV[from] <= SHORT
    local readers = call(publish, live, is_short and tail .. ' ' .. ARGV[from] or tail)
    tail = readers == 0 and -tail or tail + TOLD
  end
  if not is_asked then return tail end
  return {tail, seed ~= '' and lease > now + PERMIT and now + PERMIT or 0}
end

local function push(log, from, to)
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

local function append(meta, log, live, nonce, epoch, first, close, bytes, base, n)
  local m = call('HMGET', meta, 'epoch', 'closed', 'nonce', 'gone', 'tail', 'bytes')
  if m[4] then return {m[4], 0, 0, 0} end
  if not m[1] then return {'none', 0, 0, 0} end
  local current, tail, noted = tonumber(m[1]), call('LLEN', log), tonumber(m[6])
  if epoch > current then return {'behind', tail, current, noted} end
  if epoch < current or (nonce ~= '' and nonce ~= m[3]) then
    return {'fenced', tail, current, noted}
  end
  local last = first + n - 1
  if m[2] then
    if tail < tonumber(m[5]) then return {'gone', 0, 0, 0} end
    if last > tail or (close ~= '' and close ~= m[2]) then
      return {'closed', tail, current, noted}
    end
    if differs(log, tail, first, base, n) then return {'conflict', tail, current, noted} end
    return {'duplicate', tail, current, noted}
  end
  if first > tail + 1 then return {'gap', tail, current, noted} end
  if first <= tail and differs(log, tail, first, base, n) then
    return {'conflict', tail, current, noted}
  end
  if last <= tail and close == '' then return {'duplicate', tail, current, noted} end
  noted = tonumber(bytes) or noted
  if last > tail then
    noted = noted + push(log, base + tail + 1 - first, base + n - 1)
    if tail == 0 then call('PEXPIRE', log, ttl) end
    tail = last
  end
  call('HSET', meta, 'bytes', string.format('%.0f', noted))
  if close ~= '' then
    local now = call('TIME')
    call('HSET', meta, 'closed', close, 'closed_at', now[1], 'tail', tail)
    local life = call('HEXISTS', meta, 'thread') == 1 and kept or ended
    call('PEXPIRE', log, life)
    call('PEXPIRE', meta, math.max(keep, life))
  end
  local is_short = n == 1 and close == '' and #ARGV[base] <= SHORT
  call(publish, live, is_short and tail .. ' ' .. ARGV[base] or tail)
  return {'ok', tail, current, noted}
end

local out, at = {}, 7
for i = seed ~= '' and 2 or 1, #KEYS, 2 do
  local first = tonumber(ARGV[at])
  local answer, n
  if first > 0 then
    answer = go_on(KEYS[i], KEYS[i + 1], ARGV[at + 1], first, at + 2, at + 2)
    at = at + 3
  elseif first < 0 then
    n = tonumber(ARGV[at + 4])
    local is_asked = n < 0
    n = math.abs(n)
    answer = go_on_and_tell(KEYS[i], KEYS[i + 1], ARGV[at + 1], -first, ARGV[at + 2],
      ARGV[at + 3], is_asked, at + 5, at + 4 + n)
    at = at + 5 + n
  else
    n = tonumber(ARGV[at + 7])
    answer = append(KEYS[i], KEYS[i + 1], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]),
      tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6], at + 8, n)
    at = at + 8 + n
  end
  out[#out + 1] = answer
end
out[#out + 1] = fence
return out
