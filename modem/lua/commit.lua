-- The fenced append: a worker's events, all or none, once.
-- ARGV: prefix, run id, fence, run_seq (events this run's worker has appended before), turn, usage JSON,
--       1 when a step was finished, terminal status ('' none), reason, detail, events to keep, n payloads, n questions, n previews,
--       payloads..., question ids..., preview fields..., numbers of the payloads that outsiders may hear of (`1,3`)
-- Returns {'lost'} {'cancelled'} {'ok', epoch, first seq, promoted run}; a repeated call gives the first answer.
local prefix, rid, fence, run_seq = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local meta, run = prefix .. 'metadata', prefix .. 'run:' .. rid
local terminal, count = ARGV[8], tonumber(ARGV[12])
local f = redis.call('HMGET', run, 'fence', 'status', 'next_seq', 'cancel_requested', 'last_commit')
if f[1] ~= fence then return {'lost'} end
local next_seq = tonumber(f[3])
if next_seq == run_seq + count and f[5] then
  local seen = cjson.decode(f[5])
  if seen[1] == run_seq then return {'ok', seen[2], seen[3], seen[4]} end
end
if f[2] ~= 'running' or next_seq ~= run_seq then return {'lost'} end
if f[4] == '1' and terminal == '' then return {'cancelled'} end
local now, first, outside = now_ms(), 0, {}
for i in string.gmatch(ARGV[#ARGV], '%d+') do outside[tonumber(i)] = true end
for i = 1, count do
  local seq, id, envelope = append(prefix, ARGV[14 + i], now)
  if i == 1 then first = seq end
  if outside[i] then notify(prefix, rid, id, envelope) end
end
local at = 14 + count
for i = at + 1, at + tonumber(ARGV[13]) do redis.call('HSET', prefix .. 'questions', ARGV[i], rid) end
at = at + tonumber(ARGV[13])
for i = at + 1, at + tonumber(ARGV[14]) do redis.call('HDEL', prefix .. 'previews:' .. rid, ARGV[i]) end
local promoted = ''
if terminal ~= '' then
  promoted = close(prefix, rid, terminal, ARGV[9], ARGV[10], now)
  -- Only a backstop: modem/retention.py trims to the limit itself, and keeps what the trimmed events told.
  redis.call('XTRIM', prefix .. 'stream', 'MAXLEN', 2 * tonumber(ARGV[11]))
end
local epoch = redis.call('HGET', meta, 'epoch')
if ARGV[7] == '1' then
  redis.call('HSET', run, 'failures', '1')
  redis.call('HDEL', run, 'suspect')
end
redis.call('HSET', run, 'next_seq', text(run_seq + count), 'turn', ARGV[5], 'usage', ARGV[6],
  'last_commit', cjson.encode({run_seq, epoch, text(first), promoted}))
return {'ok', epoch, text(first), promoted}
