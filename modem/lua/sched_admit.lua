-- Counts a run in before it exists, so that no crash can leave one that nobody watches.
-- KEYS: active runs, the tenant's open runs, blocked tenants.
-- ARGV: run id, limit (0 none), look at it again after ms, tenant.
-- Returns {1}, {0, open runs} when the tenant is at its limit, {-1, JSON} when it is blocked.
local blocked = redis.call('HGET', KEYS[3], ARGV[4])
if blocked then return {-1, blocked} end
local limit = tonumber(ARGV[2])
local open = redis.call("SCARD", KEYS[2])
if limit > 0 and open >= limit then return {0, open} end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[1], text(now_ms() + tonumber(ARGV[3])), ARGV[1])
return {1, open + 1}
