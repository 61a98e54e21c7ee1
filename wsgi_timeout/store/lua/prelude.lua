-- What a script uses of this is put before it; a part that begins with 'Seldom' makes its functions when it is called.
-- A wake tells a process to look at a call again; it may come twice, or not at all.
local INBOX_TTL = 60
-- Seconds that the outcome of a call is kept that nobody can ask for.
local UNWANTED_TTL = 60
-- Seconds that a response is kept whose URL nobody was told yet: the web process that waits for it may be cut off from
-- Redis for a while.
local UNTOLD_TTL = 120
-- The value of `untold`, in ms, once a first request reads the response: its URL will never be told.
local NEVER_TOLD = '9999999999999'
-- Seconds that the lists of failed and done calls are kept after their last entry.
local FAILED_TTL = 604800
-- Most bytes of a response that a wake may carry: the inbox of a process that has died uses memory until its TTL ends.
local CARRIED = 4096
-- Most runs of one call, whatever its record says.
local MOST_ATTEMPTS = 100

-- Runs a command that reads; nil for a key of another type, and where others have written what is no number. Any other
-- error ends the script, as a right that is refused: what cannot be read is not missing.
local function read(...)
  local answer = redis.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  local junk = string.find(answer.err, 'WRONGTYPE', 1, true) or string.find(answer.err, 'not an integer', 1, true)
    or string.find(answer.err, 'overflow', 1, true)
  if not junk then redis.call(...) end
  return nil
end

-- Others may have written to our keys. A key of another type is read as a missing one, and what is not a number as
-- `default`.
local function hget(key, field) return read('HGET', key, field) end

local function hmget(key, ...)
  local values = read('HMGET', key, ...)
  if not values then
    values = {}
    for i = 1, select('#', ...) do values[i] = false end
  end
  return values
end

local function num(value, default) return tonumber(value or default) or default end

-- Returns a counter; 0 if others have written what is none, as 'nan' or '1e99'.
local function counter(value)
  local count = num(value, 0)
  return count > -2^53 and count < 2^53 and count or 0
end

local function wake(inboxes, message)
  if not inboxes then return end
  for inbox in string.gmatch(inboxes, '%S+') do
    local key = 'wt:inbox:' .. inbox
    local pushed = redis.pcall('RPUSH', key, message)
    if type(pushed) == 'table' then
      redis.call('UNLINK', key)
      pushed = redis.call('RPUSH', key, message)
    end
    -- In a burst not each time: whoever reads it empties it many times a second.
    if pushed % 50 == 1 then redis.call('EXPIRE', key, INBOX_TTL) end
  end
end

-- Notes that somebody asked for a call, which is abandoned `after` ms without such a request.
local function note_request(id, name, after, now)
  if num(after, 0) > 0 then redis.pcall('ZADD', 'wt:abandon:' .. name, now + after, id) end
end

-- Returns this server's clock in ms.
local function server_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Returns how many keys pause the workers of a name: `rq suspend`, and `wsgi-timeout pause` of the name itself or, for a
-- queue of functions, of the name before the colon.
local function paused(name)
  return redis.call('EXISTS', 'rq:suspended', 'wt:paused:' .. name, 'wt:paused:' .. string.match(name, '^[^:]*'))
end

-- Returns a space-separated list with a word added; nil if it has the word already.
local function with_word(list, word)
  if not list or list == '' then return word end
  if string.find(' ' .. list .. ' ', ' ' .. word .. ' ', 1, true) then return nil end
  return list .. ' ' .. word
end

-- Writes a key without changing it: WAITAOF waits only for writes of its own connection, and a repeated script may have
-- made none.
local function touch(record)
  local ttl = redis.call('PTTL', record)
  if ttl > 0 then redis.call('PEXPIRE', record, ttl) end
end

-- Lets this script write while Redis is full, by deleting a field that never exists: Redis accepts the writes of a script
-- that began with a command that needs no memory. Used where calls could otherwise not end and free memory.
local function write_though_full(hash) redis.pcall('HDEL', hash, '') end

