-- Ends an attempt of a function that raised, and schedules the next one after a pause.
-- KEYS: record, rq job, rq wip, held, delayed
-- ARGV: id, worker, attempt, pause ms, detail
-- Returns 'ok', also for a repeat, or 'fenced'
write_though_full(KEYS[1])
local r = hmget(KEYS[1], 'state', 'worker', 'attempt')
local answer = 'ok'
if r[1] == 'running' and r[2] == ARGV[2] and r[3] == ARGV[3] then
  local time = redis.call('TIME')
  local due = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[4])
  redis.call('HSET', KEYS[1], 'state', 'delayed', 'due', due, 'detail', ARGV[5])
  redis.call('HDEL', KEYS[1], 'progress')
  redis.call('ZADD', KEYS[5], due, ARGV[1])
  redis.call('HSET', KEYS[2], 'status', 'scheduled')
elseif r[1] ~= 'delayed' or r[3] ~= ARGV[3] then
  answer = 'fenced'
else
  touch(KEYS[1])
end
release_hold(KEYS[4], KEYS[3], ARGV[1], ARGV[3], r[1], r[3])
return answer
