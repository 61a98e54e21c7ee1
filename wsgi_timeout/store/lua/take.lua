-- Starts an attempt of a call that this worker holds, or of the queue's next one, which it then holds.
-- A repeat by the same worker returns the same attempt.
-- KEYS: rq queue, rq wip, held
-- ARGV: id ('' = the next), worker, now ms, now ISO, '1' if RQ's own worker runs it, our wire version, '1' if the worker
--   may run other calls meanwhile
-- Returns nil (nothing to run: the id is dropped); 'other' (a request of another wire version, which went to the end of the
--   queue for a worker that can read it); 'leaving' (a call of this worker was ended from outside, and its handler goes on:
--   the worker must take no other, and still holds this id); or {id, attempt, request, 1 if others waited before it, ms that it was queued,
--   the request's seal, '1' if the start must be on disk before the handler runs}
local id = ARGV[1]
if id == '' then
  -- A worker asks for the next call only when it has none: what it holds came with a reply that was lost.
  id = redis.call('LINDEX', KEYS[3], 0) or redis.call('LMOVE', KEYS[1], KEYS[3], 'LEFT', 'RIGHT')
  if not id then return false end
end
local record, job = 'wt:call:' .. id, 'rq:job:' .. id
local r = hmget(record, 'state', 'worker', 'attempt', 'request', 'expires', 'left', 'created', 'seal', 'durable', 'place',
  'queued')
local mine = r[1] == 'running' and r[2] == ARGV[2]
-- This worker was frozen, and its calls were recovered meanwhile: if it began one now, nobody would recover that.
if r[6] and not with_word(r[6], ARGV[2]) and not (is_list(KEYS[3]) and redis.call('LPOS', KEYS[3], id)) then
  return false
end
local late = tonumber(ARGV[3]) > num(r[5], 0)
if r[1] ~= 'queued' and not mine or late and expired(record, id, ARGV[3]) then
  if is_list(KEYS[3]) then redis.call('LREM', KEYS[3], 1, id) end
  return false
end
-- A first byte that cannot be a version is junk: the call begins here, and fails.
local version = string.byte(r[4] or '') or 0
if not mine and ARGV[5] == '' and version ~= tonumber(ARGV[6]) and version > 0 and version < 32 then
  if is_list(KEYS[3]) then redis.call('LREM', KEYS[3], 1, id) end
  redis.call('RPUSH', KEYS[1], id)
  return 'other'
end
if not mine and ARGV[7] == '1' and hget('wt:worker:' .. ARGV[2], 'leaving') then return 'leaving' end
local attempt = num(r[3], 0)
if not mine then
  attempt = attempt + 1
  redis.call('HSET', record, 'state', 'running', 'worker', ARGV[2], 'attempt', attempt, 'started', ARGV[3])
  if ARGV[5] ~= '' then
    -- RQ has written its worker's name into the job itself; its commands are sent to that worker.
    redis.call('HSET', record, 'stock', '1')
  else
    if attempt > 1 then redis.call('HDEL', record, 'stock') end
    redis.call('HSET', job, 'status', 'started', 'worker_name', ARGV[2], 'started_at', ARGV[4])
  end
  -- +inf: RQ's clean-up of started jobs goes by score, and must never find ours.
  redis.pcall('ZADD', KEYS[2], '+inf', id .. ':' .. attempt)
end
return {id, attempt, r[4], num(r[10], 1) > 1 and 1 or 0, tonumber(ARGV[3]) - num(r[11] or r[7], ARGV[3]), r[8] or '', r[9] or ''}
