-- Forgets the oldest events of a log, once what they told is kept as the log's base.
-- KEYS: base, stream. ARGV: id that the base stands at ('' none), its new id, its new state, first id that stays.
-- Returns 1, or 0 when another process was faster.
if (redis.call('HGET', KEYS[1], 'id') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'id', ARGV[2], 'state', ARGV[3])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4])
return 1
