-- The next run: a suspect when none is under way, else by turn of its tenant.
-- KEYS: tenants by turn, queued runs by time, turn counter, active runs, suspects, the suspect under way.
-- ARGV: key prefix of tenant queues, key prefix of tenants' runs in flight, in-flight limit (0 none), claim within ms,
--       how long a suspect keeps others waiting at most, ms. Returns the run id or ''.
if redis.call('EXISTS', KEYS[6]) == 0 then
  local suspect = redis.call('LPOP', KEYS[5])
  if suspect then
    redis.call('SET', KEYS[6], suspect, 'PX', ARGV[5])
    redis.call('ZADD', KEYS[4], text(now_ms() + tonumber(ARGV[4])), suspect)
    return suspect
  end
end
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
