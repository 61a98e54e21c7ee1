-- Ends a call with the outcome of this attempt. A repeat after a lost reply returns 'ok' again.
-- Returns 'ok', or 'fenced': this attempt is not the current one any more
-- KEYS: record, rq job, rq wip, held, response body
-- ARGV: id, worker, attempt, now ms, outcome, detail, result TTL s, number of chunks in the body's stream ('' if none),
--       'head', head, 'body', body (of a small response; else other fields and values, as 'chunks', count for a
--       function's large result)
local r = hmget(KEYS[1], 'state', 'worker', 'attempt', 'inboxes', 'stock', 'name', 'method', 'path',
  'created', 'started', 'unwanted', 'untold', 'begun', 'route', 'durable', 'bytes', 'abandon', 'queued')
local answer = 'ok'
if r[1] == 'running' and r[2] == ARGV[2] and r[3] == ARGV[3] then
  local fields = {}
  for i = 9, #ARGV do fields[#fields + 1] = ARGV[i] end
  local outcome, detail = ARGV[5], ARGV[6]
  local keep = seconds_kept(ARGV[7], ARGV[4], r[11], r[12])
  -- A response with missing chunks must not look complete.
  if ARGV[8] ~= '' and outcome == 'done' and hget(KEYS[5], 'count') ~= ARGV[8] then
    outcome, detail = 'broken', 'Redis has lost a part of its response'
  end
  if r[11] then
    redis.call('UNLINK', KEYS[5])
    fields = {}
    if outcome == 'lost' then outcome, detail = 'cancelled', 'its client left before it ended' end
  end
  finish(KEYS[1], KEYS[2], ARGV[1], r[5], ARGV[4], keep, outcome, detail, fields)
  if r[17] and r[6] then redis.pcall('ZREM', 'wt:abandon:' .. r[6], ARGV[1]) end
  if outcome == 'done' and r[6] then
    local bytes = ARGV[8] == '' and fields[1] == 'head' and #ARGV[12] or response_bytes(ARGV[1], r[3])
    -- Where about as many are counted already, as those of its request, that is left to the recount.
    local saved = num(r[16], -1) - bytes
    if saved < 0 or saved > CARRIED then count_call(r[6], ARGV[1], bytes) end
    list_done(r[6], {ARGV[1], r[7] or '', string.sub(r[8] or '', 1, 200), r[3], ARGV[4], r[9] or ARGV[4], r[10] or ARGV[4],
      r[13] or ARGV[4], r[14] or '', r[18] or nil})
  end
  if ARGV[8] ~= '' and not r[11] then
    end_stream(KEYS[5], ARGV[1], outcome == 'done' and 'complete' or 'broken', ARGV[4], keep)
  end
  if ARGV[9] == 'chunks' then redis.call('EXPIRE', 'wt:value:' .. ARGV[1] .. ':' .. ARGV[3], ARGV[7]) end
  local message = ARGV[1]
  -- A small response is sent with the wake, so that waiters need not read it; unless it must be on disk first. With its
  -- attempt and times: accepted, queued again, taken, ended. So is a function's small result, which has no head.
  local head, body = '', nil
  if ARGV[9] == 'head' then head, body = ARGV[10], ARGV[12] elseif ARGV[9] == 'body' then body = ARGV[10] end
  if not r[15] and body and ARGV[5] == 'done' and #head + #body <= CARRIED then
    local stamps = string.format('%s:%d:%d:%d:%s', ARGV[3], counter(r[9]), counter(r[18]), counter(r[10]), ARGV[4])
    message = message .. ' ' .. stamps .. ' ' .. #head .. ' ' .. head .. body
  end
  wake(r[4], message)
elseif r[1] ~= 'ended' or r[2] ~= ARGV[2] or r[3] ~= ARGV[3] then
  answer = 'fenced'
  if not r[1] then forget_job(KEYS[2], ARGV[2]) end
else
  touch(KEYS[1])
end
release_hold(KEYS[4], KEYS[3], ARGV[1], ARGV[3], r[1], r[3])
return answer
