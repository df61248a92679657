-- An operator wants a run to go on elsewhere. ARGV: prefix, run id, 1 = do not ask the worker that holds it.
-- Returns {'gone'} {'ended', status} {'person'} {'thread'} {'asked', fence} {'push', tenant}
local prefix, rid = ARGV[1], ARGV[2]
local run = prefix .. 'run:' .. rid
local f = redis.call('HMGET', run, 'status', 'lease_until', 'fence', 'tenant')
local status = f[1]
if not status then return {'gone'} end
if is_terminal(status) then return {'ended', status} end
if status == 'waiting' then return {'person'} end
if redis.call('HGET', prefix .. 'metadata', 'active') ~= rid then return {'thread'} end
if status == 'running' then
  if tonumber(f[2]) > now_ms() and ARGV[3] ~= '1' then return {'asked', f[3]} end
  redis.call('HINCRBY', run, 'fence', 1)
  redis.call('HSET', run, 'status', 'queued', 'lease_until', '0', 'owner', '', 'resume_reason', 'released',
    'waiting_for', 'worker')
end
redis.call('HSET', run, 'failures', '0')
redis.call('HDEL', run, 'suspect')
return {'push', f[4]}
