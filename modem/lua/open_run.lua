-- Records a run and its `run.queued`, or says why not.
-- ARGV: prefix, tenant, run id, policy, idempotency key ('' none), body hash, idempotency ttl ms,
--       queue limit (0 none), run.queued payload, steering message payload, then field, value, ... of the run.
-- Returns {'missing'} {'held'} {'same', run} {'reused'} {'busy', run} {'full', length} {'steered', run}
--         {'ready', run} {'queued', run, active run}
local prefix, tenant, rid, policy = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local meta, run = prefix .. 'metadata', prefix .. 'run:' .. rid
if redis.call('HGET', meta, 'tenant') ~= tenant then return {'missing'} end
local idem = ARGV[5] ~= '' and prefix .. 'idem:' .. ARGV[5]
if idem then
  local known = redis.call('HMGET', idem, 'run', 'body')
  if known[1] then
    if known[2] == ARGV[6] then return {'same', known[1]} end
    return {'reused'}
  end
end
if redis.call('EXISTS', prefix .. 'hold') == 1 then return {'held'} end
local function remember(id)
  if not idem then return end
  redis.call('HSET', idem, 'run', id, 'body', ARGV[6])
  redis.call('PEXPIRE', idem, ARGV[7])
end
local now = now_ms()
local active = redis.call('HGET', meta, 'active')
if active ~= '' and policy == 'reject' then return {'busy', active} end
check_epoch(prefix, now)
if active ~= '' and policy == 'steer' then
  append(prefix, ARGV[10], now)
  remember(active)
  return {'steered', active}
end
local limit = tonumber(ARGV[8])
local queued = redis.call('LLEN', prefix .. 'queue')
if active ~= '' and limit > 0 and queued >= limit then return {'full', queued} end
redis.call('HSET', run, 'status', 'queued', 'fence', '0', 'attempt', '0', 'failures', '0', 'next_seq', '0', 'lease_until', '0',
  'tenant', tenant, 'created_at', text(now), 'waiting_for', active == '' and 'worker' or 'thread')
for i = 11, #ARGV, 2 do redis.call('HSET', run, ARGV[i], ARGV[i + 1]) end
redis.call('RPUSH', prefix .. 'runs', rid)
append(prefix, ARGV[9], now)
redis.call('HSET', meta, 'last_status', 'queued')
remember(rid)
if active == '' then
  redis.call('HSET', meta, 'active', rid)
  return {'ready', rid}
end
redis.call(policy == 'interrupt' and 'LPUSH' or 'RPUSH', prefix .. 'queue', rid)
return {'queued', rid, active}
