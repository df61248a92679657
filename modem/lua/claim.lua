-- A worker takes a run. `failures` counts claims since the last finished step: workers that died on it, and this one.
-- ARGV: prefix, run id, worker, lease ms, hash of the configuration it goes on with, sandbox.
-- Returns {'gone'} {'done'} {'not_turn'} {'parked'} {'held'} {'cancel'}
--         {'ok', fence, attempt, next_seq, reason, now, '1' when set apart}; reason is 'fresh' or why it is resumed.
local prefix, rid = ARGV[1], ARGV[2]
local meta, run = prefix .. 'metadata', prefix .. 'run:' .. rid
local f = redis.call('HMGET', run, 'status', 'lease_until', 'cancel_requested', 'next_seq', 'resume_reason',
  'started_at', 'suspect')
local status, now = f[1], now_ms()
if not status then return {'gone'} end
if is_terminal(status) then return {'done'} end
if redis.call('HGET', meta, 'active') ~= rid then return {'not_turn'} end
if status == 'waiting' then return {'parked'} end
if status == 'running' and tonumber(f[2]) > now then return {'held'} end
if f[3] == '1' then return {'cancel'} end
local reason = f[5] or 'fresh'
if status == 'running' then reason = 'worker_lost' end
check_epoch(prefix, now)
local fence = redis.call('HINCRBY', run, 'fence', 1)
local attempt = redis.call('HINCRBY', run, 'attempt', 1)
redis.call('HINCRBY', run, 'failures', 1)
redis.call('HSET', run, 'status', 'running', 'owner', ARGV[3], 'lease_until', text(now + tonumber(ARGV[4])),
  'waiting_for', '', 'config_hash', ARGV[5], 'sandbox', ARGV[6])
redis.call('HDEL', run, 'resume_reason')
redis.call('DEL', prefix .. 'previews:' .. rid)
if not f[6] then redis.call('HSET', run, 'started_at', text(now)) end
redis.call('HSET', meta, 'last_status', 'running')
return {'ok', text(fence), text(attempt), f[4], reason, text(now), f[7] or ''}
