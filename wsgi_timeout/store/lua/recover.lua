-- Settles all calls that a dead worker held, and forgets the worker.
-- KEYS: leases, held, rq queue, rq wip, rq workers, rq workers of the queue, rq worker, worker
-- ARGV: worker, the lease as last seen ('': its death is certain), now ms, detail, name of the rq worker's key,
--       FENCE_TTL s
-- Returns nil if it lives, else {id, 'requeued' | 'lost' | 'cancelled' | 'dropped', ...}
if ARGV[2] ~= '' and hget(KEYS[1], ARGV[1]) ~= ARGV[2] then return false end
-- First, since a full Redis accepts the writes of a script that began by freeing memory: see `finish`.
redis.call('SREM', KEYS[5], ARGV[5])
local settled = {}
local ids = is_list(KEYS[2]) and redis.call('LRANGE', KEYS[2], 0, -1) or {}
for i = #ids, 1, -1 do
  local id = ids[i]
  local record, job = 'wt:call:' .. id, 'rq:job:' .. id
  local r = hmget(record, 'state', 'worker', 'attempt', 'max_attempts', 'repeatable', 'handed',
    'inboxes', 'result_ttl', 'stock', 'unwanted', 'method', 'name', 'untold')
  local what = 'dropped'
  if r[1] == 'queued' then
    what = 'requeued'
  elseif r[1] == 'running' and r[2] == ARGV[1] then
    redis.call('ZREM', KEYS[4], id .. ':' .. r[3])
    local body = 'wt:out:' .. id .. ':' .. r[3]
    local trimmed = num(hget('wt:in:' .. id, 'first'), 0) > 0
    r[8] = seconds_kept(r[8], ARGV[3], r[10], r[13])
    -- A safe request that nobody asks for need not run again.
    local needless = r[10] and (r[11] == 'GET' or r[11] == 'HEAD' or r[11] == 'OPTIONS')
    -- RQ's stop command kills the process that runs the job; only the job's status tells that from a crash.
    local stopped = r[9] and hget(job, 'status') == 'stopped'
    if r[5] == '1' and not r[6] and not trimmed and not stopped and not needless and num(r[3], 1) < math.min(num(r[4], 1), MOST_ATTEMPTS) then
      what = 'requeued'
      requeue(record, ARGV[3])
      redis.call('HDEL', record, 'worker', 'head', 'progress')
      redis.call('UNLINK', body)
      if r[12] then count_call(r[12], id, call_bytes(id, r[3])) end
      -- The next run reads the request body from its beginning.
      redis.call('HDEL', 'wt:in:' .. id, 'read', 'readers')
      redis.call('HSET', job, 'status', 'queued')
    else
      what = stopped and 'cancelled' or 'lost'
      finish(record, job, id, r[9], ARGV[3], r[8], what, stopped and 'cancelled' or ARGV[4], {})
      if redis.call('EXISTS', body) == 1 then end_stream(body, id, 'broken', ARGV[3], r[8]) end
      wake(r[7], id)
    end
  elseif not r[1] then
    forget_job(job, ARGV[1])
    -- Its attempt is not known any more, so look at all entries: one for each running call.
    for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '+inf', '+inf')) do
      if string.find(entry, id .. ':', 1, true) == 1 then redis.call('ZREM', KEYS[4], entry) end
    end
  end
  -- To the front of the queue, and in their old order: they have waited already.
  if what == 'requeued' then
    redis.call('LPUSH', KEYS[3], id)
    note_left(record, ARGV[1])
  end
  settled[#settled + 1] = id
  settled[#settled + 1] = what
end
redis.call('UNLINK', KEYS[7], KEYS[8])
-- A BLMOVE of this worker may still arrive, minutes later. It fails while the key holds a string.
redis.call('SET', KEYS[2], 'gone', 'EX', ARGV[6])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[6], ARGV[5])
return settled
