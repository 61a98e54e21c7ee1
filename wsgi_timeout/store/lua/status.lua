-- Returns what a call is, and its place in the queue: by the sequence numbers of itself and of the first.
-- KEYS: record
-- ARGV: field...   (the first is the state, the second the sequence number, the third the queue's name, the last but
--       one how long it goes on when nobody asks)
expired_now(KEYS[1])
local values = hmget(KEYS[1], unpack(ARGV))
local ahead = 0
if values[#ARGV - 1] and values[1] ~= 'ended' then
  ask_for(string.sub(KEYS[1], #'wt:call:' + 1), values[3], values[#ARGV - 1], server_ms())
end
if values[1] == 'queued' then
  local first = redis.call('LINDEX', 'rq:queue:wt:' .. values[3], 0)
  local seq = first and hget('wt:call:' .. first, 'seq')
  -- Calls that were put back keep their numbers: no place is behind the end of the queue.
  local last = redis.call('LLEN', 'rq:queue:wt:' .. values[3])
  if seq then ahead = math.min(last - 1, math.max(0, num(values[2], 0) - num(seq, 0))) end
end
local suspended = values[1] == 'queued' and paused(values[3]) or 0
return {ahead + 1, values, suspended}
