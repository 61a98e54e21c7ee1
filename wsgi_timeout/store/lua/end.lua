-- Ends a call from outside its handler: cancelled, timed out, lost. From now on writes of its attempt are refused.
-- A repeat after a lost reply, which has the same time and outcome, is answered as the first time.
-- KEYS: record, rq job
-- ARGV: id, now ms, outcome, detail, result TTL s or '' for the record's own, attempt or '' for any
-- Returns {'unknown'}, {'ended'} (it had ended before), or {'ok', the worker that must stop running it or '', '1' if
--   the end must be on disk before anybody is told}
local r = hmget(KEYS[1], 'state', 'worker', 'attempt', 'inboxes', 'name', 'stock', 'result_ttl', 'unwanted', 'untold', 'durable', 'ended',
  'outcome')
if not r[1] then return {'unknown'} end
if r[1] == 'ended' then
  if r[11] == ARGV[2] and r[12] == ARGV[3] then return {'ok', '', r[10] or ''} end
  return {'ended'}
end
if ARGV[6] ~= '' and ARGV[6] ~= r[3] then return {'ended'} end
local keep = seconds_kept(ARGV[5] ~= '' and ARGV[5] or r[7], ARGV[2], r[8], r[9])
finish(KEYS[1], KEYS[2], ARGV[1], r[6], ARGV[2], keep, ARGV[3], ARGV[4], {})
if r[3] ~= '0' then
  -- The name is read from the record, since the caller may know the id only.
  redis.pcall('ZREM', 'rq:wip:wt:' .. (r[5] or ''), ARGV[1] .. ':' .. (r[3] or ''))
  local body = 'wt:out:' .. ARGV[1] .. ':' .. (r[3] or '')
  if redis.call('EXISTS', body) == 1 then end_stream(body, ARGV[1], 'broken', ARGV[2], keep) end
end
wake(r[4], ARGV[1])
if r[1] ~= 'running' then return {'ok', '', r[10] or ''} end
-- Tell the pool of the worker that runs it, which interrupts the handler. From now on `take` refuses other calls there.
local worker = 'wt:worker:' .. (r[2] or '')
local pool = hget(worker, 'pool')
if pool then redis.call('HSET', worker, 'leaving', '1') end
wake(pool, ARGV[1])
return {'ok', r[2] or '', r[10] or ''}
