-- Goes through some of a name's calls: counts again how many bytes are kept for each, forgets calls that are gone, and ends
-- calls that RQ's own tools took out of the queue. All processes share one scan; one that comes too early does nothing.
-- KEYS: bytes of the calls, delayed, when calls are abandoned, sequence number while there are no calls
-- ARGV: how many at most, least ms between two runs
-- Returns {ids that were taken out of the queue, ids of calls that nobody asks for}
if redis.call('EXISTS', KEYS[1]) == 0 then return {{}, {}} end
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local last = hmget(KEYS[1], '>', '@')
if now - num(last[2], 0) < tonumber(ARGV[2]) then return {{}, {}} end

-- Whether RQ's tools took a call out of the queue: its job was deleted or cancelled. RQ's own worker deletes the jobs that
-- it has run, also of a call that will be retried.
local function taken_out(id, state, stock)
  if state ~= 'queued' and (state ~= 'delayed' or stock) then return false end
  local job = redis.pcall('HGET', 'rq:job:' .. id, 'status')
  return not job or job == 'canceled'
end

local function cancel(id, r)
  redis.call('ZREM', KEYS[2], id)
  local why = 'taken out of the queue with RQ\'s own tools'
  finish('wt:call:' .. id, 'rq:job:' .. id, id, r[5], now, r[3], 'cancelled', why, {})
  wake(r[4], id)
end

-- Waiters report every second, but cannot while Redis is away: after a gap of AWAY_MS no call is taken for abandoned.
local AWAY_MS, SOON_MS = 5000, 10000

-- Returns the calls for which nobody has asked for `abandon` ms: running ones, and those of `remote`, whose caller was the
-- only one to know them, in any state.
local function abandoned()
  if redis.call('TYPE', KEYS[3]).ok ~= 'zset' then return {} end
  local due, unasked = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 100), {}
  for _, id in ipairs(due) do
    local r = hmget('wt:call:' .. id, 'state', 'abandon', 'method')
    if not r[1] or r[1] == 'ended' or num(r[2], 0) <= 0 then
      redis.call('ZREM', KEYS[3], id)
    elseif r[1] ~= 'running' and r[3] ~= 'CALL' then
      -- The time counts from its start, roughly.
      redis.call('ZADD', KEYS[3], now + r[2], id)
    else
      -- Look again soon, in case ending it fails.
      redis.call('ZADD', KEYS[3], now + SOON_MS, id)
      if now - num(last[2], 0) <= AWAY_MS then unasked[#unasked + 1] = id end
    end
  end
  return unasked
end

local found = redis.pcall('HSCAN', KEYS[1], last[1] or '0', 'COUNT', ARGV[1])
if found.err then found = {'0', {}} end
-- Of a response that was sent at once nothing is left by then; what `finish` has counted is good enough.
local FRESH_MS = 3000
local cancelled, more = {}, 0
for i = 1, #found[2], 2 do
  local id, before = found[2][i], num(found[2][i + 1], 0)
  if #id > 1 then
    local r = hmget('wt:call:' .. id, 'state', 'attempt', 'result_ttl', 'inboxes', 'stock', 'ended')
    local fresh = r[1] == 'ended' and math.abs(now - num(r[6], 0)) < FRESH_MS
    if r[1] and tonumber(r[3]) and taken_out(id, r[1], r[5]) then
      cancel(id, r)
      cancelled[#cancelled + 1] = id
    end
    -- A call that is not accepted yet may have a body.
    local bytes = fresh and before or r[1] and call_bytes(id, r[2] or 0) or stream_bytes('wt:in:' .. id)
    if not r[1] and bytes == 0 then
      redis.call('HDEL', KEYS[1], id)
    elseif bytes ~= before then
      redis.call('HSET', KEYS[1], id, bytes)
    end
    more = more + bytes - before
  end
end
-- RQ never removes a job that is gone from its list of cancelled ones.
local listed = 'rq:canceled:wt:' .. string.sub(KEYS[1], #'wt:buffered:' + 1)
for _, id in ipairs(read('ZRANGE', listed, 0, 99) or {}) do
  if redis.call('EXISTS', 'rq:job:' .. id) == 0 then redis.call('ZREM', listed, id) end
end
local total = num(hget(KEYS[1], '*'), 0) + more
if not last[1] or last[1] == '0' then
  if found[1] == '0' then
    -- One scan returned all calls, so their sum replaces the total.
    total = 0
    local all = redis.call('HGETALL', KEYS[1])
    for i = 1, #all, 2 do
      if #all[i] > 1 then total = total + num(all[i + 1], 0) end
    end
  end
end
if total <= 0 and redis.call('HLEN', KEYS[1]) <= 5 then
  local sequence = hget(KEYS[1], '#')
  if sequence then redis.call('SET', KEYS[4], sequence) end
  redis.call('UNLINK', KEYS[1])
else
  redis.call('HSET', KEYS[1], '*', math.max(0, total), '>', found[1], '@', now)
end
return {cancelled, abandoned()}
