-- Counts a run in before it exists, so that no crash can leave one that nobody watches.
-- KEYS: active runs, the tenant's open runs. ARGV: run id, limit (0 none), look at it again after ms.
-- Returns {1}, or {0, open runs} when the tenant is at its limit.
local limit = tonumber(ARGV[2])
local open = redis.call("SCARD", KEYS[2])
if limit > 0 and open >= limit then return {0, open} end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[1], text(now_ms() + tonumber(ARGV[3])), ARGV[1])
return {1, open + 1}
