-- Accepts a call. Idempotent by call id: a repeat after a lost reply changes nothing.
-- KEYS: record, rq queue, rq job, leases, sequence number while there are no calls, bytes of the calls, note of a first wait
--       (the record's key again if there is none), request body or arguments (only if they have a key of their own)
-- ARGV: id, max_queued, record TTL s, 1 if it needs a live worker, the last ms of this server's clock at which it may be
--       accepted, max_buffered_bytes, bytes of this call that are not counted yet, ms during which nobody is told
--       its URL, ms without a request for it after which it is abandoned ('0': never), token (from here on what the
--       record keeps), path, method, request, created, max_attempts, queue_ttl, expires, repeatable, result_ttl, data
--       (of RQ's job, as the next three), description, now ISO, timeout, more fields and values of the record...
-- The names of fields that every call has stand here: each word of a script's arguments costs Redis time.
-- Returns 'accepted', or why not: 'noted' (see store/first_waits.py), 'late', 'lost', 'no worker', 'paused', 'full',
--   'no room'

-- Whether a stock worker lives: an idle one has no lease, so RQ's own record of it is read.
local function stock_worker(queue)
  for _, key in ipairs(redis.call('SMEMBERS', (string.gsub(queue, '^rq:queue:', 'rq:workers:')))) do
    if redis.call('EXISTS', key) == 1 and redis.pcall('HEXISTS', key, 'death') == 0 then return true end
  end
  return false
end

-- One EXISTS for two questions. The leases are named three times: the quotient by 3 says whether a worker lives, the
-- remainder whether the record or the note exists.
local there = redis.call('EXISTS', KEYS[4], KEYS[4], KEYS[4], KEYS[1], KEYS[7])
if there % 3 > 0 then
  touch(KEYS[1])
  return redis.call('EXISTS', KEYS[1]) == 1 and 'accepted' or 'noted'
end
-- The command was delayed, and its sender has told the client by now that the call was refused.
local now = server_ms()
if now > tonumber(ARGV[5]) then return 'late' end
if KEYS[8] and redis.call('EXISTS', KEYS[8]) == 0 then return 'lost' end
if ARGV[4] == '1' and there < 3 and not stock_worker(KEYS[2]) then return 'no worker' end
-- The sequence number lies beside the bytes, so that both are counted by one command. While there are no calls `recount`
-- keeps it in a key of its own.
local counted = hmget(KEYS[6], '*', '#', ARGV[1])
local bytes = counter(counted[1]) + ARGV[7]
if bytes > tonumber(ARGV[6]) then return 'no room' end
local place = redis.call('RPUSH', KEYS[2], ARGV[1])
if place > tonumber(ARGV[2]) then
  redis.call('RPOP', KEYS[2])
  return paused(string.sub(KEYS[2], #'rq:queue:wt:' + 1)) > 0 and 'paused' or 'full'
end
local seq = counted[2] and counter(counted[2]) + 1 or counter(read('INCR', KEYS[5]))
-- The chunks of a request body were counted as they were written. The field '+' tells workers the limit: see `write`.
local counts = {'*', string.format('%d', bytes), '#', string.format('%d', seq), '+', ARGV[6], ARGV[1],
  (KEYS[8] and num(counted[3], 0) or 0) + ARGV[7]}
local done = redis.pcall('HSET', KEYS[6], unpack(counts))
if type(done) == 'table' then
  -- The key is no hash: start again at zero; `recount` corrects it.
  redis.call('UNLINK', KEYS[6])
  redis.call('HSET', KEYS[6], unpack(counts))
end
local untold = ARGV[8] == '0' and '0' or string.format('%d', now + ARGV[8])
local name = string.sub(KEYS[2], #'rq:queue:wt:' + 1)
note_request(ARGV[1], name, ARGV[9], now)
redis.call('HSET', KEYS[1], 'state', 'queued', 'attempt', '0', 'seq', seq, 'place', place, 'untold', untold, 'name', name,
  'token', ARGV[10], 'path', ARGV[11], 'method', ARGV[12], 'request', ARGV[13], 'created', ARGV[14],
  'max_attempts', ARGV[15], 'queue_ttl', ARGV[16], 'expires', ARGV[17], 'repeatable', ARGV[18], 'result_ttl', ARGV[19],
  unpack(ARGV, 24))
redis.call('EXPIRE', KEYS[1], ARGV[3])
-- `rq worker` deletes the job at its end; the call's own record is kept.
redis.call('HSET', KEYS[3], 'data', ARGV[20], 'origin', string.sub(KEYS[2], #'rq:queue:' + 1), 'description', ARGV[21],
  'status', 'queued', 'created_at', ARGV[22], 'enqueued_at', ARGV[22], 'timeout', ARGV[23], 'result_ttl', '0',
  'failure_ttl', '3600')
redis.call('EXPIRE', KEYS[3], ARGV[3])
-- Until now the chunks had a TTL of a minute, in case their call was never queued.
if KEYS[8] then redis.call('EXPIRE', KEYS[8], ARGV[3]) end
return 'accepted'
