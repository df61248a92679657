-- Sets a run apart that may have killed its worker. KEYS: suspects, the suspect under way, active runs,
-- the tenant's runs in flight. ARGV: run id, look at it again after ms.
redis.call('SREM', KEYS[4], ARGV[1])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
redis.call('ZADD', KEYS[3], text(now_ms() + tonumber(ARGV[2])), ARGV[1])
if not redis.call('LPOS', KEYS[1], ARGV[1]) then redis.call('RPUSH', KEYS[1], ARGV[1]) end
return redis.call('EXISTS', KEYS[2])
