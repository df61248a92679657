-- Keeps runs out of a thread while its files are put back. ARGV: prefix, tenant, token, ms; again with the token: renews.
-- Returns {'ok'} {'missing'} {'busy', run} {'held'}
local prefix, tenant, token = ARGV[1], ARGV[2], ARGV[3]
local meta, hold = prefix .. 'metadata', prefix .. 'hold'
if redis.call('HGET', meta, 'tenant') ~= tenant then return {'missing'} end
if redis.call('GET', hold) == token then
  redis.call('PEXPIRE', hold, ARGV[4])
  return {'ok'}
end
local active = redis.call('HGET', meta, 'active')
if active ~= '' then return {'busy', active} end
if redis.call('SET', hold, token, 'NX', 'PX', ARGV[4]) then return {'ok'} end
return {'held'}
