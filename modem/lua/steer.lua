-- Puts a person's message into a run that has not ended. ARGV: prefix, run id, message payload. Returns the status or ''.
local prefix, rid = ARGV[1], ARGV[2]
local status = redis.call('HGET', prefix .. 'run:' .. rid, 'status')
if not status then return '' end
if not is_terminal(status) then append(prefix, ARGV[3], now_ms()) end
return status
