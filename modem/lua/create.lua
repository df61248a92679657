-- Makes a thread. KEYS: its metadata, then what was put in place before and is to stay. ARGV: prefix, then field, value, ...
-- Returns 1, or 0 when the id exists, or when something was put in place and the thread is not expected any more.
local prefix = ARGV[1]
local meta = prefix .. 'metadata'
if redis.call('EXISTS', meta) == 1 then return 0 end
if #KEYS > 1 and redis.call('DEL', prefix .. 'expected') == 0 then return 0 end
local now = now_ms()
redis.call('HSET', meta, 'seq', '0', 'active', '', 'created_at', text(now), 'updated_at', text(now))
for i = 2, #ARGV, 2 do redis.call('HSET', meta, ARGV[i], ARGV[i + 1]) end
for i = 2, #KEYS do redis.call('PERSIST', KEYS[i]) end
check_epoch(prefix, now)
return 1
