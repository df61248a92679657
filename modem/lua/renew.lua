-- Keeps a lease. ARGV: prefix, run id, fence, lease ms. Returns 0 lost, 1 kept, 2 kept and a cancel was asked for.
local run = ARGV[1] .. 'run:' .. ARGV[2]
local f = redis.call('HMGET', run, 'fence', 'status', 'cancel_requested')
if f[1] ~= ARGV[3] or f[2] ~= 'running' then return 0 end
redis.call('HSET', run, 'lease_until', text(now_ms() + tonumber(ARGV[4])))
return f[3] == '1' and 2 or 1
