-- A token bucket by the server's clock. ARGV: capacity, ms to refill all of it, cost.
-- Returns {1 or 0 allowed, whole tokens left, ms until `cost` tokens are there (0 now), ms until full}.
local capacity, period, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(capacity, (tonumber(held[1]) or capacity)
  + math.max(0, now - (tonumber(held[2]) or now)) * capacity / period)
local allowed = tokens >= cost and 1 or 0
if allowed == 1 then tokens = tokens - cost end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', string.format('%.3f', now))
redis.call('PEXPIRE', KEYS[1], period)
return {allowed, math.floor(tokens), math.ceil(math.max(0, cost - tokens) * period / capacity),
  math.ceil((capacity - tokens) * period / capacity)}
