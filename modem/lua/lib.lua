-- Shared by every thread script. All keys of a thread share one hash slot, so `prefix` may build more of them.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function text(n) return string.format('%.0f', n) end

-- Appends one event and tells live subscribers; the only place that gives ids. Returns seq, id, envelope.
local function append(prefix, payload, now)
  local meta = prefix .. 'metadata'
  local seq = redis.call('HINCRBY', meta, 'seq', 1)
  local id = redis.call('HGET', meta, 'epoch') .. '-' .. text(seq)
  local envelope = '{"id":"' .. id .. '","at":' .. text(now) .. ',' .. string.sub(payload, 2)
  redis.call('XADD', prefix .. 'stream', id, 'e', envelope)
  redis.call('PUBLISH', prefix .. 'live', id .. '|' .. envelope)
  redis.call('HSET', meta, 'updated_at', text(now))
  return seq, id, envelope
end

-- Puts an event that was just appended into the outbox, if its run, or else its thread, names a server to be told.
local function notify(prefix, rid, id, envelope)
  local url = redis.call('HGET', prefix .. 'run:' .. rid, 'webhook')
  if not url or url == '' then url = redis.call('HGET', prefix .. 'metadata', 'webhook') end
  if url and url ~= '' then redis.call('HSET', prefix .. 'outbox', id, url .. ' ' .. envelope) end
end

-- A server that came back may hold an older log, and would give ids again that clients have seen with other
-- contents. A new epoch after every start of the server makes the two distinguishable; `seq` goes on.
local function check_epoch(prefix, now)
  local meta = prefix .. 'metadata'
  local boot = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local known = redis.call('HMGET', meta, 'boot', 'epoch')
  if known[1] == boot then return end
  redis.call('HSET', meta, 'boot', boot, 'epoch', text(math.max(now, tonumber(known[2] or '0') + 1)))
end

-- The thread's next queued run becomes its active one; returns its id or ''.
local function promote(prefix)
  local meta = prefix .. 'metadata'
  while true do
    local next_id = redis.call('LPOP', prefix .. 'queue')
    if not next_id then
      redis.call('HSET', meta, 'active', '')
      return ''
    end
    if redis.call('HGET', prefix .. 'run:' .. next_id, 'status') == 'queued' then
      redis.call('HSET', meta, 'active', next_id)
      redis.call('HSET', prefix .. 'run:' .. next_id, 'waiting_for', 'worker')
      return next_id
    end
  end
end

-- Ends a run: status, reason, open questions, previews, and the thread's turn passes on.
local function close(prefix, rid, status, reason, detail, now)
  local meta = prefix .. 'metadata'
  redis.call('HSET', prefix .. 'run:' .. rid, 'status', status, 'reason', reason, 'detail', detail,
    'ended_at', text(now), 'lease_until', '0', 'owner', '', 'waiting_for', '')
  redis.call('HSET', meta, 'last_status', status)
  local questions = redis.call('HGETALL', prefix .. 'questions')
  for i = 1, #questions, 2 do
    if questions[i + 1] == rid then redis.call('HDEL', prefix .. 'questions', questions[i]) end
  end
  redis.call('DEL', prefix .. 'previews:' .. rid)
  redis.call('LREM', prefix .. 'queue', 0, rid)
  if redis.call('HGET', meta, 'active') == rid then return promote(prefix) end
  return ''
end

-- Ends a run from outside its worker: the fence moves, so a worker that still lives can write no more.
local function terminate(prefix, rid, status, reason, detail, payload, now)
  redis.call('HINCRBY', prefix .. 'run:' .. rid, 'fence', 1)
  local _, id, envelope = append(prefix, payload, now)
  notify(prefix, rid, id, envelope)
  return close(prefix, rid, status, reason, detail, now)
end

local function is_terminal(status)
  return status == 'finished' or status == 'failed' or status == 'cancelled'
end
