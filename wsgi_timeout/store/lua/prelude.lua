-- Put before every script. A wake says "look again"; it may come twice, or not at all.
local INBOX_TTL = 60
-- Seconds that the end of a call is kept that nobody can ask for.
local UNWANTED_TTL = 60
-- Seconds that a response is kept of whose URL nobody was told yet: its waiter may be cut off from Redis so long.
local UNTOLD_TTL = 120
-- What `untold` says of a call whose first request gets the response: nobody will ever be told its URL. In ms.
local NEVER_TOLD = '9999999999999'
-- Seconds that the list of failed calls outlives its last entry.
local FAILED_TTL = 604800
-- Bytes of a response that a wake may carry: an inbox whose process has died lies there for its TTL.
local CARRIED = 4096
-- Runs of one call, whatever its record says.
local MOST_ATTEMPTS = 100

-- What stands in Redis may come from anybody: a key of another type is read as one that is not there, and a number that is
-- none as `default`.
local function hget(key, field)
  local value = redis.pcall('HGET', key, field)
  return type(value) == 'string' and value
end

local function hmget(key, ...)
  local values = redis.pcall('HMGET', key, ...)
  if values.err then
    values = {}
    for i = 1, select('#', ...) do values[i] = false end
  end
  return values
end

local function num(value, default) return tonumber(value or default) or default end

local function wake(inboxes, message)
  if not inboxes then return end
  for inbox in string.gmatch(inboxes, '%S+') do
    local key = 'wt:inbox:' .. inbox
    local pushed = redis.pcall('RPUSH', key, message)
    if type(pushed) == 'table' and pushed.err then
      redis.call('UNLINK', key)
      redis.call('RPUSH', key, message)
    end
    redis.call('EXPIRE', key, INBOX_TTL)
  end
end

-- Notes a request for a call that is abandoned when there is none for `after` ms.
local function ask_for(id, name, after, now)
  if num(after, 0) > 0 then redis.pcall('ZADD', 'wt:asked:' .. name, now + after, id) end
end

-- Returns this server's clock in ms.
local function server_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Returns how much has the workers of a name take nothing: `rq suspend`, and `wsgi-timeout pause` of the name, or of the one
-- before the colon in a queue of functions.
local function paused(name)
  return redis.call('EXISTS', 'rq:suspended', 'wt:paused:' .. name, 'wt:paused:' .. string.match(name, '^[^:]*'))
end

-- Adds a word to a space-separated list; returns nil if it stands there already.
local function joined(list, word)
  if not list or list == '' then return word end
  if string.find(' ' .. list .. ' ', ' ' .. word .. ' ', 1, true) then return nil end
  return list .. ' ' .. word
end

-- Writes a record as it is: WAITAOF waits for what its own connection has written, and a repeat has not yet.
local function touch(record)
  local ttl = redis.call('PTTL', record)
  if ttl > 0 then redis.call('PEXPIRE', record, ttl) end
end

-- A script that has written may go on writing, though Redis is full: for those without which what was
-- accepted could not end, and make room. It deletes a field that is never there.
local function although_full(hash) redis.pcall('HDEL', hash, '') end

-- Notes that a call which a worker held, and had not begun, went back to the queue: the worker may not know yet.
local function taken_from(record, worker)
  local list = joined(hget(record, 'left'), worker)
  if list then redis.call('HSET', record, 'left', list) end
end

-- Whether there is such a list. What a worker held is none any more when it is gone: see `recover`.
local function is_list(key) return redis.call('TYPE', key).ok == 'list' end

-- A worker is done with an attempt, which it found in this state. It may hold the call for the next attempt already.
local function let_go(held, wip, id, attempt, state, current)
  redis.pcall('ZREM', wip, id .. ':' .. attempt)
  -- Whatever it says: to ask first whether this is a list would be one command more for every call.
  if state ~= 'queued' and (state ~= 'running' or current == attempt) then redis.pcall('LREM', held, 1, id) end
end

-- Forgets the job of a call whose record was deleted while it ran. RQ's own worker deletes what it runs itself.
local function forget_job(job, worker)
  if hget(job, 'worker_name') == worker then redis.call('UNLINK', job) end
end

-- Lists a call that ended otherwise than done, for `wsgi-timeout calls --failed`: the last thousand of a name.
local function list_failed(record, id, now, outcome, detail)
  local r = hmget(record, 'name', 'method', 'path', 'attempt', 'created', 'started', 'begun', 'route')
  local key = 'wt:failed:' .. r[1]
  local entry = {id, r[2], string.sub(r[3], 1, 200), outcome, r[4], now, string.sub(detail, -500), r[5] or '', r[6] or '',
    r[7] or '', r[8] or ''}
  redis.pcall('LPUSH', key, cmsgpack.pack(entry))
  redis.pcall('LTRIM', key, 0, 999)
  redis.call('EXPIRE', key, FAILED_TTL)
end

