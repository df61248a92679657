-- The next run by turn of its tenant. KEYS: tenants by turn, queued runs by time, turn counter, active runs.
-- ARGV: key prefix of tenant queues, key prefix of tenants' runs in flight, in-flight limit (0 none), claim within ms.
-- Returns the run id or ''.
local limit = tonumber(ARGV[3])
for _, tenant in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local queue, flight = ARGV[1] .. tenant, ARGV[2] .. tenant
  if limit == 0 or redis.call('SCARD', flight) < limit then
    local rid = redis.call('LPOP', queue)
    if redis.call('LLEN', queue) == 0 then
      redis.call('ZREM', KEYS[1], tenant)
    else
      redis.call('ZADD', KEYS[1], redis.call('INCR', KEYS[3]), tenant)
    end
    if rid then
      redis.call('ZREM', KEYS[2], rid)
      redis.call('SADD', flight, rid)
      redis.call('ZADD', KEYS[4], text(now_ms() + tonumber(ARGV[4])), rid)
      return rid
    end
  end
end
return ''
