-- Writes a call's record without changing it, so that WAITAOF on this connection waits for all earlier writes.
-- KEYS: record
-- ARGV: state, attempt, worker ('' for any)
-- Returns 1, or 0: the call is in another state by now
local r = hmget(KEYS[1], 'state', 'attempt', 'worker')
if r[1] ~= ARGV[1] or num(r[2], 0) ~= tonumber(ARGV[2]) or (ARGV[3] ~= '' and r[3] ~= ARGV[3]) then return 0 end
touch(KEYS[1])
return 1
