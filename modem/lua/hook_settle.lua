-- What became of a delivery. KEYS: the queue, the notice, all dead notices, the tenant's dead notices.
-- ARGV: id, end of the lease, `delivered` | `again` | `later` | `dead`, result, wait ms, keep dead ones for ms,
--       most dead ones of a tenant, key prefix of notices. `later` is no attempt: nothing was sent.
-- Returns 0 when somebody deleted the notice, or another worker took it since; else 1.
local id, outcome, now = ARGV[1], ARGV[3], now_ms()
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if outcome == 'delivered' then
  redis.call('ZREM', KEYS[1], id)
  redis.call('DEL', KEYS[2])
  return 1
end
if tonumber(redis.call('ZSCORE', KEYS[1], id) or '0') ~= tonumber(ARGV[2]) then return 0 end
if outcome ~= 'later' then
  redis.call('HINCRBY', KEYS[2], 'attempts', 1)
  redis.call('HSET', KEYS[2], 'result', ARGV[4])
end
if outcome ~= 'dead' then
  redis.call('ZADD', KEYS[1], text(now + tonumber(ARGV[5])), id)
  return 1
end
local keep, most = tonumber(ARGV[6]), tonumber(ARGV[7])
redis.call('ZREM', KEYS[1], id)
redis.call('HSET', KEYS[2], 'died_at', text(now))
redis.call('PEXPIRE', KEYS[2], text(keep))
for i = 3, 4 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', text(now - keep))
  redis.call('ZADD', KEYS[i], text(now), id)
  redis.call('PEXPIRE', KEYS[i], text(keep))
end
local excess = redis.call('ZCARD', KEYS[4]) - most
if excess > 0 then
  local gone = redis.call('ZPOPMIN', KEYS[4], excess)
  for i = 1, #gone, 2 do
    redis.call('ZREM', KEYS[3], gone[i])
    redis.call('DEL', ARGV[8] .. gone[i])
  end
end
return 1
