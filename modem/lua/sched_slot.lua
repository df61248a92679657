-- When the next run that may have killed its worker goes on: one at a time, some seconds apart.
-- KEYS: last slot, active runs. ARGV: run id, spacing ms. Returns the slot's time in ms.
local now = now_ms()
local slot = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0') + tonumber(ARGV[2]))
redis.call('SET', KEYS[1], text(slot), 'PX', text(slot - now + tonumber(ARGV[2])))
redis.call('ZADD', KEYS[2], text(slot), ARGV[1])
return text(slot)
