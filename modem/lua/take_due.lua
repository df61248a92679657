-- Hands out members that are due; nobody else gets them before the lease ends. KEYS: the queue. ARGV: at most, lease ms.
-- Returns the lease's end, which `hook_settle` asks for, then the members.
local now = now_ms()
local lease = text(now + tonumber(ARGV[2]))
local answer = {lease}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'LIMIT', 0, ARGV[1])) do
  redis.call('ZADD', KEYS[1], lease, id)
  answer[#answer + 1] = id
end
return answer
