-- A dead notice is due again, with all its attempts. KEYS: the queue, the notice, all dead notices, the tenant's.
-- ARGV: id. Returns 0 when it is not dead.
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('ZREM', KEYS[4], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('PERSIST', KEYS[2])
redis.call('HDEL', KEYS[2], 'died_at')
redis.call('HSET', KEYS[2], 'attempts', '0')
redis.call('ZADD', KEYS[1], text(now_ms()), ARGV[1])
return 1
