-- Records the answer to an open question; a run that waits for it is ready again.
-- ARGV: prefix, question id, approval.resolved payload. Returns {'gone'} {'push', run, tenant} {'told', run}
local prefix, question = ARGV[1], ARGV[2]
local rid = redis.call('HGET', prefix .. 'questions', question)
if not rid then return {'gone'} end
local run = prefix .. 'run:' .. rid
redis.call('HDEL', prefix .. 'questions', question)
append(prefix, ARGV[3], now_ms())
if redis.call('HGET', run, 'status') ~= 'waiting' then return {'told', rid} end
redis.call('HSET', run, 'status', 'queued', 'resume_reason', 'answered', 'waiting_for', 'worker')
return {'push', rid, redis.call('HGET', run, 'tenant')}
