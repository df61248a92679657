-- Adds what a process counted to the totals, once, and shows its gauges. KEYS: totals, processes.
-- ARGV: process, number of this report, component, gauges JSON, then field, amount, ...  Returns the time (ms).
local seen = redis.call('HGET', KEYS[2], ARGV[1])
if not seen or tonumber(ARGV[2]) > cjson.decode(seen).number then
  for i = 5, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
local now = text(now_ms())
redis.call('HSET', KEYS[2], ARGV[1],
  '{"number":' .. ARGV[2] .. ',"at":' .. now .. ',"component":"' .. ARGV[3] .. '","gauges":' .. ARGV[4] .. '}')
return now