-- Notes that a call which a worker held went back to the queue; the worker may not know yet.
local function note_left(record, worker)
  local list = with_word(hget(record, 'left'), worker)
  if list then redis.call('HSET', record, 'left', list) end
end

-- Whether a key holds a list. The key of a dead worker's calls holds a string instead: see `recover`.
local function is_list(key) return redis.call('TYPE', key).ok == 'list' end

-- Removes a call from those that a worker holds, after an attempt; `state` and `current` are what the record said. The
-- worker may hold the call for its next attempt already.
local function release_hold(held, wip, id, attempt, state, current)
  redis.pcall('ZREM', wip, id .. ':' .. attempt)
  -- With pcall, since asking first whether this is a list would cost each call one more command.
  if state ~= 'queued' and (state ~= 'running' or current == attempt) then redis.pcall('LREM', held, 1, id) end
end

-- Deletes the RQ job of a call whose record was deleted while it ran. RQ's own worker deletes its jobs itself.
local function forget_job(job, worker)
  if hget(job, 'worker_name') == worker then redis.call('UNLINK', job) end
end

-- Seldom. Adds a call with another outcome than 'done' to the list that `wsgi-timeout calls --failed` shows, of the last thousand.
local function list_failed(record, id, now, outcome, detail)
  local r = hmget(record, 'name', 'method', 'path', 'attempt', 'created', 'started', 'begun', 'route', 'queued')
  local key = 'wt:failed:' .. r[1]
  local entry = {id, r[2], string.sub(r[3], 1, 200), outcome, r[4], now, string.sub(detail, -500), r[5] or '', r[6] or '',
    r[7] or '', r[8] or '', r[9] or nil}
  redis.pcall('LPUSH', key, cmsgpack.pack(entry))
  redis.pcall('LTRIM', key, 0, 999)
  redis.call('EXPIRE', key, FAILED_TTL)
end

-- Adds a call with the outcome 'done' to the list that `wsgi-timeout calls` shows: of the last thousand, and up to 200
-- more, so that it need not be trimmed each time.
local function list_done(name, entry)
  local key = 'wt:done:' .. name
  local length = redis.pcall('LPUSH', key, cmsgpack.pack(entry))
  if type(length) == 'table' or length > 1 and length < 1200 then return end
  redis.pcall('LTRIM', key, 0, 999)
  redis.call('EXPIRE', key, FAILED_TTL)
end

-- Returns the bytes of a stream that are kept.
local function stream_bytes(stream) return num(hget(stream, 'kept'), 0) end

-- Returns the bytes of large arguments or of a large result: all chunks but the last have the same size.
local function chunks_bytes(key)
  local chunks = num(read('HLEN', key), 0)
  if chunks == 0 then return 0 end
  return (chunks - 1) * num(read('HSTRLEN', key, '0'), 0) + num(read('HSTRLEN', key, tostring(chunks - 1)), 0)
end

-- Seldom. Returns the bytes of a call's response or result.
local function response_bytes(id, attempt)
  return num(read('HSTRLEN', 'wt:call:' .. id, 'body'), 0) + stream_bytes('wt:out:' .. id .. ':' .. attempt)
    + chunks_bytes('wt:value:' .. id .. ':' .. attempt)
end

-- Returns all bytes that are kept for a call.
local function call_bytes(id, attempt)
  local run = id .. ':' .. attempt
  local request = num(read('HSTRLEN', 'wt:call:' .. id, 'request'), 0)
  -- Most calls have none of these, which one command tells.
  if redis.call('EXISTS', 'wt:in:' .. id, 'wt:args:' .. id, 'wt:out:' .. run, 'wt:value:' .. run) == 0 then
    return request + num(read('HSTRLEN', 'wt:call:' .. id, 'body'), 0)
  end
  return request + stream_bytes('wt:in:' .. id) + chunks_bytes('wt:args:' .. id) + response_bytes(id, attempt)
