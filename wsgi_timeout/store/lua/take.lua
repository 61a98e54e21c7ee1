-- Starts an attempt of a call that this worker holds, or of the queue's next one, which it then holds.
-- A repeat by the same worker returns the same attempt.
-- KEYS: rq queue, rq wip, held
-- ARGV: id ('' = the next), worker, now ms, now ISO, '1' if RQ's own worker runs it, our wire version
-- Returns 'other' (a message of another wire version: it went to the end of the queue, for a worker that can read it), nil (nothing to run: the id is dropped), or {id, attempt, request, 1 if others wait, ms since it was accepted, the request's seal, '1' if it is to be on disk before it begins}
local id = ARGV[1]
if id == '' then
  -- What it holds already came with a reply that was lost: a worker asks like this when it has nothing.
  id = redis.call('LINDEX', KEYS[3], 0) or redis.call('LMOVE', KEYS[1], KEYS[3], 'LEFT', 'RIGHT')
  if not id then return false end
end
local record, job = 'wt:call:' .. id, 'rq:job:' .. id
local r = hmget(record, 'state', 'worker', 'attempt', 'request', 'expires', 'left', 'created', 'seal', 'durable')
local mine = r[1] == 'running' and r[2] == ARGV[2]
-- This worker was frozen, and its calls were recovered meanwhile: nobody would recover what it began now.
if r[6] and not joined(r[6], ARGV[2]) and not (is_list(KEYS[3]) and redis.call('LPOS', KEYS[3], id)) then
  return false
end
local late = tonumber(ARGV[3]) > num(r[5], 0)
if r[1] ~= 'queued' and not mine or late and expired(record, id, ARGV[3]) then
  if is_list(KEYS[3]) then redis.call('LREM', KEYS[3], 1, id) end
  return false
end
-- What is no version at all is junk, and ends.
local version = string.byte(r[4] or '') or 0
if not mine and ARGV[5] == '' and version ~= tonumber(ARGV[6]) and version > 0 and version < 32 then
  if is_list(KEYS[3]) then redis.call('LREM', KEYS[3], 1, id) end
  redis.call('RPUSH', KEYS[1], id)
  return 'other'
end
local attempt = num(r[3], 0)
if not mine then
  attempt = attempt + 1
  redis.call('HSET', record, 'state', 'running', 'worker', ARGV[2], 'attempt', attempt, 'started', ARGV[3])
  if ARGV[5] ~= '' then
    -- RQ has written its own worker's name into the job, which its commands go to.
    redis.call('HSET', record, 'stock', '1')
  else
    if attempt > 1 then redis.call('HDEL', record, 'stock') end
    redis.call('HSET', job, 'status', 'started', 'worker_name', ARGV[2], 'started_at', ARGV[4])
  end
  -- +inf: RQ's own clean-up of started jobs goes by score, and must never find a call of ours.
  redis.pcall('ZADD', KEYS[2], '+inf', id .. ':' .. attempt)
end
return {id, attempt, r[4], math.min(1, redis.call('LLEN', KEYS[1])), tonumber(ARGV[3]) - num(r[7], ARGV[3]), r[8] or '', r[9] or ''}
