-- Shows a piece of something unfinished; kept (up to a limit) for subscribers that join in the middle.
-- ARGV: prefix, run id, fence, delta JSON, preview field, text, ttl ms, most bytes kept, offset.
-- Returns 1 when the piece is part of what is kept: after one that is not, none may be, or the text had a hole.
local prefix, rid = ARGV[1], ARGV[2]
if redis.call('HGET', prefix .. 'run:' .. rid, 'fence') ~= ARGV[3] then return 0 end
local key = prefix .. 'previews:' .. rid
local so_far = redis.call('HGET', key, ARGV[5]) or (ARGV[9] == '0' and '')
local fits = so_far and #so_far + #ARGV[6] <= tonumber(ARGV[8])
if fits then
  redis.call('HSET', key, ARGV[5], so_far .. ARGV[6])
  redis.call('PEXPIRE', key, ARGV[7])
end
redis.call('PUBLISH', prefix .. 'live', '|' .. ARGV[4])
return fits and 1 or 0
