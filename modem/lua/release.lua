-- A worker gives a run back, so that a deploy needs no lease to run out and a waiting run holds no worker.
-- ARGV: prefix, run id, fence, `queued` | `waiting`, reason, wake at (ms, 0 never).
-- Returns '' (not ours), 'queued' or 'waiting'.
local prefix, rid = ARGV[1], ARGV[2]
local run = prefix .. 'run:' .. rid
local f = redis.call('HMGET', run, 'fence', 'status')
if f[1] ~= ARGV[3] or f[2] ~= 'running' then return '' end
local status = ARGV[4]
if status == 'waiting' then
  local open = false
  local questions = redis.call('HGETALL', prefix .. 'questions')
  for i = 2, #questions, 2 do open = open or questions[i] == rid end
  if not open then status = 'queued' end
end
redis.call('HINCRBY', run, 'attempt', -1)
redis.call('HSET', run, 'failures', '0')
redis.call('HINCRBY', run, 'fence', 1)
redis.call('HSET', run, 'status', status, 'lease_until', '0', 'owner', '', 'resume_reason', ARGV[5],
  'not_before', ARGV[6], 'waiting_for', status == 'waiting' and 'person' or 'worker')
redis.call('HSET', prefix .. 'metadata', 'last_status', status)
return status
