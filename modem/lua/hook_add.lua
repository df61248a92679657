-- Puts a notice on the delivery queue, once. KEYS: the notice, the queue. ARGV: id, then field, value, ...
-- Returns 1, or 0 when it is there already.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local now = text(now_ms())
redis.call('HSET', KEYS[1], 'created_at', now, 'attempts', '0', 'result', '')
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[2], now, ARGV[1])
return 1
