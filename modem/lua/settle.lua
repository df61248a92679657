-- Books what a model call has cost and frees what was set aside for it. KEYS: money. ARGV: run id, spent, ttl s.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HINCRBYFLOAT', KEYS[1], 'spent', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
