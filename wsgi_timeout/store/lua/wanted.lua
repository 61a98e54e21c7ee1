-- Notes that calls have a waiter: those of them that are abandoned when they have none.
-- KEYS: when calls are abandoned
-- ARGV: id...
-- Returns 1, or 0 if there are none
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then return 0 end
local now = server_ms()
for i, id in ipairs(ARGV) do
  if redis.call('ZSCORE', KEYS[1], id) then
    redis.call('ZADD', KEYS[1], 'XX', now + num(hget('wt:call:' .. id, 'abandon'), 0), id)
  end
end
return 1
