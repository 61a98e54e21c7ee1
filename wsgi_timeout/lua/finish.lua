-- Ends this attempt of a call with its outcome. A repeat after a lost reply returns 'ok' again.
-- KEYS: record, rq job, rq wip, rq worker, held, response body
-- ARGV: id, worker, attempt, now ms, now ISO, outcome, detail, result TTL s, last chunk's number or '', fields...
local r = redis.call('HMGET', KEYS[1], 'state', 'worker', 'attempt', 'inboxes')
local answer = 'ok'
-- A worker that was given up for dead is not listed again by its last words.
local listed = redis.call('EXISTS', KEYS[4]) == 1
if r[1] == 'running' and r[2] == ARGV[2] and r[3] == ARGV[3] then
  local fields = {}
  for i = 10, #ARGV do fields[#fields + 1] = ARGV[i] end
  finish(KEYS[1], KEYS[2], ARGV[1], ARGV[4], ARGV[5], ARGV[8], ARGV[6], ARGV[7], fields)
  if ARGV[9] ~= '' then
    redis.call('HSET', KEYS[6], 'end', ARGV[6] == 'done' and 'complete' or 'broken')
    redis.call('EXPIRE', KEYS[6], ARGV[8])
    wake(redis.call('HGET', KEYS[6], 'readers'), ARGV[1])
  end
  wake(r[4], ARGV[1])
  if listed then
    redis.call('HINCRBY', KEYS[4], ARGV[6] == 'done' and 'successful_job_count' or 'failed_job_count', 1)
  end
elseif r[1] ~= 'ended' or r[2] ~= ARGV[2] or r[3] ~= ARGV[3] then
  answer = 'fenced'
end
redis.call('ZREM', KEYS[3], ARGV[1] .. ':' .. ARGV[3])
redis.call('LREM', KEYS[5], 1, ARGV[1])
if listed then redis.call('HSET', KEYS[4], 'state', 'idle') end
return answer
