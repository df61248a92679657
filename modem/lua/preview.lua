-- Shows a piece of something unfinished; kept (up to a limit) for subscribers that join in the middle.
-- ARGV: prefix, run id, fence, delta JSON, preview field, text, ttl ms, most bytes kept.
local prefix, rid = ARGV[1], ARGV[2]
if redis.call('HGET', prefix .. 'run:' .. rid, 'fence') ~= ARGV[3] then return 0 end
local key = prefix .. 'previews:' .. rid
local so_far = redis.call('HGET', key, ARGV[5]) or ''
if #so_far + #ARGV[6] <= tonumber(ARGV[8]) then
  redis.call('HSET', key, ARGV[5], so_far .. ARGV[6])
  redis.call('PEXPIRE', key, ARGV[7])
end
redis.call('PUBLISH', prefix .. 'live', '|' .. ARGV[4])
return 1
