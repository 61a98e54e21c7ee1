-- Returns a call's fields, and its position in the queue: the difference of its sequence number and the first call's.
-- KEYS: record
-- ARGV: field...   (the first is the state, the second the sequence number, the third the queue's name, the last but
--       one the ms without a request after which it is abandoned)
-- Returns {position, values, number of keys that pause its queue}
expired_now(KEYS[1])
local values = hmget(KEYS[1], unpack(ARGV))
local ahead = 0
if values[#ARGV - 1] and values[1] ~= 'ended' then
  note_request(string.sub(KEYS[1], #'wt:call:' + 1), values[3], values[#ARGV - 1], server_ms())
end
if values[1] == 'queued' then
  local first = redis.call('LINDEX', 'rq:queue:wt:' .. values[3], 0)
  local seq = first and hget('wt:call:' .. first, 'seq')
  -- Calls that were put back keep their numbers, so the difference may exceed the queue's length.
  local last = redis.call('LLEN', 'rq:queue:wt:' .. values[3])
  if seq then ahead = math.min(last - 1, math.max(0, num(values[2], 0) - num(seq, 0))) end
end
local suspended = values[1] == 'queued' and paused(values[3]) or 0
return {ahead + 1, values, suspended}
