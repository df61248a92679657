-- A run is ready for a worker. Tenants take turns, whatever the length of their queues.
-- KEYS: tenants by turn, the tenant's queue, queued runs by time, turn counter, active runs,
--       the tenant's runs in flight. ARGV: run id, tenant, look at it again after ms, 1 = to the front.
-- Returns 1 when it was not queued already.
local now = now_ms()
redis.call('ZADD', KEYS[5], text(now + tonumber(ARGV[3])), ARGV[1])
redis.call('SREM', KEYS[6], ARGV[1])
if redis.call('ZADD', KEYS[3], 'NX', text(now), ARGV[1]) == 0 then return 0 end
redis.call(ARGV[4] == '1' and 'LPUSH' or 'RPUSH', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[1], 'NX', redis.call('GET', KEYS[4]) or '0', ARGV[2])
return 1
