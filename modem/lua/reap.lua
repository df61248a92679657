-- What a run needs from outside now. ARGV: prefix, run id, run.cancelled payload, run.failed payload, failed detail,
-- force cancel after ms. Returns {'gone', tenant} {'push', tenant} {'suspect', tenant} {'live', look again at ms} {'later'}
--                                {'expired'} {'ended', tenant, promoted run}
local prefix, rid = ARGV[1], ARGV[2]
local meta, run = prefix .. 'metadata', prefix .. 'run:' .. rid
local f = redis.call('HMGET', run, 'status', 'lease_until', 'cancel_requested', 'cancel_at', 'failures',
  'max_attempts', 'tenant', 'not_before', 'reason', 'attempt',
  'suspect')
-- A run that was counted in and never recorded has its tenant from its thread.
local status, tenant = f[1], f[7] or redis.call('HGET', meta, 'tenant') or ''
if not status or is_terminal(status) then return {'gone', tenant} end
local now = now_ms()
if status == 'queued' then
  local active = redis.call('HGET', meta, 'active')
  if active == rid then return {f[11] and 'suspect' or 'push', tenant} end
  if active == '' or is_terminal(redis.call('HGET', prefix .. 'run:' .. active, 'status') or 'failed') then
    if promote(prefix) == rid then return {'push', tenant} end
  end
  return {'later'}
end
if status == 'waiting' then
  local wake = tonumber(f[8] or '0')
  if wake > 0 and wake <= now then return {'expired', tenant} end
  return {'later'}
end
local lease = tonumber(f[2])
local cancel = f[3] == '1'
if lease > now then
  if not (cancel and now - tonumber(f[4]) >= tonumber(ARGV[6])) then return {'live', text(lease)} end
end
if cancel then
  return {'ended', tenant, terminate(prefix, rid, 'cancelled', f[9] or '', '', ARGV[3], now)}
end
-- `max_attempts` in a row without a finished step, or ten times as many in all.
if tonumber(f[5]) >= tonumber(f[6]) or tonumber(f[10]) >= 10 * tonumber(f[6]) then
  return {'ended', tenant, terminate(prefix, rid, 'failed', 'worker_lost', ARGV[5], ARGV[4], now)}
end
redis.call('HINCRBY', run, 'fence', 1)
redis.call('HSET', run, 'status', 'queued', 'lease_until', '0', 'owner', '', 'resume_reason', 'worker_lost',
  'waiting_for', 'worker')
-- Runs that were lost together and have one attempt left go on one by one: only one of them can be the killer.
if tonumber(f[5]) >= tonumber(f[6]) - 1 then
  redis.call('HSET', run, 'suspect', '1')
  return {'suspect', tenant}
end
return {'push', tenant}
