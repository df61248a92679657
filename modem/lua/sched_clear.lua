-- A suspect has finished a step or ended: the next one may go. KEYS: suspects, the suspect under way. ARGV: run id.
-- Returns 1 when another one waits.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
return redis.call('EXISTS', KEYS[1])
