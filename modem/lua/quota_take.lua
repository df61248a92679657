-- Counts a live sandbox of a tenant in; when there is no place, asks all workers for one, at most once until the sign
-- that somebody waits is taken or runs out.
-- KEYS: the tenant's places (HASH thread -> `owner until_ms`), its sign.
-- ARGV: thread, owner, places (0 any number), ms that a place is kept, ms that the sign stands, channel of all workers.
-- Returns the threads that hold all places; none when it was counted in.
local now, held = now_ms(), redis.call('HGETALL', KEYS[1])
local threads, mine = {}, false
for i = 1, #held, 2 do
  local till = tonumber(string.match(held[i + 1], ' (%d+)$'))
  if till < now then redis.call('HDEL', KEYS[1], held[i])
  elseif held[i] == ARGV[1] then mine = true
  else threads[#threads + 1] = held[i] end
end
local places = tonumber(ARGV[3])
if places > 0 and not mine and #threads >= places then
  if redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[5]) then
    redis.call('PUBLISH', ARGV[6], 'place|' .. table.concat(threads, ' '))
  end
  return threads
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. text(now + tonumber(ARGV[4])))
return {}
