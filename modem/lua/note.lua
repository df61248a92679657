-- Appends events that belong to no run, by whoever holds the thread. ARGV: prefix, token, 1 to let go, payloads...
-- Returns {'missing'} {'lost'} {'ok', id...}
local prefix, token = ARGV[1], ARGV[2]
if redis.call('EXISTS', prefix .. 'metadata') == 0 then return {'missing'} end
if redis.call('GET', prefix .. 'hold') ~= token then return {'lost'} end
local now, answer = now_ms(), {'ok'}
check_epoch(prefix, now)
for i = 4, #ARGV do
  local _, id = append(prefix, ARGV[i], now)
  answer[#answer + 1] = id
end
if ARGV[3] == '1' then redis.call('DEL', prefix .. 'hold') end
return answer
