-- Starts an attempt of a call that this worker holds. A repeat by the same worker returns the same attempt.
-- KEYS: record, rq job, rq wip, held
-- ARGV: id, worker, now ms, now ISO, '1' if RQ's own worker runs it
-- Returns nil (nothing to run: the id is dropped), or {attempt, request}
local r = redis.call('HMGET', KEYS[1], 'state', 'worker', 'attempt', 'request', 'expires', 'result_ttl', 'inboxes')
local mine = r[1] == 'running' and r[2] == ARGV[2]
if r[1] ~= 'queued' and not mine then
  redis.call('LREM', KEYS[4], 1, ARGV[1])
  return false
end
local attempt = tonumber(r[3])
if attempt == 0 and tonumber(ARGV[3]) > tonumber(r[5]) then
  -- Nobody came for it in time; a handler that began now would surprise everybody.
  finish(KEYS[1], KEYS[2], ARGV[1], nil, ARGV[3], r[6], 'timeout', 'it waited for a worker longer than queue_ttl', {})
  wake(r[7], ARGV[1])
  redis.call('LREM', KEYS[4], 1, ARGV[1])
  return false
end
if not mine then
  attempt = attempt + 1
  redis.call('HSET', KEYS[1], 'state', 'running', 'worker', ARGV[2], 'attempt', attempt, 'started', ARGV[3])
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'stock', '1') end
  redis.call('HSET', KEYS[2], 'status', 'started', 'worker_name', ARGV[2], 'started_at', ARGV[4])
  -- +inf: RQ's own clean-up of started jobs goes by score, and must never find a call of ours.
  redis.call('ZADD', KEYS[3], '+inf', ARGV[1] .. ':' .. attempt)
end
return {attempt, r[4]}
