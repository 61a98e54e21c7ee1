-- Makes an inbox one of those that a call wakes, and returns what the call is now.
-- KEYS: record
-- ARGV: inbox, field...
although_full(KEYS[1])
expired_now(KEYS[1])
local list = joined(hget(KEYS[1], 'inboxes'), ARGV[1])
local values = hmget(KEYS[1], unpack(ARGV, 2))
-- The first field is the state: no state, no call; and an ended one wakes nobody any more.
if list and values[1] and values[1] ~= 'ended' then redis.call('HSET', KEYS[1], 'inboxes', list, 'untold', '0') end
return values