end

-- Records how many bytes are kept for a call from now on. `recount` corrects what is not counted here.
local function count_call(name, id, bytes)
  local key = 'wt:buffered:' .. name
  local counted = hmget(key, '*', id)
  local before = num(counted[2], 0)
  if bytes == before then return end
  redis.pcall('HSET', key, '*', string.format('%d', counter(counted[1]) + bytes - before), id, bytes)
end

-- Returns for how many seconds the outcome of a call is kept: not long if only its first request can ask for it.
local function seconds_kept(keep, now, unwanted, untold)
  if unwanted then return UNWANTED_TTL end
  if num(untold, 0) > tonumber(now) then return math.min(UNTOLD_TTL, num(keep, 86400)) end
  return keep
end

-- Returns seconds that can be a TTL; a day in place of what is none.
local function ttl(value)
  local seconds = tonumber(value or 86400) or -1
  return seconds >= 0 and seconds < 2^31 and math.floor(seconds) or 86400
end

-- Ends a call; only this function writes an outcome. `keep`: for how many seconds it is kept if nobody reads it.
-- RQ's job is deleted; but a stock worker of RQ still uses it, and deletes it itself.
-- The request is deleted, since headers and bodies hold credentials, and it will not run again.
local function finish(record, job, id, stock, now, keep, outcome, detail, fields)
  -- First, since a full Redis accepts the writes of a script that began by freeing memory.
  local input, arguments = 'wt:in:' .. id, 'wt:args:' .. id
  if stock then redis.call('UNLINK', input, arguments) else redis.call('UNLINK', job, input, arguments) end
  redis.call('HSET', record, 'state', 'ended', 'outcome', outcome, 'detail', detail, 'ended', now, 'request', '',
    unpack(fields))
  redis.call('EXPIRE', record, ttl(keep))
  if outcome == 'done' then return end
  local r = hmget(record, 'name', 'attempt')
  -- Part of a large result is of no use.
  if outcome ~= 'raised' then redis.call('UNLINK', 'wt:value:' .. id .. ':' .. (r[2] or '')) end
  if r[1] then count_call(r[1], id, response_bytes(id, r[2] or 0)) end
  list_failed(record, id, now, outcome, detail)
end

-- Marks a call as queued again, with a new `queue_ttl`.
local function requeue(record, now)
  local patience = hget(record, 'queue_ttl')
  redis.call('HSET', record, 'state', 'queued', 'queued', string.format('%d', now), 'started', '',
    'expires', string.format('%d', now + num(patience, 86400000)))
end

-- Seldom. Ends the stream of a response: 'complete' or 'broken'. Its readers learn from it when the attempt ended.
local function end_stream(body, id, how, now, keep)
  redis.call('HSET', body, 'end', how, 'ended', now)
  redis.call('EXPIRE', body, ttl(keep))
  wake(hget(body, 'readers'), id)
end

-- Seldom. Ends a call that no worker has taken within `queue_ttl`: nobody expects it to run any more. Returns whether it did.
local function expired(record, id, now)
  local r = hmget(record, 'state', 'expires', 'result_ttl', 'inboxes', 'due', 'queue_ttl')
  -- Also while it waits for a retry: there may be no pool left that would queue it.
  local last = r[1] == 'queued' and num(r[2], 0) or r[1] == 'delayed' and num(r[5], 0) + num(r[6], 0)
  if not last or tonumber(now) <= last then return false end
  local why = 'it waited for a worker longer than queue_ttl'
  finish(record, 'rq:job:' .. id, id, nil, now, r[3], 'timeout', why, {})
  wake(r[4], id)
  return true
end

-- The same by this server's clock, when somebody asks for the call: there may be no worker that would notice.
local function expired_now(record)
  local time = redis.call('TIME')
  return expired(record, string.sub(record, string.len('wt:call:') + 1),
    string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)))
end
