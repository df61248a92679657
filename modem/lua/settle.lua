-- Books what a model call has used and frees what was set aside for it. KEYS: budget. ARGV: run id, amount, ttl s.
-- Returns all that was ever booked.
redis.call('HDEL', KEYS[1], ARGV[1])
local spent = redis.call('HINCRBYFLOAT', KEYS[1], 'spent', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return spent
