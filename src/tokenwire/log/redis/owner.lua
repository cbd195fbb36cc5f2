-- What is done to one log besides appending: all by the clock of the store.
-- KEYS: meta, log, and commands unless it describes; of many logs where it renews. Last the fence,
-- where there is one.
-- ARGV: operation, ttl_ms, keep_ms, publish command, live channel, control channel, the
-- operation's own values.
local meta, log, commands = KEYS[1], KEYS[2], KEYS[3]
local operation, ttl, keep, publish, live, control = unpack(ARGV, 1, 6)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- From here on no owner appends before its log was looked at again (see append.lua).
local function change_fence(fence)
  if fence then
    redis.call('SET', fence, meta .. ':' .. clock[1] .. '.' .. clock[2], 'PX', ttl)
  end
end

-- KEYS: meta, log and commands of each log. owner, lease_ms; then per log: epoch, channel of readers
-- to be told of its tail ('' = none). Answers 1 for each that is still the owner's, 2 for one that
-- is not there, else 0.
if operation == 'renew' then
  local out = {}
  for i = 1, #KEYS - #KEYS % 3, 3 do
    local at = 9 + (i - 1) / 3 * 2
    local m = redis.call('HMGET', KEYS[i], 'epoch', 'closed', 'gone', 'owner', 'lease')
    local is_ours = not m[2] and not m[3] and m[4] == ARGV[7]
      and tonumber(m[1]) == tonumber(ARGV[at])
    if is_ours then
      if now + tonumber(ARGV[8]) < tonumber(m[5]) and #KEYS % 3 == 1 then
        change_fence(KEYS[#KEYS])  -- permits may be for longer
      end
      redis.call('HSET', KEYS[i], 'lease', now + tonumber(ARGV[8]))
      for k = i, i + 2 do redis.call('PEXPIRE', KEYS[k], ttl) end
      if ARGV[at + 1] ~= '' then redis.call(publish, ARGV[at + 1], redis.call('LLEN', KEYS[i + 1])) end
    end
    out[#out + 1] = is_ours and 1 or not m[1] and not m[3] and 2 or 0
  end
  return out
end

local function refresh()
  redis.call('PEXPIRE', meta, ttl)
  redis.call('PEXPIRE', log, ttl)
  redis.call('PEXPIRE', commands, ttl)
end

local function described()
  local m = redis.call('HMGET', meta, 'epoch', 'owner', 'closed', 'meta', 'created', 'bytes',
    'lease', 'thread', 'gone', 'tail', 'key', 'closed_at')
  if m[9] then return {m[9]} end
  if not m[1] then return {'none'} end
  local tail = redis.call('LLEN', log)
  if m[3] and tail < tonumber(m[10]) then return {'gone'} end
  return {'ok', m[1], m[2], tail, m[3] or '', m[4], m[5], m[6], m[7], m[8] or '', m[11] or '', now,
    m[12] or '0'}
end

local function owned()
  local m = redis.call('HMGET', meta, 'epoch', 'closed', 'nonce', 'gone')
  if m[4] or not m[1] or m[2] then return nil end
  return tonumber(m[1]), m[3]
end

if operation == 'describe' then return described() end

-- owner, meta, thread, key, nonce, lease_ms, epoch; and when it was created, in microseconds, of a
-- log that its living owner created or claimed and that was lost: one that was erased stays so; with
-- the number of the last command that the owner has, so that those to come are others.
if operation == 'create' then
  local m = redis.call('HMGET', meta, 'nonce', 'gone', 'epoch')
  if m[1] == ARGV[11] then return described() end
  if m[2] == 'gone' or m[3] or m[2] and ARGV[14] then return {'taken'} end
  if redis.call('DEL', meta, log, commands) > 0 or ARGV[13] ~= '1' then change_fence(KEYS[4]) end
  redis.call('HSET', meta, 'epoch', ARGV[13], 'owner', ARGV[7], 'meta', ARGV[8], 'nonce', ARGV[11],
    'lease', now + tonumber(ARGV[12]), 'bytes', 0,
    'created', ARGV[14] or clock[1] .. string.format('%06d', clock[2]))
  if ARGV[9] ~= '' then redis.call('HSET', meta, 'thread', ARGV[9]) end
  if ARGV[10] ~= '' then redis.call('HSET', meta, 'key', ARGV[10]) end
  if ARGV[15] then redis.call('HSET', meta, 'last_number', ARGV[15]) end
  redis.call('PEXPIRE', meta, ttl)
  return described()
end

-- owner, nonce, lease_ms
if operation == 'claim' then
  local epoch, nonce = owned()
  if not epoch then return {'none'} end
  if nonce ~= ARGV[8] then  -- else: this very claim, sent again after a lost answer
    if tonumber(redis.call('HGET', meta, 'lease')) > now then return {'none'} end
    epoch = redis.call('HINCRBY', meta, 'epoch', 1)
    -- An owner's name is never empty, so an empty one says that it was handed over.
    redis.call('HSET', meta, 'handed', redis.call('HGET', meta, 'owner') == '' and 1 or 0)
    redis.call('HSET', meta, 'owner', ARGV[7], 'nonce', ARGV[8], 'lease', now + tonumber(ARGV[9]))
    change_fence(KEYS[4])
    refresh()
    redis.call(publish, live, 'claim ' .. ARGV[8])
    redis.call(publish, control, 'claim ' .. ARGV[8])
  end
  return {'ok', epoch, redis.call('LLEN', log), redis.call('HGET', meta, 'handed') or '0'}
end

-- owner, nonce, lease_ms, epoch: our claim is newer than what a failover left; put it back.
if operation == 'reclaim' then
  local epoch = owned()
  if not epoch or epoch >= tonumber(ARGV[10]) then return {'none'} end
  redis.call('HSET', meta, 'epoch', ARGV[10], 'owner', ARGV[7], 'nonce', ARGV[8],
    'lease', now + tonumber(ARGV[9]))
  change_fence(KEYS[4])
  return {'ok'}
end

-- epoch, 1 when it is handed over
if operation == 'release' then
  if owned() == tonumber(ARGV[7]) then
    redis.call('HSET', meta, 'lease', 0)
    change_fence(KEYS[4])
    if ARGV[8] == '1' then redis.call('HSET', meta, 'owner', '') end
  end
  return {'ok'}
end

-- nonce, data
if operation == 'command' then
  local state = described()
  if state[1] ~= 'ok' then return state end
  if redis.call('HGET', meta, 'last_command') ~= ARGV[7] then
    redis.call('RPUSH', commands, ARGV[8])
    redis.call('PEXPIRE', commands, ttl)
    redis.call('HSET', meta, 'last_command', ARGV[7])
    redis.call(publish, live, 'command')
    redis.call(publish, control, 'command')
  end
  return {'ok'}
end

-- epoch, the number of the command before the first one: the mailbox has lost some
if operation == 'renumber' then
  if owned() == tonumber(ARGV[7]) then redis.call('HSET', meta, 'last_number', ARGV[8]) end
  return {'ok'}
end

-- length, n: where the log has that length, its last n records were pushed in the wrong place.
if operation == 'take back' then
  if redis.call('LLEN', log) == tonumber(ARGV[7]) then
    redis.call('LTRIM', log, 0, -(tonumber(ARGV[8]) + 1))
  end
  return {'ok'}
end

-- after; answers with the number of the command before the first one
if operation == 'commands' then
  local state = described()
  if state[1] ~= 'ok' then return state end
  local before = tonumber(redis.call('HGET', meta, 'last_number') or 0)
  local after = math.max(tonumber(ARGV[7]), before)
  return {'ok', redis.call('LRANGE', commands, after - before, -1), after}
end

-- ttl_ms: an ended log of a conversation that is still used; answers its key.
if operation == 'keep' then
  local m = redis.call('HMGET', meta, 'closed', 'key', 'gone')
  if m[3] or not m[1] then return {'none'} end
  redis.call('PEXPIRE', meta, math.max(keep, tonumber(ARGV[7])))
  redis.call('PEXPIRE', log, ARGV[7])
  redis.call('PEXPIRE', commands, ARGV[7])
  return {'ok', m[2] or ''}
end

-- 'gone' (expired) or 'deleted', and 'alone' where a log of a conversation is not meant; answers
-- thread and key, so that the indexes can follow. 'gone' only erases what is closed.
if operation == 'erase' then
  local m = redis.call('HMGET', meta, 'thread', 'key', 'closed', 'epoch', 'gone', 'closed_at')
  if not m[4] and not (m[5] and ARGV[7] == 'deleted') then return {'none'} end
  if ARGV[7] == 'gone' and not m[3] then return {'none'} end
  if ARGV[8] == 'alone' and m[1] then return {'thread', m[1], m[2] or '', m[6] or '0'} end
  redis.call('DEL', meta, log, commands)
  if not m[3] then change_fence(KEYS[4]) end
  redis.call('HSET', meta, 'gone', ARGV[7])
  redis.call('PEXPIRE', meta, keep)
  redis.call(publish, live, 'erase')
  redis.call(publish, control, 'erase')
  return {'ok', m[1] or '', m[2] or ''}
end

-- Forget the name of a log that was erased.
if operation == 'forget' then
  if redis.call('HEXISTS', meta, 'gone') == 1 then redis.call('DEL', meta) end
  return {'ok'}
end

return redis.error_reply('ERR unknown operation ' .. operation)
