-- Adds an inbox to those that a call wakes, and returns the call's fields as they are now.
-- KEYS: record
-- ARGV: inbox, field...
write_though_full(KEYS[1])
expired_now(KEYS[1])
local r = hmget(KEYS[1], 'inboxes', 'abandon', 'name')
local list = with_word(r[1], ARGV[1])
local values = hmget(KEYS[1], unpack(ARGV, 2))
-- The first field is the state: without it there is no such call, and one that has ended wakes nobody any more.
if list and values[1] and values[1] ~= 'ended' then redis.call('HSET', KEYS[1], 'inboxes', list, 'untold', '0') end
if values[1] and values[1] ~= 'ended' and r[2] then
  note_request(string.sub(KEYS[1], #'wt:call:' + 1), r[3], r[2], server_ms())
end
return values
