-- Counts a live sandbox out, unless another worker has taken it over. KEYS: the tenant's places. ARGV: thread, owner.
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and string.match(held, '^(%S+) ') == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
