-- Ends a run that no live worker holds; asks the worker otherwise, and ends it anyway when it does not answer.
-- ARGV: prefix, run id, run.cancelled payload, reason, force after ms.
-- Returns {'gone'} {'done'} {'asked', owner} {'cancelled', promoted run}
local prefix, rid = ARGV[1], ARGV[2]
local run = prefix .. 'run:' .. rid
local f = redis.call('HMGET', run, 'status', 'lease_until', 'cancel_at', 'owner')
if not f[1] then return {'gone'} end
if is_terminal(f[1]) then return {'done'} end
local now = now_ms()
local held = f[1] == 'running' and tonumber(f[2]) > now
if held and not (f[3] and now - tonumber(f[3]) >= tonumber(ARGV[5])) then
  redis.call('HSET', run, 'cancel_requested', '1', 'reason', ARGV[4])
  redis.call('HSETNX', run, 'cancel_at', text(now))
  return {'asked', f[4]}
end
return {'cancelled', terminate(prefix, rid, 'cancelled', ARGV[4], '', ARGV[3], now)}