-- Lists a call that is done, for `wsgi-timeout calls`: the last thousand of a name, and a few more between two cuts.
local function list_done(name, entry)
  local key = 'wt:done:' .. name
  local length = redis.pcall('LPUSH', key, cmsgpack.pack(entry))
  if type(length) == 'table' or length > 1 and length < 1200 then return end
  redis.pcall('LTRIM', key, 0, 999)
  redis.call('EXPIRE', key, FAILED_TTL)
end

-- An odd value in a key, which nobody of ours wrote, counts as none.
local function read(...)
  local answer = redis.pcall(...)
  return not (type(answer) == 'table' and answer.err) and answer or nil
end

-- Returns the bytes of a body in a stream.
local function kept(stream) return num(hget(stream, 'kept'), 0) end

-- Returns the bytes of arguments, or of a large result: chunks of one size, but for the last.
local function chunked(key)
  local chunks = num(read('HLEN', key), 0)
  if chunks == 0 then return 0 end
  return (chunks - 1) * num(read('HSTRLEN', key, '0'), 0) + num(read('HSTRLEN', key, tostring(chunks - 1)), 0)
end

-- Returns the bytes of what a call has answered with.
local function answered(id, attempt)
  return num(read('HSTRLEN', 'wt:call:' .. id, 'body'), 0) + kept('wt:out:' .. id .. ':' .. attempt)
    + chunked('wt:value:' .. id .. ':' .. attempt)
end

-- Returns the bytes of all that a call keeps here.
local function size(id, attempt)
  return num(read('HSTRLEN', 'wt:call:' .. id, 'request'), 0) + kept('wt:in:' .. id) + chunked('wt:args:' .. id)
    + answered(id, attempt)
end

-- Notes how many bytes a call keeps from now on. What cannot be counted, a later recount counts.
local function count_call(name, id, bytes)
  local key = 'wt:buffered:' .. name
  local counted = hmget(key, '*', id)
  local before = num(counted[2], 0)
  if bytes == before then return end
  local total = num(counted[1], 0) + bytes - before
  -- Not where somebody has written what is no number of bytes.
  if total > -2^53 and total < 2^53 then redis.pcall('HSET', key, '*', string.format('%d', total), id, bytes) end
end

-- Returns the seconds for which the end of a call is kept: not long where only its first request can ask for it.
local function kept_for(keep, now, unwanted, untold)
  if unwanted then return UNWANTED_TTL end
  if num(untold, 0) > tonumber(now) then return math.min(UNTOLD_TTL, num(keep, 86400)) end
  return keep
end

-- Ends a call: the one place that writes an outcome. `keep` is the seconds that it is kept unread.
-- To RQ a job that has ended is gone; a stock worker of RQ is not done with it yet, and deletes it itself.
-- The request goes: headers and bodies hold credentials, and nobody runs it again.
local function finish(record, job, id, stock, now, keep, outcome, detail, fields)
  -- First of all, since a full Redis takes every write of a script that began by freeing something.
  local input, arguments = 'wt:in:' .. id, 'wt:args:' .. id
  if stock then redis.call('UNLINK', input, arguments) else redis.call('UNLINK', job, input, arguments) end
  redis.call('HSET', record, 'state', 'ended', 'outcome', outcome, 'detail', detail, 'ended', now, 'request', '',
    unpack(fields))
  redis.call('EXPIRE', record, num(keep, 86400))
  if outcome == 'done' then return end
  local r = hmget(record, 'name', 'attempt')
  -- A large result of which only a part came is nobody's.
  if outcome ~= 'raised' then redis.call('UNLINK', 'wt:value:' .. id .. ':' .. (r[2] or '')) end
  if r[1] then count_call(r[1], id, answered(id, r[2] or 0)) end
  list_failed(record, id, now, outcome, detail)
end

-- Queues a call again: it has as long as at first to be come for.
local function requeued(record, now)
  local patience = hget(record, 'queue_ttl')
  redis.call('HSET', record, 'state', 'queued', 'expires', string.format('%d', now + num(patience, 86400000)))
end

-- Ends a call that nobody has come for in time: a handler that began now would surprise everybody.
-- Returns whether it did.
local function expired(record, id, now)
  local r = hmget(record, 'state', 'expires', 'result_ttl', 'inboxes', 'due', 'queue_ttl')
  -- After a pause before a retry too: no pool may be left to queue it.
  local last = r[1] == 'queued' and num(r[2], 0) or r[1] == 'delayed' and num(r[5], 0) + num(r[6], 0)
  if not last or tonumber(now) <= last then return false end
  local why = 'it waited for a worker longer than queue_ttl'
  finish(record, 'rq:job:' .. id, id, nil, now, r[3], 'timeout', why, {})
  wake(r[4], id)
  return true
end

-- The same at a request for the call, by this server's clock: there may be no worker to notice it.
local function expired_now(record)
  local time = redis.call('TIME')
  return expired(record, string.sub(record, string.len('wt:call:') + 1),
    string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)))
end
