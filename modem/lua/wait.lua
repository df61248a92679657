-- Notes what the run that a worker has under way waits for, and tells its followers when that is news.
-- ARGV: prefix, worker, what ('' when it goes on).
local prefix = ARGV[1]
local rid = redis.call('HGET', prefix .. 'metadata', 'active') or ''
local run = prefix .. 'run:' .. rid
local f = redis.call('HMGET', run, 'status', 'owner', 'waiting_for')
if f[1] ~= 'running' or f[2] ~= ARGV[2] or (f[3] or '') == ARGV[3] then return 0 end
redis.call('HSET', run, 'waiting_for', ARGV[3])
redis.call('PUBLISH', prefix .. 'live', 'waiting|' .. rid .. ' ' .. ARGV[3])
return 1
