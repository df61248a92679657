-- Sets an amount aside before a model call. KEYS: budget (HASH: `spent`, and a field per run with what it has set aside).
-- ARGV: run id, amount, limit, ttl s. Returns '' when it fits, else what is left.
local spent = tonumber(redis.call('HGET', KEYS[1], 'spent') or '0')
local aside = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if fields[i] ~= 'spent' and fields[i] ~= ARGV[1] then aside = aside + tonumber(fields[i + 1]) end
end
local left = tonumber(ARGV[3]) - spent - aside
if tonumber(ARGV[2]) > left then return string.format('%.6f', math.max(0, left)) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return ''
