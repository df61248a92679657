-- Notes what a thread's files take; the field '' holds the sum. KEYS: the tenant's disk. ARGV: thread, bytes (0 forgets it).
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if ARGV[2] == '0' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return redis.call('HINCRBY', KEYS[1], '', text(tonumber(ARGV[2]) - before))
