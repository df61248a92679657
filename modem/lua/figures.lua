-- Adds what a process counted, once, and shows its gauges. KEYS: totals, processes.
-- ARGV: process, number of this report, component, gauges JSON, key prefix of minutes, keep a minute for s,
--       key prefix of days' costs, keep a day for s, then place, field, amount, ... where the place is
--       `t` the totals, `m` the totals and this minute, `c` the costs of today.
-- Returns the time (ms), and 1 to the one process that is to sample this minute's gauges.
local now = now_ms()
local minute = ARGV[5] .. text(math.floor(now / 60000))
local day = ARGV[7] .. text(math.floor(now / 86400000))
local seen = redis.call('HGET', KEYS[2], ARGV[1])
if not seen or tonumber(ARGV[2]) > cjson.decode(seen).number then
  local costs = false
  for i = 9, #ARGV, 3 do
    local place, field, amount = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if place == 'c' then
      redis.call('HINCRBYFLOAT', day, field, amount)
      costs = true
    else
      redis.call('HINCRBYFLOAT', KEYS[1], field, amount)
      if place == 'm' then redis.call('HINCRBYFLOAT', minute, field, amount) end
    end
  end
  if costs then redis.call('EXPIRE', day, ARGV[8]) end
end
redis.call('HSET', KEYS[2], ARGV[1],
  '{"number":' .. ARGV[2] .. ',"at":' .. text(now) .. ',"component":"' .. ARGV[3] .. '","gauges":' .. ARGV[4] .. '}')
local first = redis.call('HSETNX', minute, '=', '1')
redis.call('EXPIRE', minute, ARGV[6])
return {text(now), first}
